//! What is written to disk: one record for each durable change.
//!
//! **Changing a record:** the order of variants and fields is the format. Add variants at the end;
//! for anything else raise [`FORMAT`](crate::codec::FORMAT) and write the reader of the old one.
//! Types with `skip_serializing_if` cannot be read back from this form, so the parts of a task
//! document that are seldom given travel inside as JSON ([`Rare`](crate::body::Rare)).

use crate::body::TaskBody;
use crate::codec::as_json;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::sync::Arc;
use taskmaster_protocol::message::{Log, ResultRef};
use taskmaster_protocol::shape::TaskState;
use taskmaster_protocol::{
    AttemptId, Capabilities, EventKind, FilePath, Hash, JobName, Json, ModuleKind, ModuleName,
    TaskError, TaskId, TaskStats, Wall,
};

/// Files by their path in a task's folder.
pub type Outputs = BTreeMap<FilePath, Hash>;

/// What a task gave back. The first two are what they were before there were files; few tasks have
/// the third.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Gave {
    /// JSON, and no files.
    Json(Json),
    /// Bytes under their hash, and no files.
    Blob(Hash),
    /// Files beside one of these.
    Files(Box<(ResultRef, Outputs)>),
}

impl Gave {
    /// From what a runner tells.
    pub fn new(result: ResultRef, outputs: Outputs) -> Gave {
        match result {
            result if !outputs.is_empty() => Gave::Files(Box::new((result, outputs))),
            ResultRef::Json(json) => Gave::Json(json),
            ResultRef::Blob(hash) => Gave::Blob(hash),
        }
    }

    /// The result, without files.
    pub fn result(&self) -> ResultRef {
        match self {
            Gave::Json(json) => ResultRef::Json(json.clone()),
            Gave::Blob(hash) => ResultRef::Blob(*hash),
            Gave::Files(both) => both.0.clone(),
        }
    }
}

/// A task that has ended: with its body, all there is to know of it. What stands here beside
/// [`TaskEnd`] is said by the body, too; it is repeated for those who have only this.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Ended {
    /// The seq of the event that tells of it: its place among all that ended.
    pub seq: u64,
    /// Its id.
    pub id: TaskId,
    /// Its place in the order of adding.
    pub ordinal: u64,
    /// Its module.
    pub module: ModuleName,
    /// Its job.
    pub job: JobName,
    /// When it was added.
    pub created: Wall,
    /// How it ended.
    pub end: TaskEnd,
}

/// How a task ended.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TaskEnd {
    /// A final state.
    pub state: TaskState,
    /// Its priority when it ended.
    pub priority: i32,
    /// The attempt that ended it; its `n` is 0 where there was none.
    pub attempt: AttemptId,
    /// The last attempt that was sent, which may be a later one: if the task is opened again, all
    /// up to it are void.
    pub last_sent: AttemptId,
    /// The version that ran last.
    pub version: Option<Hash>,
    /// The runner of the last attempt.
    pub runner: Option<Arc<str>>,
    /// What it gave back.
    pub result: Option<Gave>,
    /// Why it gave nothing back.
    pub error: Option<TaskError>,
    /// When guest code started, by the runner's clock.
    pub started: Option<Wall>,
    /// When it became final.
    pub finished: Wall,
    /// What the last attempt cost.
    pub stats: Option<TaskStats>,
    /// What it wrote to stderr.
    pub log: Option<Box<Log>>,
    /// What few ends have, and what later releases add.
    #[serde(with = "as_json")]
    pub extras: Option<Box<EndExtras>>,
}

/// The parts of an end that few have. They are written as JSON, so that they can grow.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct EndExtras {
    /// Of a skipped task: the dependency that ended in another way than it waited for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub skipped_for: Option<TaskId>,
}

impl Ended {
    /// The task of this body has ended with event `seq`.
    pub fn new(seq: u64, body: &TaskBody, end: TaskEnd) -> Ended {
        Ended {
            seq,
            id: body.id.clone(),
            ordinal: body.ordinal,
            module: body.module.clone(),
            job: body.job.clone(),
            created: body.created,
            end,
        }
    }
}

