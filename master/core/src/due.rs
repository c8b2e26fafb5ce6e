//! The earliest start of a task, by either clock.

use taskmaster_protocol::{Now, Wall};

/// The time before which a task must not start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Due {
    /// By the monotonic clock, in microseconds: a task's `delay_ms`, or the back-off of a retry.
    Mono(u64),
    /// By the wall clock: a task's `not_before`.
    Wall(Wall),
}

impl Due {
    /// Whether the time has come.
    pub(crate) fn has_passed(self, now: Now) -> bool {
        match self {
            Due::Mono(us) => us <= now.mono_us,
            Due::Wall(wall) => wall <= now.wall,
        }
    }

    /// Microseconds until the time comes; 0 when it has passed.
    pub(crate) fn wait_us(self, now: Now) -> u64 {
        match self {
            Due::Mono(us) => us.saturating_sub(now.mono_us),
            Due::Wall(wall) => wall.since_us(now.wall),
        }
    }
}
