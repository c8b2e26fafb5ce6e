//! The tasks that a guest asks for. The master adds them when the guest has ended well.

use super::directive::{DirectiveError, child};
use taskmaster_protocol::{Json, TaskId, limits};

/// What one attempt asked for beside its result.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FollowUps {
    /// Task documents to add, each with an id.
    pub adds: Vec<Json>,
    /// The task as which this one goes on.
    pub then: Option<Json>,
    /// For how many seconds the result may be used again, as the attempt has said last.
    pub cache_s: Option<u64>,
    /// Why the attempt asked for too much, if it did. The attempt fails of it, as nothing may be
    /// lost in silence.
    pub excess: Option<String>,
    /// Bytes of all documents in `adds`.
    bytes: usize,
}

impl FollowUps {
    /// Adds `task` as a child of `parent` and returns its id.
    pub(super) fn add(&mut self, parent: &TaskId, task: &Json) -> Result<TaskId, DirectiveError> {
        let (id, task) = child(parent, self.adds.len() + 1, task)?;
        self.bytes += task.get().len();
        if self.adds.len() >= limits::ADDS_MAX {
            self.excess = Some(format!("it added more than {} tasks", limits::ADDS_MAX));
        } else if self.bytes > limits::ADDS_BYTES_MAX {
            self.excess = Some(format!(
                "the tasks that it added have more than {} bytes",
                limits::ADDS_BYTES_MAX
            ));
        }
        match &self.excess {
            Some(excess) => Err(DirectiveError::TooManyTasks(excess.clone())),
            None => {
                self.adds.push(task);
                Ok(id)
            }
        }
    }
}
