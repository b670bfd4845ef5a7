//! How commands start: program, user, directory, environment, and what becomes of those that cannot.

use sandbox_agent::protocol::agent::{Failure, Spawn};

use crate::client::{command, sh};
use crate::world::{Options, World};

#[test]
fn a_command_starts_with_a_login_environment_and_nothing_else() {
    let world = World::with(&Options {
        cgroup: true,
        change: |request| {
            request.env = vec![
                ("FROM".into(), "sandbox".into()),
                ("BOTH".into(), "sandbox".into()),
            ]
        },
    });
    let mut spawn = command(&["/usr/bin/env"]);
    spawn.env = vec![
        ("BOTH".into(), "command".into()),
        ("ODD\u{e9}".into(), "a=b\nc".into()),
    ];
    let report = world.address.run(spawn).expect_code(0);
    let mut lines: Vec<_> = report.out().lines().map(str::to_owned).collect();
    lines.sort();
    assert_eq!(
        lines,
        [
            "BOTH=command",
            "FROM=sandbox",
            "HOME=/home/user",
            "LANG=C.UTF-8",
            "LOGNAME=user",
            "ODD\u{e9}=a=b",
            "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
            "SHELL=/bin/sh",
            "USER=user",
            "c",
        ]
    );
}

#[test]
fn a_command_is_an_ordinary_process() {
    let world = World::new();
    let script = "sed -nE '/^(Uid|Gid|Groups|CapPrm|CapEff|CapInh|CapAmb|NoNewPrivs|Seccomp|SigBlk|SigIgn|SigCgt):/p' \
                  /proc/self/status; cat /proc/self/oom_score_adj; pwd; ls /proc/self/fd; \
                  read -r _ _ _ _ group session rest < /proc/$$/stat; test \"$group\" = $$ -a \"$session\" = $$ && echo leader";
    let report = world.address.sh(script).expect_code(0);
    let text: Vec<String> = report
        .out()
        .lines()
        .map(|line| line.split_whitespace().collect::<Vec<_>>().join(" "))
        .collect();
    assert_eq!(
        text,
        [
            "Uid: 1000 1000 1000 1000",
            "Gid: 1000 1000 1000 1000",
            "Groups:",
            "SigBlk: 0000000000000000",
            "SigIgn: 0000000000000000",
            "SigCgt: 0000000000000000",
            "CapInh: 0000000000000000",
            "CapPrm: 0000000000000000",
            "CapEff: 0000000000000000",
            "CapAmb: 0000000000000000",
            "NoNewPrivs: 1",
            "Seccomp: 2",
            "0",
            "/home/user",
            "0",
            "1",
            "2",
            "3",
            "leader",
        ],
        "descriptor 3 is that of ls itself; {}",
        report.err()
    );
}

#[test]
fn users_are_found_by_name_and_number() {
    let world = World::new();
    let id = "echo $(id -u) $(id -g) $(id -G) $HOME $USER $SHELL $PWD";
    for (user, expected) in [
        (None, "1000 1000 1000 /home/user user /bin/sh /home/user"),
        (
            Some("user"),
            "1000 1000 1000 /home/user user /bin/sh /home/user",
        ),
        (Some("root"), "0 0 0 /root root /bin/sh /"),
        (
            Some("ann"),
            "1500 1501 1501 1600 /home/ann ann /bin/bash /home/ann",
        ),
        (
            Some("1500"),
            "1500 1501 1501 1600 /home/ann ann /bin/bash /home/ann",
        ),
        (
            Some("ann:staff"),
            "1500 1600 1600 /home/ann ann /bin/bash /home/ann",
        ),
        (Some("7777"), "7777 7777 7777 / 7777 /bin/sh /"),
        (Some("7777:42"), "7777 42 42 / 7777 /bin/sh /"),
    ] {
        let spawn = Spawn {
            user: user.map(Into::into),
            ..sh(id)
        };
        assert_eq!(
            world.address.run(spawn).expect_code(0).out().trim(),
            expected,
            "{user:?}"
        );
    }
    let caps = Spawn {
        user: Some("root".into()),
        ..sh("grep CapEff /proc/self/status")
    };
    assert_eq!(
        world.address.run(caps).out().trim(),
        "CapEff:\t00000000800404fb"
    );
}

