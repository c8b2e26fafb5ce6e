//! The events of the wire. One WebSocket message holds one JSON object,
//! `{"event":"task:add","data":…}`.
//!
//! Nothing large is alone in a message: batches are arrays. What carries a `ref` is answered by
//! exactly one `answer` or `refused` with the same `ref`; the numbers are the client's own, per
//! connection.

use crate::outcome::{TaskError, TaskStats};
use crate::shape::TaskView;
use crate::{
    AttemptId, Capabilities, EventView, FilePath, Filter, Glob, Hash, InputRef, JobName, Json,
    ModuleKind, ModuleName, Refusal, RefusalCode, TaskId,
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use std::collections::BTreeMap;
use std::sync::Arc;

mod question;

pub use crate::shape::ModuleVersion;
pub use question::{Answer, Ask, Page, Query, Status};

/// What kind of peer says `hello`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// Executes tasks.
    Runner,
    /// Adds tasks, asks, watches, follows: every client that is no runner.
    Client,
}

/// The first message of every connection.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Hello {
    /// What the client is.
    pub role: Role,
    /// The version of the protocol that it speaks.
    pub protocol: u32,
    /// The token, where the master wants one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token: Option<String>,
    /// The session to go on with: a name that the client made, the same across its reconnects.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session: Option<String>,
    /// What a runner offers; runners only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub runner: Option<Offer>,
}

/// What a runner offers.
#[derive(
    Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Default, Serialize, Deserialize, JsonSchema,
)]
pub struct Offer {
    /// Its name, the same as long as its process lives; `up` uses the same name at every start.
    pub name: String,
    /// Room for this many one-slot tasks at a time.
    pub slots: u32,
    /// `--label k=v`.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    /// Names that it was started to offer (`--env NAME`).
    #[serde(default)]
    pub env: Vec<String>,
    /// As Rust names it.
    #[serde(default)]
    pub os: String,
    /// As Rust names it.
    #[serde(default)]
    pub arch: String,
    /// Memory of the machine, MiB.
    #[serde(default)]
    pub memory_mb: u64,
    /// The only modules that it takes; empty: all.
    #[serde(default)]
    pub modules: Vec<ModuleName>,
    /// What it gives to modules that may have it; HTTP is given by every runner that has this
    /// field. Absent: nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub capabilities: Option<Capabilities>,
}

impl Offer {
    /// What of `wanted` it does not offer.
    pub fn lacks(&self, wanted: &Capabilities) -> Capabilities {
        match &self.capabilities {
            None => wanted.clone(),
            Some(offered) => Capabilities {
                http: Default::default(),
                ..wanted.beyond(offered)
            },
        }
    }
}

/// The master's answer to `hello`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Welcome {
    /// The version of the protocol that will be spoken.
    pub protocol: u32,
    /// How many times a master has started on this journal.
    pub epoch: u32,
    /// The seq of the last event that is durable: what to follow from.
    pub seq: u64,
    /// The largest message that the master takes, bytes.
    pub message_bytes_max: u64,
    /// The largest batch that the master takes, tasks.
    pub batch_tasks_max: u64,
    /// The address of the master that leads; this one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub leader: Option<String>,
}

/// An attempt of a task, named.
#[derive(
    Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema,
)]
pub struct Attempt {
    /// The task.
    pub id: TaskId,
    /// The try.
    pub attempt: AttemptId,
}

/// From a runner: what it holds and how much more it takes. The first message after `welcome`, and
/// again when the number changes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Request {
    /// How many attempts it will hold at a time, running and waiting. The master never has more
    /// outstanding.
    pub credits: u32,
    /// After a (re)connect: every attempt that it holds or whose result is not acknowledged. Absent
    /// otherwise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub held: Option<Vec<Attempt>>,
    /// Whether it takes no more and will leave when it has finished.
    #[serde(default)]
    pub draining: bool,
}

