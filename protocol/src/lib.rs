//! What crosses a wire between master, runners, feeders and watchers, and nothing else: the
//! messages and their JSON codec, the task document, ids, times as values, limits, refusals, and
//! the schema made from these types.
//!
//! This crate does no IO, reads no clock and draws no random number; whatever is one of these comes
//! in as a value.

#![deny(missing_docs)]

pub mod capabilities;
pub mod event;
pub mod files;
pub mod glob;
pub mod id;
pub mod json;
pub mod limits;
pub mod message;
pub mod near;
pub mod outcome;
pub mod placeholder;
pub mod refusal;
pub mod schema;
pub mod shape;
pub mod splice;
pub mod task;
pub mod time;

pub use capabilities::Capabilities;
pub use event::{EventKind, EventView, Filter};
pub use files::{FilePath, InputRef, Listing};
pub use glob::Glob;
pub use id::{AttemptId, Hash, JobName, ModuleName, ModuleRef, TaskId};
pub use json::Json;
pub use message::{FromMaster, ToMaster};
pub use outcome::{ErrorKind, TaskError, TaskStats};
pub use refusal::{Refusal, RefusalCode};
pub use shape::{ModuleKind, TaskState, TaskView};
pub use task::{Dependency, Requires, Retries, TaskDocument, When};
pub use time::{Now, Wall};

/// The protocol's version, told in `hello` and `welcome`. A change that an older peer would misread
/// raises it.
pub const PROTOCOL_VERSION: u32 = 3;

/// The oldest version that a master still serves: one back.
pub const PROTOCOL_OLDEST: u32 = PROTOCOL_VERSION - 1;

/// From this version on a runner answers every `task:recall`, also an empty one, with
/// `task:returned`.
pub const RECALLS_ANSWERED_SINCE: u32 = 2;

/// From this version on params may be `{"$blob":"<sha256>"}`, for a master and for a runner.
pub const PARAMS_AS_BLOBS_SINCE: u32 = 3;

/// The version that a master speaks with a peer whose newest is `theirs`, if there is one. Every
/// release speaks its own version and the one before, so a peer that is one ahead is spoken to in
/// ours.
pub fn agreed_version(theirs: u32) -> Option<u32> {
    (PROTOCOL_OLDEST..=PROTOCOL_VERSION + 1)
        .contains(&theirs)
        .then(|| theirs.min(PROTOCOL_VERSION))
}
