//! The part of an answer that memory does not have: read from the view by the asker's own thread.

use crate::answer::{QueryAnswer, TaskReason};
use crate::events::ended_view;
use crate::store_damage::StoreDamage;
use std::collections::{BTreeMap, BTreeSet};
use taskmaster_protocol::message::{Page, ResultRef};
use taskmaster_protocol::shape::{JobView, TaskView};
use taskmaster_protocol::{JobName, ModuleName, Refusal, RefusalCode, TaskId, TaskState, limits};
use taskmaster_store::kv::{SharedStore, StoreError};
use taskmaster_store::record::{Ended, JobRecord};
use taskmaster_store::view;

/// Ended tasks looked at for one page of a list.
const LOOKED_AT_MAX: usize = 20_000;

/// Ended tasks read from the view at a time.
const READ_AT_ONCE: usize = 256;

/// What is still to be read.
#[derive(Debug)]
pub enum Lookup {
    /// A task.
    Task(TaskId),
    /// Why it is where it is.
    Why(TaskId),
    /// Its log.
    Logs(TaskId),
    /// The rest of a page of tasks.
    Ended {
        /// Only what ended before this seq.
        before: u64,
        /// What the page has so far.
        rows: TaskPage,
        /// Tasks whose end in the view is a former one.
        open_again: BTreeSet<TaskId>,
    },
    /// Results.
    Results {
        /// Those that memory had.
        known: BTreeMap<TaskId, ResultRef>,
        /// The others.
        missing: Vec<TaskId>,
    },
    /// A job that is done.
    Job(JobName),
    /// Jobs; memory had these.
    Jobs(Vec<JobView>),
}

/// What a list of tasks is narrowed to.
#[derive(Debug, Clone)]
pub struct TaskFilter {
    pub job: Option<JobName>,
    pub state: Option<TaskState>,
    pub module: Option<ModuleName>,
}

impl TaskFilter {
    /// Whether a row belongs to the list.
    pub fn fits(&self, task: &TaskView) -> bool {
        self.job.as_ref().is_none_or(|job| *job == task.job)
            && self.state.is_none_or(|state| state == task.state)
            && self
                .module
                .as_ref()
                .is_none_or(|module| *module == task.module)
    }
}

/// A page of tasks on its way.
#[derive(Debug)]
pub struct TaskPage {
    /// So far.
    pub rows: Vec<TaskView>,
    /// About how many bytes the rows have.
    pub bytes: usize,
    /// The most rows.
    pub limit: usize,
    /// What belongs on it.
    pub wanted: TaskFilter,
}

impl TaskPage {
    /// Takes a task if it belongs here; true: the page is full.
    pub fn take(&mut self, task: impl FnOnce() -> TaskView) -> bool {
        let task = task();
        if self.wanted.fits(&task) {
            self.bytes += task.bytes();
            self.rows.push(task);
        }
        self.rows.len() >= self.limit || self.bytes >= limits::PAGE_BYTES_MAX
    }

    /// The page, and where the next one begins.
    pub fn page(self, next: Option<String>) -> QueryAnswer {
        QueryAnswer::Tasks(Page {
            rows: self.rows,
            next,
        })
    }
}

impl Lookup {
    /// The answer about one ended task.
    pub fn of_ended(&self, ended: &Ended) -> QueryAnswer {
        match self {
            Lookup::Why(_) => QueryAnswer::Why(why_ended(ended)),
            Lookup::Logs(_) => QueryAnswer::Log(ended.end.log.clone().unwrap_or_default()),
            Lookup::Task(_)
            | Lookup::Ended { .. }
            | Lookup::Results { .. }
            | Lookup::Job(_)
            | Lookup::Jobs(_) => QueryAnswer::Task(Box::new(ended_view(ended))),
        }
    }

    /// Reads the rest. Blocks on the disk. What cannot be read is told to `damage`.
    pub fn complete(
        self,
        reader: &SharedStore,
        damage: &StoreDamage,
    ) -> Result<QueryAnswer, Refusal> {
        self.read(reader).map_err(|error| {
            damage.record(&error);
            Refusal::new(RefusalCode::Unavailable, error.to_string())
        })?
    }

