//! Messages of HTTP/1.1 on their way.

use crate::stage::{Stage, head, request, rest, soon, until};
use sandbox_core::fake::Gate;
use std::sync::Arc;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    sync::mpsc,
};

#[tokio::test]
async fn the_server_is_told_who_asks_and_nothing_of_the_connection() {
    let stage = Stage::new().await;
    stage.serve(|mut stream| async move {
        let asked = head(&mut stream).await;
        let answer = format!(
            "HTTP/1.1 200 Fine\r\nConnection: close, X-Hop\r\nX-Hop: 1\r\nKeep-Alive: timeout=5\r\n\
             X-End: 1\r\nContent-Length: {}\r\n\r\n{asked}",
            asked.len()
        );
        stream.write_all(answer.as_bytes()).await.unwrap();
    });
    let fields = "Connection: close, X-Hop\r\nX-Hop: 1\r\nX-End: 1\r\nX-Forwarded-For: 203.0.113.1\r\n\
                  Cookie: a=b\r\nTE: trailers\r\n";
    let answer = stage.ask(&request("GET /a%20b?c=d", fields)).await;
    let (answer, asked) = answer.split_once("\r\n\r\n").unwrap();
    assert!(asked.starts_with("GET /a%20b?c=d HTTP/1.1\r\n"), "{asked}");
    for line in [
        "host: 8000-box.localhost",
        "x-end: 1",
        "cookie: a=b",
        "te: trailers",
        "x-forwarded-for: 127.0.0.1",
        "x-forwarded-host: 8000-box.localhost",
        "x-forwarded-proto: http",
        "via: 1.1 sandbox-proxy",
    ] {
        assert!(
            asked.contains(&format!("\r\n{line}\r\n")),
            "{line} of {asked}"
        );
    }
    assert!(
        !asked.contains("x-hop") && !asked.contains("203.0.113.1"),
        "{asked}"
    );
    assert!(answer.contains("x-end: 1"), "{answer}");
    assert!(
        !answer.contains("x-hop") && !answer.contains("timeout=5"),
        "{answer}"
    );
}

#[tokio::test]
async fn a_host_in_the_requests_line_is_the_one_that_counts() {
    let stage = Stage::new().await;
    stage.serve(|mut stream| async move {
        let asked = head(&mut stream).await;
        let whole = format!(
            "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{asked}",
            asked.len()
        );
        stream.write_all(whole.as_bytes()).await.unwrap();
    });
    let asked = "GET http://8000-box.localhost:7000/x HTTP/1.1\r\nHost: example.com\r\nConnection: close\r\n\r\n";
    let answer = stage.ask(asked).await;
    assert!(answer.contains("GET /x HTTP/1.1\r\n"), "{answer}");
    assert!(
        answer.contains("host: 8000-box.localhost:7000\r\n"),
        "{answer}"
    );
}

#[tokio::test]
async fn one_connection_serves_many_requests() {
    let stage = Stage::new().await;
    stage.serve(|mut stream| async move {
        let asked = head(&mut stream).await;
        let path = asked.split(' ').nth(1).unwrap();
        let answer = format!(
            "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{path}",
            path.len()
        );
        stream.write_all(answer.as_bytes()).await.unwrap();
    });
    let mut stream = stage.connect().await;
    for path in ["/1", "/2", "/3"] {
        let asked = request(&format!("GET {path}"), "");
        stream.write_all(asked.as_bytes()).await.unwrap();
        let answer = head(&mut stream).await;
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        assert_eq!(until(&mut stream, path).await, path);
    }
}

/// Sends back what it gets, chunk by chunk, both ways at a time.
fn echo(stage: &Stage) {
    stage.serve(|mut stream| async move {
        head(&mut stream).await;
        let answer = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-Sum\r\n\r\n";
        stream.write_all(answer).await.unwrap();
        loop {
            let size = until(&mut stream, "\r\n").await;
            let bytes = usize::from_str_radix(size.trim(), 16).unwrap();
            if bytes == 0 {
                // Trailers, up to the empty line.
                let trailers = until(&mut stream, "\r\n").await;
                let end = format!("0\r\n{trailers}\r\n");
                return stream.write_all(end.as_bytes()).await.unwrap();
            }
            let mut chunk = vec![0; bytes + 2];
            stream.read_exact(&mut chunk).await.unwrap();
            stream.write_all(size.as_bytes()).await.unwrap();
            stream.write_all(&chunk).await.unwrap();
        }
    });
}

