//! Folds what is durable into the view, in the background: late, once, and when there is time.
//! Prunes what is kept no longer, and trims the journal.

use crate::inbox::{AdmissionPermit, Input};
use crate::settings::Keep;
use std::collections::VecDeque;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use taskmaster_protocol::Wall;
use taskmaster_store::journal;
use taskmaster_store::kv::{KvStore, SharedStore, StoreError};
use taskmaster_store::record::{JournalEntry, Record};
use taskmaster_store::view::{self, EndedTask, FOLD_WEIGHT_MAX, Fold};

/// Records that may wait to be folded while there is load: folding costs more than the journal, and
/// a burst is over before it begins. Some hundred MB of memory, and a few seconds of a restart.
const WAITING_RECORDS_MAX: usize = 400_000;

/// More than this wait only when commits come faster than they can be folded: then large batches
/// wait.
const BACKLOG_GOOD: usize = 500_000;

/// When others than large batches make that many more, whatever they are: then commits wait.
const BACKLOG_MAX: usize = 800_000;

/// How long one commit waits for the fold at the most: with commits as large as they get, the fold
/// is faster than what comes then. Whoever waits for an answer waits for a commit or two.
const HOLD: Duration = Duration::from_millis(40);

/// Nothing committed for this long: there is time to fold.
const IDLE: Duration = Duration::from_millis(200);

/// Events that the journal keeps for watchers who come late.
const EVENTS_KEPT: u64 = 1_000_000;

/// Ended tasks pruned at a time when there is time.
const PRUNED_MAX: usize = 2_000;

/// Ended tasks read at a time to be looked at.
const PRUNED_PAGE: usize = 64;

/// The pause between two steps of a collection: it leaves the processor and the disk to others.
const COLLECT_EVERY: Duration = Duration::from_millis(2);

/// Records that are durable and not folded: in memory until they are. Clones share it.
#[derive(Debug, Clone, Default)]
pub struct Backlog(Arc<(Mutex<UnfoldedRecords>, Condvar)>);

#[derive(Debug, Default)]
struct UnfoldedRecords {
    records: usize,
    /// Of large batches that are durable: while too much waits, no more of them come in.
    passes: Vec<AdmissionPermit>,
}

impl Backlog {
    fn lock(&self) -> MutexGuard<'_, UnfoldedRecords> {
        self.0.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// More records wait, and with them large batches, when there are too many. Whoever commits
    /// waits too when there are far too many, but not for long: the fold may itself wait for the
    /// engine, and the engine for whoever commits. So what is committed meanwhile is little.
    pub fn add(&self, records: usize, passes: Vec<AdmissionPermit>) {
        let mut waiting = self.lock();
        waiting.records += records;
        if waiting.records > BACKLOG_GOOD {
            waiting.passes.extend(passes);
        }
        if waiting.records > BACKLOG_MAX {
            drop(
                self.0
                    .1
                    .wait_timeout_while(waiting, HOLD, |waiting| waiting.records > BACKLOG_MAX),
            );
        }
    }

    /// How many wait.
    pub fn records(&self) -> usize {
        self.lock().records
    }

    /// Whether large batches wait for the fold: then no commit comes that would make it go on.
    fn is_waited_for(&self) -> bool {
        !self.lock().passes.is_empty()
    }

    fn take(&self, records: usize) {
        let mut waiting = self.lock();
        // The first commit of a start is not counted.
        waiting.records = waiting.records.saturating_sub(records);
        if waiting.records <= BACKLOG_GOOD {
            waiting.passes.clear();
        }
        drop(waiting);
        self.0.1.notify_all();
    }
}

/// Work that the fold's thread does between folds, a little at a time: blobs that nothing names any
/// more are removed.
pub trait Collector: Send {
    /// A commit came: what its records name is needed.
    fn committed(&mut self, records: &[Record]);

    /// Does a little. `unfolded` are the commits that the view does not have yet.
    fn step(
        &mut self,
        unfolded: &mut dyn Iterator<Item = &[Record]>,
    ) -> Result<CollectorStep, StoreError>;
}

