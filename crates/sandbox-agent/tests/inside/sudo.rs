//! `sudo` as programs of a sandbox use it, and misuse it.

use std::fs::{self, File};
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::PathBuf;

use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, connect, socket_with};
use sandbox_agent::protocol::agent::{Exit, Request, Spawn};
use sandbox_agent::protocol::zygote::Create;

use crate::client::{Client, Report, command, sh};
use crate::harness::eventually;
use crate::world::{Options, World};

/// Where the stand-in is in these sandboxes, which the path of their commands begins with.
const DIRECTORY: &str = "/stand-in";

/// A sandbox with the stand-in, with or without cgroups.
fn world_with(cgroup: bool) -> World {
    World::with(&Options {
        cgroup,
        change: add_sudo,
    })
}

fn world() -> World {
    world_with(true)
}

fn add_sudo(request: &mut Create) {
    let template =
        PathBuf::from(String::from_utf8(request.overlays[0].lowers[0].path.0.clone()).unwrap());
    let directory = template.join(DIRECTORY.trim_start_matches('/'));
    fs::create_dir(&directory).unwrap();
    fs::set_permissions(&directory, fs::Permissions::from_mode(0o755)).unwrap();
    fs::copy(env!("CARGO_BIN_EXE_sandbox-agent"), directory.join("sudo")).unwrap();
    fs::set_permissions(directory.join("sudo"), fs::Permissions::from_mode(0o755)).unwrap();
    request.env = vec![(
        "PATH".into(),
        format!("{DIRECTORY}:/usr/bin:/bin").as_str().into(),
    )];
}

/// Whether a process of the machine has exactly these arguments.
fn runs(arguments: &[&str]) -> bool {
    let wanted: Vec<u8> = arguments
        .iter()
        .flat_map(|argument| [argument.as_bytes(), b"\0"].concat())
        .collect();
    fs::read_dir("/proc")
        .unwrap()
        .flatten()
        .any(|entry| fs::read(entry.path().join("cmdline")).is_ok_and(|line| line == wanted))
}

/// A number of seconds to sleep that no other test uses.
fn nap(number: u32) -> String {
    format!("{}.{}", 100_000 + number, std::process::id())
}

#[test]
fn it_makes_root_and_others() {
    let world = world();
    for (script, out) in [
        ("sudo id -u", "0\n"),
        ("sudo -n -- id -u", "0\n"),
        ("sudo -u user id -u; id -u", "1000\n1000\n"),
        ("sudo -u ann sh -c 'id -u; id -G'", "1500\n1501 1600\n"),
        ("sudo -u '#4242' id -u", "4242\n"),
        ("sudo /stand-in/sudo -u user /stand-in/sudo id -u", "0\n"),
        ("sudo -v && echo yes", "yes\n"),
        ("sudo -k && sudo -K && echo yes", "yes\n"),
        ("sudo -s echo a b", "a b\n"),
        ("sudo -i sh -c 'pwd'", "/\n"),
        ("sudo -i -u ann pwd", "/home/ann\n"),
        ("sudo A=1 B='2 3' sh -c 'echo $A $B'", "1 2 3\n"),
    ] {
        let report = world.address.sh(script);
        assert_eq!(
            (report.out().as_str(), report.err().as_str()),
            (out, ""),
            "{script}"
        );
        report.expect_code(0);
    }
}

#[test]
fn a_root_command_has_what_root_of_a_sandbox_may_have() {
    let world = world();
    let script = "sudo sh -c 'chown 7:8 /tmp/x && stat -c %u:%g /tmp/x; \
                  sed -nE \"/^(Uid|Groups|CapPrm|CapEff|CapBnd|CapInh|NoNewPrivs|Seccomp|SigBlk|SigIgn):/p\" /proc/self/status; \
                  cat /proc/self/oom_score_adj; ls /proc/self/fd'";
    let report = world
        .address
        .sh(&format!("touch /tmp/x; {script}"))
        .expect_code(0);
    let out = report.out();
    let lines: Vec<String> = out
        .lines()
        .map(|line| line.split_whitespace().collect::<Vec<_>>().join(" "))
        .collect();
    let want = [
        "7:8",
        "Uid: 0 0 0 0",
        "Groups:",
        "SigBlk: 0000000000000000",
        "SigIgn: 0000000000000000",
        "CapInh: 0000000000000000",
        "CapPrm: 00000000800404fb",
        "CapEff: 00000000800404fb",
        "CapBnd: 00000000800404fb",
        "NoNewPrivs: 1",
        "Seccomp: 2",
        "0",
        // The last one is the directory that is listed.
        "0",
        "1",
        "2",
        "3",
    ];
    assert_eq!(lines, want);
}

