//! Records of calls on the fake: what is told, and what never is.

use super::*;
use crate::testing::{Log, SECRET, Stage, operations};
use sandbox_core::{
    CreateOptions, ListOptions,
    fake::{FakeProvider, Fault, Gate, Script},
    prelude::*,
};
use std::sync::atomic::AtomicBool;

fn audited() -> (MemorySink, AuditLayer) {
    let sink = MemorySink::new();
    (sink.clone(), AuditLayer::new(sink))
}

fn of(sink: &MemorySink, operation: &str) -> Vec<AuditRecord> {
    let mut records = sink.records();
    records.retain(|record| record.operation == operation);
    records
}

#[tokio::test]
async fn every_call_has_one_record() {
    let (sink, layer) = audited();
    let stage = Stage::new(layer.actor("agent 7")).await;
    for operation in operations() {
        let before = of(&sink, operation).len();
        stage.call(operation).await.expect(operation);
        let records = of(&sink, operation);
        let exits = usize::from(operation.ends_with("spawn"));
        assert_eq!(records.len(), before + 1 + exits, "{operation}");
        let record = &records[before];
        assert_eq!(record.event, AuditEvent::End, "{operation}");
        assert_eq!(record.outcome.as_deref(), Some("ok"), "{operation}");
        assert_eq!(record.actor.as_deref(), Some("agent 7"));
        let named = !["list", "templates.list", "templates.remove"].contains(&operation);
        assert_eq!(record.sandbox.is_some(), named, "{operation}");
        let process = operation.starts_with("process.") || operation.ends_with("spawn");
        let process = process || operation == "attach.attach";
        assert_eq!(record.process.is_some(), process, "{operation}");
    }
    let mut numbers: Vec<_> = sink.records().iter().map(|record| record.call).collect();
    numbers.dedup();
    assert!(numbers.is_sorted(), "{numbers:?}");
}

#[tokio::test]
async fn secrets_in_values_contents_and_command_lines_are_not_told() {
    let (sink, layer) = audited();
    let fake = FakeProvider::new();
    fake.script(Script::any().stdout(SECRET).exit(0));
    let provider = fake.clone().layer(layer);
    let options = CreateOptions::new().env_var("TOKEN", SECRET);
    let sandbox = provider
        .create(options.label("note", SECRET))
        .await
        .unwrap();
    let files = sandbox.files();
    files.write_bytes("file", SECRET).await.unwrap();
    files.read_text("file").await.unwrap();
    let command = Command::new("x").arg(SECRET).env("TOKEN", SECRET);
    sandbox.exec(command).await.unwrap();
    let script = Command::shell(SECRET).stdin(Stdin::Open);
    let process = sandbox.spawn(script).await.unwrap();
    process.control().write_stdin(SECRET.into()).await.unwrap();
    fake.fault("info", Fault::Error(ErrorKind::Internal, SECRET.into()));
    sandbox.info().await.unwrap_err();
    let text = serde_json::to_string(&sink.records()).unwrap();
    assert!(!text.contains(SECRET), "{text}");
    assert!(text.contains(r#""arguments":{"path":"file"}"#), "{text}");
    assert!(text.contains(r#""env":["TOKEN"]"#), "{text}");
    assert!(text.contains(r#""outcome":"internal error""#), "{text}");
}

#[tokio::test]
async fn the_exit_of_a_process_is_recorded_with_its_call() {
    let (sink, layer) = audited();
    let fake = FakeProvider::new();
    fake.script(Script::any().exit(3));
    let provider = fake.layer(layer.command_lines());
    let sandbox = provider.create(CreateOptions::new()).await.unwrap();
    sandbox.exec(Command::new("x").arg("y")).await.unwrap();
    let records = of(&sink, "spawn");
    let [end, exit] = &records[..] else {
        panic!("{records:?}")
    };
    assert_eq!((end.event, exit.event), (AuditEvent::End, AuditEvent::Exit));
    assert_eq!(exit.outcome.as_deref(), Some("exit code 3"));
    assert_eq!((exit.call, &exit.process), (end.call, &end.process));
    assert_eq!(end.arguments["args"], serde_json::json!(["y"]));
}

#[tokio::test]
async fn what_is_given_up_is_recorded_and_what_never_began_is_not() {
    let (sink, layer) = audited();
    let stage = Stage::new(layer).await;
    for operation in ["info", "list"] {
        stage.fake.fault(operation, Fault::Gate(Gate::new()));
        let second = std::time::Duration::from_millis(1);
        let given_up = tokio::time::timeout(second, stage.call(operation)).await;
        assert!(given_up.is_err());
        let records = of(&sink, operation);
        assert_eq!(records.len(), 1, "{operation}");
        assert_eq!(records[0].outcome.as_deref(), Some("dropped"));
    }
    drop(stage.provider.list(ListOptions::new()));
    assert_eq!(of(&sink, "list").len(), 1);
}

/// A sink that fails while the disk is full.
#[derive(Debug, Clone, Default)]
struct Full(Arc<AtomicBool>, MemorySink);

impl AuditSink for Full {
    fn write(&self, record: &AuditRecord) -> io::Result<()> {
        if self.0.load(Ordering::Relaxed) {
            return Err(io::ErrorKind::StorageFull.into());
        }
        self.1.write(record)
    }
}

#[tokio::test]
async fn a_record_that_is_lost_is_told_and_stops_nothing() {
    let log = Log::default();
    let _listening = log.listen();
    let sink = Full::default();
    let layer = AuditLayer::new(sink.clone());
    let stage = Stage::new(layer.clone()).await;
    sink.0.store(true, Ordering::Relaxed);
    for operation in operations() {
        stage.call(operation).await.expect(operation);
    }
    let lost = u64::try_from(operations().len() + 2).unwrap();
    assert_eq!(layer.lost(), lost, "two of the calls have an exit");
    assert_eq!(log.count(&["could not be written"]), operations().len() + 2);
    assert!(!log.text().contains(SECRET), "{}", log.text());
}

#[tokio::test]
async fn where_records_are_required_nothing_happens_without_one() {
    let sink = Full::default();
    let stage = Stage::new(AuditLayer::new(sink.clone()).fail_closed()).await;
    let events = |operation| {
        let records = of(&sink.1, operation);
        records.iter().map(|it| it.event).collect::<Vec<_>>()
    };
    assert_eq!(events("create"), [AuditEvent::Begin, AuditEvent::End]);
    sink.0.store(true, Ordering::Relaxed);
    let before = stage.fake.calls().len();
    for operation in operations() {
        let error = stage.call(operation).await.expect_err(operation);
        assert_eq!(error.kind(), ErrorKind::Unavailable, "{operation}");
        assert_eq!(error.operation(), Some(operation));
    }
    assert_eq!(stage.fake.calls().len(), before, "nothing was called");
    sink.0.store(false, Ordering::Relaxed);
    stage.call("info").await.unwrap();
}