#[test]
fn unknown_users_are_refused() {
    let world = World::new();
    for (user, failure) in [
        ("nobody-such", Failure::NotFound {}),
        ("ann:nobody-such", Failure::NotFound {}),
        ("", Failure::Invalid {}),
        ("65536", Failure::Invalid {}),
    ] {
        let (kind, message) = world.address.refused(Spawn {
            user: Some(user.into()),
            ..sh("exit")
        });
        assert_eq!(kind, failure, "{user}: {message}");
    }
    // The files that say who is who are gone.
    let root = |script| Spawn {
        user: Some("root".into()),
        ..sh(script)
    };
    world
        .address
        .run(root(
            "rm /etc/passwd && mkfifo /etc/passwd && ln -sf /proc/kmsg /etc/group",
        ))
        .expect_code(0);
    let (kind, _) = world.address.refused(Spawn {
        user: Some("ann".into()),
        ..sh("exit")
    });
    assert_eq!(kind, Failure::NotFound {});
    world.address.sh("exit 3").expect_code(3);
    world.address.run(root("exit 4")).expect_code(4);
}

#[test]
fn the_working_directory_is_entered_as_the_user() {
    let world = World::new();
    let at = |cwd: &str| Spawn {
        cwd: Some(cwd.into()),
        ..sh("pwd")
    };
    assert_eq!(world.address.run(at("/data")).out(), "/data\n");
    let (kind, message) = world.address.refused(at("/no/such"));
    assert_eq!(kind, Failure::NotFound {});
    assert!(message.contains("/no/such"), "{message}");
    let (kind, message) = world.address.refused(at("/data/plain"));
    assert_eq!(
        (kind, message.as_str()),
        (
            Failure::Invalid {},
            "working directory /data/plain is not a directory"
        )
    );
    let (kind, message) = world.address.refused(at("/secret"));
    assert_eq!(
        (kind, message.as_str()),
        (
            Failure::Denied {},
            "user user may not enter working directory /secret"
        )
    );
    let root = Spawn {
        user: Some("root".into()),
        ..at("/secret")
    };
    assert_eq!(world.address.run(root).out(), "/secret\n");
    // A name that does not fit into the status pipe.
    let (kind, message) = world.address.refused(at(&"/x".repeat(100_000)));
    assert_eq!(kind, Failure::Internal {});
    assert!(message.len() <= 2048);
}

#[test]
fn programs_that_cannot_run_end_as_in_a_shell() {
    let world = World::new();
    for (argv, code, said) in [
        (
            &["no-such"][..],
            127,
            "sandbox: no-such: command not found\n",
        ),
        (
            &["/no/such"],
            127,
            "sandbox: /no/such: no such file or directory\n",
        ),
        (
            &["/data/plain/x"],
            127,
            "sandbox: /data/plain/x: no such file or directory\n",
        ),
        (
            &["/data/orphan"],
            127,
            "sandbox: /data/orphan: its interpreter does not exist\n",
        ),
        (&[""], 127, "sandbox: : command not found\n"),
        (
            &["/data/plain"],
            126,
            "sandbox: /data/plain: permission denied\n",
        ),
        (&["/data"], 126, "sandbox: /data: permission denied\n"),
        (
            &["/secret/file"],
            126,
            "sandbox: /secret/file: permission denied\n",
        ),
    ] {
        let report = world.address.run(command(argv)).expect_code(code);
        assert_eq!((report.err().as_str(), report.out().as_str()), (said, ""));
    }
    let long = "x".repeat(200_000);
    let report = world
        .address
        .run(command(&["true", &long]))
        .expect_code(126);
    assert_eq!(report.err(), "sandbox: true: argument list too long\n");
    let merged = Spawn {
        merge_stderr: true,
        ..command(&["no-such"])
    };
    assert_eq!(
        world.address.run(merged).expect_code(127).out(),
        "sandbox: no-such: command not found\n"
    );
}

