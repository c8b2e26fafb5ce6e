//! Removes blobs that nothing names any more: those of pruned tasks, of forgotten versions of
//! modules, of feeds that put their files and added nothing. On the thread that folds, a little at
//! a time, when there is time.
//!
//! A round takes the names of all blobs that nobody has put or asked for within
//! [`GRACE`](taskmaster_blobs::GRACE), crosses out those that the view names, page by page, and removes
//! the rest. Meanwhile things change. Whatever names a blob comes through the gateway, which renews
//! it first ([`Blobs::renew`]), so it is young again; or it is a task of the view that is opened
//! again or ends, and that comes by here as a commit and is crossed out, too
//! ([`Collector::committed`]). The view is synced before anything goes. A crash in the middle leaves
//! blobs for the next round.
//!
//! Where blobs live in an object store, that is asked to list them while nobody waits, and asked to
//! remove them a few at a time; where it does not answer, nothing more is removed this time.

use std::collections::HashSet;
use std::io;
use std::sync::mpsc::{Receiver, TryRecvError};
use std::time::{Duration, Instant};
use taskmaster_blobs::Blobs;
use taskmaster_engine::folding::{Collector, CollectorStep};
use taskmaster_engine::room::{Disk, Room};
use taskmaster_protocol::{Hash, Listing};
use taskmaster_store::kv::{Reader, StoreError};
use taskmaster_store::record::Record;
use taskmaster_store::references::{self, Reference};
use taskmaster_store::view;

/// The pause between two rounds, at least; and after a disk was full, whose reports wait in memory.
const EVERY: Duration = Duration::from_secs(600);

/// A round takes at most one part in so many of the time.
const SHARE: u32 = 20;

/// Tasks of the view looked at in one step: about a millisecond.
const PAGE: usize = 256;

/// Blobs removed in one step.
const REMOVED_MAX: usize = 64;

/// Idle steps between the last look and the first removal. What the gateway let in before the whole
/// process was stopped for hours, and woke, is committed in the first of them.
const SETTLE_STEPS: u32 = 10;

/// See the module's text.
pub struct Collecting {
    blobs: Blobs,
    shelf: Reader,
    room: Room,
    every: Duration,
    stage: Stage,
}

enum Stage {
    Resting {
        until: Instant,
    },
    /// Those that may go are being looked for.
    Looking {
        began: Instant,
        old: Receiver<io::Result<Vec<Hash>>>,
    },
    Working(Box<Round>),
}

/// One round.
struct Round {
    began: Instant,
    /// Blobs that may go, in order.
    old: Vec<Hash>,
    /// Which of them are needed.
    needed: Vec<bool>,
    /// Folders that were looked into.
    listings: HashSet<Hash>,
    at: At,
    removed: u64,
}

enum At {
    Open { from: u64 },
    Ended { from: u64 },
    Settling { steps: u32 },
    Removing { index: usize },
}

impl Collecting {
    /// For the blobs of the view on `shelf`. A grace that is shorter than the pause between rounds
    /// shortens that, too.
    pub fn new(blobs: Blobs, shelf: Reader, room: Room) -> Collecting {
        let every = EVERY.min(blobs.grace());
        let stage = Stage::Resting {
            until: Instant::now() + every,
        };
        Collecting {
            blobs,
            shelf,
            room,
            every,
            stage,
        }
    }

    /// Where something cannot be read, nothing is removed: not this time.
    fn unless(&mut self, done: io::Result<()>) {
        if let Err(error) = done {
            tracing::warn!("unneeded blobs are not removed now: {error}");
            self.rest(self.every);
        }
    }

    fn rest(&mut self, time: Duration) {
        self.stage = Stage::Resting {
            until: Instant::now() + time.max(self.every),
        };
    }

    fn look(&mut self) -> io::Result<()> {
        let began = Instant::now();
        self.blobs.remove_old_parts()?;
        self.stage = Stage::Looking {
            began,
            old: self.blobs.look_for_old(),
        };
        Ok(())
    }

    /// Begins the round when it is known which blobs may go. False: it is not known yet.
    fn begin(&mut self) -> bool {
        let Stage::Looking { began, old } = &self.stage else {
            return true;
        };
        let began = *began;
        let found = match old.try_recv() {
            Err(TryRecvError::Empty) => return false,
            Err(TryRecvError::Disconnected) => Err(io::Error::other("nobody looked for them")),
            Ok(found) => found,
        };
        let begun = found.map(|old| {
            if old.is_empty() {
                return self.rest(self.every);
            }
            let needed = vec![false; old.len()];
            let round = Round {
                began,
                old,
                needed,
                listings: HashSet::new(),
                at: At::Open { from: 0 },
                removed: 0,
            };
            self.stage = Stage::Working(Box::new(round));
        });
        self.unless(begun);
        true
    }
}

impl Collector for Collecting {
    fn committed(&mut self, records: &[Record]) {
        if let Stage::Working(round) = &mut self.stage {
            let named: Vec<Reference> = records.iter().flat_map(references::of_record).collect();
            let heard = named
                .into_iter()
                .try_for_each(|reference| round.mark(&self.blobs, reference));
            self.unless(heard);
        }
    }

