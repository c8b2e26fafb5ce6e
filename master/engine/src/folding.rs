//! Folds durable commits into the view, in the background and preferably while the master is idle.
//! Also prunes ended tasks that are kept no longer, and trims the journal.

use crate::durable_commit::DurableCommit;
use crate::inbox::{AdmissionPermit, Input};
use crate::settings::Keep;
use std::collections::VecDeque;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use taskmaster_protocol::Wall;
use taskmaster_store::journal;
use taskmaster_store::kv::{KvStore, SharedStore, StoreError};
use taskmaster_store::record::Record;
use taskmaster_store::view::{self, EndedTask, FOLD_WEIGHT_MAX, Fold};

/// What may wait to be folded while commits come in, by the weight of the commits: one for a usual
/// record ([`DurableCommit::weight`]). Folding costs more than the journal, and most bursts are over
/// before the fold has to begin. This much takes some hundred MB of memory, and a few seconds of a
/// restart.
const WAITING_WEIGHT_MAX: usize = 400_000;

/// The weight of unfolded commits above which large batches wait. It is only greater when commits
/// come faster than they can be folded.
const BACKLOG_GOOD: usize = 500_000;

/// The weight of unfolded commits above which every commit waits. Large batches wait earlier, so it
/// is only greater when other inputs make too many records.
const BACKLOG_MAX: usize = 800_000;

/// How long one commit waits for the fold at most. Even with the largest commits, the fold takes
/// more records in this time than a commit brings. A client that waits for an answer waits for one
/// or two commits.
const COMMIT_WAIT_MAX: Duration = Duration::from_millis(40);

/// Time without a commit after which the master counts as idle, so that the fold begins.
const IDLE: Duration = Duration::from_millis(200);

/// Events that the journal keeps for watchers who lag.
const EVENTS_KEPT: u64 = 1_000_000;

/// Ended tasks that an idle master prunes at a time.
const PRUNED_MAX: usize = 2_000;

/// Ended tasks that are read from the view per page, to find those to prune.
const PRUNED_PAGE: usize = 64;

/// The pause between two steps of the blob collector. It leaves the processor and the disk to other
/// threads.
const COLLECT_EVERY: Duration = Duration::from_millis(2);

/// Weighs the commits that are durable and not folded yet, which are all in memory. Clones share it.
#[derive(Debug, Clone, Default)]
pub struct Backlog(Arc<SharedBacklog>);

#[derive(Debug, Default)]
struct SharedBacklog {
    unfolded: Mutex<UnfoldedCommits>,
    /// Notified when commits have been folded.
    folded: Condvar,
}

#[derive(Debug, Default)]
struct UnfoldedCommits {
    weight: usize,
    /// Permits of large batches that are durable. They are kept while too much waits, so that fewer
    /// large batches come in.
    permits: Vec<AdmissionPermit>,
    /// Whether the fold has ended with an error, so that nobody waits for it any more.
    given_up: bool,
}

impl Backlog {
    fn lock(&self) -> MutexGuard<'_, UnfoldedCommits> {
        self.0
            .unfolded
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds the weight of a commit, and keeps the permits of its large batches while too much waits.
    /// If it is far too much, the commit writer waits here too, but not for long: the fold may itself
    /// wait for the engine, and the engine for the commit writer.
    pub fn add(&self, weight: usize, permits: Vec<AdmissionPermit>) {
        let mut unfolded = self.lock();
        if unfolded.given_up {
            return;
        }
        unfolded.weight += weight;
        if unfolded.weight > BACKLOG_GOOD {
            unfolded.permits.extend(permits);
        }
        if unfolded.weight > BACKLOG_MAX {
            let is_too_long = |unfolded: &mut UnfoldedCommits| {
                unfolded.weight > BACKLOG_MAX && !unfolded.given_up
            };
            let waited = self
                .0
                .folded
                .wait_timeout_while(unfolded, COMMIT_WAIT_MAX, is_too_long);
            drop(waited);
        }
    }

    /// The weight of all commits that are not folded yet.
    pub fn weight(&self) -> usize {
        self.lock().weight
    }

    /// Whether large batches wait for the fold. Then there may be no commit that would make the
    /// fold go on.
    fn has_waiting_batches(&self) -> bool {
        !self.lock().permits.is_empty()
    }

    /// Nothing will be folded any more: the batches that wait for the fold go on, and are refused.
    pub fn give_up(&self) {
        let mut unfolded = self.lock();
        unfolded.given_up = true;
        unfolded.permits.clear();
        drop(unfolded);
        self.0.folded.notify_all();
    }

