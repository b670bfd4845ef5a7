//! What the file calls meet where a file is expected: things that make a reader wait, or that act when they are opened.

use crate::lab::{DEADLINE, Inside, Lab, Who, in_time, on_host};
use futures_util::TryStreamExt;
use sandbox_core::{ListFilesOptions, ReadOptions, RemoveOptions, WriteOptions, prelude::*};

async fn read(sandbox: &Inside, path: &str, who: Who) -> sandbox_core::Result<Vec<u8>> {
    let options = ReadOptions::new().user(who.name());
    let read = async {
        let contents = sandbox
            .files()
            .read(&SandboxPath::new(path)?, options)
            .await?;
        Ok(contents.into_bytes(1 << 20).await?.to_vec())
    };
    in_time(read).await
}

async fn write(sandbox: &Inside, path: &str, who: Who) -> sandbox_core::Result<()> {
    let options = WriteOptions::new().user(who.name());
    let path = SandboxPath::new(path)?;
    in_time(sandbox.files().write(&path, "written".into(), options)).await
}

#[tokio::test]
async fn things_that_make_a_reader_wait() {
    let sandbox = Lab::new().sandbox().await;
    let make = r#"
        import socket
        os.mkfifo("fifo")
        socket.socket(socket.AF_UNIX).bind("socket")
        os.mkdir("directory")
        os.symlink("fifo", "to_fifo")
        os.symlink("/dev/zero", "to_zero")
        os.symlink("circle", "circle")
        return "made"
    "#;
    assert_eq!(sandbox.python(Who::User, make).await, "made");
    for name in [
        "fifo",
        "socket",
        "directory",
        "to_fifo",
        "to_zero",
        "circle",
    ] {
        for who in Who::all() {
            let path = format!("/home/user/{name}");
            let kind = |error: Error| error.kind();
            let refused = ErrorKind::InvalidArgument;
            assert_eq!(
                read(&sandbox, &path, who).await.map_err(kind),
                Err(refused),
                "{name}"
            );
            assert_eq!(
                write(&sandbox, &path, who).await.map_err(kind),
                Err(refused),
                "{name}"
            );
        }
    }
    // The control: a plain reader does wait.
    let kept = tempfile::tempdir().unwrap();
    let given = [("PLACE", kept.path().display().to_string())];
    let wait = r#"
        import signal
        os.mkfifo(given("PLACE") + "/fifo")
        def waited(*_):
            raise InterruptedError(errno.EINTR, "waited")
        signal.signal(signal.SIGALRM, waited)
        signal.setitimer(signal.ITIMER_REAL, 0.2)
        open(given("PLACE") + "/fifo").read()
    "#;
    assert_eq!(on_host(wait, &given), "EINTR");
}

#[tokio::test]
async fn devices() {
    let sandbox = Lab::new().sandbox().await;
    for name in [
        "zero", "null", "full", "random", "urandom", "tty", "ptmx", "pts/ptmx", "stdin", "fd/0",
    ] {
        let path = format!("/dev/{name}");
        assert!(read(&sandbox, &path, Who::Root).await.is_err(), "{path}");
        assert!(write(&sandbox, &path, Who::Root).await.is_err(), "{path}");
    }
    // The control: a program inside reads them.
    assert_eq!(
        sandbox.sh(Who::User, "head -c 3 /dev/zero | wc -c").await,
        "3"
    );
}

#[tokio::test]
async fn the_file_workers_own_files() {
    let sandbox = Lab::new().sandbox().await;
    sandbox.works().await;
    let mut paths: Vec<String> = (0..16).map(|fd| format!("/proc/self/fd/{fd}")).collect();
    for name in [
        "mem",
        "environ",
        "exe",
        "maps",
        "auxv",
        "root/etc/passwd",
        "cwd/etc/passwd",
        "map_files",
    ] {
        for process in ["self", "thread-self", "1"] {
            paths.push(format!("/proc/{process}/{name}"));
        }
    }
    for path in &paths {
        for who in Who::all() {
            let contents = read(&sandbox, path, who).await;
            assert!(contents.is_err(), "{path} as {who:?}: {contents:?}");
            assert!(
                write(&sandbox, path, who).await.is_err(),
                "{path} as {who:?}"
            );
        }
    }
    sandbox.works().await;
}

#[tokio::test]
async fn files_of_the_kernel() {
    let sandbox = Lab::new().sandbox().await;
    let paths = [
        "/proc/sysrq-trigger",
        "/proc/sys/kernel/core_pattern",
        "/proc/sys/kernel/hostname",
        "/proc/1/oom_score_adj",
        "/proc/kmsg",
        "/proc/kallsyms",
        "/proc/cmdline",
    ];
    for path in paths {
        for who in Who::all() {
            assert!(
                write(&sandbox, path, who).await.is_err(),
                "{path} as {who:?}"
            );
        }
    }
    // The worker's own standing is the worker's own.
    let own = "/proc/self/oom_score_adj";
    let options = WriteOptions::new().user("root");
    let path = SandboxPath::new(own).unwrap();
    let _ = in_time(sandbox.files().write(&path, "-1000".into(), options)).await;
    assert_ne!(
        read(&sandbox, own, Who::Root).await.unwrap_or_default(),
        b"-1000\n"
    );
    sandbox.works().await;
}

