//! Tasks that take the results of a whole job: which run of the job they are bound to, when they may
//! go on, and which tasks' results they get.

use super::Engine;
use super::effects::EndWithoutReport;
use crate::facts::{DependencyState, Unreadable};
use crate::lookup::unknown_job;
use std::collections::{BTreeMap, HashSet};
use taskmaster_core::{DependsOn, Event, FinalState, State, TaskKey};
use taskmaster_protocol::{
    ErrorKind, JobName, Refusal, RefusalCode, TaskError, TaskId, TaskState, When, limits,
};
use taskmaster_store::body::{JobRun, TaskBody};
use taskmaster_store::view::JobEnd;

/// Tasks that the search for a cycle looks at before it gives up, so that no turn is long.
const LOOKED_THROUGH_MAX: usize = 10_000;

/// What has become of the run of a job.
enum RunOutcome {
    /// The run goes on, or a task of it was opened again.
    Open,
    /// Every task of the run is done.
    Done,
    /// The results are not there, and will not come.
    Missed(MissedRun),
}

/// Why the results of a run are not there.
#[derive(Clone)]
enum MissedRun {
    /// A task of the run has ended in another way.
    NotDone(TaskId, TaskState),
    /// The run has too many tasks.
    TooMany,
    /// Ended tasks of the run are no longer kept.
    NotKept,
    /// The store cannot be read.
    Unreadable(Unreadable),
}

impl MissedRun {
    fn why(&self, job: &JobName) -> EndWithoutReport {
        let text = match self {
            MissedRun::NotDone(id, state) => format!(
                "the task `{id}` of job `{job}`, whose results it takes, ended as {}",
                state.as_str()
            ),
            MissedRun::TooMany => format!(
                "job `{job}`, whose results it takes, has more than {} tasks in this run",
                limits::JOB_RESULTS_MAX
            ),
            MissedRun::NotKept => {
                format!("not all results of job `{job}`, whose results it takes, are still kept")
            }
            MissedRun::Unreadable(error) => {
                format!("the results of job `{job}` cannot be read: {error}")
            }
        };
        let skipped_for = match self {
            MissedRun::NotDone(id, _) => Some(id.clone()),
            MissedRun::TooMany | MissedRun::NotKept | MissedRun::Unreadable(_) => None,
        };
        EndWithoutReport {
            error: Some(TaskError::new(ErrorKind::Input, text)),
            skipped_for,
        }
    }
}

impl Engine {
    /// The runs of `jobs` that a task of the job `own` is bound to: of each the one that goes on, or
    /// else the last one. Refused are jobs that are unknown, and jobs that cannot end before the task
    /// does.
    pub(super) fn bind_jobs(
        &self,
        jobs: &[JobName],
        own: &JobName,
    ) -> Result<Vec<JobRun>, Refusal> {
        let mut bound = Vec::with_capacity(jobs.len());
        for job in jobs {
            let is_own = job == own;
            if is_own || self.waits.jobs_behind(own).contains(job) {
                return Err(own_job(job, own, is_own));
            }
            let run = match self.core.job(job).filter(|job| job.open) {
                Some(open) => open.run,
                None => {
                    let idle = self.facts.idle_job(job)?;
                    let run = idle
                        .ok_or_else(|| unknown_job(job).at("params.$results"))?
                        .run;
                    if !self.facts.run_ends(job, run)?.from_beginning {
                        let text = format!(
                            "field `params.$results`: not all results of job `{job}` are still kept"
                        );
                        let refusal = Refusal::new(RefusalCode::UnknownTask, text);
                        return Err(refusal.at("params.$results"));
                    }
                    run
                }
            };
            let job = job.clone();
            bound.push(JobRun { job, run });
        }
        Ok(bound)
    }

