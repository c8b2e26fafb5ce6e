//! Everything that ends in the jobs that a session follows, and the jobs' own ends.

use super::super::feed;
use super::partials::SessionPartials;
use super::{MESSAGE_BYTES, MESSAGE_TASKS, SessionOver, Side, send, send_final};
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;
use taskmaster_engine::events::{CommitEnds, DurableEvent, EndEvents, EndInterest, EventFeed};
use taskmaster_engine::interests::Interest;
use taskmaster_protocol::JobName;
use taskmaster_protocol::message::TasksEnded;
use tokio::sync::mpsc;
use tokio::time::Instant;

/// A follower of a quiet job is told how far it has followed when so many events have passed. After
/// a reconnect it goes on from there.
const PROGRESS_EVENTS: u64 = 10_000;

/// A follower is told of such progress at most once per this time.
const PROGRESS_INTERVAL: Duration = Duration::from_secs(1);

/// A job to follow, the seq after which its ends are told, and where its partial results go, if they
/// are asked for.
pub(in crate::gateway) struct FollowJob {
    pub(in crate::gateway) job: JobName,
    pub(in crate::gateway) since: u64,
    pub(in crate::gateway) partials: Option<Arc<SessionPartials>>,
}

/// The jobs that a session follows. One reader serves all of them, so each event is looked at once,
/// however many jobs there are.
struct FollowedJobs {
    /// By job, the seq up to which everything has been told, or need not be.
    told: HashMap<JobName, u64>,
    /// The seq up to which events have been read.
    seq: u64,
}

impl EndInterest for FollowedJobs {
    fn any_of(&self, ended: &CommitEnds) -> bool {
        ended.any_job(&self.told)
    }
}

impl FollowedJobs {
    /// Takes a job in. Reading goes back where the job begins earlier, and nothing of the other
    /// jobs is told again.
    fn follow(&mut self, job: FollowJob) {
        if job.since < self.seq {
            for told in self.told.values_mut() {
                *told = self.seq.max(*told);
            }
            self.seq = job.since;
        }
        self.told.insert(job.job, job.since);
    }

    fn is_to_be_told(&self, event: &DurableEvent) -> bool {
        event.is_end()
            && event
                .job()
                .and_then(|job| self.told.get(job))
                .is_some_and(|told| event.seq() > *told)
    }
}

/// Tells `side` what ends in the jobs that come over `wanted`, until the session ends.
pub(in crate::gateway) async fn follow_jobs(
    events: EventFeed,
    mut wanted: mpsc::Receiver<FollowJob>,
    side: Side,
) {
    let Some(first) = wanted.recv().await else {
        return;
    };
    let mut follower = JobFollower {
        interest: events.interest(),
        events,
        wanted,
        next_wanted: None,
        upto: 0,
        progress_seq: first.since,
        progress_at: Instant::now(),
        jobs: FollowedJobs {
            seq: first.since,
            told: HashMap::new(),
        },
        partials: None,
        side,
    };
    follower.next_wanted = Some(first);
    while follower.step().await.is_ok() {}
}

/// Follows the jobs of one session.
struct JobFollower {
    events: EventFeed,
    interest: Interest,
    jobs: FollowedJobs,
    wanted: mpsc::Receiver<FollowJob>,
    /// A job that has come and is not followed yet.
    next_wanted: Option<FollowJob>,
    /// Events up to this seq may concern the jobs and are to be read.
    upto: u64,
    /// The follower was told of everything up to this seq, at this time.
    progress_seq: u64,
    progress_at: Instant,
    /// Once the partial results of one of the jobs are asked for.
    partials: Option<Arc<SessionPartials>>,
    side: Side,
}

impl JobFollower {
    async fn step(&mut self) -> Result<(), SessionOver> {
        self.take_wanted();
        if self.jobs.seq >= self.upto {
            self.wait().await?;
            if self.jobs.seq >= self.upto && self.unreported() <= PROGRESS_EVENTS {
                return Ok(());
            }
        }
        let Some(ends) = self.read().await? else {
            return Ok(());
        };
        self.tell(&ends).await
    }

    /// Takes in all jobs that have come, before anything is read: reading may have to go back for
    /// several of them, and goes back once.
    fn take_wanted(&mut self) {
        while let Some(job) = self
            .next_wanted
            .take()
            .or_else(|| self.wanted.try_recv().ok())
        {
            self.interest.follow_job(&job.job);
            if let Some(partials) = &job.partials {
                self.partials = Some(partials.clone());
            }
            self.upto = self.upto.max(self.events.latest());
            self.jobs.follow(job);
        }
    }

