//! Why the demo fails.

use std::fmt::Display;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;
use taskmaster_master::master::MasterError;
use taskmaster_protocol::{TaskId, TaskState};

/// Why the demo fails.
#[derive(Debug, thiserror::Error)]
pub enum DemoError {
    #[error("{}: {error}", .path.display())]
    File { path: PathBuf, error: io::Error },
    #[error("stdout: {0}")]
    Stdout(io::Error),
    #[error(transparent)]
    Start(#[from] MasterError),
    /// The client's own sentence.
    #[error("{0}")]
    Client(String),
    #[error("stocks.csv: {0}")]
    Prices(String),
    #[error("the master refuses a task of {job}: {why}")]
    Refused { job: &'static str, why: String },
    #[error("task {id} is {}: {why}", .state.as_str())]
    NotDone {
        id: TaskId,
        state: TaskState,
        why: String,
    },
    #[error("task {0} has no result")]
    NoResult(TaskId),
    #[error("not done after {} s", .0.as_secs())]
    Late(Duration),
}

impl DemoError {
    /// For `map_err` after something was done with the file or folder at `path`.
    pub fn file(path: &Path) -> impl FnOnce(io::Error) -> DemoError {
        let path = path.to_owned();
        move |error| DemoError::File { path, error }
    }

    /// For `map_err` after something that the client does.
    pub fn client(error: impl Display) -> DemoError {
        DemoError::Client(error.to_string())
    }
}
