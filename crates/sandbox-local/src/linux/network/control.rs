//! How whoever changes a sandbox's policy tells whoever serves its network: a socket beside the record.

use crate::{linux::socket, sys};
use rustix::{
    io::Errno,
    net::{RecvFlags, SendFlags, SocketFlags, accept_with},
};
use sandbox_core::{Error, ErrorKind, Existing, Result};
use std::{
    io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    time::Duration,
};
use tokio::{io::Interest, time::timeout};

/// Name of the socket in a record's directory.
const SOCKET: &str = "network.sock";

/// How long the other side may take, which is another program of the same user.
const WITHIN: Duration = Duration::from_secs(5);

/// What is said if all went well.
const DONE: &[u8] = b"done";

/// Longest reason why it did not.
const LONGEST: usize = 1024;

/// Makes the socket in the record's directory, in the place of one that is left.
pub(super) fn listen(record: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    match rustix::fs::unlinkat(record, SOCKET, rustix::fs::AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => {}
        Err(errno) => return Err(errno.into()),
    }
    socket::listen(record, SOCKET)
}

/// Has each change applied, until it is dropped. Must be polled by a runtime.
pub(super) async fn serve(
    listener: OwnedFd,
    apply: impl Fn(Existing) -> Result<()> + Send + Sync,
) -> io::Result<()> {
    let listener = sys::watch(listener, Interest::READABLE)?;
    loop {
        let mut ready = listener.readable().await?;
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        match accept_with(listener.get_ref(), flags) {
            Ok(connection) => {
                // Whoever is gone before the answer does not need it.
                let _ = timeout(WITHIN, answer(connection, &apply)).await;
            }
            Err(Errno::AGAIN) => ready.clear_ready(),
            Err(Errno::INTR | Errno::CONNABORTED) => {}
            Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
        }
    }
}

async fn answer(
    connection: OwnedFd,
    apply: &(impl Fn(Existing) -> Result<()> + Sync),
) -> io::Result<()> {
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
    let applied = match request.as_slice() {
        b"keep" => apply(Existing::Keep),
        b"cut" => apply(Existing::Cut),
        _ => Err(Error::invalid("this is no change of a policy")),
    };
    let told = match &applied {
        Ok(()) => DONE.to_vec(),
        Err(error) => error.to_string().bytes().take(LONGEST).collect(),
    };
    rustix::net::send(connection.get_ref(), &told, SendFlags::NOSIGNAL)?;
    Ok(())
}

/// Tells whoever serves the network that the policy has changed, and waits until it is applied; false if nobody does.
pub(super) fn tell(record: BorrowedFd<'_>, existing: Existing) -> Result<bool> {
    let failed = |error: io::Error| {
        let message = "whoever serves the sandbox's network does not answer; the new policy holds when it is served again";
        Error::new(ErrorKind::Unavailable, message).with_source(error)
    };
    let connection = match socket::connect(record, SOCKET) {
        Ok(connection) => connection,
        Err(error)
            if matches!(
                error.kind(),
                io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused
            ) =>
        {
            return Ok(false);
        }
        Err(error) => return Err(failed(error)),
    };
    let request: &[u8] = match existing {
        Existing::Keep => b"keep",
        _ => b"cut",
    };
    let mut answer = [0; LONGEST];
    let answer = rustix::net::send(&connection, request, SendFlags::NOSIGNAL)
        .map_err(io::Error::from)
        .and_then(
            |_| match crate::linux::made::wait(connection.as_fd(), WITHIN) {
                true => Ok(rustix::net::recv(
                    &connection,
                    &mut answer,
                    RecvFlags::empty(),
                )?),
                false => Err(io::ErrorKind::TimedOut.into()),
            },
        )
        .map(|(length, _)| &answer[..length])
        .map_err(failed)?;
    match answer {
        DONE => Ok(true),
        [] => Err(failed(io::ErrorKind::UnexpectedEof.into())),
        reason => {
            let reason = String::from_utf8_lossy(reason).into_owned();
            Err(failed(io::Error::other(reason)))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{
        fs::File,
        sync::{Arc, Mutex},
    };

    #[tokio::test(flavor = "multi_thread")]
    async fn a_change_is_applied_before_it_is_answered() {
        let record = tempfile::tempdir().unwrap();
        let directory = File::open(record.path()).unwrap();
        assert!(!tell(directory.as_fd(), Existing::Cut).unwrap());
        let listener = listen(directory.as_fd()).unwrap();
        let applied = Arc::new(Mutex::new(Vec::new()));
        let seen = Arc::clone(&applied);
        let serving = tokio::spawn(serve(listener, move |existing| {
            let mut seen = seen.lock().unwrap();
            seen.push(existing);
            match seen.len() {
                3 => Err(Error::invalid("three are too many")),
                _ => Ok(()),
            }
        }));
        let told = |existing| {
            let directory = directory.try_clone().unwrap();
            tokio::task::spawn_blocking(move || tell(directory.as_fd(), existing))
        };
        assert!(told(Existing::Cut).await.unwrap().unwrap());
        assert!(told(Existing::Keep).await.unwrap().unwrap());
        assert_eq!(*applied.lock().unwrap(), [Existing::Cut, Existing::Keep]);
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
        let serving = tokio::spawn(serve(listener, |_| Ok(())));
        let gone = socket::connect(directory.as_fd(), SOCKET).unwrap();
        drop(gone);
        let odd = socket::connect(directory.as_fd(), SOCKET).unwrap();
        rustix::net::send(&odd, &[0xff; 4000], SendFlags::NOSIGNAL).unwrap();
        let told = tokio::task::spawn_blocking(move || tell(directory.as_fd(), Existing::Keep));
        assert!(told.await.unwrap().unwrap());
        serving.abort();
    }
}
