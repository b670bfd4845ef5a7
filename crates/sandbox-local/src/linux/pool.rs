//! Sandboxes that wait to be taken, so that whoever asks for one need not wait for the kernel.
//!
//! They live in this program's memory alone: no other program takes one, and none is left when this one ends, however
//! that happens. A thread makes them, one after the other; it keeps its normal priority, because the zygote and all
//! sandboxes inherit it from whoever has the first one made.

use super::{create::Request, made::Made, site::Site, store::Store, template, waiting::Waiting};
use sandbox_core::{Error, ErrorKind, Result, TemplateId};
use std::{
    collections::{BTreeMap, VecDeque},
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

/// Most sandboxes that may be kept for each template.
pub(crate) const LARGEST: usize = 256;

/// Most kinds of which sandboxes are kept, the usual one included. Beyond, the one that was not asked for the longest is
/// given up.
const MOST_KINDS: usize = 4;

/// How long the thread rests before it makes one: whoever has just taken one has work for the processors.
const REST: Duration = Duration::from_millis(10);
/// How long it is waited for one that is being made.
const MADE_WITHIN: Duration = Duration::from_secs(5);
/// Longest rest, after failures.
const LONGEST_REST: Duration = Duration::from_secs(30);

/// How a provider's pool does.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct PoolStatus {
    /// Sandboxes that wait to be taken.
    pub ready: usize,
    /// Creations that took one.
    pub taken: u64,
    /// Creations that found none, and had to wait until one was made.
    pub missed: u64,
}

/// Sandboxes that wait, and the thread that makes more.
#[derive(Debug)]
pub(crate) struct Pool {
    shelf: Arc<Shelf>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct Shelf {
    size: usize,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    /// By what is asked for.
    ready: BTreeMap<Kind, Shelved>,
    /// What is being made.
    making: Option<Kind>,
    /// Counts what is asked for.
    asked: u64,
    taken: u64,
    missed: u64,
    stopped: bool,
}

/// What sandboxes that wait differ in: all else comes with who takes them.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Kind {
    pub(crate) template: TemplateId,
    /// Whether their connections are captured, so that they can have a network.
    pub(crate) captured: bool,
}

impl Kind {
    /// What is kept in any case.
    fn usual() -> Self {
        Self {
            template: TemplateId::new(template::DEFAULT),
            captured: false,
        }
    }
}

/// Sandboxes of one kind, oldest first.
#[derive(Debug, Default)]
struct Shelved {
    waiting: VecDeque<Waiting>,
    /// When it was asked for last, by [`State::asked`].
    asked: u64,
}

impl Pool {
    /// Starts to keep `size` sandboxes from the default template, and from each that is asked for.
    pub(crate) fn start(site: &Arc<Site>, size: usize) -> Result<Self> {
        if size > LARGEST {
            let message = format!("a pool has at most {LARGEST} sandboxes");
            return Err(Error::invalid(message));
        }
        let shelf = Arc::new(Shelf {
            size,
            state: Mutex::new(State {
                ready: [(Kind::usual(), Shelved::default())].into(),
                ..State::default()
            }),
            changed: Condvar::new(),
        });
        let (site, filled) = (Arc::clone(site), Arc::clone(&shelf));
        let thread = thread::Builder::new()
            .name("sandbox-pool".into())
            .spawn(move || filled.fill(&site))
            .map_err(|error| {
                let message = "the thread that fills the pool could not be started";
                Error::new(ErrorKind::Unavailable, message).with_source(error)
            })?;
        Ok(Self {
            shelf,
            thread: Some(thread),
        })
    }

    /// A sandbox as asked for, if a fit one waits. What is found to be unfit is ended.
    ///
    /// # Errors
    /// `AlreadyExists` for the name. After any other failure another one is tried.
    pub(crate) fn take(&self, site: &Site, request: &Request) -> Result<Option<Made>> {
        let kind = Kind {
            template: template::canonical(&request.template),
            captured: request.captured,
        };
        // Those that wait have no other store, and the files of a sandbox cannot move; nor may a limit come later that
        // counts from the start.
        let processes = request.limits.processes;
        let is_limited =
            !site.counts_processes_from_the_start() || processes == site.default_processes;
        let fits = request.store == Store::Directory && is_limited;
        while fits && let Some(mut waiting) = self.shelf.pop(&kind) {
            if !waiting.is_fit(site) {
                continue;
            }
            match waiting.begin(site, request) {
                Ok(()) => {
                    self.shelf.lock().taken += 1;
                    return Ok(Some(waiting.into_made()));
                }
                Err(error) if error.kind() == ErrorKind::AlreadyExists => {
                    self.shelf.put(kind, waiting);
                    return Err(error);
                }
                Err(error) => {
                    tracing::debug!(%error, "a sandbox that waited could not be taken");
                }
            }
        }
        self.shelf.lock().missed += 1;
        Ok(None)
    }

    /// Ends those that are not what would be made now.
    pub(crate) fn discard_unfit(&self, site: &Site) {
        let mut state = self.shelf.lock();
        let mut unfit = Vec::new();
        for shelved in state.ready.values_mut() {
            let all = shelved.waiting.drain(..);
            let (fit, other) = all.partition(|waiting: &Waiting| waiting.is_fit(site));
            shelved.waiting = fit;
            unfit.extend::<VecDeque<_>>(other);
        }
        self.shelf.changed.notify_all();
        drop(state);
        drop(unfit);
    }

