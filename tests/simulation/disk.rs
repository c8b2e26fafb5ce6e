//! The writer and the fold, as [`taskmaster_engine::turns`] and [`taskmaster_engine::folding`] run
//! them. Between an append and its sync there is time in which the power may fail.

use crate::planted::{self, Planted};
use crate::world::{Happening, MS, SECOND, World};
use std::path::Path;
use std::sync::Arc;
use taskmaster_engine::committing;
use taskmaster_engine::disk_monitor::TRY_EVERY;
use taskmaster_engine::durable_commit::DurableCommit;
use taskmaster_engine::engine::Turn;
use taskmaster_engine::inbox::Input;
use taskmaster_store::codec;
use taskmaster_store::disk::{AMPLE_BYTES, LOW_BYTES};
use taskmaster_store::journal::{AppendError, Journal};
use taskmaster_store::record::{self, JournalEntry};
use taskmaster_store::view::Fold;

/// A commit that is being written: it is not synced, and maybe not appended.
pub struct Written {
    pub turns: Vec<Turn>,
    entry: Arc<JournalEntry>,
}

impl World {
    pub fn plan_write(&mut self) {
        let after = self.chance.within(1, 200);
        let Some(master) = &mut self.master else {
            return;
        };
        let idle = master.writing.is_none()
            && master.waits_for_space.is_none()
            && !master.waiting.is_empty();
        if idle && !std::mem::replace(&mut master.write_planned, true) {
            let life = master.life;
            self.plan(after, Happening::Write { life });
        }
    }

    /// Appends a commit: the one for which the disk was full before, or one of the turns that wait.
    pub fn write(&mut self) {
        let Some(master) = &mut self.master else {
            return;
        };
        master.write_planned = false;
        if master.writing.is_none()
            && let Some(written) = master.waits_for_space.take().or_else(|| self.pack())
        {
            self.append(written);
        }
    }

    /// Makes one commit of the turns that wait. Without a record there is nothing to commit, and the
    /// turns are released at once.
    fn pack(&mut self) -> Option<Written> {
        let master = self.master.as_mut()?;
        let mut turns: Vec<Turn> = master.waiting.drain(..).collect();
        let first_seq = turns.first()?.first_seq;
        let time = turns.last()?.time;
        let mut records: Vec<_> = turns
            .iter_mut()
            .flat_map(|turn| std::mem::take(&mut turn.records))
            .collect();
        if records.is_empty() {
            committing::release(turns);
            self.prune_allowed();
            self.flush();
            return None;
        }
        if let Some(planted) = self.planted {
            planted::spoil(
                planted,
                &mut records,
                |id| self.oracle.last_done(id),
                &mut self.chance,
            );
        }
        Some(Written {
            turns,
            entry: Arc::new(JournalEntry {
                first_seq,
                time,
                records,
            }),
        })
    }

    fn append(&mut self, Written { mut turns, entry }: Written) {
        let bytes = codec::encode(entry.as_ref());
        let Some(master) = &mut self.master else {
            return;
        };
        let number = master.journal.end() + 1;
        let forgotten = self.planted == Some(Planted::StaleCommit) && self.chance.permille(20);
        let appended = if forgotten {
            Ok(())
        } else {
            master.journal.append(number, &bytes)
        };
        match appended {
            Ok(()) => master.room.record_write(None),
            Err(AppendError::Unavailable(why)) => {
                master.room.record_write(Some(why));
                master.waits_for_space = Some(Written { turns, entry });
                master.write_planned = true;
                let life = master.life;
                self.note("no room", || number.to_string());
                self.plan(TRY_EVERY.as_micros() as u64, Happening::Write { life });
                return self.tell_disk_state();
            }
            Err(error) => self.oracle.broken = Some(format!("commit {number}: {error}")),
        }
        self.note("append", || format!("{entry:?}"));
        self.tell_disk_state();
        if self.planted == Some(Planted::EarlyAcknowledgement) {
            committing::release(std::mem::take(&mut turns));
            self.prune_allowed();
            self.flush();
        }
        let after = self.chance.within(50, self.swarm.sync);
        if let Some(master) = &mut self.master {
            master.writing = Some(Written { turns, entry });
            let life = master.life;
            self.plan(after, Happening::Synced { life });
        }
    }

