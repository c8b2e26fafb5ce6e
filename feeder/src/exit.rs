//! The exit codes of every client command, and the code that ended tasks stand for.

use serde::Serialize;
use taskmaster_protocol::TaskState;

/// The command did what it should.
pub const OK: u8 = 0;

/// An error, or a feed in which lines were refused.
pub const ERROR: u8 = 1;

/// The command line cannot be understood.
pub const USAGE: u8 = 2;

/// A task that was waited for failed or was skipped.
pub const FAILED: u8 = 3;

/// No task that was waited for failed, but some were cancelled.
pub const CANCELLED: u8 = 4;

/// `--wait-timeout` passed.
pub const TIMEOUT: u8 = 5;

/// No runner could ever qualify for the task. Reserved: a master of this version lets such a task
/// wait.
pub const NO_RUNNER: u8 = 6;

/// No master answers.
pub const UNREACHABLE: u8 = 69;

/// The reader of stdout has gone, as for a program that SIGPIPE ends.
pub const PIPE_CLOSED: u8 = 141;

/// A signal ended the command while it waited: this and the number of the signal.
pub const SIGNALLED: u8 = 128;

/// How many of the tasks that were waited for ended in each final state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct EndCounts {
    /// Tasks that have a result.
    pub done: u64,
    /// Tasks whose last attempt failed.
    pub failed: u64,
    /// Tasks that an operator or a script cancelled.
    pub cancelled: u64,
    /// Tasks whose dependency did not end as they need it.
    pub skipped: u64,
}

impl EndCounts {
    /// Counts one ended task. An open state counts nothing.
    pub fn count(&mut self, state: TaskState) {
        match state {
            TaskState::Done => self.done += 1,
            TaskState::Failed => self.failed += 1,
            TaskState::Skipped => self.skipped += 1,
            TaskState::Cancelled => self.cancelled += 1,
            TaskState::Blocked | TaskState::Delayed | TaskState::Ready | TaskState::Assigned => {}
        }
    }

    /// All tasks that have ended.
    pub fn total(&self) -> u64 {
        self.done + self.failed + self.cancelled + self.skipped
    }

    /// [`FAILED`] where a task failed or was skipped, else [`CANCELLED`] where one was cancelled,
    /// else [`OK`].
    pub fn exit_code(&self) -> u8 {
        if self.failed > 0 || self.skipped > 0 {
            FAILED
        } else if self.cancelled > 0 {
            CANCELLED
        } else {
            OK
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ends_of_tasks_decide_the_exit_code() {
        for (states, code) in [
            (vec![], OK),
            (vec![TaskState::Done], OK),
            (vec![TaskState::Done, TaskState::Cancelled], CANCELLED),
            (vec![TaskState::Cancelled, TaskState::Skipped], FAILED),
            (vec![TaskState::Failed, TaskState::Cancelled], FAILED),
            (vec![TaskState::Ready], OK),
        ] {
            let mut counts = EndCounts::default();
            states.iter().for_each(|state| counts.count(*state));
            assert_eq!(counts.exit_code(), code, "{states:?}");
        }
    }
}