#[test]
fn programs_are_looked_up_in_the_commands_own_path() {
    let world = World::new();
    let with_path = |path: &str, argv: &[&str]| Spawn {
        env: vec![("PATH".into(), path.into())],
        ..command(argv)
    };
    let report = world
        .address
        .run(with_path("/no/such:/data", &["bare", "a b"]))
        .expect_code(0);
    assert_eq!(report.out(), "from bare a b\n");
    world
        .address
        .run(with_path("/data", &["ls"]))
        .expect_code(127);
    let here = Spawn {
        cwd: Some("/data".into()),
        ..with_path("", &["bare"])
    };
    assert_eq!(world.address.run(here).expect_code(0).out(), "from bare\n");
}

#[test]
fn requests_that_make_no_sense_are_refused() {
    let world = World::new();
    let nul = |text: &str| text.into();
    for spawn in [
        command(&[]),
        Spawn {
            argv: vec![nul("a\0b")],
            ..sh("")
        },
        Spawn {
            env: vec![(nul("A=B"), nul("x"))],
            ..sh("")
        },
        Spawn {
            cwd: Some(nul("/\0")),
            ..sh("")
        },
        Spawn {
            tag: Some("x".repeat(1000)),
            ..sh("")
        },
    ] {
        assert_eq!(world.address.refused(spawn).0, Failure::Invalid {});
    }
}

#[test]
fn long_arguments_travel_beside_the_packet() {
    let world = World::new();
    let arguments: Vec<String> = (0..40).map(|n| n.to_string().repeat(25_000)).collect();
    let mut argv = vec!["/bin/sh", "-c", "cat", "sh"];
    argv.extend(arguments.iter().map(String::as_str));
    argv[2] = "printf %s \"$@\" | wc -c";
    let total: usize = arguments.iter().map(String::len).sum();
    assert!(total > sandbox_agent::protocol::MAX_PACKET);
    assert_eq!(
        world
            .address
            .run(command(&argv))
            .expect_code(0)
            .out()
            .trim(),
        total.to_string()
    );
}

/// Finds the PID of the process that waits to become the next command.
const FIND_WAITING: &str = "while [ -z \"$found\" ]; do for p in /proc/[0-9]*; do \
     read -r name 2>/dev/null < $p/comm && [ \"$name\" = sandbox-init ] && [ $p != /proc/1 ] && \
     found=$p; done; done; ";

#[test]
fn a_process_that_waits_for_the_next_command_may_be_killed_or_stopped() {
    let world = World::new();
    let root = |script: &str| Spawn {
        user: Some("root".into()),
        ..sh(script)
    };
    for signal in ["KILL", "STOP"] {
        // The next command comes while the process is about to end, or before it is there.
        for _ in 0..100 {
            let script = format!("kill -{signal} -1; true");
            world.address.run(root(&script)).expect_code(0);
            world.address.sh("exit 3").expect_code(3);
        }
    }
    // The user of the commands cannot reach it.
    let attack =
        "kill -KILL ${found#/proc/}; cat $found/environ; cat $found/mem; ls $found/fd; true";
    let report = world
        .address
        .sh(&format!("{FIND_WAITING} {attack}"))
        .expect_code(0);
    let refusals = |text| report.err().matches(text).count();
    let refused = (refusals("not permitted"), refusals("Permission denied"));
    assert_eq!((refused, report.out().as_str()), ((1, 3), ""), "{report:?}");
    // It does not wait for ever.
    assert!(crate::harness::eventually(|| {
        let processes = world.sandbox.shell("ls -d /proc/[0-9]*").1;
        processes.lines().count() == 3
    }));
}
