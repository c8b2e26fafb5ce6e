//! Cancelling a whole job: a scan through the table of tasks, some in each turn. From the request on
//! no task that the cancel concerns is sent, and no report of one counts, so that nothing which such
//! a task would add comes in behind the scan.

use crate::effect::{DurableChange, Effect, EndReason};
use crate::event::CancelOrigin;
use crate::keys::{JobKey, TaskKey};
use crate::scheduler::{Scheduler, TOUCHED_PER_TURN_MAX};
use crate::state::FinalState;
use crate::task::Task;
use std::collections::BTreeSet;
use taskmaster_protocol::JobName;

/// How many tasks one turn cancels for a job at most. Each cancel makes a record, and everybody
/// waits for the commit that the records are in.
const CANCELLED_PER_TURN_MAX: usize = 256;

/// The cancel of a job that is being carried out.
#[derive(Debug)]
pub(crate) struct JobCancel {
    pub job: JobKey,
    /// The ordinal of the newest task concerned.
    up_to: u64,
    /// The [`Task::generation`] of the newest task concerned. A task that is opened again after the
    /// request has its old ordinal and a greater generation.
    newest_generation: u32,
    /// Tasks that were opened again after the request, before the master restarted. Whatever has one
    /// of these keys later was added or opened after the request, too.
    reopened: BTreeSet<TaskKey>,
    /// The key where the scan goes on.
    next: u32,
}

impl JobCancel {
    fn concerns(&self, key: TaskKey, task: &Task) -> bool {
        // The numbers of generations overflow after four billion tasks. An older generation is at
        // most half of the numbers away.
        let age = self.newest_generation.wrapping_sub(task.generation);
        task.job == self.job
            && task.ordinal <= self.up_to
            && age < u32::MAX / 2
            && task.state().is_open()
            && !self.reopened.contains(&key)
    }
}

impl Scheduler {
    /// Whether a task is open only because the cancel of its job has not come to it yet.
    pub(crate) fn is_being_cancelled(&self, key: TaskKey, task: &Task) -> bool {
        let is_concerned = |cancel: &JobCancel| cancel.concerns(key, task);
        self.jobs.get(task.job).cancels > 0 && self.job_cancels.iter().any(is_concerned)
    }

    /// The ordinal up to which the tasks of a job are being cancelled, if they are.
    pub fn cancelled_up_to(&self, job: &JobName) -> Option<u64> {
        let key = self.jobs.key(job)?;
        let last = self.job_cancels.iter().rfind(|cancel| cancel.job == key)?;
        Some(last.up_to)
    }

    /// Begins to cancel the open tasks of a job, up to an ordinal.
    pub(crate) fn cancel_job(
        &mut self,
        name: &JobName,
        up_to: u64,
        origin: CancelOrigin,
        effects: &mut Vec<Effect>,
    ) {
        let Some(job) = self.jobs.key(name) else {
            return;
        };
        let newest_generation = self.tasks.last_generation();
        let reopened = match origin {
            CancelOrigin::Client => {
                effects.push(Effect::Store(DurableChange::JobCancelled {
                    job: name.clone(),
                    up_to,
                }));
                BTreeSet::new()
            }
            CancelOrigin::Restored { reopened } => reopened.into_iter().collect(),
        };
        self.jobs.get_mut(job).cancels += 1;
        self.job_cancels.push_back(JobCancel {
            job,
            up_to,
            newest_generation,
            reopened,
            next: 0,
        });
        self.unreserve_where(|task, _| task.job == job, effects);
        self.requeue_job(job);
    }

    /// Goes on with the first cancel: looks at [`TOUCHED_PER_TURN_MAX`] keys and cancels
    /// [`CANCELLED_PER_TURN_MAX`] tasks at most.
    pub(crate) fn cancel_some(&mut self, effects: &mut Vec<Effect>) {
        let Some(cancel) = self.job_cancels.front() else {
            return;
        };
        let job_key = cancel.job;
        let first = cancel.next;
        let mut end = self
            .tasks
            .key_bound()
            .min(first + TOUCHED_PER_TURN_MAX as u32);
        let mut left = CANCELLED_PER_TURN_MAX;

        for key in (first..end).map(TaskKey) {
            let is_concerned = self.tasks.get(key).is_some_and(|task| {
                let cancel = self.job_cancels.front();
                cancel.is_some_and(|cancel| cancel.concerns(key, task))
            });
            if is_concerned {
                self.end(key, FinalState::Cancelled, EndReason::Cancelled, effects);
                left -= 1;
            }
            if left == 0 {
                end = key.0 + 1;
                break;
            }
        }

        if let Some(cancel) = self.job_cancels.front_mut() {
            cancel.next = end;
        }
        let job = self.jobs.get_mut(job_key);
        if end < self.tasks.key_bound() && job.counts.open() > 0 {
            return;
        }
        self.job_cancels.pop_front();
        job.cancels -= 1;
        // A later cancel of the job concerns more tasks, and that one is the durable one.
        if job.cancels == 0 {
            effects.push(Effect::Store(DurableChange::JobCancelled {
                job: job.name.clone(),
                up_to: 0,
            }));
        }
        self.requeue_job(job_key);
    }
}
