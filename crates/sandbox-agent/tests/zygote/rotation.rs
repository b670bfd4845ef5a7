//! New overlays for a sandbox that lives: what was changed becomes a layer, and everything else stays as it was.

use std::fs;
use std::os::fd::AsFd as _;
use std::os::unix::fs::{MetadataExt as _, chown};
use std::path::PathBuf;

use sandbox_agent::protocol::Wire as _;
use sandbox_agent::protocol::zygote::{Create, Lower, Reply, Request, Rotate, source};

use crate::harness::{Sandbox, Zygote, blob, lower};

/// A sandbox and the request that made it.
struct World {
    zygote: Zygote,
    sandbox: Sandbox,
    request: Create,
}

impl World {
    fn new() -> Self {
        let zygote = Zygote::start();
        let request = zygote.request(1);
        let sandbox = zygote.create(&request).unwrap();
        Self {
            zygote,
            sandbox,
            request,
        }
    }

    /// What asks for new overlays over the old upper directories.
    fn rotation(&self, generation: u32) -> Rotate {
        let store = &self.sandbox.store;
        let mut overlays = self.request.overlays.clone();
        for (index, overlay) in overlays.iter_mut().enumerate() {
            for after in (0..generation).map(|before| upper(index, before)) {
                overlay.lowers.insert(0, lower(&store.join(after), true));
            }
            for (name, place) in [
                (upper(index, generation), &mut overlay.upper),
                (format!("w{index}.{generation}"), &mut overlay.work),
            ] {
                let directory = store.join(&name);
                fs::create_dir(&directory).unwrap();
                let owner = Some(crate::harness::STORAGE_BASE);
                chown(&directory, owner, owner).unwrap();
                *place = name.as_str().into();
            }
        }
        Rotate {
            uid_base: self.request.uid_base,
            uid_count: self.request.uid_count,
            overlays,
            generation,
        }
    }

    fn rotate(&self, rotate: Rotate) -> Reply {
        let message = Request::Rotate { rotate }.encode();
        self.rotate_at(&message, self.sandbox.pid)
    }

    /// Sends the request with the places of process `pid`.
    fn rotate_at(&self, message: &[u8], pid: u32) -> Reply {
        let place = |name: &str| fs::File::open(format!("/proc/{pid}/{name}")).unwrap();
        let places = ["ns/user", "ns/mnt", "root", "mountinfo"].map(place);
        let mut fds = [&self.sandbox.pidfd, &self.sandbox.lifeline]
            .map(|fd| fd.as_fd())
            .to_vec();
        fds.extend(places.iter().map(|place| place.as_fd()));
        self.zygote.send(message, &fds);
        self.zygote.receive().unwrap().0
    }

    /// Where all is mounted, and the sources of the overlays.
    fn mounts(&self) -> (Vec<String>, Vec<String>) {
        let list = self.sandbox.proc_file("mountinfo");
        let word = |line: &str, index: usize| line.split(' ').nth(index).unwrap().to_owned();
        let mut places: Vec<String> = list.lines().map(|line| word(line, 4)).collect();
        places.sort();
        let rest = list
            .lines()
            .filter_map(|line| line.split_once(" - overlay "));
        let sources = rest.map(|(_, rest)| word(rest, 0));
        (places, sources.collect())
    }

    fn sh(&self, script: &str) -> String {
        let (success, text) = self.sandbox.shell(script);
        assert!(success, "{script}: {text}");
        text
    }
}

/// Name of the upper directory of a tree.
fn upper(index: usize, generation: u32) -> String {
    match generation {
        0 => format!("u{index}"),
        _ => format!("u{index}.{generation}"),
    }
}

