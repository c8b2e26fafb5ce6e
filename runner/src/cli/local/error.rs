//! Why `taskmaster run` ends without having run anything.

/// Why the module was not run, in one sentence. The variant decides on the exit code.
#[derive(Debug, thiserror::Error)]
pub enum LocalRunError {
    /// What was typed is wrong, or does not fit the manifest.
    #[error("{0}")]
    Usage(String),
    /// The module, its manifest or its inputs cannot be read, or the module would not load.
    #[error("{0}")]
    Failed(String),
}

impl LocalRunError {
    /// An error that is not the typist's.
    pub fn failed(error: impl std::fmt::Display) -> LocalRunError {
        LocalRunError::Failed(error.to_string())
    }

    /// An error in what was typed.
    pub fn usage(error: impl std::fmt::Display) -> LocalRunError {
        LocalRunError::Usage(error.to_string())
    }

    /// The exit code of the command.
    pub fn exit_code(&self) -> u8 {
        match self {
            LocalRunError::Usage(_) => 2,
            LocalRunError::Failed(_) => 1,
        }
    }
}
