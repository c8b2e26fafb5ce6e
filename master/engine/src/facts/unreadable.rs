//! The error for what the store cannot say. An id that nobody knows is new, and its task may be added;
//! an id of which the store cannot be read may be that of a task that is done, and must not run again.

use taskmaster_protocol::{Refusal, RefusalCode};
use taskmaster_store::kv::StoreError;

/// The store cannot be read where it has, or would have, what was asked for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(transparent)]
pub(crate) struct Unreadable(#[from] StoreError);

impl From<Unreadable> for StoreError {
    fn from(Unreadable(error): Unreadable) -> StoreError {
        error
    }
}

impl From<Unreadable> for Refusal {
    fn from(unreadable: Unreadable) -> Refusal {
        Refusal::new(RefusalCode::Unavailable, unreadable.to_string())
    }
}
