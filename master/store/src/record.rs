//! The records that the journal writes to disk, one for each durable change.
//!
//! **Changing a record:** the order of variants and fields is the format. Add new variants at the end.
//! For any other change raise [`FORMAT`](crate::codec::FORMAT) and write a reader of the old form.
//! Types with `skip_serializing_if` cannot be read back from the compact form, so the parts that few
//! task documents have are written as JSON inside it ([`BodyExtras`](crate::body::BodyExtras)).

use crate::body::TaskBody;
use crate::cache::CacheTerms;
use crate::codec::as_json;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::sync::Arc;
use taskmaster_protocol::message::{Log, ResultRef};
use taskmaster_protocol::shape::{AnswerSource, TaskState};
use taskmaster_protocol::{
    AttemptId, Capabilities, EventKind, FilePath, Hash, JobName, Json, ModuleKind, ModuleName,
    TaskError, TaskId, TaskStats, Wall,
};

/// The blobs of a task's files, by their path in the task's folder.
pub type OutputBlobs = BTreeMap<FilePath, Hash>;

/// What a task returned. Few tasks return files, and only their output has the third form.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TaskOutput {
    /// A JSON result, and no files.
    Json(Json),
    /// A result that lies in a blob, and no files.
    Blob(Hash),
    /// A result of either kind, and files.
    Files(Box<(ResultRef, OutputBlobs)>),
}

impl TaskOutput {
    /// The output of a task from the result and the files that its runner reports.
    pub fn new(result: ResultRef, outputs: OutputBlobs) -> TaskOutput {
        if !outputs.is_empty() {
            return TaskOutput::Files(Box::new((result, outputs)));
        }
        match result {
            ResultRef::Json(json) => TaskOutput::Json(json),
            ResultRef::Blob(hash) => TaskOutput::Blob(hash),
        }
    }

    /// The result without the files.
    pub fn result(&self) -> ResultRef {
        match self {
            TaskOutput::Json(json) => ResultRef::Json(json.clone()),
            TaskOutput::Blob(hash) => ResultRef::Blob(*hash),
            TaskOutput::Files(result_and_files) => result_and_files.0.clone(),
        }
    }

    /// The files; `None` where there are none.
    pub fn outputs(&self) -> Option<&OutputBlobs> {
        match self {
            TaskOutput::Files(result_and_files) => Some(&result_and_files.1),
            TaskOutput::Json(_) | TaskOutput::Blob(_) => None,
        }
    }
}

/// A task that has ended. Together with the task's body it says all that is known of the task. The
/// fields beside `end` repeat parts of the body for readers that have no body.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Ended {
    /// The seq of the event that reports the end. It orders all ended tasks.
    pub seq: u64,
    pub id: TaskId,
    /// The task's number in the order of adding.
    pub ordinal: u64,
    pub module: ModuleName,
    pub job: JobName,
    /// When the master added the task.
    pub created: Wall,
    /// How the task ended.
    pub end: TaskEnd,
}

/// How a task ended.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TaskEnd {
    /// The final state of the task.
    pub state: TaskState,
    /// The task's priority when it ended.
    pub priority: i32,
    /// The attempt that ended the task. Its `n` is 0 where the task ended without an attempt.
    pub attempt: AttemptId,
    /// The last attempt that was sent to a runner, which may be later than `attempt`. When the task
    /// is opened again, all attempts up to this one are void.
    pub last_sent: AttemptId,
    /// The version of the module in the last attempt; `None` where there was no attempt.
    pub version: Option<Hash>,
    /// The runner of the last attempt; `None` where there was no attempt.
    pub runner: Option<Arc<str>>,
    /// What the task returned, where it is done.
    pub result: Option<TaskOutput>,
    /// Why the task returned nothing, where an error is known.
    pub error: Option<TaskError>,
    /// When guest code started in the last attempt, by the runner's clock.
    pub started: Option<Wall>,
    /// When the task became final, by the master's clock.
    pub finished: Wall,
    /// The time and memory that the last attempt took.
    pub stats: Option<TaskStats>,
    /// What the last attempt wrote to stderr.
    pub log: Option<Box<Log>>,
    /// The parts that few ends have; `None` where the end has none of them.
    #[serde(with = "as_json")]
    pub extras: Option<Box<EndExtras>>,
}

