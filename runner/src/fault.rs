//! Faults of this machine, which are no task's: a disk that is full or gone, folders that cannot be
//! made. An attempt that meets one runs elsewhere, and this runner takes nothing until its machine
//! is well again.

use std::fmt::Display;
use std::io;

/// Why an attempt could not run here, or what it made could not be kept here.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{why}")]
pub struct MachineFault {
    /// What failed, in one sentence.
    pub why: String,
    /// Whether the task may have brought the fault about: its inputs may be larger than the disk, or
    /// it may have filled the disk. Such an attempt counts as lost, so that a task cannot make one
    /// runner after the other sick for ever.
    pub task_may_be_to_blame: bool,
}

impl MachineFault {
    /// A fault that no task brings about.
    pub fn of_machine(what: impl Display, why: impl Display) -> MachineFault {
        MachineFault {
            why: format!("{what}: {why}"),
            task_may_be_to_blame: false,
        }
    }

    /// A fault in which what the task brought along, or made, has a part.
    pub fn under_task(what: impl Display, why: impl Display) -> MachineFault {
        MachineFault {
            why: format!("{what}: {why}"),
            task_may_be_to_blame: true,
        }
    }
}

/// Whether an error says that there is no room left on a disk.
pub fn is_full(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded
    )
}

/// Whether an error comes from the names that a task chose, and would come on every machine.
pub fn is_of_names(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::AlreadyExists
            | io::ErrorKind::IsADirectory
            | io::ErrorKind::NotADirectory
            | io::ErrorKind::InvalidFilename
            | io::ErrorKind::InvalidInput
    )
}
