//! Folders of the host and named volumes: only what is allowed, with owners that make sense on both sides.

use crate::support::{State, sh};
use crate::{alone, ordinary};
use sandbox_core::prelude::*;
use sandbox_local::{LocalProvider, VolumeMount};
use std::{
    fs,
    os::unix::fs::{MetadataExt, PermissionsExt, chown, symlink},
    path::{Path, PathBuf},
    sync::Arc,
};
use tempfile::TempDir;

/// Somebody of the host, and their group.
const OWNER: (u32, u32) = (4321, 4322);
/// Whom stored files belong to.
const STORAGE: u32 = 0x7000_0000;

/// A state, and a folder that may be shared, beside one that may not.
struct Place {
    state: State,
    directory: TempDir,
}

/// Gives something to the owner of folders; an ordinary user's are its own.
fn give(path: &Path) {
    if !ordinary::is_ordinary() {
        chown(path, Some(OWNER.0), Some(OWNER.1)).unwrap();
    }
}

impl Place {
    fn new() -> Self {
        let place = Self {
            state: State::new(),
            directory: tempfile::tempdir().unwrap(),
        };
        for name in ["allowed/work", "other"] {
            let path = place.path(name);
            fs::create_dir_all(&path).unwrap();
            fs::write(path.join("file"), "theirs\n").unwrap();
            for path in [path.join("file"), path] {
                give(&path);
            }
        }
        place
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn text(&self, name: &str) -> String {
        self.path(name).to_str().unwrap().to_owned()
    }

    fn provider(&self) -> LocalProvider {
        let builder = LocalProvider::builder().state_dir(self.state.path());
        builder
            .host_folders([self.path("allowed"), "/usr/share/misc".into()])
            .build()
            .unwrap()
    }

    fn owner(&self, name: &str) -> (u32, u32) {
        let metadata = fs::symlink_metadata(self.path(name)).unwrap();
        (metadata.uid(), metadata.gid())
    }
}

async fn with(provider: &LocalProvider, mount: VolumeMount) -> Arc<dyn Sandbox> {
    let options = mount.add_to(CreateOptions::new());
    provider.create(options).await.unwrap()
}

async fn refused(provider: &LocalProvider, mount: VolumeMount) -> ErrorKind {
    let options = mount.add_to(CreateOptions::new());
    provider.create(options).await.unwrap_err().kind()
}

async fn as_root(sandbox: &Arc<dyn Sandbox>, script: &str) -> String {
    let mut command = Command::shell(script).merge_stderr();
    if !alone::is_alone() {
        command = command.user("root");
    }
    sandbox.exec(command).await.unwrap().stdout_text()
}

#[tokio::test]
async fn a_folder_is_its_owners_on_both_sides() {
    let place = Place::new();
    let provider = place.provider();
    let mount = VolumeMount::new(place.text("allowed/work"), "/home/user/deep/work");
    let sandbox = with(&provider, mount).await;
    let look = "cd deep/work; cat file; stat -c '%U %G' file .; echo mine > file; echo new > new; mkdir dir; mv new dir";
    assert_eq!(sh(&sandbox, look).await, "theirs\nuser user\nuser user\n");
    assert_eq!(
        fs::read_to_string(place.path("allowed/work/file")).unwrap(),
        "mine\n"
    );
    assert_eq!(place.owner("allowed/work/dir/new"), OWNER);
    // What others inside write belongs to nobody of this machine, whatever they do.
    let write = "cd /home/user/deep/work; cp /bin/true tool; stat -c %U tool";
    assert_eq!(as_root(&sandbox, write).await, "root\n");
    assert_eq!(place.owner("allowed/work/tool"), (STORAGE, STORAGE));
    // Another sandbox sees the same, a third one from below and read-only.
    let other = with(
        &provider,
        VolumeMount::new(place.text("allowed"), "/data").read_only(),
    )
    .await;
    assert_eq!(sh(&other, "cat /data/work/dir/new").await, "new\n");
    let change =
        "echo x > /data/work/file; rm -rf /data/work/dir; touch /data/x; mount -o remount,rw /data";
    let text = as_root(&other, change).await;
    assert!(text.matches("Read-only file system").count() >= 2, "{text}");
    assert_eq!(
        fs::read_to_string(place.path("allowed/work/file")).unwrap(),
        "mine\n"
    );
    sandbox.kill().await.unwrap();
    other.kill().await.unwrap();
    assert!(place.path("allowed/work/dir/new").exists());
}

#[tokio::test]
async fn what_is_not_allowed_is_refused_before_anything_happens() {
    let place = Place::new();
    let provider = place.provider();
    symlink(place.path("other"), place.path("allowed/way-out")).unwrap();
    fs::create_dir(place.path("allowed/roots")).unwrap();
    let denied = [
        place.text("other"),
        place.text("allowed/way-out"),
        place.text("allowed/../other"),
        place.text(""),
        "/".into(),
        "/etc".into(),
    ];
    for source in denied {
        let kind = refused(&provider, VolumeMount::new(&source, "/data").read_only()).await;
        assert_eq!(kind, ErrorKind::PermissionDenied, "{source}");
    }
    let missing = VolumeMount::new(place.text("allowed/none"), "/data");
    assert_eq!(refused(&provider, missing).await, ErrorKind::NotFound);
    let allowed = place.text("allowed/work");
    let senseless = [
        (allowed.as_str(), "data"),
        (&allowed, "/"),
        (&allowed, "/proc"),
        (&allowed, "/usr"),
        (&allowed, "/a/../b"),
        (&place.text("allowed/work/file"), "/data"),
        ("../name", "/data"),
        ("", "/data"),
    ];
    for (source, target) in senseless {
        let kind = refused(&provider, VolumeMount::new(source, target)).await;
        assert_eq!(kind, ErrorKind::InvalidArgument, "{source} {target}");
    }
    // Root could be given a program to run as root; what an ordinary user may not write to is another one's.
    let roots = if ordinary::is_ordinary() {
        "/usr/share/misc".to_owned()
    } else {
        place.text("allowed/roots")
    };
    let kind = refused(&provider, VolumeMount::new(&roots, "/data")).await;
    assert_eq!(kind, ErrorKind::InvalidArgument);
    let nobody = LocalProvider::builder()
        .state_dir(place.state.path())
        .build()
        .unwrap();
    let kind = refused(&nobody, VolumeMount::new(&allowed, "/data")).await;
    assert_eq!(kind, ErrorKind::PermissionDenied);
    let many = (0..17).fold(CreateOptions::new(), |options, number| {
        VolumeMount::new(&allowed, format!("/data/{number}")).add_to(options)
    });
    assert_eq!(
        provider.create(many).await.unwrap_err().kind(),
        ErrorKind::InvalidArgument
    );
    assert!(place.state.records().is_empty());
    let roots = VolumeMount::new(&roots, "/data").read_only();
    assert_eq!(
        sh(&with(&provider, roots).await, "stat -c %U /data").await,
        "nobody\n"
    );
}

#[tokio::test]
async fn volumes_lie_in_each_other_where_there_is_a_place() {
    let place = Place::new();
    let provider = place.provider();
    fs::create_dir_all(place.path("allowed/work/inner/x")).unwrap();
    fs::create_dir(place.path("allowed/second")).unwrap();
    give(&place.path("allowed/second"));
    fs::write(place.path("allowed/second/note"), "second\n").unwrap();
    symlink("inner", place.path("allowed/work/link")).unwrap();
    let second = |target: &str| VolumeMount::new(place.text("allowed/second"), target);
    let both = |target: &str| {
        // The one that lies in the other is asked for first.
        let options = second(target).add_to(CreateOptions::new());
        VolumeMount::new(place.text("allowed/work"), "/data").add_to(options)
    };
    let sandbox = provider.create(both("/data/inner")).await.unwrap();
    assert_eq!(
        sh(&sandbox, "cat /data/file /data/inner/note").await,
        "theirs\nsecond\n"
    );
    let three = second("/data/inner-more").add_to(both("/data/inner"));
    assert!(provider.create(three).await.is_err());
    let beside = provider.create(both("/data-more")).await.unwrap();
    assert_eq!(sh(&beside, "cat /data-more/note").await, "second\n");
    let before = fs::read_dir(place.path("allowed/work")).unwrap().count();
    for target in [
        "/data",
        "/data/new",
        "/data/new/deep",
        "/data/file",
        "/data/link",
        "/data/link/x",
    ] {
        let error = provider.create(both(target)).await.unwrap_err();
        assert_eq!(
            error.kind(),
            ErrorKind::InvalidArgument,
            "{target}: {error}"
        );
    }
    assert_eq!(
        fs::read_dir(place.path("allowed/work")).unwrap().count(),
        before
    );
    assert_eq!(place.state.records().len(), 2);
}

#[tokio::test]
async fn links_lead_nowhere_on_the_host() {
    let place = Place::new();
    let provider = place.provider();
    let secret = place.path("other/secret");
    fs::write(&secret, "secret").unwrap();
    fs::set_permissions(place.directory.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let work = place.path("allowed/work");
    symlink(&secret, work.join("absolute")).unwrap();
    symlink("../../other/secret", work.join("relative")).unwrap();
    let mount = || VolumeMount::new(place.text("allowed/work"), "/data");
    let sandbox = with(&provider, mount()).await;
    for name in ["absolute", "relative"] {
        let text = as_root(
            &sandbox,
            &format!("cat /data/{name}; echo x > /data/{name}"),
        )
        .await;
        assert!(
            !text.contains("secret\n") && text.contains("No such file"),
            "{text}"
        );
    }
    let text = as_root(&sandbox, "cd /data; ls ../other ../../../other 2>&1 | grep -c secret; mknod d c 1 1; rm -rf /data/../other").await;
    assert!(
        text.starts_with("0\n") && text.contains("Operation not permitted"),
        "{text}"
    );
    assert_eq!(fs::read_to_string(&secret).unwrap(), "secret");
    // A place behind a link that the template has is none.
    let behind = VolumeMount::new(place.text("allowed/work"), "/bin/data");
    let options = behind.add_to(CreateOptions::new());
    let error = provider.create(options).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidArgument, "{error}");
    assert!(fs::symlink_metadata("/bin/data").is_err());
}

/// Tries to make programs in `/data` that run as their owner and group, in all ways there are; prints how many there are.
const SET_ID: &str = r#"
cd /data && python3 -c '
import ctypes, os
os.umask(0)
def call(number, *arguments):
    ctypes.CDLL(None).syscall(number, *arguments)
def ignore(attempt):
    try: attempt()
    except OSError: pass
def made(name):
    os.close(os.open(name, os.O_CREAT | os.O_WRONLY, 0o755))
    return name
ignore(lambda: os.chmod(made("chmod"), 0o6755))
ignore(lambda: os.fchmod(os.open(made("fchmod"), os.O_RDONLY), 0o4755))
ignore(lambda: os.close(os.open("open", os.O_CREAT | os.O_WRONLY, 0o6755)))
ignore(lambda: os.mknod("mknod", 0o104755))
ignore(lambda: os.link("/proc/self/fd/%d" % os.open(".", os.O_TMPFILE | os.O_WRONLY, 0o4755), "tmp", follow_symlinks=True))
how = (ctypes.c_uint64 * 3)(os.O_CREAT | os.O_WRONLY, 0o4755, 0)
call(437, -100, b"openat2", how, 24)
call(452, -100, made("fchmodat2").encode(), 0o6755, 0)
'
find . -perm /6000 | wc -l
"#;

#[tokio::test]
async fn no_program_is_left_on_the_host_that_runs_as_its_owner() {
    let place = Place::new();
    let provider = place.provider();
    provider.create_volume("cache").await.unwrap();
    // In a volume it gives nothing to anybody, so there the attempts show what they are worth.
    let control = with(&provider, VolumeMount::new("cache", "/data")).await;
    let made: u32 = sh(&control, SET_ID).await.trim().parse().unwrap();
    assert!(made >= 6, "{made}");
    let mount = VolumeMount::new(place.text("allowed/work"), "/data");
    let sandbox = with(&provider, mount).await;
    assert_eq!(sh(&sandbox, SET_ID).await, "0\n");
    assert_eq!(as_root(&sandbox, SET_ID).await, "0\n");
    for entry in fs::read_dir(place.path("allowed/work")).unwrap() {
        let mode = entry.unwrap().metadata().unwrap().mode();
        assert_eq!(mode & 0o6000, 0);
    }
    // Where the folder cannot be written to, the sandbox's own files are as ever.
    let mount = VolumeMount::new(place.text("allowed/work"), "/folder").read_only();
    let reader = with(&provider, mount).await;
    let own = "cp /bin/true t; chmod 4755 t; stat -c %a t";
    assert_eq!(sh(&reader, own).await, "4755\n");
}

#[tokio::test]
async fn a_named_volume_outlives_its_sandboxes() {
    let place = Place::new();
    let provider = place.state.pooled(1).await;
    let mount = || VolumeMount::new("cache", "/home/user/cache");
    assert_eq!(refused(&provider, mount()).await, ErrorKind::NotFound);
    provider.create_volume("cache").await.unwrap();
    let again = provider.create_volume("cache").await.unwrap_err();
    assert_eq!(again.kind(), ErrorKind::AlreadyExists);
    assert_eq!(provider.volumes().await.unwrap(), ["cache"]);
    let first = with(&provider, mount()).await;
    assert_eq!(
        sh(
            &first,
            "echo kept > cache/file; stat -c %U cache cache/file"
        )
        .await,
        "user\nuser\n"
    );
    let in_use = provider.remove_volume("cache").await.unwrap_err();
    assert_eq!(in_use.kind(), ErrorKind::InvalidState);
    first.kill().await.unwrap();
    let second = with(&provider, mount().read_only()).await;
    assert_eq!(
        sh(
            &second,
            "cat cache/file; touch cache/x 2>/dev/null || echo no"
        )
        .await,
        "kept\nno\n"
    );
    second.kill().await.unwrap();
    // One that waited in the pool has no volumes, and was not taken for it.
    assert_eq!(provider.pool_status().taken, 0);
    provider.remove_volume("cache").await.unwrap();
    assert_eq!(
        provider.remove_volume("cache").await.unwrap_err().kind(),
        ErrorKind::NotFound
    );
    assert_eq!(provider.volumes().await.unwrap(), Vec::<String>::new());
    assert!(!place.state.path().join("volumes/cache").exists());
}
