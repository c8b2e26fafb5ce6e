//! What the journal of a damaged store says of tasks, jobs and modules.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use taskmaster_protocol::{AttemptId, JobName, ModuleName, TaskId};
use taskmaster_store::body::TaskBody;
use taskmaster_store::journal;
use taskmaster_store::kv::SharedStore;
use taskmaster_store::record::{Ended, JobRecord, JournalEntry, ModuleRecord, Record, Rights};
use taskmaster_store::view::{EndedTask, OpenTask, Watermarks};

/// What became of a task by its last sound record, and the seq of that record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    Open { seq: u64 },
    Ended { seq: u64 },
}

/// A record of a job, and the commit that has it.
struct JobChange {
    commit: u64,
    job: JobName,
    record: Record,
}

/// What the sound commits of a journal say.
#[derive(Default)]
pub(super) struct Fates {
    /// The greatest epoch of a start.
    pub epoch: u32,
    /// The seq of the last event.
    pub seq: u64,
    /// Modules that have changed, as they were last.
    pub modules: BTreeMap<ModuleName, ModuleRecord>,
    /// Rights that have changed, as they were last.
    pub rights: BTreeMap<ModuleName, Option<Box<Rights>>>,
    tasks: HashMap<TaskId, Fate>,
    jobs: Vec<JobChange>,
}

impl Fates {
    /// Reads every commit. `lose` hears of those that are missing or damaged.
    pub fn read(store: &SharedStore, lose: &mut dyn FnMut(String)) -> Fates {
        let mut fates = Fates::default();
        each_commit(store, lose, &mut |commit, entry| {
            let mut seq = entry.first_seq;
            for record in entry.records {
                let has_event = record.event().is_some();
                fates.seq = fates.seq.max(seq.saturating_sub(u64::from(!has_event)));
                fates.take(commit, record, seq);
                seq += u64::from(has_event);
            }
        });
        fates
    }

    fn take(&mut self, commit: u64, record: Record, seq: u64) {
        match record {
            Record::Started { epoch } => self.epoch = self.epoch.max(epoch),
            // An export has no kept answers but those of the tasks in it.
            Record::AnswersDropped { .. } => {}
            Record::Added(body)
            | Record::Reopened { body, .. }
            | Record::Continued { body, .. } => {
                self.tasks.insert(body.id.clone(), Fate::Open { seq });
            }
            Record::Ended(ended) => {
                self.tasks.insert(ended.id.clone(), Fate::Ended { seq });
            }
            Record::Module { name, record, .. } => {
                self.modules.insert(name, *record);
            }
            Record::Rights { name, rights, .. } => {
                self.rights.insert(name, rights);
            }
            Record::JobOpened { ref job, .. }
            | Record::JobDone { ref job, .. }
            | Record::JobHeld { ref job, .. }
            | Record::JobPaused { ref job, .. }
            | Record::JobCancelled { ref job, .. } => self.jobs.push(JobChange {
                commit,
                job: job.clone(),
                record,
            }),
            Record::Retrying(_)
            | Record::Set { .. }
            | Record::RunnerJoined { .. }
            | Record::RunnerLost { .. } => {}
        }
    }

    /// Whether an end in the view is the last one of its task. The newest of what is left counts:
    /// the journal no longer has old tasks, and the commit that had the end may be lost.
    pub fn is_last_end(&self, ended: &Ended) -> bool {
        match self.tasks.get(&ended.id) {
            None => true,
            Some(Fate::Ended { seq } | Fate::Open { seq }) => *seq <= ended.seq,
        }
    }

    fn is_open(&self, id: &TaskId) -> bool {
        matches!(self.tasks.get(id), Some(Fate::Open { .. }))
    }

    /// Whether a task that is open in the view has not ended since.
    pub fn may_be_open(&self, id: &TaskId) -> bool {
        !matches!(self.tasks.get(id), Some(Fate::Ended { .. }))
    }

    /// The jobs: `stored` are those of the view, which has everything up to its marks.
    pub fn jobs_after(
        &mut self,
        stored: Vec<(JobName, JobRecord)>,
        marks: &Watermarks,
    ) -> BTreeMap<JobName, JobRecord> {
        let stored: BTreeMap<JobName, JobRecord> = stored.into_iter().collect();
        let mut jobs = stored.clone();
        for change in std::mem::take(&mut self.jobs) {
            // All changes of a job are needed where its record is lost.
            if change.commit > marks.folded || !stored.contains_key(&change.job) {
                jobs.entry(change.job).or_default().take(&change.record);
            }
        }
        jobs
    }