/// The parts that few ends have. They are written as JSON, so that later releases can add fields.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct EndExtras {
    /// The dependency because of whose end the task was skipped; `None` where it was not skipped.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub skipped_for: Option<TaskId>,
    /// Where the answer comes from; `None` where the task ran.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cached: Option<AnswerSource>,
    /// On which terms the answer is kept; `None` where it is not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kept: Option<Box<CacheTerms>>,
}

impl Ended {
    /// The record of a task whose end is reported by event `seq`.
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
    /// An end of which nothing but the arguments is known.
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

    /// The dependency because of whose end the task was skipped; `None` where it was not skipped.
    pub fn skipped_for(&self) -> Option<&TaskId> {
        self.extras.as_ref()?.skipped_for.as_ref()
    }

    /// Where the answer comes from; `None` where the task ran.
    pub fn cached(&self) -> Option<&AnswerSource> {
        self.extras.as_ref()?.cached.as_ref()
    }

    /// The result, either as JSON or as the hash of its blob. At most one of them is present.
    pub fn result_parts(&self) -> (Option<&Json>, Option<Hash>) {
        match &self.result {
            Some(TaskOutput::Json(json)) => (Some(json), None),
            Some(TaskOutput::Blob(hash)) => (None, Some(*hash)),
            Some(TaskOutput::Files(result_and_files)) => match &result_and_files.0 {
                ResultRef::Json(json) => (Some(json), None),
                ResultRef::Blob(hash) => (None, Some(*hash)),
            },
            None => (None, None),
        }
    }

    /// The files that the task returned; `None` where there are none.
    pub fn outputs(&self) -> Option<&OutputBlobs> {
        self.result.as_ref().and_then(TaskOutput::outputs)
    }
}

/// An attempt failed and another one will follow.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Retrying {
    pub id: TaskId,
    pub module: ModuleName,
    pub job: JobName,
    /// The task's number in the order of adding.
    pub ordinal: u64,
    /// The attempt that failed.
    pub attempt: AttemptId,
    /// The runner of the attempt, where it is known.
    pub runner: Option<Arc<str>>,
    /// Failures that count against the task's retry policy, this one included.
    pub tries: u32,
    /// Attempts that were lost with their runner.
    pub lost: u32,
    /// Attempts up to this one are void; `None` leaves all attempts valid.
    pub fence: Option<AttemptId>,
    /// The time before which the next attempt does not start.
    pub due: Wall,
    /// Why the attempt failed.
    pub error: TaskError,
}

/// What the journal knows of a module.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, Default)]
pub struct ModuleRecord {
    /// Every version that was ever in the task folder, the newest last.
    pub versions: Vec<VersionRecord>,
    /// The version that the next attempt runs; `None` where there is none to run.
    pub current: Option<Hash>,
    /// Whether the module's file is in the task folder.
    pub present: bool,
    /// Whether an operator has paused the module.
    pub paused: bool,
    /// Why the newest file was rejected; `None` where it was accepted.
    pub error: Option<String>,
}

/// One version of a module.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct VersionRecord {
    /// The SHA-256 of the module's file.
    pub version: Hash,
    /// How a runner runs the file.
    pub kind: ModuleKind,
    /// The size of the file in bytes.
    pub bytes: u64,
    /// When the master first saw the version.
    pub seen: Wall,
    /// Whether an operator has rolled the version back. Such a version is not run until an operator
    /// approves it again.
    pub held: bool,
}

