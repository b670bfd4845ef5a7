//! What the relay knows of one sandbox: its policy, what was resolved for it, and what it has open.

use super::{
    Limits, Shared, Sink, given::Given, held::Budget, hint, pace::Pace, pipes::Share, room::Room,
    upstream::Upstream,
};
use crate::{Floor, Name, Policy, Said, Target, Verdict};
use sandbox_core::{Existing, NetworkEvent, NetworkEventKind};
use std::{
    collections::HashMap,
    net::{IpAddr, SocketAddr},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant, SystemTime},
};
use tokio::sync::{Notify, Semaphore};

/// What has happened to a sandbox's connections so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Counters {
    /// Connections that are open now.
    pub open: u64,
    /// Connections that were allowed and made.
    pub total: u64,
    /// Connections that were refused.
    pub denied: u64,
    /// Bytes that have left the sandbox.
    pub sent: u64,
    /// Bytes that have come in.
    pub received: u64,
}

/// What a connection says, kept for another judgement.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Heard {
    /// Nothing was read yet.
    Unknown,
    Name(Name),
    /// TLS or HTTP without a name that can be read.
    Hidden,
    /// No name, in a protocol that has none.
    Nothing,
}

impl Heard {
    fn said(&self) -> Said<'_> {
        match self {
            Self::Unknown => Said::Unknown,
            Self::Name(name) => Said::Name(name),
            Self::Hidden => Said::Hidden,
            Self::Nothing => Said::Nothing,
        }
    }
}

/// Bytes of a connection or of a sandbox.
#[derive(Debug, Default)]
pub(super) struct Traffic {
    pub(super) sent: AtomicU64,
    pub(super) received: AtomicU64,
}

pub(super) struct Sandbox {
    shared: Arc<Shared>,
    sink: Sink,
    pipes: Share,
    pub(super) budget: Budget,
    /// As many as may be asked at the same time.
    pub(super) queries: Arc<Semaphore>,
    /// Of queries, however they come.
    pace: tokio::sync::Mutex<Pace>,
    judge: Mutex<Judge>,
    pub(super) traffic: Traffic,
    total: AtomicU64,
    denied: AtomicU64,
    next: AtomicU64,
}

/// What judgements are made by. All under one lock: no connection is judged by a policy and counted by another.
struct Judge {
    policy: Arc<Policy>,
    given: Given,
    open: HashMap<u64, Open>,
}

/// A connection, from before it is judged.
struct Open {
    to: SocketAddr,
    /// By which it is, or was, judged.
    policy: Arc<Policy>,
    names: Vec<Name>,
    heard: Heard,
    /// Whether it was let through.
    is_allowed: bool,
    cut: Arc<Notify>,
    /// Goes when it does.
    _room: Room,
}

impl Open {
    fn decide(&self, floor: &Floor) -> Verdict {
        let target = Target::new(self.to.ip(), self.to.port())
            .resolved(&self.names)
            .said(self.heard.said());
        self.policy.decide(floor, &target)
    }
}

impl Sandbox {
    pub(super) fn new(shared: Arc<Shared>, policy: Policy, sink: Sink) -> Self {
        let judge = Judge {
            policy: Arc::new(policy),
            given: Given::default(),
            open: HashMap::new(),
        };
        Self {
            pipes: Share::new(Arc::clone(&shared.pipes)),
            budget: Budget::new(),
            queries: Arc::new(Semaphore::new(shared.limits.queries)),
            pace: Pace::new(shared.limits.queries_per_second).into(),
            shared,
            sink,
            judge: Mutex::new(judge),
            traffic: Traffic::default(),
            total: AtomicU64::new(0),
            denied: AtomicU64::new(0),
            next: AtomicU64::new(1),
        }
    }

    pub(super) fn limits(&self) -> Limits {
        self.shared.limits
    }

    pub(super) fn upstream(&self) -> &Upstream {
        &self.shared.upstream
    }

    pub(super) fn pipes(&self) -> &Share {
        &self.pipes
    }

    /// Waits until another query may be answered.
    pub(super) async fn query_turn(&self) {
        self.pace.lock().await.turn().await;
    }

    fn judge(&self) -> MutexGuard<'_, Judge> {
        self.judge.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The names for which an address was given.
    #[cfg(test)]
    pub(super) fn names(&self, address: IpAddr) -> Vec<Name> {
        self.judge().given.names(address, Instant::now())
    }

    /// A number for a connection, or for a query.
    fn number(&self) -> u64 {
        self.next.fetch_add(1, Ordering::Relaxed)
    }

    pub(super) fn event(&self, event: NetworkEvent) {
        (self.sink)(event);
    }

    /// Whether a name may be asked for. That it may not is an event.
    pub(super) fn may_resolve(&self, name: &Name) -> bool {
        let may = self.judge().policy.may_resolve(name);
        if !may {
            self.name_denied(name, None, hint::no_name(name));
        }
        may
    }

