//! What the relay costs, without sandboxes: beside plain connections on loopback, and beside a relay that does nothing but
//! move bytes through a pipe. Run by `cargo bench -p sandbox-egress`.
//!
//! All sides take turns, so that a noisy moment hits each of them. A row that misses its aim is marked, and the exit code
//! is 1.
#![expect(clippy::print_stdout, reason = "its purpose is to print")]

use std::process::ExitCode;

#[cfg(not(target_os = "linux"))]
fn main() -> ExitCode {
    println!("nothing captures connections here");
    ExitCode::SUCCESS
}

#[cfg(target_os = "linux")]
fn main() -> anyhow::Result<ExitCode> {
    linux::run()
}

#[cfg(target_os = "linux")]
mod linux {
    use anyhow::{Context, Result};
    use rustix::pipe::{SpliceFlags, fcntl_setpipe_size, pipe, splice};
    use sandbox_egress::{Floor, Relay, RelayOptions, Served};
    use std::{
        io::{Read, Write},
        net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket},
        process::ExitCode,
        thread,
        time::{Duration, Instant},
    };

    const LOOPBACK: (Ipv4Addr, u16) = (Ipv4Addr::LOCALHOST, 0);
    const PIECE: usize = 256 * 1024;

    /// How connections go from one end to the other.
    enum Way {
        Plain,
        /// Through a thread that splices, with a pipe of its own.
        Bare,
        Relay,
    }

    /// A remote host, and the ways to it.
    struct Site {
        listener: TcpListener,
        through: SocketAddr,
        _relay: Relay,
        _served: Served,
    }

    impl Site {
        fn new() -> Result<Self> {
            let listener = TcpListener::bind(LOOPBACK)?;
            let to = listener.local_addr()?;
            let floor = Floor::new().open("127.0.0.1/32".parse()?, None);
            let options = RelayOptions::new().floor(floor).nameservers(vec![to]);
            let relay = Relay::start(options)?;
            let tcp = TcpListener::bind(LOOPBACK)?;
            let through = tcp.local_addr()?;
            let served = relay.serve_measured(tcp, UdpSocket::bind(LOOPBACK)?, to)?;
            Ok(Self {
                listener,
                through,
                _relay: relay,
                _served: served,
            })
        }

        /// Both ends of a connection.
        fn connect(&self, way: &Way) -> Result<(TcpStream, TcpStream)> {
            let to = self.listener.local_addr()?;
            let one = match way {
                Way::Plain => TcpStream::connect(to)?,
                Way::Relay => TcpStream::connect(self.through)?,
                Way::Bare => {
                    let middle = TcpListener::bind(LOOPBACK)?;
                    let one = TcpStream::connect(middle.local_addr()?)?;
                    let (from, to) = (middle.accept()?.0, TcpStream::connect(to)?);
                    thread::spawn(move || move_all(&from, &to));
                    one
                }
            };
            Ok((one, self.listener.accept()?.0))
        }
    }

    fn move_all(from: &TcpStream, to: &TcpStream) -> rustix::io::Result<()> {
        let (read, write) = pipe()?;
        fcntl_setpipe_size(&write, PIECE)?;
        loop {
            let mut held = splice(from, None, &write, None, PIECE, SpliceFlags::MOVE)?;
            if held == 0 {
                return Ok(());
            }
            while held > 0 {
                held -= splice(&read, None, to, None, held, SpliceFlags::MOVE)?;
            }
        }
    }

    /// Bytes a second of some connections together.
    fn throughput(site: &Site, way: &Way, streams: usize, bytes: usize) -> Result<f64> {
        let pairs: Result<Vec<_>> = (0..streams).map(|_| site.connect(way)).collect();
        let start = Instant::now();
        thread::scope(|scope| {
            let mut ends = Vec::new();
            for (mut one, mut other) in pairs? {
                scope.spawn(move || {
                    let piece = vec![7; PIECE];
                    (0..bytes / PIECE).try_for_each(|_| one.write_all(&piece))
                });
                ends.push(scope.spawn(move || {
                    let mut piece = vec![0; PIECE];
                    let mut sum = 0;
                    while sum < bytes / PIECE * PIECE {
                        match other.read(&mut piece)? {
                            0 => break,
                            length => sum += length,
                        }
                    }
                    anyhow::Ok(sum)
                }));
            }
            let mut sum = 0;
            for end in ends {
                sum += end.join().ok().context("a stream has failed")??;
            }
            Ok(sum as f64 / start.elapsed().as_secs_f64())
        })
    }

    /// How long it takes to connect and to get one byte back.
    fn latency(site: &Site, way: &Way) -> Result<Duration> {
        let start = Instant::now();
        let to = match way {
            Way::Relay => site.through,
            Way::Plain | Way::Bare => site.listener.local_addr()?,
        };
        let mut one = TcpStream::connect(to)?;
        one.write_all(b"x")?;
        one.read_exact(&mut [0])?;
        Ok(start.elapsed())
    }

    /// Sends back the first byte of every connection from now on, as another program would.
    fn echo(site: &Site) -> Result<()> {
        let listener = site.listener.try_clone()?;
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (mut stream, mut byte) = (stream, [0]);
                // Who is gone needs no answer.
                let _ = stream
                    .read_exact(&mut byte)
                    .and_then(|()| stream.write_all(&byte));
            }
        });
        Ok(())
    }

    fn median(mut values: Vec<f64>) -> f64 {
        values.sort_by(f64::total_cmp);
        values[values.len() / 2]
    }

    /// Measures each way, one after the other, some times.
    fn rounds(ways: &[Way], n: usize, measure: impl Fn(&Way) -> Result<f64>) -> Result<Vec<f64>> {
        let mut values = vec![Vec::new(); ways.len()];
        for _ in 0..n {
            for (way, values) in ways.iter().zip(&mut values) {
                values.push(measure(way)?);
            }
        }
        Ok(values.into_iter().map(median).collect())
    }

    /// Prints how two figures compare; whether they do as they should.
    fn row(
        what: &str,
        ours: f64,
        theirs: f64,
        unit: &str,
        at_least: Option<f64>,
        at_most: Option<f64>,
    ) -> bool {
        let ratio = ours / theirs;
        let holds =
            at_least.is_none_or(|least| ratio >= least) && at_most.is_none_or(|most| ratio <= most);
        let aim = match (at_least, at_most) {
            (Some(least), _) => format!("at least {least}"),
            (_, Some(most)) => format!("at most {most}"),
            _ => String::new(),
        };
        let mark = if holds { "" } else { "  MISSED" };
        println!("{what:<44} {ours:>9.2} {theirs:>9.2} {unit:<5} {ratio:>5.2}x  {aim}{mark}");
        holds
    }

    pub(super) fn run() -> Result<ExitCode> {
        // `cargo test --benches` does not say that it is to be measured: does it run at all?
        let quick = !std::env::args().any(|arg| arg == "--bench");
        let (n, connections, size) = if quick {
            (1, 10, 16 << 20)
        } else {
            (7, 2000, 2 << 30)
        };
        let site = Site::new()?;
        let giga = |way: &Way, streams: usize| {
            throughput(&site, way, streams, size / streams).map(|bytes| bytes / 1e9)
        };
        println!("{:<44} {:>9} {:>9}", "", "relay", "other");
        let ways = [Way::Relay, Way::Plain, Way::Bare];
        let one = rounds(&ways, n, |way| giga(way, 1))?;
        let eight = rounds(&ways, n, |way| giga(way, 8))?;
        echo(&site)?;
        let waits = rounds(&ways[..2], connections, |way| {
            latency(&site, way).map(|time| time.as_secs_f64() * 1e6)
        })?;
        let held = [
            row(
                "one stream, beside loopback",
                one[0],
                one[1],
                "GB/s",
                Some(0.5),
                None,
            ),
            row(
                "one stream, beside bare splice",
                one[0],
                one[2],
                "GB/s",
                Some(0.85),
                None,
            ),
            row(
                "eight streams, beside loopback",
                eight[0],
                eight[1],
                "GB/s",
                Some(0.45),
                None,
            ),
            row(
                "eight streams, beside bare splice",
                eight[0],
                eight[2],
                "GB/s",
                None,
                None,
            ),
            row(
                "connect and one byte back, beside loopback",
                waits[0],
                waits[1],
                "us",
                None,
                Some(3.0),
            ),
        ];
        let is_missed = !quick && held.contains(&false);
        Ok(ExitCode::from(u8::from(is_missed)))
    }
}
