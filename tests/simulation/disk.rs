//! The writer and the fold, as [`taskmaster_master::turns`] and [`taskmaster_master::folding`] do it, with time between
//! append and sync in which the power may go.

use crate::planted::{self, Planted};
use crate::world::{Happening, World};
use std::sync::Arc;
use taskmaster_master::engine::Turn;
use taskmaster_master::inbox::Input;
use taskmaster_master::journal::Journal;
use taskmaster_master::record::{self, Entry};
use taskmaster_master::turns;
use taskmaster_master::view::Fold;

/// A commit that is appended and not synced.
pub struct Written {
    pub turns: Vec<Turn>,
    entry: Arc<Entry>,
}

impl World {
    pub fn plan_write(&mut self) {
        let after = self.chance.within(1, 200);
        let Some(master) = &mut self.master else { return };
        if master.writing.is_none() && !master.waiting.is_empty() && !std::mem::replace(&mut master.write_planned, true)
        {
            let life = master.life;
            self.plan(after, Happening::Write { life });
        }
    }

    /// Takes the turns that wait, appends them as one commit; or releases them at once where there is none to make.
    pub fn write(&mut self) {
        let Some(master) = &mut self.master else { return };
        master.write_planned = false;
        if master.writing.is_some() {
            return;
        }
        let mut turns: Vec<Turn> = master.waiting.drain(..).collect();
        let Some((first_seq, time)) = turns.first().map(|turn| (turn.first_seq, turn.time)) else { return };
        let mut records: Vec<_> = turns.iter_mut().flat_map(|turn| std::mem::take(&mut turn.records)).collect();
        if records.is_empty() {
            turns::release(turns);
            return self.flush();
        }
        if let Some(planted) = self.planted {
            planted::spoil(planted, &mut records, |id| self.oracle.last_done(id), &mut self.chance);
        }
        let entry = Arc::new(Entry { first_seq, time, records });
        let bytes = record::encode(entry.as_ref());
        let Some(master) = &mut self.master else { return };
        let forgotten = self.planted == Some(Planted::StaleCommit) && self.chance.permille(20);
        if !forgotten {
            let number = master.journal.end() + 1;
            if let Err(error) = master.journal.append(number, &bytes) {
                self.oracle.broken = Some(format!("commit {number}: {error}"));
            }
        }
        self.note("append", || format!("{entry:?}"));
        if self.planted == Some(Planted::EarlyAcknowledgement) {
            turns::release(std::mem::take(&mut turns));
            self.flush();
        }
        let after = self.chance.within(50, self.swarm.sync);
        if let Some(master) = &mut self.master {
            master.writing = Some(Written { turns, entry });
            let life = master.life;
            self.plan(after, Happening::Synced { life });
        }
    }

    /// The disk has answered: what waited may be said, or the master must end.
    pub fn synced(&mut self) {
        let Some(master) = &mut self.master else { return };
        let Some(Written { turns, entry }) = master.writing.take() else { return };
        if let Err(error) = master.journal.sync() {
            self.note("sync fails", || error.to_string());
            return self.kill_master(true);
        }
        master.listens = true;
        master.events.publish(&entry);
        master.folds.push_back(entry.clone());
        self.plan_fold();
        let Some(master) = &mut self.master else { return };
        let end = master.journal.end();
        self.note("synced", || end.to_string());
        self.oracle.commit_is_durable(&entry);
        turns::release(turns);
        self.flush();
        self.plan_write();
    }

    fn plan_fold(&mut self) {
        let after = self.chance.within(100, self.swarm.fold);
        let Some(master) = &mut self.master else { return };
        if !master.folds.is_empty() && !std::mem::replace(&mut master.fold_planned, true) {
            let life = master.life;
            self.plan(after, Happening::Fold { life });
        }
    }

    /// Folds some of what is durable, at any moment.
    pub fn fold(&mut self) {
        let most = self.chance.within(1, 20) as usize;
        let reader = self.reader();
        let Some(master) = &mut self.master else { return };
        master.fold_planned = false;
        if master.pruning.is_under_way() {
            return self.plan_fold();
        }
        let count = most.min(master.folds.len());
        let entries: Vec<Arc<Entry>> = master.folds.drain(..count).collect();
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
