//! `watch`: durable events by seq, from wherever the watcher wants, and live ones as they come.

use super::feed;
use std::sync::Arc;
use taskmaster_engine::events::{EventFeed, Logged, Pruned};
use taskmaster_engine::interests::Interest;
use taskmaster_protocol::message::{Gap, Watch};
use taskmaster_protocol::{EventFilter, EventView, FromMaster};
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::mpsc;

/// Events in one message.
const BATCH: usize = 500;

/// Events that wait for a slow watcher. Beyond it live ones are dropped and counted, durable ones
/// are left where they are and read later.
const WAITING_MAX: usize = 2_000;

/// One watcher: what it has not been sent yet.
struct Watcher {
    watch: Watch,
    /// Up to here durable events were read.
    seq: u64,
    waiting: std::collections::VecDeque<EventView>,
    /// Live events dropped since the last gap was told.
    missed: u64,
}

/// Sends events to `side` until the session ends. `seq`: where to begin if the watch does not say.
pub(super) async fn run(events: EventFeed, watch: Watch, seq: u64, side: mpsc::Sender<FromMaster>) {
    // A seq beyond the end is from another journal: nothing of ours would ever be after it.
    let seq = watch.since.map_or(seq, |since| since.min(seq));
    let mut watcher = Watcher {
        watch,
        seq,
        waiting: Default::default(),
        missed: 0,
    };
    let job = watcher.watch.filter.job.clone();
    let mut live = job
        .as_ref()
        .map_or_else(|| events.live(), |job| events.live_of(job));
    let mut live_ended = false;
    let interest = job.map(|job| {
        let mut interest = events.interest();
        interest.in_all_of(&job);
        interest.mark(watcher.seq + 1, events.latest());
        interest
    });
    let mut durable = Box::pin(next(&events, interest.as_ref(), watcher.seq));
    loop {
        tokio::select! {
            // Room for a message: what waits goes first, then what was missed after it.
            permit = side.reserve(), if watcher.has_something() => match permit {
                Ok(permit) => permit.send(watcher.next()),
                Err(_) => return,
            },
            event = live.recv(), if !live_ended => match event {
                Ok(event) => watcher.hear(&event),
                Err(RecvError::Lagged(count)) => watcher.missed += count,
                Err(RecvError::Closed) => live_ended = true,
            },
            read = &mut durable, if watcher.waiting.len() < WAITING_MAX / 2 => {
                match read {
                    Ok((logged, seq)) => {
                        watcher.seq = seq;
                        logged.iter().for_each(|event| watcher.take(event));
                    }
                    Err(pruned) => if side.send(feed::skip(&mut watcher.seq, pruned)).await.is_err() {
                        return;
                    },
                }
                durable.set(next(&events, interest.as_ref(), watcher.seq));
            },
            () = side.closed() => return,
        }
    }
}

/// Durable events after `seq`, and up to where. Who watches one job is woken when something happens
/// in it, and passes over what does not concern it without a look.
async fn next(
    events: &EventFeed,
    interest: Option<&Interest>,
    seq: u64,
) -> Result<(Vec<Logged>, u64), Pruned> {
    let Some(interest) = interest else {
        let logged = feed::after(events, seq).await?;
        let last = logged.last().map_or(seq, Logged::seq);
        return Ok((logged, last));
    };
    let (first, last) = interest.next().await;
    let from = seq.max(first.saturating_sub(1));
    if from >= last {
        return Ok((Vec::new(), from));
    }
    match feed::after(events, from).await {
        Ok(logged) => {
            let read = logged.last().map_or(from, Logged::seq);
            interest.mark(read + 1, last);
            Ok((logged, read))
        }
        Err(pruned) => {
            interest.mark(pruned.first, last);
            Err(pruned)
        }
    }
}

impl Watcher {
    fn has_something(&self) -> bool {
        !self.waiting.is_empty() || self.missed > 0
    }

    fn next(&mut self) -> FromMaster {
        if self.waiting.is_empty() {
            let missed = std::mem::take(&mut self.missed);
            return FromMaster::Gap(Gap {
                missed,
                resume: self.seq + 1,
                reason: "slow".into(),
            });
        }
        let count = self.waiting.len().min(BATCH);
        FromMaster::Events(self.waiting.drain(..count).collect())
    }

    /// A live event. Once one was dropped, all are until the gap is told: it stands where they
    /// would have stood.
    fn hear(&mut self, event: &Arc<EventView>) {
        if !self.watch.filter.matches(event) {
            return;
        }
        if self.missed > 0 || self.waiting.len() >= WAITING_MAX {
            self.missed += 1;
        } else {
            self.waiting.push_back(EventView::clone(event));
        }
    }

    fn take(&mut self, event: &Logged) {
        let EventFilter { job, task, .. } = &self.watch.filter;
        // To make a view of it costs much more than to look at it.
        let may = self.watch.filter.wants(event.kind())
            && (job.is_none() || event.job() == job.as_ref())
            && (task.is_none() || event.task() == task.as_ref());
        if may {
            self.waiting
                .extend(Some(event.view()).filter(|event| self.watch.filter.matches(event)));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::modules::scratch::fake_engine;
    use taskmaster_protocol::{EventKind, Json, Wall};

    #[tokio::test]
    async fn a_slow_watcher_is_told_how_much_it_missed() {
        let (handle, _inputs) = fake_engine();
        let (side, mut read) = mpsc::channel(1);
        let watching = tokio::spawn(run(handle.events.clone(), Watch::default(), 0, side));
        let (task, module, job, runner) = (None, None, None, None);
        let event = EventKind::TaskLog;
        let event = EventView {
            seq: None,
            time: Wall(0),
            event,
            task,
            module,
            job,
            runner,
            data: Json::null(),
        };
        let all = 10_000;
        // The task must have begun to listen.
        while !handle.events.is_watched() {
            tokio::task::yield_now().await;
        }
        for _ in 0..all {
            handle.events.show(event.clone());
            tokio::task::yield_now().await;
        }
        let (mut seen, mut missed) = (0, 0);
        while seen + missed < all {
            match read.recv().await.unwrap() {
                FromMaster::Events(events) => seen += events.len() as u64,
                FromMaster::Gap(gap) => {
                    assert_eq!((gap.reason.as_str(), gap.resume), ("slow", 1));
                    missed += gap.missed;
                }
                other => panic!("{other:?}"),
            }
        }
        assert_eq!(seen + missed, all);
        assert!(
            missed > 0 && seen >= WAITING_MAX as u64,
            "{seen} seen, {missed} missed"
        );
        watching.abort();
    }
}
