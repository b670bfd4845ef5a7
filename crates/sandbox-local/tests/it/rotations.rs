//! Forks and snapshots of sandboxes in which nothing runs: what they have changed becomes a layer that both stand on.

use crate::alone;
use crate::leftovers::{children, kill};
use crate::support::{State, example, sh};
use sandbox_core::{SnapshotOptions, prelude::*};
use sandbox_local::{LocalProvider, VolumeMount};
use std::{
    collections::BTreeSet,
    fs,
    io::{BufRead, BufReader, Write},
    os::unix::fs::chown,
    process::{Command as Program, Stdio},
    sync::Arc,
    thread,
    time::Duration,
};

impl State {
    /// Names of the directories of changed files that a sandbox has.
    fn uppers(&self, sandbox: &Arc<dyn Sandbox>) -> BTreeSet<String> {
        let store = self.path().join("sandboxes").join(sandbox.id().as_str());
        let entries = fs::read_dir(store.join("store")).unwrap().flatten();
        let names = entries.filter_map(|entry| entry.file_name().into_string().ok());
        names.filter(|name| name.starts_with('u')).collect()
    }

    /// Whether what this sandbox had changed has become a layer so many times.
    fn has_rotated(&self, sandbox: &Arc<dyn Sandbox>, times: u32) -> bool {
        let uppers = self.uppers(sandbox);
        let suffix = format!(".{times}");
        match times {
            0 => uppers.iter().all(|name| !name.contains('.')),
            _ => uppers.iter().all(|name| name.ends_with(&suffix)),
        }
    }

    /// How many layers the root of a sandbox has below its own changes, by the record.
    fn depth(&self, sandbox: &Arc<dyn Sandbox>) -> usize {
        let path = self.path().join("sandboxes").join(sandbox.id().as_str());
        let record = fs::read_to_string(path.join("record.json")).unwrap();
        let record: serde_json::Value = serde_json::from_str(&record).unwrap();
        record["trees"][0]["lowers"].as_array().unwrap().len()
    }

    fn kept(&self) -> BTreeSet<String> {
        let entries = fs::read_dir(self.path().join("snapshots"));
        let entries = entries.into_iter().flatten().flatten();
        let names = entries.filter_map(|entry| entry.file_name().into_string().ok());
        names.filter(|name| !name.starts_with('.')).collect()
    }
}

async fn fork(provider: &LocalProvider, of: &Arc<dyn Sandbox>) -> Arc<dyn Sandbox> {
    let forks = provider.fork(of.id(), 1, CreateOptions::new());
    forks.await.unwrap().remove(0)
}

/// Runs a script as root; what it said, with its errors.
async fn root(sandbox: &Arc<dyn Sandbox>, script: &str) -> String {
    let mut command = Command::shell(script).merge_stderr();
    if !alone::is_alone() {
        command = command.user("root");
    }
    let output = sandbox.exec(command).await.unwrap();
    output.stdout_text().trim_end().to_owned()
}

/// Where all is mounted, as a program inside is told it, and with what attributes.
const MOUNTS: &str = "cut -d' ' -f4,5,6 /proc/self/mountinfo | sort";