/// What a module may reach, and what it asks for. Few modules have any of it. It is written beside the
/// [`ModuleRecord`] as JSON, so that later releases can add fields.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, Default)]
#[serde(default)]
pub struct Rights {
    /// All that an operator has ever approved for modules of this name.
    pub approved: Capabilities,
    /// What attempts may reach now. It is never more than what was approved.
    pub granted: Arc<Capabilities>,
    /// The newest file with what its manifest asks for; `None` where it asks for nothing.
    pub newest: Option<RequestedCapabilities>,
    /// A word that an operator has set. It is a part of the keys of the module's answers, so that
    /// another word makes older ones unknown.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub salt: Option<String>,
}

/// A version of a module, with what its manifest asks for.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RequestedCapabilities {
    /// The SHA-256 of the module's file.
    pub version: Hash,
    /// What the manifest asks for.
    pub wants: Arc<Capabilities>,
}

impl Rights {
    /// The newest file; `None` where it asks for nothing beyond what was approved.
    pub fn waiting(&self) -> Option<&RequestedCapabilities> {
        self.newest
            .as_ref()
            .filter(|newest| !newest.wants.beyond(&self.approved).is_empty())
    }
}

/// What the journal knows of a job.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, Default)]
pub struct JobRecord {
    /// The number of times that the job was opened.
    pub run: u32,
    /// Whether the job is open.
    pub open: bool,
    /// Whether the job is paused.
    pub paused: bool,
    /// The number of tasks that were ever added to the job.
    pub total: u64,
    /// The number of ended tasks over all runs, by final state: done, failed, cancelled, skipped.
    pub ended: [u64; 4],
    /// The sessions that hold the job open.
    pub holders: Vec<Arc<str>>,
    /// Tasks with an ordinal up to this one are still being cancelled; 0 where no cancel is under
    /// way.
    pub cancelled_up_to: u64,
}

impl JobRecord {
    /// Takes in a change of the job. Other records change nothing here.
    pub fn take(&mut self, record: &Record) {
        match record {
            Record::JobOpened { run, .. } => {
                self.open = true;
                self.run = *run;
            }
            Record::JobDone { .. } => {
                self.open = false;
                self.holders.clear();
            }
            Record::JobHeld { by, held, .. } => {
                self.holders.retain(|holder| holder != by);
                if *held {
                    self.holders.push(by.clone());
                }
            }
            Record::JobPaused { paused, .. } => self.paused = *paused,
            Record::JobCancelled { up_to, .. } => self.cancelled_up_to = *up_to,
            Record::Started { .. }
            | Record::Added(_)
            | Record::Ended(_)
            | Record::Retrying(_)
            | Record::Reopened { .. }
            | Record::Set { .. }
            | Record::RunnerJoined { .. }
            | Record::RunnerLost { .. }
            | Record::Module { .. }
            | Record::Continued { .. }
            | Record::Rights { .. }
            | Record::AnswersDropped { .. } => {}
        }
    }
}

/// The index of a final state in [`JobRecord::ended`].
pub fn final_state_index(state: TaskState) -> usize {
    (state as usize).saturating_sub(TaskState::Done as usize)
}

