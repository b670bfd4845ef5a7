//! Each wall of the report, taken away: the report says so, and it shows from inside.

use crate::{
    alone, ids,
    lab::{Inside, Lab, Who},
    ordinary,
};
use sandbox_agent::protocol::zygote::weaken::{
    CAPABILITIES, DEVICES, DUMPABLE, HOST_NAME, IPC, NETWORK, NO_NEW_PRIVS, PROC_MASKS, PROCESSES,
    ROOT, SECCOMP, USER_NAMESPACES,
};
use sandbox_core::{Enforcement, prelude::*};
use std::{fs, process};

/// Walls by their names in the report.
const WALLS: [(&str, u32); 12] = [
    ("files", ROOT),
    ("devices", DEVICES),
    ("process_ids", PROCESSES),
    ("network", NETWORK),
    ("ipc", IPC),
    ("host_name", HOST_NAME),
    ("user_namespaces", USER_NAMESPACES),
    ("capabilities", CAPABILITIES),
    ("no_new_privileges", NO_NEW_PRIVS),
    ("system_calls", SECCOMP),
    ("proc", PROC_MASKS),
    ("agent", DUMPABLE),
];

/// What root of a sandbox sees of each wall, in the order of [`WALLS`].
const LOOK: &str = r#"
    status = dict(line.split(":\t", 1) for line in read("/proc/self/status").split("\n"))
    host = dict(pair.split("=") for pair in given("HOST").split())
    same = lambda kind: os.readlink(f"/proc/self/ns/{kind}") == host[kind]
    seen = [
        os.path.exists("/.host/usr"),
        os.path.exists("/dev/kmsg"),
        os.path.exists(f"/proc/{host['process']}"),
        same("net"),
        same("ipc"),
        same("uts"),
        read("/proc/sys/user/max_user_namespaces") != "0",
        status["CapBnd"] != host["capabilities"],
        status["NoNewPrivs"] == "0",
        status["Seccomp"] == "0",
        read("/proc/cmdline") != "",
        os.stat("/proc/1/environ").st_uid == os.getuid(),
    ]
    return " ".join(str(int(each)) for each in seen)
"#;

/// The walls that cannot be seen from inside.
async fn missing(sandbox: &Inside) -> u32 {
    let link = |kind: &str| fs::read_link(format!("/proc/self/ns/{kind}")).unwrap();
    let host = format!(
        "process={} net={} ipc={} uts={} capabilities={}",
        process::id(),
        link("net").display(),
        link("ipc").display(),
        link("uts").display(),
        if alone::is_alone() {
            "0000000000000000"
        } else {
            "00000000800404fb"
        }
    );
    let seen = sandbox
        .python_given(Who::Root, LOOK, &[("HOST", host)])
        .await;
    let missing = seen.split(' ').zip(WALLS).filter(|(seen, _)| *seen == "1");
    missing.fold(0, |all, (_, (_, wall))| all | wall)
}

/// What goes with a wall: the filter cannot be installed where new privileges may be gained.
fn with_what_depends(wall: u32) -> u32 {
    match wall {
        NO_NEW_PRIVS => NO_NEW_PRIVS | SECCOMP,
        // PID 1 of a sandbox that shares the host's processes is not number 1.
        other => other,
    }
}

#[tokio::test]
async fn all_hold_and_show() {
    let lab = Lab::new();
    let report = lab.provider.enforcement(&CreateOptions::new());
    for (name, _) in WALLS {
        let wall = report.wall(name).unwrap();
        assert_eq!(wall.enforcement, Enforcement::Enforced, "{wall:?}");
    }
    let sandbox = lab.sandbox().await;
    assert_eq!(missing(&sandbox).await, 0);
    if !ordinary::is_ordinary() {
        let fork = sandbox.fork(&lab.provider).await;
        assert_eq!(missing(&sandbox).await, 0);
        assert_eq!(missing(&fork).await, 0);
    }
}

#[tokio::test]
async fn each_is_missed_when_it_is_gone() {
    for (name, bit) in WALLS {
        let lab = Lab::without(bit);
        let report = lab.provider.enforcement(&CreateOptions::new());
        for (other, other_bit) in WALLS {
            let wall = report.wall(other).unwrap();
            let holds = wall.enforcement == Enforcement::Enforced;
            assert_eq!(
                holds,
                with_what_depends(bit) & other_bit == 0,
                "without {name}: {wall:?}"
            );
        }
        let missing = missing(&lab.sandbox().await).await;
        assert_eq!(missing, with_what_depends(bit), "without {name}");
    }
}

#[tokio::test]
async fn user_ids_are_the_wall_that_no_test_takes_away() {
    let sandbox = Lab::new().sandbox().await;
    let map = sandbox
        .sh(Who::User, "cat /proc/self/uid_map /proc/self/gid_map")
        .await;
    for line in map.lines() {
        let [inside, outside, count] = line.split_whitespace().collect::<Vec<_>>()[..] else {
            panic!("{map}");
        };
        if alone::is_alone() {
            // Seen from a user namespace, its own.
            assert_eq!((inside, outside, count), ("1000", "0", "1"));
            return;
        }
        assert_eq!((inside, count), ("0", "65536"));
        if ordinary::is_ordinary() {
            // Likewise: after the one who has made it.
            assert_eq!(outside, "1");
            continue;
        }
        assert!(outside.parse::<u32>().unwrap() > 0x7000_0000, "{map}");
    }
    let first = if ordinary::is_ordinary() {
        ids::first()
    } else {
        0x7000_0000
    };
    let status = fs::read_to_string(format!("/proc/{}/status", sandbox.init())).unwrap();
    let uids = status
        .lines()
        .find(|line| line.starts_with("Uid:"))
        .unwrap();
    assert!(
        uids.split_whitespace()
            .skip(1)
            .all(|uid| uid.parse::<u32>().unwrap() >= first)
    );
}
