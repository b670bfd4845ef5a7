//! Whether the kernel ended a command because memory was used up.
//!
//! The kernel counts its kills for the sandbox as a whole: a command's own group can have no counter, since PID 1 is in the
//! group above. So each kill that is counted explains the end of one command, of those that ran at the time. It may be the
//! wrong one if the kernel's victim was not what a command's end depends on, and another command is killed by a signal of
//! the sandbox's own later.

use std::fs::File;
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt as _;

/// The file that counts the OOM kills of the sandbox: `memory.events` of cgroup v2 or `memory.oom_control` of v1.
#[derive(Debug)]
pub(super) struct OomCounter {
    file: Option<File>,
    /// How many of the kills have explained a command's end, those included that were too early for it.
    spent: u64,
}

impl OomCounter {
    /// Reads from `file`; without one nothing is ever counted.
    pub(super) fn new(file: Option<OwnedFd>) -> Self {
        Self {
            file: file.map(File::from),
            spent: 0,
        }
    }

    /// Whether there was a kill beyond the first `before` that has explained no command's end; now it has.
    pub(super) fn explain(&mut self, before: u64) -> bool {
        let spent = self.spent.max(before);
        let explains = self.read() > spent;
        if explains {
            self.spent = spent + 1;
        }
        explains
    }

    /// How many processes were ended so far.
    pub(super) fn read(&self) -> u64 {
        let mut text = [0; 1024];
        let Some(file) = &self.file else { return 0 };
        file.read_at(&mut text, 0)
            .map_or(0, |len| parse(&text[..len]))
    }
}

/// Both versions have a line `oom_kill N`.
fn parse(text: &[u8]) -> u64 {
    let text = String::from_utf8_lossy(text);
    let number = |line: &str| line.strip_prefix("oom_kill ")?.trim().parse().ok();
    text.lines().find_map(number).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write as _;

    #[test]
    fn both_versions_are_read() {
        assert_eq!(
            parse(b"low 0\nhigh 0\nmax 12\noom 3\noom_kill 2\noom_group_kill 1\n"),
            2
        );
        assert_eq!(parse(b"oom_kill_disable 0\nunder_oom 0\noom_kill 7\n"), 7);
        assert_eq!(parse(b""), 0);
        assert_eq!(parse(b"oom_kill x\n\xff"), 0);
    }

    #[test]
    fn the_file_is_read_anew_each_time() {
        let mut file = tempfile::tempfile().unwrap();
        let counter = OomCounter::new(Some(file.try_clone().unwrap().into()));
        assert_eq!(counter.read(), 0);
        writeln!(file, "oom_kill 4").unwrap();
        assert_eq!(counter.read(), 4);
        assert_eq!(OomCounter::new(None).read(), 0);
    }

    #[test]
    fn each_kill_explains_one_end() {
        let mut file = tempfile::tempfile().unwrap();
        writeln!(file, "oom_kill 4").unwrap();
        let mut counter = OomCounter::new(Some(file.into()));
        // Kills from before the start do not count.
        assert!(!counter.explain(4));
        assert!(counter.explain(2) && counter.explain(2));
        assert!(!counter.explain(2) && !counter.explain(0));
        assert!(!OomCounter::new(None).explain(0));
    }
}
