//! Joins a process of a sandbox to this program's own standard streams, signals and terminal.

use crate::{
    keys::Keys,
    output::{self, Stop},
    signals::Signals,
    stdio, terminal,
};
use anyhow::{Context, Result};
use rustix::io::Errno;
use sandbox::{Bytes, Command, ExitStatus, Process, ProcessControl, ProcessEvent, Signal};
use std::{error::Error, fmt, io, pin::pin, sync::Arc, thread};
use tokio::{
    signal::unix::{self, SignalKind},
    sync::{mpsc, oneshot},
    time::{self, Instant},
};

/// What a session does besides passing on output.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Options {
    /// Passes on standard input.
    pub(crate) stdin: bool,
    /// Passes on signals; else they are left to the caller.
    pub(crate) signals: bool,
    /// Passes on changes of the terminal's size.
    pub(crate) resize: bool,
    /// The process was there before and may stay: the end of standard input is not passed on, to be hung up or
    /// terminated leaves it alone, and so do the [`Keys`] for that on a terminal.
    pub(crate) joined: bool,
}

/// A process that was joined is left alone, as whoever sits at the terminal wants.
#[derive(Debug)]
pub(crate) struct Left;

impl fmt::Display for Left {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("left the command alone")
    }
}

impl Error for Left {}

/// Passes everything on until the process has ended and its output is written.
///
/// # Errors
/// [`Stop::BrokenPipe`] if nobody reads standard output any more; [`Left`] if a process that was joined is left; [`Stop::Signal`] if we are asked to end once more after
/// the process was to be killed; whatever the provider fails with. If standard input
/// cannot be read to its end the process is not told, but what it made of the rest is no success.
pub(crate) async fn follow(mut process: Process, options: Options) -> Result<ExitStatus> {
    let control = process.control();
    let mut asks = Asks::new(options)?;
    let orders = carry_out(process.control());
    let mut sink = Sink::start();
    let mut feeding = pin!(async {
        if options.stdin {
            let input = stdio::read_stdin(terminal::is_in_background);
            let keys = (options.joined && options.resize).then(Keys::default);
            feed(input, control.as_ref(), keys, !options.joined).await
        } else {
            Ok(Fed::All)
        }
    });
    let mut fed = None;
    let ended = loop {
        tokio::select! {
            event = sink.forward(&mut process) => match event {
                Ok(None) => {}
                Ok(Some(status)) => break Ok(status),
                Err(error) => break Err(error),
            },
            ask = asks.next() => match asks.decide(ask) {
                // A full queue means that nothing gets through any more, and the next request may end us.
                Ok(order) => drop(orders.try_send(order)),
                Err(stop) => break Err(stop.into()),
            },
            result = &mut feeding, if fed.is_none() => match result {
                Ok(Fed::Left) => break Err(Left.into()),
                result => fed = Some(result),
            },
        }
    };
    // What was printed before an error is still worth reading.
    let written = tokio::select! {
        written = sink.finish() => written,
        _ = asks.next() => Ok(()),
    };
    let status = ended?;
    written?;
    if let Some(Err(error)) = fed
        && status.success()
    {
        return Err(error).context("cannot read standard input");
    }
    Ok(status)
}

/// What this program is asked to do while a process runs.
#[derive(Debug)]
struct Asks {
    signals: Option<Signals>,
    resizes: Option<unix::Signal>,
    /// How many signals it has got.
    signalled: u32,
    terminal: bool,
    joined: bool,
    /// When a process that was told of its terminal's end has had enough time.
    patience: Option<Instant>,
}

#[derive(Debug)]
enum Ask {
    Signal(Signal),
    Resize,
}

impl Asks {
    fn new(options: Options) -> io::Result<Self> {
        Ok(Self {
            signals: options.signals.then(Signals::new).transpose()?,
            resizes: options
                .resize
                .then(|| unix::signal(SignalKind::window_change()))
                .transpose()?,
            signalled: 0,
            terminal: options.resize,
            joined: options.joined,
            patience: None,
        })
    }