/// One attempt, ready to run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Send {
    /// The task.
    pub id: TaskId,
    /// The try.
    pub attempt: AttemptId,
    /// Its module's name.
    pub module: ModuleName,
    /// The version to run: fetch `/blobs/<version>` where it is not cached.
    pub version: Hash,
    /// Its job.
    pub job: JobName,
    /// What goes to stdin, references not yet replaced; absent: stdin is empty.
    /// `{"$blob":"<sha256>"}` and nothing else: the text of that blob, in which references are
    /// replaced, too.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub params: Option<Json>,
    /// Results that params refer to, as far as the master had them at hand; the runner asks for the
    /// others (`query` with `what: results`).
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub results: BTreeMap<TaskId, ResultRef>,
    /// argv after the module's name.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub args: Vec<String>,
    /// The module's environment.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub env: BTreeMap<String, String>,
    /// Files and folders to put into its folder: fetch `/blobs/<sha256>` where they are not cached.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub inputs: BTreeMap<FilePath, InputRef>,
    /// Globs of files to give back; absent: everything in its folder that was created or changed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub outputs: Option<Vec<Glob>>,
    /// Limit from the start of guest code.
    pub timeout_ms: u64,
    /// Limit of linear memory, MiB.
    pub memory_mb: u32,
    /// Slots that it takes.
    #[serde(default = "one", skip_serializing_if = "is_one")]
    pub slots: u32,
    /// What its module may reach; absent: nothing. Only a runner that offers it all is sent the
    /// attempt.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub capabilities: Option<Arc<Capabilities>>,
}

fn one() -> u32 {
    1
}

fn is_one(n: &u32) -> bool {
    *n == 1
}

/// A result, inline or by the name of its blob (`GET /blobs/<sha256>`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ResultRef {
    /// JSON, as the module gave it (text as a JSON string).
    Json(Json),
    /// Bytes, kept under their hash.
    Blob(Hash),
}

/// From a runner: an attempt ended with a result.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Done {
    /// The task.
    pub id: TaskId,
    /// The try.
    pub attempt: AttemptId,
    /// What it gave back. A blob has been put (`PUT /blobs/<sha256>`) before this is sent.
    pub result: ResultRef,
    /// Files that it gives back, by their path in its folder. They have been put before this is
    /// sent, too.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub outputs: BTreeMap<FilePath, Hash>,
    /// When guest code started, by the runner's clock, microseconds since 1970.
    pub started_us: i64,
    /// What it cost.
    pub stats: TaskStats,
    /// Its log.
    #[serde(default, skip_serializing_if = "Log::is_empty")]
    pub log: Log,
    /// Task documents that it added, each with an id. They are added together with its end, or not
    /// at all.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub adds: Vec<Json>,
    /// The task document as which it goes on: its result becomes this task's result.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub then: Option<Json>,
}

/// From a runner: an attempt ended without a result.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Failed {
    /// The task.
    pub id: TaskId,
    /// The try.
    pub attempt: AttemptId,
    /// Why.
    pub error: TaskError,
    /// When guest code started, by the runner's clock, microseconds since 1970; absent where it
    /// never did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started_us: Option<i64>,
    /// What it cost.
    pub stats: TaskStats,
    /// Its log.
    #[serde(default, skip_serializing_if = "Log::is_empty")]
    pub log: Log,
}

/// The first and last 32 KiB of what a task wrote to stderr, directives left out; bytes that are
/// not UTF-8 replaced.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
pub struct Log {
    /// The beginning; all of it where it is short.
    #[serde(default)]
    pub head: String,
    /// The end, where the whole is longer than the beginning.
    #[serde(default)]
    pub tail: String,
    /// Bytes between the two that were not kept.
    #[serde(default)]
    pub dropped: u64,
}

impl Log {
    /// Whether nothing was written.
    pub fn is_empty(&self) -> bool {
        self.head.is_empty() && self.tail.is_empty()
    }
}

/// From a runner, live: guest code started.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Started {
    /// The task.
    pub id: TaskId,
    /// The try.
    pub attempt: AttemptId,
    /// By the runner's clock, microseconds since 1970.
    pub started_us: i64,
}

/// From a runner, live: something a running module said (`task:progress`, `task:partial`,
/// `task:log`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Said {
    /// The task.
    pub id: TaskId,
    /// The try.
    pub attempt: AttemptId,
    /// `{"fraction":0.4,"note":"…"}`, the partial result, or `{"text":"…"}`.
    pub data: Json,
}

/// From a runner: what it did with a module.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Compiled {
    /// The module.
    pub name: ModuleName,
    /// Its version.
    pub version: Hash,
    /// Time spent compiling, 0 where it came from the cache.
    pub compile_us: u64,
    /// Why it could not be compiled.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// From a runner, live: it is still getting a module ready. Said once a second, so of large modules
