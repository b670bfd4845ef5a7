//! What the kernel counts for a user or for the whole machine: who takes all of it takes it from nobody else.

use crate::{
    attempt::attempt,
    lab::{Inside, Lab, Who, on_host},
};
use sandbox_agent::protocol::zygote::weaken::SECCOMP;

/// Takes as much of something as there is. Others have enough of it, and that it was all is the control.
async fn all_is_taken(take: &str, need: &str) {
    let lab = Lab::new();
    let (greedy, bystander) = (lab.sandbox().await, lab.sandbox().await);
    let tried = async |sandbox: &Inside| sandbox.python(Who::User, need).await;
    let mut taken = Vec::new();
    for who in Who::all() {
        taken.push(greedy.start(who, take, &[]).await);
    }
    assert_ne!(tried(&greedy).await, "enough");
    assert_eq!(tried(&bystander).await, "enough");
    assert_eq!(on_host(need, &[]), "enough");
    for running in taken {
        running.kill().await;
    }
    assert_eq!(tried(&greedy).await, "enough");
}

/// As [`all_is_taken`], of what stays when its maker ends, so that it is not given back.
async fn all_stays_taken(take: &str, need: &str, how: &str) {
    let lab = Lab::new();
    let (greedy, bystander) = (lab.sandbox().await, lab.sandbox().await);
    for who in Who::all() {
        greedy.start(who, take, &[]).await.kill().await;
    }
    assert_eq!(greedy.python(Who::User, need).await, how);
    assert_eq!(bystander.python(Who::User, need).await, "enough");
    assert_eq!(on_host(need, &[]), "enough");
}

#[tokio::test]
async fn watches_of_files() {
    let take = r#"
        while LIBC.inotify_init1(0) >= 0:
            pass
        ready()
    "#;
    let need = r#"
        if LIBC.inotify_init1(0) < 0:
            raise OSError(ctypes.get_errno(), "inotify_init1")
        return "enough"
    "#;
    all_is_taken(take, need).await;
}

#[tokio::test]
async fn signals_on_their_way() {
    let take = r#"
        import signal
        number = int(signal.SIGRTMIN)
        signal.pthread_sigmask(signal.SIG_BLOCK, [number])
        try:
            while True:
                call("rt_sigqueueinfo", os.getpid(), number, struct.pack("3i", number, 0, -1) + bytes(116))
        except OSError:
            ready()
    "#;
    // A timer has its signal from the start.
    let need = r#"
        call("timer_create", 1, None, ctypes.byref(ctypes.c_int()))
        return "enough"
    "#;
    all_is_taken(take, need).await;
}

#[tokio::test]
async fn bytes_in_message_queues() {
    let take = r#"
        number = 0
        try:
            while True:
                call("mq_open", f"{os.getpid()}-{number}".encode(), 0o102, 0o666, None)
                number += 1
        except OSError:
            ready()
    "#;
    let need = r#"
        name = f"needed-{os.getpid()}".encode()
        call("mq_open", name, 0o102, 0o666, None)
        call("mq_unlink", name)
        return "enough"
    "#;
    all_stays_taken(take, need, "EMFILE").await;
}

#[tokio::test]
async fn locked_memory() {
    let take = r#"
        try:
            while True:
                call("shmctl", call("shmget", 0, 1 << 20, 0o1600), 11, None)
        except OSError:
            ready()
    "#;
    let need = r#"
        id = call("shmget", 0, 4096, 0o1600)
        try:
            call("shmctl", id, 11, None)
        finally:
            call("shmctl", id, 0, None)
        return "enough"
    "#;
    all_stays_taken(take, need, "ENOMEM").await;
}

#[tokio::test]
async fn terminals() {
    let take = r#"
        try:
            while True:
                os.open("/dev/ptmx", os.O_RDWR | os.O_NOCTTY)
        except OSError:
            ready()
    "#;
    let need = r#"
        os.open("/dev/ptmx", os.O_RDWR | os.O_NOCTTY)
        return "enough"
    "#;
    all_is_taken(take, need).await;
}

#[test]
fn events_of_asynchronous_io() {
    // The machine has a number of them, and nothing divides them up.
    attempt("call('io_setup', 1, ctypes.byref(ctypes.c_ulong())); return 'taken'")
        .fails("ENOSYS")
        .works_without_as_on_host(SECCOMP, Who::User, "taken");
}

#[test]
fn the_processors_before_all_others() {
    // Neither a real-time scheduler nor more than an ordinary share.
    let code = r#"
        for way in (lambda: os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1)), lambda: os.nice(-5)):
            in_child(way)
        return "first"
    "#;
    attempt(code).fails("EPERM").works_on_host("first");
}
