//! Filling a disk that has a limit, by every way to take room.

use crate::lab::{Lab, MIB, Who, in_time};
use sandbox_core::prelude::*;

/// Limits under which a disk can be filled without using up the memory that it counts as.
fn limits() -> Limits {
    Limits::new().memory(96 * MIB).disk(32 * MIB).inodes(2000)
}

/// Does `step` until it fails or was done often enough; says which.
const FLOOD: &str = r#"
    steps = {
        "bytes": lambda n: big.write(bytes(1 << 20)),
        "holes": lambda n: os.pwrite(big.fileno(), b"x", n << 20),
        "blocks": lambda n: os.posix_fallocate(big.fileno(), n << 20, 1 << 20),
        "files": lambda n: open(f"f{n}", "w").close(),
        "directories": lambda n: os.mkdir(f"d{n}"),
        "symlinks": lambda n: os.symlink("x" * 4000, f"s{n}"),
        "links": lambda n: os.link("big", f"l{n}"),
        "attributes": lambda n: (open(f"a{n}", "w").close(), os.setxattr(f"a{n}", "user.x", bytes(60000))),
        "pipes": lambda n: os.mkfifo(f"p{n}"),
        "unlinked": lambda n: kept.append(unlinked()),
        "mapped": lambda n: mapped(n),
    }
    kept = []
    def unlinked():
        file = open("gone", "wb", buffering=0)
        os.unlink("gone")
        file.write(bytes(1 << 20))
        return file
    def mapped(n):
        import mmap
        os.ftruncate(big.fileno(), (n + 1) << 20)
        os.posix_fallocate(big.fileno(), n << 20, 1 << 20)
        with mmap.mmap(big.fileno(), 1 << 20, offset=n << 20) as view:
            view[:] = bytes(1 << 20)
    place = given("PLACE")
    os.makedirs(place)
    os.chdir(place)
    big = open("big", "wb+", buffering=0)
    step = steps[given("STEP")]
    try:
        for number in range(int(given("TIMES"))):
            step(number)
    except OSError as error:
        return errno.errorcode[error.errno]
    return "all done"
"#;

/// The ways, and how often each is tried: often enough to fill the disk.
const WAYS: [(&str, u32); 11] = [
    ("bytes", 64),
    ("holes", 20_000),
    ("blocks", 64),
    ("files", 4000),
    ("directories", 4000),
    ("symlinks", 20_000),
    ("links", 4000),
    ("attributes", 4000),
    ("pipes", 4000),
    ("unlinked", 64),
    ("mapped", 64),
];

#[tokio::test]
async fn no_way_to_take_room_leads_beyond_the_disk_or_ends_anything() {
    let lab = Lab::new();
    let (sandbox, bystander) = (lab.limited(limits()).await, lab.sandbox().await);
    for who in Who::all() {
        for (way, times) in WAYS {
            let given = [
                ("PLACE", format!("/tmp/{}-{way}", who.name())),
                ("STEP", way.to_owned()),
                ("TIMES", times.to_string()),
            ];
            let said = sandbox.python_given(who, FLOOD, &given).await;
            assert_eq!(said, "ENOSPC", "{way} by {who:?}");
            // It is the disk that is full, and not the sandbox's memory.
            let clean = format!("rm -rf /tmp/{}-{way}; echo clean", who.name());
            assert_eq!(sandbox.sh(who, &clean).await, "clean", "{way}");
        }
    }
    sandbox.works().await;
    bystander.works().await;
}

/// The control: what is refused there is done where there is no such limit.
#[tokio::test]
async fn without_a_limit_the_same_takes_what_it_wants() {
    let lab = Lab::new();
    let sandbox = lab.limited(Limits::new().memory(96 * MIB)).await;
    for (way, times) in [("bytes", 64), ("files", 4000)] {
        let given = [
            ("PLACE", format!("/tmp/{way}")),
            ("STEP", way.to_owned()),
            ("TIMES", times.to_string()),
        ];
        let said = sandbox.python_given(Who::User, FLOOD, &given).await;
        assert_eq!(said, "all done", "{way}");
    }
}

#[tokio::test]
async fn removing_what_the_template_has_takes_no_more_than_the_disk_either() {
    let sandbox = Lab::new().limited(limits()).await;
    let removal = "find /usr/share /usr/lib -xdev -type f -exec chmod g+w {} + 2>&1 | grep -c 'No space left'; echo over";
    let said = sandbox.sh(Who::Root, removal).await;
    assert!(said.ends_with("over") && !said.starts_with("0\n"), "{said}");
    let full = in_time(sandbox.files().write_bytes("/tmp/more", vec![1; 40 << 20])).await;
    assert_eq!(full.unwrap_err().kind(), ErrorKind::StorageFull);
}
