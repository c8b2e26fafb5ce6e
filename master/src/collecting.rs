//! Removes blobs that nothing names any more: those of pruned tasks, of forgotten versions of
//! modules, and of feeds that put their files and added nothing. It runs on the thread that folds,
//! a little at a time, when there is time.
//!
//! A round takes the names of all blobs that nobody has put or asked for within the grace, marks
//! those that the view names, page by page, and removes the rest. Things change meanwhile. A blob
//! may be named by a message: then the gateway renews it first ([`Blobs::renew`]), so it counts as
//! used. Or it is named by a task of the view that is opened again or ends: that comes by here as a
//! commit and is marked, too ([`Collector::committed`]). The view is synced before anything is
//! removed. A crash in the middle leaves blobs for the next round.
//!
//! A bucket is asked to list its blobs while nobody waits, and to remove them a few at a time.
//! Where it does not answer, nothing more is removed in this round.

use std::collections::HashSet;
use std::io;
use std::sync::mpsc::{Receiver, TryRecvError};
use std::time::{Duration, Instant};
use taskmaster_blobs::Blobs;
use taskmaster_engine::disk_monitor::DiskMonitor;
use taskmaster_engine::disk_space::DiskSpace;
use taskmaster_engine::folding::{Collector, CollectorStep};
use taskmaster_protocol::{Hash, Listing};
use taskmaster_store::kv::{SharedStore, StoreError};
use taskmaster_store::record::Record;
use taskmaster_store::references::{self, Reference};
use taskmaster_store::view;

/// The pause between two rounds is at least this long. So is the pause after a disk was full, when
/// reports wait in memory.
const ROUND_INTERVAL: Duration = Duration::from_secs(600);

/// The pause after a round is this many times as long as the round.
const PAUSE_FACTOR: u32 = 20;

/// Tasks of the view that one step looks at. It takes about a millisecond.
const PAGE_TASKS: usize = 256;

/// Blobs that one step removes.
const REMOVED_MAX: usize = 64;

/// Idle steps between the last look at the view and the first removal. What the gateway let in
/// before the whole process was stopped for hours is committed in the first of them.
const IDLE_STEPS: u32 = 10;

/// Removes the blobs of one data folder.
pub struct BlobCollector {
    blobs: Blobs,
    store: SharedStore,
    room: DiskMonitor,
    /// The pause between two rounds, at least.
    interval: Duration,
    stage: CollectorStage,
}

enum CollectorStage {
    Resting {
        until: Instant,
    },
    /// The blobs that may be removed are being looked for.
    Finding {
        began: Instant,
        expired: Receiver<io::Result<Vec<Hash>>>,
    },
    Working(Box<Round>),
}

/// One round.
struct Round {
    began: Instant,
    /// Blobs that may be removed, sorted.
    expired: Vec<Hash>,
    /// Which of them are needed.
    needed: Vec<bool>,
    /// Folders that were looked into.
    listings: HashSet<Hash>,
    position: RoundPosition,
    removed: u64,
}

/// How far a round is.
enum RoundPosition {
    /// It reads open tasks, from this `no` on.
    Open { from: u64 },
    /// It reads ended tasks, from this seq on.
    Ended { from: u64 },
    /// It reads kept answers, those behind this key.
    Answers { after: Option<Hash> },
    /// It waits, and has done so for a number of steps.
    Idle { steps: u32 },
    /// It removes what is not needed, from this index of [`Round::expired`] on.
    Removing { index: usize },
}

impl BlobCollector {
    /// Collects the blobs of the view on `store`. A grace that is shorter than the pause between
    /// rounds shortens the pause.
    pub fn new(blobs: Blobs, store: SharedStore, room: DiskMonitor) -> BlobCollector {
        let interval = ROUND_INTERVAL.min(blobs.grace());
        let stage = CollectorStage::Resting {
            until: Instant::now() + interval,
        };
        BlobCollector {
            blobs,
            store,
            room,
            interval,
            stage,
        }
    }

    /// Ends the round where something could not be read: nothing is removed then.
    fn rest_if_err(&mut self, result: io::Result<()>) {
        if let Err(error) = result {
            tracing::warn!("unneeded blobs are not removed now: {error}");
            self.rest(self.interval);
        }
    }

