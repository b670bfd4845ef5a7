//! Files of the host.

use crate::{
    attempt::{Attempt, attempt},
    lab::{DECOY, Inside, Lab, Who, decoy_in, host_python, in_time, on_host, state_dir},
};
use sandbox_agent::protocol::zygote::weaken::{DUMPABLE, ROOT};
use std::{
    env, fs,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    process,
};

/// Tries to read a decoy in each place that a host has secrets in.
fn read_decoys(code: &str) {
    let home = PathBuf::from(env::var_os("HOME").unwrap_or("/root".into()));
    for place in [Path::new("/tmp"), &home, &state_dir()] {
        fs::create_dir_all(place).unwrap();
        let (_kept, decoy) = decoy_in(place);
        // Where a sandbox has a closed directory of its own, more cannot be seen.
        let closed = place.starts_with("/root");
        attempt(code)
            .given("DECOY", decoy.display())
            .fails_as(Who::User, if closed { "EACCES" } else { "ENOENT" })
            .fails_as(Who::Root, "ENOENT")
            .works_on_host(DECOY);
    }
}

#[test]
fn by_their_paths() {
    read_decoys("return read(given('DECOY'))");
}

#[test]
fn by_dotdot_from_the_root() {
    read_decoys("os.chdir('/'); return read('../' * 64 + given('DECOY'))");
}

#[test]
fn through_the_root_of_any_process() {
    let (_kept, decoy) = decoy_in(Path::new("/tmp"));
    let code = r#"
        for entry in ["self", "thread-self"] + [each for each in os.listdir("/proc") if each.isdigit()]:
            for link in ["root", "cwd"]:
                try:
                    return read(f"/proc/{entry}/{link}/" + "../" * 64 + given("DECOY"))
                except OSError:
                    pass
        return "nothing"
    "#;
    attempt(code)
        .given("DECOY", decoy.display())
        .fails("nothing")
        .works_on_host(DECOY);
}

#[test]
fn through_any_mount() {
    let (_kept, decoy) = decoy_in(Path::new("/tmp"));
    let code = r#"
        for point in mounts():
            try:
                return read(point + "/" + given("DECOY"))
            except OSError:
                pass
        return "nothing"
    "#;
    attempt(code)
        .given("DECOY", decoy.display())
        .fails("nothing")
        .works_without(ROOT, Who::User, DECOY)
        .works_without(ROOT, Who::Root, DECOY);
}

/// Looks for a directory among the descriptors that a program starts with.
const INHERITED: &str = r#"
    found = [fd for fd in map(int, os.listdir("/proc/self/fd")) if os.path.exists(f"/proc/self/fd/{fd}")]
    for fd in found:
        if stat.S_ISDIR(os.fstat(fd).st_mode):
            return open(os.open("../" * 64 + given("DECOY"), os.O_RDONLY, dir_fd=fd)).read()
    return found
"#;

#[test]
fn through_a_descriptor_that_was_left_open() {
    let (_kept, decoy) = decoy_in(Path::new("/tmp"));
    let given = [("DECOY", decoy.display().to_string())];
    attempt(INHERITED)
        .given("DECOY", decoy.display())
        .fails("[0, 1, 2]");
    let python = host_python(INHERITED, &given);
    let output = process::Command::new("sh")
        .args(["-c", "exec 5</; exec python3 \"$@\"", "sh"])
        .args(python.get_args())
        .envs(
            python
                .get_envs()
                .filter_map(|(name, value)| Some((name, value?))),
        )
        .output()
        .unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stdout).trim(), DECOY);
}

#[test]
fn through_descriptors_of_pid_1() {
    attempt("return len(os.listdir('/proc/1/fd')) > 3")
        .fails("EACCES")
        .works_without(DUMPABLE, Who::Root, "True");
}

#[test]
fn by_a_second_chroot() {
    let (kept, decoy) = decoy_in(Path::new("/tmp"));
    let code = r#"
        if given("JAIL"):
            os.chroot(given("JAIL"))
            os.chdir("/")
        else:
            os.chdir("/tmp")
        os.mkdir("below")
        os.chroot("below")
        for _ in range(64):
            os.chdir("..")
        os.chroot(".")
        return read(given("DECOY"))
    "#;
    let free = attempt(code).given("DECOY", decoy.display());
    free.clone()
        .given("JAIL", "")
        .fails_as(Who::User, "EPERM")
        .fails_as(Who::Root, "ENOENT");
    // Out of a jail that is a changed root and nothing else, this is the way.
    free.given("JAIL", kept.path().display())
        .works_on_host(DECOY);
}

#[test]
fn by_a_handle_that_was_guessed() {
    let (kept, decoy) = decoy_in(Path::new("/tmp"));
    let name = r#"
        handle = ctypes.create_string_buffer(struct.pack("Ii", 128, 0), 136)
        call("name_to_handle_at", -100, given("DECOY").encode(), handle, ctypes.byref(ctypes.c_int()), 0)
        return handle.raw.hex()
    "#;
    let decoy_given = [("DECOY", decoy.display().to_string())];
    let handle = on_host(name, &decoy_given);
    attempt(name).given("DECOY", "/etc/passwd").fails("EPERM");
    let open = r#"
        mount = os.open(given("MOUNT"), os.O_RDONLY)
        handle = ctypes.create_string_buffer(bytes.fromhex(given("HANDLE")))
        return open(call("open_by_handle_at", mount, handle, os.O_RDONLY)).read()
    "#;
    let guess = attempt(open).given("HANDLE", handle);
    guess.clone().given("MOUNT", "/").fails("EPERM");
    guess
        .given("MOUNT", kept.path().display())
        .works_on_host(DECOY);
}

