//! Bugs that this simulation plants to show that it would find them. It plants them in its own
//! writer, transport and gateway, and in what a starting master reads. The product has no code for
//! them.

use crate::chance::Chance;
use std::sync::Arc;
use taskmaster_engine::prepare::PreparedTask;
use taskmaster_protocol::message::Done;
use taskmaster_protocol::{Hash, TaskId, TaskState, ToMaster};
use taskmaster_store::record::{Ended, Record, TaskEnd, TaskOutput};
use taskmaster_store::view::RestoredView;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Planted {
    /// The writer reports a commit as synced before it is.
    EarlyAcknowledgement,
    /// Some commits are never written, and the master goes on.
    StaleCommit,
    /// A result that comes while its task is being cancelled wins over the cancel.
    RaceOfCancelAndDone,
    /// The reports of a runner are lost just after it has connected again: its credits stay taken.
    CreditsLeaked,
    /// The end of a skipped task is in memory only.
    LostSkipCascade,
    /// Some results are committed twice.
    DoubleDelivery,
    /// An attempt is known by its task alone: a late result of an old attempt counts as one of the
    /// newest.
    NoFence,
    /// A starting master uses the last seq again.
    SeqReused,
    /// A starting master does not know which sessions hold jobs.
    HoldForgotten,
    /// Tasks are pruned that open tasks name.
    PrunedWhileNamed,
    /// A connection that is gone renews the lease of its runner.
    VoidLease,
    /// A result that is reported just after a runner has connected again is acknowledged and lost.
    ResultLost,
    /// A watcher that connects again is sent only new events.
    WatcherGap,
    /// The pause of a job is in memory only.
    PauseLost,
    /// The key of an answer does not have the params.
    HalfAKey,
    /// A starting master keeps answers for a thousand times as long.
    AnswerTooOld,
    /// The end of a task that waited for an equal one is in memory only.
    JoinLost,
}

impl Planted {
    pub const ALL: [Planted; 17] = [
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
        Planted::HalfAKey,
        Planted::AnswerTooOld,
        Planted::JoinLost,
    ];
}

/// Spoils what the writer is about to write. `late` gives the last result that came for a task.
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
            match (planted, ended.end.state) {
                (Planted::RaceOfCancelAndDone, TaskState::Cancelled) => {
                    if let Some(done) = late(&ended.id) {
                        records[at] = Record::Ended(Arc::new(won(&ended, done)));
                    }
                }
                // Another event takes the place, so that no gap in the seqs tells of the loss.
                (Planted::LostSkipCascade, TaskState::Skipped) => {
                    records[at] = Record::RunnerLost {
                        name: "nobody".into(),
                    };
                }
                (Planted::JoinLost, _) if has_joined(&ended) => {
                    records[at] = Record::RunnerLost {
                        name: "nobody".into(),
                    };
                }
                (Planted::AnswerTooOld, _) => {
                    records[at] = Record::Ended(Arc::new(kept_for_longer(&ended)));
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

fn has_joined(ended: &Ended) -> bool {
    ended.end.cached().is_some_and(|source| source.joined)
}

fn kept_for_longer(ended: &Ended) -> Ended {
    let mut ended = ended.clone();
    let extras = ended.end.extras.as_deref_mut();
    if let Some(terms) = extras.and_then(|extras| extras.kept.as_deref_mut()) {
        terms.ttl_s *= 1_000;
    }
    ended
}

/// Spoils a document that the gateway has read.
pub fn misprepare(planted: Planted, task: &mut PreparedTask) {
    if let (Planted::HalfAKey, Some(request)) = (planted, &mut task.cache) {
        let module = task.document.module.name.as_str();
        request.document = Some(Hash::of(module.as_bytes()));
    }
}

fn won(ended: &Ended, done: Done) -> Ended {
    let result = Some(TaskOutput::new(done.result, done.outputs));
    let end = TaskEnd {
        state: TaskState::Done,
        attempt: done.attempt,
        result,
        error: None,
        ..ended.end.clone()
    };
    Ended {
        end,
        ..ended.clone()
    }
}

/// Spoils what a starting master has read.
pub fn misread(planted: Planted, restored: &mut RestoredView) {
    for (_, job) in &mut restored.jobs {
        match planted {
            Planted::HoldForgotten => job.holders.clear(),
            Planted::PauseLost => job.paused = false,
            _ => {}
        }
    }
    if planted == Planted::SeqReused {
        restored.watermarks.seq = restored.watermarks.seq.saturating_sub(1);
    }
}

/// Spoils a message of a runner, and returns whether the message arrives at all. `newest` gives the
/// last attempt that was sent of a task.
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
