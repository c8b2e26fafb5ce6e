//! The part of an answer that memory does not have: read from the view by the asker's own thread.

mod answers;

pub use answers::{AnswerLookup, AnswersPageLookup, MissLookup, first_after};

use crate::answer::{QueryAnswer, TaskReason};
use crate::events::ended_view;
use crate::page::GrowingPage;
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
    /// A page of jobs.
    Jobs(JobPage),
    /// A page of kept answers.
    KeptAnswers(Box<AnswersPageLookup>),
    /// One kept answer.
    KeptAnswer(Box<AnswerLookup>),
    /// Why no answer was kept for a task.
    Miss(Box<MissLookup>),
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
    pub rows: GrowingPage<TaskView>,
    /// What belongs on it.
    pub wanted: TaskFilter,
}

impl TaskPage {
    /// Takes a task if it belongs here; true: the page is full.
    pub fn take(&mut self, task: impl FnOnce() -> TaskView) -> bool {
        let task = task();
        if self.wanted.fits(&task) {
            let bytes = task.bytes();
            self.rows.take(task, bytes);
        }
        self.rows.is_full()
    }

    /// The page, and where the next one begins.
    pub fn page(self, next: Option<String>) -> QueryAnswer {
        QueryAnswer::Tasks(self.rows.end(next))
    }
}

/// A page of jobs on its way.
#[derive(Debug)]
pub struct JobPage {
    /// The page has jobs whose names come behind this one.
    pub after: String,
    /// Only open jobs, or only those that are done.
    pub open: Option<bool>,
    /// Those that memory had. Of a job that the view has too, memory knows the newest.
    pub known: BTreeMap<JobName, JobView>,
    /// Memory may have had more jobs behind this one.
    pub known_to: Option<JobName>,
}

impl JobPage {
    /// Merges what memory had with what the view has, as far as both are known.
    fn merged(self, folded: Vec<(JobName, JobRecord)>) -> Page<JobView> {
        let rows_max = limits::PAGE_ROWS_MAX;
        let folded_to = folded.get(rows_max - 1).map(|(name, _)| name.clone());
        let view = |(name, record)| {
            let view = job_view(&name, &record, &[0; 8]);
            (name, view)
        };
        let mut jobs: BTreeMap<JobName, JobView> = folded.into_iter().map(view).collect();
        jobs.extend(self.known);
        let both_to = [self.known_to, folded_to].into_iter().flatten().min();
        let is_known = |name: &JobName| both_to.as_ref().is_none_or(|to| name <= to);
        jobs.retain(|name, _| is_known(name));
        let next = match jobs.keys().nth(rows_max - 1) {
            Some(last) => Some(last.clone()),
            None => both_to,
        };
        let is_wanted = |job: &JobView| self.open.is_none_or(|open| open == job.open);
        let rows = jobs.into_values().take(rows_max).filter(is_wanted);
        Page {
            rows: rows.collect(),
            next: next.map(|name| name.as_str().to_owned()),
        }
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
            | Lookup::Jobs(_)
            | Lookup::KeptAnswers(_)
            | Lookup::KeptAnswer(_)
            | Lookup::Miss(_) => QueryAnswer::Task(Box::new(ended_view(ended))),
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
            Lookup::Jobs(page) => {
                let folded = view::jobs_after(store, &page.after, limits::PAGE_ROWS_MAX)?;
                Ok(QueryAnswer::Jobs(page.merged(folded)))
            }
            Lookup::KeptAnswers(page) => Ok(QueryAnswer::KeptAnswers(page.read(store)?)),
            Lookup::KeptAnswer(one) => {
                let view = one.read(store)?;
                view.map(|view| QueryAnswer::KeptAnswer(Box::new(view)))
            }
            Lookup::Miss(miss) => Ok(QueryAnswer::CacheReason(Box::new(miss.read(store)?))),
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
    let mut most = rows.rows.rows_max().min(READ_AT_ONCE);
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

#[cfg(test)]
mod tests {
    use super::*;

    fn name(no: usize) -> JobName {
        JobName::new(&format!("job-{no:06}")).unwrap()
    }

    fn open_job(name: &JobName) -> JobView {
        let record = JobRecord {
            open: true,
            ..JobRecord::default()
        };
        job_view(name, &record, &[0; 8])
    }

    /// All pages of a list of jobs, of which memory has some and the view has some.
    fn listed(memory: &[JobName], view: &[JobName], open: Option<bool>) -> Vec<JobView> {
        let rows_max = limits::PAGE_ROWS_MAX;
        let mut rows = Vec::new();
        let mut after = String::new();
        loop {
            let behind = |name: &&JobName| name.as_str() > after.as_str();
            let held: Vec<&JobName> = memory.iter().filter(behind).take(rows_max).collect();
            let folded = view.iter().filter(behind).take(rows_max);
            let page = JobPage {
                after: after.clone(),
                open,
                known_to: held.get(rows_max - 1).copied().cloned(),
                known: held
                    .into_iter()
                    .map(|name| (name.clone(), open_job(name)))
                    .collect(),
            };
            let folded = folded.map(|name| (name.clone(), JobRecord::default()));
            let page = page.merged(folded.collect());
            assert!(page.rows.len() <= rows_max);
            rows.extend(page.rows);
            match page.next {
                Some(next) => after = next,
                None => return rows,
            }
        }
    }

    #[test]
    fn jobs_of_memory_and_of_the_view_are_one_list() {
        let names: Vec<JobName> = (0..4_500).map(name).collect();
        let few = &names[2_000..2_010];
        let odd: Vec<JobName> = names.iter().skip(1).step_by(2).cloned().collect();
        for (memory, view) in [
            (names.as_slice(), [].as_slice()),
            (&[], &names),
            (&odd, &names),
            (&names, few),
            (few, &names),
            (&names[..3_000], &names[1_000..]),
        ] {
            let rows = listed(memory, view, None);
            assert!(rows.iter().map(|row| &row.job).eq(&names));
            // What memory has is newer.
            let open = rows.iter().filter(|row| row.open).map(|row| &row.job);
            assert!(open.eq(memory));
            let done = listed(memory, view, Some(false));
            assert_eq!(done.len(), names.len() - memory.len());
        }
        assert!(listed(&[], &[], None).is_empty());
    }
}