/// only.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Compiling {
    /// The module.
    pub name: ModuleName,
    /// Its version.
    pub version: Hash,
    /// Since when, waiting for other compilations included.
    pub elapsed_ms: u64,
}

/// From the master to runners: a module to fetch and compile ahead of need.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Announce {
    /// The module.
    pub name: ModuleName,
    /// Its version, also the name of its blob.
    pub version: Hash,
    /// How it is run.
    pub kind: ModuleKind,
    /// Size of the file.
    pub bytes: u64,
}

/// From a feeder: tasks to add.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Add {
    /// The batch's number in this session, from 1, increasing; a resend after a reconnect has the
    /// number it had.
    pub batch: u64,
    /// The job of the tasks that name none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub job: Option<JobName>,
    /// Whether this session holds that job open until `job:release`.
    #[serde(default)]
    pub hold: bool,
    /// Task documents. Each is checked on its own; one that is wrong does not stop the others.
    pub tasks: Vec<Json>,
}

/// To a feeder: the tasks of a batch are durable.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Added {
    /// The batch.
    pub batch: u64,
    /// The ids of the tasks that were taken, in the order of the batch.
    pub ids: Vec<TaskId>,
    /// Those of them that had ended before this add (the same document was added earlier).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ended: Vec<TaskId>,
}

/// To a feeder: tasks of a batch that were not taken. Comes before the batch's `task:added`, which
/// always comes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Rejected {
    /// The batch.
    pub batch: u64,
    /// Why not, per task.
    pub tasks: Vec<Rejection>,
}

/// One task that was not taken.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Rejection {
    /// Its place in the batch, from 0.
    pub index: usize,
    /// Why.
    pub error: Refusal,
}

/// Names a job, where that is all there is to say.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct OfJob {
    /// The job.
    pub job: JobName,
}

/// From a feeder: tell me of tasks that end.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Follow {
    /// Every task of this job that ends after `since`, and the job's own `job:done`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub job: Option<JobName>,
    /// These tasks, each once, also where they have ended long ago.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ids: Vec<TaskId>,
    /// The seq up to which everything is known; absent: from now on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<u64>,
}

/// To a feeder: tasks that ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Final {
    /// Follow again from here after a reconnect; `null` where the answer is to a question about
    /// single ids.
    pub seq: Option<u64>,
    /// The tasks, in the order in which they ended.
    pub tasks: Vec<TaskView>,
    /// The run of the followed job that became done, where it did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub job_done: Option<u32>,
}

/// From a client: cancel tasks, or a job.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Cancel {
    /// The client's number for the answer.
    #[serde(rename = "ref")]
    pub reference: u64,
    /// These tasks.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ids: Vec<TaskId>,
    /// Every open task of this job.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub job: Option<JobName>,
}

/// From a client: open failed or cancelled tasks again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Retry {
    /// The client's number for the answer.
    #[serde(rename = "ref")]
    pub reference: u64,
    /// The tasks.
    pub ids: Vec<TaskId>,
}

/// From a client: change an open task.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Set {
    /// The client's number for the answer.
    #[serde(rename = "ref")]
    pub reference: u64,
    /// The task.
    pub id: TaskId,
    /// Its new priority.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub priority: Option<i32>,
    /// Its earliest start, counted from now; 0: at once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub delay_ms: Option<u64>,
}

/// What an operator does to a job, a module or a runner.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "do", rename_all = "snake_case")]
pub enum Operation {
    /// Send no more tasks of this job.
    PauseJob {
        /// The job.
        job: JobName,
    },
    /// Send tasks of this job again.
    ResumeJob {
        /// The job.
        job: JobName,
    },
    /// Send no more tasks of this module.
    PauseModule {
        /// The module.
        name: ModuleName,
    },
    /// Send tasks of this module again.
    ResumeModule {
        /// The module.
        name: ModuleName,
    },
    /// Go back to the version before the present one, or to the named one; hold the present one
    /// back until approved.
    RollbackModule {
        /// The module.
        name: ModuleName,
        /// The beginning of the version wanted, at least 8 digits; absent: the one before.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        version: Option<String>,
    },
    /// Let a version that waits be used: with what its manifest asks for, or again after a
    /// rollback.
    ApproveModule {
        /// The module.
        name: ModuleName,
        /// The beginning of the version; absent: the newest that waits.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        version: Option<String>,
        /// All that it asks for, as it was shown to who approves it: refused where it asks for
        /// something else by now. Absent: whatever it asks for.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        capabilities: Option<Capabilities>,
    },
    /// Let a runner finish what it has and send it no more.
    DrainRunner {
        /// The runner.
        runner: String,
    },
}