    /// The tasks that have ended by the journal and are not among `written`.
    pub fn ends_but(&self, store: &SharedStore, written: &HashSet<TaskId>) -> Vec<EndedTask> {
        let mut bodies: HashMap<TaskId, Arc<TaskBody>> = HashMap::new();
        let mut found = Vec::new();
        each_commit(store, &mut |_| {}, &mut |_, entry| {
            let mut seq = entry.first_seq;
            for record in entry.records {
                let has_event = record.event().is_some();
                if let Some(body) = opened_body(&record)
                    && !self.may_be_open(&body.id)
                    && !written.contains(&body.id)
                {
                    bodies.insert(body.id.clone(), body.clone());
                }
                if let Record::Ended(ended) = record
                    && self.tasks.get(&ended.id) == Some(&Fate::Ended { seq })
                {
                    let body = bodies.remove(&ended.id);
                    found.extend(body.map(|body| EndedTask { body, ended }));
                }
                seq += u64::from(has_event);
            }
        });
        found
    }

    /// The tasks that are open by the journal, by their place in the order of adding. What is wanted
    /// of them now is what their last records say.
    pub fn open_tasks(&self, store: &SharedStore) -> BTreeMap<u64, OpenTask> {
        let mut open = BTreeMap::new();
        each_commit(store, &mut |_| {}, &mut |_, entry| {
            for record in entry.records {
                self.follow(record, &mut open);
            }
        });
        open
    }

    /// Notes what a record says of an open task.
    fn follow(&self, record: Record, open: &mut BTreeMap<u64, OpenTask>) {
        let none = AttemptId { epoch: 0, n: 0 };
        let opened = match record {
            Record::Added(body) => OpenTask::new(body, none),
            Record::Continued { body, fence } => OpenTask::new(body, fence),
            Record::Reopened { body, fence, .. } => OpenTask::reopened(body, fence),
            Record::Retrying(retrying) => {
                if let Some(task) = open.get_mut(&retrying.ordinal) {
                    task.retry(&retrying);
                }
                return;
            }
            Record::Set {
                ordinal,
                priority,
                due,
            } => {
                if let Some(task) = open.get_mut(&ordinal) {
                    task.set(priority, due);
                }
                return;
            }
            Record::Started { .. }
            | Record::Ended(_)
            | Record::JobOpened { .. }
            | Record::JobDone { .. }
            | Record::JobHeld { .. }
            | Record::JobPaused { .. }
            | Record::JobCancelled { .. }
            | Record::RunnerJoined { .. }
            | Record::RunnerLost { .. }
            | Record::Module { .. }
            | Record::Rights { .. }
            | Record::AnswersDropped { .. } => return,
        };
        if let Some(place) = self.place_if_open(&opened) {
            open.insert(place, opened);
        }
    }

    /// The place of a task in the order of adding, if its last record leaves it open.
    fn place_if_open(&self, task: &OpenTask) -> Option<u64> {
        let body = task.body.whole().ok()?;
        self.is_open(&body.id).then_some(body.ordinal)
    }
}

/// The body of the task that a record opens, or with which the task goes on.
fn opened_body(record: &Record) -> Option<&Arc<TaskBody>> {
    match record {
        Record::Added(body) | Record::Reopened { body, .. } | Record::Continued { body, .. } => {
            Some(body)
        }
        Record::Started { .. }
        | Record::Ended(_)
        | Record::Retrying(_)
        | Record::Set { .. }
        | Record::JobOpened { .. }
        | Record::JobDone { .. }
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

/// Calls `visit` with each sound commit and its number, in order.
fn each_commit(
    store: &SharedStore,
    lose: &mut dyn FnMut(String),
    visit: &mut dyn FnMut(u64, JournalEntry),
) {
    let ends = journal::first(store).and_then(|first| Ok((first, journal::last(store)?)));
    let (first, last) = match ends {
        Ok((Some(first), last)) => (first, last),
        Ok((None, _)) => return,
        Err(error) => return lose(error.to_string()),
    };
    for commit in first..=last {
        match journal::entry(store, commit) {
            Ok(Some(entry)) => visit(commit, entry),
            Ok(None) => lose(format!("commit {commit} of the journal is missing")),
            Err(error) => lose(error.to_string()),
        }
    }
}
