//! What the tests share: a state directory, the command in it with a deadline, and the certainty that nothing is left.

use std::{
    fs,
    io::{BufRead, BufReader, Read, Write},
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

/// Far more than anything here takes.
pub(crate) const DEADLINE: Duration = Duration::from_secs(120);

/// A state directory of its own, which must be empty of sandboxes at the end.
pub(crate) struct Home {
    state: PathBuf,
    /// Removed at the end, if it is not kept for its template.
    _own: Option<tempfile::TempDir>,
    ids: std::cell::RefCell<Vec<String>>,
}

fn common() -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).join("cli-state")
}

/// How a command ended and what it said.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) code: i32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Home {
    /// The directory that most tests share.
    pub(crate) fn shared() -> Self {
        Self {
            state: common(),
            _own: None,
            ids: Vec::new().into(),
        }
    }

    /// A directory of the test's, with nothing in it, not even a template.
    pub(crate) fn at(state: PathBuf) -> Self {
        Self {
            state,
            _own: None,
            ids: Vec::new().into(),
        }
    }

    /// A directory that nobody else uses, but for the template, which takes long to make.
    pub(crate) fn own() -> Self {
        let own = tempfile::tempdir().unwrap();
        let templates = common().join("templates");
        fs::create_dir_all(&templates).unwrap();
        symlink(templates, own.path().join("templates")).unwrap();
        Self {
            state: own.path().to_owned(),
            _own: Some(own),
            ids: Vec::new().into(),
        }
    }

    pub(crate) fn state(&self) -> &Path {
        &self.state
    }

    /// The command, with nothing on standard input.
    pub(crate) fn command(&self, args: &[&str]) -> Command {
        self.command_by(&[], args)
    }

    /// The command, started by another one.
    pub(crate) fn command_by(&self, starter: &[&str], args: &[&str]) -> Command {
        let words = [starter, &[env!("CARGO_BIN_EXE_sandbox")], args].concat();
        let mut command = Command::new(words[0]);
        command
            .args(&words[1..])
            .env("SANDBOX_STATE_DIR", &self.state)
            .env_remove("SANDBOX_LOG")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command
    }

    /// Runs the command to its end.
    pub(crate) fn sandbox(&self, args: &[&str]) -> Outcome {
        finish(self.command(args).spawn().unwrap())
    }

    /// Runs the command with something on standard input.
    pub(crate) fn sandbox_with(&self, args: &[&str], input: impl Into<Vec<u8>>) -> Outcome {
        let mut child = self.command(args).stdin(Stdio::piped()).spawn().unwrap();
        let (mut stdin, input) = (child.stdin.take().unwrap(), input.into());
        // It need not read all of it.
        let writer = thread::spawn(move || drop(stdin.write_all(&input)));
        let outcome = finish(child);
        writer.join().unwrap();
        outcome
    }

    /// Makes a sandbox that is ended with this value.
    pub(crate) fn create(&self, args: &[&str]) -> String {
        let id = self.sandbox(&[&["create"], args].concat()).ok();
        let id = id.trim_end().to_owned();
        self.ids.borrow_mut().push(id.clone());
        id
    }

    /// Stops the first process of a sandbox, so that it answers nobody.
    pub(crate) fn silence(&self, id: &str) {
        let is_first = |process: &Path| {
            let read = |name| fs::read_to_string(process.join(name)).unwrap_or_default();
            let status = read("status");
            let numbers = status.lines().find(|line| line.starts_with("NSpid:"));
            read("cgroup").contains(id) && numbers.is_some_and(|line| line.ends_with("\t1"))
        };
        let processes = fs::read_dir("/proc").unwrap();
        let found: Vec<_> = processes
            .map(|entry| entry.unwrap())
            .filter(|entry| is_first(&entry.path()))
            .map(|entry| entry.file_name().to_str().unwrap().parse().unwrap())
            .collect();
        let [number] = found[..] else {
            panic!("{found:?} were to be one process");
        };
        let process = rustix::process::Pid::from_raw(number).unwrap();
        rustix::process::kill_process(process, rustix::process::Signal::STOP).unwrap();
    }

    /// How many processes of a sandbox have these words among their arguments.
    pub(crate) fn running(&self, id: &str, words: &str) -> usize {
        let script = "for each in /proc/[0-9]*; do \
            test ! -r $each/cmdline || { tr '\\0\\n' '  ' < $each/cmdline; echo; }; done";
        let list = self.sandbox(&["exec", id, "--", "sh", "-c", script]).ok();
        assert!(
            list.contains("sh -c for each in"),
            "it lists nothing: {list}"
        );
        list.lines().filter(|line| line.contains(words)).count()
    }

    /// Directories of sandboxes, living or not.
    pub(crate) fn records(&self) -> Vec<String> {
        fs::read_dir(self.state.join("sandboxes"))
            .into_iter()
            .flatten()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect()
    }

    /// Waits until nothing is left of a sandbox: record, processes, mounts, control groups.
    pub(crate) fn assert_nothing_left(&self, id: &str) {
        wait_for(&format!("the end of {id}"), || {
            !self.records().iter().any(|record| record == id)
        });
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
        assert!(!mounts.contains(id), "a mount is left:\n{mounts}");
        let groups = finish(
            Command::new("find")
                .args(["/sys/fs/cgroup", "-name", &format!("*{id}*")])
                .stdout(Stdio::piped())
                .stderr(Stdio::piped())
                .spawn()
                .unwrap(),
        );
        assert_eq!(groups.stdout, "", "a control group is left");
    }
}

