//! The heart of the master: which task runs where, and when. A state machine, and nothing else.
//!
//! One door in, [`Scheduler::handle`]; one way out, the effects it appends. There is no networking,
//! no disk, no clock, no chance, no thread and no async in this crate, and no order that a hash
//! decides: the same events give the same effects in the same order. Time and chance come in as
//! values, ids and bodies stay outside: a task is a key here.
//!
//! The contract of the shell: look up the facts that an event carries, call `handle` for each
//! event, then once [`Event::TurnEnded`]; carry the effects out in order, `Store` before any
//! promise to the outside. Call again at [`Scheduler::next_deadline`].

#![deny(missing_docs)]
#![forbid(unsafe_code)]

mod attempts;
pub mod check;
mod deadlines;
mod dispatch;
mod effect;
mod event;
pub mod explain;
mod few;
mod graph;
pub mod jobs;
mod queue;
mod queues;
mod ready;
mod retry;
mod runners;
mod scheduler;
mod state;
mod table;
mod tasks;

pub use effect::{Change, Effect, Why};
pub use event::{DependsOn, Due, Event, NewTask, Origin, RunnerKey, TaskKey};
pub use few::Few;
pub use runners::RunnerFacts;
pub use scheduler::Scheduler;
pub use state::{Final, Held, State, Task, Waiter};
pub use table::Table;
