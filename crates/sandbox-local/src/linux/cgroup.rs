//! Control groups: limits by version 1 or 2, and one version 2 group a sandbox by which its commands are told apart.
//!
//! Where version 1 controllers are mounted they carry the limits, in a group below our own. A version 2 hierarchy
//! carries the limits if it has the controllers, and else serves for killing whole trees of processes only.

use super::host::{Hierarchy, Host};
use rustix::io::Errno;
use sandbox_core::Limits;
use serde::{Deserialize, Serialize};
use std::{
    fs, io,
    path::{Component, Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

/// Period over which processor time is shared out, in microseconds.
const CPU_PERIOD: u64 = 100_000;
const NAME: &str = "sandbox";
/// What a sandbox needs beside the caller's processes: PID 1, the process that waits for the next command, and some
/// that work on files.
const OWN_PROCESSES: u64 = 8;
/// Most processes of a machine, and the highest limit that the kernel takes.
const MOST_PROCESSES: u64 = 4_194_304;

/// Where the limits of a sandbox are set.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Groups {
    /// Version 1 groups, into which PID 1 is moved.
    pub(crate) v1: Vec<PathBuf>,
    /// Version 2 group, in which PID 1 is born.
    pub(crate) v2: Option<PathBuf>,
}

/// A file and what to write into it.
type Setting = (&'static str, String);

impl Groups {
    /// The groups of a sandbox called `id`. Makes nothing.
    pub(crate) fn of(host: &Host, id: &str, limits: &Limits) -> Self {
        let below = |hierarchy: &Hierarchy| hierarchy.path.join(NAME).join(id);
        let v1 = |hierarchy: &Option<Hierarchy>, wanted: bool| {
            hierarchy.as_ref().filter(|_| wanted).map(below)
        };
        let mut groups: Vec<_> = [
            v1(&host.v1_memory, limits.memory.is_some()),
            v1(&host.v1_cpu, limits.cpus.is_some()),
            v1(&host.v1_pids, limits.processes.is_some()),
        ]
        .into_iter()
        .flatten()
        .collect();
        groups.dedup();
        Self {
            v1: groups,
            v2: host.v2.as_ref().map(below),
        }
    }

    /// Makes the groups and sets the limits.
    pub(crate) fn make(&self, host: &Host, limits: &Limits) -> io::Result<()> {
        for group in &self.v1 {
            fs::create_dir_all(group).map_err(|error| named(error, group))?;
        }
        if let Some(group) = &self.v2 {
            make_v2(host, group)?;
        }
        self.limit(host, limits)
    }

    /// Sets those of the limits that there are, in groups that were made for them.
    pub(crate) fn limit(&self, host: &Host, limits: &Limits) -> io::Result<()> {
        let v2 = host.v2.as_ref().zip(self.v2.as_ref());
        if let Some(bytes) = limits.memory {
            self.set(
                host.v1_memory.as_ref(),
                v2,
                &memory_v1(bytes),
                &memory_v2(bytes),
            )?;
        }
        if let Some(cpus) = limits.cpus {
            self.set(host.v1_cpu.as_ref(), v2, &cpu_v1(cpus), &cpu_v2(cpus))?;
        }
        if let Some(processes) = limits.processes.filter(|_| host.has_pids()) {
            let max = [("pids.max", pids_max(processes).to_string())];
            self.set(host.v1_pids.as_ref(), v2, &max, &max)?;
        }
        Ok(())
    }

    fn set(
        &self,
        v1: Option<&Hierarchy>,
        v2: Option<(&Hierarchy, &PathBuf)>,
        v1_settings: &[Setting],
        v2_settings: &[Setting],
    ) -> io::Result<()> {
        let (group, settings) = match (v1, v2) {
            (Some(hierarchy), _) => (
                self.v1
                    .iter()
                    .find(|group| group.starts_with(&hierarchy.path)),
                v1_settings,
            ),
            (None, Some((_, group))) => (Some(group), v2_settings),
            (None, None) => (None, v1_settings),
        };
        let group =
            group.ok_or_else(|| io::Error::other("no cgroup controller carries the limit"))?;
        for (index, (file, value)) in settings.iter().enumerate() {
            let path = group.join(file);
            match fs::write(&path, value) {
                // Swap is accounted only on some kernels; the first setting is the limit itself.
                Err(error) if index > 0 && error.kind() == io::ErrorKind::NotFound => {}
                result => result.map_err(|error| named(error, &path))?,
            }
        }
        Ok(())
    }

    /// Moves PID 1 into the version 1 groups; all that it starts later is born there.
    ///
    /// On a quiet machine the kernel takes some ten milliseconds for such a move.
    pub(crate) fn enter(&self, pid: u32) -> io::Result<()> {
        for group in &self.v1 {
            let path = group.join("cgroup.procs");
            fs::write(&path, pid.to_string()).map_err(|error| named(error, &path))?;
        }
        Ok(())
    }

    /// The file that counts processes killed for lack of memory.
    pub(crate) fn oom_counter(&self) -> Option<PathBuf> {
        let v1 = self.v1.iter().map(|group| group.join("memory.oom_control"));
        let v2 = self.v2.iter().map(|group| group.join("memory.events"));
        v1.chain(v2).find(|path| path.exists())
    }

    /// Ends what still runs in the groups of the sandbox `id` and removes them. Gives up after some seconds.
    ///
    /// # Errors
    /// `InvalidData`, with nothing touched, for a path that can be no group of this sandbox, whoever wrote it down.
    pub(crate) fn remove(&self, id: &str) -> io::Result<()> {
        let deadline = Instant::now() + Duration::from_secs(10);
        let groups = || self.v2.iter().chain(&self.v1);
        groups().try_for_each(|group| require_group_of(id, group))?;
        for group in groups() {
            while let Err(error) = remove_group(group) {
                if Instant::now() > deadline {
                    return Err(named(error, group));
                }
                kill_group(group)?;
                // What was killed leaves its group when the kernel has come to it; there is nothing to wait on.
                thread::sleep(Duration::from_millis(1));
            }
        }
        Ok(())
    }
}

/// Refuses what is there and is no group that [`Groups::of`] names.
fn require_group_of(id: &str, group: &Path) -> io::Result<()> {
    const FILE_SYSTEMS: [u64; 2] = [0x27_e0eb, 0x6367_7270];
    let is_plain = |component| matches!(component, Component::RootDir | Component::Normal(_));
    let is_named = group.is_absolute()
        && group.components().all(is_plain)
        && group.ends_with(Path::new(NAME).join(id));
    let is_group = is_named
        && match rustix::fs::statfs(group) {
            Ok(system) => FILE_SYSTEMS.contains(&(system.f_type as u64)),
            Err(Errno::NOENT) => true,
            Err(errno) => return Err(named(errno.into(), group)),
        };
    if is_group {
        return Ok(());
    }
    let error = io::Error::new(io::ErrorKind::InvalidData, "is no group of this sandbox");
    Err(named(error, group))
}

/// Makes a version 2 group, and hands its controllers down to it where there are any.
fn make_v2(host: &Host, group: &Path) -> io::Result<()> {
    let hierarchy = host
        .v2
        .as_ref()
        .ok_or_else(|| io::Error::other("no version 2 hierarchy"))?;
    let parent = hierarchy.path.join(NAME);
    fs::create_dir_all(&parent).map_err(|error| named(error, &parent))?;
    for directory in [&hierarchy.path, &parent] {
        hand_down(directory, &hierarchy.controllers)?;
    }
    fs::create_dir(group).map_err(|error| named(error, group))
}

/// Lets groups below this one have controllers; usually they can already.
fn hand_down(group: &Path, controllers: &[String]) -> io::Result<()> {
    if controllers.is_empty() {
        return Ok(());
    }
    let path = group.join("cgroup.subtree_control");
    let is = fs::read_to_string(&path).map_err(|error| named(error, &path))?;
    for controller in controllers {
        if !is.split_whitespace().any(|name| name == controller) {
            fs::write(&path, format!("+{controller}")).map_err(|error| named(error, &path))?;
        }
    }
    Ok(())
}

/// Removes a group with its children, which commands have; it is an error if anything lives there.
fn remove_group(group: &Path) -> io::Result<()> {
    children(group)?.try_for_each(|child| remove_group(&child))?;
    match fs::remove_dir(group) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Kills what is in a group and its children.
fn kill_group(group: &Path) -> io::Result<()> {
    if fs::write(group.join("cgroup.kill"), "1").is_ok() {
        return Ok(());
    }
    kill_members(group);
    children(group)?.try_for_each(|child| kill_group(&child))
}

fn children(group: &Path) -> io::Result<impl Iterator<Item = PathBuf>> {
    let entries = match fs::read_dir(group) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        entries => Some(entries?),
    };
    let entries = entries.into_iter().flatten().flatten();
    let directories = entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
    Ok(directories.map(|entry| entry.path()))
}

fn kill_members(group: &Path) {
    let members = fs::read_to_string(group.join("cgroup.procs")).unwrap_or_default();
    for pid in members
        .lines()
        .filter_map(|line| line.parse().ok())
        .filter_map(rustix::process::Pid::from_raw)
    {
        let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
    }
}

fn memory_v1(bytes: u64) -> [Setting; 3] {
    [
        ("memory.limit_in_bytes", bytes.to_string()),
        ("memory.memsw.limit_in_bytes", bytes.to_string()),
        // What lies in sockets is counted apart, and only if it is limited.
        ("memory.kmem.tcp.limit_in_bytes", (bytes / 4).to_string()),
    ]
}

fn memory_v2(bytes: u64) -> [Setting; 2] {
    [
        ("memory.max", bytes.to_string()),
        ("memory.swap.max", "0".into()),
    ]
}

pub(crate) fn pids_max(processes: u64) -> u64 {
    processes.saturating_add(OWN_PROCESSES).min(MOST_PROCESSES)
}

fn quota(cpus: f64) -> u64 {
    // At least the kernel's smallest quota of one millisecond.
    ((cpus * CPU_PERIOD as f64) as u64).max(1000)
}

fn cpu_v1(cpus: f64) -> [Setting; 2] {
    [
        ("cpu.cfs_period_us", CPU_PERIOD.to_string()),
        ("cpu.cfs_quota_us", quota(cpus).to_string()),
    ]
}

fn cpu_v2(cpus: f64) -> [Setting; 1] {
    [("cpu.max", format!("{} {CPU_PERIOD}", quota(cpus)))]
}

fn named(error: io::Error, path: &Path) -> io::Error {
    io::Error::new(error.kind(), format!("{}: {error}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_names_no_directory_but_its_own_groups() {
        let directory = tempfile::tempdir().unwrap();
        let victim = directory.path().join("sandbox/sid");
        fs::create_dir_all(victim.join("below")).unwrap();
        let gone = directory.path().join("gone/sandbox/sid");
        let refused = |path: PathBuf| {
            let groups = Groups {
                v1: vec![gone.clone(), path],
                v2: None,
            };
            groups.remove("sid").unwrap_err().kind()
        };
        for path in [
            victim.clone(),
            "/sys/fs/cgroup".into(),
            "/sys/fs/cgroup/sandbox/other".into(),
            "/sys/fs/cgroup/other/../sandbox/sid".into(),
            "sandbox/sid".into(),
            "./sandbox/sid".into(),
        ] {
            let kind = refused(path.clone());
            assert_eq!(kind, io::ErrorKind::InvalidData, "{}", path.display());
        }
        assert!(victim.join("below").exists());
        let none = Groups {
            v1: vec![gone],
            v2: None,
        };
        none.remove("sid").unwrap();
    }
}