impl TaskEnd {
    /// An end of which nothing else is known.
    pub fn new(state: TaskState, attempt: AttemptId, finished: Wall) -> TaskEnd {
        TaskEnd {
            state,
            priority: 0,
            attempt,
            last_sent: attempt,
            version: None,
            runner: None,
            result: None,
            error: None,
            started: None,
            finished,
            stats: None,
            log: None,
            extras: None,
        }
    }

    /// Of a skipped task: the dependency that ended in another way than it waited for.
    pub fn skipped_for(&self) -> Option<&TaskId> {
        self.extras.as_ref()?.skipped_for.as_ref()
    }

    /// The result, inline or as the name of a blob.
    pub fn result_parts(&self) -> (Option<&Json>, Option<Hash>) {
        match &self.result {
            Some(Gave::Json(json)) => (Some(json), None),
            Some(Gave::Blob(hash)) => (None, Some(*hash)),
            Some(Gave::Files(both)) => match &both.0 {
                ResultRef::Json(json) => (Some(json), None),
                ResultRef::Blob(hash) => (None, Some(*hash)),
            },
            None => (None, None),
        }
    }

    /// The files that it gave back, where there are any.
    pub fn outputs(&self) -> Option<&Outputs> {
        match &self.result {
            Some(Gave::Files(both)) => Some(&both.1),
            _ => None,
        }
    }
}

/// An attempt failed and another will follow.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Retrying {
    /// The task.
    pub id: TaskId,
    /// Its module.
    pub module: ModuleName,
    /// Its job.
    pub job: JobName,
    /// Its place in the order of adding.
    pub ordinal: u64,
    /// The attempt.
    pub attempt: AttemptId,
    /// The runner.
    pub runner: Option<Arc<str>>,
    /// Failures counted.
    pub tries: u32,
    /// Lost runners counted.
    pub lost: u32,
    /// The last attempt that is void; `None`: none of them.
    pub fence: Option<AttemptId>,
    /// When the next try may start.
    pub due: Wall,
    /// Why it failed.
    pub error: TaskError,
}

/// What the journal knows of a module.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, Default)]
pub struct ModuleRecord {
    /// Every version seen, the newest last.
    pub versions: Vec<VersionRecord>,
    /// The version that the next attempt takes.
    pub current: Option<Hash>,
    /// Whether its file is there.
    pub present: bool,
    /// Whether an operator paused it.
    pub paused: bool,
    /// Why the newest file was rejected, where it was.
    pub error: Option<String>,
}

/// One version of a module.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct VersionRecord {
    /// SHA-256 of the file.
    pub version: Hash,
    /// How it is run.
    pub kind: ModuleKind,
    /// Size of the file.
    pub bytes: u64,
    /// When it was first seen.
    pub seen: Wall,
    /// Rolled back: not taken again until approved.
    pub held: bool,
}

/// What a module may reach, and what it asks for. Few modules have any of it; it stands beside
/// their [`ModuleRecord`], as JSON, so that it can grow.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, Default)]
#[serde(default)]
pub struct Rights {
    /// All that an operator ever approved for modules of this name.
    pub approved: Capabilities,
    /// What attempts are given now; never more than was approved.
    pub granted: Arc<Capabilities>,
    /// The newest file, with what its manifest asks for; `None`: nothing.
    pub newest: Option<Wishes>,
}

/// A version with what its manifest asks for.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Wishes {
    /// The version.
    pub version: Hash,
    /// What it asks for.
    pub wants: Arc<Capabilities>,
}

impl Rights {
    /// The newest file, where it asks for more than was approved.
    pub fn waiting(&self) -> Option<&Wishes> {
        self.newest
            .as_ref()
            .filter(|newest| !newest.wants.beyond(&self.approved).is_empty())
    }
}

/// What the journal knows of a job.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, Default)]
pub struct JobRecord {
    /// How many times it has been opened.
    pub run: u32,
    /// Whether it is open.
    pub open: bool,
    /// Whether it is paused.
    pub paused: bool,
    /// Tasks ever added.
    pub total: u64,
    /// Tasks that ended, by final state, over all runs; in the order done, failed, cancelled,
    /// skipped.
    pub ended: [u64; 4],
    /// Sessions that hold it.
    pub holders: Vec<Arc<str>>,
    /// A cancel that is not carried out yet concerns tasks up to this place in the order of adding.
    pub cancelled_up_to: u64,
}

