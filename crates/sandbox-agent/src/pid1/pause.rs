//! Rest: how all commands are stopped and go on, and what the sandbox's own clock does about it.
//!
//! The kernel stops every process of a cgroup that PID 1 is not in: none can wake itself or another one, and none that is
//! just being started is missed. It takes a moment, for which PID 1 does not wait.

use std::io;
use std::time::Duration;

use sandbox_agent::protocol::agent::{Event, Failure};

use super::agent::{Agent, Task};
use super::deadlines::{Due, after, milliseconds};
use super::refusal::Refusal;
use super::requests::Answer;
use super::token::Token;
use crate::sys::epoll::Watch;
use crate::sys::timer::now;

/// Milliseconds in which all commands must have stopped. What waits for a disk or a driver stops only afterwards.
const FREEZE_MS: u64 = 5_000;

/// How far the commands are at rest.
#[derive(Debug)]
enum State {
    Awake,
    /// On the way; these connections wait for it.
    Falling(Vec<u64>),
    Asleep,
}

/// Whether the sandbox rests, and when it does by itself.
#[derive(Debug)]
pub(super) struct Rest {
    state: State,
    /// The sandbox's own clock has brought it to rest.
    by_expiry: bool,
    /// What was left of the lifetime then, in milliseconds; 0 is none.
    left_ms: u64,
    /// The lifetime as it was set last.
    lifetime_ms: u64,
    /// What the end of the lifetime is.
    pauses: bool,
    idle_ms: u64,
    last_traffic: Duration,
    /// The commands are to rest until somebody says otherwise.
    asked: bool,
    /// Connections until whose end they are to rest at least.
    holders: Vec<u64>,
}

impl Rest {
    pub(super) fn new() -> Self {
        Self {
            state: State::Awake,
            by_expiry: false,
            left_ms: 0,
            lifetime_ms: 0,
            pauses: false,
            idle_ms: 0,
            last_traffic: now(),
            asked: false,
            holders: Vec::new(),
        }
    }

    /// Whether all commands have stopped, and not just for a moment.
    pub(super) fn is_paused(&self) -> bool {
        self.asked && matches!(self.state, State::Asleep)
    }

    /// Whether commands go on.
    pub(super) fn is_awake(&self) -> bool {
        matches!(self.state, State::Awake)
    }

    /// Whether a connection waits for all commands to have stopped.
    pub(super) fn is_awaited_by(&self, id: u64) -> bool {
        matches!(&self.state, State::Falling(waiting) if waiting.contains(&id))
    }

    /// Whether all commands have stopped for this connection.
    pub(super) fn is_held_by(&self, id: u64) -> bool {
        self.holders.contains(&id) && matches!(self.state, State::Asleep)
    }

    /// Refuses what would start something, and could only do so when somebody resumes the sandbox.
    pub(super) fn require_unpaused(&self) -> Result<(), Refusal> {
        if self.is_awake() || !self.asked {
            return Ok(());
        }
        let message = "the sandbox is paused, resume it first";
        Err(Refusal::new(Failure::State {}, message))
    }

    /// Somebody outside has just used the sandbox.
    pub(super) fn touch(&mut self) {
        if self.idle_ms > 0 {
            self.last_traffic = now();
        }
    }
}

impl Agent {
    /// The sandbox lives for so many milliseconds from now on; 0 is for ever.
    pub(super) fn set_lifetime(&mut self, remaining_ms: u64) {
        self.rest.lifetime_ms = remaining_ms;
        self.rest.left_ms = 0;
        self.start_lifetime(remaining_ms);
    }

    fn start_lifetime(&mut self, remaining_ms: u64) {
        self.deadlines.cancel(Due::Lifetime);
        if let Some(at) = after(remaining_ms) {
            self.deadlines.add(at, Due::Lifetime);
        }
    }

    /// Says what the end of the lifetime is, and how long the sandbox may be idle; 0 is for ever.
    pub(super) fn set_expiry(&mut self, pauses: bool, idle_ms: u64) -> Answer {
        if pauses && self.cgroups.parent().is_none() {
            return Err(without_cgroup());
        }
        self.rest.pauses = pauses;
        self.rest.idle_ms = idle_ms;
        self.rest.touch();
        self.watch_idleness();
        Ok(Event::Done {})
    }

