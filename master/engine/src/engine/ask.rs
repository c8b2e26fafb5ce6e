//! Questions, answered from memory; what memory has let go of is left to the asker's own thread,
//! see [`Lookup`].

use super::Engine;
use super::effects::job_record;
use crate::answer::QueryAnswer;
use crate::disk_space::DiskSpace;
use crate::events::ended_view;
use crate::facts::Known;
use crate::inbox::Reply;
use crate::lookup::{Lookup, TaskFilter, TaskPage, job_view};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use taskmaster_core::{RunnerKey, TaskKey};
use taskmaster_protocol::message::{Offer, Query, Role, Status};
use taskmaster_protocol::shape::{JobView, ModuleView, RunnerView, TaskView};
use taskmaster_protocol::{
    JobName, ModuleName, Refusal, RefusalCode, TaskId, TaskState, limits, near,
};
use taskmaster_store::record::TaskOutput;

/// Tasks looked at for one page of a list, so that no turn is long.
const LOOKED_AT_MAX: usize = 5_000;

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
                self.tasks_page(
                    wanted,
                    limit.clamp(1, limits::PAGE_ROWS_MAX),
                    after.as_deref(),
                )
            }
            Query::Results { ids } => self.results(ids),
            Query::Jobs => Reply::FromStore(Lookup::Jobs(self.job_views())),
            Query::Job { job } => match self.job_in_memory(&job) {
                Some(view) => Reply::Answer(QueryAnswer::Job(Box::new(view))),
                None => Reply::FromStore(Lookup::Job(job)),
            },
            Query::Modules => {
                let view = |(name, record)| self.modules.view(name, record, &self.runners_of(name));
                let views: Vec<ModuleView> = self.modules.iter().map(view).collect();
                Reply::Answer(QueryAnswer::Modules(views))
            }
            Query::Module { name } => self.module(&name),
            Query::Runners => Reply::Answer(QueryAnswer::Runners(self.runners())),
            Query::Status => Reply::Answer(QueryAnswer::Status(Box::new(self.status()))),
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
        }
    }

    /// As a list shows it: of a task that no connected runner can take, with the reason.
    fn task_listed(&self, key: TaskKey) -> TaskView {
        let note = self
            .core
            .why_no_runner(key)
            .map(|waits| self.waits(key, waits));
        TaskView {
            note,
            ..self.task_view(key)
        }
    }

    /// A page: open tasks by `no`, then ended ones that memory has, the newest first, then those of
    /// the view.
    fn tasks_page(&self, wanted: TaskFilter, limit: usize, after: Option<&str>) -> Reply {
        let mut rows = TaskPage {
            rows: Vec::new(),
            bytes: 0,
            limit,
            wanted,
        };
        let (part, at) = after.map_or(("o", 0), |after| {
            after
                .split_at_checked(1)
                .map_or(("o", 0), |(p, n)| (p, n.parse().unwrap_or(0)))
        });
        let mut looked = 0;
        if part == "o" {
            for (no, key) in self.facts.open_from(at + 1).take(LOOKED_AT_MAX) {
                looked += 1;
                if rows.take(|| self.task_listed(key)) || looked == LOOKED_AT_MAX {
                    return Reply::Answer(rows.page(Some(format!("o{no}"))));
                }
            }
        }
        // While nothing can be written, what ended and is not safe is left out.
        let safe = if self.is_full() {
            self.events.latest() + 1
        } else {
            u64::MAX
        };
        let before = if part == "f" { at.min(safe) } else { safe };
        for ended in self
            .facts
            .unfolded_ends()
            .filter(|ended| ended.seq < before)
        {
            looked += 1;
            // It may have been opened again since, and ended anew.
            if !self.facts.is_last_end(ended) {
                continue;
            }
            if rows.take(|| ended_view(ended)) || looked >= LOOKED_AT_MAX {
                return Reply::Answer(rows.page(Some(format!("f{}", ended.seq))));
            }
        }
        let before = before.min(self.facts.first_unfolded_end().unwrap_or(u64::MAX));
        let open_again = self.facts.reopened_ids().cloned().collect();
        Reply::FromStore(Lookup::Ended {
            before,
            rows,
            open_again,
        })
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

    fn job_in_memory(&self, name: &JobName) -> Option<JobView> {
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

    fn job_views(&self) -> Vec<JobView> {
        let mut names: Vec<&JobName> = self
            .core
            .jobs()
            .map(|job| &job.name)
            .chain(self.facts.idle_jobs_in_memory())
            .collect();
        names.sort();
        names.dedup();
        names
            .into_iter()
            .filter_map(|name| self.job_in_memory(name))
            .collect()
    }

    /// The names of the connected runners that take a module.
    fn runners_of(&self, module: &ModuleName) -> BTreeSet<Arc<str>> {
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

    fn runners(&self) -> Vec<RunnerView> {
        let view = |(no, session): (&crate::inbox::ConnectionId, &super::Connection)| {
            let offer = session
                .offer
                .clone()
                .filter(|_| session.role == Role::Runner && session.joined)?;
            let facts = self.core.runner_facts(RunnerKey(no.0))?;
            let state = if session.fault.is_some() {
                "sick"
            } else if facts.draining {
                "draining"
            } else if facts.absent {
                "absent"
            } else {
                "connected"
            };
            Some(RunnerView {
                runner: offer.name.clone(),
                state: state.into(),
                fault: session.fault.clone(),
                slots: offer.slots,
                used: facts.used.min(offer.slots),
                attempts: facts.attempts as u64,
                finished: facts.finished,
                offer,
                joined: session.since,
            })
        };
        self.connections.iter().filter_map(view).collect()
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
        let runners = self.runners();
        Status {
            epoch: self.epoch,
            seq: self.last_seq,
            durability: self.config.durability.clone(),
            uptime_ms: (self.now.mono_us - self.started.mono_us) / 1_000,
            tasks,
            jobs: self.core.jobs().filter(|job| job.open).count() as u64,
            runners: runners.len() as u64,
            slots: runners.iter().map(|runner| u64::from(runner.slots)).sum(),
            damaged: match &self.disk {
                DiskSpace::Damaged(why) => Some(why.clone()),
                DiskSpace::Ample | DiskSpace::Low(_) | DiskSpace::Full(_) => None,
            },
            refusing: self
                .disk_refusal()
                .or_else(|| self.queue_full(0))
                .map(|refusal| refusal.message),
            troubles: Vec::new(),
        }
    }
}
