//! Questions, answered from memory; what memory has let go of is left to the asker's own thread,
//! see [`Lookup`].

use super::Engine;
use super::effects::job_record;
use crate::answer::QueryAnswer;
use crate::disk_space::DiskSpace;
use crate::events::ended_view;
use crate::facts::Known;
use crate::inbox::Reply;
use crate::lookup::{Lookup, TaskFilter, job_view};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use taskmaster_core::TaskKey;
use taskmaster_protocol::message::{Offer, Query, Status, Trouble, TroubleKind};
use taskmaster_protocol::shape::{JobView, TaskView};
use taskmaster_protocol::{
    JobName, ModuleName, Refusal, RefusalCode, TaskId, TaskState, limits, near,
};
use taskmaster_store::record::TaskOutput;

impl Engine {
    pub(super) fn answer(&self, query: Query) -> Reply {
        match query {
            Query::Task { id } => {
                let view = |key| QueryAnswer::Task(Box::new(self.task_view(key)));
                self.about_task(id, view, Lookup::Task)
            }
            Query::Why { id } => {
                self.about_task(id, |key| QueryAnswer::Why(self.why(key)), Lookup::Why)
            }
            Query::Logs { id } => {
                self.about_task(id, |_| QueryAnswer::Log(Box::default()), Lookup::Logs)
            }
            Query::Tasks {
                job,
                state,
                module,
                limit,
                after,
            } => {
                let wanted = TaskFilter { job, state, module };
                let rows_max = limit.clamp(1, limits::PAGE_ROWS_MAX);
                self.tasks_page(wanted, rows_max, after.as_deref())
            }
            Query::Results { ids } => self.results(ids),
            Query::Jobs { open, after } => self.jobs_page(open, after.unwrap_or_default()),
            Query::Job { job } => match self.job_in_memory(&job) {
                Some(view) => Reply::Answer(QueryAnswer::Job(Box::new(view))),
                None => Reply::FromStore(Lookup::Job(job)),
            },
            Query::Modules { after } => self.modules_page(after.as_deref().unwrap_or_default()),
            Query::Module { name } => self.module(&name),
            Query::Runners { after } => self.runners_page(after.as_deref().unwrap_or_default()),
            Query::Status => Reply::Answer(QueryAnswer::Status(Box::new(self.status()))),
            Query::KeptAnswers(query) => self.kept_answers(query),
            Query::KeptAnswer { key } => self.one_kept_answer(key),
            Query::CacheWhy { id } => self.cache_why(id),
            Query::CacheStats => Reply::Answer(QueryAnswer::CacheStats(self.cache_stats())),
        }
    }

    /// An answer about one task: from the core's memory, from what is not folded, or from the view.
    fn about_task(
        &self,
        id: TaskId,
        open: impl Fn(TaskKey) -> QueryAnswer,
        ended: impl Fn(TaskId) -> Lookup,
    ) -> Reply {
        match self.facts.known(&id) {
            Some(Known::Open(key)) => Reply::Answer(open(key)),
            Some(Known::Closing(_, how)) => Reply::Answer(ended(id).of_ended(how)),
            Some(Known::Ended(stored)) => Reply::Answer(ended(id).of_ended(&stored.ended)),
            None => Reply::FromStore(ended(id)),
        }
    }

    pub(super) fn task_view(&self, key: TaskKey) -> TaskView {
        let live = self.facts.live(key);
        if let Some(ended) = &live.ended {
            return ended_view(ended);
        }
        let body = self.facts.body(key);
        let state = self
            .core
            .task(key)
            .map_or(TaskState::Ready, |task| task.state().task_state());
        let last = live.last.as_deref();
        let now = |last: &&crate::facts::LastAttempt| last.n > 0;
        TaskView {
            id: body.id.clone(),
            module: body.module.clone(),
            version: last.and_then(|last| last.version),
            state,
            job: body.job.clone(),
            priority: live.priority,
            attempt: last.map_or(0, |last| last.n),
            runner: last
                .filter(now)
                .and_then(|last| last.runner.as_deref())
                .map(str::to_owned),
            created: body.created,
            started: last.and_then(|last| last.started),
            finished: None,
            result: None,
            result_blob: None,
            error: last.and_then(crate::facts::LastAttempt::error).cloned(),
            outputs: Default::default(),
            stats: None,
            cached: None,
            note: None,
            partial: self.events.partials().newest(&body.id),
        }
    }