    /// Takes away the weight of a commit that has been folded.
    fn take(&self, weight: usize) {
        let mut unfolded = self.lock();
        // The first commit of a master is never added, so the weight may be too small.
        unfolded.weight = unfolded.weight.saturating_sub(weight);
        if unfolded.weight <= BACKLOG_GOOD {
            unfolded.permits.clear();
        }
        drop(unfolded);
        self.0.folded.notify_all();
    }
}

/// Work that the folding thread does between folds, a little at a time. It removes blobs that
/// nothing names any more.
pub trait Collector: Send {
    /// Notes that a commit has come in, because blobs that its records name are needed.
    fn committed(&mut self, records: &[Record]);

    /// Does a little work. `unfolded` are the records of the commits that the view does not have
    /// yet.
    fn step(
        &mut self,
        unfolded: &mut dyn Iterator<Item = &[Record]>,
    ) -> Result<CollectorStep, StoreError>;
}

/// What a [`Collector`] has left to do after a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CollectorStep {
    /// The collector has nothing to do for a long time.
    Rest,
    /// The next step is due after the usual pause.
    Pause,
    /// The next step is due as soon as there is time.
    More,
}

/// Folds commits, prunes ended tasks and trims the journal, on a thread of its own.
pub struct Folding {
    store: SharedStore,
    keep: Keep,
    engine: Sender<Input>,
    /// Commits that wait to be folded, oldest first.
    waiting: VecDeque<DurableCommit>,
    /// The weight of these commits.
    waiting_weight: usize,
    backlog: Backlog,
    /// Ended tasks whose end has a smaller seq were looked at for pruning.
    prune_from: u64,
    oldest: Option<OldestCommit>,
    collector: Option<Box<dyn Collector>>,
}

/// The journal's oldest commit. Its first seq is remembered, because decoding thousands of records
/// to find it takes longer than to fold.
#[derive(Clone, Copy)]
struct OldestCommit {
    commit: u64,
    first_seq: u64,
}

impl Folding {
    /// Folds into the view on `store`, and tells `engine` how far the view is.
    pub fn new(store: SharedStore, keep: Keep, engine: Sender<Input>) -> Folding {
        Folding {
            store,
            keep,
            engine,
            waiting: VecDeque::new(),
            waiting_weight: 0,
            backlog: Backlog::default(),
            prune_from: 0,
            oldest: None,
            collector: None,
        }
    }

    /// Lets `collector` work between folds.
    pub fn with_collector(self, collector: Box<dyn Collector>) -> Folding {
        Folding {
            collector: Some(collector),
            ..self
        }
    }

    /// The weight of unfolded commits, to which the commit writer adds.
    pub fn backlog(&self) -> Backlog {
        self.backlog.clone()
    }

