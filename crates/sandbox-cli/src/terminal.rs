//! The terminal this program runs on: its size, and its raw mode, which is always undone.

use rustix::termios::{self, OptionalActions, Termios};
use sandbox::PtySize;
use std::io::{self, IsTerminal};

/// Whether both standard input and output are terminals.
pub(crate) fn is_interactive() -> bool {
    io::stdin().is_terminal() && io::stdout().is_terminal()
}

/// Whether standard input is a terminal that belongs to others now: reading it would stop this program.
pub(crate) fn is_in_background() -> bool {
    match termios::tcgetpgrp(io::stdin()) {
        Ok(foreground) => foreground != rustix::process::getpgrp(),
        Err(_) => false,
    }
}

/// The size of the terminal, or the usual one if there is none.
pub(crate) fn size() -> PtySize {
    let streams = [
        termios::tcgetwinsize(io::stdout()),
        termios::tcgetwinsize(io::stdin()),
    ];
    streams
        .into_iter()
        .flatten()
        .find(|size| size.ws_row > 0 && size.ws_col > 0)
        .map_or_else(PtySize::default, |size| {
            PtySize::new(size.ws_row, size.ws_col)
        })
}

/// Keys go to the program in the sandbox, Ctrl-C included, for as long as this value lives.
#[derive(Debug)]
pub(crate) struct RawMode(Option<Termios>);

impl RawMode {
    /// Does nothing if standard input is no terminal.
    pub(crate) fn enable() -> io::Result<Self> {
        let stdin = io::stdin();
        if !stdin.is_terminal() {
            return Ok(Self(None));
        }
        let before = termios::tcgetattr(&stdin)?;
        let mut raw = before.clone();
        raw.make_raw();
        termios::tcsetattr(&stdin, OptionalActions::Now, &raw)?;
        Ok(Self(Some(before)))
    }
}

impl Drop for RawMode {
    fn drop(&mut self) {
        if let Some(before) = &self.0 {
            // The terminal may be gone, and then there is nothing to restore.
            let _ = termios::tcsetattr(io::stdin(), OptionalActions::Drain, before);
        }
    }
}
