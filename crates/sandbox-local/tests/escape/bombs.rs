//! Using everything up, and ending everything: only the sandbox itself pays.

use crate::lab::{DEADLINE, Inside, Lab, MIB, Running, Who, in_time, until};
use sandbox_core::prelude::*;
use std::{fs, process, time::Duration};

/// Another sandbox and this machine go on as if nothing happened.
async fn others_work(bystander: &Inside) {
    bystander.works().await;
    let own = process::Command::new("true").status().unwrap();
    assert!(own.success());
}

async fn sleeper(sandbox: &Inside, who: Who) -> Running {
    sandbox.start(who, "ready()", &[]).await
}

#[tokio::test]
async fn killing_everybody() {
    let lab = Lab::new();
    let (sandbox, bystander) = (lab.sandbox().await, lab.sandbox().await);
    let roots = sleeper(&sandbox, Who::Root).await;
    let users = sleeper(&sandbox, Who::User).await;
    let elsewhere = sleeper(&bystander, Who::User).await;
    let killed = sandbox.sh(Who::User, "kill -9 -1; kill -9 -1").await;
    // The shell is spared by its own signal; the user's other processes are not, which is the control.
    assert_eq!(killed, "");
    assert_eq!(users.ended().await, ExitStatus::Signal(9));
    sandbox.works().await;
    assert_eq!(roots.finish().await, ExitStatus::Code(0));

    let users = sleeper(&sandbox, Who::User).await;
    sandbox.sh(Who::Root, "kill -9 -1").await;
    assert_eq!(users.ended().await, ExitStatus::Signal(9));
    sandbox.works().await;
    assert_eq!(elsewhere.finish().await, ExitStatus::Code(0));
    others_work(&bystander).await;
}

#[tokio::test]
async fn stopping_everybody() {
    let lab = Lab::new();
    let sandbox = lab.sandbox().await;
    for who in Who::all() {
        for _ in 0..5 {
            // So that there is a file worker, and a process for the next command.
            sandbox.works().await;
            let running = sleeper(&sandbox, Who::User).await;
            let stop = "import os, signal; os.kill(-1, signal.SIGSTOP)";
            let command = Command::new("python3")
                .args(["-S", "-c", stop])
                .user(who.name());
            assert!(sandbox.run(command).await.status.success());
            sandbox.works().await;
            // The control: what is stopped stays so, and can still be ended.
            running.kill().await;
        }
    }
    // Whatever is the host's to wait for goes on; a program may be stopped, and is ended all the same.
    let _stopper = sandbox.start(Who::Root, STOPPER, &[]).await;
    for _ in 0..20 {
        in_time(sandbox.files().write_bytes("alive", "x"))
            .await
            .unwrap();
        let process = in_time(sandbox.spawn(Command::new("true"))).await.unwrap();
        let control = process.control();
        let _ = in_time(control.signal(sandbox_core::Signal::KILL)).await;
        in_time(process.output()).await.unwrap();
    }
    assert!(in_time(sandbox.kill()).await.unwrap());
}

/// Stops whoever it sees, again and again.
const STOPPER: &str = r#"
    import signal
    print("ready", flush=True)
    while True:
        for entry in os.listdir("/proc"):
            if entry.isdigit() and int(entry) != os.getpid():
                try:
                    os.kill(int(entry), signal.SIGSTOP)
                except OSError:
                    pass
"#;

/// Makes processes until there are as many as asked for.
const PROCESSES: &str = r#"
    for count in range(200):
        if os.fork() == 0:
            time.sleep(1000)
    return "all"
"#;

#[tokio::test]
async fn more_processes_than_allowed() {
    let lab = Lab::new();
    let (limited, free) = (
        lab.limited(Limits::new().processes(64)).await,
        lab.limited(Limits::new().processes(512)).await,
    );
    assert_eq!(limited.python(Who::User, PROCESSES).await, "EAGAIN");
    assert_eq!(free.python(Who::User, PROCESSES).await, "all");
}

#[tokio::test]
async fn a_fork_bomb() {
    let lab = Lab::new();
    let sandbox = lab.limited(Limits::new().processes(64).cpus(0.5)).await;
    let bystander = lab.sandbox().await;
    let bomb = "bomb() { bomb | bomb & }; trap '' TERM HUP; bomb; while :; do :; done 2>/dev/null";
    for who in Who::all() {
        let command = Command::shell(bomb)
            .user(who.name())
            .timeout(Duration::from_secs(1))
            .grace(Duration::from_millis(1));
        let process = sandbox.spawn(command).await.unwrap();
        for _ in 0..3 {
            others_work(&bystander).await;
        }
        let ended = in_time(process.output()).await.unwrap();
        assert_eq!(ended.status, ExitStatus::TimedOut);
        sandbox.works().await;
    }
}

