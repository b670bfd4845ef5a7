//! One port of a sandbox as a port of this machine.

use crate::stage::{PORT, Stage, rest, soon};
use sandbox_core::PortStream;
use sandbox_proxy::{Serving, forward};
use std::{sync::Arc, time::Duration};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

async fn start(stage: &Stage) -> Serving {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    forward(listener, Arc::clone(&stage.sandbox), PORT, |_| {}).unwrap()
}

/// Sends back what comes, with `end` after it.
async fn echo(mut stream: PortStream) {
    let mut buffer = vec![0; 50_000];
    loop {
        match stream.read(&mut buffer).await.unwrap() {
            0 => return stream.write_all(b"end").await.unwrap(),
            read => stream.write_all(&buffer[..read]).await.unwrap(),
        }
    }
}

#[tokio::test]
async fn bytes_pass_both_ways_and_each_end_by_itself() {
    let stage = Stage::new().await;
    stage.serve(echo);
    let serving = start(&stage).await;
    let stream = TcpStream::connect(serving.address()).await.unwrap();
    let (mut reader, mut writer) = stream.into_split();
    let sent: Vec<u8> = (0..2_000_000_u32).flat_map(u32::to_le_bytes).collect();
    let mut heard = Vec::new();
    let write = async {
        writer.write_all(&sent).await.unwrap();
        writer.shutdown().await.unwrap();
    };
    let read = async { reader.read_to_end(&mut heard).await.unwrap() };
    soon(async { tokio::join!(write, read) }).await;
    assert!(heard.strip_suffix(b"end") == Some(&*sent));
}

#[tokio::test]
async fn who_does_not_read_makes_the_server_wait() {
    let stage = Stage::new().await;
    let (tell, told) = tokio::sync::watch::channel(0_usize);
    stage.serve(move |mut stream| {
        let tell = tell.clone();
        async move {
            while stream.write_all(&[0; 10_000]).await.is_ok() {
                tell.send_modify(|sent| *sent += 10_000);
            }
        }
    });
    let serving = start(&stage).await;
    let mut stream = TcpStream::connect(serving.address()).await.unwrap();
    // It has stopped once nothing has come for a while. What lies on the way is in the buffers of the system and ours.
    let mut told = told;
    let pause = Duration::from_millis(300);
    while tokio::time::timeout(pause, told.changed()).await.is_ok() {}
    let waiting = *told.borrow_and_update();
    assert!(waiting < 64 * 1024 * 1024, "{waiting} bytes on the way");
    let mut buffer = vec![0; 8 * 1024 * 1024];
    soon(stream.read_exact(&mut buffer)).await.unwrap();
    soon(told.changed()).await.unwrap();
}

#[tokio::test]
async fn a_port_without_a_server_is_a_reset() {
    let stage = Stage::new().await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (tell, mut told) = tokio::sync::mpsc::unbounded_channel();
    let refused = move |error| tell.send(error).unwrap();
    let serving = forward(listener, Arc::clone(&stage.sandbox), PORT, refused).unwrap();
    let mut stream = TcpStream::connect(serving.address()).await.unwrap();
    let error = soon(stream.read_u8()).await.unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
    let why = soon(told.recv()).await.unwrap();
    assert_eq!(why.kind(), sandbox_core::ErrorKind::NotFound);
    // As soon as there is one it is reached.
    stage.serve(echo);
    let mut stream = TcpStream::connect(serving.address()).await.unwrap();
    stream.shutdown().await.unwrap();
    assert_eq!(rest(&mut stream).await, "end");
}

#[tokio::test]
async fn what_is_under_way_may_finish_and_then_ends() {
    let stage = Stage::new().await;
    stage.serve(echo);
    let serving = start(&stage).await;
    let address = serving.address();
    let mut done = TcpStream::connect(address).await.unwrap();
    let mut stays = TcpStream::connect(address).await.unwrap();
    for stream in [&mut done, &mut stays] {
        stream.write_all(b"x").await.unwrap();
        assert_eq!(soon(stream.read_u8()).await.unwrap(), b'x');
    }
    let shutdown = tokio::spawn(serving.shutdown(Duration::from_millis(500)));
    done.shutdown().await.unwrap();
    assert_eq!(rest(&mut done).await, "end");
    assert_eq!(rest(&mut stays).await, "");
    soon(shutdown).await.unwrap();
    assert!(TcpStream::connect(address).await.is_err());
}

#[tokio::test]
async fn a_drop_ends_everything() {
    let stage = Stage::new().await;
    stage.serve(echo);
    let serving = start(&stage).await;
    let mut stream = TcpStream::connect(serving.address()).await.unwrap();
    stream.write_all(b"x").await.unwrap();
    soon(stream.read_u8()).await.unwrap();
    drop(serving);
    assert_eq!(rest(&mut stream).await, "");
}
