//! What comes to the link from inside this process.

use crate::outcome::Outcome;
use crate::prepare::{AskError, PrepareError, TaskResults};
use crate::sandbox::{StopSwitch, Work};
use crate::slots::SlotEvent;
use std::sync::Arc;
use taskmaster_protocol::TaskId;
use taskmaster_protocol::message::{Attempt, Compiled, Compiling};
use tokio::sync::{mpsc, oneshot};

/// What comes to the link from inside this process.
pub enum LinkEvent {
    /// A slot told something.
    Slot(SlotEvent),
    /// An attempt is prepared, or cannot be.
    Prepared(PreparedAttempt),
    /// What an attempt gives back is uploaded, or cannot be.
    Uploaded(Outcome),
    /// This machine was tried out: what is wrong with it, if anything.
    MachineChecked(Result<(), String>),
    /// An attempt asks for results.
    Question(ResultsQuestion),
    /// An announced module was compiled, or cannot be.
    Compiled(Compiled),
    /// An announced module is still being compiled.
    Compiling(Compiling),
}

/// Sends to the link. It is unbounded, because those who send must not wait; what they send is
/// bounded by the attempts that the runner accepts.
pub type LinkSender = mpsc::UnboundedSender<LinkEvent>;

/// An attempt that was being prepared.
pub struct PreparedAttempt {
    /// The attempt.
    pub attempt: Attempt,
    /// How many slots it takes.
    pub slots: u32,
    /// The attempt's own switch, by which it is known from another attempt of the same name.
    pub stop: Arc<StopSwitch>,
    /// The attempt ready to run.
    pub result: Result<Work, PrepareError>,
}

/// A question for results that waits for the master's answer.
pub struct ResultsQuestion {
    /// The tasks whose results are asked for.
    pub ids: Vec<TaskId>,
    /// Where the answer goes.
    pub reply: oneshot::Sender<Result<TaskResults, AskError>>,
}
