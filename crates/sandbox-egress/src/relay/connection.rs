//! One connection of a sandbox, from its first packet to its end: judged, made, and judged again where it says more.

use super::{
    ear::{Ear, Said},
    held::Held,
    hint, host,
    pump::Pump,
    requests::Requests,
    sandbox::{Heard, Sandbox, Traffic},
    socket,
};
use crate::{Name, Reason, Verdict};
use sandbox_core::{NetworkEvent, NetworkEventKind};
use std::{
    io,
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError, atomic::Ordering},
    time::{Duration, SystemTime},
};
use tokio::{
    net::TcpStream,
    sync::Notify,
    time::{Instant, timeout, timeout_at},
};

/// How long a program may say nothing before it is taken for one that waits for the other side to speak.
const GRACE: Duration = Duration::from_millis(300);

/// How long a program may take to say its name, once it has begun to, or must.
const PATIENCE: Duration = Duration::from_secs(10);

/// How long the other side may take to answer.
const CONNECT: Duration = Duration::from_secs(15);

/// A connection that is counted. When it is dropped, it has ended.
pub(super) struct Connection {
    sandbox: Arc<Sandbox>,
    number: u64,
    to: SocketAddr,
    label: Mutex<Label>,
    traffic: Traffic,
}

/// What is told of a connection.
#[derive(Default)]
struct Label {
    name: Option<Name>,
    rule: Option<usize>,
    reason: String,
    /// How its end is told, once its beginning was.
    end: Option<NetworkEventKind>,
}

/// How the program's bytes go on, once it was let through.
enum Way {
    /// As they are: the name is known, or none is needed.
    Bytes(Held),
    /// They have not come yet, and are to be heard when they do.
    Unheard,
    /// Each request is judged: it may be for another host than the first.
    Requests(Held),
}

/// Carries a connection, if it may be made. Whatever goes wrong, both sides see a reset.
pub(super) async fn carry(sandbox: Arc<Sandbox>, program: TcpStream, to: SocketAddr) {
    let to = SocketAddr::new(host::meant(to.ip()), to.port());
    let Some((number, cut)) = sandbox.open(to) else {
        return;
    };
    let connection = Connection {
        sandbox,
        number,
        to,
        label: Mutex::default(),
        traffic: Traffic::default(),
    };
    let result = tokio::select! {
        biased;
        () = cut.notified() => {
            connection.ends(NetworkEventKind::Cut, "the new policy does not allow it".to_owned());
            return;
        }
        result = connection.run(&program) => result,
    };
    if let Err(error) = result {
        let reason = format!("it was reset: {error}");
        connection.ends(NetworkEventKind::Closed, reason);
    }
}

impl Connection {
    async fn run(&self, program: &TcpStream) -> io::Result<()> {
        let way = self.admit(program).await?;
        let remote = self.connect().await?;
        // The place for one who is to read what is encrypted: the name is known by now, and nothing was written yet.
        self.relay(program, &remote, way).await?;
        self.ends(
            NetworkEventKind::Closed,
            "both sides have ended it".to_owned(),
        );
        socket::end(program)?;
        socket::end(&remote)
    }

    /// Waits until it is known that the connection may be made.
    async fn admit(&self, program: &TcpStream) -> io::Result<Way> {
        if self.judge(Heard::Unknown)? {
            return Ok(Way::Bytes(self.sandbox.budget.hold()));
        }
        let deadline = Instant::now() + PATIENCE;
        if let Ok(speaks) = timeout(GRACE, speaks(program)).await {
            speaks?;
        } else if self.may_be_silent()? {
            return Ok(Way::Unheard);
        }
        self.hear(program, deadline).await
    }

