//! The engine's clock. It leaves out the time in which the master itself did not run.
//!
//! When a master that was stopped (SIGSTOP, a suspended laptop) runs again, every lease has expired
//! by the plain clock, although heartbeats of living runners may still be on their way into the
//! inbox. Therefore the steady clock does not count the time of the stop.

use std::time::Duration;
use taskmaster_protocol::Now;

/// How late the thread may look at the clock, µs; above that the master was stopped. It is more
/// than a busy machine takes to wake a thread, and less than any lease.
const STALL_US: u64 = 1_000_000;

/// Reads [`crate::clock`] and leaves out the time in which the master did not run.
#[derive(Debug, Default)]
pub struct SteadyClock {
    /// How long the master has been stopped in all, µs.
    stopped_us: u64,
    /// When the thread last looked at the plain clock, µs. While the thread waits, it is the time at
    /// which the thread should be awake again. `None` before the first look.
    expected_us: Option<u64>,
    /// The time that was returned last.
    last: Now,
}

impl SteadyClock {
    /// The time. Neither the monotonic time nor the wall time runs backwards.
    pub fn now(&mut self) -> Now {
        self.at(crate::clock::now())
    }

    /// Notes that the thread is going to wait for at most `most`, and returns `most`.
    pub fn waiting(&mut self, most: Duration) -> Duration {
        self.waiting_from(crate::clock::now(), most)
    }

    /// Notes that the thread is awake again. If it is too late, the master was stopped.
    pub fn woke(&mut self) {
        self.now();
    }

    /// Notes that the thread is going to wait for at most `most`, from the plain time `now` on.
    pub fn waiting_from(&mut self, now: Now, most: Duration) -> Duration {
        let most_us = u64::try_from(most.as_micros()).unwrap_or(u64::MAX / 4);
        self.expected_us = Some(now.mono_us.saturating_add(most_us));
        most
    }

    /// The steady time when the plain clock says `now`.
    pub fn at(&mut self, now: Now) -> Now {
        // A turn takes milliseconds, so a second between two looks at the clock is a stop even where
        // the thread has not waited.
        let late = self
            .expected_us
            .map_or(0, |expected| now.mono_us.saturating_sub(expected));
        if late > STALL_US {
            self.stopped_us += late;
        }
        self.expected_us = Some(now.mono_us);
        let mono_us = now
            .mono_us
            .saturating_sub(self.stopped_us)
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
