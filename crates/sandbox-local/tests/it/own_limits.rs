//! What programs are told of the machine: as much as their sandbox may use.

use crate::support::{State, sh};
use sandbox_core::prelude::*;
use std::sync::Arc;

const MIB: u64 = 1024 * 1024;

/// One processor and a half, of which a machine with one shows one.
fn limits() -> Limits {
    Limits::new().memory(768 * MIB).cpus(0.5).processes(64)
}

/// The same sandbox, made for somebody and taken from a pool.
async fn each_way(look: impl AsyncFn(&Arc<dyn Sandbox>)) {
    let state = State::new();
    for pool in [0, 1] {
        let provider = match pool {
            0 => state.provider(),
            size => state.pooled(size).await,
        };
        let options = CreateOptions::new().limits(limits());
        let sandbox = provider.create(options).await.unwrap();
        assert_eq!(provider.pool_status().taken, pool as u64);
        look(&sandbox).await;
    }
}

#[tokio::test]
async fn files_and_processors_are_those_of_the_sandbox() {
    each_way(async |sandbox| {
        assert_eq!(sh(sandbox, "nproc; nproc --all; getconf _NPROCESSORS_ONLN").await, "1\n1\n1\n");
        assert_eq!(sh(sandbox, "grep -c ^processor /proc/cpuinfo; grep -c ^cpu[0-9] /proc/stat").await, "1\n1\n");
        assert_eq!(sh(sandbox, "sed -n 's/  */ /g; 1,3p' /proc/meminfo").await, "MemTotal: 786432 kB\nMemFree: 786432 kB\nMemAvailable: 786432 kB\n");
        assert_eq!(sh(sandbox, "cat /proc/loadavg").await, "0.00 0.00 0.00 1/1 1\n");
        let files = "cd /sys/fs/cgroup; cat memory.max cpu.max pids.max memory/memory.limit_in_bytes cpu/cpu.cfs_quota_us";
        let expected = "805306368\n50000 100000\n64\n805306368\n50000\n";
        assert_eq!(sh(sandbox, files).await, expected);
        // Processes still know how old they are.
        assert_eq!(sh(sandbox, "ps -o etimes= -p $$ | tr -d ' '").await.trim().parse::<u32>().unwrap_or(u32::MAX) / 60, 0);
    })
    .await;
}

#[tokio::test]
async fn python_counts_the_processors_of_the_sandbox() {
    each_way(async |sandbox| {
        let count = "import os; print(os.cpu_count(), len(os.sched_getaffinity(0)), \
                     os.sysconf('SC_PHYS_PAGES') > 0)";
        let command = Command::new("python3").args(["-c", count]);
        assert_eq!(
            sandbox.exec(command).await.unwrap().stdout_text(),
            "1 1 True\n"
        );
    })
    .await;
}

#[tokio::test]
async fn nobody_inside_changes_what_is_shown() {
    each_way(async |sandbox| {
        for path in ["/proc/meminfo", "/proc/stat", "/sys/fs/cgroup/memory.max", "/sys/devices/system/cpu/online"] {
            let change = format!("chmod 666 {path}; echo 1 > {path}; rm -f {path}; umount {path}; head -c 1 {path} | wc -c");
            let output = sandbox.exec(Command::shell(change).user("root").merge_stderr()).await.unwrap();
            let text = output.stdout_text();
            assert!(text.ends_with("\n1\n") && text.matches("Read-only file system").count() >= 2, "{path}: {text}");
        }
    })
    .await;
}

#[tokio::test]
async fn without_limits_it_is_the_machine_as_it_is() {
    let state = State::new();
    let builder = sandbox_local::LocalProvider::builder().state_dir(state.path());
    let provider = builder.default_limits(Limits::new()).build().unwrap();
    let sandbox = provider.create(CreateOptions::new()).await.unwrap();
    let processors = std::thread::available_parallelism().unwrap();
    assert_eq!(sh(&sandbox, "nproc").await, format!("{processors}\n"));
    let total = |text: &str| text.lines().next().unwrap().to_owned();
    let host = std::fs::read_to_string("/proc/meminfo").unwrap();
    let words = |text: &str| {
        text.split_whitespace()
            .map(str::to_owned)
            .collect::<Vec<_>>()
    };
    assert_eq!(
        words(&total(&sh(&sandbox, "cat /proc/meminfo").await)),
        words(&total(&host))
    );
    assert_eq!(
        sh(
            &sandbox,
            "cat /sys/fs/cgroup/memory.max /sys/fs/cgroup/cpu.max"
        )
        .await,
        "max\nmax 100000\n"
    );
}