    /// Hears what the program says, and judges it.
    async fn hear(&self, program: &TcpStream, deadline: Instant) -> io::Result<Way> {
        let mut bytes = self.sandbox.budget.hold();
        let Some(said) = hear(program, &mut bytes, deadline).await? else {
            self.must(Heard::Nothing)?;
            return Ok(Way::Unheard);
        };
        self.must(said.heard)?;
        Ok(if said.is_http {
            Way::Requests(bytes)
        } else {
            Way::Bytes(bytes)
        })
    }

    /// Judges a connection that has said all it says.
    pub(super) fn must(&self, heard: Heard) -> io::Result<()> {
        if self.judge(heard)? {
            Ok(())
        } else {
            Err(refused())
        }
    }

    /// Whether the connection may be made by what it has said so far; not yet, if its name has to be known. That it may
    /// not is an event.
    fn judge(&self, heard: Heard) -> io::Result<bool> {
        let (verdict, name) = self.decide(heard)?;
        match verdict {
            Verdict::Allowed(reason) => {
                self.admitted(reason, name);
                Ok(true)
            }
            Verdict::Denied(reason) => Err(self.denied(reason, name)),
            Verdict::NameNeeded => Ok(false),
        }
    }

    /// Whether it may be made if it says nothing.
    fn may_be_silent(&self) -> io::Result<bool> {
        let (verdict, name) = self.decide(Heard::Nothing)?;
        let Verdict::Allowed(reason) = verdict else {
            return Ok(false);
        };
        self.admitted(reason, name);
        Ok(true)
    }

    fn decide(&self, heard: Heard) -> io::Result<(Verdict, Option<Name>)> {
        self.sandbox.decide(self.number, heard).map_err(|error| {
            self.failed(&error.to_string());
            refused()
        })
    }

    fn admitted(&self, reason: Reason, name: Option<Name>) {
        let mut label = self.label();
        label.rule = rule(reason);
        label.reason = hint::allowed(reason);
        // It is known by the name that it was made with.
        if label.end.is_none() {
            label.name = name;
        }
    }

    fn denied(&self, reason: Reason, name: Option<Name>) -> io::Error {
        let mut event = self.event(NetworkEventKind::Denied);
        event.rule = rule(reason);
        event.reason = hint::refused(reason, self.to.ip(), name.as_ref());
        event.name = name.as_ref().map(Name::to_string);
        self.sandbox.count_denied();
        self.sandbox.event(event);
        refused()
    }

    fn failed(&self, reason: &str) {
        let mut event = self.event(NetworkEventKind::Failed);
        event.reason = reason.to_owned();
        self.sandbox.event(event);
    }

    /// Connects to the very address that was judged.
    async fn connect(&self) -> io::Result<TcpStream> {
        let connected = match timeout(CONNECT, socket::connect(self.to)).await {
            Ok(connected) => connected,
            Err(_) => Err(io::ErrorKind::TimedOut.into()),
        };
        let remote = connected.inspect_err(|error| {
            self.failed(&format!("the other side cannot be reached: {error}"));
        })?;
        self.sandbox.count_made();
        let event = self.event(NetworkEventKind::Opened);
        self.sandbox.event(event);
        self.label().end = Some(NetworkEventKind::Closed);
        Ok(remote)
    }

    /// Carries bytes both ways until both sides have ended, or one has failed.
    async fn relay(&self, program: &TcpStream, remote: &TcpStream, way: Way) -> io::Result<()> {
        let sent = |bytes| self.count(bytes, |traffic| &traffic.sent);
        let received = |bytes| self.count(bytes, |traffic| &traffic.received);
        let pipes = self.sandbox.pipes();
        let up = Pump {
            from: program,
            to: remote,
            pipes,
            count: &sent,
        };
        let down = Pump {
            from: remote,
            to: program,
            pipes,
            count: &received,
        };
        let go = Notify::new();
        let both = async {
            let down_after = async {
                go.notified().await;
                down.run().await
            };
            tokio::try_join!(self.upload(&up, &down, way, &go), down_after)
        };
        tokio::select! {
            biased;
            done = both => done.map(|_| ()),
            // Seen also where nobody reads from the one, since the other does not take it.
            error = socket::failed(program) => Err(error),
            error = socket::failed(remote) => Err(error),
        }
    }