/// A durable change.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Record {
    /// A master started.
    Started {
        /// The number of times that a master has started on this store, this start included.
        epoch: u32,
    },
    /// A task was added.
    Added(Arc<TaskBody>),
    /// A task ended.
    Ended(Arc<Ended>),
    /// An attempt failed and another one will follow.
    Retrying(Box<Retrying>),
    /// An ended task was opened again.
    Reopened {
        /// The body of the task.
        body: Arc<TaskBody>,
        /// Attempts up to this one are void, because they were sent before the task ended.
        fence: AttemptId,
        /// The seq of the event that reported the former end.
        ended_seq: u64,
        /// The final state that the task had.
        former_state: TaskState,
        /// The dependency because of whose end the task had been skipped; `None` where it had not
        /// been skipped.
        skipped_for: Option<TaskId>,
    },
    /// An open task was changed.
    Set {
        /// The task's number in the order of adding.
        ordinal: u64,
        /// The task's new priority.
        priority: i32,
        /// The time before which the task does not start; `None` leaves it as it was.
        due: Option<Wall>,
    },
    /// A job was opened.
    JobOpened {
        job: JobName,
        /// The number of times that the job was opened, this time included.
        run: u32,
    },
    /// A job is done.
    JobDone {
        job: JobName,
        /// The run that is done.
        run: u32,
    },
    /// A session began or ceased to hold a job open.
    JobHeld {
        job: JobName,
        /// The session that holds or held the job open.
        by: Arc<str>,
        /// Whether the session holds the job open now.
        held: bool,
    },
    /// A job was paused or resumed.
    JobPaused {
        job: JobName,
        /// Whether the job is paused now.
        paused: bool,
    },
    /// A cancel of a job's tasks began or is complete.
    JobCancelled {
        job: JobName,
        /// Tasks with an ordinal up to this one are being cancelled; 0 when all of them are
        /// cancelled.
        up_to: u64,
    },
    /// A runner joined.
    RunnerJoined { name: String },
    /// A runner was lost.
    RunnerLost { name: String },
    /// A module changed.
    Module {
        name: ModuleName,
        /// The event that reports the change; `None` where watchers are told nothing.
        event: Option<EventKind>,
        /// What is known of the module now. It lies in a box, because without one every record
        /// would be three times as large.
        record: Box<ModuleRecord>,
    },
    /// An open task goes on with another body. It keeps its id, its ordinal and its dependents.
    Continued {
        /// The body that the task has from now on.
        body: Arc<TaskBody>,
        /// Attempts up to this one are void.
        fence: AttemptId,
    },
    /// What a module may reach, or what it asks for, changed.
    Rights {
        name: ModuleName,
        /// The event that reports the change; `None` where watchers are told nothing.
        event: Option<EventKind>,
        /// What the module may reach and asks for now; `None` where that is nothing.
        #[serde(with = "as_json")]
        rights: Option<Box<Rights>>,
    },
    /// Kept answers are kept no longer.
    AnswersDropped {
        /// The keys of the answers.
        keys: Vec<Hash>,
    },
}

impl Record {
    /// The kind of the event that reports this change; `None` where no event does, so that the record
    /// takes no seq.
    pub fn event(&self) -> Option<EventKind> {
        match self {
            Record::Added(_) => Some(EventKind::TaskAdded),
            Record::Ended(ended) => Some(end_event(ended.end.state)),
            Record::Retrying(_) => Some(EventKind::TaskRetrying),
            Record::Reopened { .. } => Some(EventKind::TaskReopened),
            Record::Continued { .. } => Some(EventKind::TaskContinued),
            Record::JobOpened { .. } => Some(EventKind::JobOpened),
            Record::JobDone { .. } => Some(EventKind::JobDone),
            Record::RunnerJoined { .. } => Some(EventKind::RunnerJoined),
            Record::RunnerLost { .. } => Some(EventKind::RunnerLost),
            Record::Module { event, .. } | Record::Rights { event, .. } => *event,
            Record::Started { .. }
            | Record::Set { .. }
            | Record::JobHeld { .. }
            | Record::JobPaused { .. }
            | Record::JobCancelled { .. }
            | Record::AnswersDropped { .. } => None,
        }
    }

