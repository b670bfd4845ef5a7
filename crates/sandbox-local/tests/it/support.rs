//! What the tests share: a provider with its own state, and the traces that sandboxes leave on the machine.

use crate::{alone, ordinary};
use sandbox_core::{Enforcement, prelude::*};
use sandbox_local::LocalProvider;
use std::{
    collections::{BTreeMap, BTreeSet},
    env, fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process,
    sync::{Arc, OnceLock},
    thread,
    time::{Duration, Instant},
};
use tempfile::TempDir;

/// How names of states begin.
const PREFIX: &[u8] = b"sandbox-it-";

/// A state directory that is removed at the end of the test.
pub(crate) struct State {
    directory: TempDir,
}

impl Drop for State {
    /// Removes what belongs to subordinate ids, by a process that has them.
    fn drop(&mut self) {
        if !ordinary::is_ordinary() || alone::is_alone() {
            return;
        }
        let directories = ["templates", "snapshots", "volumes"].map(|name| self.path().join(name));
        let own = directories
            .iter()
            .filter(|path| path.is_dir() && !path.is_symlink());
        let own: Vec<_> = own.collect();
        if !own.is_empty() {
            let mut rm = process::Command::new("unshare");
            rm.args(["--map-root-user", "--map-auto", "rm", "-rf"]);
            let removed = rm.args(own).status().unwrap().success();
            assert!(removed || thread::panicking());
        }
    }
}

impl State {
    /// A state of its own but for the template, which all tests share.
    pub(crate) fn new() -> Self {
        Self::on(&env::temp_dir())
    }

    /// As [`Self::new`], below `place`.
    pub(crate) fn on(place: &Path) -> Self {
        let state = Self::below(place);
        let shared = if ordinary::is_ordinary() {
            env::home_dir().unwrap()
        } else {
            env!("CARGO_TARGET_TMPDIR").into()
        };
        let templates = shared.join("templates");
        fs::create_dir_all(&templates).unwrap();
        symlink(templates, state.path().join("templates")).unwrap();
        state
    }

    /// A state for which the template is made anew.
    pub(crate) fn without_template() -> Self {
        Self::below(&env::temp_dir())
    }

    fn below(place: &Path) -> Self {
        let prefix = str::from_utf8(PREFIX).unwrap();
        Self {
            directory: TempDir::with_prefix_in(prefix, place).unwrap(),
        }
    }

    pub(crate) fn path(&self) -> &Path {
        self.directory.path()
    }

    /// Whether this machine can limit the disk of a sandbox.
    pub(crate) fn has_disks(&self) -> bool {
        static HAS_DISKS: OnceLock<bool> = OnceLock::new();
        *HAS_DISKS.get_or_init(|| {
            let options = CreateOptions::new().limits(Limits::new().disk(16 << 20));
            let report = self.provider().enforcement(&options);
            report.wall("disk").unwrap().enforcement == Enforcement::Enforced
        })
    }

    pub(crate) fn provider(&self) -> LocalProvider {
        LocalProvider::builder()
            .state_dir(self.path())
            .build()
            .unwrap()
    }

    /// A provider whose pool is full.
    pub(crate) async fn pooled(&self, size: usize) -> LocalProvider {
        let builder = LocalProvider::builder().state_dir(self.path()).pool(size);
        let provider = builder.build().unwrap();
        until("the pool is full", || provider.pool_status().ready == size).await;
        provider
    }

    /// Names of all records.
    pub(crate) fn records(&self) -> BTreeSet<String> {
        let entries = fs::read_dir(self.path().join("sandboxes")).unwrap();
        entries
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect()
    }

    pub(crate) async fn sandbox(&self) -> (LocalProvider, Arc<dyn Sandbox>) {
        let provider = self.provider();
        let sandbox = provider.create(CreateOptions::new()).await.unwrap();
        (provider, sandbox)
    }

    /// Everything on this machine that exists because of the sandbox `id`.
    pub(crate) fn traces(&self, id: &str) -> BTreeSet<String> {
        let mut traces = BTreeSet::new();
        let record = self
            .path()
            .canonicalize()
            .unwrap()
            .join("sandboxes")
            .join(id);
        if record.exists() {
            traces.insert(format!("directory {}", record.display()));
        }
        traces.extend(
            groups(Path::new("/sys/fs/cgroup"), id, 6)
                .into_iter()
                .map(|path| format!("cgroup {}", path.display())),
        );
        let ranges = fs::read_dir("/run/sandbox/ranges")
            .into_iter()
            .flatten()
            .flatten();
        let held =
            |range: &fs::DirEntry| fs::read_link(range.path()).is_ok_and(|holder| holder == record);
        for range in ranges.filter(held) {
            traces.insert(format!("range {}", range.path().display()));
        }
        traces.extend(
            processes()
                .into_iter()
                .filter(|(_, of)| of == id)
                .map(|(pid, _)| format!("process {pid}")),
        );
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
        traces.extend(
            mounts
                .lines()
                .filter(|line| line.contains(id))
                .map(|line| format!("mount {line}")),
        );
        traces
    }
}