#[test]
fn codes_come_through() {
    let world = world();
    for (script, code) in [
        ("sudo true", 0),
        ("sudo sh -c 'exit 42'", 42),
        ("sudo sh -c 'kill -9 $$'", 137),
        ("sudo sh -c 'kill -TERM $$'", 143),
        ("sudo", 1),
        ("sudo --nonsense", 1),
        ("sudo -u nobody-such true", 1),
        ("sudo -u 70000 true", 1),
    ] {
        let report = world.address.sh(script).expect_code(code);
        assert_eq!(report.err().is_empty(), code != 1, "{script}: {report:?}");
    }
}

#[test]
fn programs_that_cannot_be_run_are_named() {
    let world = world();
    for (script, code, message) in [
        (
            "sudo no-such-program",
            127,
            "sudo: no-such-program: command not found\n",
        ),
        (
            "sudo /no/such",
            127,
            "sudo: /no/such: no such file or directory\n",
        ),
        (
            "sudo /data/plain",
            126,
            "sudo: /data/plain: permission denied\n",
        ),
        (
            "sudo -u nobody-such true",
            1,
            "sudo: the sandbox has no user \"nobody-such\" in its /etc/passwd\n",
        ),
    ] {
        let report = world.address.sh(script).expect_code(code);
        assert_eq!(report.err(), message);
    }
}

#[test]
fn descriptors_are_the_callers() {
    let world = world();
    let report = world
        .address
        .sh("printf 'a\\nb\\n' | sudo sort -r | sudo cat; sudo sh -c 'echo oops >&2'")
        .expect_code(0);
    assert_eq!(
        (report.out().as_str(), report.err().as_str()),
        ("b\na\n", "oops\n")
    );
    let report = world
        .address
        .sh("sudo cat <&- >/tmp/out; sudo sh -c 'echo x' >&-; echo $?; cat /tmp/out")
        .expect_code(0);
    assert_eq!(report.out(), "0\n");
    let mut spawn = command(&["sudo", "cat"]);
    spawn.stdin = true;
    let (client, _, _) = world.address.spawn(spawn);
    client.type_in(b"typed");
    assert_eq!(
        client.until(|report| !report.stdout.is_empty()).out(),
        "typed"
    );
    client.send(&Request::CloseStdin {});
    client.rest().expect_code(0);
}

#[test]
fn the_environment_is_that_of_sudo() {
    let world = world();
    let mut spawn = command(&["sudo", "env"]);
    spawn.env = vec![
        ("TERM".into(), "dumb".into()),
        ("LANG".into(), "C".into()),
        ("SECRET".into(), "1".into()),
        ("LD_PRELOAD".into(), "".into()),
    ];
    let environment = |report: Report| {
        let out = report.expect_code(0).out();
        let mut lines: Vec<String> = out.lines().map(str::to_owned).collect();
        lines.sort();
        lines
    };
    let own = [
        "HOME=/root",
        "LANG=C",
        "LOGNAME=root",
        "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        "SHELL=/bin/sh",
        "SUDO_COMMAND=env",
        "SUDO_GID=1000",
        "SUDO_UID=1000",
        "SUDO_USER=user",
        "TERM=dumb",
        "USER=root",
    ];
    assert_eq!(environment(world.address.run(spawn.clone())), own);
    spawn.argv = ["sudo", "-E", "env"].map(Into::into).to_vec();
    let all = environment(world.address.run(spawn));
    assert!(all.contains(&"SECRET=1".into()) && all.contains(&"HOME=/home/user".into()));
    assert!(all.contains(&"USER=root".into()) && all.contains(&own[3].into()));
}

