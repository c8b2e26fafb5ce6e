//! Events for watchers. Durable events have a seq, and are read from memory or from the journal. Live
//! events are not stored, and go to whoever watches at the time.

mod durable;
mod live;
mod recent;

pub use durable::{DurableEvent, durable_events, ended_view};
pub use live::{LiveEvent, LiveEvents};
pub use recent::{CommitEnds, EndInterest};

use crate::durable_commit::DurableCommit;
use crate::interests::{Interest, Interests};
use crate::partials::Partials;
use crate::store_damage::StoreDamage;
use live::LiveBytes;
use recent::RecentCommits;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use taskmaster_protocol::{EventView, JobName};
use taskmaster_store::journal;
use taskmaster_store::kv::SharedStore;
use taskmaster_store::record;
use tokio::sync::{broadcast, watch};

/// Live events by which a watcher of all jobs may lag before it misses some.
const LIVE_EVENTS_MAX: usize = 4_096;

/// Live events by which a watcher of one job may lag before it misses some.
const LIVE_OF_JOB_MAX: usize = 256;

/// Durable events that one read returns at most.
const READ_EVENTS_MAX: usize = 1_000;

/// Bytes of commits that one read from the journal takes into memory, about. A commit is read whole.
const READ_BYTES_MAX: usize = 8 << 20;

/// Some of the events asked for are no longer kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EventsPruned {
    /// The seq of the oldest event that is kept.
    pub first: u64,
}

/// The ends that [`EventFeed::ends`] found.
#[derive(Debug)]
pub struct EndEvents {
    /// The ends in every commit that concerns the follower. Some of these ends may not concern it.
    pub events: Vec<DurableEvent>,
    /// The seq up to which everything was looked at.
    pub seq: u64,
}

type LiveChannel = broadcast::Sender<LiveEvent>;

/// The events of a master: recent durable events in memory, older ones in the journal, and the
/// channels of live events. Clones share it.
#[derive(Clone)]
pub struct EventFeed {
    recent: Arc<Mutex<RecentCommits>>,
    /// The seq of the newest durable event.
    latest: watch::Sender<u64>,
    /// Carries the live events of all jobs.
    live: LiveChannel,
    /// Carries the live events of each job that somebody watches. Without these channels, each event
    /// of any job would go to a thousand watchers of one job each.
    live_by_job: Arc<Mutex<HashMap<JobName, LiveChannel>>>,
    /// The bytes of the live events that some watcher has not taken yet.
    live_bytes: LiveBytes,
    /// Has the journal with older events.
    store: SharedStore,
    interests: Interests,
    partials: Partials,
    /// Hears of damage in the journal.
    damage: StoreDamage,
}

impl EventFeed {
    /// A new follower, who waits for nothing yet.
    pub fn interest(&self) -> Interest {
        self.interests.new_follower()
    }

    /// The partial results of open tasks.
    pub fn partials(&self) -> &Partials {
        &self.partials
    }

    /// A feed whose newest durable event is `latest`. Older events are read from `store`.
    pub fn new(latest: u64, store: SharedStore) -> EventFeed {
        EventFeed {
            recent: Arc::default(),
            latest: watch::Sender::new(latest),
            live: broadcast::Sender::new(LIVE_EVENTS_MAX),
            live_by_job: Arc::default(),
            live_bytes: LiveBytes::default(),
            store,
            interests: Interests::default(),
            partials: Partials::default(),
            damage: StoreDamage::default(),
        }
    }

    /// This feed, which tells `damage` of what it cannot read from the journal.
    pub fn reporting_damage_to(self, damage: StoreDamage) -> EventFeed {
        EventFeed { damage, ..self }
    }

    fn recent(&self) -> MutexGuard<'_, RecentCommits> {
        self.recent.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The seq of the newest durable event.
    pub fn latest(&self) -> u64 {
        *self.latest.borrow()
    }

    /// Publishes the events of a commit, which is durable.
    pub fn publish(&self, commit: &DurableCommit) {
        let entry = &commit.entry;
        let events = record::events_of(&entry.records);
        if events == 0 {
            return;
        }
        let last = entry.first_seq + events - 1;
        self.recent().push(commit, last);
        self.interests.wake(entry, last);
        self.latest
            .send_if_modified(|latest| std::mem::replace(latest, last) != last);
    }

    /// Whether anybody watches live events. If not, the engine need not make any.
    pub fn is_watched(&self) -> bool {
        self.live.receiver_count() > 0 || !self.live_by_job().is_empty()
    }