fn groups(directory: &Path, id: &str, depth: u32) -> Vec<PathBuf> {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    let directories = entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
    directories
        .flat_map(|entry| {
            let found = (entry.file_name() == id).then(|| entry.path());
            let below = if depth > 0 {
                groups(&entry.path(), id, depth - 1)
            } else {
                Vec::new()
            };
            found.into_iter().chain(below)
        })
        .collect()
}

/// Processes of sandboxes and the ids of these, told by their cgroups; an ordinary user's by their parents.
pub(crate) fn processes() -> Vec<(u32, String)> {
    let inits = ordinary::is_ordinary().then(inits);
    let pids = fs::read_dir("/proc")
        .unwrap()
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    pids.filter_map(|pid| {
        if let Some(inits) = &inits {
            let mut ancestors = std::iter::successors(Some(pid), |pid| parent(*pid));
            return Some((pid, ancestors.find_map(|pid| inits.get(&pid))?.clone()));
        }
        let groups = fs::read_to_string(format!("/proc/{pid}/cgroup")).ok()?;
        let group = groups
            .lines()
            .find_map(|line| line.split_once("/sandbox/"))?
            .1;
        Some((pid, group.split('/').next()?.to_owned()))
    })
    .collect()
}

/// First processes of sandboxes in all states of these tests, as the records say, and the ids of the sandboxes.
fn inits() -> BTreeMap<u32, String> {
    let below = |path: PathBuf| fs::read_dir(path).into_iter().flatten().flatten();
    let states = below(env::temp_dir());
    let states = states.filter(|entry| entry.file_name().as_encoded_bytes().starts_with(PREFIX));
    let records = states.flat_map(|state| below(state.path().join("sandboxes")));
    let init = |record: fs::DirEntry| {
        let text = fs::read_to_string(record.path().join("init")).ok()?;
        let pid = text.split(' ').next()?.parse().ok()?;
        Some((pid, record.file_name().into_string().ok()?))
    };
    records.filter_map(init).collect()
}

/// The namespaces that processes of the sandboxes `ids` are in and we are not.
pub(crate) fn namespaces(ids: &BTreeSet<String>) -> BTreeSet<String> {
    let own = namespaces_of("self");
    let processes = processes().into_iter().filter(|(_, of)| ids.contains(of));
    let theirs = processes.flat_map(|(pid, _)| namespaces_of(&pid.to_string()));
    theirs
        .filter(|namespace| !own.contains(namespace))
        .collect()
}

fn namespaces_of(pid: &str) -> BTreeSet<String> {
    links(&format!("/proc/{pid}/ns"))
}

/// Which of `namespaces` are still held by what could be left of this test's sandboxes: us, what we have started, and
/// what nobody looks after. The kernel uses the numbers again, so others may well have namespaces of the same.
pub(crate) fn holders(namespaces: &BTreeSet<String>) -> Vec<String> {
    let others: BTreeSet<u32> = processes().into_iter().map(|(pid, _)| pid).collect();
    let pids = fs::read_dir("/proc").unwrap().flatten();
    let pids = pids.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    let suspects = pids.filter(|pid| !others.contains(pid) && is_ours_or_nobodys(*pid));
    suspects
        .flat_map(|pid| {
            let held = ["ns", "fd"].map(|kind| links(&format!("/proc/{pid}/{kind}")));
            let held = held.into_iter().flatten();
            let held = held.filter(|link| namespaces.contains(link));
            held.map(move |namespace| format!("{pid} holds {namespace}"))
                .collect::<Vec<_>>()
        })
        .collect()
}

fn is_ours_or_nobodys(pid: u32) -> bool {
    let mut ancestors = std::iter::successors(Some(pid), |pid| parent(*pid));
    parent(pid) == Some(1) || ancestors.any(|pid| pid == std::process::id())
}

/// The parent of a process that is there.
pub(crate) fn parent(pid: u32) -> Option<u32> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit_once(") ")?.1.split(' ').nth(1)?.parse().ok()
}

fn links(directory: &str) -> BTreeSet<String> {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    let targets = entries.filter_map(|entry| fs::read_link(entry.path()).ok());
    targets
        .filter_map(|target| target.into_os_string().into_string().ok())
        .collect()
}

/// Waits for a fact, at most half a minute.
pub(crate) async fn until(what: &str, mut fact: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(30);
    while !fact() {
        assert!(Instant::now() < deadline, "still not so: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Runs a script and returns what it printed.
pub(crate) async fn sh(sandbox: &Arc<dyn Sandbox>, script: &str) -> String {
    let output = sandbox
        .exec(Command::shell(script).merge_stderr())
        .await
        .unwrap();
    output.stdout_text()
}

/// Where cargo puts an example that belongs to this test.
pub(crate) fn example(name: &str) -> PathBuf {
    let test = std::env::current_exe().unwrap();
    test.parent()
        .unwrap()
        .parent()
        .unwrap()
        .join("examples")
        .join(name)
}
