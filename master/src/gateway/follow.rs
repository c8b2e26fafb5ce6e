//! `task:follow`: tells a feeder of tasks that end, by job from a seq on, or by ids each once.

use super::feed;
use crate::handle::MasterHandle;
use futures_util::StreamExt;
use std::collections::{BTreeSet, HashMap};
use std::time::Duration;
use taskmaster_engine::events::{Concern, Ends, EndsOf, EventFeed, Logged, Pruned};
use taskmaster_protocol::message::{Query, Refused, TasksEnded};
use taskmaster_protocol::{FromMaster, JobName, RefusalCode, TaskId, TaskView};
use tokio::sync::mpsc;
use tokio::time::Instant;

/// A follower that hears nothing is told how far it has followed when that moved by so many events,
/// and not more than once a second: after a reconnect it goes on near the end.
const MOVED: u64 = 10_000;
const MOVED_PAUSE: Duration = Duration::from_secs(1);

/// Questions about single tasks at a time.
const ASKED: usize = 32;

/// Tasks in one message, and bytes of their results: what waits for somebody who does not read is
/// bounded.
const BATCH: usize = 500;
const BATCH_BYTES: usize = 256 << 10;

type Side = mpsc::Sender<FromMaster>;

/// The session is over.
struct Over;

/// A job to follow, and the seq after which its ends are to be told.
pub(super) type Wish = (JobName, u64);

/// The jobs that a session follows. One reader for all of them: each event is looked at once,
/// however many there are.
struct Jobs {
    /// By job, the seq up to which nothing is to be told (any more).
    told: HashMap<JobName, u64>,
    /// Where reading is.
    seq: u64,
}

impl Concern for Jobs {
    fn any_of(&self, ended: &EndsOf) -> bool {
        ended.any_job(&self.told)
    }
}

impl Jobs {
    /// Takes a wish in; reading goes back where it begins earlier, and tells nothing of the other
    /// jobs again.
    fn follow(&mut self, (job, since): Wish) {
        if since < self.seq {
            self.told
                .values_mut()
                .for_each(|told| *told = self.seq.max(*told));
            self.seq = since;
        }
        self.told.insert(job, since);
    }

    fn concerns(&self, event: &Logged) -> bool {
        event.is_end()
            && event
                .job()
                .and_then(|job| self.told.get(job))
                .is_some_and(|told| event.seq() > *told)
    }
}

/// Everything that ends in the jobs that are wished for, and the jobs' own ends, until the session
/// ends.
pub(super) async fn jobs(events: EventFeed, mut wishes: mpsc::Receiver<Wish>, side: Side) {
    let Some(first) = wishes.recv().await else {
        return;
    };
    let mut interest = events.interest();
    let mut jobs = Jobs {
        seq: first.1,
        told: HashMap::new(),
    };
    let mut told = (jobs.seq, Instant::now());
    let mut wish = Some(first);
    let mut upto = 0;
    loop {
        // All that have come, before anything is read: they may have to go back together.
        while let Some(next) = wish.take().or_else(|| wishes.try_recv().ok()) {
            interest.in_job(&next.0);
            upto = upto.max(events.latest());
            jobs.follow(next);
        }
        // What is read next concerns him, or may: between these he is not woken.
        if jobs.seq >= upto {
            let quiet_up_to = events.latest();
            if interest.is_quiet() {
                jobs.seq = jobs.seq.max(quiet_up_to);
            }
            tokio::select! {
                (first, last) = interest.next() => {
                    jobs.seq = jobs.seq.max(first.saturating_sub(1));
                    upto = last;
                }
                next = wishes.recv() => match next {
                    Some(next) => wish = Some(next),
                    None => return,
                },
                () = tokio::time::sleep(MOVED_PAUSE) => {}
                () = side.closed() => return,
            }
            if jobs.seq >= upto && jobs.seq.saturating_sub(told.0) <= MOVED {
                continue;
            }
        }
        let ends = if jobs.seq < upto {
            tokio::select! {
                read = feed::ends(&events, jobs.seq, &jobs) => match read {
                    Ok(ends) => ends,
                    Err(pruned) => match side.send(feed::skip(&mut jobs.seq, pruned)).await {
                        Ok(()) => continue,
                        Err(_) => return,
                    },
                },
                () = side.closed() => return,
            }
        } else {
            Ends {
                events: Vec::new(),
                seq: jobs.seq,
            }
        };
        let mine: Vec<&Logged> = ends
            .events
            .iter()
            .filter(|event| jobs.concerns(event))
            .collect();
        let moved = ends.seq.saturating_sub(told.0) > MOVED && told.1.elapsed() > MOVED_PAUSE;
        jobs.seq = ends.seq;
        if mine.is_empty() && !moved {
            continue;
        }
        told = (ends.seq, Instant::now());
        for message in messages(&mine, ends.seq) {
            if side.send(FromMaster::Final(message)).await.is_err() {
                return;
            }
        }
    }
}

