//! Programs, arguments and directories that are not what they were a moment ago, or more than fits.

use crate::{
    alone,
    lab::{Lab, Who, in_time},
};
use sandbox_core::prelude::*;
use std::time::Duration;

#[tokio::test]
async fn a_program_that_is_exchanged_while_it_is_started() {
    let sandbox = Lab::new().sandbox().await;
    let exchange = r#"
        os.mkdir("bin")
        def put(kind):
            for name in os.listdir("bin"):
                os.rmdir("bin/" + name) if os.path.isdir("bin/" + name) and not os.path.islink("bin/" + name) else os.unlink("bin/" + name)
            if kind == "script":
                open("bin/program", "w").write('#!/bin/sh\nexit 3\n')
            elif kind == "binary":
                open("bin/program", "wb").write(open("/usr/bin/true", "rb").read())
            elif kind == "garbage":
                open("bin/program", "wb").write(b"\x7fELF" + os.urandom(100))
            elif kind == "link":
                os.symlink("program", "bin/program")
            elif kind == "fifo":
                os.mkfifo("bin/program")
            elif kind == "directory":
                os.mkdir("bin/program")
            if kind in ("script", "binary", "garbage"):
                os.chmod("bin/program", 0o755)
        print("ready", flush=True)
        while True:
            for kind in ("script", "binary", "garbage", "link", "fifo", "directory"):
                put(kind)
    "#;
    let exchanging = sandbox.start(Who::User, exchange, &[]).await;
    for _ in 0..100 {
        // A shell that finds a fifo instead of its script waits, as it would everywhere.
        let command = Command::new("/home/user/bin/program")
            .timeout(Duration::from_millis(300))
            .grace(Duration::from_millis(1));
        let ended = in_time(sandbox.exec(command)).await.unwrap();
        let code = ended.status.code();
        assert!(
            matches!(code, 0 | 2 | 3 | 124 | 126 | 127 | 139),
            "{ended:?}"
        );
    }
    exchanging.kill().await;
    sandbox.works().await;
}

#[tokio::test]
async fn a_program_that_is_no_program() {
    let sandbox = Lab::new().sandbox().await;
    sandbox
        .sh(Who::User, "mkfifo fifo; chmod 755 fifo; printf '#!/home/user/loop\\n' > loop; chmod 755 loop; printf '#!' > empty; chmod 755 empty")
        .await;
    let programs = [
        "fifo",
        "loop",
        "empty",
        ".",
        "no/such",
        "/dev/null",
        "/proc/self/mem",
        "/etc/passwd",
    ];
    for program in programs {
        let path = if program.starts_with('/') {
            program.to_owned()
        } else {
            format!("/home/user/{program}")
        };
        for who in Who::all() {
            let ended = sandbox.run(Command::new(&*path).user(who.name())).await;
            assert!(
                matches!(ended.status.code(), 126 | 127),
                "{path}: {ended:?}"
            );
        }
    }
}

#[tokio::test]
async fn more_arguments_than_fit() {
    let sandbox = Lab::new().sandbox().await;
    let commands = [
        Command::new("true").args(vec!["x".repeat(1000); 10_000]),
        Command::new("true").arg("x".repeat(1 << 20)),
        Command::new("true").args(vec![""; 1_000_000]),
        Command::new("true").env("BIG", "x".repeat(1 << 20)),
        (0..20_000).fold(Command::new("true"), |command, number| {
            command.env(format!("NAME_{number}"), "x".repeat(200))
        }),
        Command::new("x".repeat(1 << 20)),
        Command::new("true").arg("x".repeat(64 << 20)),
    ];
    for (number, command) in commands.into_iter().enumerate() {
        match in_time(sandbox.exec(command)).await {
            Ok(output) => assert!(
                matches!(output.status.code(), 126 | 127),
                "{number}: {:?}",
                output.status
            ),
            Err(error) => assert_eq!(
                error.kind(),
                ErrorKind::InvalidArgument,
                "{number}: {error:?}"
            ),
        }
    }
    sandbox.works().await;
}

#[tokio::test]
async fn a_working_directory_that_leads_away() {
    let sandbox = Lab::new().sandbox().await;
    sandbox
        .sh(Who::User, "ln -s /proc/1/root/etc init; ln -s /proc/self/fd/3 fd; ln -s /root root; mkfifo fifo; ln -s circle circle")
        .await;
    let closed = (!alone::is_alone()).then_some("root");
    for name in ["init", "fd", "fifo", "circle"].into_iter().chain(closed) {
        let command = Command::new("pwd").cwd(format!("/home/user/{name}"));
        let refused = in_time(sandbox.exec(command)).await;
        assert!(refused.is_err(), "{name}: {refused:?}");
    }
    // As high as it goes is the sandbox's own root.
    let command = Command::shell("pwd; ls /home").cwd("../".repeat(100));
    let output = in_time(sandbox.exec(command)).await.unwrap();
    assert_eq!(output.stdout_text(), "/\nuser\n");
}
