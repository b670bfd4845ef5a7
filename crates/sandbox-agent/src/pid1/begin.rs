//! A sandbox that is made before anybody asks for one: it waits, and begins once.

use std::io;

use sandbox_agent::protocol::agent::{Event, Failure, Request};
use sandbox_agent::protocol::{Blob, Limits};

use super::agent::{Agent, Task};
use super::launch::check_env;
use super::refusal::Refusal;
use super::requests::Answer;
use crate::sys::timer::now;
use crate::view::Processors;

/// How far the sandbox has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stage {
    /// Nothing was asked of it.
    New,
    /// It is ready, and nobody's yet.
    Waits,
    /// It is somebody's.
    Works,
}

impl Agent {
    /// Refuses what does not fit the stage, which changes with the request: nothing is ever done in a sandbox that waits,
    /// and none begins a second time.
    pub(super) fn admit(&mut self, request: &Request) -> Result<(), Refusal> {
        let refuse = |message: &str| Err(Refusal::new(Failure::State {}, message));
        self.stage = match (self.stage, request) {
            (stage, Request::Info { .. } | Request::Network {} | Request::Shutdown {}) => stage,
            (Stage::New, Request::Wait {}) => Stage::Waits,
            (Stage::Waits, Request::Begin { .. }) => Stage::Works,
            (Stage::Waits, _) => return refuse("the sandbox has not begun yet"),
            (_, Request::Wait {} | Request::Begin { .. }) => {
                return refuse("the sandbox has begun already");
            }
            (Stage::New | Stage::Works, _) => Stage::Works,
        };
        Ok(())
    }

    /// Becomes somebody's sandbox, whose clock starts now.
    pub(super) fn begin(
        &mut self,
        env: Vec<(Blob, Blob)>,
        lifetime_ms: u64,
        max_processes: u64,
        limits: &Limits,
    ) -> Answer {
        check_env(&env)?;
        self.show(limits)
            .map_err(|error| Refusal::system("show the sandbox its limits", &error))?;
        if !env.is_empty() || max_processes > 0 {
            self.launcher.env = env;
            self.launcher.max_processes = max_processes;
            // It has a copy of what the environment was, and no limit.
            self.dismiss_reserve();
        }
        self.later(Task::Recruit);
        self.started = now();
        self.set_lifetime(lifetime_ms);
        Ok(Event::Done {})
    }

    /// Lets programs see what they may use, if they do not yet.
    fn show(&mut self, limits: &Limits) -> io::Result<()> {
        let Some((view, machine)) = self.view.take() else {
            return Ok(());
        };
        view.show(&machine, limits)?;
        let processors = Processors::choose(limits)?;
        processors.take(0)?;
        match &self.reserve {
            Some(reserve) => processors.take(reserve.pid),
            None => Ok(()),
        }
    }
}