/// What is told of these events, made as it is taken. Each message says how far it reaches; the
/// last one, up to `seq`.
fn messages(mine: &[&Logged], seq: u64) -> impl Iterator<Item = TasksEnded> {
    let mut rest = Some(mine);
    std::iter::from_fn(move || {
        let events = rest?;
        let mut message = TasksEnded {
            seq: Some(seq),
            tasks: Vec::new(),
            job_done: None,
        };
        let mut bytes = 0;
        for (n, event) in events.iter().enumerate() {
            if message.tasks.len() >= BATCH || bytes >= BATCH_BYTES {
                message.seq = Some(event.seq() - 1);
                rest = events.get(n..);
                return Some(message);
            }
            if let Some(task) = event.finished() {
                bytes += task.result.as_ref().map_or(0, |result| result.get().len());
                message.tasks.push(task);
            }
            message.job_done = event.job_run().or(message.job_done);
        }
        rest = None;
        Some(message)
    })
}

/// Each of `ids` once, when it has ended or where it has already. `seq` was the last event when
/// this was asked for: what ends later is among the events after it, what ended before is final
/// when asked.
pub(super) async fn ids(handle: MasterHandle, ids: Vec<TaskId>, mut seq: u64, side: Side) {
    let mut waiting: BTreeSet<TaskId> = ids.into_iter().collect();
    let mut interest = handle.events.interest();
    waiting.iter().for_each(|id| interest.in_task(id));
    interest.mark(seq + 1, handle.events.latest());
    if ask(&handle, &mut waiting, &side).await.is_err() {
        return;
    }
    while !waiting.is_empty() {
        let (first, last) = tokio::select! {
            unseen = interest.next() => unseen,
            () = side.closed() => return,
        };
        seq = seq.max(first.saturating_sub(1));
        while seq < last && !waiting.is_empty() {
            let read = tokio::select! {
                read = feed::ends(&handle.events, seq, &waiting) => read,
                () = side.closed() => return,
            };
            let told = match read {
                Ok(ends) => {
                    seq = ends.seq;
                    tell(mine(&ends, &mut waiting), &side).await
                }
                Err(Pruned { first }) => {
                    // They may have ended in what is no longer kept.
                    seq = first.saturating_sub(1);
                    ask(&handle, &mut waiting, &side).await
                }
            };
            if told.is_err() {
                return;
            }
        }
    }
}

/// Those of `waiting` that have ended; they are waited for no longer.
fn mine(ends: &Ends, waiting: &mut BTreeSet<TaskId>) -> Vec<TaskView> {
    let is_mine = |event: &&Logged| event.task().is_some_and(|task| waiting.contains(task));
    let ended: Vec<TaskView> = ends
        .events
        .iter()
        .filter(is_mine)
        .filter_map(Logged::finished)
        .collect();
    for task in &ended {
        waiting.remove(&task.id);
    }
    ended
}

/// Tells those of `waiting` that have ended, and refuses those that nobody knows; both are waited
/// for no longer.
async fn ask(
    handle: &MasterHandle,
    waiting: &mut BTreeSet<TaskId>,
    side: &Side,
) -> Result<(), Over> {
    let questions = waiting.clone().into_iter().map(|id| async move {
        let answer = handle.ask(Query::Task { id: id.clone() }).await;
        (id, answer)
    });
    let mut answers = futures_util::stream::iter(questions).buffered(ASKED);
    let mut ended = Vec::new();
    while let Some((id, answer)) = answers.next().await {
        match answer {
            Ok(json) => {
                let Ok(task) = json.read::<TaskView>() else {
                    continue;
                };
                if task.state.is_final() {
                    waiting.remove(&id);
                    ended.push(task);
                }
            }
            Err(refusal) if refusal.code == RefusalCode::Unavailable => {}
            Err(refusal) => {
                waiting.remove(&id);
                let error = refusal.about(vec![id]);
                side.send(FromMaster::Refused(Refused {
                    reference: None,
                    error,
                }))
                .await
                .map_err(|_| Over)?;
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
    side.send(FromMaster::Final(TasksEnded {
        seq: None,
        tasks,
        job_done: None,
    }))
    .await
    .map_err(|_| Over)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn going_back_for_one_job_tells_nothing_of_another_twice() {
        let job = |name: &str| JobName::new(name).unwrap();
        let mut jobs = Jobs {
            seq: 0,
            told: HashMap::from([(job("a"), 0)]),
        };
        jobs.seq = 100;
        jobs.follow((job("b"), 40));
        jobs.follow((job("c"), 60));
        assert_eq!(
            (
                jobs.seq,
                jobs.told[&job("a")],
                jobs.told[&job("b")],
                jobs.told[&job("c")]
            ),
            (40, 100, 40, 60)
        );
        jobs.seq = 50;
        jobs.follow((job("d"), 10));
        assert_eq!(
            (
                jobs.seq,
                jobs.told[&job("a")],
                jobs.told[&job("b")],
                jobs.told[&job("c")]
            ),
            (10, 100, 50, 60)
        );
        jobs.follow((job("a"), 10));
        assert_eq!(jobs.told[&job("a")], 10, "whoever asks again is told again");
    }
}
