//! The states of a task, the moves between them, and the only record the core keeps of one.
//!
//! ```text
//!           dependencies open            not before, back-off            lent to a slot
//!  add ──►  blocked  ──────────►  delayed  ──────────►  ready  ──────────►  assigned  ──►  done
//!              │                     ▲                    ▲                    │  runner lost, retryable error
//!              │ a dependency failed └────────────────────┴────────────────────┤
//!              ▼                                                               ▼
//!           skipped                cancelled ◄── from any open state         failed (retries used up, or permanent)
//! ```

use crate::event::{Due, RunnerKey, TaskKey};
use crate::few::Few;
use crate::jobs::JobKey;
use crate::ready::ClassKey;
use std::sync::Arc;
use taskmaster_protocol::{AttemptId, Retries, TaskState, When};

/// How a task ended. A final task leaves the core as soon as no runner holds an attempt of it and
/// its dependents know.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Final {
    /// An attempt's result was committed.
    Done,
    /// Retries used up, a permanent error, or too many lost runners.
    Failed,
    /// Somebody wanted it.
    Cancelled,
    /// A dependency ended in another way than it waited for.
    Skipped,
}

impl Final {
    /// Whether a dependency that ended so is what a dependent with `when` waited for.
    pub fn meets(self, when: When) -> bool {
        match when {
            When::Done => self == Final::Done,
            When::Failed => self == Final::Failed,
            When::Settled => true,
        }
    }

    /// The state as watchers see it.
    pub fn state(self) -> TaskState {
        match self {
            Final::Done => TaskState::Done,
            Final::Failed => TaskState::Failed,
            Final::Cancelled => TaskState::Cancelled,
            Final::Skipped => TaskState::Skipped,
        }
    }
}

/// Where a task is, with what only that state needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// In by: an add with open dependencies; an attempt after which it goes on as a task with some.
    /// Out by: the last of them met (delayed or ready), one of them ended otherwise (skipped), a
    /// cancel.
    Blocked {
        /// Dependencies still open.
        open: u32,
    },
    /// In by: `delay_ms`, `not_before`, a retry's back-off. Out by: the time, which is
    /// [`Task::due`] (ready), a cancel.
    Delayed,
    /// In by: nothing holds it back; a lost runner; an attempt given back. Out by: a slot
    /// (assigned), a cancel. In the ready index, but for a task for which a runner keeps its slots.
    Ready {
        /// A runner keeps its slots for it.
        reserved: bool,
    },
    /// In by: an attempt sent, or found on a runner after a restart. Out by: a result (done), an
    /// error (delayed, ready or failed), a lost runner (ready), a cancel, an attempt after which it
    /// goes on as another task (blocked first).
    Assigned,
    /// In by: see [`Final`]. Out by: nothing; `tasks retry` makes a new task of the same id.
    Ended(Final),
}

impl State {
    /// The state as watchers see it.
    pub fn name(self) -> TaskState {
        match self {
            State::Blocked { .. } => TaskState::Blocked,
            State::Delayed => TaskState::Delayed,
            State::Ready { .. } => TaskState::Ready,
            State::Assigned => TaskState::Assigned,
            State::Ended(how) => how.state(),
        }
    }

    /// Whether the move is one of the diagram's.
    pub fn may_become(self, next: State) -> bool {
        use State::{Assigned, Blocked, Delayed, Ended, Ready};
        match (self, next) {
            (Ended(_), _) => false,
            (Blocked { .. }, Blocked { .. } | Delayed | Ready { .. }) => true,
            (Blocked { .. }, Assigned | Ended(Final::Done | Final::Failed)) => false,
            // A late success or poison can meet a task that waits for its next try; a held attempt
            // is adopted.
            (Delayed | Ready { .. }, Blocked { .. }) => false,
            (Delayed | Ready { .. } | Assigned, Ended(Final::Skipped)) => false,
            (Delayed | Ready { .. }, _) => true,
            // Also to blocked: it goes on as a task that waits.
            (Assigned, _) => true,
            (Blocked { .. }, Ended(_)) => true,
        }
    }
}

/// An attempt that may still report.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Held {
    /// The attempt.
    pub attempt: AttemptId,
    /// Who holds it; `None`: a runner that was lost, and may come back with it.
    pub runner: Option<RunnerKey>,
    /// The name of the runner that it was sent to: nobody else may speak of it.
    pub name: Arc<str>,
}

