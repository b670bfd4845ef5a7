//! Forwards the calls to a sandbox's files.

use crate::{Arguments, Around, Kind, sandbox::WrappedSandbox};
use async_trait::async_trait;
use sandbox_core::{
    Body, BoxStream, FileContents, FileInfo, Files, GlobOptions, ListFilesOptions, MkdirOptions,
    PermissionOptions, ReadOptions, RemoveOptions, RenameOptions, Result, SandboxPath, StatOptions,
    SymlinkOptions, WriteOptions,
};
use std::sync::Arc;

impl<A: Around> WrappedSandbox<A> {
    async fn file<T: Send, F: Future<Output = Result<T>> + Send>(
        &self,
        operation: &'static str,
        arguments: Arguments<'_>,
        run: impl FnMut() -> F + Send,
    ) -> Result<T> {
        let call = self.call(Kind::Files, operation).with(arguments);
        self.around.call(call, run).await
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl<A: Around> Files for WrappedSandbox<A> {
    async fn read(&self, path: &SandboxPath, options: ReadOptions) -> Result<FileContents> {
        let call = self.call(Kind::Files, "files.read");
        let run = || self.inner.files().read(path, options.clone());
        self.around
            .read(call.with(Arguments::Read(path, &options)), run)
            .await
    }

    async fn write(&self, path: &SandboxPath, body: Body, options: WriteOptions) -> Result<()> {
        let call = self.call(Kind::Files, "files.write");
        let call = call.with(Arguments::Write(path, body.size(), &options));
        let run = |body| self.inner.files().write(path, body, options.clone());
        self.around.write(call, body, run).await
    }

    async fn stat(&self, path: &SandboxPath, options: StatOptions) -> Result<FileInfo> {
        let run = || self.inner.files().stat(path, options.clone());
        self.file("files.stat", Arguments::Stat(path, &options), run)
            .await
    }

    fn list(
        &self,
        path: &SandboxPath,
        options: ListFilesOptions,
    ) -> BoxStream<'static, Result<FileInfo>> {
        let call = self.call(Kind::Files, "files.list");
        let call = call.with(Arguments::ListFiles(path, &options));
        let (inner, path, options) = (Arc::clone(&self.inner), path.clone(), options.clone());
        let open = move || inner.files().list(&path, options.clone());
        self.around.stream(call, open)
    }

    fn glob(
        &self,
        base: &SandboxPath,
        pattern: &str,
        options: GlobOptions,
    ) -> BoxStream<'static, Result<FileInfo>> {
        let call = self.call(Kind::Files, "files.glob");
        let call = call.with(Arguments::Glob(base, pattern, &options));
        let (inner, base, options) = (Arc::clone(&self.inner), base.clone(), options.clone());
        let pattern = pattern.to_owned();
        let open = move || inner.files().glob(&base, &pattern, options.clone());
        self.around.stream(call, open)
    }

    async fn mkdir(&self, path: &SandboxPath, options: MkdirOptions) -> Result<()> {
        let run = || self.inner.files().mkdir(path, options.clone());
        self.file("files.mkdir", Arguments::Mkdir(path, &options), run)
            .await
    }

    async fn rename(
        &self,
        from: &SandboxPath,
        to: &SandboxPath,
        options: RenameOptions,
    ) -> Result<()> {
        let run = || self.inner.files().rename(from, to, options.clone());
        self.file("files.rename", Arguments::Rename(from, to, &options), run)
            .await
    }

    async fn symlink(
        &self,
        path: &SandboxPath,
        target: &SandboxPath,
        options: SymlinkOptions,
    ) -> Result<()> {
        let run = || self.inner.files().symlink(path, target, options.clone());
        let arguments = Arguments::Symlink(path, target, &options);
        self.file("files.symlink", arguments, run).await
    }

    async fn remove(&self, path: &SandboxPath, options: RemoveOptions) -> Result<()> {
        let run = || self.inner.files().remove(path, options.clone());
        self.file("files.remove", Arguments::Remove(path, &options), run)
            .await
    }

    async fn set_permissions(&self, path: &SandboxPath, options: PermissionOptions) -> Result<()> {
        let run = || self.inner.files().set_permissions(path, options.clone());
        let arguments = Arguments::SetPermissions(path, &options);
        self.file("files.set_permissions", arguments, run).await
    }
}