/// The place of a final state in [`JobRecord::ended`].
pub fn ended_index(state: TaskState) -> usize {
    (state as usize).saturating_sub(TaskState::Done as usize)
}

/// A durable change.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Record {
    /// A master started.
    Started {
        /// How many times one has.
        epoch: u32,
    },
    /// A task was added.
    Added(Arc<TaskBody>),
    /// A task ended.
    Ended(Arc<Ended>),
    /// An attempt failed and another will follow.
    Retrying(Box<Retrying>),
    /// A final task is open again.
    Reopened {
        /// The task.
        body: Arc<TaskBody>,
        /// The last attempt of its former life.
        fence: AttemptId,
        /// The seq of its former end.
        ended: u64,
        /// How that was.
        was: TaskState,
        /// The dependency it had been skipped for.
        because: Option<TaskId>,
    },
    /// An open task was changed.
    Set {
        /// Its place in the order of adding.
        ordinal: u64,
        /// Its priority.
        priority: i32,
        /// When it may start, where that was changed.
        due: Option<Wall>,
    },
    /// A job was opened.
    JobOpened {
        /// The job.
        job: JobName,
        /// How many times it has been.
        run: u32,
    },
    /// A job is done.
    JobDone {
        /// The job.
        job: JobName,
        /// Its run.
        run: u32,
    },
    /// A session holds a job, or does no longer.
    JobHeld {
        /// The job.
        job: JobName,
        /// The session.
        by: Arc<str>,
        /// Whether it holds it now.
        held: bool,
    },
    /// A job was paused or resumed.
    JobPaused {
        /// The job.
        job: JobName,
        /// Whether it is paused now.
        paused: bool,
    },
    /// A job's tasks up to this place in the order of adding are being cancelled; 0: they are.
    JobCancelled {
        /// The job.
        job: JobName,
        /// The newest task concerned.
        up_to: u64,
    },
    /// A runner joined.
    RunnerJoined {
        /// Its name.
        name: String,
    },
    /// A runner was lost.
    RunnerLost {
        /// Its name.
        name: String,
    },
    /// A module changed.
    Module {
        /// Its name.
        name: ModuleName,
        /// What happened; `None`: nothing that watchers are told of.
        event: Option<EventKind>,
        /// What is known of it now. In a box: this variant would make every record three times as
        /// large.
        record: Box<ModuleRecord>,
    },
    /// An open task goes on as another: with its id, its place and its dependents.
    Continued {
        /// What it is from now on.
        body: Arc<TaskBody>,
        /// Attempts up to this one are void.
        fence: AttemptId,
    },
    /// What a module may reach, or asks for, changed.
    Rights {
        /// The module.
        name: ModuleName,
        /// What happened; `None`: nothing that watchers are told of.
        event: Option<EventKind>,
        /// What is known of it now.
        #[serde(with = "as_json")]
        rights: Option<Box<Rights>>,
    },
}

impl Record {
    /// The kind of event that tells of it; `None`: it has no seq.
    pub fn event(&self) -> Option<EventKind> {
        Some(match self {
            Record::Added(_) => EventKind::TaskAdded,
            Record::Ended(ended) => match ended.end.state {
                TaskState::Done => EventKind::TaskDone,
                TaskState::Failed => EventKind::TaskFailed,
                TaskState::Cancelled => EventKind::TaskCancelled,
                _ => EventKind::TaskSkipped,
            },
            Record::Retrying(_) => EventKind::TaskRetrying,
            Record::Reopened { .. } => EventKind::TaskReopened,
            Record::JobOpened { .. } => EventKind::JobOpened,
            Record::JobDone { .. } => EventKind::JobDone,
            Record::RunnerJoined { .. } => EventKind::RunnerJoined,
            Record::RunnerLost { .. } => EventKind::RunnerLost,
            Record::Module { event, .. } | Record::Rights { event, .. } => return *event,
            Record::Continued { .. } => EventKind::TaskContinued,
            Record::Started { .. }
            | Record::Set { .. }
            | Record::JobHeld { .. }
            | Record::JobPaused { .. }
            | Record::JobCancelled { .. } => return None,
        })
    }
}

