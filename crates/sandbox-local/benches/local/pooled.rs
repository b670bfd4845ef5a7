//! Creations from a pool, spaced as those of a quiet machine are, beside tools that make a container for one command.
//!
//! One after the other in a loop they would share what the kernel waits for; with a pause before each they do not.

use crate::{
    measure::{Aim, Row, Times},
    rows::{BWRAP, docker_image, is_there, run},
};
use anyhow::{Context, Result, ensure};
use sandbox_core::prelude::*;
use sandbox_local::LocalProvider;
use serde_json::json;
use std::{
    fs,
    os::unix::fs::symlink,
    path::Path,
    process::Stdio,
    time::{Duration, Instant},
};
use tempfile::TempDir;
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines},
    process::{Child, ChildStdin, ChildStdout, Command as Program},
};

const WHAT: &str = "create + true, limits, pool, spaced";
const SPACE: Duration = Duration::from_millis(150);
const POOL: usize = 8;
const MEMORY: u64 = 512 * 1024 * 1024;
const PROCESSES: u64 = 128;

/// Takes the rows, and says how the pool did.
pub(crate) async fn rows(state: &Path, n: usize) -> Result<(Vec<Row>, String)> {
    let builder = LocalProvider::builder().state_dir(state);
    let (provider, without) = (builder.clone().pool(POOL).build()?, builder.build()?);
    while provider.pool_status().ready < POOL {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let mut crun = Crun::start().await;
    let bwrap = is_there("bwrap", BWRAP).await;
    let docker = is_there("docker", &["info"]).await;
    let image = if docker { docker_image().await? } else { "" };
    let [mut ours, mut cold, mut of_bwrap, mut of_crun, mut of_docker] =
        [(); 5].map(|()| Times::default());
    for turn in 0..n {
        spaced(&mut ours, create(&provider)).await?.kill().await?;
        spaced(&mut cold, create(&without)).await?.kill().await?;
        if bwrap {
            spaced(&mut of_bwrap, run("bwrap", BWRAP)).await?;
        }
        if let Ok(crun) = &mut crun {
            spaced(&mut of_crun, crun.run()).await?;
        }
        if docker && turn < 30 {
            let limits = ["--memory=512m", "--cpus=1", "--pids-limit=128"];
            let args = [
                &["run", "--rm", "--network", "none"],
                &limits[..],
                &[image, "/bin/true"],
            ];
            spaced(&mut of_docker, run("docker", &args.concat())).await?;
        }
    }
    let status = provider.pool_status();
    let note = format!(
        "the pool of {POOL} had {} of {n} creations ready and missed {}; without it they took {cold}",
        status.taken, status.missed
    );
    let there = |is: bool, times, why: &str| is.then_some(times).ok_or_else(|| why.to_owned());
    let crun = crun.map(|_| of_crun).map_err(|error| format!("{error:#}"));
    let peers = [
        (
            "bwrap (no limits)",
            there(bwrap, of_bwrap, "bwrap does not run here"),
            2.0,
        ),
        ("crun run", crun, 4.0),
        (
            "docker run",
            there(docker, of_docker, "no docker engine answers here"),
            100.0,
        ),
    ];
    let rows = peers.map(|(against, theirs, faster)| Row {
        what: WHAT,
        against,
        ours: ours.clone(),
        theirs,
        aim: Aim::Faster(faster),
    });
    Ok((rows.into(), note))
}

/// Waits, and times one call.
async fn spaced<T>(times: &mut Times, call: impl Future<Output = Result<T>>) -> Result<T> {
    tokio::time::sleep(SPACE).await;
    let start = Instant::now();
    let result = call.await;
    times.since(start);
    result
}

async fn create(provider: &LocalProvider) -> Result<std::sync::Arc<dyn Sandbox>> {
    let limits = Limits::new().memory(MEMORY).cpus(1.0).processes(PROCESSES);
    let sandbox = provider.create(CreateOptions::new().limits(limits)).await?;
    let output = sandbox.exec(Command::new("true")).await?;
    ensure!(output.status.success(), "true failed");
    Ok(sandbox)
}

/// A shell that runs containers when it is told to.
///
/// It sees no cgroup2 hierarchy beside version 1, because crun refuses to work where both are mounted.
struct Crun {
    _shell: Child,
    orders: ChildStdin,
    answers: Lines<BufReader<ChildStdout>>,
    _bundle: TempDir,
}

impl Crun {
    async fn start() -> Result<Self> {
        ensure!(
            is_there("crun", &["--version"]).await,
            "crun does not run here"
        );
        let bundle = bundle()?;
        let script = "umount /sys/fs/cgroup/unified 2>/dev/null
            while read -r name; do crun run --bundle \"$0\" \"$name\"; echo $?; done";
        let mut shell = Program::new("unshare")
            .args(["--mount", "sh", "-c", script])
            .arg(bundle.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .context("start unshare")?;
        let orders = shell.stdin.take().context("a pipe was asked for")?;
        let answers = shell.stdout.take().context("a pipe was asked for")?;
        let mut crun = Self {
            _shell: shell,
            orders,
            answers: BufReader::new(answers).lines(),
            _bundle: bundle,
        };
        crun.run().await?;
        Ok(crun)
    }

    async fn run(&mut self) -> Result<()> {
        let name = format!("sandbox-bench-{}\n", std::process::id());
        self.orders.write_all(name.as_bytes()).await?;
        let answer = self.answers.next_line().await?;
        ensure!(answer.as_deref() == Some("0"), "crun run fails here");
        Ok(())
    }
}

/// A container with the machine's own programs, and the same limits as our sandbox has.
fn bundle() -> Result<TempDir> {
    let bundle = TempDir::with_prefix("sandbox-bench-crun-")?;
    let root = bundle.path().join("rootfs");
    for name in ["usr", "proc", "dev", "sys", "tmp"] {
        fs::create_dir_all(root.join(name))?;
    }
    for name in ["bin", "sbin", "lib", "lib64"] {
        symlink(Path::new("usr").join(name), root.join(name))?;
    }
    let namespaces = ["pid", "ipc", "uts", "mount", "network"].map(|kind| json!({ "type": kind }));
    let config = json!({
        "ociVersion": "1.0.0",
        "process": {
            "user": { "uid": 0, "gid": 0 },
            "args": ["/usr/bin/true"],
            "env": ["PATH=/usr/bin:/bin"],
            "cwd": "/",
            "noNewPrivileges": true,
        },
        "root": { "path": "rootfs", "readonly": true },
        "mounts": [
            { "destination": "/usr", "type": "none", "source": "/usr", "options": ["rbind", "ro"] },
            { "destination": "/proc", "type": "proc", "source": "proc" },
            { "destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "mode=755"] },
        ],
        "linux": {
            "namespaces": namespaces,
            "resources": {
                "memory": { "limit": MEMORY },
                "pids": { "limit": PROCESSES },
                "cpu": { "quota": 100_000, "period": 100_000 },
            },
        },
    });
    fs::write(bundle.path().join("config.json"), config.to_string())?;
    Ok(bundle)
}
