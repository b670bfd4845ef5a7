//! Queries by UDP. Whatever address a query was sent to, its answer comes from there.

use super::{
    dns::{self, Carrier},
    sandbox::Sandbox,
};
use nix::{
    cmsg_space,
    libc::{in_pktinfo, in6_pktinfo},
    sys::socket::{
        ControlMessage, ControlMessageOwned, MsgFlags, SockaddrStorage, recvmsg, sendmsg,
    },
};
use std::{
    io::{self, IoSlice, IoSliceMut},
    os::fd::AsRawFd,
    sync::Arc,
    time::Duration,
};
use tokio::{io::Interest, net::UdpSocket, task::JoinSet, time::sleep};

/// Longest query that is read.
const LONGEST: usize = 4096;

/// How long nothing is read after an error that may come again at once.
const PAUSE: Duration = Duration::from_millis(20);

/// A query and where its answer goes.
struct Query {
    bytes: Vec<u8>,
    from: SockaddrStorage,
    to: To,
}

/// The address that was asked.
#[derive(Clone, Copy)]
enum To {
    V4(in_pktinfo),
    V6(in6_pktinfo),
    Unknown,
}

/// Answers queries until it is dropped.
pub(super) async fn serve(sandbox: Arc<Sandbox>, socket: UdpSocket) {
    let socket = Arc::new(socket);
    let mut answers = JoinSet::new();
    loop {
        sandbox.query_turn().await;
        while answers.try_join_next().is_some() {}
        let query = match receive(&socket).await {
            Ok(Some(query)) => query,
            Ok(None) => continue,
            Err(_) => {
                sleep(PAUSE).await;
                continue;
            }
        };
        let socket = Arc::clone(&socket);
        let Ok(turn) = Arc::clone(&sandbox.queries).try_acquire_owned() else {
            if let Some(answer) = dns::too_many(&query.bytes) {
                let _ = send(&socket, &query, &answer);
            }
            continue;
        };
        let sandbox = Arc::clone(&sandbox);
        answers.spawn(async move {
            if let Some(answer) = dns::answer(&sandbox, &query.bytes, Carrier::Udp).await {
                // Who asked asks again if the answer is lost.
                let _ = send(&socket, &query, &answer);
            }
            drop(turn);
        });
    }
}

/// The next query; `None` for a datagram that is none.
async fn receive(socket: &UdpSocket) -> io::Result<Option<Query>> {
    socket
        .async_io(Interest::READABLE, || receive_now(socket))
        .await
}

fn receive_now(socket: &UdpSocket) -> io::Result<Option<Query>> {
    let mut bytes = [0; LONGEST];
    let mut control = cmsg_space!(in6_pktinfo, in_pktinfo);
    let mut parts = [IoSliceMut::new(&mut bytes)];
    let flags = MsgFlags::MSG_DONTWAIT;
    let message =
        recvmsg::<SockaddrStorage>(socket.as_raw_fd(), &mut parts, Some(&mut control), flags)?;
    let to = message.cmsgs()?.find_map(|message| match message {
        ControlMessageOwned::Ipv4PacketInfo(info) => Some(To::V4(info)),
        ControlMessageOwned::Ipv6PacketInfo(info) => Some(To::V6(info)),
        _ => None,
    });
    let (length, is_whole) = (message.bytes, !message.flags.contains(MsgFlags::MSG_TRUNC));
    let Some(from) = message.address.filter(|_| is_whole) else {
        return Ok(None);
    };
    Ok(Some(Query {
        bytes: bytes[..length].to_vec(),
        from,
        to: to.unwrap_or(To::Unknown),
    }))
}

fn send(socket: &UdpSocket, query: &Query, answer: &[u8]) -> io::Result<usize> {
    let parts = [IoSlice::new(answer)];
    let send = |control: &[ControlMessage<'_>]| {
        let flags = MsgFlags::MSG_DONTWAIT;
        sendmsg(
            socket.as_raw_fd(),
            &parts,
            control,
            flags,
            Some(&query.from),
        )
    };
    let sent = match query.to {
        To::V4(mut info) => {
            // The address to send from is another field than that of the packet that came.
            info.ipi_spec_dst = info.ipi_addr;
            send(&[ControlMessage::Ipv4PacketInfo(&info)])
        }
        To::V6(info) => send(&[ControlMessage::Ipv6PacketInfo(&info)]),
        To::Unknown => send(&[]),
    };
    Ok(sent?)
}
