//! The relay with real sockets, on loopback alone, which an operator would have opened for it.

mod leaks;
mod names;
mod nameserver;
mod requests;
mod streams;

use super::*;
use crate::{Floor, Name};
use nameserver::NameServer;
use sandbox_core::{Destination as Place, NetworkAction, NetworkEventKind, NetworkRule};
use std::{
    io::Read,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    sync::{
        Condvar, Mutex,
        atomic::{AtomicU16, Ordering},
    },
    time::{Duration, Instant},
};

/// How long anything may take.
const PATIENCE: Duration = Duration::from_secs(30);

/// What stands for the address by which sandboxes reach their host.
const HOST: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 200));

/// The rules of a test, with the default action last.
fn policy(rules: &[(NetworkAction, &str)], default: NetworkAction) -> Policy {
    let rule = |(action, place): &(NetworkAction, &str)| {
        let place = match place.parse::<ipnet::IpNet>() {
            Ok(network) => Place::Cidr {
                address: network.addr(),
                prefix: network.prefix_len(),
            },
            Err(_) => Place::Domain((*place).to_owned()),
        };
        NetworkRule::new(*action, place)
    };
    let rules = rules.iter().map(rule).collect();
    Policy::new(&NetworkPolicy::Rules { rules, default }).unwrap()
}

/// A list of what is allowed.
fn only(places: &[&str]) -> Policy {
    let rules: Vec<_> = places
        .iter()
        .map(|place| (NetworkAction::Allow, *place))
        .collect();
    policy(&rules, NetworkAction::Deny)
}

fn public() -> Policy {
    Policy::new(&NetworkPolicy::Public).unwrap()
}

/// All loopback addresses of IPv4, and that of IPv6.
fn open_floor() -> Floor {
    Floor::new()
        .open("127.0.0.0/8".parse().unwrap(), None)
        .open("::1/128".parse().unwrap(), None)
}

/// What has happened, for who waits for it.
#[derive(Default)]
struct Log {
    events: Mutex<Vec<NetworkEvent>>,
    more: Condvar,
}

impl Log {
    fn sink(self: &Arc<Self>) -> Sink {
        let log = Arc::clone(self);
        Arc::new(move |event| {
            log.events.lock().unwrap().push(event);
            log.more.notify_all();
        })
    }

    /// The first event of a kind, when it is there.
    fn wait(&self, kind: NetworkEventKind) -> NetworkEvent {
        self.wait_all(kind, 1).remove(0)
    }

    /// That many events of a kind, when they are there.
    fn wait_all(&self, kind: NetworkEventKind, count: usize) -> Vec<NetworkEvent> {
        let deadline = Instant::now() + PATIENCE;
        let mut events = self.events.lock().unwrap();
        loop {
            let found: Vec<_> = events.iter().filter(|event| event.kind == kind).collect();
            if found.len() >= count {
                return found.into_iter().cloned().collect();
            }
            let left = deadline.saturating_duration_since(Instant::now());
            assert!(!left.is_zero(), "no {count} of {kind:?} in {events:?}");
            events = self.more.wait_timeout(events, left).unwrap().0;
        }
    }

    fn count(&self, kind: NetworkEventKind) -> usize {
        let events = self.events.lock().unwrap();
        events.iter().filter(|event| event.kind == kind).count()
    }
}

/// A sandbox on loopback: what would be captured is sent here.
struct Captured {
    relay: Relay,
    served: Option<Served>,
    log: Arc<Log>,
    nameserver: NameServer,
    tcp: u16,
    udp: SocketAddr,
    /// The port that all connections are for.
    port: Arc<AtomicU16>,
}

impl Captured {
    fn new(policy: Policy) -> Self {
        Self::with(policy, open_floor(), Limits::default())
    }

    fn with(policy: Policy, floor: Floor, limits: Limits) -> Self {
        let udp = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        Self::on(policy, floor, limits, udp)
    }

