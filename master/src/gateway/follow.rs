//! `task:follow`: tells a feeder of tasks that end, by job from a seq on, or by ids each once.

use super::feed;
use crate::events::{EventFeed, Logged, Pruned};
use crate::inbox::MasterHandle;
use futures_util::StreamExt;
use std::collections::{BTreeSet, HashMap};
use std::time::Duration;
use taskmaster_protocol::message::{Final, Query, Refused};
use taskmaster_protocol::{FromMaster, JobName, RefusalCode, TaskId, TaskView};
use tokio::sync::mpsc;
use tokio::time::Instant;

/// A follower that hears nothing is told how far it has followed when that moved by so many events, and not more than
/// once a second: after a reconnect it goes on near the end.
const MOVED: u64 = 10_000;
const MOVED_PAUSE: Duration = Duration::from_secs(1);

/// Questions about single tasks at a time.
const ASKED: usize = 32;

/// Tasks in one message.
const BATCH: usize = 500;

type Side = mpsc::Sender<FromMaster>;

/// The session is over.
struct Over;

/// A job to follow, and the seq after which its ends are to be told.
pub(super) type Wish = (JobName, u64);

/// The jobs that a session follows. One reader for all of them: each event is looked at once, however many there are.
struct Jobs {
    /// By job, the seq up to which nothing is to be told (any more).
    told: HashMap<JobName, u64>,
    /// Where reading is.
    seq: u64,
}

impl Jobs {
    /// Takes a wish in; reading goes back where it begins earlier, and tells nothing of the other jobs again.
    fn follow(&mut self, (job, since): Wish) {
        if since < self.seq {
            self.told.values_mut().for_each(|told| *told = self.seq.max(*told));
            self.seq = since;
        }
        self.told.insert(job, since);
    }

    fn concerns(&self, event: &Logged) -> bool {
        event.is_end() && event.job().and_then(|job| self.told.get(job)).is_some_and(|told| event.seq() > *told)
    }
}

/// Everything that ends in the jobs that are wished for, and the jobs' own ends, until the session ends.
pub(super) async fn jobs(events: EventFeed, mut wishes: mpsc::Receiver<Wish>, side: Side) {
    let Some(first) = wishes.recv().await else { return };
    let mut jobs = Jobs { seq: first.1, told: HashMap::from([first]) };
    let mut told = (jobs.seq, Instant::now());
    loop {
        // All that have come, before anything is read: they may have to go back together.
        while let Ok(wish) = wishes.try_recv() {
            jobs.follow(wish);
        }
        let logged = tokio::select! {
            read = feed::after(&events, jobs.seq) => match read {
                Ok(logged) => logged,
                Err(pruned) => match side.send(feed::skip(&mut jobs.seq, pruned)).await {
                    Ok(()) => continue,
                    Err(_) => return,
                },
            },
            Some(wish) = wishes.recv() => {
                jobs.follow(wish);
                continue;
            }
            () = side.closed() => return,
        };
        let mine: Vec<&Logged> = logged.iter().filter(|event| jobs.concerns(event)).collect();
        let tasks: Vec<TaskView> = mine.iter().filter_map(|event| event.finished()).collect();
        let job_done = mine.iter().rev().find_map(|event| event.job_run());
        let seq = logged.last().map_or(jobs.seq, Logged::seq);
        jobs.seq = seq;
        let quiet = tasks.is_empty() && job_done.is_none();
        let moved = seq.saturating_sub(told.0) > MOVED && told.1.elapsed() > MOVED_PAUSE;
        if quiet && !moved {
            continue;
        }
        told = (seq, Instant::now());
        if side.send(FromMaster::Final(Final { seq: Some(seq), tasks, job_done })).await.is_err() {
            return;
        }
    }
}

/// Each of `ids` once, when it has ended or where it has already. `seq` was the last event when this was asked for:
/// what ends later is among the events after it, what ended before is final when asked.
pub(super) async fn ids(handle: MasterHandle, ids: Vec<TaskId>, mut seq: u64, side: Side) {
    let mut waiting: BTreeSet<TaskId> = ids.into_iter().collect();
    if ask(&handle, &mut waiting, &side).await.is_err() {
        return;
    }
    while !waiting.is_empty() {
        let logged = tokio::select! {
            read = feed::after(&handle.events, seq) => match read {
                Ok(logged) => logged,
                Err(Pruned { first }) => {
                    // They may have ended in what is no longer kept.
                    seq = first.saturating_sub(1);
                    if ask(&handle, &mut waiting, &side).await.is_err() {
                        return;
                    }
                    continue;
                }
            },
            () = side.closed() => return,
        };
        seq = logged.last().map_or(seq, Logged::seq);
        let mine = |event: &&Logged| event.task().is_some_and(|task| waiting.contains(task));
        let ended: Vec<TaskView> = logged.iter().filter(mine).filter_map(Logged::finished).collect();
        for task in &ended {
            waiting.remove(&task.id);
        }
        if tell(ended, &side).await.is_err() {
            return;
        }
    }
}

/// Tells those of `waiting` that have ended, and refuses those that nobody knows; both are waited for no longer.
async fn ask(handle: &MasterHandle, waiting: &mut BTreeSet<TaskId>, side: &Side) -> Result<(), Over> {
    let questions = waiting.clone().into_iter().map(|id| async move {
        let answer = handle.ask(Query::Task { id: id.clone() }).await;
        (id, answer)
    });
    let mut answers = futures_util::stream::iter(questions).buffered(ASKED);
    let mut ended = Vec::new();
    while let Some((id, answer)) = answers.next().await {
        match answer {
            Ok(json) => {
                let Ok(task) = json.read::<TaskView>() else { continue };
                if task.state.is_final() {
                    waiting.remove(&id);
                    ended.push(task);
                }
            }
            Err(refusal) if refusal.code == RefusalCode::Unavailable => {}
            Err(refusal) => {
                waiting.remove(&id);
                let error = refusal.about(vec![id]);
                side.send(FromMaster::Refused(Refused { reference: None, error })).await.map_err(|_| Over)?;
            }
        }
        if ended.len() >= BATCH {
            tell(std::mem::take(&mut ended), side).await?;
        }
    }
    tell(ended, side).await
}

async fn tell(tasks: Vec<TaskView>, side: &Side) -> Result<(), Over> {
    if tasks.is_empty() {
        return Ok(());
    }
    side.send(FromMaster::Final(Final { seq: None, tasks, job_done: None })).await.map_err(|_| Over)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn going_back_for_one_job_tells_nothing_of_another_twice() {
        let job = |name: &str| JobName::new(name).unwrap();
        let mut jobs = Jobs { seq: 0, told: HashMap::from([(job("a"), 0)]) };
        jobs.seq = 100;
        jobs.follow((job("b"), 40));
        jobs.follow((job("c"), 60));
        assert_eq!((jobs.seq, jobs.told[&job("a")], jobs.told[&job("b")], jobs.told[&job("c")]), (40, 100, 40, 60));
        jobs.seq = 50;
        jobs.follow((job("d"), 10));
        assert_eq!((jobs.seq, jobs.told[&job("a")], jobs.told[&job("b")], jobs.told[&job("c")]), (10, 100, 50, 60));
        jobs.follow((job("a"), 10));
        assert_eq!(jobs.told[&job("a")], 10, "whoever asks again is told again");
    }
}
