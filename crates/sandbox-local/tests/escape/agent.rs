//! PID 1, which starts commands and keeps their output, and its file workers.

use crate::{
    attempt::attempt,
    lab::{Lab, Who, in_time, unique},
};
use sandbox_agent::protocol::zygote::weaken::{CAPABILITIES, DUMPABLE, PROCESSES, SECCOMP};
use sandbox_core::prelude::*;

#[test]
fn its_memory() {
    attempt("os.open('/proc/1/mem', os.O_RDWR); return 'open'")
        .fails("EACCES")
        .still_fails_without(DUMPABLE, Who::Root, "EACCES")
        .works_without(DUMPABLE | CAPABILITIES, Who::Root, "open");
}

#[test]
fn all_that_the_kernel_tells_of_it() {
    let code = r#"
        found = []
        for name in ["auxv", "clear_refs", "environ", "exe", "fd", "fdinfo", "io", "map_files", "maps", "mem", "ns/mnt",
                     "ns/net", "pagemap", "personality", "root", "cwd", "smaps", "stack", "syscall", "task/1/fd"]:
            path = f"/proc/1/{name}"
            try:
                if name in ("exe", "root", "cwd") or name.startswith("ns/"):
                    os.readlink(path)
                elif os.path.isdir(path):
                    os.listdir(path)
                else:
                    open(path, "rb").read(1)
                found.append(name)
            except OSError:
                pass
        return len(found) > 10 or found
    "#;
    attempt(code)
        .fails("[]")
        .works_without(DUMPABLE | CAPABILITIES, Who::Root, "True");
}

#[test]
fn tracing_it() {
    let code = r#"
        call("ptrace", 16, 1, 0, 0)
        os.waitpid(1, 0x40000000)
        call("ptrace", 17, 1, 0, 0)
        return "traced"
    "#;
    attempt(code)
        .fails("EPERM")
        .still_fails_without(SECCOMP, Who::Root, "EPERM")
        .still_fails_without(SECCOMP | DUMPABLE, Who::Root, "EPERM")
        .works_without(SECCOMP | DUMPABLE | CAPABILITIES, Who::Root, "traced");
}

#[test]
fn its_descriptors() {
    attempt("call('pidfd_getfd', call('pidfd_open', 1, 0), 0, 0); return 'taken'")
        .fails("EPERM")
        .still_fails_without(SECCOMP, Who::Root, "EPERM")
        .still_fails_without(SECCOMP | DUMPABLE, Who::Root, "EPERM")
        .works_without(SECCOMP | DUMPABLE | CAPABILITIES, Who::Root, "taken");
}

#[test]
fn its_standing_when_memory_runs_out() {
    attempt("write('/proc/1/oom_score_adj', '1000'); return 'offered'")
        .fails("EACCES")
        .works_without(DUMPABLE, Who::Root, "offered");
}

#[test]
fn ones_own_standing_when_memory_runs_out() {
    // The host's root may lower it, if it has all capabilities; everybody may raise it.
    let change = attempt("write('/proc/self/oom_score_adj', given('SCORE')); return 'changed'");
    change.clone().given("SCORE", -1000).fails("EACCES");
    change
        .given("SCORE", 1000)
        .works_without(0, Who::User, "changed");
}

#[test]
fn its_limits() {
    // Fewer descriptors than it has: it could take no connection any more.
    attempt("call('prlimit64', 1, 7, struct.pack('2Q', 0, 0), None); return 'limited'")
        .fails("EPERM")
        .works_without(SECCOMP, Who::Root, "limited");
}

#[tokio::test]
async fn its_share_of_the_processors() {
    // Root may put it behind all others, as its own; it still gets round to what the host asks.
    let sandbox = Lab::new().sandbox().await;
    let starve = r#"
        for way in (lambda: os.sched_setscheduler(1, os.SCHED_IDLE, os.sched_param(0)),
                    lambda: os.setpriority(os.PRIO_PROCESS, 1, 19), lambda: os.sched_setaffinity(1, {0})):
            try:
                way()
            except OSError:
                pass
        for _ in range(30):
            if os.fork() == 0:
                while True:
                    pass
        print("ready", flush=True)
        time.sleep(1000)
    "#;
    let _starving = sandbox.start(Who::Root, starve, &[]).await;
    assert!(in_time(sandbox.info()).await.is_ok());
    sandbox.works().await;
    assert!(in_time(sandbox.kill()).await.unwrap());
}

#[test]
fn the_hosts_crash_handler() {
    // With a limit of 0 it runs, as real root, on what crashes here; with 1 it does not.
    let code = r#"
        import resource
        for pid in (0, os.getpid()):
            call("prlimit64", pid, 4, struct.pack("2Q", 0, 0), None)
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        return resource.getrlimit(resource.RLIMIT_CORE)
    "#;
    attempt(code)
        .fails("(1, 1)")
        .works_without(SECCOMP, Who::User, "(0, 0)");
}

#[tokio::test]
async fn signals() {
    let sandbox = Lab::new().sandbox().await;
    let send = r#"
        sent = []
        for signal in range(1, 65):
            try:
                os.kill(1, signal)
                sent.append(signal)
            except OSError as error:
                pass
        return len(sent)
    "#;
    assert_eq!(sandbox.python(Who::User, send).await, "0");
    // Root may send, and PID 1 does not mind.
    assert_eq!(sandbox.python(Who::Root, send).await, "64");
    sandbox.works().await;
}

