//! Sandboxes for attempts, with walls and limits as the test wants them, and decoys on the host.

use crate::{alone, ordinary};
use sandbox_core::{ProcessControl, prelude::*};
use sandbox_local::LocalProvider;
use std::{
    env, fs,
    io::{BufRead, BufReader},
    ops::Deref,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{self, Child, Stdio},
    sync::Arc,
    time::{Duration, Instant},
};
use tempfile::TempDir;

/// What a decoy says.
pub(crate) const DECOY: &str = "planted decoy";

pub(crate) const MIB: u64 = 1024 * 1024;

/// Longer than anything here takes; what it ends has hung.
pub(crate) const DEADLINE: Duration = Duration::from_secs(30);

const PRELUDE: &str = include_str!("prelude.py");

/// Who makes an attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Who {
    User,
    Root,
}

impl Who {
    /// All that there are: sandboxes of an ordinary user have a root only with subordinate ids.
    pub(crate) fn all() -> impl Iterator<Item = Self> {
        let root = (!alone::is_alone()).then_some(Self::Root);
        [Self::User].into_iter().chain(root)
    }

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::User => "user",
            // Whoever may most: where there is no root that is the only one there is.
            Self::Root if alone::is_alone() => "user",
            Self::Root => "root",
        }
    }
}

/// Makes sandboxes.
#[derive(Debug)]
pub(crate) struct Lab {
    pub(crate) provider: LocalProvider,
}

impl Lab {
    /// Sandboxes with all walls.
    pub(crate) fn new() -> Self {
        Self::without(0)
    }

    /// Sandboxes without these walls.
    pub(crate) fn without(walls: u32) -> Self {
        let limits = Limits::new().memory(256 * MIB).cpus(1.0).processes(64);
        let provider = LocalProvider::builder()
            .state_dir(state_dir())
            .default_limits(limits)
            .weaken(walls)
            .build();
        let provider = provider.unwrap();
        // Those of earlier builds; the present one's stays.
        provider.prune().unwrap();
        Self { provider }
    }

    pub(crate) async fn sandbox(&self) -> Inside {
        self.limited(Limits::new()).await
    }

    /// A sandbox that may reach the public internet.
    pub(crate) async fn networked(&self) -> Inside {
        self.make(CreateOptions::new().network(NetworkPolicy::Public))
            .await
    }

    /// Has a sandbox go on above a layer which it shares with a fork that was made of it.
    pub(crate) async fn rotate(&self, sandbox: Inside) -> Inside {
        sandbox.fork(&self.provider).await;
        sandbox
    }

    pub(crate) async fn limited(&self, limits: Limits) -> Inside {
        self.make(CreateOptions::new().limits(limits)).await
    }

    async fn make(&self, options: CreateOptions) -> Inside {
        let options = options.lifetime(Duration::from_secs(120));
        let sandbox = self.provider.create(options).await.unwrap();
        Inside {
            sandbox,
            _provider: self.provider.clone(),
        }
    }
}

/// One directory for all tests, whose template is made once; sandboxes have nothing else in common.
pub(crate) fn state_dir() -> PathBuf {
    if ordinary::is_ordinary() {
        return env::home_dir().unwrap().join("escape");
    }
    Path::new(env!("CARGO_TARGET_TMPDIR")).join("escape")
}

/// A sandbox, and ways to run hostile code in it.
#[derive(Debug)]
pub(crate) struct Inside {
    sandbox: Arc<dyn Sandbox>,
    _provider: LocalProvider,
}

impl Deref for Inside {
    type Target = Arc<dyn Sandbox>;
    fn deref(&self) -> &Self::Target {
        &self.sandbox
    }
}

impl Inside {
    /// Runs an attempt: what it printed, or the signal that ended it.
    pub(crate) async fn python(&self, who: Who, code: &str) -> String {
        self.python_given(who, code, &[]).await
    }

    /// As [`Inside::python`], with values that it is told.
    pub(crate) async fn python_given(
        &self,
        who: Who,
        code: &str,
        given: &[(&str, String)],
    ) -> String {
        let output = self.run(command(who, code, given)).await;
        match output.status {
            ExitStatus::Code(0) => output.stdout_text().trim().to_owned(),
            ExitStatus::Code(_) => panic!("{}\n{code}", output.stderr_text()),
            other => other.to_string(),
        }
    }