    fn live_by_job(&self) -> MutexGuard<'_, HashMap<JobName, LiveChannel>> {
        self.live_by_job
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Sends a live event to those who watch now.
    pub fn show(&self, event: EventView) {
        let job = event.job.clone();
        let event = self.live_bytes.take(event);
        if let Some(job) = &job {
            let mut channels = self.live_by_job();
            let is_unwatched = channels
                .get(job)
                .is_some_and(|channel| channel.send(event.clone()).is_err());
            if is_unwatched {
                channels.remove(job);
            }
        }
        let _ = self.live.send(event);
    }

    /// Live events of one job from now on.
    pub fn live_of(&self, job: &JobName) -> LiveEvents {
        let mut channels = self.live_by_job();
        channels.retain(|_, channel| channel.receiver_count() > 0);
        channels
            .entry(job.clone())
            .or_insert_with(|| broadcast::Sender::new(LIVE_OF_JOB_MAX))
            .subscribe()
    }

    /// Live events of all jobs from now on.
    pub fn live(&self) -> LiveEvents {
        self.live.subscribe()
    }

    /// Waits until there are durable events after `seq`, and returns the first of them in order: at
    /// least one, at most a thousand or so.
    pub async fn after(&self, seq: u64) -> Result<Vec<DurableEvent>, EventsPruned> {
        self.wait_for_event_after(seq).await;
        if let Some(events) = self.in_memory(seq) {
            return Ok(events);
        }
        let store = self.store.clone();
        let last = self.latest();
        #[expect(
            clippy::disallowed_methods,
            reason = "a watcher that lags far reads the journal, on a thread that may wait for it"
        )]
        let read = tokio::task::spawn_blocking(move || from_journal(&store, seq, last)).await;
        match read {
            Ok(Ok(result)) => result,
            failed => {
                tracing::error!(?failed, "events cannot be read from the journal");
                if let Ok(Err(error)) = &failed {
                    self.damage.record(error);
                }
                let first = self.recent().first().unwrap_or(seq + 1);
                Err(EventsPruned { first })
            }
        }
    }

    async fn wait_for_event_after(&self, seq: u64) {
        let mut latest = self.latest.subscribe();
        // An error means that the master stops. It also drops the futures that wait here.
        if latest.wait_for(|latest| *latest > seq).await.is_err() {
            std::future::pending::<()>().await;
        }
    }

    /// Waits until there are durable events after `seq`, and returns the ends among them that may
    /// concern `of`, and how far it has looked. A commit that does not concern the follower is
    /// skipped with one look, because there may be a thousand followers.
    pub async fn ends(&self, seq: u64, of: &impl EndInterest) -> Result<EndEvents, EventsPruned> {
        self.wait_for_event_after(seq).await;
        let commits = self.recent().commits_from(seq + 1);
        if commits.is_empty() {
            let events = self.after(seq).await?;
            return Ok(EndEvents {
                seq: events.last().map_or(seq, DurableEvent::seq),
                events,
            });
        }
        let mut found = EndEvents {
            events: Vec::new(),
            seq,
        };
        for commit in commits {
            if of.any_of(commit.ends()) {
                let left = READ_EVENTS_MAX - found.events.len();
                let ends = durable_events(&commit.entry)
                    .filter(|event| event.seq() > seq && event.is_end());
                found.events.extend(ends.take(left));
                if found.events.len() == READ_EVENTS_MAX {
                    found.seq = found.events.last().map_or(seq, DurableEvent::seq);
                    return Ok(found);
                }
            }
            found.seq = commit.last;
        }
        Ok(found)
    }

    /// Durable events after `seq`, at most a thousand or so, read on the caller's thread without
    /// waiting for any. For tests.
    pub fn read_after(&self, seq: u64) -> Result<Vec<DurableEvent>, EventsPruned> {
        let last = self.latest();
        if last <= seq {
            return Ok(Vec::new());
        }
        let read =
            || from_journal(&self.store, seq, last).unwrap_or(Err(EventsPruned { first: seq + 1 }));
        self.in_memory(seq).map_or_else(read, Ok)
    }

    /// Events after `seq`, as many as one read returns. `None` if memory does not have them.
    fn in_memory(&self, seq: u64) -> Option<Vec<DurableEvent>> {
        let entries = self.recent().from(seq + 1)?;
        Some(
            entries
                .iter()
                .flat_map(durable_events)
                .filter(|event| event.seq() > seq)
                .take(READ_EVENTS_MAX)
                .collect(),
        )
    }
}