    fn watch_idleness(&mut self) {
        self.deadlines.cancel(Due::Idle);
        if let Some(at) = after(self.rest.idle_ms) {
            self.deadlines.add(at, Due::Idle);
        }
    }

    /// Looks whether the sandbox was idle for long enough, and when to look again.
    pub(super) fn check_idle(&mut self) {
        if !self.rest.is_awake() {
            return;
        }
        let mut connections = self.connections.values();
        let is_used = connections.any(|c| c.attachment.is_some() || c.reaches_ports);
        if is_used || !self.workers.is_empty() || !self.watchers.is_empty() {
            self.rest.touch();
        }
        let idle = Duration::from_millis(self.rest.idle_ms);
        let at = self.rest.last_traffic.saturating_add(idle);
        if at > now() {
            self.deadlines.add(at, Due::Idle);
        } else {
            self.expire();
        }
    }

    /// The sandbox's time is over.
    pub(super) fn expire(&mut self) {
        if !self.rest.pauses {
            self.end();
        }
        let left = self.deadlines.when(Due::Lifetime);
        self.deadlines.cancel(Due::Lifetime);
        self.rest.left_ms = left.map_or(0, |at| milliseconds(at.saturating_sub(now())).max(1));
        (self.rest.by_expiry, self.rest.asked) = (true, true);
        if matches!(self.rest.state, State::Awake) && self.fall_asleep().is_err() {
            self.end();
        }
    }

    /// Stops all commands. The connection is answered when they have.
    pub(super) fn pause(&mut self, id: u64) {
        let was_asked = std::mem::replace(&mut self.rest.asked, true);
        if self.bring_to_rest(id).is_err() {
            self.rest.asked = was_asked;
        }
    }

    /// As [`Self::pause`], until the connection closes.
    pub(super) fn hold(&mut self, id: u64) {
        if self.cgroups.events().is_none() {
            return self.hold_none(id);
        }
        self.rest.holders.push(id);
        if self.bring_to_rest(id).is_err() {
            self.rest.holders.retain(|holder| *holder != id);
        }
    }

    /// Lets no command start until the connection closes, if none runs that would have to be stopped.
    fn hold_none(&mut self, id: u64) {
        if self.running() > 0 {
            return self.answer(id, &without_cgroup().into_event());
        }
        self.rest.holders.push(id);
        self.rest.state = State::Asleep;
        // What would be started could not be stopped.
        self.claim.serve_alone(id);
        self.answer(id, &Event::Done {});
    }

    /// A connection is gone, for which commands may have had to rest.
    pub(super) fn release(&mut self, id: u64) {
        self.end_claim(id);
        self.end_alone(id);
        let before = self.rest.holders.len();
        self.rest.holders.retain(|holder| *holder != id);
        if self.rest.holders.len() < before && !self.must_rest() {
            // If that fails, whoever resumes the sandbox will hear of it.
            self.rest.asked = self.wake().is_err();
            self.recall_reserve();
        }
    }

    fn must_rest(&self) -> bool {
        self.rest.asked || !self.rest.holders.is_empty()
    }

    /// Stops all commands, and answers the connection when they have, or at once if they cannot be stopped.
    fn bring_to_rest(&mut self, id: u64) -> Result<(), ()> {
        let result = match self.rest.state {
            State::Awake => self.fall_asleep(),
            _ => Ok(()),
        };
        // Also of a fall that the sandbox's own clock has begun: now somebody waits for the end of it.
        let is_falling = matches!(self.rest.state, State::Falling(_));
        if is_falling
            && self.deadlines.when(Due::Pause).is_none()
            && let Some(at) = after(FREEZE_MS)
        {
            self.deadlines.add(at, Due::Pause);
        }
        match (result, &mut self.rest.state) {
            (Err(refusal), _) => {
                self.answer(id, &refusal.into_event());
                return Err(());
            }
            (Ok(()), State::Falling(waiting)) => {
                waiting.push(id);
                self.check_frozen();
            }
            (Ok(()), _) => self.answer(id, &Event::Done {}),
        }
        Ok(())
    }