    fn read(self, reader: &SharedStore) -> Result<Result<QueryAnswer, Refusal>, StoreError> {
        let store = reader.as_ref();
        Ok(match self {
            Lookup::Task(ref id) | Lookup::Why(ref id) | Lookup::Logs(ref id) => {
                view::ended_task(store, id)?
                    .map(|stored| self.of_ended(&stored.ended))
                    .ok_or_else(|| unknown_task(id))
            }
            Lookup::Ended {
                before,
                rows,
                open_again,
            } => Ok(ended_page(reader, before, rows, &open_again)?),
            Lookup::Results { mut known, missing } => {
                for id in missing {
                    if let Some(gave) = view::ended_task(store, &id)?
                        .and_then(|stored| stored.ended.end.result.clone())
                    {
                        known.insert(id, gave.result());
                    }
                }
                Ok(QueryAnswer::Results(known))
            }
            Lookup::Job(name) => view::job(store, &name)?
                .map(|record| QueryAnswer::Job(Box::new(job_view(&name, &record, &[0; 8]))))
                .ok_or_else(|| unknown_job(&name)),
            Lookup::Jobs(mut views) => {
                let known: Vec<JobName> = views.iter().map(|view| view.job.clone()).collect();
                let folded = view::jobs(store, limits::PAGE_ROWS_MAX)?.into_iter();
                views.extend(
                    folded
                        .filter(|(name, _)| !known.contains(name))
                        .map(|(name, record)| job_view(&name, &record, &[0; 8])),
                );
                Ok(QueryAnswer::Jobs(views))
            }
        })
    }
}

fn ended_page(
    reader: &SharedStore,
    mut before: u64,
    mut rows: TaskPage,
    open_again: &BTreeSet<TaskId>,
) -> Result<QueryAnswer, StoreError> {
    let mut looked = 0;
    // As many as the page wants, where all fit; then more at a time.
    let mut most = rows.limit.min(READ_AT_ONCE);
    loop {
        let tasks = view::ended_before(
            reader.as_ref(),
            before,
            std::mem::replace(&mut most, READ_AT_ONCE),
        )?;
        if tasks.is_empty() {
            return Ok(rows.page(None));
        }
        for stored in tasks {
            before = stored.ended.seq;
            looked += 1;
            if open_again.contains(&stored.ended.id) {
                continue;
            }
            if rows.take(|| ended_view(&stored.ended)) || looked == LOOKED_AT_MAX {
                return Ok(rows.page(Some(format!("f{before}"))));
            }
        }
    }
}

fn why_ended(ended: &Ended) -> TaskReason {
    let why = match (&ended.end.state, &ended.end.error) {
        (TaskState::Done, _) => format!(
            "it is done: attempt {} ended at {}",
            ended.end.attempt.n, ended.end.finished
        ),
        (state, Some(error)) => format!("it is {}: {}", state.as_str(), error.message),
        (state, None) => format!("it is {}", state.as_str()),
    };
    TaskReason {
        state: ended.end.state,
        why,
    }
}

/// A job as scripts see it: totals from its record, open tasks by `by_state`.
pub fn job_view(name: &JobName, record: &JobRecord, by_state: &[u64; 8]) -> JobView {
    let open = |state: TaskState| by_state[state as usize];
    let [done, failed, cancelled, skipped] = record.ended;
    JobView {
        job: name.clone(),
        run: record.run,
        open: record.open,
        paused: record.paused,
        total: record.total,
        blocked: open(TaskState::Blocked),
        delayed: open(TaskState::Delayed),
        ready: open(TaskState::Ready),
        assigned: open(TaskState::Assigned),
        done,
        failed,
        cancelled,
        skipped,
    }
}

/// The refusal for a task that nobody knows.
pub fn unknown_task(id: &TaskId) -> Refusal {
    Refusal::new(
        RefusalCode::UnknownTask,
        format!(
            "unknown task `{id}`: it was never added, or ended so long ago that it is no longer kept"
        ),
    )
}

/// The refusal for a job that nobody knows.
pub fn unknown_job(job: &JobName) -> Refusal {
    Refusal::new(RefusalCode::UnknownJob, format!("unknown job `{job}`"))
}