/// What a step of a [`Collector`] leaves to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CollectorStep {
    /// Nothing, for long.
    Rest,
    /// More, after the usual pause.
    Pause,
    /// More, as soon as there is time.
    More,
}

/// The folding thread.
pub struct Folding {
    store: SharedStore,
    keep: Keep,
    engine: Sender<Input>,
    waiting: VecDeque<Arc<JournalEntry>>,
    records: usize,
    backlog: Backlog,
    /// What ended before this seq has been looked at for pruning.
    prune_from: u64,
    /// The journal's first commit, and the seq with which it begins: to read thousands of records
    /// for that takes longer than to fold.
    oldest: Option<(u64, u64)>,
    /// Removes blobs that nothing names any more.
    collector: Option<Box<dyn Collector>>,
}

impl Folding {
    /// For the view on `store`, telling `engine` how far it is.
    pub fn new(store: SharedStore, keep: Keep, engine: Sender<Input>) -> Folding {
        let (waiting, backlog) = (VecDeque::new(), Backlog::default());
        Folding {
            store,
            keep,
            engine,
            waiting,
            records: 0,
            backlog,
            prune_from: 0,
            oldest: None,
            collector: None,
        }
    }

    /// The same, and blobs are collected in between.
    pub fn collecting(self, collector: Box<dyn Collector>) -> Folding {
        Folding {
            collector: Some(collector),
            ..self
        }
    }

    /// For whoever commits: see [`Backlog::add`].
    pub fn backlog(&self) -> Backlog {
        self.backlog.clone()
    }

    /// Folds until the writer ends. What is left then is folded at the next start.
    pub fn run(
        &mut self,
        commits: &Receiver<Arc<JournalEntry>>,
        wall: impl Fn() -> Wall,
    ) -> Result<(), StoreError> {
        let mut patience = IDLE;
        loop {
            match commits.recv_timeout(patience) {
                Ok(entry) => {
                    self.records += entry.records.len();
                    if let Some(collector) = &mut self.collector {
                        collector.committed(&entry.records);
                    }
                    self.waiting.push_back(entry);
                    if self.records > WAITING_RECORDS_MAX {
                        self.fold_some(wall())?;
                        // Under a load that never pauses, too.
                        self.collect()?;
                    }
                    patience = if self.backlog.is_waited_for() {
                        Duration::ZERO
                    } else {
                        IDLE
                    };
                }
                Err(RecvTimeoutError::Timeout) => {
                    if self.waiting.is_empty() {
                        self.prune(wall(), PRUNED_MAX)?;
                    } else {
                        self.fold_some(wall())?;
                    }
                    patience = match self.collect()? {
                        _ if !self.waiting.is_empty() => Duration::ZERO,
                        CollectorStep::More => COLLECT_EVERY,
                        CollectorStep::Pause | CollectorStep::Rest => IDLE,
                    };
                }
                Err(RecvTimeoutError::Disconnected) => return Ok(()),
            }
        }
    }

    fn collect(&mut self) -> Result<CollectorStep, StoreError> {
        let Some(collector) = &mut self.collector else {
            return Ok(CollectorStep::Rest);
        };
        let mut unfolded = self.waiting.iter().map(|entry| entry.records.as_slice());
        collector.step(&mut unfolded)
    }

    /// One batch. On an idle machine the next follows at once unless a commit comes first.
    fn fold_some(&mut self, wall: Wall) -> Result<(), StoreError> {
        let mut fold = Fold::begin(self.store.clone())?;
        let before = fold.ended_count();
        while fold.weight() < FOLD_WEIGHT_MAX {
            let Some(entry) = self.waiting.front() else {
                break;
            };
            if fold.take_until(entry, FOLD_WEIGHT_MAX)? {
                self.records -= entry.records.len();
                self.backlog.take(entry.records.len());
                self.waiting.pop_front();
            }
        }
        let (seq, ended) = (fold.seq(), fold.ended_count());
        fold.write()?;
        // The engine may have ended before.
        let _ = self.engine.send(Input::Folded { seq });
        self.trim(seq)?;
        // Twice as many as came: under a load that never pauses, what is too old goes too.
        self.prune(
            wall,
            usize::try_from(ended.saturating_sub(before) * 2).unwrap_or(PRUNED_MAX),
        )
    }