    /// Tells the engine of the disk's free-space state, if that has changed.
    fn tell_disk_state(&mut self) {
        while let Some(input) = self
            .master
            .as_ref()
            .and_then(|master| master.disk_changes.try_recv().ok())
        {
            self.tell_master(input);
        }
    }

    /// The disk fills up: to the low mark, or until nothing can be written. The master finds out when
    /// it measures or writes.
    pub fn fill_disk(&mut self) {
        self.free = if self.chance.permille(600) {
            0
        } else {
            LOW_BYTES - 1
        };
        self.store.fill(self.free == 0);
        self.has_lacked_room = true;
        let measured_after = self.chance.within(0, 250 * MS);
        let freed_after = self.chance.spread(10 * MS, 3 * SECOND);
        self.plan(measured_after, Happening::Measures);
        self.plan(freed_after, Happening::SpaceFreed);
    }

    /// Somebody frees space on the disk.
    pub fn free_space(&mut self) {
        self.note("room", String::new);
        self.free = AMPLE_BYTES;
        self.store.fill(false);
        let measured_after = self.chance.within(0, 250 * MS);
        self.plan(measured_after, Happening::Measures);
    }

    /// The master measures the free space.
    pub fn measures(&mut self) {
        if let Some(master) = &self.master {
            master.room.record_free_bytes(Path::new("disk"), self.free);
            self.tell_disk_state();
        }
    }

    /// The sync of a commit has ended: what waited for it is released, or the master must end.
    pub fn synced(&mut self) {
        let Some(master) = &mut self.master else {
            return;
        };
        let Some(Written { turns, entry }) = master.writing.take() else {
            return;
        };
        if let Err(error) = master.journal.sync() {
            self.note("sync fails", || error.to_string());
            return self.kill_master(true);
        }
        master.listens = true;
        master.events.publish(&DurableCommit::of(entry.clone()));
        master.folds.push_back(entry.clone());
        self.plan_fold();
        let Some(master) = &mut self.master else {
            return;
        };
        let end = master.journal.end();
        self.note("synced", || end.to_string());
        self.oracle.commit_is_durable(&entry);
        committing::release(turns);
        self.prune_allowed();
        self.flush();
        self.plan_write();
    }

    fn plan_fold(&mut self) {
        let after = self.chance.within(100, self.swarm.fold);
        let Some(master) = &mut self.master else {
            return;
        };
        if !master.folds.is_empty() && !std::mem::replace(&mut master.fold_planned, true) {
            let life = master.life;
            self.plan(after, Happening::Fold { life });
        }
    }

    /// Folds some durable commits into the view.
    pub fn fold(&mut self) {
        let most = self.chance.within(1, 20) as usize;
        let reader = self.reader();
        let Some(master) = &mut self.master else {
            return;
        };
        master.fold_planned = false;
        // The fold also waits while the disk is full.
        if master.pruning.is_under_way() || self.store.is_full() {
            return self.plan_fold();
        }
        let count = most.min(master.folds.len());
        let entries: Vec<Arc<JournalEntry>> = master.folds.drain(..count).collect();
        self.plan_fold();
        let Some(last) = entries.last() else { return };
        let events = record::events_of(&last.records);
        let seq = last.first_seq + events - 1;
        let folded = Fold::begin(reader).and_then(|mut fold| {
            entries.iter().try_for_each(|entry| fold.take(entry))?;
            fold.write()
        });
        if let Err(error) = folded {
            self.oracle.broken = Some(format!("the view cannot be folded: {error}"));
        }
        self.note("folded", || seq.to_string());
        self.tell_master(Input::Folded { seq });
    }
}
