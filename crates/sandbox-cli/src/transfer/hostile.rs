//! A sandbox that lists whatever a test wants it to list, and what copying from it must never do.

use super::{Progress, Report, download::Download, spec::Place};
use async_trait::async_trait;
use futures_util::{StreamExt, stream};
use proptest::prelude::*;
use sandbox::{
    Body, BoxStream, Capabilities, Command, Error, FileContents, FileInfo, FileKind, Files,
    GlobOptions, ListFilesOptions, MkdirOptions, PermissionOptions, Process, ReadOptions,
    RemoveOptions, RenameOptions, Result, Sandbox, SandboxId, SandboxInfo, SandboxPath,
    SandboxState, StatOptions, SymlinkOptions, WriteOptions,
};
use std::{fs, path::Path};

/// Every directory of it holds these entries, and every file these bytes.
#[derive(Debug)]
struct Hostile {
    id: SandboxId,
    entries: Vec<FileInfo>,
}

#[async_trait]
impl Sandbox for Hostile {
    fn id(&self) -> &SandboxId {
        &self.id
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities::new()
    }

    async fn info(&self) -> Result<SandboxInfo> {
        Ok(SandboxInfo::new(self.id.clone(), SandboxState::Running))
    }

    async fn spawn(&self, _: Command) -> Result<Process> {
        Err(Error::unsupported("spawn"))
    }

    fn files(&self) -> &dyn Files {
        self
    }

    async fn kill(&self) -> Result<bool> {
        Ok(true)
    }
}

#[async_trait]
impl Files for Hostile {
    async fn read(&self, _: &SandboxPath, _: ReadOptions) -> Result<FileContents> {
        Ok(FileContents::from_bytes(4, "evil"))
    }

    async fn write(&self, _: &SandboxPath, _: Body, _: WriteOptions) -> Result<()> {
        Err(Error::unsupported("write"))
    }

    async fn stat(&self, path: &SandboxPath, _: StatOptions) -> Result<FileInfo> {
        Ok(FileInfo::new(path.clone(), FileKind::Directory, 0))
    }

    fn list(&self, _: &SandboxPath, _: ListFilesOptions) -> BoxStream<'static, Result<FileInfo>> {
        stream::iter(self.entries.clone().into_iter().map(Ok)).boxed()
    }

    fn glob(
        &self,
        _: &SandboxPath,
        _: &str,
        _: GlobOptions,
    ) -> BoxStream<'static, Result<FileInfo>> {
        stream::empty().boxed()
    }

    async fn mkdir(&self, _: &SandboxPath, _: MkdirOptions) -> Result<()> {
        Err(Error::unsupported("mkdir"))
    }

    async fn rename(&self, _: &SandboxPath, _: &SandboxPath, _: RenameOptions) -> Result<()> {
        Err(Error::unsupported("rename"))
    }

    async fn symlink(&self, _: &SandboxPath, _: &SandboxPath, _: SymlinkOptions) -> Result<()> {
        Err(Error::unsupported("symlink"))
    }

    async fn remove(&self, _: &SandboxPath, _: RemoveOptions) -> Result<()> {
        Err(Error::unsupported("remove"))
    }

    async fn set_permissions(&self, _: &SandboxPath, _: PermissionOptions) -> Result<()> {
        Err(Error::unsupported("set_permissions"))
    }
}

fn entry(path: &str, kind: FileKind, target: &str) -> FileInfo {
    let mut info = FileInfo::new(SandboxPath::new(path).unwrap(), kind, 4);
    info.mode = Some(0o4777);
    info.target = Some(target.as_bytes().to_vec());
    info
}

/// Copies `src` of a hostile sandbox to `outer/dest`.
fn copy(entries: Vec<FileInfo>, outer: &Path) -> anyhow::Result<Report> {
    let sandbox = Hostile {
        id: SandboxId::new("hostile"),
        entries,
    };
    let download = Download {
        sandbox: &sandbox,
        user: None,
        progress: Progress::hidden(),
    };
    let runtime = tokio::runtime::Builder::new_current_thread().build()?;
    runtime.block_on(download.copy(&Place::parse("src/.")?, &outer.join("dest")))
}

