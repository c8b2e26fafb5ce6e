//! The writer: makes turns durable, and releases what waited for that. Commit, then speak.

use crate::engine::{Release, Turn};
use crate::events::EventFeed;
use crate::folding::Backlog;
use crate::room::{Room, TRY_EVERY};
use crate::settings::Durability;
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender};
use std::time::{Duration, Instant};
use taskmaster_store::codec;
use taskmaster_store::journal::{AppendError, Journal};
use taskmaster_store::record::Entry;

/// Records in one commit: above that a commit takes longer than its sync, and everybody waits for
/// it.
const COMMIT_RECORDS_MAX: usize = 4_096;

/// Turns that may wait for the disk. Beyond that the engine waits too, and with it, by their flow
/// control, feeders.
pub const TURNS_WAITING_MAX: usize = 64;

/// What is left over of a turn (a job of a million that is being cancelled) waits so long for each
/// turn that is not durable yet, about what a commit takes, and for each [`PACE_RECORDS`] that wait
/// to be folded: whoever comes meanwhile stands behind a few commits, not behind all of them, and
/// finds a core.
const PACE: Duration = Duration::from_millis(4);

/// See [`PACE`].
const PACE_RECORDS: usize = 25_000;

/// Steps of [`PACE`] that the fold may cost: where a crowd keeps it busy, what is left over must go
/// on.
const PACE_FOLD_MAX: usize = 4;

/// How much the engine is ahead of what is durable, and of the view. Clones share it.
#[derive(Debug, Clone)]
pub struct Behind {
    pub(crate) turns: Arc<AtomicUsize>,
    backlog: Backlog,
}

impl Behind {
    /// Of turns that are not durable none, and of records that are not folded `backlog`.
    pub fn new(backlog: Backlog) -> Behind {
        Behind {
            turns: Arc::default(),
            backlog,
        }
    }

    pub(crate) fn pace(&self) -> Duration {
        let steps =
            self.turns.load(Relaxed) + (self.backlog.records() / PACE_RECORDS).min(PACE_FOLD_MAX);
        PACE * u32::try_from(steps)
            .unwrap_or(u32::MAX)
            .min(TURNS_WAITING_MAX as u32)
    }
}

/// Makes turns durable, in order, several at a time, and releases what waited for them.
pub struct Writer<'a> {
    /// The turns as they end.
    pub turns: &'a Receiver<Turn>,
    /// Where they become durable.
    pub journal: &'a mut dyn Journal,
    /// When they are taken as durable.
    pub durability: Durability,
    /// Who is told of their events.
    pub events: &'a EventFeed,
    /// Who folds them.
    pub folds: &'a Sender<Arc<Entry>>,
    /// Who is told that the disk is full.
    pub room: &'a Room,
    /// Turns that ended while a commit waited for room.
    pub held: VecDeque<Turn>,
    /// How many there are that are not durable yet, and what waits to be folded.
    pub behind: &'a Behind,
}

