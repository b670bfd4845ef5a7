//! Requests that cannot be carried out: a clear answer, nothing left behind, and the next one works.

use std::fs;
use std::os::unix::fs::{chown, symlink};

use sandbox_agent::protocol::zygote::{Create, Reply};
use sandbox_agent::protocol::{Blob, VERSION};

use crate::harness::{COUNT, STORAGE_BASE, Zygote, encoded, eventually, lower};

const ENOENT: i32 = 2;
const ENOTDIR: i32 = 20;

/// Asks for a sandbox that cannot be made, and checks that the answer names `step` and that nothing is left.
fn fails(zygote: &Zygote, step: &str, errno: i32, change: impl FnOnce(&mut Create)) {
    let mut request = zygote.request(1);
    change(&mut request);
    let open = zygote.descriptors_open();
    match zygote.create(&request) {
        Ok(sandbox) => panic!(
            "sandbox {} was made, without failing to {step}",
            sandbox.pid
        ),
        Err((failed, number)) => {
            assert!(failed.contains(step), "failed to {failed}, not to {step}");
            assert_eq!(number, errno, "{failed}");
        }
    }
    nothing_left(zygote, open);
}

fn nothing_left(zygote: &Zygote, open: usize) {
    // The answer may come a moment before a child has been waited for.
    assert!(
        eventually(|| zygote.children().is_empty()),
        "a child is left"
    );
    assert!(zygote.descriptors_open() <= open, "a descriptor is left");
}

#[test]
fn impossible_requests_name_the_step_and_leave_nothing() {
    let zygote = Zygote::start();
    // The first sandbox leaves a storage map in the zygote, on purpose.
    drop(zygote.make(1));
    assert!(eventually(|| zygote.children().is_empty()));
    let missing: Blob = "/no/such/directory".into();

    fails(&zygote, "open the layer /no/such/directory", ENOENT, |r| {
        r.overlays[0].lowers[0].path = missing.clone()
    });
    fails(&zygote, "open the layer /no/such/directory", ENOENT, |r| {
        r.overlays[1].store = missing.clone()
    });
    fails(&zygote, "mount the overlay of /usr", ENOENT, |r| {
        r.overlays[1].upper = "nothing".into()
    });
    fails(&zygote, "name", 0, |r| r.name = String::new());
    fails(&zygote, "name", 0, |r| r.name = "a/b".into());
    fails(&zygote, "name", 0, |r| r.name = "x".repeat(64));
    fails(&zygote, "uid range", 0, |r| r.uid_base = 1000);
    fails(&zygote, "uid range", 0, |r| r.uid_base = STORAGE_BASE - 1);
    fails(&zygote, "uid range", 0, |r| r.uid_base = STORAGE_BASE);
    fails(&zygote, "uid range", 0, |r| r.uid_base = u32::MAX - 10);
    fails(&zygote, "uid range", 0, |r| r.uid_count = 0);
    fails(&zygote, "tmpfs", 0, |r| r.tmpfs_size = 0);
    fails(&zygote, "environment", 0, |r| {
        r.env.push(("A=B".into(), "".into()))
    });
    fails(&zygote, "environment", 0, |r| {
        r.env.push(("A".into(), "\0".into()))
    });
    fails(&zygote, "seccomp", 0, |r| r.seccomp = Blob::default());
    fails(&zygote, "seccomp", 0, |r| r.seccomp = Blob(vec![0; 9]));
    fails(&zygote, "the first must be that of /", 0, |r| {
        r.overlays.reverse()
    });
    fails(&zygote, "check the overlays", 0, |r| r.overlays.clear());
    fails(&zygote, "lower layers", 0, |r| r.overlays[1].lowers.clear());
    fails(&zygote, "absolute path", 0, |r| {
        r.overlays[1].lowers[0].path = "usr".into()
    });
    fails(&zygote, "plain names", 0, |r| {
        r.overlays[1].upper = "../u0".into()
    });
    fails(&zygote, "used twice", 0, |r| {
        r.overlays[1].work = "u0".into()
    });
    for target in ["usr", "/usr/", "/usr/../etc", "/usr/./x", "//usr", "/a\0b"] {
        fails(&zygote, "check the overlay of", 0, |r| {
            r.overlays[1].target = target.into()
        });
    }
    for target in ["/proc", "/dev/shm", "/sys/fs", "/run"] {
        fails(&zygote, "own mounts", 0, |r| {
            r.overlays[1].target = target.into()
        });
    }
    assert!(!zygote.make(1).has_ended());
}

#[test]
#[cfg(not(feature = "weaken"))]
fn walls_cannot_be_left_out() {
    let zygote = Zygote::start();
    for wall in 0..32 {
        let mut request = zygote.request(1);
        request.weaken = 1 << wall;
        assert_eq!(
            zygote.create(&request).err(),
            Some(("weaken".to_owned(), 0))
        );
    }
}

#[test]
fn links_of_a_hostile_tree_are_not_followed() {
    let zygote = Zygote::start();
    drop(zygote.make(1));
    assert!(eventually(|| zygote.children().is_empty()));
    for (name, target) in [("proc", "/"), ("dev", "etc"), ("usr", "/l")] {
        let template = zygote.path("template");
        fs::rename(template.join(name), template.join("aside")).unwrap();
        symlink(target, template.join(name)).unwrap();
        fails(&zygote, &format!("mount /{name}"), ENOTDIR, |_| ());
        fs::remove_file(template.join(name)).unwrap();
        fs::rename(template.join("aside"), template.join(name)).unwrap();
    }
}

