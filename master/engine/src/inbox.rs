//! What the engine is told, and the handle by which the gateway and the module folder tell it.
//!
//! Everything goes through one queue, so that "add after the module was seen" holds by order alone.

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

/// Names one connection as long as this master lives; made by the gateway, never used twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConnectionId(pub u64);

/// Where the engine's answers to one connection go. Unbounded: runners have credits, feeders have a
/// bounded number of batches in flight, every other message is the answer to one request.
pub type Outbox = mpsc::UnboundedSender<FromMaster>;

/// One thing the engine is told.
#[derive(Debug)]
pub enum Input {
    /// A connection said `hello` and was let in. The gateway answers it with `welcome` itself.
    Connected {
        /// The connection.
        session: ConnectionId,
        /// What it said.
        hello: Hello,
        /// Where answers go.
        outbox: Outbox,
    },
    /// The connection is closed.
    Disconnected {
        /// The connection.
        session: ConnectionId,
    },
    /// A sign of life came over it that says nothing else: a ping or a pong.
    Heard {
        /// The connection.
        session: ConnectionId,
    },
    /// A message other than `task:add`, `watch`, `task:follow`, `query` (which the gateway deals
    /// with) and `task:done` (which becomes `Reports`).
    Message {
        /// Its connection.
        session: ConnectionId,
        /// What it says.
        message: ToMaster,
    },
    /// A `task:add` whose documents are parsed. Answered with `task:rejected` (where any was) and
    /// `task:added`.
    Add {
        /// Its connection.
        session: ConnectionId,
        /// The batch's number.
        batch: u64,
        /// The job of tasks that name none.
        job: Option<JobName>,
        /// Whether the session holds that job.
        hold: bool,
        /// The documents, in order; those that are wrong on their own are refused already.
        tasks: Vec<Result<Box<PreparedTask>, Refusal>>,
        /// What let it in.
        pass: Option<AdmissionPermit>,
    },
    /// Everything before this has been taken: so much room is free again for its session. Dropped
    /// when it is taken.
    Permit(OwnedSemaphorePermit),
    /// The module folder has something new.
    Module {
        /// The module's name.
        name: ModuleName,
        /// What was seen.
        seen: ModuleFile,
        /// Told when the engine knows it.
        known: Option<oneshot::Sender<()>>,
    },
    /// The hashes that the list of approved modules has. Only with `--require-approved`.
    Approved(BTreeSet<Hash>),
    /// A question; the answer may have to be completed from the store, see [`Reply`].
    Ask {
        /// The question.
        query: Query,
        /// Where the answer goes.
        reply: oneshot::Sender<Reply>,
    },
    /// The view holds every event up to this seq: what they tell of need not be kept in memory.
    Folded {
        /// The seq.
        seq: u64,
    },
    /// May these ended tasks be forgotten? The answer names those that may.
    Prune {
        /// Candidates.
        tasks: Vec<taskmaster_store::view::EndedTask>,
        /// Where the answer goes.
        reply: std::sync::mpsc::Sender<Vec<taskmaster_store::view::EndedTask>>,
    },
    /// A `task:done` whose follow-up tasks are parsed. Answered with `task:ack` when it is durable.
    Reports {
        /// Its connection.
        session: ConnectionId,
        /// One for each attempt, in order.
        reports: Vec<DoneReport>,
    },
    /// It stands otherwise with the disk.
    DiskSpace(DiskSpace),
    /// Send no more tasks and take no more; running ones may finish.
    Stop {
        /// Told when no runner holds an attempt, at the end of a turn.
        idle: oneshot::Sender<()>,
    },
    /// Commit what is there and end.
    Shutdown,
}

/// The room that a batch has while it is on its way; dropped, it is free for others.
#[derive(Debug)]
pub enum AdmissionPermit {
    /// Of large batches: until the batch is durable, and what is durable is not far ahead of the
    /// view.
    Bulk(OwnedSemaphorePermit),
    /// Of small ones: until the engine has taken it.
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

/// Tasks that an attempt wants added when it is done, read and checked.
#[derive(Debug, Default)]
pub struct FollowUpTasks {
    /// To add, in order.
    pub adds: Vec<FollowUp>,
    /// As what its task is to go on.
    pub then: Option<FollowUp>,
}

/// A task that another one adds.
#[derive(Debug)]
pub struct FollowUp {
    /// The task, or what is wrong with its document.
    pub task: Result<Box<PreparedTask>, Refusal>,
    /// Whether its document says a priority; else it has that of its parent.
    pub has_priority: bool,
}

/// What the folder holds under a name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ModuleFile {
    /// A whole, valid module; its bytes are in the blob folder.
    Sound {
        /// SHA-256 of the file.
        version: Hash,
        /// How it is run.
        kind: ModuleKind,
        /// Size of the file.
        bytes: u64,
        /// What the manifest beside it asks for; `None`: it cannot be read, and what was known
        /// stays so.
        wants: Option<Arc<Capabilities>>,
    },
    /// A file that cannot be a module.
    Unsound {
        /// Why not, a sentence.
        error: String,
    },
    /// No file of this name any more.
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

/// Whether a question is asked by somebody who can only wait when the disk is full: a runner that
/// prepares a task. All others are told something at once.
pub fn waits_for_room(query: &Query) -> bool {
    matches!(query, Query::Results { .. })
}
