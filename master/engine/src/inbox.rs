//! What the engine is told, and the handle by which the gateway and the module folder tell it.
//!
//! Everything goes through one queue, so that "add after the module was seen" holds by order alone.

use crate::prepare::Prepared;
use crate::room::Disk;
use std::collections::BTreeSet;
use std::sync::Arc;
use taskmaster_protocol::message::{Attempt, Hello, Query};
use taskmaster_protocol::{
    Capabilities, FromMaster, Hash, JobName, Json, ModuleKind, ModuleName, Refusal, ToMaster,
};
use tokio::sync::{OwnedSemaphorePermit, mpsc, oneshot};

/// Names one connection as long as this master lives; made by the gateway, never used twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SessionNo(pub u64);

/// Where the engine's answers to one connection go. Unbounded: runners have credits, feeders have a
/// bounded number of batches in flight, every other message is the answer to one request.
pub type Outbox = mpsc::UnboundedSender<FromMaster>;

/// One thing the engine is told.
#[derive(Debug)]
pub enum Input {
    /// A connection said `hello` and was let in. The gateway answers it with `welcome` itself.
    Connected {
        /// The connection.
        session: SessionNo,
        /// What it said.
        hello: Hello,
        /// Where answers go.
        outbox: Outbox,
    },
    /// The connection is closed.
    Disconnected {
        /// The connection.
        session: SessionNo,
    },
    /// A sign of life came over it that says nothing else: a ping or a pong.
    Heard {
        /// The connection.
        session: SessionNo,
    },
    /// A message other than `task:add`, `watch`, `task:follow`, `query` (which the gateway deals
    /// with).
    Message {
        /// Its connection.
        session: SessionNo,
        /// What it says.
        message: ToMaster,
    },
    /// A `task:add` whose documents are parsed. Answered with `task:rejected` (where any was) and
    /// `task:added`.
    Add {
        /// Its connection.
        session: SessionNo,
        /// The batch's number.
        batch: u64,
        /// The job of tasks that name none.
        job: Option<JobName>,
        /// Whether the session holds that job.
        hold: bool,
        /// The documents, in order; those that are wrong on their own are refused already.
        tasks: Vec<Result<Box<Prepared>, Refusal>>,
        /// What let it in.
        pass: Option<Pass>,
    },
    /// Everything before this has been taken: so much room is free again for its session. Dropped
    /// when it is taken.
    Room(OwnedSemaphorePermit),
    /// The module folder has something new.
    Module {
        /// The module's name.
        name: ModuleName,
        /// What was seen.
        seen: Seen,
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
        tasks: Vec<taskmaster_store::view::Stored>,
        /// Where the answer goes.
        reply: std::sync::mpsc::Sender<Vec<taskmaster_store::view::Stored>>,
    },
    /// What the report of an attempt that comes next, or is held back, wants added.
    Wishes {
        /// From this connection.
        session: SessionNo,
        /// Of this attempt.
        attempt: Attempt,
        /// What it wants.
        wishes: Box<Wishes>,
    },
    /// It stands otherwise with the disk.
    Disk(Disk),
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
pub enum Pass {
    /// Of large batches: until the batch is durable, and what is durable is not far ahead of the
    /// view.
    Bulk(OwnedSemaphorePermit),
    /// Of small ones: until the engine has taken it.
    Express(OwnedSemaphorePermit),
}

/// Tasks that an attempt wants added when it is done, read and checked.
#[derive(Debug, Default)]
pub struct Wishes {
    /// To add, in order.
    pub adds: Vec<Child>,
    /// As what its task is to go on.
    pub then: Option<Child>,
}

/// A task that another one adds.
#[derive(Debug)]
pub struct Child {
    /// The task, or what is wrong with its document.
    pub task: Result<Box<Prepared>, Refusal>,
    /// Whether its document says a priority; else it has that of its parent.
    pub has_priority: bool,
}

/// What the folder holds under a name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Seen {
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
    Answer(Json),
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