    /// Has the kernel stop all commands, and time with them.
    fn fall_asleep(&mut self) -> Result<(), Refusal> {
        let failed = |error| Refusal::system("stop its commands", &error);
        let events = self.cgroups.events().ok_or_else(without_cgroup)?;
        self.watch(events, Token::Frozen, Watch::Changes)
            .map_err(failed)?;
        if let Err(error) = self.cgroups.freeze(true) {
            self.unwatch_events();
            return Err(failed(error));
        }
        self.hold_clocks();
        self.rest.state = State::Falling(Vec::new());
        self.check_frozen();
        Ok(())
    }

    /// Lets time stand still for all commands.
    pub(super) fn hold_clocks(&mut self) {
        self.deadlines
            .hold(|due| matches!(due, Due::Timeout(_) | Due::Grace(_)));
    }

    fn unwatch_events(&self) {
        if let Some(events) = self.cgroups.events() {
            self.unwatch(events);
        }
    }

    /// Looks whether all commands have stopped, and says so to those who wait for it.
    pub(super) fn check_frozen(&mut self) {
        if matches!(self.rest.state, State::Falling(_)) && self.cgroups.are_frozen() {
            self.leave_falling(State::Asleep, &Event::Done {});
        }
    }

    /// Ends the way to rest, and tells those who wait.
    fn leave_falling(&mut self, state: State, event: &Event) {
        if let State::Falling(waiting) = std::mem::replace(&mut self.rest.state, state) {
            self.unwatch_events();
            self.deadlines.cancel(Due::Pause);
            self.answer_all(waiting, event);
        }
    }

    /// Answers connections that have waited, which may go on then.
    fn answer_all(&mut self, waiting: Vec<u64>, event: &Event) {
        for id in waiting {
            self.answer(id, event);
            self.later(Task::Serve(id));
        }
    }

    /// Not all commands have stopped in time. They go on, unless the sandbox's own clock has asked for it as well.
    pub(super) fn give_up_pause(&mut self) {
        let message =
            "the sandbox cannot stop its commands in time: one of them may wait for a disk";
        let event = Refusal::new(Failure::Internal {}, message).into_event();
        self.rest.holders.clear();
        self.rest.asked = self.rest.by_expiry;
        if self.rest.by_expiry {
            if let State::Falling(waiting) = &mut self.rest.state {
                let waiting = std::mem::take(waiting);
                self.answer_all(waiting, &event);
            }
        } else if self.cgroups.freeze(false).is_ok() {
            self.deadlines.release();
            self.leave_falling(State::Awake, &event);
        }
    }

    /// Lets all commands go on.
    pub(super) fn resume(&mut self) -> Answer {
        if self.rest.is_awake() {
            return Ok(Event::Done {});
        }
        if self.rest.holders.is_empty() {
            self.wake()
                .map_err(|error| Refusal::system("let its commands go on", &error))?;
        }
        self.rest.asked = false;
        let is_over = self.deadlines.when(Due::Lifetime).is_none();
        if std::mem::take(&mut self.rest.by_expiry) && is_over {
            match std::mem::take(&mut self.rest.left_ms) {
                0 => self.start_lifetime(self.rest.lifetime_ms),
                left => self.start_lifetime(left),
            }
        }
        self.rest.touch();
        self.watch_idleness();
        Ok(Event::Done {})
    }

    /// Lets the commands go on, and time with them.
    fn wake(&mut self) -> io::Result<()> {
        if self.cgroups.events().is_some() {
            self.cgroups.freeze(false)?;
        }
        let message = "the sandbox was resumed before it was paused";
        let event = Refusal::new(Failure::State {}, message).into_event();
        self.leave_falling(State::Awake, &event);
        self.deadlines.release();
        self.rest.touch();
        self.watch_idleness();
        Ok(())
    }
}

fn without_cgroup() -> Refusal {
    let message = "the sandbox has no cgroup of version 2, without which its commands cannot be stopped: end them first";
    Refusal::new(Failure::State {}, message)
}
