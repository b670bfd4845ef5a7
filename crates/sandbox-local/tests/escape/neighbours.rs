//! Other sandboxes, and processes and objects of the host.

use crate::{
    attempt::attempt,
    lab::{DECOY, Inside, Lab, Planted, Who, on_host, unique},
};
use sandbox_agent::protocol::zygote::weaken::{IPC, PROCESSES};
use std::process;

/// Looks for a process by a word of its command line.
const FIND: &str = r#"
    for entry in os.listdir("/proc"):
        try:
            if given("WORD").encode() in open(f"/proc/{entry}/cmdline", "rb").read() and entry != str(os.getpid()):
                return "found"
        except OSError:
            pass
    return "nothing"
"#;

#[tokio::test]
async fn processes_of_another_sandbox() {
    let word = unique();
    let given = [("WORD", word.clone())];
    for (walls, expected) in [(0, "nothing"), (PROCESSES, "found")] {
        let lab = Lab::without(walls);
        let (victim, attacker) = (lab.sandbox().await, lab.sandbox().await);
        let running = victim
            .start(Who::User, &format!("ready() # {word}"), &[])
            .await;
        for who in Who::all() {
            assert_eq!(attacker.python_given(who, FIND, &given).await, expected);
        }
        running.finish().await;
    }
}

#[test]
fn processes_of_the_host() {
    let word = unique();
    let _planted = Planted::by(&format!("ready() # {word}"), &[]);
    attempt(FIND)
        .given("WORD", word)
        .fails("nothing")
        .works_without(PROCESSES, Who::User, "found");
}

#[test]
fn signals_to_processes_of_the_host() {
    attempt("os.kill(int(given('PID')), 0); return 'reached'")
        .given("PID", process::id())
        .fails("ESRCH")
        // That there is such a process can be seen then, but it is another user's.
        .still_fails_without(PROCESSES, Who::Root, "EPERM")
        .works_on_host("reached");
}

#[tokio::test]
async fn files_of_another_sandbox() {
    let lab = Lab::new();
    let (victim, attacker) = (lab.sandbox().await, lab.sandbox().await);
    let write = format!(
        "umask 0; for place in /tmp /run /dev/shm /etc /usr/share /var/tmp; do echo {DECOY} > $place/decoy; done"
    );
    assert_eq!(victim.sh(Who::Root, &write).await, "");
    let look = "cat /tmp/decoy /run/decoy /dev/shm/decoy /etc/decoy /usr/share/decoy /var/tmp/decoy 2>/dev/null";
    assert_eq!(attacker.sh(Who::Root, look).await, "");
    let mine = victim.sh(Who::User, look).await;
    assert_eq!(mine.lines().count(), 6, "{mine}");
}

/// Takes a lock on what sandboxes and host have in common underneath.
const LOCK: &str = r#"
    import fcntl
    files = [os.open(name, os.O_RDONLY) for name in
             ["/usr/bin/env", "/usr/lib", "/usr", "/", "/etc", "/proc/version", "/proc/cmdline", "/dev/null", "/sys"]]
    for file in files:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
"#;

#[tokio::test]
async fn locks_on_common_files() {
    let lab = Lab::new();
    let (victim, attacker) = (lab.sandbox().await, lab.sandbox().await);
    let hold = format!("{LOCK}\n    ready()");
    let take = format!("{LOCK}\n    return 'locked'");
    let held = attacker.start(Who::User, &hold, &[]).await;
    assert_eq!(victim.python(Who::User, &take).await, "locked");
    assert_eq!(on_host(&take, &[]), "locked");
    // In one and the same sandbox they do conflict.
    assert_eq!(attacker.python(Who::User, &take).await, "EAGAIN");
    held.finish().await;
}

/// An object of a kind, how to plant it and how to find it.
struct Object {
    plant: &'static str,
    find: &'static str,
    remove: &'static str,
}

const SHARED_MEMORY: Object = Object {
    plant: r#"
        id = call("shmget", int(given("KEY")), 64, 0o1666)
        ctypes.memmove(call("shmat", id, None, 0), b"planted decoy", 13)
    "#,
    find: r#"
        return ctypes.string_at(call("shmat", call("shmget", int(given("KEY")), 0, 0), None, 0o10000)).decode()
    "#,
    remove: "call('shmctl', call('shmget', int(given('KEY')), 0, 0), 0, None)",
};