    /// The job of the task or of the job event that this record reports; `None` for records that
    /// watchers of a job are not told of.
    pub fn job(&self) -> Option<&JobName> {
        match self {
            Record::Added(body)
            | Record::Reopened { body, .. }
            | Record::Continued { body, .. } => Some(&body.job),
            Record::Ended(ended) => Some(&ended.job),
            Record::Retrying(retrying) => Some(&retrying.job),
            Record::JobOpened { job, .. } | Record::JobDone { job, .. } => Some(job),
            Record::Started { .. }
            | Record::Set { .. }
            | Record::JobHeld { .. }
            | Record::JobPaused { .. }
            | Record::JobCancelled { .. }
            | Record::RunnerJoined { .. }
            | Record::RunnerLost { .. }
            | Record::Module { .. }
            | Record::Rights { .. }
            | Record::AnswersDropped { .. } => None,
        }
    }
}

/// The kind of the event that reports an end in this state.
fn end_event(state: TaskState) -> EventKind {
    match state {
        TaskState::Done => EventKind::TaskDone,
        TaskState::Failed => EventKind::TaskFailed,
        TaskState::Cancelled => EventKind::TaskCancelled,
        // The records that this program writes hold no end in an open state.
        TaskState::Skipped
        | TaskState::Blocked
        | TaskState::Delayed
        | TaskState::Ready
        | TaskState::Assigned => EventKind::TaskSkipped,
    }
}

/// The number of events that report these records. Each event takes one seq.
pub fn events_of(records: &[Record]) -> u64 {
    records
        .iter()
        .filter(|record| record.event().is_some())
        .count() as u64
}

/// One commit: the changes of one or several turns of the engine, which become durable together or
/// not at all.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct JournalEntry {
    /// The seq of the first event in this commit. Where the commit has no event, the seq that the
    /// next event will have.
    pub first_seq: u64,
    /// When the master made the commit, by its own clock.
    pub time: Wall,
    /// The changes, in the order in which they were made.
    pub records: Vec<Record>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::body::{AddedTask, Fingerprint};
    use crate::codec::{DecodeError, decode, encode, pack, unpack};
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
            job_results: Vec::new(),
            lineage: None,
            cache: None,
        })
    }

    #[test]
    fn records_are_read_as_they_were_written() {
        let text = r#"{"module":"m@sha256:0123456789ab","params":{"a":[1,2.50]},"args":["x"],"retries":{"max":2,"on":["trap"]},
            "requires":{"labels":{"a":"b"},"slots":2},"dependencies":[{"on":"d","when":"settled"}],"not_before":"2026-01-01T00:00:00Z",
            "inputs":{"a/b":{"sha256":"HASH"},"c":{"folder":"HASH"}},"outputs":["*.png"]}"#;
        let text = &text.replace("HASH", &"0a".repeat(32));
        let entry = JournalEntry {
            first_seq: 9,
            time: Wall(1),
            records: vec![
                Record::Added(Arc::new(body(text))),
                Record::Started { epoch: 2 },
            ],
        };
        let bytes = encode(&entry);
        assert_eq!(decode::<JournalEntry>(&bytes).unwrap(), entry);
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
                pack(&TaskOutput::new(result.clone(), OutputBlobs::new())),
                pack(&result)
            );
            let outputs: OutputBlobs = [(FilePath::new("a/b").unwrap(), Hash::of(b"b"))].into();
            let output = TaskOutput::new(result.clone(), outputs);
            assert_eq!(
                (
                    unpack::<TaskOutput>(&pack(&output)).unwrap(),
                    output.result()
                ),
                (output.clone(), result)
            );
            let json = serde_json::to_string(&output).unwrap();
            assert_eq!(
                serde_json::from_str::<TaskOutput>(&json).unwrap(),
                output,
                "{json}"
            );
        }
    }

    #[test]
    fn what_is_damaged_is_told() {
        let mut bytes = encode(&Record::Started { epoch: 2 });
        assert_eq!(decode::<Record>(&[]), Err(DecodeError::Empty));
        bytes[5] ^= 1;
        assert_eq!(decode::<Record>(&bytes), Err(DecodeError::Checksum));
        bytes[0] = 9;
        assert_eq!(decode::<Record>(&bytes), Err(DecodeError::Format(9)));
    }
}
