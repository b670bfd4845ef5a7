//! For the tests of layers: a fake with a sandbox and a running process, one of each call on them, and what is traced.

use futures_util::TryStreamExt;
use sandbox_core::{
    ConnectOptions, Destination, Existing, GlobOptions, Layer, LayeredProvider, ListFilesOptions,
    ListOptions, NetworkAction, NetworkRule, Position, ProcessControl, ProcessId, Signal,
    SnapshotOptions,
    fake::{FakeProvider, Gate, Script},
    prelude::*,
};
use std::{
    io,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};
use tracing::{Level, subscriber::DefaultGuard};
use tracing_subscriber::fmt::{MakeWriter, format::FmtSpan};

/// A text that must show nowhere.
pub(crate) const SECRET: &str = "s3cr3t";

/// A fake below a layer, with all that calls need.
pub(crate) struct Stage {
    pub(crate) fake: FakeProvider,
    pub(crate) provider: LayeredProvider,
    pub(crate) sandbox: Arc<dyn Sandbox>,
    pub(crate) process: ProcessId,
    control: Arc<dyn ProcessControl>,
}

impl Stage {
    /// Commands answer with their name and return 0, but `wait`, which never ends.
    pub(crate) async fn new(layer: impl Layer) -> Self {
        let fake = FakeProvider::new();
        fake.script(Script::program("wait").gate(&Gate::new()));
        fake.script(Script::any().stdout(SECRET).exit(0));
        fake.serve(80, |_| async {});
        let provider = fake.clone().layer(layer);
        let sandbox = provider.create(CreateOptions::new()).await.unwrap();
        sandbox.files().write_bytes("file", SECRET).await.unwrap();
        let wait = Command::new("wait").stdin(Stdin::Open);
        let pty = sandbox.require_pty().unwrap();
        let process = pty.spawn(wait, Default::default()).await.unwrap();
        Self {
            fake,
            provider,
            sandbox,
            process: process.id().clone(),
            control: process.control(),
        }
    }

    /// Makes the call of this name, with a secret in everything that can hold one, and takes its results to their end.
    pub(crate) async fn call(&self, operation: &str) -> Result<()> {
        let (sandbox, id) = (&self.sandbox, self.sandbox.id());
        match operation {
            "create" => {
                let options = CreateOptions::new().env_var("TOKEN", SECRET);
                self.provider.create(options.label("note", SECRET)).await?;
            }
            "connect" => {
                self.provider.connect(id, ConnectOptions::new()).await?;
            }
            "list" => {
                let options = ListOptions::new();
                let _: Vec<_> = self.provider.list(options).try_collect().await?;
            }
            "kill" => {
                sandbox.kill().await?;
            }
            "info" => {
                sandbox.info().await?;
            }
            "spawn" => {
                let command = Command::shell(SECRET).arg(SECRET).env("TOKEN", SECRET);
                sandbox.exec(command.cwd(SECRET).tag(SECRET)).await?;
            }
            "pty.spawn" => {
                let command = Command::new(SECRET);
                let pty = sandbox.require_pty()?;
                pty.spawn(command, Default::default())
                    .await?
                    .output()
                    .await?;
            }
            "attach.attach" => {
                let attach = sandbox.require_attach()?;
                drop(attach.attach(&self.process, Position::Now).await?);
            }
            "attach.processes" => {
                sandbox.require_attach()?.processes().await?;
            }
            "lifecycle.set_lifetime" => {
                let lifetime = Duration::from_secs(86_400);
                sandbox.require_lifecycle()?.set_lifetime(lifetime).await?;
            }
            "pause.pause" => sandbox.require_pause()?.pause().await?,
            "pause.resume" => sandbox.require_pause()?.resume().await?,
            "snapshots.snapshot" => {
                sandbox
                    .require_snapshots()?
                    .snapshot(SnapshotOptions::new().name("kept"))
                    .await?;
            }
            "ports.connect" => {
                drop(sandbox.require_ports()?.connect(80).await?);
            }
            "previews.url" => {
                sandbox.require_previews()?.url(80).await?;
            }
            "network.policy" => {
                sandbox.require_network()?.policy().await?;
            }
            "network.set_policy" => {
                let named =
                    NetworkRule::new(NetworkAction::Allow, Destination::Domain(SECRET.to_owned()));
                let policy = NetworkPolicy::Rules {
                    rules: vec![named],
                    default: NetworkAction::Deny,
                };
                let network = sandbox.require_network()?;
                network.set_policy(policy, Existing::Keep).await?;
            }
            "network.events" => {
                let events = sandbox.require_network()?.events(false).await?;
                let _: Vec<_> = events.try_collect().await?;
            }
            "metrics.usage" => {
                sandbox.require_metrics()?.usage().await?;
            }
            "templates.list" => {
                let templates = self.provider.templates().unwrap();
                let _: Vec<_> = templates.list().try_collect().await?;
            }
            "templates.remove" => {
                let templates = self.provider.templates().unwrap();
                templates.remove(&"kept".into()).await?;
            }
            "process.write_stdin" => self.control.write_stdin(SECRET.into()).await?,
            "process.close_stdin" => self.control.close_stdin().await?,
            "process.signal" => self.control.signal(Signal::USR1).await?,
            "process.resize" => self.control.resize(Default::default()).await?,
            file => self.file_call(file).await?,
        }
        Ok(())
    }