#[tokio::test]
async fn a_sandbox_and_its_forks_share_what_was_and_nothing_that_comes() {
    let state = State::new();
    let (provider, parent) = state.sandbox().await;
    let made = "echo old >/srv/kept; chmod 640 /srv/kept; mkdir -p /srv/d/e; echo x >/srv/d/e/x; ln /srv/kept /srv/link; \
        rm -r /usr/share/doc; mkdir /usr/share/doc; echo own >/usr/share/doc/own; rm /etc/hostname; \
        chown 33:44 /srv/d; chmod 711 /; mkfifo /srv/fifo; ln -s kept /srv/soft; setfattr -n user.a -v b /srv/kept 2>/dev/null; true";
    assert_eq!(root(&parent, made).await, "");
    let look = "cat /srv/kept /srv/link /srv/soft /srv/d/e/x; stat -c '%u:%g %a %F' / /srv/kept /srv/d /srv/fifo; \
        ls /usr/share/doc; test -e /etc/hostname || echo gone; test -e /usr/bin/env && pwd";
    let seen = root(&parent, look).await;
    assert!(
        seen.starts_with("old\nold\nold\nx\n0:0 711 directory\n0:0 640 regular file\n33:44 755"),
        "{seen}"
    );
    let first = fork(&provider, &parent).await;
    assert!(state.has_rotated(&parent, 1), "{:?}", state.uppers(&parent));
    assert_eq!(state.kept().len(), 1);
    assert_eq!(root(&parent, look).await, seen);
    assert_eq!(root(&first, look).await, seen);
    // Neither sees what the other does from now on, of any kind.
    let change = "echo parent >/srv/kept; rm -r /srv/d; mkdir /srv/d; touch /srv/d/new; rm /srv/fifo; chmod 600 /srv/soft; \
        echo more >>/usr/share/doc/own; echo name >/etc/hostname";
    assert_eq!(root(&parent, change).await, "");
    assert_eq!(root(&first, look).await, seen);
    assert_eq!(
        root(
            &first,
            "rm -r /usr/share/doc /srv/kept; echo fork >/srv/only"
        )
        .await,
        ""
    );
    let now = "cat /srv/kept /usr/share/doc/own /etc/hostname; ls /srv /srv/d";
    assert_eq!(
        root(&parent, now).await,
        "parent\nown\nmore\nname\n/srv:\nd\nkept\nlink\nsoft\n\n/srv/d:\nnew"
    );
    // The layer itself has what it had.
    let second = fork(&provider, &parent).await;
    assert!(state.has_rotated(&parent, 2));
    assert_eq!(root(&second, now).await, root(&parent, now).await);
    assert_eq!(root(&first, "ls /srv").await, "d\nfifo\nlink\nonly\nsoft");
    for sandbox in [&parent, &first] {
        assert!(sandbox.kill().await.unwrap());
    }
    assert_eq!(
        root(&second, "cat /srv/kept; ls /srv/d").await,
        "parent\nnew"
    );
    assert!(second.kill().await.unwrap());
    assert_eq!(state.kept(), BTreeSet::new());
}

#[tokio::test]
async fn a_file_written_by_call_does_not_keep_the_sandbox_from_being_idle() {
    let state = State::new();
    let (provider, parent) = state.sandbox().await;
    for number in 1..=5 {
        let text = number.to_string();
        parent
            .files()
            .write_bytes("note", text.clone())
            .await
            .unwrap();
        let fork = fork(&provider, &parent).await;
        assert!(state.has_rotated(&parent, number));
        assert_eq!(fork.files().read_text("note").await.unwrap(), text);
        // Calls and commands go on with what was there.
        assert_eq!(parent.files().read_text("note").await.unwrap(), text);
        assert_eq!(
            sh(&parent, "pwd; cat note").await,
            format!("/home/user\n{text}")
        );
        assert!(fork.kill().await.unwrap());
    }
    // What nobody else stands on is still the sandbox's.
    assert_eq!(state.kept().len(), 5);
    assert!(parent.kill().await.unwrap());
    assert_eq!(state.kept(), BTreeSet::new());
}

#[tokio::test]
async fn a_root_that_was_given_away_and_closed_is_so_in_the_fork() {
    let state = State::new();
    let (provider, parent) = state.sandbox().await;
    let look = "stat -c '%U %a' / && cat /srv/note";
    for times in 1..=2 {
        let change = format!("chmod 755 /; echo {times} >/srv/note; chown user /; chmod 500 /");
        assert_eq!(root(&parent, &change).await, "");
        let fork = fork(&provider, &parent).await;
        assert!(state.has_rotated(&parent, times));
        for sandbox in [&parent, &fork] {
            assert_eq!(root(sandbox, look).await, format!("user 500\n{times}"));
        }
        // The fork's own changes as well.
        assert_eq!(root(&fork, "echo more >/srv/more").await, "");
        let second = self::fork(&provider, &fork).await;
        assert_eq!(
            root(&second, "stat -c '%U %a' /; cat /srv/more").await,
            "user 500\nmore"
        );
        for sandbox in [fork, second] {
            assert!(sandbox.kill().await.unwrap());
        }
    }
    assert!(parent.kill().await.unwrap());
    assert_eq!(state.kept(), BTreeSet::new());
}

