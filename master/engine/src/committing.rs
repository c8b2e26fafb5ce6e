//! The commit writer. It makes turns durable in order, and only then sends what waited for that.

use crate::clock;
use crate::disk_monitor::{DiskMonitor, TRY_EVERY};
use crate::durable_commit::DurableCommit;
use crate::engine::{DeferredEffect, Turn};
use crate::events::EventFeed;
use crate::folding::Backlog;
use crate::inbox::AdmissionPermit;
use crate::settings::Durability;
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender};
use std::time::Duration;
use taskmaster_store::codec;
use taskmaster_store::journal::{AppendError, Journal};
use taskmaster_store::record::JournalEntry;

/// Records in one commit, about. A larger commit would take longer to write than to sync, and
/// every client would wait for it.
const COMMIT_RECORDS_MAX: usize = 4_096;

/// Turns that may wait for the writer. When more have ended, the engine waits too, and flow control
/// makes feeders wait for the engine.
pub const TURNS_WAITING_MAX: usize = 64;

/// Pause before the engine continues a long job (e.g. cancelling a million tasks), for each turn
/// that is not durable yet and for each [`PACE_WEIGHT`] of what is not folded yet. A commit
/// takes about as long. The pause keeps the commit queue short for new requests and leaves a core
/// to other threads.
const PACE: Duration = Duration::from_millis(4);

/// The weight of unfolded commits that lengthens the pause before a long job continues by one
/// [`PACE`].
const PACE_WEIGHT: usize = 25_000;

/// The most that unfolded commits lengthen the pause, in steps of [`PACE`]. While many clients keep
/// the fold busy, a long job must still go on.
const PACE_FOLD_MAX: usize = 4;

/// How far the engine is ahead of the journal and of the view. Clones share it.
#[derive(Debug, Clone)]
pub struct CommitLag {
    /// Turns that have ended and are not durable yet.
    pub(crate) turns: Arc<AtomicUsize>,
    /// Commits that are durable and not folded yet.
    backlog: Backlog,
}

impl CommitLag {
    /// A lag with no turns that wait to become durable; `backlog` counts what is not folded.
    pub fn new(backlog: Backlog) -> CommitLag {
        CommitLag {
            turns: Arc::default(),
            backlog,
        }
    }

    /// How long the engine pauses before it continues a long job.
    pub(crate) fn pace(&self) -> Duration {
        let fold_steps = (self.backlog.weight() / PACE_WEIGHT).min(PACE_FOLD_MAX);
        let steps = self.turns.load(Relaxed) + fold_steps;
        let steps = u32::try_from(steps).unwrap_or(u32::MAX);
        PACE * steps.min(TURNS_WAITING_MAX as u32)
    }
}

/// Makes turns durable in order, several in one commit, and then sends what waited for that.
pub struct CommitWriter<'a> {
    /// The turns of the engine, in the order in which they ended.
    pub turns: &'a Receiver<Turn>,
    /// The journal to which commits are appended.
    pub journal: &'a mut dyn Journal,
    /// Whether each commit is synced before its effects are released.
    pub durability: Durability,
    /// Publishes the events of a commit when it is durable.
    pub events: &'a EventFeed,
    /// Takes the commits to the folding thread.
    pub folds: &'a Sender<DurableCommit>,
    /// Hears from the writer whether the disk is full.
    pub disk: &'a DiskMonitor,
    /// Turns that ended while a commit waited for disk space, oldest first.
    pub postponed: VecDeque<Turn>,
    /// Counts the turns that are not durable yet and what is not folded yet.
    pub lag: &'a CommitLag,
}

