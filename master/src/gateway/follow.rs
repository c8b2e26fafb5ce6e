//! `task:follow`: tells a feeder of tasks that end, by job from a seq on, or by ids each once.

use super::feed;
use crate::events::{EventFeed, Logged, Pruned};
use crate::inbox::MasterHandle;
use futures_util::StreamExt;
use std::collections::BTreeSet;
use std::time::Duration;
use taskmaster_protocol::message::{Final, Query, Refused};
use taskmaster_protocol::{EventKind, FromMaster, JobName, RefusalCode, TaskId, TaskView};
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

/// Everything that ends in `job` after `seq`, and the job's own end, until the session ends.
pub(super) async fn job(events: EventFeed, job: JobName, mut seq: u64, side: Side) {
    let mut told = (seq, Instant::now());
    loop {
        let logged = tokio::select! {
            read = feed::after(&events, seq) => match read {
                Ok(logged) => logged,
                Err(pruned) => match side.send(feed::skip(&mut seq, pruned)).await {
                    Ok(()) => continue,
                    Err(_) => return,
                },
            },
            () = side.closed() => return,
        };
        seq = logged.last().map_or(seq, Logged::seq);
        let of_job = || logged.iter().filter(|event| event.job() == Some(&job));
        let tasks: Vec<TaskView> = of_job().filter_map(Logged::finished).collect();
        let job_done =
            of_job().filter(|event| event.kind() == EventKind::JobDone).filter_map(Logged::job_run).next_back();
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