    /// Folds until the commit writer ends. The next master folds what is left then.
    pub fn run(
        &mut self,
        commits: &Receiver<DurableCommit>,
        wall: impl Fn() -> Wall,
    ) -> Result<(), StoreError> {
        let mut patience = IDLE;
        loop {
            match commits.recv_timeout(patience) {
                Ok(commit) => {
                    self.waiting_weight += commit.weight();
                    if let Some(collector) = &mut self.collector {
                        collector.committed(&commit.entry.records);
                    }
                    self.waiting.push_back(commit);
                    if self.waiting_weight > WAITING_WEIGHT_MAX {
                        self.fold_some(wall())?;
                        // The collector must get on even if the load never pauses.
                        self.collect()?;
                    }
                    patience = if self.backlog.has_waiting_batches() {
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
        let waiting = self.waiting.iter();
        let mut unfolded = waiting.map(|commit| commit.entry.records.as_slice());
        collector.step(&mut unfolded)
    }

    /// Folds one batch of records. On an idle machine the next batch follows at once, unless a
    /// commit comes first.
    fn fold_some(&mut self, wall: Wall) -> Result<(), StoreError> {
        let mut fold = Fold::begin(self.store.clone())?;
        let before = fold.ended_count();
        while fold.weight() < FOLD_WEIGHT_MAX {
            let Some(commit) = self.waiting.front() else {
                break;
            };
            if fold.take_until(&commit.entry, FOLD_WEIGHT_MAX)? {
                self.waiting_weight -= commit.weight();
                self.backlog.take(commit.weight());
                self.waiting.pop_front();
            }
        }
        let seq = fold.seq();
        let new_ends = fold.ended_count().saturating_sub(before);
        fold.write()?;
        // The engine may have ended.
        let _ = self.engine.send(Input::Folded { seq });
        self.trim(seq)?;
        // Twice as many tasks are pruned as have ended, so that tasks that are too old go even if
        // the load never pauses.
        self.prune(wall, usize::try_from(new_ends * 2).unwrap_or(PRUNED_MAX))
    }

    /// Removes commits that are folded and whose events are kept no longer.
    fn trim(&mut self, folded_seq: u64) -> Result<(), StoreError> {
        let Some(first) = journal::first(&self.store)? else {
            return Ok(());
        };
        let first_seq = match self.oldest.filter(|oldest| oldest.commit == first) {
            Some(oldest) => oldest.first_seq,
            None => match journal::entry(&self.store, first)? {
                Some(oldest) => oldest.first_seq,
                None => return Ok(()),
            },
        };
        self.oldest = Some(OldestCommit {
            commit: first,
            first_seq,
        });
        // The journal is trimmed when a tenth more events are there than are kept, so that trimming
        // is rare.
        if folded_seq.saturating_sub(first_seq) < EVENTS_KEPT + EVENTS_KEPT / 10 {
            return Ok(());
        }
        let below = journal::commit_at(&self.store, folded_seq - EVENTS_KEPT)?;
        // The view must be durable before the commits from which it was made are removed.
        self.store.sync()?;
        journal::trim(
            &self.store,
            below.min(view::watermarks(self.store.as_ref())?.folded),
        )
    }

    /// Forgets ended tasks that are too many or too old, the oldest first, unless an open task or
    /// job needs them. Looks at about `most` tasks, and continues after them the next time.
    pub fn prune(&mut self, wall: Wall, most: usize) -> Result<(), StoreError> {
        let surplus = surplus(self.store.as_ref(), self.keep, wall, self.prune_from, most)?;
        self.prune_from = surplus.continue_at;
        if surplus.tasks.is_empty() {
            return Ok(());
        }
        let (reply, answer) = channel();
        let _ = self.engine.send(Input::Prune {
            tasks: surplus.tasks,
            reply,
        });
        let Ok(allowed) = answer.recv() else {
            return Ok(());
        };
        forget(&self.store, &allowed)
    }
}

/// Ended tasks that are too many or too old.
pub struct SurplusTasks {
    /// The oldest of these tasks.
    pub tasks: Vec<EndedTask>,
    /// The seq of an end at which the next search continues; 0 to begin with the oldest again.
    pub continue_at: u64,
}

/// Finds ended tasks that are too many or too old, the oldest first. It looks at tasks whose end has
/// the seq `from` or a later one, and returns about `most`.
pub fn surplus(
    store: &dyn KvStore,
    keep: Keep,
    wall: Wall,
    mut from: u64,
    most: usize,
) -> Result<SurplusTasks, StoreError> {
    let too_many = view::watermarks(store)?
        .ended_count
        .saturating_sub(keep.count);
    let keep_us = i64::try_from(keep.time.as_micros()).unwrap_or(i64::MAX);
    let oldest_kept = Wall(wall.0.saturating_sub(keep_us));
    let mut tasks: Vec<EndedTask> = Vec::new();
    while tasks.len() < most {
        let left = too_many.saturating_sub(tasks.len() as u64);
        // If there are not too many tasks, the oldest one tells whether any is too old.
        let limit = if left > 0 || !tasks.is_empty() {
            PRUNED_PAGE
        } else {
            1
        };
        let page = view::ended_from(store, from, limit)?;
        let count = (0..)
            .zip(&page)
            .take_while(|(n, task)| *n < left || task.ended.end.finished < oldest_kept)
            .count();
        let is_last = count < page.len() || page.is_empty();
        tasks.extend(page.into_iter().take(count));
        // The next search begins with the oldest task again when this one has reached the end,
        // because tasks that were needed may not be needed any more.
        from = tasks
            .last()
            .filter(|_| !is_last)
            .map_or(0, |task| task.ended.seq + 1);
        if is_last {
            break;
        }
    }
    Ok(SurplusTasks {
        tasks,
        continue_at: from,
    })
}

/// Removes ended tasks from the view, after the engine has allowed it.
pub fn forget(store: &SharedStore, allowed: &[EndedTask]) -> Result<(), StoreError> {
    let mut fold = Fold::begin(store.clone())?;
    fold.prune(allowed)?;
    fold.write().map(drop)
}
