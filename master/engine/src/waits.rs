//! What blocked tasks wait for beside tasks that the core has.

use std::collections::{BTreeMap, BTreeSet};
use taskmaster_core::TaskKey;
use taskmaster_protocol::JobName;

/// Blocked tasks by what they wait for beside tasks.
#[derive(Debug, Default)]
pub(crate) struct Waits {
    /// By the job whose end they wait for, each with its own job.
    jobs: BTreeMap<JobName, BTreeMap<TaskKey, JobName>>,
    /// Tasks that are to be looked at before the turn ends.
    unsettled: BTreeSet<TaskKey>,
}

impl Waits {
    /// A task of the job `own` waits for the end of a job, and is to be looked at.
    pub fn wait_for_job(&mut self, task: TaskKey, job: &JobName, own: &JobName) {
        let waiting = self.jobs.entry(job.clone()).or_default();
        waiting.insert(task, own.clone());
        self.unsettled.insert(task);
    }

    /// A task waits no longer for the end of a job.
    pub fn has_job(&mut self, task: TaskKey, job: &JobName) {
        let Some(waiting) = self.jobs.get_mut(job) else {
            return;
        };
        waiting.remove(&task);
        if waiting.is_empty() {
            self.jobs.remove(job);
        }
    }

    /// Whether a task still waits for the end of a job.
    pub fn waits_for_job(&self, task: TaskKey, job: &JobName) -> bool {
        self.jobs
            .get(job)
            .is_some_and(|waiting| waiting.contains_key(&task))
    }

    /// Whether any task waits for the end of this job.
    pub fn is_job_waited_for(&self, job: &JobName) -> bool {
        self.jobs.contains_key(job)
    }

    /// A run of a job has ended: the tasks that wait for it are to be looked at.
    pub fn job_ended(&mut self, job: &JobName) {
        if let Some(waiting) = self.jobs.get(job) {
            self.unsettled.extend(waiting.keys());
        }
    }

    /// The tasks that are to be looked at, each once.
    pub fn take_unsettled(&mut self) -> BTreeSet<TaskKey> {
        std::mem::take(&mut self.unsettled)
    }

    /// The jobs that cannot end before `job` does, because tasks of theirs wait for it.
    pub fn jobs_behind(&self, job: &JobName) -> BTreeSet<&JobName> {
        let mut behind = BTreeSet::new();
        let mut next = vec![job];
        while let Some(job) = next.pop() {
            for own in self.jobs.get(job).into_iter().flat_map(BTreeMap::values) {
                if behind.insert(own) {
                    next.push(own);
                }
            }
        }
        behind
    }
}
