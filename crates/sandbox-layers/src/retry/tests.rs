//! Retries around the fake: what is made again, how often, and after which pause.

use super::*;
use crate::testing::{Log, SECRET, Stage, operations};
use async_trait::async_trait;
use sandbox_core::{
    CreateOptions, FilesExt, MkdirOptions, SandboxPath, WriteOptions,
    fake::{FakeProvider, Fault, Gate},
    prelude::*,
};

/// Those that the table calls idempotent, as the stage calls them.
const IDEMPOTENT: &[&str] = &[
    "attach.attach",
    "attach.processes",
    "connect",
    "files.glob",
    "files.list",
    "files.read",
    "files.set_permissions",
    "files.stat",
    "files.write",
    "info",
    "kill",
    "lifecycle.set_lifetime",
    "list",
    "metrics.usage",
    "network.events",
    "network.policy",
    "network.set_policy",
    "pause.pause",
    "pause.resume",
    "ports.connect",
    "previews.url",
    "process.resize",
    "templates.list",
    "templates.remove",
];

fn fault(kind: ErrorKind) -> Fault {
    Fault::Error(kind, SECRET.into())
}

fn made(fake: &FakeProvider, operation: &str) -> usize {
    let calls = fake.calls();
    calls
        .iter()
        .filter(|call| call.operation == operation)
        .count()
}

#[tokio::test(start_paused = true)]
async fn what_may_have_had_an_effect_is_done_again_only_if_that_changes_nothing() {
    let stage = Stage::new(RetryLayer::new()).await;
    for operation in operations() {
        let before = made(&stage.fake, operation);
        stage.fake.fault(operation, fault(ErrorKind::Unavailable));
        let ended = stage.call(operation).await;
        let again = IDEMPOTENT.contains(&operation);
        assert_eq!(ended.is_ok(), again, "{operation}");
        let times = made(&stage.fake, operation) - before;
        assert_eq!(times, 1 + usize::from(again), "{operation}");
    }
    assert_eq!(stage.fake.faults_left(), 0);
}

#[tokio::test(start_paused = true)]
async fn what_has_not_happened_is_done_again_always() {
    let stage = Stage::new(RetryLayer::new()).await;
    for operation in operations() {
        for _ in 0..3 {
            stage.fake.fault(operation, fault(ErrorKind::RateLimited));
        }
        stage.call(operation).await.expect(operation);
    }
    assert_eq!(stage.fake.faults_left(), 0);
}

#[tokio::test(start_paused = true)]
async fn what_will_not_pass_is_not_tried_again() {
    let stage = Stage::new(RetryLayer::new()).await;
    for kind in [
        ErrorKind::Internal,
        ErrorKind::Timeout,
        ErrorKind::Unsupported,
    ] {
        let before = made(&stage.fake, "info");
        stage.fake.fault("info", fault(kind));
        let error = stage.call("info").await.unwrap_err();
        assert_eq!(error.context("attempts"), None, "{kind}");
        assert_eq!(made(&stage.fake, "info") - before, 1, "{kind}");
    }
}

#[tokio::test(start_paused = true)]
async fn timeouts_are_tried_again_on_request() {
    let stage = Stage::new(RetryLayer::new().timeouts()).await;
    stage.fake.fault("info", fault(ErrorKind::Timeout));
    stage.call("info").await.unwrap();
    stage.fake.fault("create", fault(ErrorKind::Timeout));
    stage.call("create").await.unwrap_err();
}

#[tokio::test(start_paused = true)]
async fn attempts_are_bounded_and_the_last_error_says_so() {
    let stage = Stage::new(RetryLayer::new().attempts(3)).await;
    for _ in 0..4 {
        stage.fake.fault("info", fault(ErrorKind::Unavailable));
    }
    let error = stage.call("info").await.unwrap_err();
    assert_eq!(error.retry(), Retry::Never);
    assert_eq!(error.context("attempts"), Some("3"));
    assert_eq!(made(&stage.fake, "info"), 3);
    let once = Stage::new(RetryLayer::new().attempts(0)).await;
    once.fake.fault("info", fault(ErrorKind::Unavailable));
    once.call("info").await.unwrap_err();
    assert_eq!(made(&once.fake, "info"), 1);
}

#[tokio::test(start_paused = true)]
async fn pauses_grow_and_their_sum_is_bounded() {
    let (second, total) = (Duration::from_secs(1), Duration::from_secs(20));
    let layer = RetryLayer::new().attempts(100).total(total);
    let stage = Stage::new(layer.pauses(second, second * 4)).await;
    for _ in 0..100 {
        stage.fake.fault("info", fault(ErrorKind::Unavailable));
    }
    let before = Instant::now();
    stage.call("info").await.unwrap_err();
    assert!(before.elapsed() <= total, "{:?}", before.elapsed());
    // With jitter 1, 2, 4, 4 … become up to 2, 4, 8, 8 …
    let times = made(&stage.fake, "info");
    assert!((3..=8).contains(&times), "{times} attempts");
}

/// A provider whose `kill` asks for a minute's pause once.
#[derive(Debug)]
struct Later(std::sync::atomic::AtomicUsize);

