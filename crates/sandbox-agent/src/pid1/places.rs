//! Hands out where this sandbox is, so that somebody outside can give it new overlays: its namespaces, its root and the list
//! of what is mounted.
//!
//! Real root finds these in `/proc`. To an ordinary user the kernel shows nothing of PID 1 there, even if both are the same
//! user, since nobody may look into it.

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;

use sandbox_agent::protocol::agent::Event;

use super::agent::Agent;
use super::refusal::Refusal;
use crate::sys::file;

impl Agent {
    /// Answers with descriptors of them.
    pub(super) fn hand_out_places(&mut self, id: u64) {
        let Some(connection) = self.connections.get_mut(&id) else {
            return;
        };
        match open() {
            Ok(places) => connection.send_with(&Event::Places {}, places),
            Err(error) => {
                connection.send(&Refusal::system("open its namespaces", &error).into_event());
            }
        }
    }
}

fn open() -> io::Result<Vec<OwnedFd>> {
    let open = |name: &str| File::open(format!("/proc/self/{name}")).map(OwnedFd::from);
    let place = libc::O_PATH | libc::O_DIRECTORY;
    Ok(vec![
        open("ns/user")?,
        open("ns/mnt")?,
        file::open(file::CWD, c"/", place, 0, 0)?,
        open("mountinfo")?,
    ])
}
