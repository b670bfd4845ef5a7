//! Reads and writes the standard streams on threads of their own. Whoever gave us a stream may have made it one that
//! does not wait; it is waited for all the same.

use rustix::{
    event::{PollFd, PollFlags, poll},
    io::{Errno, retry_on_intr},
};
use sandbox::Bytes;
use std::{io, os::fd::AsFd, thread};
use tokio::sync::mpsc;

/// How much is read from standard input at a time.
const CHUNK: usize = 64 * 1024;

/// Reads standard input on a thread of its own, which the end of this program does not wait for. It reads one piece
/// ahead, so a program that does not read stops whoever writes to us. It ends early, as if there were no more, once
/// `is_over` says so.
pub(crate) fn read_stdin(is_over: fn() -> bool) -> mpsc::Receiver<io::Result<Bytes>> {
    let (sender, receiver) = mpsc::channel(1);
    thread::spawn(move || {
        let mut buffer = vec![0; CHUNK];
        while !is_over() {
            let piece = match read(io::stdin(), &mut buffer) {
                Ok(0) => return,
                Ok(read) => Ok(Bytes::copy_from_slice(&buffer[..read])),
                Err(error) => Err(error),
            };
            let was_last = piece.is_err();
            if sender.blocking_send(piece).is_err() || was_last {
                return;
            }
        }
    });
    receiver
}

/// Not by std, which takes a stream that is not open for reading for an empty one.
fn read(stream: impl AsFd, buffer: &mut [u8]) -> io::Result<usize> {
    loop {
        match retry_on_intr(|| rustix::io::read(&stream, &mut *buffer)) {
            Err(Errno::AGAIN) => wait(&stream, PollFlags::IN)?,
            result => return Ok(result?),
        }
    }
}

/// Writes all of it.
pub(crate) fn write_all(stream: impl AsFd, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        match retry_on_intr(|| rustix::io::write(&stream, bytes)) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(written) => bytes = &bytes[written..],
            Err(Errno::AGAIN) => wait(&stream, PollFlags::OUT)?,
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

fn wait(stream: impl AsFd, events: PollFlags) -> io::Result<()> {
    let mut streams = [PollFd::new(&stream, events)];
    retry_on_intr(|| poll(&mut streams, None))?;
    Ok(())
}