/// Events after `seq` up to `last` from the journal. The journal may have later commits, which are
/// written but not synced yet, so nobody may see their events.
fn from_journal(
    store: &SharedStore,
    seq: u64,
    last: u64,
) -> Result<Result<Vec<DurableEvent>, EventsPruned>, taskmaster_store::kv::StoreError> {
    let Some(first) = journal::first(store)? else {
        return Ok(Err(EventsPruned { first: seq + 1 }));
    };
    let start = journal::commit_at(store, seq + 1)?;
    let mut events: Vec<DurableEvent> = Vec::new();
    let mut bytes = 0;
    for commit in start.. {
        let Some(encoded) = journal::read(store, commit)? else {
            break;
        };
        bytes += encoded.len();
        let entry = journal::decode(commit, &encoded)?;
        if commit == first && entry.first_seq > seq + 1 {
            return Ok(Err(EventsPruned {
                first: entry.first_seq,
            }));
        }
        let entry = Arc::new(entry);
        events.extend(
            durable_events(&entry).filter(|event| event.seq() > seq && event.seq() <= last),
        );
        let is_complete = events.last().is_some_and(|event| event.seq() >= last);
        let is_enough = events.len() >= READ_EVENTS_MAX || bytes >= READ_BYTES_MAX;
        if is_complete || is_enough && !events.is_empty() {
            break;
        }
    }
    Ok(if events.is_empty() {
        Err(EventsPruned { first: seq + 1 })
    } else {
        Ok(events)
    })
}

#[cfg(test)]
mod tests {
    use super::recent::{RECENT_BYTES_MAX, RECENT_EVENTS_MAX};
    use super::*;
    use std::collections::VecDeque;
    use taskmaster_protocol::Wall;
    use taskmaster_store::kv::memory::MemoryStore;
    use taskmaster_store::record::{JournalEntry, Record};

    fn entry(first_seq: u64, events: u64) -> Arc<JournalEntry> {
        let records = (0..events)
            .map(|n| Record::RunnerJoined {
                name: n.to_string(),
            })
            .collect();
        Arc::new(JournalEntry {
            first_seq,
            time: Wall(0),
            records,
        })
    }

    fn publish(feed: &EventFeed, entry: &Arc<JournalEntry>) {
        feed.publish(&DurableCommit::of(entry.clone()));
    }

    #[tokio::test]
    async fn large_events_are_kept_in_memory_up_to_a_number_of_bytes() {
        let feed = EventFeed::new(0, Arc::new(MemoryStore::default()));
        for seq in 1..=200 {
            let name = "x".repeat(1 << 20);
            let records = vec![Record::RunnerJoined { name }];
            let large = JournalEntry {
                first_seq: seq,
                time: Wall(0),
                records,
            };
            publish(&feed, &Arc::new(large));
            let kept = seq + 1 - feed.recent().first().unwrap();
            assert!(kept << 20 <= RECENT_BYTES_MAX as u64, "{kept} MiB are kept");
        }
        let events = feed.after(150).await.unwrap();
        assert_eq!(events.len(), 50, "the last ones are there");
        // One that is too large by itself is there until the next one comes.
        let name = "x".repeat(2 * RECENT_BYTES_MAX);
        let records = vec![Record::RunnerJoined { name }];
        let largest = JournalEntry {
            first_seq: 201,
            time: Wall(0),
            records,
        };
        publish(&feed, &Arc::new(largest));
        assert_eq!(feed.after(200).await.unwrap().len(), 1);
        publish(&feed, &entry(202, 1));
        assert_eq!(feed.recent().first(), Some(202));
    }

    #[tokio::test]
    async fn what_waits_to_be_folded_is_read_in_memory_and_what_is_folded_is_not_kept() {
        // The journal behind it is empty: whatever is read comes from memory.
        let feed = EventFeed::new(0, Arc::new(MemoryStore::default()));
        let mut waiting: VecDeque<Arc<JournalEntry>> = VecDeque::new();
        for commit in 0..100 {
            waiting.push_back(entry(commit * 1_000 + 1, 1_000));
            publish(&feed, &waiting[commit as usize]);
        }
        for seq in [0, 1, 999, 1_000, 49_999, 99_500] {
            let events = feed.after(seq).await.unwrap();
            assert_eq!(events.first().map(DurableEvent::seq), Some(seq + 1));
            let dense = events
                .windows(2)
                .all(|pair| pair[0].seq() + 1 == pair[1].seq());
            assert!(
                dense && events.len() as u64 == (100_000 - seq).min(READ_EVENTS_MAX as u64),
                "after {seq}"
            );
        }
        waiting.drain(..50);
        assert!(
            feed.after(10_000).await.is_err(),
            "it was folded, and memory holds it still"
        );
        assert!(feed.after(60_000).await.is_ok());
        publish(&feed, &entry(100_001, 1));
        waiting.clear();
        assert!(
            feed.after(100_001 - RECENT_EVENTS_MAX).await.is_ok(),
            "the last events are always there"
        );
    }
}
