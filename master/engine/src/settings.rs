//! Settings of how the master stores tasks.

use std::fmt;
use std::time::Duration;

/// When changes count as durable, so that they are acknowledged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Durability {
    /// When they are synced to the disk.
    Sync,
    /// As soon as they are written; the disk is synced at this interval.
    Interval(Duration),
}

impl fmt::Display for Durability {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Durability::Sync => f.write_str("sync"),
            Durability::Interval(pause) => write!(f, "interval:{}", pause.as_millis()),
        }
    }
}

/// How long ended tasks are kept. A task is forgotten when either limit is passed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Keep {
    /// A task is kept for this long after its end.
    pub time: Duration,
    /// The number of ended tasks that are kept at most.
    pub count: u64,
}

impl Default for Keep {
    fn default() -> Keep {
        Keep {
            time: Duration::from_secs(7 * 86_400),
            count: 1_000_000,
        }
    }
}