    fn on(policy: Policy, floor: Floor, limits: Limits, udp: UdpSocket) -> Self {
        let nameserver = NameServer::start();
        let options = RelayOptions::new()
            .floor(floor)
            .nameservers(vec![nameserver.address()])
            .limits(limits);
        let relay = Relay::start(options).unwrap();
        let both = TcpListener::bind((Ipv6Addr::UNSPECIFIED, 0));
        let tcp = both
            .or_else(|_| TcpListener::bind((Ipv4Addr::UNSPECIFIED, 0)))
            .unwrap();
        let (tcp_address, udp_address) = (tcp.local_addr().unwrap(), udp.local_addr().unwrap());
        let port = Arc::new(AtomicU16::new(53));
        let (log, at) = (Arc::new(Log::default()), Arc::clone(&port));
        let destination: Destination = Arc::new(move |stream| {
            let ip = match stream.local_addr()?.ip().to_canonical() {
                HOST => IpAddr::V4(HOST_ADDRESS),
                ip => ip,
            };
            Ok(SocketAddr::new(ip, at.load(Ordering::SeqCst)))
        });
        let served = relay
            .serve_to(tcp, udp, policy, log.sink(), destination)
            .unwrap();
        Self {
            relay,
            served: Some(served),
            log,
            nameserver,
            tcp: tcp_address.port(),
            udp: udp_address,
            port,
        }
    }

    /// Connects to an address, as a program inside would, at the port of all connections.
    fn connect(&self, address: &str) -> std::net::TcpStream {
        let address: IpAddr = address.parse().unwrap();
        let stream = std::net::TcpStream::connect((address, self.tcp)).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_write_timeout(Some(PATIENCE)).unwrap();
        stream
    }

    /// Listens at an address, and has all connections go to that port.
    fn remote(&self, address: &str) -> Remote {
        let address: IpAddr = address.parse().unwrap();
        let listener = TcpListener::bind((address, 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        self.port.store(port, Ordering::SeqCst);
        Remote(listener)
    }

    fn served(&self) -> &Served {
        self.served.as_ref().unwrap()
    }
}

/// A host that sandboxes connect to.
struct Remote(TcpListener);

impl Remote {
    /// The next connection, when it is there.
    fn accept(&self) -> std::net::TcpStream {
        let mut waiting = [rustix::event::PollFd::new(
            &self.0,
            rustix::event::PollFlags::IN,
        )];
        let patience = rustix::event::Timespec::try_from(PATIENCE).unwrap();
        let ready = rustix::event::poll(&mut waiting, Some(&patience)).unwrap();
        assert_eq!(ready, 1, "nobody has connected");
        let (stream, _) = self.0.accept().unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_write_timeout(Some(PATIENCE)).unwrap();
        stream
    }

    /// Whether somebody has connected and said anything.
    fn has_heard(&self) -> bool {
        self.0.set_nonblocking(true).unwrap();
        let heard = std::iter::from_fn(|| self.0.accept().ok()).any(|(mut stream, _)| {
            let mut bytes = Vec::new();
            stream.set_nonblocking(false).unwrap();
            stream.set_read_timeout(Some(PATIENCE)).unwrap();
            let _ = stream.read_to_end(&mut bytes);
            !bytes.is_empty()
        });
        self.0.set_nonblocking(false).unwrap();
        heard
    }

    /// Whether somebody has connected.
    fn is_called(&self) -> bool {
        self.0.set_nonblocking(true).unwrap();
        self.0.accept().is_ok()
    }
}

/// Reads what comes until so many bytes are there.
fn read(stream: &mut std::net::TcpStream, length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    stream.read_exact(&mut bytes).unwrap();
    bytes
}

/// Waits for the end of a stream, which has to be a reset.
#[track_caller]
fn assert_reset(stream: &mut std::net::TcpStream) {
    let error = stream.read_to_end(&mut Vec::new()).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
}