#[async_trait]
impl SandboxProvider for Later {
    fn name(&self) -> &'static str {
        "later"
    }
    fn capabilities(&self) -> sandbox_core::Capabilities {
        sandbox_core::Capabilities::new()
    }
    fn enforcement(&self, _: &CreateOptions) -> sandbox_core::EnforcementReport {
        sandbox_core::EnforcementReport::default()
    }
    async fn create(&self, _: CreateOptions) -> Result<Arc<dyn Sandbox>> {
        Err(Error::unsupported("create"))
    }
    async fn connect(
        &self,
        _: &sandbox_core::SandboxId,
        _: sandbox_core::ConnectOptions,
    ) -> Result<Arc<dyn Sandbox>> {
        Err(Error::unsupported("connect"))
    }
    fn sandbox(&self, id: &sandbox_core::SandboxId) -> Arc<dyn Sandbox> {
        FakeProvider::new().sandbox(id)
    }
    fn list(
        &self,
        _: sandbox_core::ListOptions,
    ) -> BoxStream<'static, Result<sandbox_core::SandboxInfo>> {
        stream::empty().boxed()
    }
    async fn kill(&self, _: &sandbox_core::SandboxId) -> Result<bool> {
        let before = self.0.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let busy = Error::new(ErrorKind::RateLimited, "busy");
        match before {
            0 => Err(busy.with_retry(Retry::After(Duration::from_secs(60)))),
            _ => Ok(true),
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_pause_that_is_asked_for_is_kept() {
    let minute = Duration::from_secs(60);
    let kill = async |layer: RetryLayer| {
        let provider = Later(Default::default()).layer(layer);
        let before = Instant::now();
        let killed = provider.kill(&"x".into()).await;
        (killed, before.elapsed())
    };
    let (killed, time) = kill(RetryLayer::new().total(minute * 2)).await;
    assert!(killed.unwrap());
    assert_eq!(time, minute);
    // One that would end too late is not begun.
    let (killed, time) = kill(RetryLayer::new().total(minute / 2)).await;
    assert_eq!(killed.unwrap_err().retry(), Retry::Never);
    assert_eq!(time, Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn a_stream_is_written_once_and_bytes_again() {
    let fake = FakeProvider::new();
    let provider = fake.clone().layer(RetryLayer::new());
    let sandbox = provider.create(CreateOptions::new()).await.unwrap();
    fake.fault("files.write", fault(ErrorKind::RateLimited));
    let body = Body::stream(stream::iter([Ok("text".into())]).boxed(), None);
    let path = SandboxPath::new("file").unwrap();
    let options = WriteOptions::new();
    let written = sandbox.files().write(&path, body, options).await;
    assert_eq!(written.unwrap_err().kind(), ErrorKind::RateLimited);
    fake.fault("files.write", fault(ErrorKind::Unavailable));
    let files = sandbox.files();
    files.write_bytes("file", "text").await.unwrap();
    assert_eq!(files.read_text("file").await.unwrap(), "text");
}

#[tokio::test(start_paused = true)]
async fn a_directory_is_made_again_only_where_it_may_exist() {
    let fake = FakeProvider::new();
    let provider = fake.clone().layer(RetryLayer::new());
    let sandbox = provider.create(CreateOptions::new()).await.unwrap();
    let path = SandboxPath::new("directory").unwrap();
    for (parents, well) in [(true, true), (false, false)] {
        fake.fault("files.mkdir", fault(ErrorKind::Unavailable));
        let options = MkdirOptions::new().parents(parents);
        let made = sandbox.files().mkdir(&path, options).await;
        assert_eq!(made.is_ok(), well);
    }
}

#[tokio::test(start_paused = true)]
async fn pauses_beyond_the_clock_are_not_waited_for() {
    let longest = Duration::MAX;
    let layer = RetryLayer::new().pauses(longest, longest).total(longest);
    let stage = Stage::new(layer.attempts(usize::MAX)).await;
    stage.fake.fault("info", fault(ErrorKind::Unavailable));
    let error = stage.call("info").await.unwrap_err();
    assert_eq!(error.context("attempts"), Some("1"));
}

#[tokio::test(start_paused = true)]
async fn a_call_that_is_given_up_is_not_made_again() {
    let stage = Stage::new(RetryLayer::new()).await;
    stage.fake.fault("info", fault(ErrorKind::Unavailable));
    stage.fake.fault("info", Fault::Gate(Gate::new()));
    let hour = Duration::from_secs(3600);
    let given_up = tokio::time::timeout(hour, stage.call("info")).await;
    assert!(given_up.is_err());
    tokio::time::sleep(hour).await;
    assert_eq!(made(&stage.fake, "info"), 2);
}

#[tokio::test(start_paused = true)]
async fn each_retry_is_told_without_secrets() {
    let log = Log::default();
    let _listening = log.listen();
    let stage = Stage::new(RetryLayer::new()).await;
    for _ in 0..2 {
        stage
            .fake
            .fault("files.write", fault(ErrorKind::Unavailable));
    }
    stage.call("files.write").await.unwrap();
    let told = ["trying again", "files.write", "error=unavailable"];
    assert_eq!(log.count(&told), 2, "{}", log.text());
    assert!(log.count(&["attempt=2", "pause_ms="]) > 0, "{}", log.text());
    assert!(!log.text().contains(SECRET), "{}", log.text());
}