    async fn file_call(&self, operation: &str) -> Result<()> {
        let (files, file) = (self.sandbox.files(), SandboxPath::new("file")?);
        let secret = SandboxPath::new(SECRET)?;
        match operation {
            "files.read" => drop(files.read_bytes("file").await?),
            "files.write" => files.write_bytes(SECRET, SECRET).await?,
            "files.stat" => drop(files.stat(&file, Default::default()).await?),
            "files.list" => {
                let options = ListFilesOptions::new();
                let home = SandboxPath::new(".")?;
                let _: Vec<_> = files.list(&home, options).try_collect().await?;
            }
            "files.glob" => {
                let home = SandboxPath::new(".")?;
                let found = files.glob(&home, SECRET, GlobOptions::new());
                let _: Vec<_> = found.try_collect().await?;
            }
            "files.mkdir" => {
                let directory = SandboxPath::new(format!("{SECRET}-directory"))?;
                files.mkdir(&directory, Default::default()).await?;
            }
            "files.rename" => files.rename(&file, &secret, Default::default()).await?,
            "files.symlink" => {
                let link = SandboxPath::new(format!("{SECRET}-link"))?;
                files.symlink(&link, &secret, Default::default()).await?;
            }
            "files.remove" => files.remove(&secret, Default::default()).await?,
            "files.set_permissions" => {
                files.set_permissions(&secret, Default::default()).await?;
            }
            other => panic!("the tests do not know how to call {other}"),
        }
        Ok(())
    }
}

/// The calls in an order in which each of them works: what ends something comes last.
pub(crate) fn operations() -> Vec<&'static str> {
    let mut operations = sandbox_core::fake::OPERATIONS.to_vec();
    let late = [
        "files.rename",
        "files.set_permissions",
        "files.remove",
        "kill",
    ];
    operations.sort_by_key(|name| {
        late.iter()
            .position(|late| late == name)
            .map_or(0, |at| at + 1)
    });
    operations
}

/// All that was told, every level and every field.
#[derive(Clone, Default)]
pub(crate) struct Log(Arc<Mutex<Vec<u8>>>);

impl Log {
    pub(crate) fn listen(&self) -> DefaultGuard {
        let subscriber = tracing_subscriber::fmt()
            .with_max_level(Level::TRACE)
            .with_span_events(FmtSpan::FULL)
            .with_ansi(false)
            .without_time()
            .with_writer(self.clone());
        tracing::subscriber::set_default(subscriber.finish())
    }

    pub(crate) fn text(&self) -> String {
        let bytes = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// Lines that hold all of these texts.
    pub(crate) fn count(&self, texts: &[&str]) -> usize {
        let holds = |line: &&str| texts.iter().all(|text| line.contains(text));
        self.text().lines().filter(holds).count()
    }
}

impl io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Log {
    type Writer = Self;
    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}
