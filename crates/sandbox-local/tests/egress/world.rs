//! The world of a test program: a network namespace that stands for the internet and has all its addresses, and one
//! behind it for the host, in which the tests run. Nothing leaves either.

use crate::ordinary;
use futures_util::TryStreamExt;
use sandbox_core::{NetworkEvent, NetworkPolicy, prelude::*};
use sandbox_local::{LocalBuilder, LocalProvider};
use serde_json::Value;
use std::{
    env, fs,
    io::Read,
    net::{IpAddr, SocketAddr, TcpStream},
    path::{Path, PathBuf},
    process::Command as Program,
    sync::Arc,
    time::Duration,
};
use tempfile::TempDir;

/// Longer than anything here takes; what it ends has hung.
pub(crate) const DEADLINE: Duration = Duration::from_secs(40);

const SETUP: &str = include_str!("world.sh");
const SERVER: &str = include_str!("world.py");

/// Where the world, and what stands for it on the host, tell what has reached them.
const WORLD: &str = "198.51.100.2:9";
const HOST: &str = "127.0.0.1:9";

/// `program`, on the host behind a world.
pub(crate) fn behind(program: &Program) -> Program {
    assert!(
        rustix::process::geteuid().is_root(),
        "only root makes network namespaces: these tests must be run by it"
    );
    let mut command = Program::new("unshare");
    command.args(["--net", "sh", "-c", SETUP, "sh", SERVER]);
    command.arg(program.get_program()).args(program.get_args());
    let variables = program.get_envs();
    command.envs(variables.filter_map(|(name, value)| Some((name, value?))));
    command
}

/// Everything that has arrived in the world so far, a line each: `ADDRESS PORT` for a connection, `? NAME TYPE` for a
/// question, `METHOD HOST PATH` for a request.
pub(crate) fn seen_by_world() -> Vec<String> {
    seen(&told_by(WORLD))
}

/// What has arrived at the host, which nothing may.
pub(crate) fn seen_by_host() -> Vec<String> {
    seen(&told_by(HOST))
}

/// What the world tells.
pub(crate) fn told() -> Value {
    told_by(WORLD)
}

fn told_by(address: &str) -> Value {
    let mut said = String::new();
    let stream = TcpStream::connect(address);
    stream.unwrap().read_to_string(&mut said).unwrap();
    serde_json::from_str(&said).unwrap()
}

fn seen(told: &Value) -> Vec<String> {
    let lines = told["seen"].as_array().unwrap().iter();
    lines
        .map(|line| line.as_str().unwrap().to_owned())
        .collect()
}

/// A builder for which the world's own addresses are the internet, and the world's names are all.
pub(crate) fn builder(state: &Path) -> LocalBuilder {
    let nameserver: SocketAddr = "203.0.113.53:53".parse().unwrap();
    let networks: [(IpAddr, u8); 2] = [
        ([203, 0, 113, 0].into(), 24),
        ("2001:db8::".parse().unwrap(), 64),
    ];
    let builder = LocalProvider::builder().state_dir(state);
    let builder = networks
        .into_iter()
        .fold(builder, |builder, (address, prefix)| {
            builder.open_network(address, prefix, None)
        });
    builder.nameservers([nameserver])
}

/// Where the sandboxes of this program are kept.
fn shared() -> PathBuf {
    if ordinary::is_ordinary() {
        return env::home_dir().unwrap().join("egress");
    }
    Path::new(env!("CARGO_TARGET_TMPDIR")).join("egress")
}

/// A state directory of one test's own.
pub(crate) fn state() -> TempDir {
    let place = shared();
    fs::create_dir_all(&place).unwrap();
    TempDir::with_prefix_in("state-", place).unwrap()
}

/// A sandbox that may reach something.
#[derive(Debug)]
pub(crate) struct Inside {
    pub(crate) sandbox: Arc<dyn Sandbox>,
    pub(crate) provider: LocalProvider,
}

impl Inside {
    pub(crate) async fn new(policy: &str) -> Self {
        let provider = builder(&shared()).build().unwrap();
        Self::of(provider, policy).await
    }

    pub(crate) async fn of(provider: LocalProvider, policy: &str) -> Self {
        let options = CreateOptions::new().network(parsed(policy));
        let sandbox = in_time(provider.create(options)).await.unwrap();
        Self { sandbox, provider }
    }

    /// What a shell script says, on both of its outputs.
    pub(crate) async fn sh(&self, script: &str) -> String {
        said(&self.sandbox, Command::shell(script)).await
    }

    /// What a program in Python says.
    pub(crate) async fn python(&self, code: &str) -> String {
        said(&self.sandbox, python(code)).await
    }

    pub(crate) async fn set(&self, policy: &str, existing: sandbox_core::Existing) {
        let network = self.sandbox.network().unwrap();
        let set = network.set_policy(parsed(policy), existing);
        in_time(set).await.unwrap();
    }

    /// What it has reached for so far.
    pub(crate) async fn events(&self) -> Vec<NetworkEvent> {
        let network = self.sandbox.network().unwrap();
        let events = network.events(false).await.unwrap();
        in_time(events.try_collect()).await.unwrap()
    }

    /// Waits for an event.
    pub(crate) async fn until_told(
        &self,
        what: &str,
        fits: impl Fn(&NetworkEvent) -> bool + Sync + Send,
    ) -> NetworkEvent {
        let network = self.sandbox.network().unwrap();
        let mut events = network.events(true).await.unwrap();
        let found = async {
            loop {
                let event = events.try_next().await.unwrap();
                let event = event.unwrap_or_else(|| panic!("it has ended without: {what}"));
                if fits(&event) {
                    return event;
                }
            }
        };
        let found = tokio::time::timeout(DEADLINE, found).await;
        found.unwrap_or_else(|_| panic!("it was not told: {what}"))
    }
}

/// What a command says, on both of its outputs.
pub(crate) async fn said(sandbox: &Arc<dyn Sandbox>, command: Command) -> String {
    let command = command.merge_stderr().timeout(DEADLINE);
    let output = in_time(sandbox.exec(command)).await.unwrap();
    assert!(
        output.status != ExitStatus::TimedOut,
        "it hangs: {output:?}"
    );
    output.stdout_text().trim().to_owned()
}

pub(crate) fn python(code: &str) -> Command {
    let code = format!("{}\n{code}", include_str!("inside.py"));
    Command::new("python3").args(["-S", "-c", &code])
}

pub(crate) fn parsed(policy: &str) -> NetworkPolicy {
    policy.parse().unwrap()
}

/// Fails if it takes longer than anything should.
pub(crate) async fn in_time<T>(work: impl Future<Output = T>) -> T {
    let ended = tokio::time::timeout(DEADLINE, work).await;
    ended.expect("it hangs")
}