    /// Ends those that stand on the template in this directory, which is to go, and makes no more from it.
    pub(crate) fn let_go_of(&self, site: &Site, directory: &str) {
        let is_it = |kind: &Kind| {
            template::current(&kind.template, &site.state).is_ok_and(|name| name == directory)
        };
        let stands = |waiting: &Waiting| {
            let on = waiting.record.template_directory.as_deref();
            on == Some(directory)
        };
        let mut ended = Vec::new();
        let mut state = self.shelf.lock();
        state.ready.retain(|kind, shelved| {
            let (gone, kept): (VecDeque<_>, _) = shelved.waiting.drain(..).partition(stands);
            shelved.waiting = kept;
            let stays = gone.is_empty() && !is_it(kind);
            ended.extend(gone);
            stays
        });
        // One that is just being made stands on it until it is whole, and then ended.
        let start = Instant::now();
        while state.making.as_ref().is_some_and(is_it) && start.elapsed() < MADE_WITHIN {
            let woken = self.shelf.changed.wait_timeout(state, MADE_WITHIN);
            state = woken.unwrap_or_else(PoisonError::into_inner).0;
        }
        drop(state);
        drop(ended);
    }

    pub(crate) fn status(&self) -> PoolStatus {
        let state = self.shelf.lock();
        PoolStatus {
            ready: state
                .ready
                .values()
                .map(|shelved| shelved.waiting.len())
                .sum(),
            taken: state.taken,
            missed: state.missed,
        }
    }

    /// Makes no more, and hands out those that wait, to be ended.
    pub(crate) fn stop(&mut self) -> Vec<Made> {
        self.shelf.lock().stopped = true;
        self.shelf.changed.notify_all();
        if let Some(thread) = self.thread.take() {
            // If it has panicked nothing is left to wait for.
            let _ = thread.join();
        }
        let ready = std::mem::take(&mut self.shelf.lock().ready);
        let waiting = ready.into_values().flat_map(|shelved| shelved.waiting);
        waiting.map(Waiting::into_made).collect()
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        super::made::end_all(self.stop());
    }
}

impl State {
    /// Gives up what was not asked for the longest, if there is too much of that. Never the usual kind.
    fn forget_one(&mut self) -> Option<Shelved> {
        if self.ready.len() <= MOST_KINDS {
            return None;
        }
        let others = self
            .ready
            .iter()
            .filter(|(kind, _)| **kind != Kind::usual());
        let (oldest, _) = others.min_by_key(|(_, shelved)| shelved.asked)?;
        let oldest = oldest.clone();
        self.ready.remove(&oldest)
    }
}

impl Shelf {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes one out, which makes it the caller's alone. From now on this kind is kept ready.
    fn pop(&self, kind: &Kind) -> Option<Waiting> {
        let mut state = self.lock();
        state.asked += 1;
        let asked = state.asked;
        let shelved = state.ready.entry(kind.clone()).or_default();
        shelved.asked = asked;
        let waiting = shelved.waiting.pop_front();
        let forgotten = state.forget_one();
        self.changed.notify_all();
        drop(state);
        drop(forgotten);
        waiting
    }

    /// Puts one back that was not taken after all; it ends if there is no room any more.
    fn put(&self, kind: Kind, waiting: Waiting) {
        let mut state = self.lock();
        // Its kind may have been forgotten since it was begun.
        let shelved = state.ready.get_mut(&kind);
        match shelved.filter(|shelved| shelved.waiting.len() < self.size) {
            Some(shelved) => shelved.waiting.push_back(waiting),
            None => {
                drop(state);
                drop(waiting);
            }
        }
    }

    /// Makes sandboxes wherever one is missing, until the pool is stopped.
    fn fill(&self, site: &Site) {
        let mut rest = REST;
        while let Some(kind) = self.next_missing(rest) {
            // What is made and not wanted any more is gone when this is.
            let _making = Making(self);
            match Waiting::make(site, kind.clone()) {
                Ok(waiting) => {
                    rest = REST;
                    self.put(kind, waiting);
                }
                Err(error) => {
                    tracing::debug!(%error, ?kind, "no sandbox could be made for the pool");
                    // Others must not wait for one that cannot be had. Whoever asks for it again hears why.
                    if kind != Kind::usual() {
                        self.forget(&kind);
                    }
                    rest = (rest * 2).min(LONGEST_REST);
                }
            }
        }
    }

    /// Makes no more of a kind, and ends what waits of it, which takes time: not while others wait for the lock.
    fn forget(&self, kind: &Kind) {
        let gone = self.lock().ready.remove(kind);
        drop(gone);
    }

    /// The kind of which one is missing, after a `rest` since that is so. `None` once the pool is stopped.
    fn next_missing(&self, rest: Duration) -> Option<Kind> {
        let mut since = None;
        let mut state = self.lock();
        while !state.stopped {
            let is_short = |entry: &(&Kind, &Shelved)| entry.1.waiting.len() < self.size;
            let missing = state.ready.iter().find(is_short);
            let missing = missing.map(|(kind, _)| kind.clone());
            let Some(kind) = missing else {
                since = None;
                let woken = self.changed.wait(state);
                state = woken.unwrap_or_else(PoisonError::into_inner);
                continue;
            };
            let start = *since.get_or_insert_with(Instant::now);
            let left = rest.saturating_sub(start.elapsed());
            if left.is_zero() {
                state.making = Some(kind.clone());
                return Some(kind);
            }
            let woken = self.changed.wait_timeout(state, left);
            state = woken.unwrap_or_else(PoisonError::into_inner).0;
        }
        None
    }
}

/// As long as it lives one is being made.
struct Making<'a>(&'a Shelf);

impl Drop for Making<'_> {
    fn drop(&mut self) {
        self.0.lock().making = None;
        self.0.changed.notify_all();
    }
}

#[cfg(test)]
mod tests;