    /// Those of a name's addresses that the sandbox may be told. It is remembered that they were given; that none is
    /// left is an event.
    pub(super) fn give(&self, name: &Name, addresses: Vec<IpAddr>, ttl: u32) -> Vec<IpAddr> {
        let Ok(floor) = self.shared.floor.now() else {
            return Vec::new();
        };
        let mut given = addresses.clone();
        {
            let mut judge = self.judge();
            given.retain(|address| judge.policy.may_answer(&floor, name, *address));
            let (now, ttl) = (Instant::now(), Duration::from_secs(ttl.into()));
            for address in &given {
                judge.given.add(*address, name, ttl, now);
            }
        }
        if let (true, Some(address)) = (given.is_empty(), addresses.first()) {
            let why = hint::no_answer(name, *address, floor.closes_all(*address));
            self.name_denied(name, Some(*address), why);
        }
        given
    }

    fn name_denied(&self, name: &Name, address: Option<IpAddr>, reason: String) {
        let kind = NetworkEventKind::NameDenied;
        let mut event = NetworkEvent::new(SystemTime::now(), self.number(), kind, 53);
        event.name = Some(name.to_string());
        event.address = address;
        event.reason = reason;
        self.event(event);
    }

    /// Begins to count a connection; `None` if there are too many, which is an event.
    pub(super) fn open(&self, to: SocketAddr) -> Option<(u64, Arc<Notify>)> {
        let (number, cut) = (self.number(), Arc::new(Notify::new()));
        match self.try_open(number, to, Arc::clone(&cut)) {
            Ok(()) => Some((number, cut)),
            Err(why) => {
                let kind = NetworkEventKind::Denied;
                let mut event = NetworkEvent::new(SystemTime::now(), number, kind, to.port());
                event.address = Some(to.ip());
                event.reason = why;
                self.count_denied();
                self.event(event);
                None
            }
        }
    }

    fn try_open(&self, number: u64, to: SocketAddr, cut: Arc<Notify>) -> Result<(), String> {
        let mut judge = self.judge();
        let (open, most) = (judge.open.len(), self.limits().connections);
        if open >= most {
            return Err(format!(
                "{most} connections are open, and there may be no more; close some"
            ));
        }
        let room = Room::take(open).ok_or_else(|| {
            format!(
                "{open} connections are open, and the descriptors that are left are for other sandboxes; close some"
            )
        })?;
        let names = judge.given.names(to.ip(), Instant::now());
        let open = Open {
            to,
            policy: Arc::clone(&judge.policy),
            names,
            heard: Heard::Unknown,
            is_allowed: false,
            cut,
            _room: room,
        };
        judge.open.insert(number, open);
        Ok(())
    }

    /// Judges a connection by what it says, and by the name that it is known by then.
    ///
    /// # Errors
    /// `Unavailable` if it is not known what the floor is.
    pub(super) fn decide(
        &self,
        number: u64,
        heard: Heard,
    ) -> sandbox_core::Result<(Verdict, Option<Name>)> {
        let floor = self.shared.floor.now()?;
        let mut judge = self.judge();
        let Some(open) = judge.open.get_mut(&number) else {
            return Ok((Verdict::NameNeeded, None));
        };
        open.heard = heard;
        let verdict = open.decide(&floor);
        open.is_allowed = verdict.is_allowed();
        let name = match &open.heard {
            Heard::Name(name) => Some(name),
            _ => open.names.first(),
        };
        Ok((verdict, name.cloned()))
    }

    /// Stops counting a connection.
    pub(super) fn close(&self, number: u64) {
        self.judge().open.remove(&number);
    }

    pub(super) fn count_made(&self) {
        self.total.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn count_denied(&self) {
        self.denied.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn set_policy(&self, policy: Policy, existing: Existing) {
        let floor = self.shared.floor.now();
        let mut judge = self.judge();
        judge.policy = Arc::new(policy);
        let policy = Arc::clone(&judge.policy);
        for open in judge.open.values_mut() {
            // What was not judged yet is new. Of a choice that is not known the safe half is taken.
            if open.is_allowed && existing == Existing::Keep {
                continue;
            }
            open.policy = Arc::clone(&policy);
            let fits = |open: &Open| matches!(&floor, Ok(floor) if open.decide(floor).is_allowed());
            if open.is_allowed && !fits(open) {
                open.cut.notify_one();
            }
        }
    }

    pub(super) fn counters(&self) -> Counters {
        let read = |number: &AtomicU64| number.load(Ordering::Relaxed);
        Counters {
            open: u64::try_from(self.judge().open.len()).unwrap_or(u64::MAX),
            total: read(&self.total),
            denied: read(&self.denied),
            sent: read(&self.traffic.sent),
            received: read(&self.traffic.received),
        }
    }
}