impl Drop for Home {
    fn drop(&mut self) {
        for id in self.ids.take() {
            drop(self.command(&["kill", &id]).output());
        }
    }
}

impl Outcome {
    /// Standard output, if it ended well.
    #[track_caller]
    pub(crate) fn ok(self) -> String {
        assert_eq!(self.code, 0, "{self:?}");
        self.stdout
    }

    #[track_caller]
    pub(crate) fn assert_code(&self, code: i32) {
        assert_eq!(self.code, code, "{self:?}");
    }

    /// It went wrong on our side, and standard error says this about it.
    #[track_caller]
    pub(crate) fn assert_refused(&self, words: &str) {
        self.assert_code(125);
        assert!(self.stderr.contains(words), "{words:?} is not in {self:?}");
        assert!(self.stderr.starts_with("error: "), "{self:?}");
        assert_eq!(self.stdout, "");
    }

    pub(crate) fn json(self) -> serde_json::Value {
        serde_json::from_str(&self.ok()).unwrap()
    }
}

/// Waits for the end of a process, which is killed if it takes too long.
pub(crate) fn finish(mut child: Child) -> Outcome {
    fn drain(stream: Option<impl Read + Send + 'static>) -> thread::JoinHandle<String> {
        thread::spawn(move || {
            let mut bytes = Vec::new();
            if let Some(mut stream) = stream {
                stream.read_to_end(&mut bytes).unwrap();
            }
            String::from_utf8_lossy(&bytes).into_owned()
        })
    }
    let (stdout, stderr) = (drain(child.stdout.take()), drain(child.stderr.take()));
    let id = rustix::process::Pid::from_child(&child);
    let (done, ended) = mpsc::channel();
    let waiter = thread::spawn(move || {
        let status = child.wait().unwrap();
        let _ = done.send(());
        status
    });
    let in_time = ended.recv_timeout(DEADLINE).is_ok();
    if !in_time {
        let _ = rustix::process::kill_process(id, rustix::process::Signal::KILL);
    }
    let status = waiter.join().unwrap();
    let outcome = Outcome {
        code: status.code().unwrap_or(-1),
        stdout: stdout.join().unwrap(),
        stderr: stderr.join().unwrap(),
    };
    assert!(in_time, "it did not end in time: {outcome:?}");
    outcome
}

/// Waits until something is so.
#[track_caller]
pub(crate) fn wait_for(what: &str, mut is_so: impl FnMut() -> bool) {
    let start = Instant::now();
    while !is_so() {
        assert!(start.elapsed() < DEADLINE, "still waiting for {what}");
        // So that what is waited for has the processor.
        thread::sleep(Duration::from_millis(5));
    }
}

/// A command that is talked to while it runs.
pub(crate) struct Talk {
    pub(crate) child: Child,
    pub(crate) stdin: ChildStdin,
    stdout: Option<BufReader<ChildStdout>>,
}

impl Talk {
    pub(crate) fn start(mut command: Command) -> Self {
        let mut child = command.stdin(Stdio::piped()).spawn().unwrap();
        Self {
            stdin: child.stdin.take().unwrap(),
            stdout: child.stdout.take().map(BufReader::new),
            child,
        }
    }

    /// The next line of standard output.
    pub(crate) fn line(&mut self) -> String {
        let mut line = String::new();
        let stdout = self.stdout.as_mut().unwrap();
        stdout.read_line(&mut line).unwrap();
        line.trim_end().to_owned()
    }

    /// Stops reading.
    pub(crate) fn close_stdout(&mut self) {
        self.stdout = None;
    }

    pub(crate) fn signal(&self, signal: rustix::process::Signal) {
        let id = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(id, signal).unwrap();
    }

    /// Closes standard input and waits for the end.
    pub(crate) fn finish(self) -> Outcome {
        let Self {
            child,
            stdin,
            stdout,
        } = self;
        drop(stdin);
        let rest = thread::spawn(move || {
            let mut text = String::new();
            stdout.map(|mut stdout| stdout.read_to_string(&mut text));
            text
        });
        let mut outcome = finish(child);
        outcome.stdout = rest.join().unwrap();
        outcome
    }
}