#[test]
fn what_was_changed_becomes_a_layer_that_nobody_writes_to() {
    let world = World::new();
    world.sh("echo old >/etc/kept; echo gone >/etc/gone; mkdir /etc/d; echo x >/etc/d/x; rm -r /usr/share/doc");
    let (before, sources) = world.mounts();
    assert_eq!(sources, [source(0), source(0)]);
    assert_eq!(world.rotate(world.rotation(1)), Reply::Rotated {});
    let (after, sources) = world.mounts();
    assert_eq!(before, after);
    assert_eq!(sources, [source(1), source(1)]);
    assert_eq!(
        world.sh("cat /etc/kept /etc/d/x; ls /usr/share | grep -cx doc || true"),
        "old\nx\n0"
    );
    world.sh("echo new >/etc/kept; rm /etc/gone; rm -r /etc/d; mkdir /etc/d; touch /etc/d/y /usr/share/doc");
    let store = &world.sandbox.store;
    let text = |name: &str| fs::read_to_string(store.join(name)).unwrap();
    assert_eq!(
        (text("u0/etc/kept"), text("u0.1/etc/kept")),
        ("old\n".into(), "new\n".into())
    );
    assert!(store.join("u0/etc/gone").exists() && store.join("u0/etc/d/x").exists());
    assert_eq!(
        world.sh("ls /etc/d; stat -c %F /usr/share/doc"),
        "y\nregular empty file"
    );
    // Once more, on the layer that stands on a layer.
    assert_eq!(world.rotate(world.rotation(2)), Reply::Rotated {});
    assert_eq!(
        world.sh("cat /etc/kept; ls /etc/d; test -e /etc/gone || echo gone"),
        "new\ny\ngone"
    );
    assert_eq!(world.mounts().0, before);
}

#[test]
fn pid_1_and_who_comes_later_have_the_new_root_only() {
    let world = World::new();
    let device = |path: PathBuf| fs::metadata(path).unwrap().dev();
    let root = || device(world.sandbox.inside("/"));
    let old = root();
    assert_eq!(world.rotate(world.rotation(1)), Reply::Rotated {});
    assert_ne!(root(), old);
    assert_eq!(
        device(format!("/proc/{}/cwd/", world.sandbox.pid).into()),
        root()
    );
    let look =
        world.sh("stat -c %d / /.. . /proc/1/root/ 2>/dev/null | sort -u | wc -l; cd /; pwd");
    assert_eq!(look, "1\n/");
    world.zygote.settle();
    assert_eq!(world.zygote.children(), [world.sandbox.pid]);
}

#[test]
fn who_could_still_write_to_a_layer_keeps_it_from_becoming_one() {
    let world = World::new();
    world.sh("echo x >/etc/file; mkdir /etc/open");
    let writer = fs::File::options()
        .append(true)
        .open(world.sandbox.inside("/etc/file"))
        .unwrap();
    assert_eq!(world.rotate(world.rotation(1)), Reply::Busy {});
    assert_eq!(world.mounts().1, [source(0), source(0)]);
    // All of it can be written to, as before.
    world.sh("echo y >>/etc/file; touch /etc/open/z /usr/share/z");
    drop(writer);
    // Who only reads is no hindrance, and goes on with what was there.
    let reader = fs::File::open(world.sandbox.inside("/etc/file")).unwrap();
    assert_eq!(world.rotate(world.rotation(2)), Reply::Rotated {});
    world.sh("echo z >/etc/file");
    assert_eq!(std::io::read_to_string(reader).unwrap(), "x\ny\n");
}

#[test]
fn what_cannot_be_done_changes_nothing() {
    let world = World::new();
    world.sh("echo x >/etc/file");
    let before = world.mounts();
    let good = world.rotation(1);
    let message = Request::Rotate {
        rotate: good.clone(),
    }
    .encode();
    let reply = world.rotate_at(&message, std::process::id());
    assert!(matches!(reply, Reply::Failed { .. }), "{reply:?}");
    assert_eq!(world.mounts(), before);
    let bad: [fn(&mut Rotate); 6] = [
        |rotate| rotate.uid_count = 0,
        |rotate| rotate.overlays.clear(),
        |rotate| drop(rotate.overlays.remove(0)),
        |rotate| rotate.overlays[1].target = "/etc".into(),
        |rotate| rotate.overlays[0].upper = "missing".into(),
        |rotate| {
            let missing = blob(std::path::Path::new("/nonexistent"));
            rotate.overlays[1].lowers.push(Lower {
                path: missing,
                stored: false,
            });
        },
    ];
    for change in bad {
        let mut rotate = good.clone();
        change(&mut rotate);
        let reply = world.rotate(rotate);
        assert!(matches!(reply, Reply::Failed { .. }), "{reply:?}");
        assert_eq!(world.mounts(), before);
    }
    let message = Request::Rotate { rotate: good }.encode();
    world.zygote.send(&message, &[]);
    assert!(matches!(
        world.zygote.receive(),
        Some((Reply::Failed { .. }, _))
    ));
    // The tree that the first overlay no longer covers, where one is missing, is not covered by another.
    world.sh("echo y >>/etc/file; test $(wc -l </etc/file) = 2");
    assert_eq!(world.mounts(), before);
}