#[tokio::test]
async fn a_file_that_somebody_holds() {
    let sandbox = Lab::new().sandbox().await;
    // A lease makes whoever opens the file wait for its holder, up to 45 seconds.
    let hold = r#"
        import fcntl, signal
        signal.signal(signal.SIGIO, signal.SIG_IGN)
        file = open("leased", "w")
        fcntl.fcntl(file, 1024, fcntl.F_WRLCK)
        ready()
    "#;
    let held = sandbox.start(Who::User, hold, &[]).await;
    let started = std::time::Instant::now();
    for who in Who::all() {
        assert!(read(&sandbox, "/home/user/leased", who).await.is_err());
        assert!(write(&sandbox, "/home/user/leased", who).await.is_err());
    }
    assert!(started.elapsed() < DEADLINE / 3);
    held.kill().await;
    sandbox.works().await;
}

#[tokio::test]
async fn files_larger_than_everything() {
    let sandbox = Lab::new().sandbox().await;
    sandbox
        .sh(Who::User, "truncate -s 1P huge || truncate -s 4T huge")
        .await;
    let contents = in_time(sandbox.files().read_bytes("huge")).await;
    assert_eq!(contents.unwrap_err().kind(), ErrorKind::QuotaExceeded);
    let path = SandboxPath::new("huge").unwrap();
    for range in [
        u64::MAX - 1..u64::MAX,
        1 << 62..u64::MAX,
        1 << 40..(1 << 40) + 5,
    ] {
        let options = ReadOptions::new().range(range);
        let contents = in_time(sandbox.files().read(&path, options)).await.unwrap();
        assert!(in_time(contents.into_bytes(8)).await.unwrap().len() <= 5);
    }
}

#[tokio::test]
async fn a_file_that_shrinks_and_grows_while_it_is_read() {
    let sandbox = Lab::new().sandbox().await;
    let change = r#"
        file = os.open("changing", os.O_RDWR | os.O_CREAT)
        os.truncate(file, 8 << 20)
        print("ready", flush=True)
        while True:
            os.truncate(file, 0)
            os.truncate(file, 8 << 20)
    "#;
    let changing = sandbox.start(Who::User, change, &[]).await;
    for _ in 0..20 {
        let contents = read(&sandbox, "/home/user/changing", Who::User).await;
        if let Err(error) = contents {
            assert_eq!(error.kind(), ErrorKind::QuotaExceeded, "{error:?}");
        }
    }
    changing.kill().await;
}

#[tokio::test]
async fn names_that_lead_up_or_end_early() {
    let sandbox = Lab::new().sandbox().await;
    assert!(SandboxPath::new("/etc/passwd\0.txt").is_err());
    let nul = in_time(sandbox.files().write_bytes("a\0b", "x")).await;
    assert_eq!(nul.unwrap_err().kind(), ErrorKind::InvalidArgument);
    for command in [
        Command::new("cat\0"),
        Command::new("cat").arg("a\0b"),
        Command::shell("true\0false"),
        Command::new("true").env("A\0", "b"),
        Command::new("true").env("A", "b\0"),
        Command::new("true").cwd("/\0"),
        Command::new("true").user("user\0root"),
    ] {
        let refused = in_time(sandbox.exec(command)).await.unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::InvalidArgument);
    }
    // `..` stays below the sandbox's own root.
    let up = format!("{}etc/hostname", "../".repeat(100));
    assert_eq!(
        in_time(sandbox.files().read_text(&*up)).await.unwrap(),
        "sandbox\n"
    );
    write(
        &sandbox,
        &format!("/{}tmp/up", "../".repeat(100)),
        Who::User,
    )
    .await
    .unwrap();
    assert!(!std::path::Path::new("/tmp/up").exists());
    for path in [
        "/", "/..", "/.", "/tmp/..", "/proc", "/proc/..", "/dev", "/usr",
    ] {
        let options = RemoveOptions::new().user("root").recursive(true);
        let path = SandboxPath::new(path).unwrap();
        let removed = in_time(sandbox.files().remove(&path, options)).await;
        assert!(removed.is_err(), "{path}");
    }
    sandbox.works().await;
}

#[tokio::test]
async fn names_that_look_like_something_else() {
    let sandbox = Lab::new().sandbox().await;
    let make = r#"
        os.mkdir("names")
        names = [b"\n", b"a\nb", b"-rf", b"..x", b"\xff\xfe", b"%2e%2e%2f", b"\\..\\", b"\x1b[2J", b"x" * 255, b" "]
        for name in names:
            open(b"names/" + name, "w").close()
        os.makedirs("names/deep/" + "d/" * 500)
        return len(names)
    "#;
    assert_eq!(sandbox.python(Who::User, make).await, "10");
    let base = SandboxPath::new("/home/user/names").unwrap();
    let options = ListFilesOptions::new().depth(1000u32);
    let listed = in_time(sandbox.files().list(&base, options).try_collect::<Vec<_>>()).await;
    let listed = listed.unwrap();
    assert_eq!(listed.len(), 10 + 1 + 500);
    for entry in listed {
        let path = entry.path.as_bytes();
        assert!(path.starts_with(b"/home/user/names/"), "{:?}", entry.path);
        assert!(!path.split(|byte| *byte == b'/').any(|part| part == b".."));
    }
    let options = RemoveOptions::new().recursive(true);
    in_time(sandbox.files().remove(&base, options))
        .await
        .unwrap();
}