#[tokio::test]
async fn where_something_runs_files_are_copied() {
    let state = State::new();
    let (provider, parent) = state.sandbox().await;
    let script = "echo x >note; while :; do echo x >>log; sleep 0.01; done & echo $!";
    let pid = sh(&parent, script).await;
    let copied = fork(&provider, &parent).await;
    assert!(state.has_rotated(&parent, 0));
    assert_eq!(sh(&copied, "cat note").await, "x\n");
    let grows = "n=$(wc -l <log); until [ $(wc -l <log) -gt $n ]; do sleep 0.01; done; echo grows";
    assert_eq!(sh(&parent, grows).await, "grows\n");
    let end = format!(
        "kill {0}; while [ -e /proc/{0} ]; do :; done; while pgrep -x sleep >/dev/null; do :; done",
        pid.trim()
    );
    sh(&parent, &end).await;
    let lines = sh(&parent, "wc -l <log").await;
    let shared = fork(&provider, &parent).await;
    assert!(state.has_rotated(&parent, 1));
    assert_eq!(sh(&shared, "wc -l <log").await, lines);
}

#[tokio::test]
async fn layers_are_merged_before_they_are_too_many() {
    let state = State::new();
    let (provider, parent) = state.sandbox().await;
    let mut last = Arc::clone(&parent);
    for number in 0..40 {
        let step = format!(
            "echo {number} >/srv/{number}; echo {number} >>/srv/all; rm -f /srv/$(({number} - 3)); \
             rm -rf /srv/d; mkdir /srv/d; touch /srv/d/{number}"
        );
        // On the parent of all for a while, and on a fork of a fork of it.
        assert_eq!(root(&last, &step).await, "");
        let next = fork(&provider, &last).await;
        let depth = state.depth(&last);
        assert!(depth <= 20 && state.depth(&next) <= 20, "{depth}");
        assert!(!state.has_rotated(&last, 0));
        if number >= 20 {
            last = next;
        } else {
            next.kill().await.unwrap();
        }
        let seen = root(
            &last,
            "cd /srv; ls -d [0-9]* | sort -n | xargs; wc -l </srv/all; ls /srv/d",
        )
        .await;
        let from = (number - 2).max(0);
        let kept: Vec<_> = (from..=number).map(|kept: i32| kept.to_string()).collect();
        let wanted = format!("{}\n{}\n{number}", kept.join(" "), number + 1);
        assert_eq!(seen, wanted);
    }
}