#[tokio::test]
async fn a_fork_bomb_while_commands_are_started() {
    let lab = Lab::new();
    let sandbox = lab.limited(Limits::new().processes(32).cpus(0.5)).await;
    // It never rests: what becomes free is taken at once.
    let full = r#"
        print("ready", flush=True)
        while True:
            try:
                if os.fork() == 0:
                    time.sleep(1000)
            except OSError:
                pass
    "#;
    let filler = sandbox.start(Who::User, full, &[]).await;
    // Once no process can be made, that is said; whatever else happens, an answer comes.
    until("a command is refused", async || {
        match in_time(sandbox.exec(Command::new("true"))).await {
            Ok(output) => output.status != ExitStatus::Code(0),
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::QuotaExceeded, "{error:?}");
                true
            }
        }
    })
    .await;
    assert!(in_time(sandbox.info()).await.is_ok());
    filler.kill().await;
    sandbox.works().await;
}

/// Uses up memory in several ways.
const MEMORY: [&str; 4] = [
    "return len(bytearray(160 << 20)) >> 20",
    r#"
        with open("/dev/shm/file", "wb") as file:
            for _ in range(60):
                file.write(bytes(1 << 20))
        return len(bytearray(100 << 20)) + (60 << 20) >> 20
    "#,
    r#"
        fd = os.memfd_create("memory")
        for _ in range(160):
            os.write(fd, bytes(1 << 20))
        return 160
    "#,
    r#"
        import mmap
        memory = mmap.mmap(-1, 160 << 20)
        for at in range(0, 160 << 20, 4096):
            memory[at] = 1
        return 160
    "#,
];

#[tokio::test]
async fn a_memory_bomb() {
    let lab = Lab::new();
    let limited = lab.limited(Limits::new().memory(96 * MIB)).await;
    let free = lab.limited(Limits::new().memory(512 * MIB)).await;
    for code in MEMORY {
        assert_eq!(
            limited.python(Who::User, code).await,
            "out of memory",
            "{code}"
        );
        limited.sh(Who::User, "rm -f /dev/shm/file").await;
        limited.works().await;
        assert_eq!(free.python(Who::User, code).await, "160", "{code}");
    }
    others_work(&free).await;
}

#[tokio::test]
async fn memory_that_stays_when_nobody_is_there() {
    // What lies in /dev/shm has no process that could be ended for it.
    let lab = Lab::new();
    let sandbox = lab.limited(Limits::new().memory(48 * MIB)).await;
    let bystander = lab.sandbox().await;
    let score = fs::read_to_string(format!("/proc/{}/oom_score_adj", sandbox.init())).unwrap();
    let spared = score.trim() == "-1000";
    let fill = Command::shell("head -c 64M /dev/zero > /dev/shm/file; echo $?");
    for _ in 0..3 {
        match in_time(sandbox.exec(fill.clone())).await {
            Ok(filled) => assert_ne!(filled.stdout_text().trim(), "0"),
            // Where nobody may protect PID 1 from it, that is ended in the end, and with it what used the memory.
            Err(error) if !spared => assert_eq!(error.kind(), ErrorKind::SandboxNotFound),
            Err(error) => panic!("{error:?}"),
        }
    }
    if spared {
        assert!(in_time(sandbox.info()).await.is_ok());
    }
    others_work(&bystander).await;
}

/// Leaves as much as it can between the ends of connections, and says how many megabytes that is.
const SOCKETS: &str = r#"
    import socket
    listener = socket.create_server(("127.0.0.1", 0))
    held, left = [], 0
    for _ in range(60):
        client = socket.create_connection(listener.getsockname())
        server, _ = listener.accept()
        for end in (client, server):
            held.append(end)
            end.setblocking(False)
            try:
                while True:
                    left += end.send(bytes(1 << 16))
            except BlockingIOError:
                pass
    return left >> 20
"#;

#[tokio::test]
async fn memory_in_sockets() {
    let lab = Lab::new();
    let mut left = Vec::new();
    for memory in [96 * MIB, 1024 * MIB] {
        let sandbox = lab.limited(Limits::new().memory(memory)).await;
        // Where it counts like all other memory, it is used up in the end.
        let said = sandbox.python(Who::User, SOCKETS).await;
        left.push(said.parse::<u64>().unwrap_or(0));
    }
    assert!(left[0] < 64, "{left:?} MiB");
    assert!(left[1] > 128, "{left:?} MiB");
}

