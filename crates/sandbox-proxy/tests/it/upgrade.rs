//! WebSockets and what else goes on in another protocol.

use crate::stage::{Stage, head, request, rest, soon, until};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    sync::mpsc,
};

/// Agrees to what is asked for, and sends back what comes, with `end` after it.
fn agrees(stage: &Stage) {
    stage.serve(|mut stream| async move {
        let asked = head(&mut stream).await;
        if !asked.contains("upgrade: websocket\r\n") || !asked.contains("connection: upgrade\r\n") {
            let plain = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nplain";
            return stream.write_all(plain).await.unwrap();
        }
        assert!(asked.contains("sec-websocket-key: AAAA\r\n"), "{asked}");
        let agreed =
            b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
                       Sec-WebSocket-Accept: BBBB\r\n\r\nhello";
        stream.write_all(agreed).await.unwrap();
        let mut buffer = [0; 1000];
        loop {
            match stream.read(&mut buffer).await.unwrap() {
                0 => return stream.write_all(b"end").await.unwrap(),
                read => stream.write_all(&buffer[..read]).await.unwrap(),
            }
        }
    });
}

const ASK: &str =
    "Connection: keep-alive, Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: AAAA\r\n";

#[tokio::test]
async fn a_websocket_passes_both_ways_and_each_end() {
    let stage = Stage::new().await;
    agrees(&stage);
    let mut stream = stage.connect().await;
    stream
        .write_all(request("GET /", ASK).as_bytes())
        .await
        .unwrap();
    let answer = head(&mut stream).await;
    assert!(answer.starts_with("HTTP/1.1 101 "), "{answer}");
    for line in [
        "connection: upgrade",
        "upgrade: websocket",
        "sec-websocket-accept: BBBB",
    ] {
        assert!(
            answer.contains(&format!("\r\n{line}\r\n")),
            "{line} of {answer}"
        );
    }
    // What the server said at once is not lost.
    until(&mut stream, "hello").await;
    for text in ["one", "two"] {
        stream.write_all(text.as_bytes()).await.unwrap();
        until(&mut stream, text).await;
    }
    stream.shutdown().await.unwrap();
    assert_eq!(rest(&mut stream).await, "end");
}

#[tokio::test]
async fn http2_is_not_turned_to_in_the_middle() {
    let stage = Stage::new().await;
    agrees(&stage);
    let fields = "Connection: Upgrade, HTTP2-Settings, close\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\n";
    let answer = stage.ask(&request("GET /", fields)).await;
    assert!(
        answer.starts_with("HTTP/1.1 200 ") && answer.ends_with("plain"),
        "{answer}"
    );
}

#[tokio::test]
async fn a_websocket_ends_with_the_proxy() {
    let stage = Stage::new().await;
    agrees(&stage);
    let mut stream = stage.connect().await;
    stream
        .write_all(request("GET /", ASK).as_bytes())
        .await
        .unwrap();
    until(&mut stream, "hello").await;
    let grace = std::time::Duration::from_millis(50);
    soon(stage.serving.shutdown(grace)).await;
    assert_eq!(rest(&mut stream).await, "");
}

#[tokio::test]
async fn a_peer_that_is_gone_ends_a_websocket_for_the_other_one() {
    for server_leaves in [false, true] {
        let stage = Stage::new().await;
        let (tell, mut told) = mpsc::unbounded_channel();
        stage.serve(move |mut stream| {
            let tell = tell.clone();
            async move {
                head(&mut stream).await;
                let agreed = b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\n\
                               Upgrade: websocket\r\n\r\nhello";
                stream.write_all(agreed).await.unwrap();
                if !server_leaves {
                    rest(&mut stream).await;
                }
                tell.send(()).unwrap();
            }
        });
        let mut stream = stage.connect().await;
        let asked = request("GET /", ASK);
        stream.write_all(asked.as_bytes()).await.unwrap();
        until(&mut stream, "hello").await;
        if server_leaves {
            assert_eq!(rest(&mut stream).await, "");
        } else {
            drop(stream);
        }
        soon(told.recv()).await.unwrap();
    }
}