    /// Lets go of commits that are folded and older than a watcher may ask for.
    fn trim(&mut self, folded_seq: u64) -> Result<(), StoreError> {
        let Some(first) = journal::first(&self.store)? else {
            return Ok(());
        };
        let oldest_seq = match self.oldest {
            Some((commit, seq)) if commit == first => seq,
            _ => match journal::entry(&self.store, first)? {
                Some(oldest) => oldest.first_seq,
                None => return Ok(()),
            },
        };
        self.oldest = Some((first, oldest_seq));
        // A tenth more than is kept, so that this happens seldom.
        if folded_seq.saturating_sub(oldest_seq) < EVENTS_KEPT + EVENTS_KEPT / 10 {
            return Ok(());
        }
        let below = journal::commit_at(&self.store, folded_seq - EVENTS_KEPT)?;
        // The view must be durable before what it was made of goes.
        self.store.sync()?;
        journal::trim(
            &self.store,
            below.min(view::watermarks(self.store.as_ref())?.folded),
        )
    }

    /// Forgets ended tasks that are too many or too old, the oldest first, as far as nothing open
    /// needs them; looks at about `most`, and goes on behind them the next time.
    pub fn prune(&mut self, wall: Wall, most: usize) -> Result<(), StoreError> {
        let tasks;
        (tasks, self.prune_from) =
            surplus(self.store.as_ref(), self.keep, wall, self.prune_from, most)?;
        if tasks.is_empty() {
            return Ok(());
        }
        let (reply, answer) = channel();
        let _ = self.engine.send(Input::Prune { tasks, reply });
        let Ok(allowed) = answer.recv() else {
            return Ok(());
        };
        forget(&self.store, &allowed)
    }
}

/// The oldest ended tasks that are too many or too old, about `most` of those that ended with event
/// `from` or later; and where to go on the next time.
pub fn surplus(
    store: &dyn KvStore,
    keep: Keep,
    wall: Wall,
    mut from: u64,
    most: usize,
) -> Result<(Vec<EndedTask>, u64), StoreError> {
    let surplus = view::watermarks(store)?
        .ended_count
        .saturating_sub(keep.count);
    let limit = Wall(
        wall.0
            .saturating_sub(i64::try_from(keep.time.as_micros()).unwrap_or(i64::MAX)),
    );
    let mut tasks: Vec<EndedTask> = Vec::new();
    while tasks.len() < most {
        let left = surplus.saturating_sub(tasks.len() as u64);
        // Where there are not too many, the oldest tells whether any is too old.
        let page = view::ended_from(
            store,
            from,
            if left > 0 || !tasks.is_empty() {
                PRUNED_PAGE
            } else {
                1
            },
        )?;
        let count = (0..)
            .zip(&page)
            .take_while(|(n, task)| *n < left || task.ended.end.finished < limit)
            .count();
        let is_last = count < page.len() || page.is_empty();
        tasks.extend(page.into_iter().take(count));
        // At the end, the next time from the first again: what was needed may no longer be.
        from = tasks
            .last()
            .filter(|_| !is_last)
            .map_or(0, |task| task.ended.seq + 1);
        if is_last {
            break;
        }
    }
    Ok((tasks, from))
}

/// Takes ended tasks out of the view: those that the engine says nothing needs.
pub fn forget(store: &SharedStore, allowed: &[EndedTask]) -> Result<(), StoreError> {
    let mut fold = Fold::begin(store.clone())?;
    fold.prune(allowed)?;
    fold.write().map(drop)
}