    /// Carries what the program says. The other way begins when `go` says so.
    async fn upload(
        &self,
        up: &Pump<'_>,
        down: &Pump<'_>,
        way: Way,
        go: &Notify,
    ) -> io::Result<()> {
        let (way, is_first) = match way {
            Way::Unheard => {
                // Who speaks first decides whether an answer can still be waited for.
                let is_first = tokio::select! {
                    biased;
                    spoken = speaks(up.from) => spoken.map(|()| true)?,
                    spoken = speaks(down.from) => spoken.map(|()| false)?,
                };
                if !is_first {
                    go.notify_one();
                    speaks(up.from).await?;
                }
                let deadline = Instant::now() + PATIENCE;
                (self.hear(up.from, deadline).await?, is_first)
            }
            way => (way, true),
        };
        match way {
            Way::Unheard => Err(refused()),
            Way::Bytes(bytes) => {
                go.notify_one();
                up.write(&bytes).await?;
                drop(bytes);
                up.run().await
            }
            Way::Requests(bytes) => {
                let answers = self.sandbox.budget.hold();
                let mut requests = Requests::new(self, up, down, bytes, answers, is_first);
                requests.follow(go).await
            }
        }
    }

    fn count(&self, bytes: usize, which: impl Fn(&Traffic) -> &std::sync::atomic::AtomicU64) {
        let bytes = bytes as u64;
        which(&self.traffic).fetch_add(bytes, Ordering::Relaxed);
        which(&self.sandbox.traffic).fetch_add(bytes, Ordering::Relaxed);
    }

    fn label(&self) -> std::sync::MutexGuard<'_, Label> {
        self.label.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn event(&self, kind: NetworkEventKind) -> NetworkEvent {
        let label = self.label();
        let mut event = NetworkEvent::new(SystemTime::now(), self.number, kind, self.to.port());
        event.name = label.name.as_ref().map(Name::to_string);
        event.address = Some(self.to.ip());
        event.rule = label.rule;
        event.reason.clone_from(&label.reason);
        event.sent = self.traffic.sent.load(Ordering::Relaxed);
        event.received = self.traffic.received.load(Ordering::Relaxed);
        event
    }

    /// Says how it ends, if it was made.
    fn ends(&self, kind: NetworkEventKind, reason: String) {
        let mut label = self.label();
        if label.end.is_some() {
            label.end = Some(kind);
            label.reason = reason;
        }
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.sandbox.close(self.number);
        let end = self.label().end;
        if let Some(kind) = end {
            self.sandbox.event(self.event(kind));
        }
    }
}

fn rule(reason: Reason) -> Option<usize> {
    match reason {
        Reason::Rule(number) | Reason::HiddenName(number) => Some(number),
        _ => None,
    }
}

fn refused() -> io::Error {
    io::Error::new(io::ErrorKind::PermissionDenied, "it is refused")
}

/// Waits until one side says something, or has ended.
async fn speaks(side: &TcpStream) -> io::Result<()> {
    // That it may be read is said too often.
    side.peek(&mut [0; 1]).await.map(|_| ())
}

/// What the first bytes of a program say; `None` if there are none.
async fn hear(
    program: &TcpStream,
    bytes: &mut Held,
    deadline: Instant,
) -> io::Result<Option<Said>> {
    let mut ear = Ear::default();
    loop {
        let Ok(more) = timeout_at(deadline, bytes.read(program)).await else {
            let said = Ear::hear_no_more(bytes);
            return Ok((!bytes.is_empty()).then_some(said));
        };
        if !more? {
            return Ok(Some(Ear::hear_no_more(bytes)));
        }
        if let Some(said) = ear.hear(bytes) {
            return Ok(Some(said));
        }
    }
}