    fn rest(&mut self, time: Duration) {
        self.stage = CollectorStage::Resting {
            until: Instant::now() + time.max(self.interval),
        };
    }

    fn find(&mut self) -> io::Result<()> {
        let began = Instant::now();
        self.blobs.remove_expired_parts()?;
        self.stage = CollectorStage::Finding {
            began,
            expired: self.blobs.find_expired(),
        };
        Ok(())
    }

    /// Begins the round when it is known which blobs may be removed. False where it is not known
    /// yet.
    fn begin_round(&mut self) -> bool {
        let CollectorStage::Finding { began, expired } = &self.stage else {
            return true;
        };
        let began = *began;
        let found = match expired.try_recv() {
            Err(TryRecvError::Empty) => return false,
            Err(TryRecvError::Disconnected) => Err(io::Error::other("nobody looked for them")),
            Ok(found) => found,
        };
        match found {
            Ok(expired) if expired.is_empty() => self.rest(self.interval),
            Ok(expired) => {
                self.stage = CollectorStage::Working(Box::new(Round::new(began, expired)));
            }
            Err(error) => self.rest_if_err(Err(error)),
        }
        true
    }

    /// Does the work of one step.
    fn work(&mut self, unfolded: &mut dyn Iterator<Item = &[Record]>) -> Result<(), StoreError> {
        match &mut self.stage {
            CollectorStage::Resting { until } if Instant::now() < *until => return Ok(()),
            CollectorStage::Resting { .. } => {
                let found = self.find();
                self.rest_if_err(found);
            }
            CollectorStage::Finding { .. } => {}
            CollectorStage::Working(round) => {
                let worked = round.work(&self.blobs, &self.store)?;
                self.rest_if_err(worked);
                return Ok(());
            }
        }
        if self.begin_round() {
            unfolded.for_each(|records| self.committed(records));
        }
        Ok(())
    }
}

impl Collector for BlobCollector {
    fn committed(&mut self, records: &[Record]) {
        if let CollectorStage::Working(round) = &mut self.stage {
            let references: Vec<Reference> =
                records.iter().flat_map(references::of_record).collect();
            let marked = round.mark_all(&self.blobs, references);
            self.rest_if_err(marked);
        }
    }

    fn step(
        &mut self,
        unfolded: &mut dyn Iterator<Item = &[Record]>,
    ) -> Result<CollectorStep, StoreError> {
        if matches!(self.room.disk(), DiskSpace::Full(_)) || self.room.blobs_are_held() {
            self.rest(ROUND_INTERVAL);
            return Ok(CollectorStep::Rest);
        }
        self.work(unfolded)?;
        Ok(match &self.stage {
            CollectorStage::Resting { .. } => CollectorStep::Rest,
            CollectorStage::Finding { .. } => CollectorStep::Pause,
            CollectorStage::Working(round) if round.is_done() => {
                let blobs = round.removed;
                if blobs > 0 {
                    tracing::info!(blobs, "blobs that nothing names were removed");
                }
                self.rest(round.began.elapsed() * PAUSE_FACTOR);
                CollectorStep::Rest
            }
            CollectorStage::Working(round) => match round.position {
                RoundPosition::Idle { .. } => CollectorStep::Pause,
                RoundPosition::Open { .. }
                | RoundPosition::Ended { .. }
                | RoundPosition::Answers { .. }
                | RoundPosition::Removing { .. } => CollectorStep::More,
            },
        })
    }
}

impl Round {
    fn new(began: Instant, expired: Vec<Hash>) -> Round {
        Round {
            began,
            needed: vec![false; expired.len()],
            expired,
            listings: HashSet::new(),
            position: RoundPosition::Open { from: 0 },
            removed: 0,
        }
    }

    fn is_done(&self) -> bool {
        matches!(self.position, RoundPosition::Removing { index } if index >= self.expired.len())
    }

    /// Marks a blob as needed, and the files of a folder.
    fn mark(&mut self, blobs: &Blobs, reference: &Reference) -> io::Result<()> {
        self.mark_hash(&reference.hash);
        if !reference.is_listing || !self.listings.insert(reference.hash) {
            return Ok(());
        }
        let bytes = match blobs.get(&reference.hash) {
            // The folder is lost, and nobody can know what was in it.
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            read => read?,
        };
        let listing = Listing::decode(&bytes).map_err(io::Error::other)?;
        for hash in listing.blobs() {
            self.mark_hash(&hash);
        }
        Ok(())
    }