    /// Runs a shell script: its output and errors together.
    pub(crate) async fn sh(&self, who: Who, script: &str) -> String {
        let command = Command::shell(script).user(who.name()).merge_stderr();
        self.run(command).await.stdout_text().trim().to_owned()
    }

    /// Runs a command that must not hang.
    pub(crate) async fn run(&self, command: Command) -> sandbox_core::Output {
        in_time(self.exec(command.timeout(DEADLINE))).await.unwrap()
    }

    /// Makes a fork, for which the sandbox's file tree is replaced.
    pub(crate) async fn fork(&self, provider: &LocalProvider) -> Self {
        assert_eq!(self.sh(Who::Root, "echo x >/srv/changed").await, "");
        let old = self.sh(Who::User, "stat -c %d /").await;
        let forks = provider.fork(self.id(), 1, CreateOptions::new()).await;
        // Otherwise it was copied.
        assert_ne!(self.sh(Who::User, "stat -c %d /").await, old);
        Self {
            sandbox: forks.unwrap().remove(0),
            _provider: provider.clone(),
        }
    }

    /// Starts a program that prints `ready` when it is.
    pub(crate) async fn start(&self, who: Who, code: &str, given: &[(&str, String)]) -> Running {
        let command = command(who, code, given).stdin(Stdin::Open).merge_stderr();
        let mut process = self.spawn(command).await.unwrap();
        let mut said = Vec::new();
        while !said.starts_with(b"ready") {
            match in_time(process.try_next()).await.unwrap() {
                Some(ProcessEvent::Stdout(bytes)) => said.extend_from_slice(&bytes),
                Some(ProcessEvent::Started { .. }) => {}
                other => panic!("{other:?}: {}", String::from_utf8_lossy(&said)),
            }
        }
        Running {
            control: process.control(),
            process,
        }
    }

    /// The sandbox still does what it is for.
    pub(crate) async fn works(&self) {
        for who in Who::all() {
            assert_eq!(self.sh(who, "echo alive").await, "alive");
        }
        let files = self.files();
        in_time(files.write_bytes("/home/user/alive", "alive"))
            .await
            .unwrap();
        let read = in_time(files.read_text("/home/user/alive")).await;
        assert_eq!(read.unwrap(), "alive");
    }

    /// The host's number of its PID 1.
    pub(crate) fn init(&self) -> u32 {
        let record = state_dir().join("sandboxes").join(self.id().as_str());
        let init = fs::read_to_string(record.join("init")).unwrap();
        init.split(' ').next().unwrap().parse().unwrap()
    }
}

/// A program that runs in a sandbox until it is told to end.
#[derive(Debug)]
pub(crate) struct Running {
    pub(crate) process: Process,
    control: Arc<dyn ProcessControl>,
}

impl Running {
    /// Tells it that the test is done with it, and waits for its end.
    pub(crate) async fn finish(mut self) -> ExitStatus {
        self.control.close_stdin().await.unwrap();
        in_time(self.process.wait()).await.unwrap()
    }

    /// Tells it that the test is done with it, and returns what it says then.
    pub(crate) async fn rest(mut self) -> String {
        self.control.close_stdin().await.unwrap();
        let mut said = Vec::new();
        while let Some(event) = in_time(self.process.try_next()).await.unwrap() {
            if let ProcessEvent::Stdout(bytes) = event {
                said.extend_from_slice(&bytes);
            }
        }
        String::from_utf8_lossy(&said).trim().to_owned()
    }

    /// Waits for its end, which somebody else brings about.
    pub(crate) async fn ended(mut self) -> ExitStatus {
        in_time(self.process.wait()).await.unwrap()
    }

    /// Ends it.
    pub(crate) async fn kill(mut self) {
        self.control
            .signal(sandbox_core::Signal::KILL)
            .await
            .unwrap();
        in_time(self.process.wait()).await.unwrap();
    }
}

/// Fails if it takes longer than anything should.
pub(crate) async fn in_time<T>(work: impl Future<Output = T>) -> T {
    let ended = tokio::time::timeout(DEADLINE, work).await;
    ended.expect("it hangs")
}

/// Waits for a fact that nothing announces.
pub(crate) async fn until(what: &str, mut fact: impl AsyncFnMut() -> bool) {
    let start = Instant::now();
    while !fact().await {
        assert!(start.elapsed() < DEADLINE, "still not so: {what}");
        tokio::task::yield_now().await;
    }
}