    async fn next(&mut self) -> Ask {
        let signal = async {
            match &mut self.signals {
                Some(signals) => signals.next().await,
                None => std::future::pending().await,
            }
        };
        let resize = async {
            match &mut self.resizes {
                Some(resizes) => resizes.recv().await,
                None => std::future::pending().await,
            }
        };
        let impatient = async {
            match self.patience {
                Some(until) => time::sleep_until(until).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            signal = signal => Ask::Signal(signal),
            _ = resize => Ask::Resize,
            () = impatient => Ask::Signal(Signal::KILL),
        }
    }

    /// What the process is to be told: a signal as it comes, the second time KILL. The third time it is left alone.
    fn decide(&mut self, ask: Ask) -> Result<Order, Stop> {
        let Ask::Signal(signal) = ask else {
            return Ok(Order::Resize);
        };
        self.signalled += 1;
        self.patience = None;
        if self.joined && matches!(signal, Signal::TERM | Signal::HUP) {
            return Err(Stop::Signal(signal));
        }
        match (self.signalled, signal) {
            // Shells on a terminal ignore TERM. The terminal is about to go, and that is what HUP says.
            (1, Signal::TERM | Signal::HUP) if self.terminal => {
                // Bash forgets a HUP that comes just before it waits for a key, and no key will come.
                self.patience = Some(Instant::now() + Command::DEFAULT_GRACE);
                Ok(Order::Signal(Signal::HUP))
            }
            (1, signal) => Ok(Order::Signal(signal)),
            (2, _) => Ok(Order::Signal(Signal::KILL)),
            (_, signal) => Err(Stop::Signal(signal)),
        }
    }
}

/// What a process is told.
#[derive(Debug)]
enum Order {
    Signal(Signal),
    Resize,
}

/// Tells a process one thing after the other, beside all else: its sandbox may never answer.
fn carry_out(control: Arc<dyn ProcessControl>) -> mpsc::Sender<Order> {
    let (sender, mut orders) = mpsc::channel(8);
    tokio::spawn(async move {
        while let Some(order) = orders.recv().await {
            // It may have ended meanwhile, hence no error.
            let _ = match order {
                Order::Signal(signal) => control.signal(signal).await,
                Order::Resize => control.resize(terminal::size()).await,
            };
        }
    });
    sender
}

/// Why no more is sent to the process.
#[derive(Debug)]
enum Fed {
    /// All was sent, or the process takes no more.
    All,
    /// It is to be left alone.
    Left,
}

/// Sends what is read to the process until one of the two has enough. `keys`: some keys are for us. `close`: tells the
/// process of the end.
async fn feed(
    mut input: mpsc::Receiver<io::Result<Bytes>>,
    control: &dyn ProcessControl,
    mut keys: Option<Keys>,
    close: bool,
) -> io::Result<Fed> {
    let mut result = Ok(Fed::All);
    while let Some(piece) = input.recv().await {
        match piece {
            Ok(bytes) => {
                let (bytes, leave) = match &mut keys {
                    Some(keys) => keys.read(&bytes),
                    None => (bytes, false),
                };
                // The program does not read (any more), which is its own business.
                let taken = bytes.is_empty() || control.write_stdin(bytes).await.is_ok();
                if leave {
                    return Ok(Fed::Left);
                }
                if !taken && keys.is_none() {
                    return Ok(Fed::All);
                }
            }
            // `nohup` gives its program an input that cannot be read, and means none.
            Err(error) if error.raw_os_error() == Some(Errno::BADF.raw_os_error()) => {}
            Err(error) => result = Err(error),
        }
    }
    if close {
        let _ = control.close_stdin().await;
    }
    result
}

#[derive(Debug, Clone, Copy)]
pub(crate) enum Stream {
    Stdout,
    Stderr,
}

/// Writes output on a thread of its own, so that a reader who stops does not keep us from hearing Ctrl-C.
pub(crate) struct Sink {
    sender: Option<mpsc::Sender<(Stream, Bytes)>>,
    done: Option<oneshot::Receiver<io::Result<()>>>,
}

impl Sink {
    pub(crate) fn start() -> Self {
        let (sender, receiver) = mpsc::channel(2);
        let (report, done) = oneshot::channel();
        thread::spawn(move || report.send(write_all(receiver)));
        Self {
            sender: Some(sender),
            done: Some(done),
        }
    }

    /// Takes the next event of a process once there is room for it; the status if it was the last.
    ///
    /// No event is lost if the future is dropped.
    async fn forward(&mut self, process: &mut Process) -> Result<Option<ExitStatus>> {
        let room = match self.sender.clone() {
            Some(sender) => sender.reserve_owned().await.ok(),
            None => None,
        };
        let Some(room) = room else {
            return Err(self.broken().await);
        };
        match process.try_next().await? {
            Some(ProcessEvent::Stdout(bytes) | ProcessEvent::Pty(bytes)) => {
                drop(room.send((Stream::Stdout, bytes)));
            }
            Some(ProcessEvent::Stderr(bytes)) => drop(room.send((Stream::Stderr, bytes))),
            Some(ProcessEvent::Lost { bytes }) => {
                output::note(format!("{bytes} bytes of output were dropped"));
            }
            Some(ProcessEvent::Exited(status)) => return Ok(Some(status)),
            Some(_) => {}
            None => anyhow::bail!("the process's events have ended before"),
        }
        Ok(None)
    }

    /// Writes to standard output, waiting for its reader.
    pub(crate) async fn write(&mut self, stream: Stream, bytes: Bytes) -> Result<()> {
        if let Some(sender) = &self.sender
            && sender.send((stream, bytes)).await.is_ok()
        {
            return Ok(());
        }
        Err(self.broken().await)
    }

    /// Why nothing can be written any more.
    async fn broken(&mut self) -> anyhow::Error {
        match self.finish().await {
            Err(error) => error,
            Ok(()) => Stop::BrokenPipe.into(),
        }
    }

    /// Waits until everything is written.
    pub(crate) async fn finish(&mut self) -> Result<()> {
        self.sender = None;
        let Some(done) = &mut self.done else {
            return Ok(());
        };
        let written = done.await;
        self.done = None;
        match written {
            Ok(Err(error)) => Err(output::write_error(error)),
            Ok(Ok(())) | Err(_) => Ok(()),
        }
    }
}

fn write_all(mut receiver: mpsc::Receiver<(Stream, Bytes)>) -> io::Result<()> {
    let (stdout, stderr) = (io::stdout(), io::stderr());
    while let Some((stream, bytes)) = receiver.blocking_recv() {
        match stream {
            Stream::Stdout => stdio::write_all(&stdout, &bytes)?,
            // Messages that nobody reads are no reason to stop.
            Stream::Stderr => drop(stdio::write_all(&stderr, &bytes)),
        }
    }
    Ok(())
}