#[test]
fn an_upper_directory_of_another_owner_is_refused() {
    let zygote = Zygote::start();
    let request = zygote.request(1);
    let work = zygote.path("stores/0/w0");
    // Not of the storage range: it has no owner in the sandbox, and the overlay would come out read-only.
    chown(&work, Some(0), Some(0)).unwrap();
    let (step, _) = zygote.create(&request).err().unwrap();
    assert!(step.contains("mount the overlay of /"), "{step}");
    assert_eq!(zygote.children(), []);
    chown(&work, Some(STORAGE_BASE), Some(STORAGE_BASE)).unwrap();
    assert!(!zygote.create(&request).unwrap().has_ended());
}

#[test]
fn wrong_descriptors_are_refused() {
    let zygote = Zygote::start();
    drop(zygote.make(1));
    assert!(eventually(|| zygote.children().is_empty()));
    let open = zygote.descriptors_open();
    let refused = |fds, lifeline, request: &Create| {
        let (step, errno) = zygote
            .create_with(request, &encoded(request), fds, lifeline)
            .err()
            .unwrap();
        assert!(step.starts_with("check the descriptors"), "{step}");
        assert_eq!(errno, 0);
    };
    let plain = zygote.request(1);
    let with_cgroup = Create {
        process_cgroup: true,
        ..zygote.request(1)
    };
    let (mut fds, lifeline) = zygote.descriptors().split();
    fds.pop();
    refused(fds, lifeline, &plain);
    let (fds, lifeline) = zygote.descriptors().split();
    refused(fds, lifeline, &with_cgroup);
    let (mut fds, lifeline) = zygote.descriptors().split();
    fds.push(fs::File::open("/").unwrap().into());
    refused(fds, lifeline, &plain);
    let (mut fds, lifeline) = zygote.descriptors().split();
    fds.swap(0, 1);
    refused(fds, lifeline, &plain);
    let (mut fds, lifeline) = zygote.descriptors().split();
    fds.push(fs::File::open(zygote.path("lock")).unwrap().into());
    refused(fds, lifeline, &with_cgroup);
    nothing_left(&zygote, open);
}

#[test]
fn bytes_that_are_no_request_are_refused() {
    let zygote = Zygote::start();
    let good = encoded(&zygote.request(1));
    let mut long = good.clone();
    long.push(0);
    for message in [&b"x"[..], &good[..good.len() / 2], &long] {
        zygote.send(message, &[]);
        match zygote.receive() {
            Some((Reply::Failed { step, errno: 0 }, _)) => {
                assert!(step.starts_with("read the request"), "{step}")
            }
            other => panic!("unexpected answer {other:?}"),
        }
    }
    // A packet that is longer than the protocol allows.
    zygote.send(&vec![0; 100 * 1024], &[]);
    assert!(matches!(zygote.receive(), Some((Reply::Failed { .. }, _))));
    assert!(!zygote.make(1).has_ended());
}

#[test]
fn another_version_is_refused() {
    let mut zygote = Zygote::start_unconfigured();
    match zygote.configure(VERSION + 1) {
        Some(Reply::Failed { step, errno: 0 }) => {
            assert!(step.starts_with("agree on a protocol"), "{step}")
        }
        other => panic!("unexpected answer {other:?}"),
    }
    assert!(zygote.ended());
}

#[test]
fn a_staging_directory_that_is_missing_is_named() {
    let mut zygote = Zygote::start_unconfigured();
    fs::remove_dir(zygote.path("staging")).unwrap();
    match zygote.configure(VERSION) {
        Some(Reply::Failed {
            step,
            errno: ENOENT,
        }) => assert!(step.contains("staging directory"), "{step}"),
        other => panic!("unexpected answer {other:?}"),
    }
    assert!(zygote.ended());
}

#[test]
fn many_layers_stack_and_too_many_are_refused() {
    let zygote = Zygote::start();
    let mut request = zygote.request(1);
    for n in 0..31 {
        let layer = zygote.path(&format!("layer-{n}"));
        fs::create_dir(&layer).unwrap();
        fs::write(layer.join("top"), n.to_string()).unwrap();
        request.overlays[0].lowers.insert(n, lower(&layer, false));
    }
    let sandbox = zygote.create(&request).unwrap();
    assert_eq!(fs::read_to_string(sandbox.inside("/top")).unwrap(), "0");
    drop(sandbox);
    assert!(eventually(|| zygote.children().is_empty()));
    let first = request.overlays[0].lowers[0].clone();
    fails(&zygote, "lower layers", 0, |r| {
        r.uid_base += COUNT;
        r.overlays[0].lowers = vec![first; 33];
    });
}

#[test]
fn started_by_another_name_it_says_what_it_is() {
    let output = std::process::Command::new(env!("CARGO_BIN_EXE_sandbox-agent"))
        .output()
        .unwrap();
    assert!(!output.status.success());
    let text = String::from_utf8(output.stderr).unwrap();
    assert!(text.contains("helper of the crate sandbox-local"), "{text}");
}
