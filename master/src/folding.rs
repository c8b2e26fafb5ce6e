//! Folds what is durable into the view, in the background: late, once, and when there is time. Prunes what is kept no
//! longer, and trims the journal.

use crate::config::Keep;
use crate::inbox::Input;
use crate::journal;
use crate::record::Entry;
use crate::store::{Reader, StoreError};
use crate::view::{self, Fold, Stored};
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::Duration;
use taskmaster_protocol::Wall;

/// Records that may wait to be folded while there is load: folding costs more than the journal, and a burst is over
/// before it begins. About 300 MB of memory, and 5 s of a restart.
const WAITING_RECORDS_MAX: usize = 400_000;

/// Nothing committed for this long: there is time to fold.
const IDLE: Duration = Duration::from_millis(200);

/// Tasks in one batch of the view.
const BATCH_TASKS_MAX: usize = 2_000;

/// Events that the journal keeps for watchers who come late.
const EVENTS_KEPT: u64 = 1_000_000;

/// Ended tasks looked at for pruning at a time.
const PRUNED_MAX: usize = 500;

/// Folds the whole journal: the start of a master.
pub fn catch_up(shelf: &Reader) -> Result<(), StoreError> {
    loop {
        let mut fold = Fold::begin(shelf.clone())?;
        while fold.touched() < BATCH_TASKS_MAX {
            let Some(entry) = journal::entry(shelf, fold.next())? else {
                fold.write()?;
                return Ok(());
            };
            fold.take(&entry)?;
        }
        fold.write()?;
    }
}

/// The folding thread.
pub struct Folding {
    shelf: Reader,
    keep: Keep,
    engine: Sender<Input>,
    waiting: VecDeque<Arc<Entry>>,
    records: usize,
}

impl Folding {
    /// For the view on `shelf`, telling `engine` how far it is.
    pub fn new(shelf: Reader, keep: Keep, engine: Sender<Input>) -> Folding {
        Folding { shelf, keep, engine, waiting: VecDeque::new(), records: 0 }
    }

    /// Folds until the writer ends. What is left then is folded at the next start.
    pub fn run(&mut self, commits: &Receiver<Arc<Entry>>, wall: impl Fn() -> Wall) -> Result<(), StoreError> {
        loop {
            match commits.recv_timeout(IDLE) {
                Ok(entry) => {
                    self.records += entry.records.len();
                    self.waiting.push_back(entry);
                    if self.records > WAITING_RECORDS_MAX {
                        self.fold_some()?;
                    }
                }
                Err(RecvTimeoutError::Timeout) => {
                    if self.waiting.is_empty() {
                        self.prune(wall())?;
                    } else {
                        self.fold_some()?;
                    }
                }
                Err(RecvTimeoutError::Disconnected) => return Ok(()),
            }
        }
    }

    /// One batch. On an idle machine the next follows at once unless a commit comes first.
    fn fold_some(&mut self) -> Result<(), StoreError> {
        let mut fold = Fold::begin(self.shelf.clone())?;
        let mut seq = None;
        while fold.touched() < BATCH_TASKS_MAX {
            let Some(entry) = self.waiting.pop_front() else { break };
            let events = entry.records.iter().filter(|record| record.event().is_some()).count() as u64;
            seq = Some(entry.first_seq + events - 1);
            self.records -= entry.records.len();
            fold.take(&entry)?;
        }
        let over = fold.ended() > self.keep.count;
        fold.write()?;
        if let Some(seq) = seq {
            // The engine may have ended before.
            let _ = self.engine.send(Input::Folded { seq });
            self.trim(seq)?;
        }
        if over {
            self.prune(Wall(i64::MIN))?;
        }
        Ok(())
    }

    /// Lets go of commits that are folded and older than a watcher may ask for.
    fn trim(&self, folded_seq: u64) -> Result<(), StoreError> {
        let Some(first) = journal::first(&self.shelf)? else { return Ok(()) };
        let Some(oldest) = journal::entry(&self.shelf, first)? else { return Ok(()) };
        // A tenth more than is kept, so that this happens seldom.
        if folded_seq.saturating_sub(oldest.first_seq) < EVENTS_KEPT + EVENTS_KEPT / 10 {
            return Ok(());
        }
        let below = journal::commit_at(&self.shelf, folded_seq - EVENTS_KEPT)?;
        // The view must be durable before what it was made of goes.
        self.shelf.sync()?;
        journal::trim(&self.shelf, below.min(view::marks(self.shelf.as_ref())?.folded))
    }

    /// Forgets the oldest ended tasks that are too many or too old, as far as nothing open needs them.
    pub(crate) fn prune(&self, wall: Wall) -> Result<(), StoreError> {
        let surplus = view::marks(self.shelf.as_ref())?.ended.saturating_sub(self.keep.count);
        let oldest = view::ended_first(self.shelf.as_ref(), PRUNED_MAX)?;
        let limit = Wall(wall.0.saturating_sub(i64::try_from(self.keep.time.as_micros()).unwrap_or(i64::MAX)));
        let mut candidates: Vec<Stored> = Vec::new();
        for (seq, id) in oldest {
            let Some(stored) = view::stored(self.shelf.as_ref(), &id)?.filter(|stored| stored.ended.seq == seq) else {
                continue;
            };
            if candidates.len() as u64 >= surplus && stored.ended.finished >= limit {
                break;
            }
            candidates.push(stored);
        }
        if candidates.is_empty() {
            return Ok(());
        }
        let (reply, answer) = channel();
        let _ = self.engine.send(Input::Prune { tasks: candidates, reply });
        let Ok(allowed) = answer.recv() else { return Ok(()) };
        let mut fold = Fold::begin(self.shelf.clone())?;
        fold.prune(&allowed)?;
        fold.write().map(drop)
    }
}