#[tokio::test]
async fn nothing_is_lost_that_is_written_from_outside_while_layers_are_merged() {
    const FORKS: usize = 48;
    const LINES: usize = 200;
    let state = State::new();
    let (provider, parent) = state.sandbox().await;
    root(&parent, "echo 0 >/srv/log").await;
    let record = state.path().join("sandboxes").join(parent.id().as_str());
    let init = fs::read_to_string(record.join("init")).unwrap();
    let log = format!("/proc/{}/root/srv/log", init.split(' ').next().unwrap());
    let (begin, begun) = std::sync::mpsc::channel::<usize>();
    let writer = thread::spawn(move || {
        for first in begun {
            for line in first..first + LINES {
                // Each time in the upper directory of that moment, which may become a layer at any other.
                let write = || -> std::io::Result<()> {
                    let mut file = fs::File::options().append(true).open(&log)?;
                    writeln!(file, "{line}")
                };
                // While it is being made one, it is read-only.
                while write().is_err() {
                    thread::yield_now();
                }
            }
        }
    });
    let (mut merged, mut last) = (false, 0);
    for number in 0..FORKS {
        root(&parent, "echo x >>/srv/other").await;
        // Every other time nobody is in the way.
        if number % 2 == 0 {
            begin.send(1 + number / 2 * LINES).unwrap();
        }
        let fork = fork(&provider, &parent).await;
        let depth = state.depth(&parent);
        merged |= depth < last;
        last = depth;
        fork.kill().await.unwrap();
    }
    drop(begin);
    writer.join().unwrap();
    assert!(merged);
    let seen = root(&parent, "cat /srv/log").await;
    let lines: Vec<usize> = seen.lines().map(|line| line.parse().unwrap()).collect();
    assert_eq!(lines, (0..=FORKS / 2 * LINES).collect::<Vec<_>>());
}

#[tokio::test]
async fn what_is_open_outside_when_layers_are_merged_is_copied() {
    let state = State::new();
    let (provider, parent) = state.sandbox().await;
    let (mut deepest, mut merged) = (0, false);
    while !merged {
        root(&parent, "echo x >>/srv/log").await;
        let record = state.path().join("sandboxes").join(parent.id().as_str());
        let init = fs::read_to_string(record.join("init")).unwrap();
        let log = format!("/proc/{}/root/srv/log", init.split(' ').next().unwrap());
        let open = fs::File::options().append(true).open(log).unwrap();
        let copied = fork(&provider, &parent).await;
        drop(open);
        let lines = root(&parent, "wc -l </srv/log").await;
        assert_eq!(root(&copied, "wc -l </srv/log").await, lines);
        assert!(state.depth(&copied) <= 20);
        let shared = fork(&provider, &parent).await;
        assert_eq!(root(&shared, "wc -l </srv/log").await, lines);
        for fork in [copied, shared] {
            assert!(fork.kill().await.unwrap());
        }
        let depth = state.depth(&parent);
        merged = depth < deepest;
        deepest = depth;
    }
}

#[tokio::test]
async fn a_snapshot_of_an_idle_sandbox_outlives_it() {
    let state = State::new();
    let (provider, sandbox) = state.sandbox().await;
    sh(
        &sandbox,
        "head -c 200000 /dev/urandom >data; sha256sum data >sum",
    )
    .await;
    let snapshots = sandbox.require_snapshots().unwrap();
    let options = SnapshotOptions::new().name("kept");
    let snapshot = snapshots.snapshot(options).await.unwrap();
    assert!(state.has_rotated(&sandbox, 1));
    assert!(
        (200_000..400_000).contains(&snapshot.bytes.unwrap()),
        "{snapshot:?}"
    );
    let known = provider.imported_template(&"kept".into()).await.unwrap();
    assert!(
        known
            .notices
            .iter()
            .any(|notice| notice.contains("the sandbox's own")),
        "{known:?}"
    );
    sh(&sandbox, "echo other >data").await;
    assert!(sandbox.kill().await.unwrap());
    drop(provider);
    let provider = state.provider();
    let copy = provider
        .create(CreateOptions::new().template("kept"))
        .await
        .unwrap();
    assert_eq!(sh(&copy, "sha256sum -c sum").await, "data: OK\n");
    let name = "kept".into();
    let removed = provider.templates().unwrap().remove(&name);
    assert!(removed.await.unwrap());
    assert_eq!(sh(&copy, "sha256sum -c sum").await, "data: OK\n");
    assert!(copy.kill().await.unwrap());
    assert_eq!(state.kept(), BTreeSet::new());
}