#[test]
fn by_the_overlays_own_attributes() {
    let code = r#"
        os.makedirs(given("PLACE") + "/redirected")
        os.setxattr(given("PLACE") + "/redirected", "trusted.overlay.redirect", b"/etc")
        return "set"
    "#;
    let kept = tempfile::tempdir().unwrap();
    attempt(code).given("PLACE", "/tmp/place").fails("EPERM");
    attempt(code)
        .given("PLACE", kept.path().display())
        .works_on_host("set");
}

#[test]
fn by_writing_to_the_hosts_programs() {
    let before = fs::metadata("/usr/bin/env").unwrap();
    let code = r#"
        with open("/usr/bin/env", "w") as program:
            program.write("changed")
        os.link("/usr/bin/env", "/usr/bin/escaped")
        os.truncate("/usr/bin/escaped", 3)
        return read("/usr/bin/env")
    "#;
    // Its control is in it: what is written shows inside.
    attempt(code)
        .fails_as(Who::User, "EACCES")
        .works_without(0, Who::Root, "cha");
    let after = fs::metadata("/usr/bin/env").unwrap();
    assert_eq!(
        (after.ino(), after.len(), after.mtime_nsec()),
        (before.ino(), before.len(), before.mtime_nsec())
    );
    assert!(!Path::new("/usr/bin/escaped").exists());
}

#[test]
fn mounts_do_not_name_host_paths_or_disks() {
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
    let root = mounts
        .lines()
        .find(|line| line.split(' ').nth(4) == Some("/"))
        .unwrap();
    let disk = root
        .split(" - ")
        .nth(1)
        .and_then(|rest| rest.split(' ').nth(1))
        .unwrap();
    let state = state_dir().canonicalize().unwrap();
    let code = r#"
        found = []
        for table in ["/proc/self/mountinfo", "/proc/self/mounts", "/proc/self/mountstats", "/etc/mtab"]:
            text = open(table).read()
            found += [word for word in (given("DISK"), given("STATE")) if f" {word}" in text or f"{word}/" in text]
        return bool(found)
    "#;
    attempt(code)
        .given("DISK", disk)
        .given("STATE", state.display())
        .fails("False")
        .works_without(ROOT, Who::User, "True");
}

/// Connects to a socket of the host that has a path, through any mount.
const CONNECT: &str = r#"
    import socket
    for point in ["", *mounts()]:
        try:
            socket.socket(socket.AF_UNIX).connect(point + "/" + given("DECOY"))
            return "connected"
        except OSError:
            pass
    return "nothing"
"#;

#[test]
fn sockets_by_their_paths() {
    let (kept, _) = decoy_in(Path::new("/tmp"));
    let path = kept.path().join("socket");
    let _listener = std::os::unix::net::UnixListener::bind(&path).unwrap();
    fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o777)).unwrap();
    let connect = || -> Attempt { attempt(CONNECT).given("DECOY", path.display()) };
    connect()
        .fails("nothing")
        .works_without(ROOT, Who::User, "connected");
}

#[tokio::test]
async fn through_the_file_calls() {
    let (_kept, decoy) = decoy_in(Path::new("/tmp"));
    let sandbox = Lab::new().sandbox().await;
    let decoy = decoy.display();
    sandbox
        .sh(
            Who::User,
            &format!(
                "ln -s {decoy} absolute; ln -s ../../../../../..{decoy} relative; ln -s / top; \
                 ln -s /proc/1/root{decoy} init; ln -s /proc/self/root{decoy} self; ln -s /proc/self/fd/3 fd"
            ),
        )
        .await;
    let ways = [
        format!("{decoy}"),
        format!("/home/user/../../../../../..{decoy}"),
        format!("/proc/1/root{decoy}"),
        format!("/proc/self/root{decoy}"),
        format!("/proc/self/cwd{decoy}"),
        "absolute".into(),
        "relative".into(),
        format!("top{decoy}"),
        "init".into(),
        "self".into(),
        "fd".into(),
    ];
    for way in &ways {
        for who in Who::all() {
            let read = read_as(&sandbox, who, way).await;
            assert!(read.is_err(), "{way} as {who:?}: {read:?}");
        }
    }
    // The control: each of these ways, with a decoy inside at its end, is a way.
    sandbox
        .sh(
            Who::Root,
            &format!("mkdir -p $(dirname {decoy}); echo inside > {decoy}"),
        )
        .await;
    for way in ["absolute", "relative", &format!("top{decoy}")] {
        assert_eq!(
            read_as(&sandbox, Who::User, way).await.unwrap(),
            b"inside\n"
        );
    }
}

async fn read_as(sandbox: &Inside, who: Who, path: &str) -> sandbox_core::Result<Vec<u8>> {
    use sandbox_core::{ReadOptions, SandboxPath};
    // Relative paths start at the home of whoever asks; all links are in that of `user`.
    let path = SandboxPath::new("/home/user")?.join(path)?;
    let options = ReadOptions::new().user(who.name());
    let read = in_time(sandbox.files().read(&path, options)).await?;
    Ok(in_time(read.into_bytes(1 << 20)).await?.to_vec())
}