    fn results(&self, ids: Vec<TaskId>) -> Reply {
        let (mut known, mut missing) = (BTreeMap::new(), Vec::new());
        for id in ids {
            let Some(known_here) = self.facts.known(&id) else {
                missing.push(id);
                continue;
            };
            let ended = known_here.end();
            if let Some(result) = ended
                .and_then(|ended| ended.end.result.as_ref())
                .map(TaskOutput::result)
            {
                known.insert(id, result);
            }
        }
        if missing.is_empty() {
            Reply::Answer(QueryAnswer::Results(known))
        } else {
            Reply::FromStore(Lookup::Results { known, missing })
        }
    }

    pub(super) fn job_in_memory(&self, name: &JobName) -> Option<JobView> {
        // The core holds one that is done until its last attempt is given back, and hears no more
        // of it.
        let open = self.core.job(name).filter(|job| job.open);
        let held = open.map(|job| job_view(name, &job_record(job), &job.counts.by_state));
        held.or_else(|| {
            self.facts
                .idle_job_in_memory(name)
                .map(|record| job_view(name, record, &[0; 8]))
        })
    }

    /// The names of the connected runners that take a module.
    pub(super) fn runners_of(&self, module: &ModuleName) -> BTreeSet<Arc<str>> {
        let takes = |offer: &Offer| offer.modules.is_empty() || offer.modules.contains(module);
        self.connections
            .values()
            .filter(|session| session.joined && session.offer.as_ref().is_some_and(takes))
            .filter_map(|session| session.runner.clone())
            .collect()
    }

    fn module(&self, name: &ModuleName) -> Reply {
        let Some(record) = self.modules.get(name) else {
            let hint = near::hint(
                name.as_str(),
                self.modules.iter().map(|(name, _)| name.as_str()),
            );
            return Reply::Refused(Refusal::new(
                RefusalCode::UnknownModule,
                format!("unknown module `{name}`{hint}"),
            ));
        };
        let runners = self.runners_of(name);
        let mut view = self.modules.view(name, record, &runners);
        view.versions = self
            .modules
            .versions(record, &runners, |version| self.attempts_of(version));
        Reply::Answer(QueryAnswer::Module(Box::new(view)))
    }

    fn status(&self) -> Status {
        let mut tasks: BTreeMap<String, u64> = TaskState::ALL
            .iter()
            .map(|state| (state.as_str().to_owned(), 0))
            .collect();
        for job in self.core.jobs() {
            for state in TaskState::ALL.into_iter().filter(|state| !state.is_final()) {
                *tasks.entry(state.as_str().to_owned()).or_default() += job.counts.of(state);
            }
        }
        for state in TaskState::ALL.into_iter().filter(|state| state.is_final()) {
            tasks.insert(
                state.as_str().to_owned(),
                self.finished[taskmaster_store::record::final_state_index(state)],
            );
        }
        let slots: Vec<u64> = self
            .runners()
            .map(|runner| u64::from(runner.offer.slots))
            .collect();
        Status {
            epoch: self.epoch,
            seq: self.last_seq,
            durability: self.config.durability.clone(),
            uptime_ms: (self.now.mono_us - self.started.mono_us) / 1_000,
            tasks,
            jobs: self.core.jobs().filter(|job| job.open).count() as u64,
            runners: slots.len() as u64,
            slots: slots.iter().sum(),
            troubles: self.why_no_adds().into_iter().collect(),
        }
    }

    fn why_no_adds(&self) -> Option<Trouble> {
        if let DiskSpace::Damaged(why) = &self.disk {
            return Some(Trouble {
                kind: TroubleKind::DamagedStore,
                why: why.clone(),
            });
        }
        let refusal = self.disk_refusal().or_else(|| self.queue_full(0))?;
        Some(Trouble {
            kind: TroubleKind::RefusedAdds,
            why: refusal.message,
        })
    }
}
