//! The engine's clock: what the master itself slept does not count.
//!
//! A master that was stopped (SIGSTOP, a suspended laptop) wakes with every lease past. Its inbox may still be filling
//! with the heartbeats that came meanwhile, so the time it was away is taken out of the monotonic clock.

use std::time::Duration;
use taskmaster_protocol::Now;

/// More than a busy machine takes to wake a thread; less than any lease.
const STALL_US: u64 = 1_000_000;

/// Reads [`crate::clock`], without the time during which nothing ran.
#[derive(Debug, Default)]
pub struct SteadyClock {
    slept_us: u64,
    /// When the thread should be awake again, by the plain clock.
    awake_by_us: Option<u64>,
    last: Now,
}

impl SteadyClock {
    /// The time; neither clock runs backwards.
    pub fn now(&mut self) -> Now {
        let now = crate::clock::now();
        // A turn itself takes milliseconds: a second between two looks at the clock is a stall as well.
        let mono_us = now.mono_us.saturating_sub(self.slept_us);
        if self.awake_by_us.is_none() && mono_us > self.last.mono_us + STALL_US && self.last.mono_us > 0 {
            self.slept_us += mono_us - self.last.mono_us;
        }
        let mono_us = now.mono_us.saturating_sub(self.slept_us).max(self.last.mono_us);
        self.last = Now { mono_us, wall: now.wall.max(self.last.wall) };
        self.last
    }

    /// The thread is going to wait for this long at most.
    pub fn waiting(&mut self, most: Duration) -> Duration {
        let most_us = u64::try_from(most.as_micros()).unwrap_or(u64::MAX / 4);
        self.awake_by_us = Some(crate::clock::now().mono_us.saturating_add(most_us));
        most
    }

    /// It is awake; what it was late counts as sleep.
    pub fn woke(&mut self) {
        if let Some(by) = self.awake_by_us.take() {
            let late = crate::clock::now().mono_us.saturating_sub(by);
            if late > STALL_US {
                self.slept_us += late;
            }
        }
    }
}