impl CommitWriter<'_> {
    /// Runs until the engine ends. An error means that the state of the disk is unknown.
    pub fn run(&mut self) -> Result<(), AppendError> {
        let mut is_unsynced = false;
        loop {
            let next = match self.durability {
                _ if !self.postponed.is_empty() => self.postponed.pop_front(),
                Durability::Interval(every) if is_unsynced => {
                    match self.turns.recv_timeout(every) {
                        Err(RecvTimeoutError::Timeout) => {
                            self.journal.sync()?;
                            is_unsynced = false;
                            continue;
                        }
                        received => received.ok(),
                    }
                }
                Durability::Interval(_) | Durability::Sync => self.turns.recv().ok(),
            };
            let Some(first) = next else {
                return self.journal.sync();
            };
            let mut turns = self.turns_of_one_commit(first);
            let Some(entry) = merge_records(&mut turns) else {
                self.release(turns);
                continue;
            };
            let bytes = codec::encode(entry.as_ref());
            if !self.append(&bytes, &mut turns)? {
                return self.journal.sync();
            }
            let commit = DurableCommit {
                entry,
                bytes: bytes.len(),
            };
            drop(bytes);
            let weight = commit.weight();
            sync_and_publish(
                commit,
                self.journal,
                self.durability,
                self.events,
                self.folds,
            )?;
            is_unsynced = true;
            let permits = self.release(turns);
            self.lag.backlog.add(weight, permits);
        }
    }

    /// The turn `first` and those that have ended since, as many as make one commit.
    fn turns_of_one_commit(&mut self, first: Turn) -> Vec<Turn> {
        let mut records = first.records.len();
        let mut turns = vec![first];
        while records < COMMIT_RECORDS_MAX {
            let next = self
                .postponed
                .pop_front()
                .or_else(|| self.turns.try_recv().ok());
            let Some(turn) = next else {
                break;
            };
            records += turn.records.len();
            turns.push(turn);
        }
        turns
    }

    /// The turns are durable, or need no commit: sends what waited for that. Returns the permits of
    /// their large batches.
    fn release(&self, mut turns: Vec<Turn>) -> Vec<AdmissionPermit> {
        self.lag.turns.fetch_sub(turns.len(), Relaxed);
        let permits = turns
            .iter_mut()
            .flat_map(|turn| std::mem::take(&mut turn.permits))
            .collect();
        release(turns);
        permits
    }

    /// Appends a commit, however long that takes on a full disk. Returns false if the master ended
    /// meanwhile: nobody was told that these changes are durable, so runners and feeders send them
    /// again.
    fn append(&mut self, entry: &[u8], turns: &mut [Turn]) -> Result<bool, AppendError> {
        loop {
            match self.journal.append(self.journal.end() + 1, entry) {
                Err(AppendError::Unavailable(why)) => {
                    // New batches must come in, because the engine refuses them at once.
                    turns
                        .iter_mut()
                        .chain(&mut self.postponed)
                        .for_each(|turn| turn.permits.clear());
                    self.disk.record_write(Some(why));
                }
                appended => {
                    self.disk.record_write(None);
                    return appended.map(|()| true);
                }
            }
            if !self.postpone_turns_until_retry() {
                tracing::warn!(
                    "the master ends on a full disk: what was not acknowledged is not kept"
                );
                return Ok(false);
            }
        }
    }

    /// Takes in the turns that end before the next try, because the engine must never wait for a
    /// full disk. Returns false if the engine has ended.
    fn postpone_turns_until_retry(&mut self) -> bool {
        let patience_us = TRY_EVERY.as_micros() as u64;
        let until_us = clock::now().mono_us + patience_us;
        loop {
            let left_us = until_us.saturating_sub(clock::now().mono_us);
            match self.turns.recv_timeout(Duration::from_micros(left_us)) {
                Ok(mut turn) => {
                    turn.permits.clear();
                    self.postponed.push_back(turn);
                }
                Err(RecvTimeoutError::Timeout) => return true,
                Err(RecvTimeoutError::Disconnected) => return false,
            }
        }
    }
}

/// The records of the turns as one commit; `None` if they have no records.
fn merge_records(turns: &mut [Turn]) -> Option<Arc<JournalEntry>> {
    let first_seq = turns.first()?.first_seq;
    // A commit has the time of its last turn. A restart measures from this time what is still to
    // wait, however long the first turn waited for the disk.
    let time = turns.last()?.time;
    let records: Vec<_> = turns
        .iter_mut()
        .flat_map(|turn| std::mem::take(&mut turn.records))
        .collect();
    (!records.is_empty()).then(|| {
        Arc::new(JournalEntry {
            first_seq,
            time,
            records,
        })
    })
}

/// Makes an appended commit durable, as `durability` says, and publishes its events.
fn sync_and_publish(
    commit: DurableCommit,
    journal: &mut dyn Journal,
    durability: Durability,
    events: &EventFeed,
    folds: &Sender<DurableCommit>,
) -> Result<(), AppendError> {
    if durability == Durability::Sync {
        journal.sync()?;
    }
    events.publish(&commit);
    // The folding thread ends after this one.
    let _ = folds.send(commit);
    Ok(())
}

/// Makes a master's first turn durable. It raises the epoch, which must be durable before the
/// master sends anything.
pub fn commit_first(
    mut turn: Turn,
    journal: &mut dyn Journal,
    events: &EventFeed,
    folds: &Sender<DurableCommit>,
) -> Result<(), AppendError> {
    let Some(entry) = merge_records(std::slice::from_mut(&mut turn)) else {
        return Ok(());
    };
    let bytes = codec::encode(entry.as_ref());
    journal.append(journal.end() + 1, &bytes)?;
    let commit = DurableCommit {
        entry,
        bytes: bytes.len(),
    };
    sync_and_publish(commit, journal, Durability::Sync, events, folds)
}

/// Sends what waited for these turns to become durable, in order.
pub fn release(turns: Vec<Turn>) {
    for effect in turns.into_iter().flat_map(|turn| turn.after) {
        match effect {
            DeferredEffect::Say(outbox, message) => drop(outbox.send(message)),
            DeferredEffect::Reply(reply, answer) => drop(reply.send(answer)),
            DeferredEffect::Pruned(reply, tasks) => drop(reply.send(tasks)),
        }
    }
}
