//! What a session watches and follows.

use super::follow::jobs::{FollowJob, follow_jobs};
use super::follow::partials::SessionPartials;
use super::follow::tasks::follow_tasks;
use super::watch;
use crate::handle::MasterHandle;
use std::collections::BTreeSet;
use std::sync::Arc;
use taskmaster_protocol::excerpt::excerpt;
use taskmaster_protocol::message::{Follow, Watch};
use taskmaster_protocol::{EventKind, FromMaster, JobName, Refusal, RefusalCode, near};
use tokio::sync::mpsc;
use tokio::task::{AbortHandle, JoinSet};

/// Groups of tasks that one session follows by id.
const GROUPS_MAX: usize = 256;

/// Jobs that one session follows: their names take some 10 MiB then.
const JOBS_MAX: usize = 100_000;

/// Jobs that wait to be followed.
const WAITING_JOBS: usize = 1_024;

/// The subscriptions of one session. Their tasks end with the session.
pub(super) struct Subscriptions {
    handle: MasterHandle,
    side: mpsc::Sender<FromMaster>,
    watch: Option<AbortHandle>,
    groups: Vec<AbortHandle>,
    /// To the task that follows jobs, once one is followed.
    to_follower: Option<mpsc::Sender<FollowJob>>,
    jobs: BTreeSet<JobName>,
    /// Once partial results are asked for.
    partials: Option<Arc<SessionPartials>>,
}

impl Subscriptions {
    pub(super) fn new(handle: MasterHandle, side: mpsc::Sender<FromMaster>) -> Subscriptions {
        Subscriptions {
            handle,
            side,
            watch: None,
            groups: Vec::new(),
            to_follower: None,
            jobs: BTreeSet::new(),
            partials: None,
        }
    }

    /// Watches events. An earlier watch of the session ends.
    pub(super) fn watch(&mut self, watch: Watch, tasks: &mut JoinSet<()>) -> Result<(), Refusal> {
        if let Some(&unknown) = watch.filter.unknown_events().first() {
            let kinds = EventKind::ALL.iter().map(|kind| kind.as_str());
            let hint = near::hint(unknown, kinds);
            let text = format!("no event is called `{}`{hint}", excerpt(unknown));
            return Err(Refusal::new(RefusalCode::InvalidValue, text).at("filter.events"));
        }
        if let Some(earlier) = self.watch.take() {
            earlier.abort();
        }
        let events = self.handle.events.clone();
        let latest = events.latest();
        let watching = watch::run(events, watch, latest, self.side.clone());
        self.watch = Some(tasks.spawn(watching));
        Ok(())
    }

    /// Follows a job, or a group of tasks, or both.
    pub(super) async fn follow(
        &mut self,
        follow: Follow,
        tasks: &mut JoinSet<()>,
    ) -> Result<(), Refusal> {
        self.groups.retain(|group| !group.is_finished());
        if self.groups.len() >= GROUPS_MAX || self.jobs.len() >= JOBS_MAX {
            let text = format!(
                "a session may follow {GROUPS_MAX} groups of tasks and {JOBS_MAX} jobs at a time; \
                 use another for more"
            );
            return Err(Refusal::new(RefusalCode::TooLarge, text));
        }
        let Follow {
            job,
            ids,
            since,
            partials,
        } = follow;
        if job.is_none() && ids.is_empty() {
            let text = "`task:follow` names neither a `job` nor `ids`";
            return Err(Refusal::new(RefusalCode::MissingField, text).at("job"));
        }

        let partials = partials.then(|| self.partials(tasks));
        // Partial results are followed before the next message of this session is read: a task that
        // the session adds behind this message may give its only one within a millisecond.
        if let Some(partials) = &partials {
            job.iter().for_each(|job| partials.follow_job(job));
            ids.iter().for_each(|id| partials.follow_task(id));
        }
        // The seq is read in the order of this session's messages, so tasks that the session adds
        // after this message end after this seq.
        let latest = self.handle.events.latest();
        if let Some(job) = job {
            self.jobs.insert(job.clone());
            let since = since.map_or(latest, |since| since.min(latest));
            let job = FollowJob {
                job,
                since,
                partials: partials.clone(),
            };
            self.follow_job(job, tasks).await;
        }
        if !ids.is_empty() {
            let handle = self.handle.clone();
            let following = follow_tasks(handle, ids, latest, partials, self.side.clone());
            self.groups.push(tasks.spawn(following));
        }
        Ok(())
    }

    /// The partial results of the session. The first call starts the task that sends them.
    fn partials(&mut self, tasks: &mut JoinSet<()>) -> Arc<SessionPartials> {
        let made = self.partials.get_or_insert_with(|| {
            let partials = SessionPartials::new(&self.handle.events, self.side.clone());
            tasks.spawn(partials.clone().run());
            partials
        });
        made.clone()
    }

    /// Hands a job to the task that follows jobs, and starts that task for the first one.
    async fn follow_job(&mut self, job: FollowJob, tasks: &mut JoinSet<()>) {
        let to_follower = self.to_follower.get_or_insert_with(|| {
            let (to_follower, jobs) = mpsc::channel(WAITING_JOBS);
            let events = self.handle.events.clone();
            tasks.spawn(follow_jobs(events, jobs, self.side.clone()));
            to_follower
        });
        // The task ends only with the session.
        let _ = to_follower.send(job).await;
    }
}
