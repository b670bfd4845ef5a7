//! How whoever changes a sandbox's policy tells whoever serves its network: a socket beside the record.

use super::ask::{DONE, ask, reason, refused};
use crate::{linux::socket, sys};
use rustix::{
    io::Errno,
    net::{RecvFlags, SendFlags, SocketFlags, accept_with},
};
use sandbox_core::{Error, ErrorKind, Existing, Result};
use serde::{Deserialize, Serialize};
use std::{
    io,
    os::fd::{BorrowedFd, OwnedFd},
    time::Duration,
};
use tokio::{io::Interest, time::timeout};

/// Name of the socket in a record's directory.
const SOCKET: &str = "network.sock";

/// How long who serves may take to answer, which waits for nobody long.
const WITHIN: Duration = Duration::from_secs(10);

/// How long who asks may take to say what, while others wait.
const ASKED_WITHIN: Duration = Duration::from_millis(500);

/// What is asked.
const KEEP: &[u8] = b"keep";
const CUT: &[u8] = b"cut";
const TRAFFIC: &[u8] = b"traffic";

/// Makes the socket in the record's directory, in the place of one that is left.
pub(super) fn listen(record: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    match rustix::fs::unlinkat(record, SOCKET, rustix::fs::AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => {}
        Err(errno) => return Err(errno.into()),
    }
    socket::listen(record, SOCKET)
}

/// What whoever serves a network can be asked.
pub(super) trait Server: Send + Sync {
    /// Goes by the policy as it is now.
    fn apply(&self, existing: Existing) -> Result<()>;

    /// What was carried so far.
    fn traffic(&self) -> Traffic;
}

/// What was carried for a sandbox, since it is served by the one who is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Traffic {
    pub(crate) sent: u64,
    pub(crate) received: u64,
    /// Open now.
    pub(crate) connections: u64,
    pub(crate) refused: u64,
}

/// Answers all that ask, until it is dropped. Must be polled by a runtime.
pub(super) async fn serve(listener: OwnedFd, server: impl Server) -> io::Result<()> {
    let listener = sys::watch(listener, Interest::READABLE)?;
    loop {
        let mut ready = listener.readable().await?;
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        match accept_with(listener.get_ref(), flags) {
            Ok(connection) => {
                // Whoever is gone before the answer does not need it.
                let _ = timeout(ASKED_WITHIN, answer(connection, &server)).await;
            }
            Err(Errno::AGAIN) => ready.clear_ready(),
            Err(Errno::INTR | Errno::CONNABORTED) => {}
            Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
        }
    }
}

async fn answer(connection: OwnedFd, server: &impl Server) -> io::Result<()> {
    let connection = sys::watch(connection, Interest::READABLE)?;
    let request = loop {
        let mut ready = connection.readable().await?;
        let mut request = [0; 16];
        match rustix::net::recv(connection.get_ref(), &mut request, RecvFlags::DONTWAIT) {
            Err(Errno::AGAIN) => ready.clear_ready(),
            Err(errno) => return Err(errno.into()),
            Ok((length, _)) => break request[..length].to_vec(),
        }
    };
    let done = |()| DONE.to_vec();
    let answered = match request.as_slice() {
        KEEP => server.apply(Existing::Keep).map(done),
        CUT => server.apply(Existing::Cut).map(done),
        TRAFFIC => Ok(serde_json::to_vec(&server.traffic())?),
        _ => Err(Error::invalid("this is no question about a network")),
    };
    let told = answered.unwrap_or_else(|error| reason(&error));
    rustix::net::send(connection.get_ref(), &told, SendFlags::NOSIGNAL)?;
    Ok(())
}

/// Tells whoever serves the network that the policy has changed, and waits until it is applied; false if nobody does.
pub(super) fn tell(record: BorrowedFd<'_>, existing: Existing) -> Result<bool> {
    let failed = |error: io::Error| {
        let message = "whoever serves the sandbox's network does not answer; the new policy holds when it is served again";
        Error::new(ErrorKind::Unavailable, message).with_source(error)
    };
    let request = match existing {
        Existing::Keep => KEEP,
        _ => CUT,
    };
    match ask(record, SOCKET, request, WITHIN)
        .map_err(failed)?
        .as_deref()
    {
        None => Ok(false),
        Some(DONE) => Ok(true),
        Some(answer) => Err(failed(refused(answer))),
    }
}

/// What was carried for the sandbox so far; `None` if nobody serves it.
pub(super) fn traffic(record: BorrowedFd<'_>) -> io::Result<Option<Traffic>> {
    let told = ask(record, SOCKET, TRAFFIC, WITHIN)?;
    let read = |told: Vec<u8>| serde_json::from_slice(&told);
    Ok(told.map(read).transpose()?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{
        fs::File,
        os::fd::AsFd,
        sync::{Arc, Mutex},
    };

    /// Applies two changes and no more.
    #[derive(Default)]
    struct Counting(Arc<Mutex<Vec<Existing>>>);

    impl Server for Counting {
        fn apply(&self, existing: Existing) -> Result<()> {
            let mut seen = self.0.lock().unwrap();
            seen.push(existing);
            match seen.len() {
                3 => Err(Error::invalid("three are too many")),
                _ => Ok(()),
            }
        }

        fn traffic(&self) -> Traffic {
            Traffic {
                sent: 1,
                received: u64::MAX,
                connections: self.0.lock().unwrap().len() as u64,
                refused: 4,
            }
        }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_change_is_applied_before_it_is_answered() {
        let record = tempfile::tempdir().unwrap();
        let directory = File::open(record.path()).unwrap();
        assert!(!tell(directory.as_fd(), Existing::Cut).unwrap());
        let listener = listen(directory.as_fd()).unwrap();
        let applied = Arc::new(Mutex::new(Vec::new()));
        let serving = tokio::spawn(serve(listener, Counting(Arc::clone(&applied))));
        let told = |existing| {
            let directory = directory.try_clone().unwrap();
            tokio::task::spawn_blocking(move || tell(directory.as_fd(), existing))
        };
        assert!(told(Existing::Cut).await.unwrap().unwrap());
        assert!(told(Existing::Keep).await.unwrap().unwrap());
        assert_eq!(*applied.lock().unwrap(), [Existing::Cut, Existing::Keep]);
        let asked = directory.try_clone().unwrap();
        let traffic = tokio::task::spawn_blocking(move || traffic(asked.as_fd()));
        let traffic = traffic.await.unwrap().unwrap().unwrap();
        assert_eq!((traffic.connections, traffic.received), (2, u64::MAX));
        let refused = told(Existing::Cut).await.unwrap().unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::Unavailable);
        serving.abort();
        assert!(serving.await.unwrap_err().is_cancelled());
        assert!(!told(Existing::Cut).await.unwrap().unwrap());
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn who_says_nothing_sensible_holds_nobody_up() {
        let record = tempfile::tempdir().unwrap();
        let directory = File::open(record.path()).unwrap();
        let listener = listen(directory.as_fd()).unwrap();
        let serving = tokio::spawn(serve(listener, Counting::default()));
        let gone = socket::connect(directory.as_fd(), SOCKET).unwrap();
        drop(gone);
        let odd = socket::connect(directory.as_fd(), SOCKET).unwrap();
        rustix::net::send(&odd, &[0xff; 4000], SendFlags::NOSIGNAL).unwrap();
        let told = tokio::task::spawn_blocking(move || tell(directory.as_fd(), Existing::Keep));
        assert!(told.await.unwrap().unwrap());
        serving.abort();
    }
}
