//! Real servers in sandboxes of this machine.

#![cfg(target_os = "linux")]
#![expect(
    clippy::unwrap_used,
    reason = "clippy takes the helpers of an integration test for a program"
)]

use sandbox_core::{
    Command, CreateOptions, ErrorKind, FilesExt, Process, Sandbox, SandboxProvider,
};
use sandbox_local::LocalProvider;
use sandbox_proxy::{Proxy, Ready};
use std::{sync::Arc, time::Duration};
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

const LIMIT: Duration = Duration::from_secs(30);

struct Machine {
    provider: Arc<LocalProvider>,
    sandbox: Arc<dyn Sandbox>,
    _state: TempDir,
}

impl Machine {
    async fn new() -> Self {
        let state = tempfile::tempdir().unwrap();
        let provider = LocalProvider::builder().state_dir(state.path()).build();
        let provider = Arc::new(provider.unwrap());
        let options = CreateOptions::new().name("web");
        let sandbox = provider.create(options).await.unwrap();
        Self {
            provider,
            sandbox,
            _state: state,
        }
    }

    async fn start(&self, script: &str) -> Process {
        self.sandbox.spawn(Command::shell(script)).await.unwrap()
    }
}

const SERVER: &str = "exec python3 -u -m http.server 8000 --bind 127.0.0.1 --directory /tmp";

#[tokio::test]
async fn a_server_is_waited_for_and_served_by_name() {
    let machine = Machine::new().await;
    let contents: Vec<u8> = (0..4_000_000_u32).flat_map(u32::to_le_bytes).collect();
    let files = machine.sandbox.files();
    files
        .write_bytes("/tmp/big", contents.clone())
        .await
        .unwrap();
    let mut server = machine.start(&format!("sleep 0.3; {SERVER}")).await;
    let ready = Ready::http(8000).path("/big");
    ready
        .wait(&*machine.sandbox, &mut server, LIMIT)
        .await
        .unwrap();
    drop(server);

    let provider: Arc<dyn SandboxProvider> = Arc::clone(&machine.provider) as _;
    let proxy = Proxy::new(provider).listen("127.0.0.1:0".parse().unwrap());
    let serving = proxy.await.unwrap();
    for sandbox in ["web", machine.sandbox.id().as_str()] {
        let mut stream = TcpStream::connect(serving.address()).await.unwrap();
        let asked = format!(
            "GET /big HTTP/1.1\r\nHost: 8000-{sandbox}.localhost\r\nConnection: close\r\n\r\n"
        );
        stream.write_all(asked.as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        let read = stream.read_to_end(&mut answer);
        tokio::time::timeout(LIMIT, read).await.unwrap().unwrap();
        assert!(answer.starts_with(b"HTTP/1.1 200 OK\r\n"));
        assert!(answer.ends_with(&contents), "{} bytes", answer.len());
    }
}

#[tokio::test]
async fn a_line_and_a_port_are_waited_for() {
    let machine = Machine::new().await;
    let mut server = machine.start(SERVER).await;
    let ready = Ready::log("Serving HTTP on 127.0.0.1 port 8000");
    ready
        .wait(&*machine.sandbox, &mut server, LIMIT)
        .await
        .unwrap();
    let ready = Ready::port(8000);
    ready
        .wait(&*machine.sandbox, &mut server, LIMIT)
        .await
        .unwrap();

    // A second one finds the port taken, and says so.
    let mut second = machine.start(SERVER).await;
    let ready = Ready::port(8001);
    let error = ready
        .wait(&*machine.sandbox, &mut second, LIMIT)
        .await
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidState);
    let log = error.context("log").unwrap();
    assert!(log.contains("Address already in use"), "{log}");
}