/// An attempt as a command.
pub(crate) fn command(who: Who, code: &str, given: &[(&str, String)]) -> Command {
    let command = Command::new("python3").args(["-S", "-c", &program(code)]);
    let given = given.iter();
    given.fold(command.user(who.name()), |command, (name, value)| {
        command.env(format!("GIVEN_{name}"), value)
    })
}

fn program(code: &str) -> String {
    let calls: String = CALLS
        .iter()
        .map(|(name, number)| format!("'{}': {number}, ", name.trim_start_matches("SYS_")))
        .collect();
    format!(
        "{PRELUDE}\nCALLS = {{{calls}}}\n\ndef attempt():\n    {code}\n\n\
         try:\n    print(attempt(), flush=True)\n\
         except OSError as error:\n    print(errno.errorcode.get(error.errno, repr(error)), flush=True)\n"
    )
}

/// Runs an attempt as the host's root.
pub(crate) fn on_host(code: &str, given: &[(&str, String)]) -> String {
    let output = host_python(code, given).output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
    assert!(output.status.success(), "{}\n{code}", text(&output.stderr));
    text(&output.stdout)
}

pub(crate) fn host_python(code: &str, given: &[(&str, String)]) -> process::Command {
    let mut python = process::Command::new("python3");
    python.args(["-S", "-c", &program(code)]);
    python.stdin(Stdio::null());
    python.envs(
        given
            .iter()
            .map(|(name, value)| (format!("GIVEN_{name}"), value)),
    );
    python
}

/// A program on the host that plants something and takes it away again when this is dropped.
#[derive(Debug)]
pub(crate) struct Planted(Child);

impl Planted {
    /// Starts `code`, which calls `ready()` and cleans up after it.
    pub(crate) fn by(code: &str, given: &[(&str, String)]) -> Self {
        let mut python = host_python(code, given);
        let mut child = python
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.as_mut().unwrap())
            .read_line(&mut line)
            .unwrap();
        assert_eq!(line, "ready\n", "{code}");
        Self(child)
    }
}

impl Drop for Planted {
    fn drop(&mut self) {
        drop(self.0.stdin.take());
        let _ = self.0.wait();
    }
}

/// A directory of the host that everybody may read, with a file in it.
pub(crate) fn decoy_in(place: &Path) -> (TempDir, PathBuf) {
    let directory = TempDir::with_prefix_in("sandbox-decoy-", place).unwrap();
    fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let path = directory.path().canonicalize().unwrap().join("decoy");
    fs::write(&path, DECOY).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
    (directory, path)
}

/// A name that no other test uses.
pub(crate) fn unique() -> String {
    let directory = TempDir::with_prefix("sandbox-name-").unwrap();
    let name = directory.path().file_name().unwrap();
    name.to_string_lossy().into_owned()
}

macro_rules! numbers {
    ($($name:ident)*) => { &[$((stringify!($name), libc::$name)),*] };
}

/// Numbers of the calls that attempts make themselves.
const CALLS: &[(&str, libc::c_long)] = numbers![
    SYS_acct SYS_add_key SYS_adjtimex SYS_bpf SYS_capset SYS_clock_settime SYS_clone SYS_clone3 SYS_delete_module
    SYS_fanotify_init SYS_finit_module SYS_fsopen SYS_fspick SYS_init_module SYS_io_setup SYS_io_uring_setup SYS_ioctl
    SYS_kexec_load SYS_keyctl SYS_memfd_secret SYS_mknodat SYS_mount SYS_mount_setattr SYS_move_mount SYS_mq_open
    SYS_mq_timedreceive SYS_mq_timedsend SYS_mq_unlink SYS_msgctl SYS_msgget SYS_msgrcv SYS_msgsnd
    SYS_name_to_handle_at SYS_open_by_handle_at SYS_open_tree SYS_perf_event_open SYS_personality SYS_pidfd_getfd
    SYS_pidfd_open SYS_pivot_root SYS_prlimit64 SYS_process_vm_readv SYS_process_vm_writev SYS_ptrace SYS_quotactl
    SYS_reboot SYS_renameat2 SYS_request_key SYS_rt_sigqueueinfo SYS_semctl SYS_semget SYS_setdomainname
    SYS_sethostname SYS_setns SYS_settimeofday SYS_shmat SYS_shmctl SYS_shmget SYS_swapoff SYS_swapon SYS_syslog SYS_timer_create
    SYS_umount2 SYS_unshare SYS_userfaultfd
];