#[test]
fn the_working_directory_comes_along() {
    let world = world();
    for (script, out) in [
        ("cd /tmp && sudo pwd", "/tmp\n"),
        // Not even root could name it.
        (
            "mkdir /tmp/gone && cd /tmp/gone && rmdir /tmp/gone && sudo sh -c 'echo here'",
            "here\n",
        ),
        (
            "mkdir /tmp/closed && cd /tmp/closed && chmod 0 . && sudo pwd",
            "/\n",
        ),
        ("cd / && sudo -u ann pwd", "/\n"),
    ] {
        let report = world.address.sh(script).expect_code(0);
        assert!(report.out().ends_with(out), "{script}: {report:?}");
    }
    let report = world
        .address
        .sh("mkdir -m 700 /tmp/own && cd /tmp/own && sudo -u ann sh -c 'echo in; ls'");
    assert!(report.out().starts_with("in\n"), "{report:?}");
}

#[test]
fn long_command_lines_fit() {
    let world = world();
    let script = "long=$(head -c 100000 /dev/zero | tr '\\0' x); sudo A=$long B=$long sh -c 'echo ${#A} ${#B} ${#1}' - $long";
    assert_eq!(
        world.address.sh(script).expect_code(0).out(),
        "100000 100000 100000\n"
    );
}

#[test]
fn only_root_and_user_may() {
    let world = world();
    let stranger = Spawn {
        user: Some("ann".into()),
        ..sh("sudo id -u")
    };
    let report = world.address.run(stranger).expect_code(1);
    assert_eq!(
        report.err(),
        "sudo: uid 1500 may not use it; only root and user of this sandbox may\n"
    );
    let root = Spawn {
        user: Some("root".into()),
        ..sh("sudo sh -c 'echo $SUDO_USER'")
    };
    assert_eq!(world.address.run(root).expect_code(0).out(), "root\n");
}

#[test]
fn without_its_socket_it_says_so() {
    let world = world();
    let report = world
        .address
        .sh("sudo rm /run/.sandbox/sudo; sudo true")
        .expect_code(1);
    assert_eq!(report.err(), "sudo: not available in this sandbox\n");
}

#[test]
fn killing_the_command_kills_what_it_started() {
    for (cgroup, number) in [(true, 1), (false, 2)] {
        let world = world_with(cgroup);
        let nap = nap(number);
        let script = format!("sudo sh -c 'sleep {nap} & wait' & wait");
        let (client, process, _) = world.address.spawn(sh(&script));
        assert!(eventually(|| runs(&["sleep", &nap])), "{cgroup}");
        world.address.ask(&Request::Signal {
            process,
            signal: libc_signal::KILL,
            tree: true,
        });
        assert_eq!(
            client.rest().exit,
            Some(Exit::Signal {
                signal: libc_signal::KILL
            })
        );
        assert!(eventually(|| !runs(&["sleep", &nap])), "{cgroup}");
    }
}

#[test]
fn a_command_is_in_the_cgroup_of_its_caller() {
    let world = world();
    let nap = nap(3);
    let (_client, process, _) = world.address.spawn(sh(&format!("sudo sleep {nap}")));
    assert!(eventually(|| runs(&["sleep", &nap])));
    // The shell may have become sudo.
    let population = world.cgroup.as_ref().unwrap().population();
    assert!(population >= 2, "{population}");
    world.address.ask(&Request::Signal {
        process,
        signal: libc_signal::KILL,
        tree: true,
    });
    assert!(eventually(|| !runs(&["sleep", &nap])));
}

#[test]
fn signals_go_through_and_a_dead_client_takes_its_command_along() {
    let world = world();
    let (client, process, _) = world.address.spawn(command(&[
        "sudo",
        "sh",
        "-c",
        "trap 'echo caught; exit 5' INT; echo ready; while :; do sleep 0.1; done",
    ]));
    client.until(|report| report.out() == "ready\n");
    world.address.ask(&Request::Signal {
        process,
        signal: libc_signal::INT,
        tree: false,
    });
    let report = client.rest().expect_code(5);
    assert_eq!(report.out(), "caught\n");

    let nap = nap(4);
    let (client, process, _) = world.address.spawn(command(&["sudo", "sleep", &nap]));
    assert!(eventually(|| runs(&["sleep", &nap])));
    // Only the stand-in itself: its group, which is not that of its command.
    let script = "for process in /proc/[0-9]*; do \
                  ! grep -qx sudo $process/comm || kill -9 ${process#/proc/}; done";
    world.address.run(Spawn {
        user: Some("root".into()),
        ..sh(script)
    });
    assert_eq!(
        client.rest().exit,
        Some(Exit::Signal {
            signal: libc_signal::KILL
        })
    );
    assert!(eventually(|| !runs(&["sleep", &nap])), "{process}");
}

