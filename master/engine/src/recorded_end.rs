//! The records that end a task or a job, which followers wait for.

use taskmaster_protocol::JobName;
use taskmaster_store::record::{Ended, Record};

/// The end of a task or of a job, as a record has it.
pub(crate) enum RecordedEnd<'a> {
    /// A task ended.
    Task(&'a Ended),
    /// A run of a job is done.
    Job {
        /// The job that is done.
        job: &'a JobName,
        /// Which of the job's runs this was, from 1 on.
        run: u32,
    },
}

impl<'a> RecordedEnd<'a> {
    pub(crate) fn of(record: &'a Record) -> Option<RecordedEnd<'a>> {
        match record {
            Record::Ended(ended) => Some(RecordedEnd::Task(ended)),
            Record::JobDone { job, run } => Some(RecordedEnd::Job { job, run: *run }),
            Record::Started { .. }
            | Record::Added(_)
            | Record::Retrying(_)
            | Record::Reopened { .. }
            | Record::Set { .. }
            | Record::JobOpened { .. }
            | Record::JobHeld { .. }
            | Record::JobPaused { .. }
            | Record::JobCancelled { .. }
            | Record::RunnerJoined { .. }
            | Record::RunnerLost { .. }
            | Record::Module { .. }
            | Record::Continued { .. }
            | Record::Rights { .. }
            | Record::AnswersDropped { .. } => None,
        }
    }
}
