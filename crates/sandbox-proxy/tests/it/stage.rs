//! A proxy before a fake, and clients and servers that say exactly what a test wants.

use sandbox_core::{CreateOptions, PortStream, Sandbox, SandboxProvider, fake::FakeProvider};
use sandbox_proxy::{Proxy, Serving};
use std::{future::Future, sync::Arc, time::Duration};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

/// The port of the server inside.
pub(crate) const PORT: u16 = 8000;

/// Longest time a test waits for something that should come at once.
const PATIENCE: Duration = Duration::from_secs(20);

pub(crate) struct Stage {
    pub(crate) fake: FakeProvider,
    pub(crate) sandbox: Arc<dyn Sandbox>,
    pub(crate) serving: Serving,
}

impl Stage {
    pub(crate) async fn new() -> Self {
        Self::with(|proxy| proxy).await
    }

    pub(crate) async fn with(set: impl FnOnce(Proxy) -> Proxy) -> Self {
        let fake = FakeProvider::new();
        let options = CreateOptions::new().name("box");
        let sandbox = fake.create(options).await.unwrap();
        let proxy = set(Proxy::new(Arc::new(fake.clone())));
        let serving = proxy.listen("127.0.0.1:0".parse().unwrap()).await.unwrap();
        Self {
            fake,
            sandbox,
            serving,
        }
    }

    /// Has the server inside answer each connection so.
    pub(crate) fn serve<F: Future<Output = ()> + Send + 'static>(
        &self,
        server: impl Fn(PortStream) -> F + Send + Sync + 'static,
    ) {
        self.fake.serve(PORT, server);
    }

    pub(crate) async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.serving.address()).await.unwrap()
    }

    /// Sends a whole request and reads all that comes, to the end of the connection.
    pub(crate) async fn ask(&self, request: &str) -> String {
        let mut stream = self.connect().await;
        stream.write_all(request.as_bytes()).await.unwrap();
        rest(&mut stream).await
    }

    /// As [`ask`](Self::ask), by a host and nothing else.
    pub(crate) async fn get(&self, host: &str) -> String {
        let request = format!("GET / HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
        self.ask(&request).await
    }
}

/// Waits for what should come soon.
pub(crate) async fn soon<T>(what: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, what).await.expect("in time")
}

/// Reads the head of a message, or a chunk's line, up to its end.
pub(crate) async fn until(stream: &mut (impl AsyncRead + Unpin), end: &str) -> String {
    let mut text = Vec::new();
    while !text.ends_with(end.as_bytes()) {
        let byte = soon(stream.read_u8()).await;
        let read = String::from_utf8_lossy(&text).into_owned();
        text.push(byte.unwrap_or_else(|error| panic!("{error} after {read:?}")));
    }
    String::from_utf8(text).unwrap()
}

pub(crate) async fn head(stream: &mut (impl AsyncRead + Unpin)) -> String {
    until(stream, "\r\n\r\n").await
}

/// Reads to the end, or to the break of the connection.
pub(crate) async fn rest(stream: &mut (impl AsyncRead + Unpin)) -> String {
    let mut text = Vec::new();
    let _broken = soon(stream.read_to_end(&mut text)).await;
    String::from_utf8(text).unwrap()
}

/// A request of one line and the fields.
pub(crate) fn request(line: &str, fields: &str) -> String {
    format!("{line} HTTP/1.1\r\nHost: {PORT}-box.localhost\r\n{fields}\r\n")
}
