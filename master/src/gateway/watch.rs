//! `watch`: durable events by seq, from wherever the watcher wants, and live events as they come.

use super::feed;
use std::collections::VecDeque;
use taskmaster_engine::events::{DurableEvent, EventFeed, EventsPruned, LiveEvent};
use taskmaster_engine::interests::Interest;
use taskmaster_protocol::message::{Gap, Watch};
use taskmaster_protocol::{EventFilter, EventView, FromMaster};
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::mpsc;

/// Events in one message, and about how many bytes. A message ends with the event that reaches them.
const MESSAGE_EVENTS: usize = 500;
const MESSAGE_BYTES: usize = 256 << 10;

/// Events that wait for a slow watcher. Beyond this number live events are dropped and counted, and
/// durable events are left where they are and read later.
const WAITING_MAX: usize = 2_000;

/// Bytes of events that wait for a slow watcher; beyond them it is the same.
const WAITING_BYTES_MAX: usize = 8 << 20;

/// One watcher and the events that it has not been sent yet.
struct Watcher {
    watch: Watch,
    /// Durable events up to this seq have been read.
    seq: u64,
    waiting: VecDeque<EventView>,
    waiting_bytes: usize,
    /// Live events dropped since the watcher was last told of a gap.
    missed: u64,
    /// What the watcher is to be told of durable events that are no longer kept. No others are read
    /// until then.
    pruned: Option<FromMaster>,
}

/// Durable events that were read, and the seq up to which reading has come.
struct DurableEvents {
    events: Vec<DurableEvent>,
    seq: u64,
}

/// Sends events to `side` until the session ends. `latest` is the seq of the last event: the watch
/// begins behind it where it does not say a seq itself.
pub(super) async fn run(
    events: EventFeed,
    watch: Watch,
    latest: u64,
    side: mpsc::Sender<FromMaster>,
) {
    // A seq beyond the last event is of another journal, and no event of ours would come after it.
    let seq = watch.since.map_or(latest, |since| since.min(latest));
    let job = watch.filter.job.clone();
    let mut watcher = Watcher {
        watch,
        seq,
        waiting: VecDeque::new(),
        waiting_bytes: 0,
        missed: 0,
        pruned: None,
    };
    let mut live = match &job {
        Some(job) => events.live_of(job),
        None => events.live(),
    };
    let mut has_live_ended = false;
    let interest = job.map(|job| {
        let mut interest = events.interest();
        interest.watch_job(&job);
        interest.mark(seq + 1, events.latest());
        interest
    });
    let mut durable = Box::pin(next(&events, interest.as_ref(), seq));
    loop {
        tokio::select! {
            // Events that wait are sent first, and then the gap behind them.
            permit = side.reserve(), if watcher.has_something() => match permit {
                Ok(permit) => permit.send(watcher.next_message()),
                Err(_) => return,
            },
            event = live.recv(), if !has_live_ended => match event {
                Ok(LiveEvent::Event(event)) => watcher.take_live(&event),
                Ok(LiveEvent::LeftOut) => watcher.missed += 1,
                Err(RecvError::Lagged(count)) => watcher.missed += count,
                Err(RecvError::Closed) => has_live_ended = true,
            },
            read = &mut durable, if watcher.takes_durable() => {
                match read {
                    Ok(read) => {
                        watcher.take_durable(&read);
                        if let Some(interest) = interest.as_ref().filter(|_| watcher.seq < read.seq) {
                            interest.mark(watcher.seq + 1, read.seq);
                        }
                    }
                    Err(pruned) => {
                        watcher.pruned = Some(feed::skip_pruned(&mut watcher.seq, pruned));
                    }
                }
                durable.set(next(&events, interest.as_ref(), watcher.seq));
            },
            () = side.closed() => return,
        }
    }
}

/// Waits for durable events after `seq`. A watcher of one job is woken only when something happens
/// in that job, and events before that are skipped without a look.
async fn next(
    events: &EventFeed,
    interest: Option<&Interest>,
    seq: u64,
) -> Result<DurableEvents, EventsPruned> {
    let Some(interest) = interest else {
        return read_after(events, seq).await;
    };
    let (first, last) = interest.next().await;
    let from = seq.max(first.saturating_sub(1));
    if from >= last {
        return Ok(DurableEvents {
            events: Vec::new(),
            seq: from,
        });
    }
    let read = read_after(events, from).await;
    match &read {
        Ok(read) => interest.mark(read.seq + 1, last),
        Err(pruned) => interest.mark(pruned.first, last),
    }
    read
}

async fn read_after(events: &EventFeed, seq: u64) -> Result<DurableEvents, EventsPruned> {
    let events = feed::next_events(events, seq).await?;
    let seq = events.last().map_or(seq, DurableEvent::seq);
    Ok(DurableEvents { events, seq })
}

impl Watcher {
    fn has_something(&self) -> bool {
        !self.waiting.is_empty() || self.pruned.is_some() || self.missed > 0
    }

