//! What crosses a wire between master, runners, feeders and watchers, and nothing else: the messages and their
//! JSON codec, the task document, ids, times as values, limits, refusals, and the schema made from these types.
//!
//! This crate does no IO, reads no clock and draws no random number; whatever is one of these comes in as a value.

#![deny(missing_docs)]

pub mod event;
pub mod id;
pub mod json;
pub mod limits;
pub mod message;
pub mod near;
pub mod outcome;
pub mod refusal;
pub mod schema;
pub mod shape;
pub mod splice;
pub mod task;
pub mod time;

pub use event::{EventKind, EventView, Filter};
pub use id::{AttemptId, Hash, JobName, ModuleName, ModuleRef, TaskId};
pub use json::Json;
pub use message::{FromMaster, ToMaster};
pub use outcome::{ErrorKind, TaskError, TaskStats};
pub use refusal::{Refusal, RefusalCode};
pub use shape::{ModuleKind, TaskState, TaskView};
pub use task::{Dependency, Requires, Retries, TaskDocument, When};
pub use time::{Now, Wall};

/// The protocol's version, told in `hello` and `welcome`. A change that an older peer would misread raises it.
pub const PROTOCOL_VERSION: u32 = 1;
