//! What crosses a wire between master, runners, feeders and watchers: the messages and their JSON
//! codec, the task document, ids, times as values, limits, refusals, and the schema made from these
//! types.
//!
//! This crate does no IO, reads no clock and draws no random number. Callers pass times and
//! identifiers as values.

#![deny(missing_docs)]

pub mod canonical;
pub mod capabilities;
pub mod event;
pub mod excerpt;
pub mod files;
pub mod glob;
pub mod id;
pub mod json;
pub mod limits;
pub mod message;
pub mod near;
pub mod offer;
pub mod outcome;
pub mod placeholder;
pub mod refusal;
mod relative;
pub mod schema;
pub mod shape;
pub mod splice;
pub mod task;
pub mod time;
pub mod token;

pub use capabilities::Capabilities;
pub use event::{EventFilter, EventKind, EventView};
pub use files::{FilePath, InputRef, Listing};
pub use glob::Glob;
pub use id::{AttemptId, Hash, JobName, ModuleName, ModuleRef, Salt, TaskId};
pub use json::Json;
pub use message::{FromMaster, ToMaster};
pub use offer::Offer;
pub use outcome::{ErrorKind, TaskError, TaskStats};
pub use refusal::{Refusal, RefusalCode};
pub use shape::{ModuleKind, TaskState, TaskView};
pub use task::{CacheMode, CachePolicy, Dependency, Requires, Retries, TaskDocument, When};
pub use time::{Now, Wall};

/// The version of the protocol. A peer names its version in `hello`, and `welcome` answers with the
/// version that will be spoken; a master refuses every version but this one. A change that an older
/// peer would misread raises it.
pub const PROTOCOL_VERSION: u32 = 1;
