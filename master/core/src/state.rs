//! The states of a task and the moves between them. A test reads this diagram and compares it with
//! [`State::may_become`].
//!
//! ```text
//!           dependencies open            not before, back-off            lent to a slot
//!  add ──►  blocked  ──────────►  delayed  ──────────►  ready  ──────────►  assigned  ──►  done
//!              │                     ▲                    ▲                    │  runner lost, retryable error
//!              │ a dependency failed └────────────────────┴────────────────────┤
//!              ▼                                                               ▼
//!           skipped                cancelled ◄── from any open state         failed (retries used up, or permanent)
//! ```

use taskmaster_protocol::{TaskState, When};

/// How a task ended. An ended task leaves the core as soon as no runner holds an attempt of it and
/// its dependents have been notified.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum FinalState {
    /// The result of an attempt was committed.
    Done,
    /// The retries were used up, the error was permanent, or too many runners were lost.
    Failed,
    /// A client cancelled the task.
    Cancelled,
    /// A dependency ended in another way than the task waited for.
    Skipped,
}

impl FinalState {
    /// Whether a dependency that ended so is what a dependent with `when` waits for.
    pub fn meets(self, when: When) -> bool {
        match when {
            When::Done => self == FinalState::Done,
            When::Failed => self == FinalState::Failed,
            When::Settled => true,
        }
    }

    /// The state by its name in the protocol.
    pub fn task_state(self) -> TaskState {
        match self {
            FinalState::Done => TaskState::Done,
            FinalState::Failed => TaskState::Failed,
            FinalState::Cancelled => TaskState::Cancelled,
            FinalState::Skipped => TaskState::Skipped,
        }
    }
}

/// The state of a task, with the data that only this state has. Every open state is left by a
/// cancel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// The task waits for other tasks.
    ///
    /// Entered by a task that is opened with open dependencies, and by an assigned task that goes on
    /// as one with open dependencies. Left when the last dependency is met (to delayed or ready), or
    /// when one ends in another way than the task waits for (to skipped).
    Blocked {
        /// The number of dependencies that are still open.
        open: u32,
    },
    /// The task waits for its earliest start, which is [`Task::due`](crate::Task::due).
    ///
    /// Entered because of `delay_ms`, `not_before` or the back-off of a retry. Left when the time
    /// comes or is changed to one that has passed (to ready). A runner may come back with an attempt
    /// of the task (to assigned), or with a late report (to done or failed).
    Delayed,
    /// The task waits for a slot. It is in the ready index, unless a runner keeps its slots for it.
    ///
    /// Entered when nothing holds the task back, when its runner was lost, and when its attempt was
    /// given back. Left when an attempt is sent, or found on a runner that comes back (to assigned),
    /// when a later start is set (to delayed), and by a late report (to done, failed or delayed).
    Ready {
        /// Whether a runner keeps its slots for the task.
        reserved: bool,
    },
    /// The task waits for a slot, unless an answer is kept for it, which the engine is looking for.
    /// For the protocol the task is ready. It is in no index.
    ///
    /// Entered instead of ready by a task whose answer may be kept. Left within the same turn: to done
    /// if an answer was found, else to ready.
    LookingUp,
    /// An equal task is at work, and its answer will be the answer of this task. For the protocol
    /// the task is ready. It is in no index.
    ///
    /// Entered instead of assigned, when the task would be sent. Left when the equal task ends (to
    /// done or failed, or to be looked up anew if its end says nothing about this task), when a later
    /// start is set (to delayed), and when an earlier attempt of this task turns up (to assigned).
    Joined,
    /// A runner holds an attempt of the task.
    ///
    /// Entered when an attempt is sent, or found on a runner that comes back. Left by a result (to
    /// done), by an error (to delayed, ready or failed), by a lost runner (to ready, delayed or
    /// failed), by an attempt given back (to ready or delayed), and by an attempt after which the
    /// task goes on as another one (to blocked first).
    Assigned,
    /// The task has ended.
    ///
    /// Entered as [`FinalState`] says, and never left: `tasks retry` opens a new task of this id.
    Ended(FinalState),
}

impl State {
    /// The state by its name in the protocol.
    pub fn task_state(self) -> TaskState {
        match self {
            State::Blocked { .. } => TaskState::Blocked,
            State::Delayed => TaskState::Delayed,
            State::Ready { .. } | State::LookingUp | State::Joined => TaskState::Ready,
            State::Assigned => TaskState::Assigned,
            State::Ended(how) => how.task_state(),
        }
    }

    /// Whether the task has not ended.
    pub(crate) fn is_open(self) -> bool {
        !matches!(self, State::Ended(_))
    }

    /// Whether the task waits for no other task: an attempt of it may be at work somewhere.
    pub(crate) fn may_have_attempts(self) -> bool {
        match self {
            State::Delayed | State::Assigned => true,
            State::Ready { .. } | State::LookingUp | State::Joined => true,
            State::Blocked { .. } | State::Ended(_) => false,
        }
    }

    /// Whether a task may move from this state to `next`.
    pub fn may_become(self, next: State) -> bool {
        use FinalState::{Cancelled, Done, Failed, Skipped};
        use State::{Assigned, Blocked, Delayed, Ended, Joined, LookingUp, Ready};

        match (self, next) {
            (Blocked { .. }, Blocked { .. } | Delayed | Ready { .. } | LookingUp) => true,
            (Blocked { .. }, Ended(Cancelled | Skipped)) => true,
            (Blocked { .. }, Joined | Assigned | Ended(Done | Failed)) => false,

            (Ready { .. }, Joined) => true,
            (Delayed | LookingUp | Joined | Assigned, Joined) => false,
            (Delayed | Ready { .. } | LookingUp | Joined, Blocked { .. }) => false,
            (Delayed | Ready { .. } | LookingUp | Joined, Delayed | Ready { .. } | LookingUp) => {
                true
            }
            // A runner that was lost comes back with an attempt, or reports one late.
            (Delayed | Ready { .. } | LookingUp | Joined, Assigned | Ended(Done | Failed)) => true,

            // The task goes on as another one, which may wait for other tasks.
            (Assigned, Blocked { .. }) => true,
            (Assigned, Delayed | Ready { .. } | LookingUp | Assigned) => true,
            (Assigned, Ended(Done | Failed)) => true,

            (Delayed | Ready { .. } | LookingUp | Joined | Assigned, Ended(Cancelled)) => true,
            (Delayed | Ready { .. } | LookingUp | Joined | Assigned, Ended(Skipped)) => false,
            (Ended(_), Blocked { .. } | Delayed | Ready { .. } | LookingUp) => false,
            (Ended(_), Joined | Assigned | Ended(_)) => false,
        }
    }
}
