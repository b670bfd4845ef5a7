//! What leaves the sandbox: the two sockets at which it arrives, and who outside serves them.
//!
//! As long as nobody does, everything is refused here at once, so that no program waits for what will not come.

use std::io;
use std::os::fd::{AsFd as _, OwnedFd};

use sandbox_agent::protocol::agent::{Event, Failure};

use super::agent::Agent;
use super::deadlines::{Due, after};
use super::dns;
use super::refusal::Refusal;
use super::token::Token;
use crate::sys::epoll::Watch;
use crate::sys::inet::{self, Family};
use crate::sys::pipe;

/// The sockets that everything arrives at.
#[derive(Debug)]
pub(crate) struct Caught {
    /// Accepts connections, which have the address that was meant as their own.
    pub(crate) tcp: OwnedFd,
    /// Receives questions for names, with the address that was asked.
    pub(crate) dns: OwnedFd,
    /// What both are for: IPv6 and IPv4, or IPv4 alone where there is nothing else.
    pub(crate) family: Family,
}

/// Connections or questions that are refused before others have their turn.
const TURN: usize = 64;

/// Milliseconds until more are refused, when there were too many descriptors.
const AGAIN_MS: u64 = 100;

/// The sandbox's side of its network.
#[derive(Debug)]
pub(super) struct Network {
    /// `None` if nothing can leave the sandbox.
    caught: Option<Caught>,
    /// The connection by which somebody outside has taken it.
    server: Option<u64>,
}

impl Network {
    pub(super) fn new(caught: Option<Caught>) -> Self {
        Self {
            caught,
            server: None,
        }
    }

    /// The sockets, as long as nobody else serves them.
    fn unserved(&self) -> Option<&Caught> {
        self.caught.as_ref().filter(|_| self.server.is_none())
    }
}

impl Agent {
    /// Refuses what leaves the sandbox from now on, unless somebody serves it.
    pub(super) fn watch_network(&mut self) {
        let Some(caught) = self.network.unserved() else {
            return;
        };
        // One of them may be watched already.
        self.unwatch(&caught.tcp);
        self.unwatch(&caught.dns);
        let result = self
            .watch(&caught.tcp, Token::Tcp, Watch::Readable)
            .and_then(|()| self.watch(&caught.dns, Token::Dns, Watch::Readable));
        if result.is_err() {
            self.watch_network_later();
        }
    }

    fn unwatch_network(&self) {
        if let Some(caught) = &self.network.caught {
            self.unwatch(&caught.tcp);
            self.unwatch(&caught.dns);
        }
    }

    /// Goes on refusing after a while.
    fn watch_network_later(&mut self) {
        self.unwatch_network();
        if let Some(at) = after(AGAIN_MS) {
            self.deadlines.add(at, Due::Network);
        }
    }

    /// Ends connections that leave the sandbox.
    pub(super) fn refuse_connections(&mut self) {
        if let Some(caught) = self.network.unserved() {
            // Whoever has served it may have made the socket wait. It fails only for what is no descriptor.
            let _ = pipe::set_nonblocking(caught.tcp.as_fd(), true);
        }
        self.refuse_each(|caught| inet::refuse(caught.tcp.as_fd()));
    }

    /// Answers questions for names with a failure.
    pub(super) fn refuse_questions(&mut self) {
        self.refuse_each(|caught| {
            let mut question = [0; dns::ROOM];
            let (len, mut sender) = inet::receive_from(caught.dns.as_fd(), &mut question)?;
            if let Some(answer) = dns::failure(&question[..len]) {
                // Who has asked may be gone, or not read.
                let _ = inet::send_back(caught.dns.as_fd(), &answer, &mut sender);
            }
            Ok(())
        });
    }

    /// Refuses some of what waits; the rest when others had their turn, for then it still waits.
    fn refuse_each(&mut self, refuse: impl Fn(&Caught) -> io::Result<()>) {
        let Some(caught) = self.network.unserved() else {
            return;
        };
        for _ in 0..TURN {
            match refuse(caught).map_err(|error| error.raw_os_error()) {
                Err(Some(libc::EAGAIN)) => return,
                // About the one that was taken.
                Ok(()) | Err(Some(libc::ECONNABORTED | libc::EINTR)) => {}
                // There are too many descriptors, or too little memory. It would stay ready, and keep the loop busy.
                Err(_) => return self.watch_network_later(),
            }
        }
    }

    /// Gives what leaves the sandbox to the connection, until that closes.
    pub(super) fn serve_network(&mut self, id: u64) -> Result<(), Refusal> {
        let Some(caught) = &self.network.caught else {
            let message = "the sandbox was made without a network";
            return Err(Refusal::new(Failure::Unsupported {}, message));
        };
        if self.network.server.is_some() {
            let message = "the sandbox's network is served already";
            return Err(Refusal::new(Failure::Busy {}, message));
        }
        let copies = [&caught.tcp, &caught.dns].map(OwnedFd::try_clone);
        let copies: io::Result<Vec<_>> = copies.into_iter().collect();
        let copies = copies.map_err(|error| Refusal::system("hand out its network", &error))?;
        let event = Event::Network {
            ipv6: caught.family == Family::V6,
        };
        self.unwatch_network();
        self.network.server = Some(id);
        if let Some(connection) = self.connections.get_mut(&id) {
            connection.send_with(&event, copies);
        }
        Ok(())
    }

    /// A connection is gone, which may have served the network.
    pub(super) fn release_network(&mut self, id: u64) {
        if self.network.server == Some(id) {
            self.network.server = None;
            self.watch_network();
        }
    }

    /// Hands out a socket of the sandbox's network on its way to `port` of the loopback address.
    pub(super) fn connect(&mut self, id: u64, port: u16, v6: bool) -> Result<(), Refusal> {
        if port == 0 {
            return Err(Refusal::invalid("nobody can listen on port 0"));
        }
        self.rest.require_unpaused()?;
        let family = if v6 { Family::V6 } else { Family::V4 };
        let socket = inet::connect_to_loopback(family, port).map_err(|error| {
            let nobody = [
                libc::ECONNREFUSED,
                libc::EAFNOSUPPORT,
                libc::EADDRNOTAVAIL,
                libc::ENETUNREACH,
            ];
            if error
                .raw_os_error()
                .is_some_and(|code| nobody.contains(&code))
            {
                let message = format!("nothing listens on port {port} of the sandbox");
                Refusal::new(Failure::NotFound {}, message)
            } else {
                Refusal::system("connect to its port", &error)
            }
        })?;
        if let Some(connection) = self.connections.get_mut(&id) {
            connection.reaches_ports = true;
            connection.send_with(&Event::Connecting {}, vec![socket]);
        }
        Ok(())
    }
}
