//! The inputs of the engine.
//!
//! All inputs go through one queue. Therefore order alone makes sure that, for example, a module is
//! known before a task that names it is added.

use crate::answer::QueryAnswer;
use crate::disk_space::DiskSpace;
use crate::prepare::PreparedTask;
use std::collections::BTreeSet;
use std::sync::Arc;
use taskmaster_protocol::message::{Done, Hello, Query};
use taskmaster_protocol::{
    Capabilities, FromMaster, Hash, JobName, ModuleKind, ModuleName, Refusal, ToMaster,
};
use tokio::sync::{OwnedSemaphorePermit, mpsc, oneshot};

/// Names one connection during the life of this master. The gateway makes it and never uses it
/// twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConnectionId(pub u64);

/// Takes the engine's messages to one connection. It needs no bound, because runners have credits,
/// feeders have a bounded number of batches in flight, and every other message answers one request.
pub type Outbox = mpsc::UnboundedSender<FromMaster>;

/// One input of the engine.
#[derive(Debug)]
pub enum Input {
    /// A connection sent a `hello` that the gateway accepted and answered with `welcome`.
    Connected {
        /// The new connection.
        connection: ConnectionId,
        /// The `hello` that the connection sent.
        hello: Hello,
        /// Takes the engine's messages to the connection.
        outbox: Outbox,
    },
    /// A connection is closed.
    Disconnected {
        /// The connection that is closed.
        connection: ConnectionId,
    },
    /// A ping or a pong came over a connection, which shows that the other end lives.
    Heard {
        /// The connection of the ping or the pong.
        connection: ConnectionId,
    },
    /// A message other than `task:add`, `watch`, `task:follow`, `query` (which the gateway deals
    /// with) and `task:done` (which becomes `Reports`).
    Message {
        /// The connection over which the message came.
        connection: ConnectionId,
        /// The message as it was sent.
        message: ToMaster,
    },
    /// A `task:add` whose documents are parsed. The engine answers with `task:rejected`, if it
    /// refuses any of them, and with `task:added`.
    Add {
        /// The connection over which the batch came.
        connection: ConnectionId,
        /// The client's number of the batch, which the answers repeat.
        batch: u64,
        /// The job of tasks whose documents name none.
        job: Option<JobName>,
        /// Whether the client holds that job open from now on.
        hold: bool,
        /// Whether a kept answer is enough, so that a task that has one is not added.
        answers: bool,
        /// The documents in order. Documents that are wrong on their own are refused already.
        tasks: Vec<Result<Box<PreparedTask>, Refusal>>,
        /// Counts the batch against a limit until the permit is dropped. `None` in tests.
        permit: Option<AdmissionPermit>,
    },
    /// A permit that the gateway took for earlier inputs of a connection. The engine drops the
    /// permit when it has taken these inputs.
    Permit(OwnedSemaphorePermit),
    /// The module folder has something new.
    Module {
        /// The module's name.
        name: ModuleName,
        /// What the folder holds under this name.
        seen: ModuleFile,
        /// Notified when the engine has taken the change in.
        known: Option<oneshot::Sender<()>>,
    },
    /// The hashes on the list of approved modules. Sent only with `--require-approved`.
    Approved(BTreeSet<Hash>),
    /// A question; the answer may have to be completed from the store, see [`Reply`].
    Ask {
        /// The question to answer.
        query: Query,
        /// Takes the answer to whoever asked.
        reply: oneshot::Sender<Reply>,
    },
    /// The view holds every event up to `seq`, so memory need not keep what these events changed.
    Folded {
        /// The seq of the last event that the view holds.
        seq: u64,
    },
    /// Asks which of these ended tasks may be forgotten.
    Prune {
        /// Ended tasks that are too many or too old.
        tasks: Vec<taskmaster_store::view::EndedTask>,
        /// Takes back the tasks that may be forgotten, when the turn is durable.
        reply: std::sync::mpsc::Sender<Vec<taskmaster_store::view::EndedTask>>,
    },
    /// A `task:done` whose follow-up tasks are parsed. The engine answers with `task:ack` when the
    /// turn is durable.
    Reports {
        /// The connection of the runner that reports.
        connection: ConnectionId,
        /// One report for each attempt, in order.
        reports: Vec<DoneReport>,
    },
    /// The disk's free-space state changed.
    DiskSpace(DiskSpace),
    /// The master stops: it sends and accepts no more tasks, and running attempts may end.
    Stop {
        /// Notified at the end of the first turn in which no runner holds an attempt.
        idle: oneshot::Sender<()>,
    },
    /// Ends the engine after this turn.
    Shutdown,
}

/// Counts a batch against a limit until the permit is dropped.
#[derive(Debug)]
pub enum AdmissionPermit {
    /// Permit of a large batch. It is kept until the batch is durable and the journal is not far
    /// ahead of the view.
    Bulk(OwnedSemaphorePermit),
    /// Permit of a small batch. It is kept until the engine has taken the batch.
    Express(OwnedSemaphorePermit),
}

/// The report of an attempt that has ended with a result.
#[derive(Debug)]
pub struct DoneReport {
    /// The report as it came, without the documents of its follow-up tasks.
    pub done: Done,
    /// The tasks that the attempt adds when its report counts. Most attempts add none.
    pub follow_ups: Option<Box<FollowUpTasks>>,
}

/// Tasks that the result of an attempt asks for, read and checked by the gateway.
#[derive(Debug, Default)]
pub struct FollowUpTasks {
    /// Tasks to add, in the order of the result.
    pub adds: Vec<FollowUp>,
    /// The task as which the attempt's own task continues instead of ending.
    pub then: Option<FollowUp>,
}

/// A task that an attempt of another task asks for.
#[derive(Debug)]
pub struct FollowUp {
    /// The task, or what is wrong with its document.
    pub task: Result<Box<PreparedTask>, Refusal>,
    /// Whether its document names a priority. If not, it gets the priority of its parent.
    pub has_priority: bool,
}

/// What the module folder holds under a name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ModuleFile {
    /// A whole, valid module, whose bytes are in the blob folder.
    Sound {
        /// SHA-256 of the file.
        version: Hash,
        /// How runners run the module.
        kind: ModuleKind,
        /// Size of the file, bytes.
        bytes: u64,
        /// The capabilities that the manifest beside the file asks for. `None` if the manifest
        /// cannot be read; then the capabilities known before still count.
        wants: Option<Arc<Capabilities>>,
        /// What stands in for the hash of the file in the keys of answers, by the same manifest.
        cache_version: Option<Arc<str>>,
    },
    /// A file that is no valid module.
    Unsound {
        /// Why it is not valid, a sentence.
        error: String,
    },
    /// There is no file of this name any more.
    Gone,
}

/// The engine's answer to a question.
#[derive(Debug)]
pub enum Reply {
    /// The whole answer.
    Answer(QueryAnswer),
    /// No, and why.
    Refused(Refusal),
    /// The rest is in the store, read by the asker's own thread so that no turn of the engine is
    /// long.
    FromStore(crate::lookup::Lookup),
}

/// Whether the answer to a question may wait until the disk has space. Only runners ask such
/// questions, to prepare a task; other questions are answered or refused at once.
pub fn waits_for_disk_space(query: &Query) -> bool {
    matches!(query, Query::Results { .. })
}