#[tokio::test]
async fn all_mounts_are_where_they_were() {
    let state = State::new();
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("file"), "theirs\n").unwrap();
    for path in [folder.path(), &folder.path().join("file")] {
        chown(path, Some(4321), Some(4322)).unwrap();
    }
    let builder = LocalProvider::builder().state_dir(state.path());
    let provider = builder.host_folders([folder.path()]).build().unwrap();
    let mount = |target: &str| VolumeMount::new(folder.path().to_str().unwrap(), target);
    let options = mount("/srv/with space/shared").add_to(CreateOptions::new());
    let options = mount("/usr/share/shared").read_only().add_to(options);
    let parent = provider
        .create(options.limits(Limits::new().memory(64 << 20).cpus(1.0)))
        .await
        .unwrap();
    let told =
        "nproc; head -1 /proc/meminfo; cat /proc/cmdline; ls /dev /run; ls -l /dev/fd/ | wc -l";
    let told_before = root(&parent, told).await;
    root(&parent, "echo run >/run/kept; echo shm >/dev/shm/kept; mv '/srv/with space' /srv/moved 2>/dev/null; echo x >/srv/x").await;
    let before = root(&parent, MOUNTS).await;
    assert!(
        before.contains("/proc/kallsyms") && before.contains("/srv/moved/shared"),
        "{before}"
    );
    for times in 1..=3 {
        root(&parent, &format!("echo {times} >/srv/times")).await;
        let fork = fork(&provider, &parent).await;
        assert!(state.has_rotated(&parent, times));
        assert_eq!(root(&parent, MOUNTS).await, before);
        let kept = "cat /run/kept /dev/shm/kept /srv/*/shared/file; touch /usr/share/shared/x; echo $(ls / | wc -l)";
        let seen = root(&parent, kept).await;
        assert!(
            seen.starts_with("run\nshm\ntheirs\n") && seen.contains("Read-only file system"),
            "{seen}"
        );
        // A fork has no volumes, and nothing of what was in memory.
        let alone = "ls -A /run/kept /dev/shm /usr/share/shared /srv/*/shared 2>&1 | grep -c kept; cat /srv/times";
        assert_eq!(root(&fork, alone).await, format!("1\n{times}"));
        fork.kill().await.unwrap();
    }
    assert_eq!(root(&parent, told).await.replace("kept\n", ""), told_before);
}

#[tokio::test]
async fn several_who_fork_at_the_same_time_do_not_get_into_each_others_way() {
    let state = State::new();
    let (provider, parent) = state.sandbox().await;
    sh(&parent, "echo x >note").await;
    let forks: Vec<_> = (0..8)
        .map(|_| {
            let (provider, parent) = (provider.clone(), Arc::clone(&parent));
            tokio::spawn(async move { fork(&provider, &parent).await })
        })
        .collect();
    let writes = (0..30).map(|number| {
        sh(
            &parent,
            if number % 2 == 0 {
                "echo y >>log"
            } else {
                "cat note"
            },
        )
    });
    for write in writes {
        write.await;
    }
    for fork in forks {
        assert_eq!(sh(&fork.await.unwrap(), "cat note").await, "x\n");
    }
    assert_eq!(sh(&parent, "wc -l <log").await, "15\n");
}

#[tokio::test]
async fn a_sandbox_that_ends_while_it_is_forked_is_not_found_and_leaves_nothing() {
    let state = State::new();
    let provider = state.provider();
    let (mut forked, mut refused) = (0, 0);
    for moment in 0..MOMENTS {
        let parent = provider.create(CreateOptions::new()).await.unwrap();
        parent.files().write_bytes("note", "x").await.unwrap();
        let forks = {
            let (provider, id) = (provider.clone(), parent.id().clone());
            tokio::spawn(async move { provider.fork(&id, 1, CreateOptions::new()).await })
        };
        // The moment itself is what is tried.
        tokio::time::sleep(Duration::from_micros(u64::from(moment) * 1000)).await;
        parent.kill().await.unwrap();
        match forks.await.unwrap() {
            Ok(forks) => {
                assert_eq!(sh(&forks[0], "cat note").await, "x");
                assert!(forks[0].kill().await.unwrap());
                forked += 1;
            }
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::SandboxNotFound, "{error:?}");
                refused += 1;
            }
        }
        assert_eq!(state.traces(parent.id().as_str()), BTreeSet::new());
        assert_eq!(state.kept(), BTreeSet::new(), "{moment}");
    }
    assert_eq!(forked + refused, MOMENTS);
}