impl Writer<'_> {
    /// Ends when the engine does, or with the error after which nothing is known of the disk.
    pub fn run(&mut self) -> Result<(), AppendError> {
        let mut unsynced = false;
        loop {
            let next = match self.durability {
                _ if !self.held.is_empty() => self.held.pop_front(),
                Durability::Interval(every) if unsynced => match self.turns.recv_timeout(every) {
                    Err(RecvTimeoutError::Timeout) => {
                        self.journal.sync()?;
                        unsynced = false;
                        continue;
                    }
                    received => received.ok(),
                },
                _ => self.turns.recv().ok(),
            };
            let Some(first) = next else {
                return self.journal.sync();
            };
            let mut together = self.together(first);
            if let Some(entry) = pack(&mut together) {
                if !self.append(&codec::encode(entry.as_ref()), &mut together)? {
                    return self.journal.sync();
                }
                let records = entry.records.len();
                settle(
                    entry,
                    self.journal,
                    self.durability,
                    self.events,
                    self.folds,
                )?;
                unsynced = true;
                self.behind.turns.fetch_sub(together.len(), Relaxed);
                let passes = together
                    .iter_mut()
                    .flat_map(|turn| std::mem::take(&mut turn.passes))
                    .collect();
                release(together);
                self.behind.backlog.add(records, passes);
                continue;
            }
            self.behind.turns.fetch_sub(together.len(), Relaxed);
            release(together);
        }
    }

    /// A turn and those that have ended since, as many as make one commit.
    fn together(&mut self, first: Turn) -> Vec<Turn> {
        let mut records = first.records.len();
        let mut together = vec![first];
        while records < COMMIT_RECORDS_MAX {
            let Some(turn) = self.held.pop_front().or_else(|| self.turns.try_recv().ok()) else {
                break;
            };
            records += turn.records.len();
            together.push(turn);
        }
        together
    }

    /// Appends, however long that takes on a full disk. False: the master ended meanwhile. Nobody
    /// was told that these changes are safe; runners and feeders bring them again.
    fn append(&mut self, entry: &[u8], turns: &mut [Turn]) -> Result<bool, AppendError> {
        loop {
            match self.journal.append(self.journal.end() + 1, entry) {
                Err(AppendError::Unavailable(why)) => {
                    // Whoever comes now is to be told so at once.
                    turns
                        .iter_mut()
                        .chain(&mut self.held)
                        .for_each(|turn| turn.passes.clear());
                    self.room.written(Some(why));
                }
                appended => {
                    self.room.written(None);
                    return appended.map(|()| true);
                }
            }
            if !self.wait() {
                tracing::warn!(
                    "the master ends on a full disk: what was not acknowledged is not kept"
                );
                return Ok(false);
            }
        }
    }

    /// Takes in what comes until it is time to try again: the engine must never wait for a full
    /// disk. False: it ended.
    fn wait(&mut self) -> bool {
        let until = Instant::now() + TRY_EVERY;
        loop {
            match self
                .turns
                .recv_timeout(until.saturating_duration_since(Instant::now()))
            {
                Ok(mut turn) => {
                    turn.passes.clear();
                    self.held.push_back(turn);
                }
                Err(RecvTimeoutError::Timeout) => return true,
                Err(RecvTimeoutError::Disconnected) => return false,
            }
        }
    }
}

/// The records of turns as one commit; `None`: they have none.
fn pack(turns: &mut [Turn]) -> Option<Arc<Entry>> {
    let first_seq = turns.first()?.first_seq;
    // A restart asks when the last was known: what is due is so long after this, however long the
    // first was held up.
    let time = turns.last()?.time;
    let records: Vec<_> = turns
        .iter_mut()
        .flat_map(|turn| std::mem::take(&mut turn.records))
        .collect();
    (!records.is_empty()).then(|| {
        Arc::new(Entry {
            first_seq,
            time,
            records,
        })
    })
}

/// What was appended is made durable and told.
fn settle(
    entry: Arc<Entry>,
    journal: &mut dyn Journal,
    durability: Durability,
    events: &EventFeed,
    folds: &Sender<Arc<Entry>>,
) -> Result<(), AppendError> {
    if durability == Durability::Sync {
        journal.sync()?;
    }
    events.publish(&entry);
    // The fold ends after this thread.
    let _ = folds.send(entry);
    Ok(())
}

/// Makes a master's first turn durable, which raises the epoch, before anything can be sent in its
/// name.
pub fn commit_first(
    mut turn: Turn,
    journal: &mut dyn Journal,
    events: &EventFeed,
    folds: &Sender<Arc<Entry>>,
) -> Result<(), AppendError> {
    let Some(entry) = pack(std::slice::from_mut(&mut turn)) else {
        return Ok(());
    };
    journal.append(journal.end() + 1, &codec::encode(entry.as_ref()))?;
    settle(entry, journal, Durability::Sync, events, folds)
}

/// Says what waited. Consecutive acknowledgements and answers keep their order for each connection.
pub fn release(turns: Vec<Turn>) {
    for release in turns.into_iter().flat_map(|turn| turn.after) {
        match release {
            Release::Say(outbox, message) => drop(outbox.send(message)),
            Release::Reply(reply, answer) => drop(reply.send(answer)),
            Release::Pruned(reply, tasks) => drop(reply.send(tasks)),
        }
    }
}