#[tokio::test]
async fn large_bodies_and_trailers_pass_both_ways_at_a_time() {
    const CHUNKS: u32 = 400;
    const CHUNK: usize = 40_000;
    let stage = Stage::new().await;
    echo(&stage);
    let mut stream = stage.connect().await;
    let fields = "Transfer-Encoding: chunked\r\nTrailer: X-Sum\r\nTE: trailers\r\n";
    stream
        .write_all(request("POST /", fields).as_bytes())
        .await
        .unwrap();
    let answer = head(&mut stream).await;
    assert!(answer.contains("transfer-encoding: chunked"), "{answer}");
    let (mut reader, mut writer) = stream.into_split();
    let write = async move {
        for number in 0..CHUNKS {
            let line = format!("{CHUNK:x}\r\n");
            writer.write_all(line.as_bytes()).await.unwrap();
            let chunk: Vec<_> = number
                .to_le_bytes()
                .into_iter()
                .cycle()
                .take(CHUNK)
                .collect();
            writer.write_all(&chunk).await.unwrap();
            writer.write_all(b"\r\n").await.unwrap();
        }
        writer.write_all(b"0\r\nX-Sum: 7\r\n\r\n").await.unwrap();
        writer
    };
    let read = async {
        let mut body = Vec::new();
        loop {
            let size = until(&mut reader, "\r\n").await;
            let bytes = usize::from_str_radix(size.trim(), 16).unwrap();
            if bytes == 0 {
                return (body, until(&mut reader, "\r\n\r\n").await);
            }
            let mut chunk = vec![0; bytes + 2];
            reader.read_exact(&mut chunk).await.unwrap();
            body.extend_from_slice(&chunk[..bytes]);
        }
    };
    let (_writer, (body, trailers)) = soon(async { tokio::join!(write, read) }).await;
    assert_eq!(trailers, "x-sum: 7\r\n\r\n");
    let numbers = body
        .chunks(CHUNK)
        .map(|chunk| chunk[..4].try_into().unwrap());
    let numbers: Vec<_> = numbers.map(u32::from_le_bytes).collect();
    assert_eq!(numbers, (0..CHUNKS).collect::<Vec<_>>());
}

#[tokio::test]
async fn events_come_as_they_are_sent() {
    let stage = Stage::new().await;
    let gate = Gate::new();
    let second = gate.clone();
    stage.serve(move |mut stream| {
        let gate = second.clone();
        async move {
            head(&mut stream).await;
            let first = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\ndata: 1\n\n";
            stream.write_all(first).await.unwrap();
            gate.pass().await;
            stream.write_all(b"data: 2\n\n").await.unwrap();
        }
    });
    let mut stream = stage.connect().await;
    stream
        .write_all(request("GET /", "").as_bytes())
        .await
        .unwrap();
    head(&mut stream).await;
    until(&mut stream, "data: 1\n\n").await;
    gate.open();
    until(&mut stream, "data: 2\n\n").await;
}

