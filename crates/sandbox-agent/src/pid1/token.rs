//! Which descriptor an epoll event is about, packed into the 64 bits that the kernel keeps for us.

/// A watched descriptor.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Token {
    /// The socket that connections come from.
    Listener,
    /// SIGCHLD.
    Children,
    /// The deadlines.
    Timer,
    /// The owner's pipe.
    Lifeline,
    /// The socket of `sudo`.
    Sudo,
    /// Whether the commands have stopped.
    Frozen,
    /// The socket that connections arrive at which leave the sandbox.
    Tcp,
    /// The one for questions for names.
    Dns,
    /// A connection.
    Connection(u64),
    /// The socket by which a new process says why it did not start.
    Status(u64),
    /// Standard input of a process.
    Stdin(u64),
    /// An output stream of a process, by its index.
    Output(u64, u8),
}

/// Numbers of processes and connections stay far below this bit.
const KIND: u32 = 56;

impl Token {
    /// Packs it.
    pub(super) fn pack(self) -> u64 {
        let (kind, number) = match self {
            Self::Listener => (0, 0),
            Self::Children => (1, 0),
            Self::Timer => (2, 0),
            Self::Lifeline => (3, 0),
            Self::Connection(number) => (4, number),
            Self::Status(number) => (5, number),
            Self::Stdin(number) => (6, number),
            Self::Sudo => (7, 0),
            Self::Frozen => (8, 0),
            Self::Tcp => (9, 0),
            Self::Dns => (10, 0),
            Self::Output(number, index) => (11 + u64::from(index), number),
        };
        kind << KIND | number
    }

    /// Undoes [`Token::pack`].
    pub(super) fn unpack(packed: u64) -> Self {
        let number = packed & ((1 << KIND) - 1);
        match packed >> KIND {
            0 => Self::Listener,
            1 => Self::Children,
            2 => Self::Timer,
            3 => Self::Lifeline,
            4 => Self::Connection(number),
            5 => Self::Status(number),
            6 => Self::Stdin(number),
            7 => Self::Sudo,
            8 => Self::Frozen,
            9 => Self::Tcp,
            10 => Self::Dns,
            kind => Self::Output(number, u8::try_from(kind - 11).unwrap_or(u8::MAX)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_survive_packing() {
        let number = (1 << 50) + 3;
        for token in [
            Token::Listener,
            Token::Children,
            Token::Timer,
            Token::Lifeline,
            Token::Sudo,
            Token::Frozen,
            Token::Tcp,
            Token::Dns,
            Token::Connection(number),
            Token::Status(number),
            Token::Stdin(0),
            Token::Output(number, 0),
            Token::Output(number, 1),
        ] {
            assert_eq!(Token::unpack(token.pack()), token);
        }
    }
}
