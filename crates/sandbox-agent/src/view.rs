//! What programs in a sandbox are told of the machine: as much of it as the sandbox may use.
//!
//! Files are shown in the place of some of `/proc`, and as a small `/sys`. They stand still: they are written when the
//! sandbox begins. No wall stands on them; the limits do.

use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::{self, Read as _, Write as _};
use std::os::fd::{AsFd as _, OwnedFd};

use sandbox_agent::protocol::Limits;

use crate::sys::{affinity, file};

/// Files of `/proc` in whose place others are shown.
pub(crate) const PROC: [&str; 4] = ["cpuinfo", "loadavg", "meminfo", "stat"];

/// Directories of the files, those above first.
const DIRECTORIES: [&str; 10] = [
    "proc",
    "sys",
    "sys/devices",
    "sys/devices/system",
    "sys/devices/system/cpu",
    "sys/fs",
    "sys/fs/cgroup",
    "sys/fs/cgroup/cpu",
    "sys/fs/cgroup/memory",
    "sys/fs/cgroup/pids",
];

/// Most of a file of `/proc` that is looked at, in bytes.
const LONGEST: u64 = 4 * 1024 * 1024;

/// Period over which processor time is shared out, in microseconds.
const PERIOD: u64 = 100_000;

/// How version 1 of cgroups writes that there is no limit on memory.
const NO_LIMIT: u64 = 0x7fff_ffff_ffff_f000;

/// The machine as the zygote found it. It is read once: some machines take milliseconds to say how fast they are.
#[derive(Debug)]
pub(crate) struct Machine {
    /// A part of `/proc/cpuinfo` for each processor, and what follows them.
    processors: Vec<String>,
    memory: u64,
    /// The line of `/proc/stat` that says when the machine was started: processes count their age from then.
    started: String,
}

impl Machine {
    /// Reads it from `proc_fs`.
    pub(crate) fn read(proc_fs: &str) -> io::Result<Self> {
        let read = |name: &str| -> io::Result<String> {
            let mut bytes = Vec::new();
            let file = File::open(format!("{proc_fs}/{name}"))?;
            file.take(LONGEST).read_to_end(&mut bytes)?;
            Ok(String::from_utf8_lossy(&bytes).into_owned())
        };
        let (cpuinfo, stat) = (read("cpuinfo")?, read("stat")?);
        let meminfo = read("meminfo")?;
        let total = meminfo
            .lines()
            .find_map(|line| line.strip_prefix("MemTotal:"));
        let total = total.and_then(|text| text.split_whitespace().next()?.parse::<u64>().ok());
        let started = stat.lines().find(|line| line.starts_with("btime "));
        Ok(Self {
            processors: cpuinfo.split_inclusive("\n\n").map(str::to_owned).collect(),
            memory: total.unwrap_or_default() * 1024,
            started: started.unwrap_or("btime 0").to_owned(),
        })
    }

    /// Room that the files take, in bytes.
    pub(crate) fn room(&self) -> u64 {
        let processors: usize = self.processors.iter().map(String::len).sum();
        // Each file takes whole pages.
        (processors as u64).next_multiple_of(4096) + 64 * 4096
    }
}

/// The files of one sandbox, which nobody inside can write.
#[derive(Debug)]
pub(crate) struct View {
    /// The only way to write them: `proc` and `sys` are in it.
    directory: OwnedFd,
}

impl View {
    /// The files in `directory`, which are there already, and empty.
    pub(crate) fn new(directory: OwnedFd) -> Self {
        Self { directory }
    }

    /// Writes what sandboxes of these `limits` are told.
    pub(crate) fn show(self, machine: &Machine, limits: &Limits) -> io::Result<()> {
        for (path, text) in files(machine, limits)? {
            let path = std::ffi::CString::new(path)?;
            let flags = libc::O_WRONLY | libc::O_TRUNC | libc::O_NOFOLLOW;
            let file = file::open(self.directory.as_fd(), &path, flags, 0, 0)?;
            File::from(file).write_all(text.as_bytes())?;
        }
        Ok(())
    }
}