    /// Refuses dependencies through which a new task of the job `own` would wait for the end of its own
    /// job.
    pub(super) fn refuse_own_job<'a>(
        &self,
        own: &JobName,
        dependencies: impl Iterator<Item = &'a TaskId>,
    ) -> Result<(), Refusal> {
        if !self.waits.is_job_waited_for(own) {
            return Ok(());
        }
        let mut seen: HashSet<TaskKey> = HashSet::new();
        let mut next: Vec<TaskKey> = dependencies.filter_map(|id| self.open_key(id)).collect();
        while let Some(key) = next.pop() {
            if !seen.insert(key) || seen.len() > LOOKED_THROUGH_MAX {
                continue;
            }
            let body = self.facts.body(key);
            if self.waits.waits_for_job(key, own) {
                let id = &body.id;
                let text = format!(
                    "dependency cycle: `{id}` waits for the end of job `{own}`, to which this task \
                     would belong"
                );
                return Err(Refusal::new(RefusalCode::DependencyCycle, text)
                    .at("dependencies")
                    .about(vec![id.clone()]));
            }
            let dependencies = body.dependencies().iter();
            next.extend(dependencies.filter_map(|dependency| self.open_key(&dependency.on)));
        }
        Ok(())
    }

    fn open_key(&self, id: &TaskId) -> Option<TaskKey> {
        match self.facts.known(id)? {
            crate::facts::Known::Open(key) => Some(key),
            crate::facts::Known::Closing(..) | crate::facts::Known::Ended(_) => None,
        }
    }

    /// A task is open: what it waits for beside tasks is remembered, and looked at before the turn
    /// ends.
    pub(super) fn remember_waits(&mut self, key: TaskKey, body: &TaskBody) {
        for of in body.job_results() {
            if self.is_blocked(key) {
                self.waits.wait_for_job(key, &of.job, &body.job);
            }
        }
    }

    /// A task waits for nothing any more.
    pub(super) fn forget_waits(&mut self, key: TaskKey, body: &TaskBody) {
        for of in body.job_results() {
            self.waits.has_job(key, &of.job);
        }
    }

    fn is_blocked(&self, key: TaskKey) -> bool {
        let task = self.core.task(key);
        task.is_some_and(|task| matches!(task.state(), State::Blocked { .. }))
    }

    /// Tells the core of what has become of what tasks wait for beside tasks. Returns whether anything
    /// was told.
    pub(super) fn settle_waits(&mut self) -> bool {
        let mut told = false;
        let mut outcomes: BTreeMap<JobRun, RunOutcome> = BTreeMap::new();
        for key in self.waits.take_unsettled() {
            if !self.is_blocked(key) {
                continue;
            }
            let body = self.facts.body(key);
            for of in body.job_results() {
                if !self.waits.waits_for_job(key, &of.job) {
                    continue;
                }
                let outcome = outcomes
                    .entry(of.clone())
                    .or_insert_with(|| self.run_outcome(of));
                let how = match outcome {
                    RunOutcome::Open => continue,
                    RunOutcome::Done => FinalState::Done,
                    RunOutcome::Missed(missed) => {
                        self.why_skipped = Some(missed.why(&of.job));
                        FinalState::Failed
                    }
                };
                self.waits.has_job(key, &of.job);
                told = true;
                self.tell(Event::DependencyTold {
                    task: key,
                    is: DependsOn::Ended(how, When::Done),
                });
                self.why_skipped = None;
            }
        }
        told
    }

    fn run_outcome(&self, of: &JobRun) -> RunOutcome {
        let open = self.core.job(&of.job).filter(|job| job.open);
        if open.is_some_and(|job| job.run == of.run) {
            return RunOutcome::Open;
        }
        match self.ends_of(of) {
            Ok(Ok(ends)) => self.outcome_of_ends(&ends),
            Ok(Err(missed)) => RunOutcome::Missed(missed),
            Err(error) => RunOutcome::Missed(MissedRun::Unreadable(error)),
        }
    }

    fn outcome_of_ends(&self, ends: &BTreeMap<u64, JobEnd>) -> RunOutcome {
        for end in ends.values().filter(|end| end.state != TaskState::Done) {
            // The task may have been opened again in a later run.
            let state = match self.facts.state_of(&end.id) {
                Ok(DependencyState::Open(_)) => return RunOutcome::Open,
                Ok(DependencyState::Ended { state, ordinal }) if ordinal == end.ordinal => state,
                Ok(DependencyState::Ended { .. } | DependencyState::Unknown) => {
                    return RunOutcome::Missed(MissedRun::NotKept);
                }
                Err(error) => return RunOutcome::Missed(MissedRun::Unreadable(error)),
            };
            if state != FinalState::Done {
                let missed = MissedRun::NotDone(end.id.clone(), state.task_state());
                return RunOutcome::Missed(missed);
            }
        }
        RunOutcome::Done
    }

    /// The last end of each task of a run, in the order of adding.
    fn ends_of(&self, of: &JobRun) -> Result<Result<BTreeMap<u64, JobEnd>, MissedRun>, Unreadable> {
        let found = self.facts.run_ends(&of.job, of.run)?;
        let is_whole = found.from_beginning;
        let mut ends: BTreeMap<u64, JobEnd> = BTreeMap::new();
        for end in found.ends {
            let is_newer = |known: &JobEnd| known.seq > end.seq;
            if !ends.get(&end.ordinal).is_some_and(is_newer) {
                ends.insert(end.ordinal, end);
            }
        }
        Ok(if ends.len() > limits::JOB_RESULTS_MAX {
            Err(MissedRun::TooMany)
        } else if is_whole {
            Ok(ends)
        } else {
            Err(MissedRun::NotKept)
        })
    }

    /// The tasks of the jobs whose results a task takes, in the order of adding.
    pub(super) fn tasks_of_jobs(&self, body: &TaskBody) -> BTreeMap<JobName, Vec<TaskId>> {
        let tasks_of = |of: &JobRun| {
            let ends = self.ends_of(of).ok()?.ok()?;
            let ids = ends.into_values().map(|end| end.id).collect();
            // The runner says of a job that is left out that its tasks are not there.
            Some((of.job.clone(), ids))
        };
        body.job_results().iter().filter_map(tasks_of).collect()
    }

    /// What a blocked task waits for beside tasks, for people.
    pub(super) fn waits_beside_tasks(&self, key: TaskKey, body: &TaskBody) -> Vec<String> {
        let waited_for = body
            .job_results()
            .iter()
            .filter(|of| self.waits.waits_for_job(key, &of.job));
        let describe = |of: &JobRun| {
            let open = self.core.job(&of.job).map_or(0, |job| job.counts.open());
            let held = match open {
                0 => "it is held open".into(),
                1 => "1 task open".into(),
                n => format!("{n} tasks open"),
            };
            format!("the end of job `{}` ({held})", of.job)
        };
        waited_for.map(describe).collect()
    }
}

fn own_job(job: &JobName, own: &JobName, is_own: bool) -> Refusal {
    let text = if is_own {
        format!("a task cannot wait for its own job `{job}`: give the task another `job`")
    } else {
        format!(
            "dependency cycle: tasks of job `{job}` wait for the end of job `{own}`, to which this \
             task would belong"
        )
    };
    Refusal::new(RefusalCode::DependencyCycle, text).at("params.$results")
}