/// A directory with a file beside the destination.
fn outer() -> tempfile::TempDir {
    let outer = tempfile::tempdir().unwrap();
    fs::write(outer.path().join("victim"), "safe").unwrap();
    fs::create_dir(outer.path().join("dest")).unwrap();
    outer
}

fn assert_untouched(outer: &Path) {
    let victim = fs::read_to_string(outer.join("victim")).unwrap();
    assert_eq!(victim, "safe");
    let mut names: Vec<_> = fs::read_dir(outer)
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .collect();
    names.sort();
    assert_eq!(names, ["dest", "victim"]);
    let real = outer.join("dest").canonicalize().unwrap();
    assert_inside(&real, &real);
}

/// Every link below `directory` leads to somewhere below `root`, or nowhere.
fn assert_inside(directory: &Path, root: &Path) {
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if let Ok(real) = path.canonicalize() {
            assert!(real.starts_with(root), "{path:?} leads to {real:?}");
        }
        if path.is_dir() && !path.is_symlink() {
            assert_inside(&path, root);
        }
    }
}

#[test]
fn listings_that_leave_the_directory_are_refused() {
    for path in [
        "src/../victim",
        "src/a/../../victim",
        "/etc/passwd",
        "other/a",
        "srcery",
        "src",
        "src/",
        "src//a",
        "src/./a",
    ] {
        let outer = outer();
        let error = copy(vec![entry(path, FileKind::File, "")], outer.path()).unwrap_err();
        assert!(error.to_string().contains("not below src"), "{error}");
        assert_untouched(outer.path());
    }
}

#[test]
fn a_name_that_is_both_link_and_directory_leads_nowhere() {
    let outer = outer();
    let entries = vec![
        entry("src/a", FileKind::Symlink, "../victim"),
        entry("src/a", FileKind::Directory, ""),
        entry("src/a/b", FileKind::File, ""),
        entry("src/l", FileKind::Symlink, "a"),
        entry("src/l/c", FileKind::File, ""),
    ];
    // There is no directory `l` for `c`, and the link comes only after the files.
    copy(entries, outer.path()).unwrap_err();
    assert_untouched(outer.path());
}

#[test]
fn setuid_bits_stay_behind() {
    use std::os::unix::fs::PermissionsExt;
    let outer = outer();
    let report = copy(vec![entry("src/a", FileKind::File, "")], outer.path()).unwrap();
    assert_eq!((report.files, report.bytes), (1, 4));
    let mode = fs::metadata(outer.path().join("dest/a"))
        .unwrap()
        .permissions()
        .mode();
    assert_eq!(mode & 0o7000, 0);
}

fn any_entry() -> impl Strategy<Value = FileInfo> {
    let path = "src(/(a|b|\\.\\.|\\.|)){1,3}|/a|\\.\\./victim";
    let target = "((\\.\\.|a|b)/){0,3}(\\.\\.|a|b|victim)|/|";
    let kind = prop_oneof![
        Just(FileKind::File),
        Just(FileKind::Directory),
        Just(FileKind::Symlink),
        Just(FileKind::Other),
    ];
    (path, kind, target).prop_map(|(path, kind, target)| entry(&path, kind, &target))
}

proptest! {
    // Each case works on real files.
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn no_listing_touches_what_is_outside(entries in prop::collection::vec(any_entry(), 0..8)) {
        let outer = outer();
        // Twice, as what the first left behind must not help the second.
        let _ = (copy(entries.clone(), outer.path()), copy(entries, outer.path()));
        assert_untouched(outer.path());
    }

    #[test]
    fn honest_listings_are_copied(names in prop::collection::btree_set("[^/\0]{1,40}", 0..8)) {
        let names: Vec<_> = names
            .into_iter()
            .filter(|name| !matches!(name.as_str(), "." | "..") && name.len() < 256)
            .collect();
        let outer = outer();
        let entries = names.iter().map(|name| entry(&format!("src/{name}"), FileKind::File, ""));
        copy(entries.collect(), outer.path()).unwrap();
        for name in names {
            let text = fs::read_to_string(outer.path().join("dest").join(name)).unwrap();
            prop_assert_eq!(text, "evil");
        }
    }
}
