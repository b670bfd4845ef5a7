//! What cannot be reached, and what is not served.

use crate::stage::{PORT, Stage, head, soon};
use sandbox_core::{CreateOptions, SandboxExt, SandboxProvider};
use tokio::io::AsyncWriteExt;

/// The status and the reason of an answer.
fn told(answer: &str) -> (u16, String) {
    let status = answer.split(' ').nth(1).unwrap_or_default();
    let reason = answer
        .lines()
        .find_map(|line| line.strip_prefix("sandbox-proxy-error: "));
    let status = status.parse().unwrap_or_else(|_| panic!("{answer:?}"));
    (status, reason.unwrap_or_default().to_owned())
}

#[tokio::test]
async fn each_has_a_status_and_says_what_to_do() {
    let stage = Stage::new().await;
    for (host, status, reason, cure) in [
        (
            "example.com",
            421,
            "host",
            "http://<port>-<sandbox>.localhost",
        ),
        (
            "127.0.0.1:7000",
            421,
            "host",
            "http://<port>-<sandbox>.localhost",
        ),
        ("8000-box.localhost.example.com", 421, "host", "<port>"),
        ("localhost", 400, "host", "<port>-<sandbox>"),
        ("box.localhost", 400, "host", "<port>-<sandbox>"),
        (
            "8000-other.localhost",
            404,
            "sandbox_not_found",
            "sandbox ls",
        ),
        (
            "8001-box.localhost",
            502,
            "nobody_listens",
            "Start the server",
        ),
    ] {
        let answer = stage.get(host).await;
        assert_eq!(told(&answer), (status, reason.to_owned()), "{host}");
        assert!(answer.contains(cure), "{host}: {answer}");
        assert!(answer.contains("cache-control: no-store"), "{answer}");
    }
}

#[tokio::test]
async fn a_paused_sandbox_says_how_it_goes_on() {
    let stage = Stage::new().await;
    stage
        .sandbox
        .require_pause()
        .unwrap()
        .pause()
        .await
        .unwrap();
    let answer = stage.get("8000-box.localhost").await;
    assert_eq!(told(&answer), (503, "paused".to_owned()));
    assert!(answer.contains("sandbox resume box"), "{answer}");
}

#[tokio::test]
async fn a_host_is_named_exactly_once_and_no_tunnel_is_made() {
    let stage = Stage::new().await;
    for request in [
        "GET / HTTP/1.1\r\nConnection: close\r\n\r\n",
        "GET / HTTP/1.0\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: 1-a.localhost\r\nHost: 8000-box.localhost\r\nConnection: close\r\n\r\n",
        "GET http://me@8000-box.localhost/ HTTP/1.1\r\nHost: 8000-box.localhost\r\nConnection: close\r\n\r\n",
    ] {
        assert_eq!(told(&stage.ask(request).await).0, 400, "{request}");
    }
    let tunnel = "CONNECT 8000-box.localhost:80 HTTP/1.1\r\nHost: 8000-box.localhost\r\nConnection: close\r\n\r\n";
    assert_eq!(told(&stage.ask(tunnel).await).0, 405);
    assert!(
        stage
            .fake
            .calls()
            .iter()
            .all(|call| call.operation != "ports.connect")
    );
}

#[tokio::test]
async fn a_sandbox_is_found_by_its_name_also_when_that_is_anothers() {
    let stage = Stage::new().await;
    stage.serve(|mut stream| async move {
        head(&mut stream).await;
        stream.write_all(b"HTTP/1.1 204 \r\n\r\n").await.unwrap();
    });
    let id = stage.sandbox.id().to_string();
    for host in [
        &*format!("{PORT}-{id}.localhost"),
        "8000-box.localhost",
        "8000-BOX.LOCALHOST.",
    ] {
        assert_eq!(told(&stage.get(host).await).0, 204, "{host}");
    }
    stage.sandbox.kill().await.unwrap();
    assert_eq!(told(&stage.get("8000-box.localhost").await).0, 404);
    let options = || CreateOptions::new().name("box");
    stage.fake.create(options()).await.unwrap();
    assert_eq!(told(&stage.get("8000-box.localhost").await).0, 204);
    let options = options().name("Box");
    stage.fake.create(options).await.unwrap();
    // The one that is known stays; who asks anew is told that there are two.
    let second = Stage::with(|proxy| proxy.domain("Boxes.Test.")).await;
    second
        .fake
        .create(CreateOptions::new().name("BOX"))
        .await
        .unwrap();
    let answer = second.get("8000-box.boxes.test").await;
    assert_eq!(told(&answer), (404, "ambiguous".to_owned()));
    assert_eq!(told(&second.get("8000-fake-1.boxes.test").await).0, 502);
}

#[tokio::test]
async fn a_server_that_speaks_something_else_has_no_answer() {
    let stage = Stage::new().await;
    stage.serve(|mut stream| async move {
        stream.write_all(b"SSH-2.0-OpenSSH\r\n").await.unwrap();
    });
    let answer = soon(stage.get("8000-box.localhost")).await;
    assert_eq!(told(&answer), (502, "no_answer".to_owned()));
}