    fn step(
        &mut self,
        unfolded: &mut dyn Iterator<Item = &[Record]>,
    ) -> Result<CollectorStep, StoreError> {
        if matches!(self.room.disk(), Disk::Full(_)) {
            self.rest(EVERY);
            return Ok(CollectorStep::Rest);
        }
        match &mut self.stage {
            Stage::Resting { until } if Instant::now() < *until => return Ok(CollectorStep::Rest),
            Stage::Resting { .. } => {
                let looked = self.look();
                self.unless(looked);
                if !self.begin() {
                    return Ok(CollectorStep::Pause);
                }
                unfolded.for_each(|records| self.committed(records));
            }
            Stage::Looking { .. } => {
                if !self.begin() {
                    return Ok(CollectorStep::Pause);
                }
                unfolded.for_each(|records| self.committed(records));
            }
            Stage::Working(round) => {
                let worked = round.work(&self.blobs, &self.shelf)?;
                self.unless(worked);
            }
        }
        Ok(match &self.stage {
            Stage::Resting { .. } => CollectorStep::Rest,
            Stage::Looking { .. } => CollectorStep::Pause,
            Stage::Working(round) if round.is_done() => {
                if round.removed > 0 {
                    tracing::info!(
                        blobs = round.removed,
                        "blobs that nothing names were removed"
                    );
                }
                self.rest(round.began.elapsed() * SHARE);
                CollectorStep::Rest
            }
            Stage::Working(round) if matches!(round.at, At::Settling { .. }) => {
                CollectorStep::Pause
            }
            Stage::Working(_) => CollectorStep::More,
        })
    }
}

impl Round {
    fn is_done(&self) -> bool {
        matches!(self.at, At::Removing { index } if index >= self.old.len())
    }

    /// Crosses out what is needed; of a folder, what is in it.
    fn mark(&mut self, blobs: &Blobs, reference: Reference) -> io::Result<()> {
        self.cross_out(&reference.hash);
        if !reference.is_listing || !self.listings.insert(reference.hash) {
            return Ok(());
        }
        let bytes = match blobs.get(&reference.hash) {
            // Nobody can know what was in it.
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            read => read?,
        };
        let listing = Listing::decode(&bytes).map_err(io::Error::other)?;
        listing.blobs().iter().for_each(|hash| self.cross_out(hash));
        Ok(())
    }

    fn cross_out(&mut self, hash: &Hash) {
        if let Ok(index) = self.old.binary_search(hash) {
            self.needed[index] = true;
        }
    }

    fn work(&mut self, blobs: &Blobs, shelf: &Reader) -> Result<io::Result<()>, StoreError> {
        match self.at {
            At::Open { from } => {
                let page = view::open_from(shelf.as_ref(), from, PAGE)?;
                self.at = page.last().map_or(At::Ended { from: 0 }, |body| At::Open {
                    from: body.ordinal + 1,
                });
                let named = page.iter().flat_map(|body| references::of_body(body));
                Ok(self.mark_all(blobs, named.collect()))
            }
            At::Ended { from } => {
                let page = view::ended_from(shelf.as_ref(), from, PAGE)?;
                let mut named: Vec<Reference> = Vec::new();
                for task in &page {
                    named.extend(
                        references::of_body(&task.body).chain(references::of_ended(&task.ended)),
                    );
                }
                self.at = match page.last() {
                    Some(task) => At::Ended {
                        from: task.ended.seq + 1,
                    },
                    None => {
                        let modules = view::modules(shelf.as_ref())?;
                        modules
                            .iter()
                            .for_each(|(_, record)| named.extend(references::of_module(record)));
                        At::Settling { steps: 0 }
                    }
                };
                Ok(self.mark_all(blobs, named))
            }
            At::Settling { steps } if steps < SETTLE_STEPS => {
                self.at = At::Settling { steps: steps + 1 };
                Ok(Ok(()))
            }
            At::Settling { .. } => {
                self.at = At::Removing { index: 0 };
                if self.needed.contains(&false) {
                    // What the view has let go of must be gone for good: after a crash it would
                    // name these blobs again.
                    shelf.sync()?;
                }
                Ok(Ok(()))
            }
            At::Removing { index } => Ok(self.remove(blobs, index)),
        }
    }

    fn mark_all(&mut self, blobs: &Blobs, named: Vec<Reference>) -> io::Result<()> {
        named
            .into_iter()
            .try_for_each(|reference| self.mark(blobs, reference))
    }

    fn remove(&mut self, blobs: &Blobs, mut index: usize) -> io::Result<()> {
        let mut some = Vec::with_capacity(REMOVED_MAX);
        while let (Some(hash), true) = (self.old.get(index), some.len() < REMOVED_MAX) {
            if !self.needed[index] {
                some.push(*hash);
            }
            index += 1;
        }
        self.removed += blobs.remove(&some)?;
        self.at = At::Removing { index };
        Ok(())
    }
}

#[cfg(test)]
mod tests;