/// From an operator: do this.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Operate {
    /// The client's number for the answer.
    #[serde(rename = "ref")]
    pub reference: u64,
    /// What to do.
    #[serde(flatten)]
    pub operation: Operation,
}

/// From a watcher: show me events.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Watch {
    /// Which.
    #[serde(default)]
    pub filter: Filter,
    /// Every durable event after this seq, then live ones; absent: from now on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<u64>,
}

/// To a watcher: events that it will not get.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Gap {
    /// How many durable or live events were passed over.
    pub missed: u64,
    /// The seq of the next durable event that will come: `watch` since one less to go on from
    /// there.
    pub resume: u64,
    /// `slow` (live events came faster than they were read) or `pruned` (durable ones are no longer
    /// kept).
    pub reason: String,
}

/// To a client: no, and why.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Refused {
    /// The client's number; absent where the message had none or could not be read.
    #[serde(rename = "ref", default, skip_serializing_if = "Option::is_none")]
    pub reference: Option<u64>,
    /// Why.
    pub error: Refusal,
}

macro_rules! messages {
    ($(#[$top:meta])* $enum:ident { $($(#[$doc:meta])* $name:ident = $event:literal: $data:ty),* $(,)? }) => {
        $(#[$top])*
        #[derive(Debug, Clone, PartialEq, Serialize)]
        #[serde(tag = "event", content = "data")]
        #[allow(clippy::large_enum_variant, reason = "messages are moved once or twice; a box per message costs more")]
        pub enum $enum {
            $($(#[$doc])* #[serde(rename = $event)] $name($data),)*
        }

        impl $enum {
            /// The names of all events of this direction.
            pub const EVENTS: &'static [&'static str] = &[$($event),*];

            /// The event's name on the wire.
            pub fn event(&self) -> &'static str {
                match self { $($enum::$name(_) => $event),* }
            }

            /// Reads one message. `data` may stand before `event`.
            pub fn decode(text: &str) -> Result<$enum, Refusal> {
                // serde would take an array for the fields in their order.
                if text.trim_start().starts_with('[') {
                    return Err(Refusal::new(RefusalCode::WrongType, "a message is an object, {\"event\":…,\"data\":…}, not an array"));
                }
                let Envelope { event, data } = crate::refusal::read(text)?;
                let data = data.map_or("null", RawValue::get);
                match event.as_ref() {
                    $($event => crate::refusal::read::<$data>(data).map($enum::$name),)*
                    other => Err(unknown_event(other, $enum::EVENTS)),
                }
            }

            /// Writes one message.
            pub fn encode(&self) -> String {
                // Ours always serialise: string keys, no failing implementations.
                serde_json::to_string(self).unwrap_or_default()
            }

            pub(crate) fn schemas(generator: &mut schemars::SchemaGenerator) -> Vec<(&'static str, schemars::Schema)> {
                vec![$(($event, generator.subschema_for::<$data>())),*]
            }
        }
    };
}

#[derive(Deserialize)]
struct Envelope<'a> {
    #[serde(borrow)]
    event: std::borrow::Cow<'a, str>,
    #[serde(borrow, default)]
    data: Option<&'a RawValue>,
}

fn unknown_event(event: &str, known: &[&str]) -> Refusal {
    let shown: String = event.chars().take(40).collect();
    let hint = crate::near::hint(&shown, known.iter().copied());
    Refusal::new(
        RefusalCode::UnknownEvent,
        format!("unknown event `{shown}`{hint}"),
    )
    .at("event")
}

messages! {
    /// What runners and clients say to the master.
    ToMaster {
        /// First of all.
        Hello = "hello": Hello,
        /// A runner's credits and, after a connect, what it holds.
        Request = "task:request": Request,
        /// Live: guest code started. Only of attempts that have run for some milliseconds.
        Started = "task:started": Vec<Started>,
        /// Attempts with a result.
        Done = "task:done": Vec<Done>,
        /// Attempts without one.
        Failed = "task:error": Vec<Failed>,
        /// The answer to every `task:recall`, also to an empty one: attempts given back, not
        /// started; often none.
        Returned = "task:returned": Vec<Attempt>,
        /// Live.
        Progress = "task:progress": Vec<Said>,
        /// Live.
        Partial = "task:partial": Vec<Said>,
        /// Live.
        Log = "task:log": Vec<Said>,
        /// A runner compiled modules, or failed to.
        Compiled = "module:compiled": Vec<Compiled>,
        /// Live: modules that a runner is still compiling.
        Compiling = "module:compiling": Vec<Compiling>,
        /// Tasks to add.
        Add = "task:add": Add,
        /// The feed's input has ended: its session holds the job no longer.
        Release = "job:release": OfJob,
        /// Tell me of tasks that end.
        Follow = "task:follow": Follow,
        /// Cancel tasks or a job.
        Cancel = "task:cancel": Cancel,
        /// Open final tasks again.
        Retry = "task:retry": Retry,
        /// Change an open task.
        Set = "task:set": Set,
        /// An operator's wish.
        Operate = "operate": Operate,
        /// Show me events.
        Watch = "watch": Watch,
        /// A question.
        Ask = "query": Ask,
    }
}

messages! {
    /// What the master says to runners and clients.
    FromMaster {
        /// The answer to `hello`.
        Welcome = "welcome": Welcome,
        /// Something was not done, and why. After a refused `hello` the connection is closed.
        Refused = "refused": Refused,
        /// The answer to what carried a `ref`.
        Answer = "answer": Answer,
        /// Attempts to run.
        Send = "task:send": Vec<Send>,
        /// Give these back if they have not started. Empty: only answer.
        Recall = "task:recall": Vec<Attempt>,
        /// Stop these; their results are void.
        Cancel = "task:cancel": Vec<Attempt>,
        /// These results are durable or void: forget them.
        Ack = "task:ack": Vec<Attempt>,
        /// Take no more; leave when done.
        Drain = "runner:drain": (),
        /// Modules to compile ahead of need.
        Announce = "module:announce": Vec<Announce>,
        /// A batch is durable.
        Added = "task:added": Added,
        /// Tasks of a batch were not taken.
        Rejected = "task:rejected": Rejected,
        /// Tasks that ended.
        Final = "task:final": Final,
        /// Events, in order.
        Events = "watch": Vec<EventView>,
        /// Events that will not come.
        Gap = "watch:gap": Gap,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_reads_what_it_writes_in_either_order() {
        let text = r#"{"event":"job:release","data":{"job":"j"}}"#;
        let message = ToMaster::decode(text).unwrap();
        assert_eq!(
            message,
            ToMaster::Release(OfJob {
                job: JobName::new("j").unwrap()
            })
        );
        assert_eq!(message.encode(), text);
        assert_eq!(
            ToMaster::decode(r#"{"data":{"job":"j"},"event":"job:release"}"#).unwrap(),
            message
        );
    }

    #[test]
    fn questions_are_flat() {
        let ask = ToMaster::Ask(Ask {
            reference: 7,
            query: Query::Task {
                id: TaskId::new("t").unwrap(),
            },
        });
        let text = r#"{"event":"query","data":{"ref":7,"what":"task","id":"t"}}"#;
        assert_eq!(ask.encode(), text);
        assert_eq!(ToMaster::decode(text).unwrap(), ask);
        assert_eq!(
            ToMaster::decode(r#"{"event":"query","data":{"ref":1,"what":"jobs"}}"#).unwrap(),
            ToMaster::Ask(Ask {
                reference: 1,
                query: Query::Jobs
            })
        );
    }

    #[test]
    fn what_is_no_message_is_refused() {
        for (text, code, words) in [
            ("", RefusalCode::MalformedJson, "not JSON"),
            ("[1,2]", RefusalCode::WrongType, "is an object"),
            (r#"{"data":1}"#, RefusalCode::MissingField, "event"),
            (
                r#"{"event":"task:ad","data":{}}"#,
                RefusalCode::UnknownEvent,
                "`task:add`",
            ),
            (
                r#"{"event":"task:add","data":{"batch":"x","tasks":[]}}"#,
                RefusalCode::WrongType,
                "`batch`",
            ),
        ] {
            let refusal = ToMaster::decode(text).unwrap_err();
            assert_eq!(refusal.code, code, "{text}: {refusal}");
            assert!(refusal.message.contains(words), "{text}: {refusal}");
        }
    }
}
