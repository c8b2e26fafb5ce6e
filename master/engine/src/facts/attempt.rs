//! The last attempt of an open task, and what went wrong with those before.

use std::sync::Arc;
use taskmaster_protocol::{Hash, TaskError, Wall};

/// The last attempt of an open task that was sent to a runner.
#[derive(Debug, Default)]
pub(crate) struct LastAttempt {
    /// The version of the module that the attempt runs.
    pub version: Option<Hash>,
    /// The name of the runner; `None` if an earlier master sent the attempt.
    pub runner: Option<Arc<str>>,
    /// When the runner started the module, once it has told so.
    pub started: Option<Wall>,
    /// The number of the attempt, from 1 on; 0 before the first one.
    pub n: u32,
    /// When the attempt was sent.
    pub sent: Wall,
    /// The key by which the answer of the attempt may be kept.
    pub cache_key: Option<Hash>,
    /// Whether the attempt adds tasks, so that its answer is not all that it does.
    pub adds_tasks: bool,
    /// What went wrong with this attempt and those before; most tasks have no failures.
    pub failures: Option<Box<Failures>>,
}

/// What went wrong with the attempts of an open task.
#[derive(Debug, Default)]
pub(crate) struct Failures {
    /// Why the last attempt failed.
    pub error: Option<TaskError>,
    /// A clause for each runner that was lost while it had an attempt of the task.
    pub losses: Vec<String>,
}

/// When an attempt began, from what its runner says. The runner's clock may be off, so the time is
/// not before `sent` and not after `latest`, both by the master's clock.
pub(crate) fn began(said: Wall, sent: Wall, latest: Wall) -> Wall {
    said.max(sent).min(latest)
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