/// How often a program is killed that forks a sandbox.
const MOMENTS: u32 = 40;

#[tokio::test]
async fn a_program_killed_in_the_middle_leaves_the_sandbox_as_it_was_or_as_it_was_to_be() {
    let state = State::new();
    let options = CreateOptions::new().ownership(Ownership::Detached);
    let sandbox = state.provider().create(options).await.unwrap();
    let (mut written, mut log) = (0, 0);
    for moment in 0..MOMENTS {
        written = kill_forker(&state, &sandbox, written, moment).await;
        // What it has made goes with the start of the next one, or by tidying up.
        let provider = state.provider();
        provider.prune().unwrap();
        let sandbox = provider.sandbox(sandbox.id());
        let number = sandbox.files().read_text("number").await.unwrap();
        // The next one may have been written, and not said.
        let number: u64 = number.parse().unwrap();
        assert!(
            (written..=written + 1).contains(&number),
            "{number} {written}"
        );
        log += 1;
        let seen = sh(
            &sandbox,
            "echo x >>log; wc -l <log; ls /proc/self/fd >/dev/null && pwd",
        )
        .await;
        assert_eq!(seen, format!("{log}\n/home/user\n"));
        let before = state.uppers(&sandbox);
        let fork = fork(&provider, &sandbox).await;
        assert_ne!(state.uppers(&sandbox), before);
        assert_eq!(
            sh(&fork, "cat number log | wc -l").await,
            format!("{log}\n")
        );
        assert!(fork.kill().await.unwrap());
        written = number;
    }
    assert!(sandbox.kill().await.unwrap());
    assert_eq!(state.traces(sandbox.id().as_str()), BTreeSet::new());
    assert_eq!(state.kept(), BTreeSet::new());
}

/// Starts a program that forks the sandbox, and kills it, every other time with its zygote before. Returns the last number
/// that it has written.
async fn kill_forker(state: &State, sandbox: &Arc<dyn Sandbox>, last: u64, moment: u32) -> u64 {
    let mut forker = Program::new(example("forker"));
    forker
        .args([sandbox.id().as_str(), &(last + 1).to_string()])
        .env("SANDBOX_STATE_DIR", state.path())
        .stdout(Stdio::piped())
        .stderr(Stdio::inherit());
    let mut forker = forker.spawn().unwrap();
    let mut said = BufReader::new(forker.stdout.take().unwrap()).lines();
    // It is under way, by one fork at least.
    let under_way = said.next().unwrap().unwrap();
    // The moment itself is what is tried.
    thread::sleep(Duration::from_micros(u64::from(moment) * 1500));
    if moment % 2 == 1 {
        for zygote in children(forker.id()) {
            kill(zygote);
        }
    }
    forker.kill().unwrap();
    forker.wait().unwrap();
    let rest = said.map_while(Result::ok).last();
    rest.unwrap_or(under_way).parse().unwrap()
}

#[tokio::test]
async fn a_sandbox_whose_devices_were_removed_inside_lives_on() {
    let state = State::new();
    let (provider, parent) = state.sandbox().await;
    assert_eq!(
        root(&parent, "echo kept >/srv/note; rm /dev/null").await,
        ""
    );
    let copy = fork(&provider, &parent).await;
    assert!(state.has_rotated(&parent, 1));
    assert_eq!(
        root(&parent, "cat /srv/note; ls /dev/null 2>&1 | wc -l").await,
        "kept\n1"
    );
    assert_eq!(
        root(&copy, "cat /srv/note; ls -l /dev/null | wc -l").await,
        "kept\n1"
    );
}