/// A dependent, remembered by the task that it waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Waiter {
    /// The dependent.
    pub task: TaskKey,
    /// Its [`Task::life`]: where another task, or the same one opened again, has taken the key
    /// since, the entry is stale.
    pub life: u32,
    /// How this task must end.
    pub when: When,
}

/// What a task has that was tried, or that has terms of its own. Most that wait have neither.
#[derive(Debug, Clone)]
pub(crate) struct Tried {
    /// The time before which it must not start, kept while it is blocked.
    pub due: Option<Due>,
    /// `None`: the default.
    pub retries: Option<Box<Retries>>,
    /// Failures counted.
    pub tries: u32,
    /// Lost runners counted.
    pub lost: u32,
    /// The number of the last attempt sent in this epoch or counted in an earlier one.
    pub last_n: u32,
    /// Attempts of this number and older are void.
    pub fence: AttemptId,
    /// Attempts that may still report.
    pub held: Few<Held>,
}

/// All that the core keeps of a task: no id, no params, no results. Tasks are visited in any order,
/// so each is one line of the cache, and a second one while it is tried.
#[derive(Debug, Clone)]
#[repr(align(64))]
pub struct Task {
    /// Its place in the order of adding.
    pub no: u64,
    /// Tells it from all that had its key before: its number among those that the core was told of.
    pub life: u32,
    /// Its job.
    pub job: JobKey,
    /// Module and requirements.
    pub class: ClassKey,
    /// Higher first.
    pub priority: i32,
    /// Attempts of earlier epochs are void, where [`Tried`] says nothing else.
    pub(crate) since: u32,
    /// Where it is. Written by [`crate::Scheduler::enter`] alone.
    pub(crate) state: State,
    pub(crate) tried: Option<Box<Tried>>,
    /// Who waits for it.
    pub waiters: Few<Waiter>,
    /// It has ended, and not all who waited for it know yet.
    pub(crate) telling: bool,
}

const _: () = assert!(
    size_of::<Option<Task>>() == 64,
    "a task in the table is one line of the cache"
);

impl Task {
    /// The time before which it must not start.
    pub fn due(&self) -> Option<Due> {
        self.tried.as_ref().and_then(|tried| tried.due)
    }

    /// Its own policy, where it is not the default.
    pub(crate) fn retries(&self) -> Option<&Retries> {
        self.tried
            .as_ref()
            .and_then(|tried| tried.retries.as_deref())
    }

    /// Failures counted.
    pub fn tries(&self) -> u32 {
        self.tried.as_ref().map_or(0, |tried| tried.tries)
    }

    /// The number of the last attempt sent in this epoch or counted in an earlier one.
    pub(crate) fn last_n(&self) -> u32 {
        self.tried.as_ref().map_or(0, |tried| tried.last_n)
    }

    /// Attempts of this number and older are void.
    pub fn fence(&self) -> AttemptId {
        self.tried.as_ref().map_or(
            AttemptId {
                epoch: self.since,
                n: 0,
            },
            |tried| tried.fence,
        )
    }

    /// Attempts that may still report.
    pub fn held(&self) -> &[Held] {
        self.tried.as_ref().map_or(&[], |tried| &tried.held)
    }

    /// Whether a runner holds an attempt of it.
    pub(crate) fn is_held(&self) -> bool {
        self.held().iter().any(|held| held.runner.is_some())
    }

    /// Keeps those of its attempts that `keep` says.
    pub(crate) fn retain_held(&mut self, keep: impl FnMut(&Held) -> bool) {
        if let Some(tried) = &mut self.tried {
            tried.held.retain(keep);
        }
    }

    /// What it has from now on.
    pub(crate) fn tried_mut(&mut self) -> &mut Tried {
        let fence = self.fence();
        self.tried.get_or_insert_with(|| {
            Box::new(Tried {
                due: None,
                retries: None,
                tries: 0,
                lost: 0,
                last_n: 0,
                fence,
                held: Few::None,
            })
        })
    }

    /// Where it is.
    pub fn state(&self) -> State {
        self.state
    }

    /// Which it is of all that were added, counted from 1.
    pub fn no(&self) -> u64 {
        self.no
    }
}