const MESSAGES: Object = Object {
    plant: r#"
        id = call("msgget", int(given("KEY")), 0o1666)
        call("msgsnd", id, struct.pack("l13s", 1, b"planted decoy"), 13, 0)
    "#,
    find: r#"
        message = ctypes.create_string_buffer(64)
        call("msgrcv", call("msgget", int(given("KEY")), 0), message, 13, 0, 0o4000)
        return message.raw[8:21].decode()
    "#,
    remove: "call('msgctl', call('msgget', int(given('KEY')), 0), 0, None)",
};

const SEMAPHORE: Object = Object {
    plant: r#"
        call("semctl", call("semget", int(given("KEY")), 1, 0o1666), 0, 16, 42)
    "#,
    find: r#"
        return "planted decoy" if call("semctl", call("semget", int(given("KEY")), 0, 0), 0, 12, 0) == 42 else "?"
    "#,
    remove: "call('semctl', call('semget', int(given('KEY')), 0, 0), 0, 0, 0)",
};

const QUEUE: Object = Object {
    plant: r#"
        os.umask(0)
        queue = call("mq_open", f"decoy{given('KEY')}".encode(), 0o102, 0o666, None)
        call("mq_timedsend", queue, b"planted decoy", 13, 0, None)
    "#,
    find: r#"
        queue = call("mq_open", f"decoy{given('KEY')}".encode(), 0o4000, 0, None)
        message = ctypes.create_string_buffer(8192)
        call("mq_timedreceive", queue, message, 8192, None, None)
        return message.value.decode()
    "#,
    remove: "call('mq_unlink', f\"decoy{given('KEY')}\".encode())",
};

/// A key that no other test uses: two of this process's, told apart by the kind of object.
fn key(number: u32) -> String {
    (0x5a00_0000 | process::id() << 2 | number).to_string()
}

fn of_host(object: &Object, key: &str) {
    let given = [("KEY", key.to_owned())];
    let code = format!(
        "{}\n        ready()\n        {}",
        object.plant.trim_end(),
        object.remove
    );
    let _planted = Planted::by(&code, &given);
    attempt(object.find)
        .given("KEY", key)
        .fails("ENOENT")
        .works_without(IPC, Who::User, DECOY);
}

async fn of_another(object: &Object, key: &str) {
    let given = [("KEY", key.to_owned())];
    for (walls, expected) in [(0, "ENOENT"), (IPC, DECOY)] {
        let lab = Lab::without(walls);
        let (victim, attacker) = (lab.sandbox().await, lab.sandbox().await);
        let plant = format!("{}\n        return 'planted'", object.plant.trim_end());
        let find =
            async |sandbox: &Inside| sandbox.python_given(Who::User, object.find, &given).await;
        assert_eq!(
            victim.python_given(Who::User, &plant, &given).await,
            "planted"
        );
        let found = find(&attacker).await;
        let remove = format!("{}; return 'removed'", object.remove);
        assert_eq!(
            victim.python_given(Who::User, &remove, &given).await,
            "removed"
        );
        assert_eq!(found, expected);
    }
}

#[test]
fn shared_memory_of_the_host() {
    of_host(&SHARED_MEMORY, &key(0));
}

#[test]
fn message_queues_of_the_host() {
    of_host(&MESSAGES, &key(0));
}

#[test]
fn semaphores_of_the_host() {
    of_host(&SEMAPHORE, &key(0));
}

#[test]
fn posix_queues_of_the_host() {
    of_host(&QUEUE, &key(0));
}

#[tokio::test]
async fn shared_memory_of_another_sandbox() {
    of_another(&SHARED_MEMORY, &key(1)).await;
}

#[tokio::test]
async fn message_queues_of_another_sandbox() {
    of_another(&MESSAGES, &key(1)).await;
}

#[tokio::test]
async fn semaphores_of_another_sandbox() {
    of_another(&SEMAPHORE, &key(1)).await;
}

#[tokio::test]
async fn posix_queues_of_another_sandbox() {
    of_another(&QUEUE, &key(1)).await;
}