    /// Waits for events that may concern the jobs, or for another job. Nothing that happened since
    /// the last wake-up concerns them, so reading skips ahead.
    async fn wait(&mut self) -> Result<(), SessionOver> {
        let latest = self.events.latest();
        if self.interest.is_quiet() {
            self.jobs.seq = self.jobs.seq.max(latest);
        }
        tokio::select! {
            (first, last) = self.interest.next() => {
                self.jobs.seq = self.jobs.seq.max(first.saturating_sub(1));
                self.upto = last;
                Ok(())
            }
            next = self.wanted.recv() => {
                self.next_wanted = Some(next.ok_or(SessionOver)?);
                Ok(())
            }
            () = tokio::time::sleep(PROGRESS_INTERVAL) => Ok(()),
            () = self.side.closed() => Err(SessionOver),
        }
    }

    /// The next ends. `None`: the next events are no longer kept, and the follower was told so.
    async fn read(&mut self) -> Result<Option<EndEvents>, SessionOver> {
        if self.jobs.seq >= self.upto {
            return Ok(Some(EndEvents {
                events: Vec::new(),
                seq: self.jobs.seq,
            }));
        }
        let read = tokio::select! {
            read = feed::next_ends(&self.events, self.jobs.seq, &self.jobs) => read,
            () = self.side.closed() => return Err(SessionOver),
        };
        match read {
            Ok(ends) => Ok(Some(ends)),
            Err(pruned) => {
                let gap = feed::skip_pruned(&mut self.jobs.seq, pruned);
                send(&self.side, gap).await?;
                Ok(None)
            }
        }
    }

    async fn tell(&mut self, ends: &EndEvents) -> Result<(), SessionOver> {
        let events: Vec<&DurableEvent> = ends
            .events
            .iter()
            .filter(|event| self.jobs.is_to_be_told(event))
            .collect();
        self.jobs.seq = ends.seq;
        let is_progress =
            self.unreported() > PROGRESS_EVENTS && self.progress_at.elapsed() > PROGRESS_INTERVAL;
        if events.is_empty() && !is_progress {
            return Ok(());
        }
        self.progress_seq = ends.seq;
        self.progress_at = Instant::now();
        if let Some(partials) = &self.partials {
            partials.send_all().await?;
            partials.tasks_ended(events.iter().filter_map(|event| event.task()));
        }
        for message in messages(&events, ends.seq) {
            send_final(&self.side, message).await?;
        }
        Ok(())
    }

    /// How many events were read since the follower was last told how far it has followed.
    fn unreported(&self) -> u64 {
        self.jobs.seq.saturating_sub(self.progress_seq)
    }
}

/// The messages about these events, made one by one. Each message says how far it reaches, and the
/// last one reaches up to `seq`.
fn messages(events: &[&DurableEvent], seq: u64) -> impl Iterator<Item = TasksEnded> {
    let mut rest = Some(events);
    std::iter::from_fn(move || {
        let events = rest?;
        let (message, left) = message(events, seq);
        rest = left;
        Some(message)
    })
}

/// One message about the first of these events, and the events that did not fit into it.
fn message<'a>(
    events: &'a [&'a DurableEvent],
    seq: u64,
) -> (TasksEnded, Option<&'a [&'a DurableEvent]>) {
    let mut message = TasksEnded {
        seq: Some(seq),
        tasks: Vec::new(),
        job_done: None,
    };
    let mut bytes = 0;
    for (index, event) in events.iter().enumerate() {
        if message.tasks.len() >= MESSAGE_TASKS || bytes >= MESSAGE_BYTES {
            message.seq = Some(event.seq() - 1);
            return (message, events.get(index..));
        }
        if let Some(task) = event.finished() {
            bytes += task.bytes();
            message.tasks.push(task);
        }
        message.job_done = event.job_run().or(message.job_done);
    }
    (message, None)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn going_back_for_one_job_tells_nothing_of_another_twice() {
        let job = |name: &str| JobName::new(name).unwrap();
        let wanted = |name: &str, since| FollowJob {
            job: job(name),
            since,
            partials: None,
        };
        let seqs = |jobs: &FollowedJobs| {
            (
                jobs.seq,
                jobs.told[&job("a")],
                jobs.told[&job("b")],
                jobs.told[&job("c")],
            )
        };
        let mut jobs = FollowedJobs {
            seq: 0,
            told: HashMap::from([(job("a"), 0)]),
        };
        jobs.seq = 100;
        jobs.follow(wanted("b", 40));
        jobs.follow(wanted("c", 60));
        assert_eq!(seqs(&jobs), (40, 100, 40, 60));
        jobs.seq = 50;
        jobs.follow(wanted("d", 10));
        assert_eq!(seqs(&jobs), (10, 100, 50, 60));
        jobs.follow(wanted("a", 10));
        assert_eq!(jobs.told[&job("a")], 10, "whoever asks again is told again");
    }
}
