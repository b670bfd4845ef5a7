//! Waiting, over the fake and by a clock that stands still.

use super::*;
use sandbox_core::{
    Command, CreateOptions, SandboxProvider,
    fake::{FakeProvider, Fault, Gate, Script},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    time::Instant,
};

const LIMIT: Duration = Duration::from_secs(60);

/// A sandbox in which `script` runs.
async fn running(script: Script) -> (FakeProvider, Arc<dyn Sandbox>, Process) {
    let fake = FakeProvider::new();
    fake.script(script);
    let sandbox = fake.create(CreateOptions::new()).await.unwrap();
    let process = sandbox.spawn(Command::new("server")).await.unwrap();
    (fake, sandbox, process)
}

fn endless() -> Script {
    Script::any().stdout("starting\n").gate(&Gate::new())
}

/// Answers with `status` and nothing else.
fn serve(fake: &FakeProvider, status: &'static str) {
    fake.serve(80, move |mut stream| async move {
        let mut request = Vec::new();
        while !request.ends_with(b"\r\n\r\n") {
            request.push(stream.read_u8().await.unwrap());
        }
        let request = String::from_utf8(request).unwrap();
        assert!(
            request.starts_with("GET /health?full HTTP/1.1\r\n"),
            "{request}"
        );
        assert!(request.contains("host: localhost:80\r\n"), "{request}");
        let answer = format!("HTTP/1.1 {status}\r\ncontent-length: 0\r\n\r\n");
        stream.write_all(answer.as_bytes()).await.unwrap();
    });
}

#[tokio::test(start_paused = true)]
async fn a_port_is_waited_for() {
    let (fake, sandbox, mut process) = running(endless()).await;
    let later = async {
        tokio::time::sleep(Duration::from_secs(7)).await;
        fake.serve(80, |_| async {});
    };
    let began = Instant::now();
    let ready = Ready::port(80);
    let (waited, ()) = tokio::join!(ready.wait(&*sandbox, &mut process, LIMIT), later);
    waited.unwrap();
    let took = began.elapsed();
    let late = Duration::from_secs(7)..Duration::from_secs(8);
    assert!(late.contains(&took), "{took:?}");
}

#[tokio::test(start_paused = true)]
async fn the_end_of_the_process_is_told_at_once_with_the_last_it_said() {
    let said = "x".repeat(10_000) + "\nno such module: flask\n";
    let script = Script::any().stderr(said).delay(Duration::from_secs(1));
    let (_, sandbox, mut process) = running(script.exit(3)).await;
    let began = Instant::now();
    let ready = Ready::port(80).wait(&*sandbox, &mut process, LIMIT).await;
    let error = ready.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidState);
    assert_eq!(began.elapsed(), Duration::from_secs(1));
    let log = error.context("log").unwrap();
    assert!(log.starts_with("...x") && log.ends_with("no such module: flask"));
    assert!(log.len() < 4200);
    let exit = error.context("exit").unwrap();
    assert!(exit.contains('3'), "{exit}");
}

#[tokio::test(start_paused = true)]
async fn a_limit_tells_what_was_seen_last() {
    let (fake, sandbox, mut process) = running(endless()).await;
    let began = Instant::now();
    let ready = Ready::port(80);
    let error = ready
        .wait(&*sandbox, &mut process, LIMIT)
        .await
        .unwrap_err();
    assert_eq!((error.kind(), began.elapsed()), (ErrorKind::Timeout, LIMIT));
    assert_eq!(error.context("seen"), Some("nobody listens on this port"));
    assert_eq!(error.context("log"), Some("starting"));

    serve(&fake, "503 Busy");
    let ready = Ready::http(80).path("/health?full");
    let error = ready
        .wait(&*sandbox, &mut process, LIMIT)
        .await
        .unwrap_err();
    assert_eq!(error.context("seen"), Some("status 503"));
}

#[tokio::test(start_paused = true)]
async fn a_status_is_waited_for() {
    let (fake, sandbox, mut process) = running(endless()).await;
    let ready = Ready::http(80).path("/health?full");
    for (status, wanted, is_ready) in [
        ("200 OK", None, true),
        ("302 Found", None, true),
        ("404 Not Found", None, false),
        ("404 Not Found", Some(404), true),
        ("200 OK", Some(204), false),
    ] {
        serve(&fake, status);
        let ready = match wanted {
            Some(wanted) => ready.clone().status(wanted),
            None => ready.clone(),
        };
        let waited = ready.wait(&*sandbox, &mut process, LIMIT).await;
        assert_eq!(waited.is_ok(), is_ready, "{status} for {wanted:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_server_that_does_not_answer_is_asked_again() {
    let (fake, sandbox, mut process) = running(endless()).await;
    // It takes connections and says nothing.
    fake.serve(80, |mut stream| async move {
        let mut all = Vec::new();
        stream.read_to_end(&mut all).await.unwrap();
    });
    let later = async {
        tokio::time::sleep(Duration::from_secs(7)).await;
        serve(&fake, "204 No Content");
    };
    let ready = Ready::http(80).path("/health?full");
    let (waited, ()) = tokio::join!(ready.wait(&*sandbox, &mut process, LIMIT), later);
    waited.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_line_is_waited_for() {
    let second = Duration::from_secs(1);
    let script = Script::any()
        .stdout("list")
        .delay(second)
        .stdout("ening on 80\n");
    let script = script.delay(second).stderr("prompt> ").gate(&Gate::new());
    let (_, sandbox, mut process) = running(script).await;
    let began = Instant::now();
    let ready = Ready::log_line(|line| line == "listening on 80");
    ready.wait(&*sandbox, &mut process, LIMIT).await.unwrap();
    assert_eq!(began.elapsed(), second);
    // A text needs no end of its line.
    let ready = Ready::log("prompt>");
    ready.wait(&*sandbox, &mut process, LIMIT).await.unwrap();
    assert_eq!(began.elapsed(), second * 2);
    let error = Ready::log("never")
        .wait(&*sandbox, &mut process, LIMIT)
        .await;
    assert_eq!(error.unwrap_err().context("seen"), Some("no such line"));
}

#[tokio::test(start_paused = true)]
async fn what_waiting_does_not_help_is_told_at_once() {
    let (fake, sandbox, mut process) = running(endless()).await;
    let began = Instant::now();
    let kind = |waited: Result<()>| waited.unwrap_err().kind();
    for path in ["health", "", "/a b"] {
        let ready = Ready::http(80).path(path);
        let waited = ready.wait(&*sandbox, &mut process, LIMIT).await;
        assert_eq!(kind(waited), ErrorKind::InvalidArgument, "{path}");
    }
    let fault = Fault::Error(ErrorKind::PolicyDenied, "no".into());
    fake.fault("ports.connect", fault);
    let waited = Ready::port(80).wait(&*sandbox, &mut process, LIMIT).await;
    assert_eq!(kind(waited), ErrorKind::PolicyDenied);
    sandbox.kill().await.unwrap();
    let waited = Ready::port(80).wait(&*sandbox, &mut process, LIMIT).await;
    assert!(waited.is_err());
    assert_eq!(began.elapsed(), Duration::ZERO);
}
