//! Queries by TCP: each has its length before it.

use super::{
    dns::{self, Carrier},
    sandbox::Sandbox,
    socket,
};
use std::{io, net::SocketAddr, time::Duration};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

/// How long a query may take to come, and its answer to go.
const PATIENCE: Duration = Duration::from_secs(10);

/// Longest query that is read.
const LONGEST: u16 = 2048;

/// Answers queries one after the other until the program has no more.
pub(super) async fn serve(
    sandbox: &Sandbox,
    mut stream: TcpStream,
    to: SocketAddr,
) -> io::Result<()> {
    let Some((number, _)) = sandbox.open(to) else {
        return Ok(());
    };
    socket::end(&stream)?;
    let _counted = Counted { sandbox, number };
    queries(sandbox, &mut stream).await
}

/// A connection that is counted until this is dropped.
struct Counted<'a> {
    sandbox: &'a Sandbox,
    number: u64,
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.sandbox.close(self.number);
    }
}

async fn queries(sandbox: &Sandbox, stream: &mut TcpStream) -> io::Result<()> {
    loop {
        let query = timeout(PATIENCE, query(stream)).await??;
        sandbox.query_turn().await;
        // All that are asked at the same time count, however they came.
        let turn = sandbox.queries.acquire().await.map_err(io::Error::other)?;
        let answer = dns::answer(sandbox, &query, Carrier::Tcp).await;
        drop(turn);
        let Some(answer) = answer else {
            return stream.set_zero_linger();
        };
        let length = u16::try_from(answer.len()).map_err(io::Error::other)?;
        let framed = [&length.to_be_bytes(), answer.as_slice()].concat();
        timeout(PATIENCE, stream.write_all(&framed)).await??;
    }
}

async fn query(stream: &mut TcpStream) -> io::Result<Vec<u8>> {
    let length = stream.read_u16().await?;
    if length > LONGEST {
        return Err(io::ErrorKind::InvalidData.into());
    }
    let mut query = vec![0; length.into()];
    stream.read_exact(&mut query).await?;
    Ok(query)
}