/// Makes the files in the working directory; where the `limits` are not known yet, empty.
pub(crate) fn make(machine: &Machine, limits: Option<&Limits>) -> io::Result<()> {
    use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
    for name in DIRECTORIES {
        fs::DirBuilder::new().mode(0o555).create(name)?;
    }
    let unknown = Limits {
        memory: 0,
        cpu_millis: 0,
        processes: 0,
    };
    for (path, text) in files(machine, limits.unwrap_or(&unknown))? {
        // Where PID 1 has no capabilities it writes them as their owner. Elsewhere they are mounted read-only.
        let mut options = File::options();
        let mut file = options
            .write(true)
            .create_new(true)
            .mode(0o644)
            .open(path)?;
        if limits.is_some() {
            file.write_all(text.as_bytes())?;
        }
    }
    Ok(())
}

/// The files with their texts.
fn files(
    machine: &Machine,
    limits: &Limits,
) -> io::Result<impl Iterator<Item = (&'static str, String)>> {
    let count = count(affinity::processors()?.len(), limits);
    let memory = match limits.memory {
        0 => machine.memory,
        bytes => bytes.min(machine.memory),
    };
    let of_proc = proc_files(machine, count, memory);
    Ok(of_proc.into_iter().chain(sys_files(count, limits)))
}

/// How many of the `usable` processors are shown.
fn count(usable: usize, limits: &Limits) -> usize {
    match limits.cpu_millis.div_ceil(1000) as usize {
        0 => usable,
        wanted => wanted.min(usable),
    }
}

/// The processors that a sandbox is put on; none if it may run on all.
#[derive(Debug)]
pub(crate) struct Processors {
    chosen: Option<Vec<usize>>,
}

impl Processors {
    /// Chooses as many as sandboxes of these `limits` are shown.
    pub(crate) fn choose(limits: &Limits) -> io::Result<Self> {
        let usable = affinity::processors()?;
        let chosen = choose(&usable, count(usable.len(), limits));
        Ok(Self { chosen })
    }

    /// Puts the process `pid`, 0 for this one, on them.
    pub(crate) fn take(&self, pid: u32) -> io::Result<()> {
        match &self.chosen {
            Some(chosen) => affinity::run_on(pid, chosen),
            None => Ok(()),
        }
    }
}

/// So many neighbours of the usable processors, beginning anywhere, so that sandboxes do not share the same ones.
fn choose(usable: &[usize], count: usize) -> Option<Vec<usize>> {
    if count >= usable.len() || count == 0 {
        return None;
    }
    let start = usize::from(affinity::anywhere());
    let chosen = usable.iter().cycle().skip(start % usable.len());
    Some(chosen.take(count).copied().collect())
}

