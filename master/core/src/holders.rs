//! Sessions that hold jobs: a held job stays open while it has no open task.

use crate::deadlines::Timer;
use crate::effect::{DurableChange, Effect};
use crate::keys::JobKey;
use crate::scheduler::Scheduler;
use std::sync::Arc;
use taskmaster_protocol::{JobName, limits};

/// How long a session without a connection holds its jobs, in microseconds.
const GRACE_US: u64 = limits::JOB_HOLD_GRACE_MS * 1_000;

impl Scheduler {
    /// The jobs that a session holds.
    pub fn jobs_held_by(&self, session: &str) -> Vec<JobName> {
        self.jobs
            .iter()
            .filter(|(_, job)| job.holders.contains_key(session))
            .map(|(_, job)| job.name.clone())
            .collect()
    }

    /// A session holds a job, or renews its hold. A hold that was read from the journal has the grace
    /// period to be renewed.
    pub(crate) fn hold_job(
        &mut self,
        name: &JobName,
        by: Arc<str>,
        restored: bool,
        effects: &mut Vec<Effect>,
    ) {
        let Some(key) = self.jobs.key(name) else {
            return;
        };
        let until = restored.then(|| self.now.mono_us + GRACE_US);
        let holders = &mut self.jobs.get_mut(key).holders;
        let last = holders.insert(by.clone(), until);
        if let Some(Some(at)) = last {
            let timer = Timer::HolderGrace(key, by.clone());
            self.deadlines.remove(at, timer);
        }
        if let Some(at) = until {
            let timer = Timer::HolderGrace(key, by.clone());
            self.deadlines.insert(at, timer);
        }
        if last.is_none() && !restored {
            effects.push(Effect::Store(DurableChange::JobHeld {
                job: name.clone(),
                by,
                held: true,
            }));
        }
    }

    pub(crate) fn release_job(&mut self, name: &JobName, by: &Arc<str>, effects: &mut Vec<Effect>) {
        if let Some(key) = self.jobs.key(name) {
            self.release(key, by, effects);
        }
    }

    /// Ends the hold of a session, if it has one.
    pub(crate) fn release(&mut self, key: JobKey, by: &Arc<str>, effects: &mut Vec<Effect>) {
        let job = self.jobs.get_mut(key);
        let Some(until) = job.holders.remove(by) else {
            return;
        };
        let name = job.name.clone();
        if let Some(at) = until {
            let timer = Timer::HolderGrace(key, by.clone());
            self.deadlines.remove(at, timer);
        }
        effects.push(Effect::Store(DurableChange::JobHeld {
            job: name,
            by: by.clone(),
            held: false,
        }));
        self.close_if_idle(key);
    }

    /// A session lost its connection: its holds last for the grace period.
    pub(crate) fn holder_lost(&mut self, by: &Arc<str>) {
        let at = self.now.mono_us + GRACE_US;
        let held: Vec<JobKey> = self
            .jobs
            .iter()
            .filter(|(_, job)| job.holders.get(by) == Some(&None))
            .map(|(key, _)| key)
            .collect();
        for key in held {
            self.jobs.get_mut(key).holders.insert(by.clone(), Some(at));
            let timer = Timer::HolderGrace(key, by.clone());
            self.deadlines.insert(at, timer);
        }
    }
}
