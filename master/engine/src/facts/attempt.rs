//! The last attempt of an open task, and what went wrong with those before.

use std::sync::Arc;
use taskmaster_protocol::{Hash, TaskError, Wall};

/// What is known of the last attempt sent.
#[derive(Debug, Default)]
pub(crate) struct LastAttempt {
    pub version: Option<Hash>,
    pub runner: Option<Arc<str>>,
    pub started: Option<Wall>,
    pub n: u32,
    /// When it was sent.
    pub sent: Wall,
    /// What went wrong with it, or with those before; most tasks have none.
    pub failures: Option<Box<Failures>>,
}

/// What went wrong with a task that is open still.
#[derive(Debug, Default)]
pub(crate) struct Failures {
    /// Why the last attempt failed.
    pub error: Option<TaskError>,
    /// Runners that were lost while they had the task, a clause for each.
    pub losses: Vec<String>,
}

impl LastAttempt {
    pub fn error(&self) -> Option<&TaskError> {
        self.failures
            .as_ref()
            .and_then(|failures| failures.error.as_ref())
    }

    pub fn failures(&mut self) -> &mut Failures {
        self.failures.get_or_insert_default()
    }
}