fn proc_files(machine: &Machine, count: usize, memory: u64) -> [(&'static str, String); 4] {
    let kib = memory / 1024;
    let mut meminfo = String::new();
    for (name, value) in [("MemTotal", kib), ("MemFree", kib), ("MemAvailable", kib)]
        .into_iter()
        .chain(
            [
                "Buffers",
                "Cached",
                "SwapCached",
                "Active",
                "Inactive",
                "SwapTotal",
                "SwapFree",
                "Dirty",
                "Writeback",
                "AnonPages",
                "Mapped",
                "Shmem",
                "Slab",
                "SReclaimable",
                "SUnreclaim",
            ]
            .map(|name| (name, 0)),
        )
    {
        let _ = writeln!(meminfo, "{:<16}{value:>8} kB", format!("{name}:"));
    }
    let mut stat = String::from("cpu  0 0 0 1 0 0 0 0 0 0\n");
    for number in 0..count {
        let _ = writeln!(stat, "cpu{number} 0 0 0 1 0 0 0 0 0 0");
    }
    let _ = write!(
        stat,
        "intr 0\nctxt 0\n{}\nprocesses 1\nprocs_running 1\nprocs_blocked 0\n",
        machine.started
    );
    [
        (
            "proc/cpuinfo",
            machine
                .processors
                .iter()
                .take(count)
                .map(String::as_str)
                .collect(),
        ),
        ("proc/loadavg", "0.00 0.00 0.00 1/1 1\n".to_owned()),
        ("proc/meminfo", meminfo),
        ("proc/stat", stat),
    ]
}

fn sys_files(count: usize, limits: &Limits) -> [(&'static str, String); 11] {
    let processors = match count {
        0 | 1 => "0\n".to_owned(),
        count => format!("0-{}\n", count - 1),
    };
    let or_max = |limit: u64| match limit {
        0 => "max\n".to_owned(),
        limit => format!("{limit}\n"),
    };
    let quota = limits.cpu_millis.saturating_mul(PERIOD) / 1000;
    let quota_v1 = if quota == 0 {
        "-1\n".to_owned()
    } else {
        format!("{quota}\n")
    };
    let memory_v1 = if limits.memory == 0 {
        NO_LIMIT
    } else {
        limits.memory
    };
    [
        ("sys/devices/system/cpu/online", processors.clone()),
        ("sys/devices/system/cpu/possible", processors.clone()),
        ("sys/devices/system/cpu/present", processors),
        (
            "sys/fs/cgroup/cgroup.controllers",
            "cpu memory pids\n".to_owned(),
        ),
        (
            "sys/fs/cgroup/cpu.max",
            format!("{} {PERIOD}\n", or_max(quota).trim_end()),
        ),
        ("sys/fs/cgroup/memory.max", or_max(limits.memory)),
        ("sys/fs/cgroup/pids.max", or_max(limits.processes)),
        ("sys/fs/cgroup/cpu/cpu.cfs_period_us", format!("{PERIOD}\n")),
        ("sys/fs/cgroup/cpu/cpu.cfs_quota_us", quota_v1),
        (
            "sys/fs/cgroup/memory/memory.limit_in_bytes",
            format!("{memory_v1}\n"),
        ),
        ("sys/fs/cgroup/pids/pids.max", or_max(limits.processes)),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn machine() -> Machine {
        Machine {
            processors: (0..4)
                .map(|number| format!("processor\t: {number}\n\n"))
                .collect(),
            memory: 8 << 30,
            started: "btime 1700000000".to_owned(),
        }
    }

    #[test]
    fn files_show_the_limits() {
        let [cpuinfo, _, meminfo, stat] = proc_files(&machine(), 2, 512 << 20).map(|file| file.1);
        assert_eq!(cpuinfo, "processor\t: 0\n\nprocessor\t: 1\n\n");
        assert!(meminfo.starts_with("MemTotal:         524288 kB\nMemFree:          524288 kB\n"));
        assert_eq!(
            stat.lines().filter(|line| line.starts_with("cpu")).count(),
            3
        );
        assert!(stat.contains("\nbtime 1700000000\n"));
        let limits = Limits {
            memory: 512 << 20,
            cpu_millis: 1500,
            processes: 64,
        };
        let files = sys_files(2, &limits);
        let text = |name: &str| files.iter().find(|file| file.0 == name).unwrap().1.as_str();
        assert_eq!(text("sys/devices/system/cpu/online"), "0-1\n");
        assert_eq!(text("sys/fs/cgroup/cpu.max"), "150000 100000\n");
        assert_eq!(text("sys/fs/cgroup/memory.max"), "536870912\n");
        assert_eq!(text("sys/fs/cgroup/cpu/cpu.cfs_quota_us"), "150000\n");
        assert_eq!(text("sys/fs/cgroup/pids.max"), "64\n");
        let none = sys_files(
            1,
            &Limits {
                memory: 0,
                cpu_millis: 0,
                processes: 0,
            },
        );
        assert_eq!(none[0].1, "0\n");
        assert_eq!(none[4].1, "max 100000\n");
        assert_eq!(none[5].1, "max\n");
    }

    #[test]
    fn processors_are_chosen_among_the_usable_ones() {
        let usable = [1, 3, 5, 7];
        for count in 1..4 {
            let mut chosen = choose(&usable, count).unwrap();
            chosen.sort_unstable();
            chosen.dedup();
            assert_eq!(chosen.len(), count);
            assert!(chosen.iter().all(|number| usable.contains(number)));
        }
        assert_eq!(choose(&usable, 4), None);
    }

    #[test]
    fn this_machine_can_be_read() {
        let machine = Machine::read("/proc").unwrap();
        assert!(machine.memory > 1 << 20 && !machine.processors.is_empty());
        assert!(machine.started.len() > "btime 0".len());
    }
}