    fn mark_hash(&mut self, hash: &Hash) {
        if let Ok(index) = self.expired.binary_search(hash) {
            self.needed[index] = true;
        }
    }

    fn mark_all(
        &mut self,
        blobs: &Blobs,
        references: impl IntoIterator<Item = Reference>,
    ) -> io::Result<()> {
        references
            .into_iter()
            .try_for_each(|reference| self.mark(blobs, &reference))
    }

    /// The outer error is one of the store. The inner error is one of the blobs.
    fn work(&mut self, blobs: &Blobs, store: &SharedStore) -> Result<io::Result<()>, StoreError> {
        match self.position {
            RoundPosition::Open { from } => self.mark_open(blobs, store, from),
            RoundPosition::Ended { from } => self.mark_ended(blobs, store, from),
            RoundPosition::Answers { after } => self.mark_answers(blobs, store, after),
            RoundPosition::Idle { steps } if steps < IDLE_STEPS => {
                self.position = RoundPosition::Idle { steps: steps + 1 };
                Ok(Ok(()))
            }
            RoundPosition::Idle { .. } => {
                self.position = RoundPosition::Removing { index: 0 };
                if self.needed.contains(&false) {
                    // What the view has pruned must be gone for good. After a crash it would name
                    // these blobs again.
                    store.sync()?;
                }
                Ok(Ok(()))
            }
            RoundPosition::Removing { index } => Ok(self.remove(blobs, index)),
        }
    }

    /// Marks the blobs of a page of open tasks.
    fn mark_open(
        &mut self,
        blobs: &Blobs,
        store: &SharedStore,
        from: u64,
    ) -> Result<io::Result<()>, StoreError> {
        let page = view::open_from(store.as_ref(), from, PAGE_TASKS)?;
        self.position = match page.last() {
            Some(body) => RoundPosition::Open {
                from: body.ordinal + 1,
            },
            None => RoundPosition::Ended { from: 0 },
        };
        let references = page.iter().flat_map(|body| references::of_body(body));
        Ok(self.mark_all(blobs, references))
    }

    /// Marks the blobs of a page of kept answers.
    fn mark_answers(
        &mut self,
        blobs: &Blobs,
        store: &SharedStore,
        after: Option<Hash>,
    ) -> Result<io::Result<()>, StoreError> {
        let page = view::cache_entries_after(store.as_ref(), after.as_ref(), PAGE_TASKS)?;
        self.position = match page.last() {
            Some(entry) => RoundPosition::Answers {
                after: Some(entry.key),
            },
            None => RoundPosition::Idle { steps: 0 },
        };
        let references: Vec<Reference> = page.iter().flat_map(references::of_answer).collect();
        Ok(self.mark_all(blobs, references))
    }

    /// Marks the blobs of a page of ended tasks. After the last page, marks those of the modules.
    fn mark_ended(
        &mut self,
        blobs: &Blobs,
        store: &SharedStore,
        from: u64,
    ) -> Result<io::Result<()>, StoreError> {
        let page = view::ended_from(store.as_ref(), from, PAGE_TASKS)?;
        let mut references: Vec<Reference> = Vec::new();
        for task in &page {
            references.extend(references::of_body(&task.body));
            references.extend(references::of_ended(&task.ended));
        }
        self.position = if let Some(task) = page.last() {
            RoundPosition::Ended {
                from: task.ended.seq + 1,
            }
        } else {
            for (_, record) in view::modules(store.as_ref())? {
                references.extend(references::of_module(&record));
            }
            RoundPosition::Answers { after: None }
        };
        Ok(self.mark_all(blobs, references))
    }

    /// Removes the next blobs that are not needed, from `index` on.
    fn remove(&mut self, blobs: &Blobs, mut index: usize) -> io::Result<()> {
        let mut unneeded = Vec::with_capacity(REMOVED_MAX);
        while let Some(hash) = self.expired.get(index)
            && unneeded.len() < REMOVED_MAX
        {
            if !self.needed[index] {
                unneeded.push(*hash);
            }
            index += 1;
        }
        self.removed += blobs.remove(&unneeded)?;
        self.position = RoundPosition::Removing { index };
        Ok(())
    }
}

#[cfg(test)]
mod tests;