#[tokio::test]
async fn a_client_that_waits_is_told_to_send_by_the_server() {
    let stage = Stage::new().await;
    stage.serve(|mut stream| async move {
        let asked = head(&mut stream).await;
        if asked.starts_with("POST /no") {
            let answer = b"HTTP/1.1 413 Too Large\r\nContent-Length: 0\r\n\r\n";
            return stream.write_all(answer).await.unwrap();
        }
        assert!(asked.contains("expect: 100-continue"), "{asked}");
        stream
            .write_all(b"HTTP/1.1 100 Continue\r\n\r\n")
            .await
            .unwrap();
        let body = until(&mut stream, "body").await;
        let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\n{body}");
        stream.write_all(answer.as_bytes()).await.unwrap();
    });
    let fields = "Expect: 100-continue\r\nContent-Length: 4\r\n";
    let mut stream = stage.connect().await;
    stream
        .write_all(request("POST /yes", fields).as_bytes())
        .await
        .unwrap();
    let answer = head(&mut stream).await;
    assert!(answer.starts_with("HTTP/1.1 100 "), "{answer}");
    stream.write_all(b"body").await.unwrap();
    let answer = head(&mut stream).await;
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    until(&mut stream, "body").await;

    let mut stream = stage.connect().await;
    stream
        .write_all(request("POST /no", fields).as_bytes())
        .await
        .unwrap();
    let answer = head(&mut stream).await;
    assert!(answer.starts_with("HTTP/1.1 413 "), "{answer}");
}

/// A server that tells when its connection has ended, after it has sent `answer`.
fn tells_its_end(stage: &Stage, answer: &'static str) -> mpsc::UnboundedReceiver<()> {
    let (tell, told) = mpsc::unbounded_channel();
    let tell = Arc::new(tell);
    stage.serve(move |mut stream| {
        let tell = Arc::clone(&tell);
        async move {
            head(&mut stream).await;
            stream.write_all(answer.as_bytes()).await.unwrap();
            rest(&mut stream).await;
            tell.send(()).unwrap();
        }
    });
    told
}

#[tokio::test]
async fn a_client_that_is_gone_is_gone_for_the_server() {
    let stage = Stage::new().await;
    let begun = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n";
    for answer in ["", begun] {
        let mut ended = tells_its_end(&stage, answer);
        let mut stream = stage.connect().await;
        stream
            .write_all(request("GET /", "").as_bytes())
            .await
            .unwrap();
        if answer.is_empty() {
            // Until the server has the request there is nothing to be gone for.
            let connected = || {
                stage
                    .fake
                    .calls()
                    .iter()
                    .any(|call| call.operation == "ports.connect")
            };
            soon(async {
                while !connected() {
                    tokio::task::yield_now().await;
                }
            })
            .await;
        } else {
            head(&mut stream).await;
        }
        drop(stream);
        soon(ended.recv()).await.unwrap();
    }
}

#[tokio::test]
async fn an_answer_that_breaks_off_is_not_taken_for_whole() {
    let stage = Stage::new().await;
    for answer in [
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\nhalf",
    ] {
        stage.serve(move |mut stream| async move {
            head(&mut stream).await;
            stream.write_all(answer.as_bytes()).await.unwrap();
        });
        let mut stream = stage.connect().await;
        stream
            .write_all(request("GET /", "").as_bytes())
            .await
            .unwrap();
        head(&mut stream).await;
        let body = rest(&mut stream).await;
        assert!(
            body.contains("half") && !body.ends_with("0\r\n\r\n"),
            "{body:?}"
        );
    }
}

#[tokio::test]
async fn answers_without_a_body_and_before_the_end_of_the_request_pass() {
    let stage = Stage::new().await;
    stage.serve(|mut stream| async move {
        let asked = head(&mut stream).await;
        let answer = if asked.starts_with("HEAD ") {
            "HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n"
        } else {
            "HTTP/1.1 413 Too Large\r\nContent-Length: 4\r\n\r\nmuch"
        };
        stream.write_all(answer.as_bytes()).await.unwrap();
        // What is still on its way is read, so that the answer is not lost to a reset.
        rest(&mut stream).await;
    });
    let mut stream = stage.connect().await;
    for _ in 0..2 {
        let asked = request("HEAD /", "");
        stream.write_all(asked.as_bytes()).await.unwrap();
        let answer = head(&mut stream).await;
        assert!(answer.contains("content-length: 1000"), "{answer}");
    }
    let mut stream = stage.connect().await;
    let asked = request("POST /", "Content-Length: 1000000\r\n");
    stream.write_all(asked.as_bytes()).await.unwrap();
    let answer = head(&mut stream).await;
    assert!(answer.starts_with("HTTP/1.1 413 "), "{answer}");
    until(&mut stream, "much").await;
}
