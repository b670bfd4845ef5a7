//! Connections to servers inside, and their addresses.

use crate::{
    case::Case,
    failure::{Result, Stop, ensure, refused, same, same_bytes},
    process::{sh, start},
    spec::cases,
};
use futures_util::future::{join, try_join_all};
use sandbox_core::{Command, ErrorKind, PortStream, Sandbox, SandboxExt, SandboxState};
use std::{
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

cases! { "ports":
    a_server_on_loopback_is_reached [Ports, Shell],
    nobody_listening_is_an_error_at_once [Ports],
    there_is_no_port_0 [Ports],
    large_bodies_pass_both_ways_at_a_time [Ports, Shell],
    each_direction_ends_by_itself [Ports, Shell],
    a_peer_that_ends_is_noticed [Ports, Shell],
    many_connections_stand_at_a_time [Ports, Shell],
    a_connection_ends_with_its_sandbox [Ports, Shell],
    a_sandbox_that_is_gone_has_none [Ports],
    a_paused_sandbox_is_not_reached [Ports, Pause, Shell],
    a_connection_keeps_the_sandbox_from_being_idle [Ports, Shell],
    a_preview_url_is_a_url [Previews],
}

/// Where servers listen.
const PORT: u16 = 8123;

/// Sends back what comes, from a process for each connection, and `end` after it; told `quit`, it ends the connection.
const ECHO: &str = r#"
use IO::Socket::INET;
$| = 1;
$SIG{CHLD} = "IGNORE";
my $server = IO::Socket::INET->new(LocalAddr => "127.0.0.1", LocalPort => 8123, Listen => 128, ReuseAddr => 1)
    or die "listen: $!";
print "listening\n";
while (1) {
    my $peer = $server->accept or next;
    my $child = fork;
    die "fork: $!" unless defined $child;
    if ($child) { close $peer; next }
    close $server;
    while (sysread $peer, my $bytes, 65536) {
        exit if $bytes eq "quit";
        my $at = 0;
        $at += syswrite $peer, $bytes, length($bytes) - $at, $at while $at < length $bytes;
    }
    syswrite $peer, "end";
    exit;
}
"#;

/// A sandbox in which the server listens, unless it has no interpreter for it.
async fn serving(case: &Case) -> Result<Arc<dyn Sandbox>> {
    let sandbox = case.sandbox().await?;
    serve(&*sandbox).await?;
    Ok(sandbox)
}

/// Starts the server and lets it run by itself.
async fn serve(sandbox: &dyn Sandbox) -> Result {
    if sh(sandbox, "command -v perl || true").await?.is_empty() {
        return Err(Stop::Ignored("there is no perl inside".into()));
    }
    let server = Command::new("perl").arg("-e").arg(ECHO).merge_stderr();
    start(sandbox, server).await?.until("listening").await
}

async fn connect(sandbox: &dyn Sandbox) -> Result<PortStream> {
    Ok(sandbox.require_ports()?.connect(PORT).await?)
}

/// A read or a write that should have worked.
#[track_caller]
fn works<T>(result: std::io::Result<T>, what: &str) -> Result<T> {
    result.map_err(|error| Stop::failed(format_args!("{what}: {error}")))
}

/// Says something and hears it again.
async fn talk(stream: &mut PortStream, text: &str) -> Result {
    works(stream.write_all(text.as_bytes()).await, "write")?;
    works(stream.flush().await, "flush")?;
    let mut heard = vec![0; text.len()];
    works(stream.read_exact(&mut heard).await, "read")?;
    same_bytes(heard, text, "what comes back")
}

async fn a_server_on_loopback_is_reached(case: &Case) -> Result {
    let sandbox = serving(case).await?;
    talk(&mut connect(&*sandbox).await?, "hello").await
}

async fn nobody_listening_is_an_error_at_once(case: &Case) -> Result {
    let sandbox = case.sandbox().await?;
    let began = Instant::now();
    let connected = sandbox.require_ports()?.connect(PORT).await;
    refused(connected, ErrorKind::NotFound, "a port without a server")?;
    let took = began.elapsed();
    let at_once = took < case.harness().deadline / 4;
    ensure(at_once, format_args!("it took {took:?}"))
}

async fn there_is_no_port_0(case: &Case) -> Result {
    let sandbox = case.sandbox().await?;
    let connected = sandbox.require_ports()?.connect(0).await;
    refused(connected, ErrorKind::InvalidArgument, "port 0")
}

async fn large_bodies_pass_both_ways_at_a_time(case: &Case) -> Result {
    let sandbox = serving(case).await?;
    let (mut reader, mut writer) = tokio::io::split(connect(&*sandbox).await?);
    // Numbers, so that what is lost or moved shows.
    let sent: Vec<u8> = (0..2_000_000_u32).flat_map(u32::to_le_bytes).collect();
    let mut heard = Vec::new();
    let write = async {
        writer.write_all(&sent).await?;
        writer.shutdown().await
    };
    let (written, read) = join(write, reader.read_to_end(&mut heard)).await;
    works(written, "write")?;
    works(read, "read")?;
    ensure(heard.ends_with(b"end"), "the server did not read the end")?;
    same_bytes(&heard[..heard.len() - 3], sent, "what comes back")
}

async fn each_direction_ends_by_itself(case: &Case) -> Result {
    let sandbox = serving(case).await?;
    let mut stream = connect(&*sandbox).await?;
    talk(&mut stream, "first").await?;
    works(stream.shutdown().await, "shutdown")?;
    let mut rest = Vec::new();
    works(stream.read_to_end(&mut rest).await, "read")?;
    same_bytes(rest, "end", "what comes after this side has ended")
}

async fn a_peer_that_ends_is_noticed(case: &Case) -> Result {
    let sandbox = serving(case).await?;
    let mut stream = connect(&*sandbox).await?;
    talk(&mut stream, "first").await?;
    works(stream.write_all(b"quit").await, "write")?;
    let mut rest = Vec::new();
    works(stream.read_to_end(&mut rest).await, "read")?;
    same_bytes(rest, "", "what comes of a server that ends")
}

async fn many_connections_stand_at_a_time(case: &Case) -> Result {
    let sandbox = serving(case).await?;
    let all = (0..40).map(|_| connect(&*sandbox));
    let mut all = try_join_all(all).await?;
    for round in 0..2 {
        let talks = all.iter_mut().enumerate();
        let talks = talks.map(|(at, stream)| async move {
            let text = format!("connection {at} in round {round}");
            talk(stream, &text).await
        });
        try_join_all(talks).await?;
    }
    Ok(())
}

async fn a_connection_ends_with_its_sandbox(case: &Case) -> Result {
    let sandbox = serving(case).await?;
    let mut stream = connect(&*sandbox).await?;
    talk(&mut stream, "hello").await?;
    sandbox.kill().await?;
    // That it ends is what counts; to some it looks like a reset.
    let mut rest = Vec::new();
    let _reset = stream.read_to_end(&mut rest).await;
    same_bytes(rest, "", "what comes of a sandbox that is gone")
}

async fn a_sandbox_that_is_gone_has_none(case: &Case) -> Result {
    let sandbox = case.sandbox().await?;
    sandbox.kill().await?;
    let connected = sandbox.require_ports()?.connect(PORT).await;
    refused(
        connected,
        ErrorKind::SandboxNotFound,
        "a port after the end",
    )
}

async fn a_paused_sandbox_is_not_reached(case: &Case) -> Result {
    let sandbox = serving(case).await?;
    let (ports, pause) = (sandbox.require_ports()?, sandbox.require_pause()?);
    let mut before = connect(&*sandbox).await?;
    pause.pause().await?;
    let connected = ports.connect(PORT).await;
    refused(connected, ErrorKind::InvalidState, "a port while paused")?;
    pause.resume().await?;
    talk(&mut before, "from before").await?;
    talk(&mut connect(&*sandbox).await?, "from after").await
}

async fn a_connection_keeps_the_sandbox_from_being_idle(case: &Case) -> Result {
    const IDLE: Duration = Duration::from_secs(2);
    let options = case.options().idle_timeout(IDLE);
    let sandbox = case.sandbox_with(options).await?;
    serve(&*sandbox).await?;
    let mut stream = connect(&*sandbox).await?;
    let began = Instant::now();
    let patience = case.patience("twice the idle timeout");
    while began.elapsed() < IDLE * 2 {
        talk(&mut stream, "still there").await?;
        patience.rest().await?;
    }
    same(
        sandbox.info().await?.state,
        SandboxState::Running,
        "a sandbox with a connection",
    )?;
    drop(stream);
    let patience = case.patience("the idle sandbox to end");
    while sandbox.info().await.is_ok() {
        patience.rest().await?;
    }
    Ok(())
}

async fn a_preview_url_is_a_url(case: &Case) -> Result {
    let sandbox = case.sandbox().await?;
    let previews = sandbox.require_previews()?;
    let (one, two) = (previews.url(8080).await?, previews.url(8081).await?);
    ensure(one.contains("://"), format_args!("{one:?} has no scheme"))?;
    ensure(one != two, "two ports have one URL")
}
