//! Keeps something from happening more often than it may: a bucket that fills with time.

use std::time::Duration;
use tokio::time::{Instant, sleep_until};

/// How often something may happen. As much as one second brings may happen at once.
#[derive(Debug)]
pub(super) struct Pace {
    /// Between two turns.
    step: Duration,
    /// When the bucket is full.
    full: Instant,
}

impl Pace {
    /// So many turns a second.
    pub(super) fn new(per_second: u32) -> Self {
        Self {
            step: Duration::from_secs(1) / per_second.max(1),
            full: Instant::now(),
        }
    }

    /// Waits for the next turn.
    pub(super) async fn turn(&mut self) {
        let now = Instant::now();
        self.full = self.full.max(now) + self.step;
        let earliest = self.full - Duration::from_secs(1);
        if earliest > now {
            sleep_until(earliest).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_burst_is_for_free_and_the_rest_is_paced() {
        let mut pace = Pace::new(10);
        let start = Instant::now();
        for _ in 0..10 {
            pace.turn().await;
        }
        assert_eq!(start.elapsed(), Duration::ZERO);
        for _ in 0..20 {
            pace.turn().await;
        }
        let paced = start.elapsed().as_millis();
        assert!((1990..=2010).contains(&paced), "{paced} ms");
        // A pause gives no more than the burst.
        tokio::time::advance(Duration::from_secs(100)).await;
        let start = Instant::now();
        for _ in 0..11 {
            pace.turn().await;
        }
        assert!(start.elapsed() >= Duration::from_millis(99));
    }
}
