//! One attempt with all that its execution needs.

use super::live::LiveListener;
use super::program::Program;
use super::stop::StopSwitch;
use crate::grants::Granted;
use crate::inputs::placement::InputPlacement;
use bytes::Bytes;
use std::sync::Arc;
use std::time::Duration;
use taskmaster_protocol::Glob;
use taskmaster_protocol::message::Attempt;

/// One attempt, ready to run.
pub struct Work {
    /// The attempt that is executed.
    pub attempt: Attempt,
    /// The module that is executed.
    pub program: Arc<Program>,
    /// The task's params, with every reference replaced: stdin of a command.
    pub input: Bytes,
    /// The arguments of the command line. The first one is the module's name.
    pub args: Vec<String>,
    /// The environment, without what was granted.
    pub env: Vec<(String, String)>,
    /// What the module may reach beyond its folder.
    pub granted: Granted,
    /// Limit from the start of guest code.
    pub timeout: Duration,
    /// Limit of linear memory, MiB.
    pub memory_mb: u32,
    /// The input and output files of the attempt.
    pub files: WorkFiles,
    /// Lets others stop the attempt.
    pub stop: Arc<StopSwitch>,
    /// Hears what the attempt tells while it runs.
    pub listener: LiveListener,
}

/// The files of an attempt.
#[derive(Default)]
pub struct WorkFiles {
    /// What is put into the task's folder before it runs.
    pub inputs: Option<InputPlacement>,
    /// Globs of the files that the task gives back. `None` means all files that the task made.
    pub outputs: Option<Vec<Glob>>,
}
