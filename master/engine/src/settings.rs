//! What an operator can set of how tasks are kept.

use std::fmt;
use std::time::Duration;

/// When an add is acknowledged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Durability {
    /// When it is on disk.
    Sync,
    /// At once; the disk is synced this often.
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

/// How long finished tasks are kept; whichever is less.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Keep {
    /// This long after they ended.
    pub time: Duration,
    /// At most so many of them.
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