#[tokio::test]
async fn a_signal_to_the_parent_ends_it_only_without_the_wall() {
    let kill = "import os; os.kill(os.getppid(), 9)";
    for (walls, survives) in [(0, true), (PROCESSES, false)] {
        let sandbox = Lab::without(walls).sandbox().await;
        let command = Command::new("python3")
            .args(["-S", "-c", kill])
            .user("root");
        let _ = in_time(sandbox.exec(command)).await;
        let info = in_time(sandbox.info()).await;
        assert_eq!(info.is_ok(), survives, "{info:?}");
    }
}

/// What can be done to processes of PID 1's that are no commands: looking at its memory and its descriptors, offering it
/// when memory runs out, ending it.
const HARM: &str = r#"
    def harm(pid):
        ways = {"look": lambda: open(f"/proc/{pid}/mem"), "list": lambda: os.listdir(f"/proc/{pid}/fd"),
                "offer": lambda: write(f"/proc/{pid}/oom_score_adj", "1000"), "end": lambda: os.kill(pid, 9)}
        for name, way in ways.items():
            try:
                way()
                yield name
            except OSError:
                pass
    others = [int(each) for each in os.listdir("/proc") if each.isdigit() and int(each) not in (1, os.getpid())]
    return " ".join(sorted({way for pid in others for way in harm(pid)})) if others else "alone"
"#;

#[tokio::test]
async fn its_file_workers_by_the_user() {
    let sandbox = Lab::new().sandbox().await;
    // The worker stays for the next call.
    sandbox.works().await;
    assert_eq!(sandbox.python(Who::User, HARM).await, "");
    sandbox.works().await;
    // The control: a process of its own.
    let own = sandbox.start(Who::User, "ready()", &[]).await;
    assert_eq!(sandbox.python(Who::User, HARM).await, "end list look offer");
    own.ended().await;
}

#[tokio::test]
async fn its_file_workers_by_root() {
    // Root can end them, and then there are others; it cannot look into them.
    let sandbox = Lab::new().sandbox().await;
    for _ in 0..10 {
        sandbox.works().await;
        assert_eq!(sandbox.python(Who::Root, HARM).await, "end");
    }
    sandbox.works().await;
}

/// Looks for a word in the memory of every process that appears, until it is told to end.
const SPY: &str = r#"
    import select
    print("ready", flush=True)
    found = "nothing"
    while not select.select([0], [], [], 0)[0]:
        for entry in os.listdir("/proc"):
            if not entry.isdigit() or int(entry) in (1, os.getpid()):
                continue
            try:
                with open(f"/proc/{entry}/maps") as maps, open(f"/proc/{entry}/mem", "rb", 0) as memory:
                    for line in maps:
                        if " rw-p " in line or " rw-s " in line:
                            first, last = (int(each, 16) for each in line.split(" ")[0].split("-"))
                            memory.seek(first)
                            if given("REVERSED")[::-1].encode() in memory.read(last - first):
                                found = "found"
            except (OSError, ValueError, OverflowError):
                pass
    return found
"#;

#[tokio::test]
async fn what_it_remembers_in_copies_of_it() {
    let sandbox = Lab::new().sandbox().await;
    let word = unique();
    assert_eq!(sandbox.sh(Who::Root, &format!("echo {word}")).await, word);
    // Not the word itself, of which the spy's own command must not remind.
    let given = [("REVERSED", word.chars().rev().collect())];
    for who in Who::all() {
        let spy = sandbox.start(who, SPY, &given).await;
        for _ in 0..100 {
            // A lot to do between the fork and the program.
            let variables = (0..4000).map(|number| (format!("VARIABLE_{number}"), "x"));
            let mut command = Command::new("true").user(who.name()).cwd("./".repeat(2000));
            command
                .env
                .extend(variables.map(|(name, value)| (name, value.to_owned())));
            assert!(sandbox.run(command).await.status.success());
        }
        assert_eq!(spy.rest().await, "nothing", "{who:?}");
    }
}

#[tokio::test]
async fn its_program() {
    // While a command is started, `/proc/self/exe` is still that of PID 1. A script that names it as its interpreter
    // runs it, and could then be found with it open.
    let sandbox = Lab::new().sandbox().await;
    let script = "printf '#!/proc/self/exe\\n' > trap; chmod 755 trap";
    assert_eq!(sandbox.sh(Who::User, script).await, "");
    for program in ["/home/user/trap", "/proc/self/exe"] {
        for who in Who::all() {
            let ended = sandbox.run(Command::new(program).user(who.name())).await;
            assert!(!ended.status.success(), "{program}: {ended:?}");
        }
    }
    let overwrite = r#"
        pid = os.fork()
        if pid == 0:
            os.execv("/home/user/trap", ["trap"])
        for _ in range(1000):
            try:
                open(f"/proc/{pid}/exe", "r+b").write(b"changed")
                return "written"
            except OSError:
                pass
        os.waitpid(pid, 0)
        return "nothing"
    "#;
    assert_eq!(sandbox.python(Who::Root, overwrite).await, "nothing");
    sandbox.works().await;
}
