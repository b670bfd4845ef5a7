//! Forwards the calls to a sandbox's files.

use crate::{Around, Kind, sandbox::WrappedSandbox};
use async_trait::async_trait;
use sandbox_core::{
    Body, BoxStream, FileContents, FileInfo, Files, GlobOptions, ListFilesOptions, MkdirOptions,
    PermissionOptions, ReadOptions, RemoveOptions, RenameOptions, Result, SandboxPath, StatOptions,
    SymlinkOptions, WriteOptions,
};

impl<A: Around> WrappedSandbox<A> {
    async fn file<T: Send>(
        &self,
        operation: &'static str,
        run: impl Future<Output = Result<T>> + Send,
    ) -> Result<T> {
        let call = self.call(Kind::Files, operation);
        self.around.call(call, run).await
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl<A: Around> Files for WrappedSandbox<A> {
    async fn read(&self, path: &SandboxPath, options: ReadOptions) -> Result<FileContents> {
        let call = self.call(Kind::Files, "files.read");
        let run = self.inner.files().read(path, options);
        self.around.read(call, run).await
    }

    async fn write(&self, path: &SandboxPath, body: Body, options: WriteOptions) -> Result<()> {
        let call = self.call(Kind::Files, "files.write");
        let run = |body| self.inner.files().write(path, body, options);
        self.around.write(call, body, run).await
    }

    async fn stat(&self, path: &SandboxPath, options: StatOptions) -> Result<FileInfo> {
        let run = self.inner.files().stat(path, options);
        self.file("files.stat", run).await
    }

    fn list(
        &self,
        path: &SandboxPath,
        options: ListFilesOptions,
    ) -> BoxStream<'static, Result<FileInfo>> {
        let call = self.call(Kind::Files, "files.list");
        self.around
            .stream(call, self.inner.files().list(path, options))
    }

    fn glob(
        &self,
        base: &SandboxPath,
        pattern: &str,
        options: GlobOptions,
    ) -> BoxStream<'static, Result<FileInfo>> {
        let call = self.call(Kind::Files, "files.glob");
        self.around
            .stream(call, self.inner.files().glob(base, pattern, options))
    }

    async fn mkdir(&self, path: &SandboxPath, options: MkdirOptions) -> Result<()> {
        let run = self.inner.files().mkdir(path, options);
        self.file("files.mkdir", run).await
    }

    async fn rename(
        &self,
        from: &SandboxPath,
        to: &SandboxPath,
        options: RenameOptions,
    ) -> Result<()> {
        let run = self.inner.files().rename(from, to, options);
        self.file("files.rename", run).await
    }

    async fn symlink(
        &self,
        path: &SandboxPath,
        target: &SandboxPath,
        options: SymlinkOptions,
    ) -> Result<()> {
        let run = self.inner.files().symlink(path, target, options);
        self.file("files.symlink", run).await
    }

    async fn remove(&self, path: &SandboxPath, options: RemoveOptions) -> Result<()> {
        let run = self.inner.files().remove(path, options);
        self.file("files.remove", run).await
    }

    async fn set_permissions(&self, path: &SandboxPath, options: PermissionOptions) -> Result<()> {
        let run = self.inner.files().set_permissions(path, options);
        self.file("files.set_permissions", run).await
    }
}
