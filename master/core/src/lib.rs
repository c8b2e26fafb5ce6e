//! The heart of the master: which task runs where, and when. This crate is a state machine, and
//! nothing else.
//!
//! Events come in through one function, [`Scheduler::handle`], and what is to be done comes out as
//! the effects that it appends. There is no networking, no disk, no clock, no random number, no
//! thread and no async in this crate, and nothing depends on the order of a hash: the same events
//! give the same effects in the same order. Time and random numbers come in as values. Ids,
//! parameters and results stay outside: here a task is a key.
//!
//! The contract of the engine, which is the crate around this one: look up the facts that an
//! event carries, call `handle` for each event and then once with [`Event::TurnEnded`]. Carry the
//! effects out in order, and commit every [`Effect::Store`] before anything is promised to the
//! outside. Call `handle` with [`Event::TurnEnded`] again at [`Scheduler::next_deadline`].

#![deny(missing_docs)]
#![forbid(unsafe_code)]

mod attempts;
mod cancels;
mod check;
mod classes;
mod deadlines;
mod dependencies;
mod dispatch;
mod due;
mod effect;
mod event;
mod explain;
mod groups;
mod holders;
mod jobs;
mod joining;
mod keys;
mod liveness;
mod one_or_many;
mod priorities;
mod ready;
mod ready_queues;
mod retry;
mod runners;
mod scheduler;
mod sharing;
mod state;
mod task;
mod task_map;
mod task_queue;
mod tasks;

pub use due::Due;
pub use effect::{DurableChange, Effect, EndReason};
pub use event::{CancelOrigin, DependsOn, Event, NewTask, Origin};
pub use explain::{Explanation, WaitsFor};
pub use jobs::{Job, JobCounts, StoredJob};
pub use keys::{ClassKey, JobKey, RunnerKey, SharedRunKey, TaskKey};
pub use one_or_many::OneOrMany;
pub use runners::RunnerFacts;
pub use scheduler::Scheduler;
pub use state::{FinalState, State};
pub use task::{Dependent, OpenAttempt, Task};
pub use task_map::TaskMap;
