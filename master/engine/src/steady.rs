//! The engine's clock: what the master itself slept does not count.
//!
//! A master that was stopped (SIGSTOP, a suspended laptop) wakes with every lease past. Its inbox
//! may still be filling with the heartbeats that came meanwhile, so the time it was away is taken
//! out of the monotonic clock.

use std::time::Duration;
use taskmaster_protocol::Now;

/// More than a busy machine takes to wake a thread; less than any lease.
const STALL_US: u64 = 1_000_000;

/// Reads [`crate::clock`], without the time during which nothing ran.
#[derive(Debug, Default)]
pub struct SteadyClock {
    slept_us: u64,
    /// When the thread last looked, by the plain clock; while it waits: when it should be awake
    /// again.
    expected_us: Option<u64>,
    last: Now,
}

impl SteadyClock {
    /// The time; neither clock runs backwards.
    pub fn now(&mut self) -> Now {
        self.at(crate::clock::now())
    }

    /// The thread is going to wait for this long at most.
    pub fn waiting(&mut self, most: Duration) -> Duration {
        self.waiting_from(crate::clock::now(), most)
    }

    /// It is awake; what it was late counts as sleep.
    pub fn woke(&mut self) {
        self.now();
    }

    /// The same, at this time of the plain clock.
    pub fn waiting_from(&mut self, now: Now, most: Duration) -> Duration {
        let most_us = u64::try_from(most.as_micros()).unwrap_or(u64::MAX / 4);
        self.expected_us = Some(now.mono_us.saturating_add(most_us));
        most
    }

    /// The same as [`SteadyClock::now`], at this time of the plain clock.
    pub fn at(&mut self, now: Now) -> Now {
        // A turn itself takes milliseconds: a second between two looks at the clock is a stall as
        // well.
        let late = self
            .expected_us
            .map_or(0, |expected| now.mono_us.saturating_sub(expected));
        if late > STALL_US {
            self.slept_us += late;
        }
        self.expected_us = Some(now.mono_us);
        let mono_us = now
            .mono_us
            .saturating_sub(self.slept_us)
            .max(self.last.mono_us);
        self.last = Now {
            mono_us,
            wall: now.wall.max(self.last.wall),
        };
        self.last
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use taskmaster_protocol::Wall;

    fn plain(seconds: u64) -> Now {
        Now {
            mono_us: seconds * 1_000_000,
            wall: Wall(0),
        }
    }

    #[test]
    fn waits_count_and_stalls_do_not() {
        let mut clock = SteadyClock::default();
        assert_eq!(clock.at(plain(10)).mono_us, 10_000_000);
        clock.waiting_from(plain(10), Duration::from_secs(60));
        assert_eq!(
            clock.at(plain(40)).mono_us,
            40_000_000,
            "woken early by a message"
        );
        clock.waiting_from(plain(40), Duration::from_secs(5));
        assert_eq!(
            clock.at(plain(45)).mono_us,
            45_000_000,
            "woken by its deadline"
        );
        clock.waiting_from(plain(45), Duration::from_secs(5));
        assert_eq!(
            clock.at(plain(110)).mono_us,
            50_000_000,
            "stopped for a minute while it waited"
        );
        assert_eq!(
            clock.at(plain(170)).mono_us,
            50_000_000,
            "stopped for a minute in a turn"
        );
        assert_eq!(clock.at(plain(171)).mono_us, 51_000_000);
    }
}
