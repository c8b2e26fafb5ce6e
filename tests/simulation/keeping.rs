//! What is no longer kept: ended tasks are pruned, in the two steps in which the fold does it, and
//! the journal is trimmed.

use crate::planted::Planted;
use crate::runners::Runner;
use crate::world::{Happening, MS, World};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;
use taskmaster_engine::disk_monitor::TRY_EVERY;
use taskmaster_engine::folding;
use taskmaster_engine::inbox::Input;
use taskmaster_engine::settings::Keep;
use taskmaster_protocol::AttemptId;
use taskmaster_protocol::message::Attempt;
use taskmaster_store::view::EndedTask;
use taskmaster_store::{journal, view};

/// How many ended tasks are looked at for pruning at a time.
const PRUNED_MAX: usize = 64;

/// What the fold has asked the engine.
struct PruneQuestion {
    /// The tasks to be pruned.
    candidates: Vec<EndedTask>,
    /// Brings those of the candidates that nobody needs.
    answer: Receiver<Vec<EndedTask>>,
}

/// The pruning that is under way.
#[derive(Default)]
pub struct Pruning {
    asked: Option<PruneQuestion>,
    /// The tasks that the engine has let go, until they are out of the view.
    allowed: Vec<EndedTask>,
}

impl Pruning {
    /// Whether tasks are being pruned. The fold does nothing else meanwhile.
    pub fn is_under_way(&self) -> bool {
        self.asked.is_some() || !self.allowed.is_empty()
    }
}

/// Whether a runner has a report of this task that the master has not acknowledged. A task is pruned
/// an hour after its end, and no runner is cut off for that long. Here hours pass in a moment, so
/// such tasks are left out.
fn is_held(runners: &[Runner], task: &EndedTask) -> bool {
    let last = task.ended.end.last_sent;
    let attempt = |n| Attempt {
        id: task.ended.id.clone(),
        attempt: AttemptId { n, ..last },
    };
    let held = |runner: &Runner| {
        let session = runner.session.as_ref();
        session.is_some_and(|session| (1..=last.n).any(|n| session.holds(&attempt(n))))
    };
    runners.iter().any(held)
}

impl World {
    /// The fold asks the engine which of the oldest ended tasks nobody needs.
    pub fn prune(&mut self) {
        let reader = self.reader();
        let keep = Keep {
            time: Duration::from_secs(3_600),
            count: self.chance.below(20),
        };
        let wall = self.clock().wall;
        let Some(master) = self
            .master
            .as_mut()
            .filter(|master| !master.pruning.is_under_way())
        else {
            return;
        };
        let runners = &self.runners;
        let tasks = match folding::surplus(reader.as_ref(), keep, wall, 0, PRUNED_MAX) {
            Ok(surplus) => surplus
                .tasks
                .into_iter()
                .filter(|task| !is_held(runners, task))
                .collect::<Vec<_>>(),
            Err(error) => {
                return self.oracle.broken = Some(format!("the view cannot be read: {error}"));
            }
        };
        if !tasks.is_empty() {
            let (reply, answer) = channel();
            master.pruning.asked = Some(PruneQuestion {
                candidates: tasks.clone(),
                answer,
            });
            self.tell_master(Input::Prune { tasks, reply });
        }
    }

    /// Takes the engine's answer, if there is one. What the engine knew when it answered is durable.
    pub fn prune_allowed(&mut self) {
        let Some(master) = &mut self.master else {
            return;
        };
        let Some(question) = &master.pruning.asked else {
            return;
        };
        let Ok(mut allowed) = question.answer.try_recv() else {
            return;
        };
        if self.planted == Some(Planted::PrunedWhileNamed) {
            allowed = question.candidates.clone();
        }
        master.pruning.asked = None;
        master.pruning.allowed = allowed.clone();
        let life = master.life;
        let ids: Vec<String> = allowed
            .iter()
            .map(|stored| stored.ended.id.to_string())
            .collect();
        self.note("may be pruned", || ids.join(" "));
        self.oracle.forgets(&allowed);
        if !allowed.is_empty() {
            let after = self.chance.within(1, 50 * MS);
            self.plan(after, Happening::Forget { life });
        }
    }

    /// Takes the pruned tasks out of the view.
    pub fn forget(&mut self) {
        let reader = self.reader();
        let Some(master) = &mut self.master else {
            return;
        };
        if self.store.is_full() {
            let life = master.life;
            return self.plan(TRY_EVERY.as_micros() as u64, Happening::Forget { life });
        }
        let allowed = std::mem::take(&mut master.pruning.allowed);
        if let Err(error) = folding::forget(&reader, &allowed) {
            self.oracle.broken = Some(format!("the view cannot be written: {error}"));
        }
        self.note("pruned", || allowed.len().to_string());
    }

    /// Trims the journal: some commits that are in the view are dropped.
    pub fn trim(&mut self) {
        let reader = self.reader();
        let (Ok(Some(first)), Ok(last), Ok(marks)) = (
            journal::first(&reader),
            journal::last(&reader),
            view::watermarks(reader.as_ref()),
        ) else {
            return;
        };
        let most = marks.folded.min(last.saturating_sub(1));
        if self.master.is_none() || most <= first || self.store.is_full() || reader.sync().is_err()
        {
            return;
        }
        self.oracle.all_is_synced();
        let below = self.chance.within(first, most);
        if let (Ok(()), Ok(Some(entry))) = (
            journal::trim(&reader, below),
            journal::entry(&reader, below),
        ) {
            self.oracle.kept_from = entry.first_seq;
        }
        self.note("trimmed", || below.to_string());
    }
}