/// Numbers of signals.
mod libc_signal {
    pub(super) const INT: i32 = 2;
    pub(super) const KILL: i32 = 9;
}

/// Connects to the socket of `sudo` as the sandbox's `user` would, so often.
fn connections(world: &World, count: usize) -> Vec<OwnedFd> {
    const O_PATH: i32 = 0o10_000_000;
    // The first command starts when the socket is there.
    world.address.sh("true").expect_code(0);
    let path = world.sandbox.inside("/run/.sandbox/sudo");
    let socket = File::options()
        .read(true)
        .custom_flags(O_PATH)
        .open(path)
        .unwrap();
    let id = world.sandbox.base + 1000;
    let connect_all = move || {
        let uid = rustix::process::Uid::from_raw(id);
        rustix::thread::set_thread_res_uid(uid, uid, uid).unwrap();
        let address = SocketAddrUnix::new(format!("/proc/self/fd/{}", socket.as_raw_fd())).unwrap();
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let attempt = |_| {
            let peer =
                socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None).unwrap();
            connect(&peer, &address).ok().map(|()| peer)
        };
        (0..count).filter_map(attempt).collect()
    };
    std::thread::spawn(connect_all).join().unwrap()
}

#[test]
fn a_flood_of_silent_connections_blocks_nothing_else() {
    let world = world();
    let mut held = Vec::new();
    // As many as are accepted, and as many as wait for that.
    assert!(eventually(|| {
        held.extend(connections(&world, 200));
        held.len() >= 100
    }));
    for _ in 0..5 {
        assert_eq!(world.address.sh("echo fine").expect_code(0).out(), "fine\n");
    }
    // Each is left after a while, although none of them goes.
    world.address.sh("sudo true").expect_code(0);
    drop(held);
    world.address.sh("sudo true").expect_code(0);
}

#[test]
fn nonsense_is_survived() {
    let world = world();
    for bytes in [&b"nonsense"[..], &[0; 70_000], &[255; 100], &[0]] {
        for peer in connections(&world, 8) {
            let _ = rustix::net::send(&peer, bytes, rustix::net::SendFlags::NOSIGNAL);
        }
    }
    // Standard descriptors that are not what they seem.
    let report = world
        .address
        .sh("sudo true </ ; echo $?; sudo cat </tmp; sudo echo out >/dev/full")
        .expect_code(1);
    assert!(report.out().starts_with("0\n"));
    assert_eq!(world.address.sh("sudo id -u").expect_code(0).out(), "0\n");
}

#[test]
fn many_at_once_are_all_served() {
    let world = world();
    let script = "for n in $(seq 100); do sudo echo $n & done | sort -n | tail -1; wait";
    assert_eq!(world.address.sh(script).expect_code(0).out(), "100\n");
    // When there is nothing to do nobody is left.
    let only_init = || world.address.sh("ls -d /proc/[0-9]* | wc -l").out() == "4\n";
    assert!(
        eventually(only_init),
        "{}",
        world.address.sh("cat /proc/[0-9]*/cmdline").out()
    );
}

#[test]
fn nobody_looks_into_those_who_serve_it() {
    let world = world();
    // PID 1, the one who accepts, and the one who serves this very command; they all have the same name.
    let script = "sudo sh -c 'for process in /proc/[0-9]*; do grep -qx sandbox-init $process/comm || continue; \
                  echo found; cat $process/environ $process/maps && echo read; ls $process/fd && echo listed; done'";
    let report = world.address.sh(script);
    assert_eq!(report.out(), "found\nfound\nfound\n");
}

#[test]
fn a_terminal_works() {
    let world = world();
    let spawn = Spawn {
        pty: Some((24, 80)),
        ..sh("sudo sh -c 'test -t 0 && test -t 1 && stty size'")
    };
    let (client, _, _): (Client, u64, u32) = world.address.spawn(spawn);
    let report = client.rest().expect_code(0);
    assert_eq!(report.screen(), "24 80\r\n");
}
