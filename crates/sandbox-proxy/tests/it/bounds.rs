//! What a client may take: places, sizes and time.

use crate::stage::{Stage, head, request, rest, soon, until};
use std::time::Duration;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    time::Instant,
};

/// What a client says before it says nothing any more, over a clock that stands still while something happens.
#[tokio::test(start_paused = true)]
async fn the_head_of_a_request_must_come_in_time() {
    let stage = Stage::new().await;
    for said in [
        "",
        "P",
        "PRI * HTTP/2.0\r\n\r\nSM\r\n",
        "G",
        "GET / HTTP/1.1\r\nHost: a\r\n",
    ] {
        let mut stream = stage.connect().await;
        stream.write_all(said.as_bytes()).await.unwrap();
        let began = Instant::now();
        let mut all = Vec::new();
        let _reset = stream.read_to_end(&mut all).await;
        let took = began.elapsed();
        assert!(took < Duration::from_secs(31), "{said:?} had {took:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_connection_without_a_byte_ends() {
    let stage = Stage::new().await;
    stage.serve(|mut stream| async move {
        head(&mut stream).await;
        // It never answers, and ends when the client does.
        let mut all = Vec::new();
        stream.read_to_end(&mut all).await.unwrap();
    });
    let mut stream = stage.connect().await;
    stream
        .write_all(request("GET /", "").as_bytes())
        .await
        .unwrap();
    let began = Instant::now();
    let mut all = Vec::new();
    let _reset = stream.read_to_end(&mut all).await;
    let hour = Duration::from_secs(60 * 60);
    let took = began.elapsed();
    let about = hour - Duration::from_secs(1)..hour + Duration::from_secs(1);
    assert!(about.contains(&took), "{took:?}");
}

#[tokio::test]
async fn too_many_and_too_long_fields_are_refused() {
    let stage = Stage::new().await;
    let many = "a: b\r\n".repeat(1000);
    let long = format!("a: {}\r\n", "b".repeat(200_000));
    for fields in [many, long] {
        let mut stream = stage.connect().await;
        // It may end the connection before it has read all.
        let _refused = stream.write_all(request("GET /", &fields).as_bytes()).await;
        let mut answer = Vec::new();
        let _reset = soon(stream.read_to_end(&mut answer)).await;
        let answer = String::from_utf8_lossy(&answer);
        assert!(
            answer.is_empty() || answer.starts_with("HTTP/1.1 431"),
            "{answer}"
        );
    }
    assert!(
        stage
            .fake
            .calls()
            .iter()
            .all(|call| call.operation != "ports.connect")
    );
}

#[tokio::test]
async fn more_connections_than_may_stand_wait() {
    let stage = Stage::with(|proxy| proxy.max_connections(2)).await;
    stage.serve(|mut stream| async move {
        head(&mut stream).await;
        let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
        stream.write_all(answer).await.unwrap();
    });
    let mut standing = Vec::new();
    for _ in 0..2 {
        let mut stream = stage.connect().await;
        stream
            .write_all(request("GET /", "").as_bytes())
            .await
            .unwrap();
        until(&mut stream, "ok").await;
        standing.push(stream);
    }
    let mut third = stage.connect().await;
    third
        .write_all(request("GET /", "").as_bytes())
        .await
        .unwrap();
    let pause = Duration::from_millis(200);
    let early = tokio::time::timeout(pause, third.read_u8()).await;
    assert!(early.is_err(), "{early:?}");
    standing.pop();
    until(&mut third, "ok").await;
}

#[tokio::test]
async fn an_answer_under_way_is_finished_before_the_end() {
    let stage = Stage::new().await;
    let gate = sandbox_core::fake::Gate::new();
    let opened = gate.clone();
    stage.serve(move |mut stream| {
        let gate = opened.clone();
        async move {
            head(&mut stream).await;
            let first = b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nfirst";
            stream.write_all(first).await.unwrap();
            gate.pass().await;
            stream.write_all(b" last").await.unwrap();
        }
    });
    let mut stream = stage.connect().await;
    stream
        .write_all(request("GET /", "").as_bytes())
        .await
        .unwrap();
    until(&mut stream, "first").await;
    let idle = stage.connect().await;
    let shutdown = tokio::spawn(stage.serving.shutdown(Duration::from_secs(30)));
    gate.open();
    assert_eq!(rest(&mut stream).await, " last");
    drop(idle);
    soon(shutdown).await.unwrap();
}

/// That the client is gone shows only behind what it has sent, and nobody reads that.
#[tokio::test(start_paused = true)]
async fn a_client_that_is_gone_leaves_nothing_before_a_server_that_never_reads() {
    let stage = Stage::new().await;
    stage.serve(|mut stream| async move {
        head(&mut stream).await;
        std::future::pending().await
    });
    let tasks = || {
        let runtime = tokio::runtime::Handle::current();
        runtime.metrics().num_alive_tasks()
    };
    let before = tasks();
    let mut stream = stage.connect().await;
    let asked = request("POST /", "Content-Length: 100000000\r\n");
    stream.write_all(asked.as_bytes()).await.unwrap();
    let pause = Duration::from_secs(1);
    let more = vec![0; 100_000];
    // Until nobody takes more.
    while let Ok(written) = tokio::time::timeout(pause, stream.write(&more)).await {
        written.unwrap();
    }
    drop(stream);
    let began = Instant::now();
    // The server's own task is left.
    while tasks() > before + 1 {
        assert!(began.elapsed() < Duration::from_secs(2 * 60 * 60));
        tokio::time::sleep(pause).await;
    }
}
