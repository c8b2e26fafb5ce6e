//! Bugs that this simulation can plant, to show that it would find such: in its own writer,
//! transport and gateway, and in what a starting master reads. The product has no code for them.

use crate::chance::Chance;
use std::sync::Arc;
use taskmaster_protocol::message::Done;
use taskmaster_protocol::{TaskId, TaskState, ToMaster};
use taskmaster_store::record::{Ended, Gave, Record};
use taskmaster_store::view::Restored;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Planted {
    /// The writer says that a commit is safe before it is synced.
    EarlyAcknowledgement,
    /// One commit is never written, and the master goes on.
    StaleCommit,
    /// A result that comes while its task is being cancelled wins over the cancel.
    RaceOfCancelAndDone,
    /// After a reconnect a runner does not tell again what it told into the broken line: its
    /// credits stay taken.
    CreditsLeaked,
    /// A task that is skipped is so in memory only.
    LostSkipCascade,
    /// A result that is delivered twice is committed twice.
    DoubleDelivery,
    /// An attempt is known by its task alone: a late result of a former attempt counts as one of
    /// the present.
    NoFence,
    /// A starting master counts events from the last but one.
    SeqReused,
    /// A starting master does not know who holds jobs.
    HoldForgotten,
    /// Tasks are pruned that open ones name.
    PrunedWhileNamed,
    /// A connection that is gone renews its runner's lease.
    VoidLease,
    /// A result that is told again after a reconnect is acknowledged, and lost.
    ResultLost,
    /// A watcher that is back goes on at the end.
    WatcherGap,
    /// A job's pause is in memory only.
    PauseLost,
}

impl Planted {
    pub const ALL: [Planted; 14] = [
        Planted::EarlyAcknowledgement,
        Planted::StaleCommit,
        Planted::RaceOfCancelAndDone,
        Planted::CreditsLeaked,
        Planted::LostSkipCascade,
        Planted::DoubleDelivery,
        Planted::NoFence,
        Planted::SeqReused,
        Planted::HoldForgotten,
        Planted::PrunedWhileNamed,
        Planted::VoidLease,
        Planted::ResultLost,
        Planted::WatcherGap,
        Planted::PauseLost,
    ];
}

/// What the writer is about to write, spoilt. `late` knows results that came for tasks.
pub fn spoil(
    planted: Planted,
    records: &mut Vec<Record>,
    late: impl Fn(&TaskId) -> Option<Done>,
    chance: &mut Chance,
) {
    let mut at = 0;
    while at < records.len() {
        if let Record::Ended(ended) = &records[at] {
            let ended = ended.clone();
            match (planted, ended.state) {
                (Planted::RaceOfCancelAndDone, TaskState::Cancelled) => {
                    if let Some(done) = late(&ended.id) {
                        records[at] = Record::Ended(Arc::new(won(&ended, done)));
                    }
                }
                // Another event in its place: what is lost is not told by a hole in the numbers.
                (Planted::LostSkipCascade, TaskState::Skipped) => {
                    records[at] = Record::RunnerLost {
                        name: "nobody".into(),
                    };
                }
                (Planted::DoubleDelivery, TaskState::Done) if chance.permille(100) => {
                    records.insert(at, Record::Ended(ended));
                    at += 1;
                }
                _ => {}
            }
        }
        at += 1;
    }
}

fn won(ended: &Ended, done: Done) -> Ended {
    let result = Some(Gave::new(done.result, done.outputs));
    Ended {
        state: TaskState::Done,
        attempt: done.attempt,
        result,
        error: None,
        ..ended.clone()
    }
}

/// What a starting master has read, spoilt.
pub fn misread(planted: Planted, restored: &mut Restored) {
    for (_, job) in &mut restored.jobs {
        match planted {
            Planted::HoldForgotten => job.holders.clear(),
            Planted::PauseLost => job.paused = false,
            _ => {}
        }
    }
    if planted == Planted::SeqReused {
        restored.marks.seq = restored.marks.seq.saturating_sub(1);
    }
}

/// What a runner says, spoilt on its way. `newest` is the last attempt sent of a task. False: it is
/// lost.
pub fn garble(
    planted: Planted,
    message: &mut ToMaster,
    just_back: bool,
    newest: impl Fn(&TaskId) -> Option<taskmaster_protocol::AttemptId>,
) -> bool {
    match (planted, message) {
        (Planted::CreditsLeaked, ToMaster::Done(_) | ToMaster::Failed(_)) => !just_back,
        (Planted::NoFence, ToMaster::Done(reports)) => {
            for report in reports {
                report.attempt = newest(&report.id).unwrap_or(report.attempt);
            }
            true
        }
        _ => true,
    }
}