    fn next_message(&mut self) -> FromMaster {
        if let Some(gap) = self.pruned.take_if(|_| self.waiting.is_empty()) {
            return gap;
        }
        if self.waiting.is_empty() {
            return FromMaster::Gap(Gap {
                missed: std::mem::take(&mut self.missed),
                resume: self.seq + 1,
                reason: "slow".into(),
            });
        }
        let mut events = Vec::new();
        let mut bytes = 0;
        while events.len() < MESSAGE_EVENTS
            && bytes < MESSAGE_BYTES
            && let Some(event) = self.waiting.pop_front()
        {
            bytes += event.bytes();
            events.push(event);
        }
        self.waiting_bytes -= bytes;
        FromMaster::Events(events)
    }

    /// Whether at most one part of so many equal parts of what may wait is taken.
    fn has_space(&self, parts: usize) -> bool {
        self.waiting.len() < WAITING_MAX / parts && self.waiting_bytes < WAITING_BYTES_MAX / parts
    }

    fn push(&mut self, event: EventView) {
        self.waiting_bytes += event.bytes();
        self.waiting.push_back(event);
    }

    /// Once a live event is dropped, all are dropped until the watcher is told of the gap: the gap
    /// stands where they would have stood.
    fn take_live(&mut self, event: &EventView) {
        if !self.watch.filter.matches(event) {
            return;
        }
        if self.missed > 0 || !self.has_space(1) {
            self.missed += 1;
        } else {
            self.push(event.clone());
        }
    }

    /// Whether durable events are to be read. There is space for a part of what one read gives.
    fn takes_durable(&self) -> bool {
        self.pruned.is_none() && self.has_space(2)
    }

    /// Takes events that were read, until there is no space for more: those are read again.
    fn take_durable(&mut self, read: &DurableEvents) {
        for event in &read.events {
            if !self.has_space(1) {
                return;
            }
            self.seq = event.seq();
            if self.may_match(event) {
                let view = event.view();
                if self.watch.filter.matches(&view) {
                    self.push(view);
                }
            }
        }
        self.seq = read.seq;
    }

    /// Whether the filter may take an event. To make a view of the event costs much more than this
    /// look.
    fn may_match(&self, event: &DurableEvent) -> bool {
        let EventFilter { job, task, .. } = &self.watch.filter;
        self.watch.filter.wants(event.kind())
            && (job.is_none() || event.job() == job.as_ref())
            && (task.is_none() || event.task() == task.as_ref())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::modules::scratch::fake_engine;
    use std::sync::Arc;
    use taskmaster_engine::events::durable_events;
    use taskmaster_protocol::{EventKind, Json, Wall};
    use taskmaster_store::record::{JournalEntry, Record};

    #[tokio::test]
    async fn a_slow_watcher_is_told_how_much_it_missed() {
        let (handle, _inputs) = fake_engine();
        let (side, mut read) = mpsc::channel(1);
        let watching = tokio::spawn(run(handle.events.clone(), Watch::default(), 0, side));
        let event = EventView {
            seq: None,
            time: Wall(0),
            event: EventKind::TaskLog,
            task: None,
            module: None,
            job: None,
            runner: None,
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
        let mut seen = 0;
        let mut missed = 0;
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

    #[tokio::test]
    async fn large_events_travel_a_few_at_a_time_and_wait_within_a_bound() {
        let (handle, _inputs) = fake_engine();
        let (side, mut read) = mpsc::channel(1);
        let watching = tokio::spawn(run(handle.events.clone(), Watch::default(), 0, side));
        while !handle.events.is_watched() {
            tokio::task::yield_now().await;
        }
        let event = EventView {
            seq: None,
            time: Wall(0),
            event: EventKind::TaskPartial,
            task: None,
            module: None,
            job: None,
            runner: None,
            data: Json::of(&"x".repeat(100 << 10)),
        };
        let all = 300;
        for _ in 0..all {
            handle.events.show(event.clone());
            tokio::task::yield_now().await;
        }
        let mut seen = 0;
        let mut missed = 0;
        while seen + missed < all {
            match read.recv().await.unwrap() {
                FromMaster::Events(events) => {
                    assert!(events.len() <= 3, "{} in one message", events.len());
                    seen += events.len() as u64;
                }
                FromMaster::Gap(gap) => missed += gap.missed,
                other => panic!("{other:?}"),
            }
        }
        assert!(missed > 0, "30 MB waited for a watcher who did not read");
        watching.abort();
    }

    #[test]
    fn large_durable_events_wait_within_a_bound_and_the_others_are_read_again() {
        let all = 1_000;
        let records = (0..all)
            .map(|no| Record::RunnerJoined {
                name: format!("{no}-{}", "x".repeat(64 << 10)),
            })
            .collect();
        let entry = Arc::new(JournalEntry {
            first_seq: 1,
            time: Wall(0),
            records,
        });
        let mut watcher = Watcher {
            watch: Watch::default(),
            seq: 0,
            waiting: VecDeque::new(),
            waiting_bytes: 0,
            missed: 0,
            pruned: None,
        };
        let mut seen = Vec::new();
        while watcher.seq < all {
            let unread = |event: &DurableEvent| event.seq() > watcher.seq;
            let read = DurableEvents {
                events: durable_events(&entry).filter(unread).collect(),
                seq: all,
            };
            watcher.take_durable(&read);
            assert!(watcher.waiting_bytes < WAITING_BYTES_MAX + (65 << 10));
            while let FromMaster::Events(events) = watcher.next_message() {
                seen.extend(events.iter().filter_map(|event| event.seq));
            }
        }
        assert!(seen.into_iter().eq(1..=all), "each came once, in order");
    }
}