/// Leaves many processes behind that have ended, and whose parents have ended before.
const ORPHANS: &str = r#"
    made = 0
    while made < 3000:
        try:
            if os.fork() == 0:
                try:
                    os.fork()
                finally:
                    os._exit(0)
            os.wait()
            made += 1
        except BlockingIOError:
            # Whoever takes them away is a little behind.
            time.sleep(0.001)
    return "done"
"#;

/// The same by a parent that lives and does not care.
const ZOMBIES: &str = r#"
    for _ in range(3000):
        if os.fork() == 0:
            os._exit(0)
    return "done"
"#;

#[tokio::test]
async fn orphans_that_nobody_waits_for() {
    let sandbox = Lab::new().sandbox().await;
    // The control: what nobody takes away counts.
    assert_eq!(sandbox.python(Who::User, ZOMBIES).await, "EAGAIN");
    assert_eq!(sandbox.python(Who::User, ORPHANS).await, "done");
    until("no zombie is left", async || {
        let count = "cat /proc/[0-9]*/stat | grep -c ' Z '";
        sandbox.sh(Who::Root, count).await == "0"
    })
    .await;
    sandbox.works().await;
}

#[tokio::test]
async fn every_descriptor() {
    let sandbox = Lab::new().sandbox().await;
    let hold = r#"
        import resource
        hard = min(resource.getrlimit(resource.RLIMIT_NOFILE)[1], 60000)
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        try:
            while True:
                os.open("/dev/null", os.O_RDONLY)
        except OSError as error:
            assert error.errno == errno.EMFILE
        ready()
    "#;
    let mut held = Vec::new();
    for who in Who::all() {
        held.push(sandbox.start(who, hold, &[]).await);
    }
    sandbox.works().await;
    for running in held {
        running.kill().await;
    }
}

#[tokio::test]
async fn every_inode_and_byte_of_a_small_disk() {
    let lab = Lab::new();
    let (sandbox, bystander) = (lab.sandbox().await, lab.sandbox().await);
    let fill = r#"
        place = given("PLACE")
        errors = set()
        try:
            for number in range(1 << 20):
                open(f"{place}/{number}", "w").close()
        except OSError as error:
            errors.add(errno.errorcode[error.errno])
        return errors
    "#;
    for place in ["/run", "/dev/shm"] {
        let given = [("PLACE", place.to_owned())];
        assert_eq!(
            sandbox.python_given(Who::Root, fill, &given).await,
            "{'ENOSPC'}"
        );
    }
    sandbox.works().await;
    others_work(&bystander).await;
}

#[tokio::test]
async fn a_program_that_will_not_end() {
    let sandbox = Lab::new().sandbox().await;
    let stubborn = r#"
        import signal
        for number in range(1, 65):
            try:
                signal.signal(number, signal.SIG_IGN)
            except (OSError, ValueError):
                pass
        for _ in range(10):
            if os.fork() == 0:
                os.setsid()
                if os.fork() == 0:
                    time.sleep(1000)
                os._exit(0)
        time.sleep(1000)
    "#;
    let command = crate::lab::command(Who::Root, stubborn, &[])
        .timeout(Duration::from_millis(500))
        .grace(Duration::from_millis(100));
    let ended = in_time(sandbox.exec(command)).await.unwrap();
    assert_eq!(ended.status, ExitStatus::TimedOut);
    // What was killed a moment ago may still be on its way out.
    let left = "cat /proc/[0-9]*/comm | grep -c python3";
    until("all of it is gone", async || {
        sandbox.sh(Who::Root, left).await == "0"
    })
    .await;
}

#[tokio::test]
async fn a_sandbox_at_its_limits_is_ended_at_once() {
    let lab = Lab::new();
    let sandbox = lab
        .limited(Limits::new().processes(64).memory(64 * MIB).cpus(0.1))
        .await;
    let busy = "trap '' TERM HUP INT; while :; do (while :; do :; done) & done 2>/dev/null";
    let _process = sandbox.spawn(Command::shell(busy)).await.unwrap();
    let started = std::time::Instant::now();
    assert!(in_time(sandbox.kill()).await.unwrap());
    assert!(started.elapsed() < DEADLINE);
    assert_eq!(
        in_time(sandbox.info()).await.unwrap_err().kind(),
        ErrorKind::SandboxNotFound
    );
}