/// How many events tell of these records.
pub fn events_of(records: &[Record]) -> u64 {
    records
        .iter()
        .filter(|record| record.event().is_some())
        .count() as u64
}

impl Record {
    /// The job that it is about.
    pub fn job(&self) -> Option<&JobName> {
        match self {
            Record::Added(body)
            | Record::Reopened { body, .. }
            | Record::Continued { body, .. } => Some(&body.job),
            Record::Ended(ended) => Some(&ended.job),
            Record::Retrying(retrying) => Some(&retrying.job),
            Record::JobOpened { job, .. } | Record::JobDone { job, .. } => Some(job),
            _ => None,
        }
    }
}

/// One commit: what one or several turns of the loop changed, durable together or not at all.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Entry {
    /// The seq of its first event, or the next one's where it has none.
    pub first_seq: u64,
    /// When it was made.
    pub time: Wall,
    /// The changes, in order.
    pub records: Vec<Record>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::body::{AddedTask, Fingerprint};
    use crate::codec::{Unreadable, decode, encode, pack, unpack};
    use taskmaster_protocol::TaskDocument;

    fn body(text: &str) -> TaskBody {
        let document = TaskDocument::parse(text).unwrap();
        TaskBody::new(AddedTask {
            document,
            fingerprint: Fingerprint::of(text),
            references: vec![TaskId::new("ref").unwrap()],
            id: TaskId::new("t").unwrap(),
            job: JobName::new("j").unwrap(),
            ordinal: 3,
            created: Wall(5),
        })
    }

    #[test]
    fn records_are_read_as_they_were_written() {
        let text = r#"{"module":"m@sha256:0123456789ab","params":{"a":[1,2.50]},"args":["x"],"retries":{"max":2,"on":["trap"]},
            "requires":{"labels":{"a":"b"},"slots":2},"dependencies":[{"on":"d","when":"settled"}],"not_before":"2026-01-01T00:00:00Z",
            "inputs":{"a/b":{"sha256":"HASH"},"c":{"folder":"HASH"}},"outputs":["*.png"]}"#;
        let text = &text.replace("HASH", &"0a".repeat(32));
        let entry = Entry {
            first_seq: 9,
            time: Wall(1),
            records: vec![
                Record::Added(Arc::new(body(text))),
                Record::Started { epoch: 2 },
            ],
        };
        let bytes = encode(&entry);
        assert_eq!(decode::<Entry>(&bytes).unwrap(), entry);
        let plain = body(r#"{"module":"m"}"#);
        assert_eq!(
            plain.dependencies().len(),
            1,
            "a reference implies a dependency"
        );
    }

    #[test]
    fn files_change_nothing_of_how_a_result_without_them_is_written() {
        for result in [
            ResultRef::Json(Json::string("x")),
            ResultRef::Blob(Hash::of(b"x")),
        ] {
            assert_eq!(
                pack(&Gave::new(result.clone(), Outputs::new())),
                pack(&result)
            );
            let outputs: Outputs = [(FilePath::new("a/b").unwrap(), Hash::of(b"b"))].into();
            let gave = Gave::new(result.clone(), outputs);
            assert_eq!(
                (unpack::<Gave>(&pack(&gave)).unwrap(), gave.result()),
                (gave.clone(), result)
            );
            let json = serde_json::to_string(&gave).unwrap();
            assert_eq!(serde_json::from_str::<Gave>(&json).unwrap(), gave, "{json}");
        }
    }

    #[test]
    fn what_is_damaged_is_told() {
        let mut bytes = encode(&Record::Started { epoch: 2 });
        assert_eq!(decode::<Record>(&[]), Err(Unreadable::Empty));
        bytes[5] ^= 1;
        assert_eq!(decode::<Record>(&bytes), Err(Unreadable::Checksum));
        bytes[0] = 9;
        assert_eq!(decode::<Record>(&bytes), Err(Unreadable::Format(9)));
    }
}
