//! Who ends when somebody else does, and that nothing piles up.

use std::collections::BTreeSet;
use std::fs;
use std::os::fd::AsFd as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
use rustix::process::{Pid, Signal, WaitOptions, kill_process, pidfd_send_signal};
use sandbox_agent::protocol::Wire as _;
use sandbox_agent::protocol::zygote::{Reply, Request};

use crate::harness::{STORAGE_BASE, Zygote, blob, encoded, eventually, lower};

fn exists(pid: u32) -> bool {
    Path::new(&format!("/proc/{pid}")).exists()
}

/// Whether a process still runs. Orphans that have ended stay zombies until the machine's init looks after them.
fn runs(pid: u32) -> bool {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    !status.is_empty() && !status.contains("State:\tZ")
}

#[test]
fn an_owned_sandbox_ends_with_its_lifeline_and_leaves_no_zombie() {
    let zygote = Zygote::start();
    let sandbox = zygote.make(1);
    let (pid, pidfd) = (sandbox.pid, sandbox.pidfd.try_clone().unwrap());
    assert_eq!(zygote.children(), [pid]);
    assert!(!sandbox.has_ended());
    drop(sandbox.lifeline);
    assert!(crate::harness::ends(&pidfd));
    // The zygote does nothing meanwhile: it waits for its next request.
    assert!(eventually(|| !exists(pid)));
}

#[test]
fn a_killed_sandbox_is_seen_by_its_pidfd() {
    let zygote = Zygote::start();
    let sandbox = zygote.make(1);
    pidfd_send_signal(&sandbox.pidfd, Signal::KILL).unwrap();
    assert!(sandbox.ends());
    assert!(eventually(|| !exists(sandbox.pid)));
    assert!(!zygote.make(1).has_ended());
}

#[test]
fn what_one_sandbox_has_written_is_a_layer_of_the_next_with_the_same_owners() {
    let zygote = Zygote::start();
    let first = zygote.make(1);
    let script =
        "umask 0; echo old > /tmp/note; mkdir /tmp/made; chown 1000:5 /tmp/made; rm -r /etc";
    assert_eq!(first.shell(script), (true, String::new()));
    let frozen = first.store.join("u0");
    drop(first);
    assert!(eventually(|| zygote.children().is_empty()));
    let mut request = zygote.request(2);
    request.overlays[0].lowers.insert(0, lower(&frozen, true));
    let second = zygote.create(&request).unwrap();
    let script =
        "cat /tmp/note; stat -c %u:%g /tmp/note /tmp/made; ls -d /etc 2>&1; echo new > /tmp/note";
    let (_, seen) = second.shell(script);
    let expected = "old\n0:0\n1000:5\n";
    assert!(seen.starts_with(expected), "{seen}");
    assert!(seen.contains("No such file"), "{seen}");
    // What a layer has is changed only above it, and belongs to nobody of the host.
    assert_eq!(
        fs::read_to_string(frozen.join("tmp/note")).unwrap(),
        "old\n"
    );
    let owner = fs::metadata(frozen.join("tmp/made")).unwrap().uid();
    assert_eq!(owner, STORAGE_BASE + 1000);
}

#[test]
fn sandboxes_outlive_the_zygote() {
    let mut zygote = Zygote::start();
    let sandbox = zygote.make(1);
    zygote.settle();
    zygote.kill();
    let (ok, text) = sandbox.shell("echo alive");
    assert_eq!((ok, text.as_str()), (true, "alive"));
    assert!(!sandbox.has_ended());
    let pidfd = sandbox.pidfd.try_clone().unwrap();
    drop(sandbox);
    assert!(crate::harness::ends(&pidfd));
}

#[test]
fn the_zygote_ends_when_its_socket_closes() {
    let mut zygote = Zygote::start();
    let sandbox = zygote.make(1);
    zygote.hang_up();
    assert!(zygote.ended());
    assert!(!sandbox.has_ended());
}

#[test]
fn twenty_at_once_are_twenty_different_ones() {
    let zygote = Zygote::start();
    let sandboxes: Vec<_> = (1..=20).map(|n| zygote.make(n)).collect();
    for kind in ["user", "mnt", "pid", "net", "ipc", "uts", "cgroup"] {
        let link = |pid: u32| fs::read_link(format!("/proc/{pid}/ns/{kind}")).unwrap();
        let links: BTreeSet<_> = sandboxes.iter().map(|sandbox| link(sandbox.pid)).collect();
        assert_eq!(links.len(), 20, "{kind}");
    }
    for sandbox in &sandboxes {
        fs::write(sandbox.store.join("mark"), "").unwrap();
        let (ok, text) =
            sandbox.shell("cat /proc/sys/kernel/hostname; ls /proc | grep -c '^[0-9]'");
        assert!(ok && text.starts_with("test-"), "{text}");
    }
    assert_eq!(zygote.children().len(), 20);
}

#[test]
fn the_zygote_keeps_no_descriptor_of_a_sandbox() {
    let zygote = Zygote::start();
    drop(zygote.make(1));
    let open = zygote.descriptors_open();
    for _ in 0..50 {
        drop(zygote.make(1));
    }
    assert_eq!(zygote.descriptors_open(), open);
    // Storage maps of other ranges are kept, up to a bound.
    for n in 2..70 {
        drop(zygote.make(n));
    }
    let bound = zygote.descriptors_open();
    assert!(bound <= open + 63, "{bound} descriptors");
    for n in 70..90 {
        drop(zygote.make(n));
    }
    assert_eq!(zygote.descriptors_open(), bound);
    assert!(eventually(|| zygote.children().is_empty()));
}

/// Stops the zygote with SIGSTOP at a moment of a creation that `round` picks, then ends it. Whatever it has made by
/// then must end as well, unless the library was told of it. Returns whether there was something.
fn interrupted(round: u32) -> bool {
    let mut zygote = Zygote::start();
    // The first creation does more than later ones.
    drop(zygote.make(1));
    assert!(eventually(|| zygote.children().is_empty()));
    let request = zygote.request(1);
    let (fds, lifeline) = zygote.descriptors().split();
    zygote.send(
        &encoded(&request),
        &fds.iter().map(std::os::fd::AsFd::as_fd).collect::<Vec<_>>(),
    );
    drop(fds);
    // Not a wait for anything: each round picks a later moment.
    let moment = Instant::now() + Duration::from_micros(120) * round;
    while Instant::now() < moment {
        std::hint::spin_loop();
    }
    let pid = Pid::from_raw(zygote.pid().cast_signed()).unwrap();
    kill_process(pid, Signal::STOP).unwrap();
    let stopped = rustix::process::waitpid(Some(pid), WaitOptions::UNTRACED).unwrap();
    assert!(stopped.is_some_and(|(_, status)| status.stopped()));
    let children = zygote.children();
    let told = zygote.answered();
    zygote.kill();
    if told {
        assert!(matches!(zygote.receive(), Some((Reply::Created { .. }, _))));
        drop(lifeline);
        assert!(eventually(|| !children.iter().any(|&pid| runs(pid))));
        return false;
    }
    // The lifeline stays open: the children have to end by themselves.
    assert!(
        eventually(|| !children.iter().any(|&pid| runs(pid))),
        "round {round}: {children:?} live on"
    );
    drop(lifeline);
    !children.is_empty()
}

#[test]
fn a_creation_ends_with_its_zygote() {
    let caught = (0..30).filter(|&round| interrupted(round)).count();
    assert!(
        caught > 0,
        "no creation was interrupted between its first process and its answer"
    );
}

#[test]
fn who_works_on_files_keeps_nobody_waiting_for_a_zygote_that_has_ended() {
    let mut zygote = Zygote::start();
    let from = zygote.path("from");
    for number in 0..2000 {
        fs::create_dir_all(from.join(number.to_string())).unwrap();
    }
    let worker = (0..).find_map(|attempt| {
        let (answers, theirs) = socketpair(
            AddressFamily::UNIX,
            SocketType::SEQPACKET,
            SocketFlags::CLOEXEC,
            None,
        )
        .unwrap();
        let to = zygote.path(&format!("to-{attempt}"));
        let copy = Request::Copy {
            from: vec![blob(&from)],
            to: blob(&to),
            bytes: 0,
            files: 5000,
        };
        zygote.send(&copy.encode(), &[theirs.as_fd()]);
        drop(theirs);
        assert!(attempt < 20 && eventually(|| to.exists()));
        let pid = *zygote.children().first()?;
        let process = Pid::from_raw(i32::try_from(pid).unwrap()).unwrap();
        // It may have been too quick.
        kill_process(process, Signal::STOP).ok()?;
        Some((process, answers))
    });
    let (process, _answers) = worker.unwrap();
    zygote.kill();
    assert!(zygote.receive().is_none());
    kill_process(process, Signal::KILL).unwrap();
}
