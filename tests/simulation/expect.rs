//! What must follow from one input, by the model: which answer, and which tasks end. Looked at in
//! turns that take in a single input.

use crate::model::{Fate, Model};
use std::collections::{BTreeMap, BTreeSet};
use taskmaster_engine::engine::{Release, Turn};
use taskmaster_engine::inbox::Input;
use taskmaster_engine::prepare::Prepared;
use taskmaster_engine::room::Disk;
use taskmaster_protocol::message::{Attempt, Done, Failed, Operation};
use taskmaster_protocol::{
    ErrorKind, FromMaster, JobName, RefusalCode, TaskId, TaskState, ToMaster,
};
use taskmaster_store::record::Record;

type Refusable<T> = Result<T, RefusalCode>;

/// What one input must bring.
#[derive(Debug, Default)]
pub struct Expected {
    answer: Answer,
    /// Must end so; where a whole job is cancelled, some may be skipped instead.
    ends: BTreeMap<TaskId, TaskState>,
    /// May fail.
    may_fail: BTreeSet<TaskId>,
    /// May be done.
    may_be_done: BTreeSet<TaskId>,
}

#[derive(Debug, Default)]
enum Answer {
    #[default]
    Any,
    /// To a wish, with a count where it has one.
    Wish(u64, Refusable<Option<(&'static str, u64)>>),
    /// To a batch: each document, and whether the task had ended before.
    Batch(u64, Vec<Refusable<(TaskId, bool)>>),
}

impl Model {
    /// What must follow from an input when it stands so with the disk.
    pub fn expects(&self, input: &Input, disk: &Disk) -> Expected {
        let full = matches!(disk, Disk::Full(_));
        let reference = match input {
            _ if *disk == Disk::Ample => return self.expects_with_room(input),
            Input::Add { .. } => {
                let mut expected = self.expects_with_room(input);
                if let Answer::Batch(_, outcomes) = &mut expected.answer {
                    let ids = prepared(input).map(|task| &task.id);
                    let new = outcomes
                        .iter_mut()
                        .zip(ids)
                        .filter(|(_, id)| !self.tasks.contains_key(*id));
                    new.for_each(|(outcome, _)| *outcome = Err(RefusalCode::Unavailable));
                }
                return expected;
            }
            Input::Message {
                message: ToMaster::Retry(retry),
                ..
            } => retry.reference,
            Input::Message {
                message: ToMaster::Cancel(cancel),
                ..
            } if full => cancel.reference,
            Input::Message {
                message: ToMaster::Set(set),
                ..
            } if full => set.reference,
            Input::Message {
                message: ToMaster::Operate(operate),
                ..
            } if full && !matches!(operate.operation, Operation::DrainRunner { .. }) => {
                operate.reference
            }
            // They are held back.
            Input::Reports { .. }
            | Input::Message {
                message: ToMaster::Failed(_),
                ..
            } if full => {
                return Expected::default();
            }
            _ => return self.expects_with_room(input),
        };
        Expected {
            answer: Answer::Wish(reference, Err(RefusalCode::Unavailable)),
            ..Expected::default()
        }
    }

    fn expects_with_room(&self, input: &Input) -> Expected {
        let mut expected = Expected::default();
        match input {
            Input::Message {
                message: ToMaster::Cancel(cancel),
                ..
            } => {
                let open: Refusable<Vec<TaskId>> = match &cancel.job {
                    Some(job) => self.open_of(job),
                    None => cancel
                        .ids
                        .iter()
                        .filter_map(|id| self.cancels(id).transpose())
                        .collect(),
                };
                let count = open
                    .as_ref()
                    .map(|open| Some(("cancelled", open.len() as u64)))
                    .map_err(|code| *code);
                expected.answer = Answer::Wish(cancel.reference, count);
                expected.ends = open
                    .unwrap_or_default()
                    .into_iter()
                    .map(|id| (id, TaskState::Cancelled))
                    .collect();
            }
            Input::Message {
                message: ToMaster::Retry(retry),
                ..
            } => {
                let verdict = retry.ids.iter().try_for_each(|id| self.retries(id));
                expected.answer = Answer::Wish(retry.reference, verdict.map(|()| None));
            }
            Input::Message {
                message: ToMaster::Set(set),
                ..
            } => {
                let verdict = match self.tasks.get(&set.id) {
                    None => Err(RefusalCode::UnknownTask),
                    Some(fate) if !fate.open => Err(RefusalCode::WrongState),
                    Some(_) => Ok(None),
                };
                expected.answer = Answer::Wish(set.reference, verdict);
            }
            Input::Message {
                message: ToMaster::Operate(operate),
                ..
            } => {
                if let Operation::PauseJob { job } | Operation::ResumeJob { job } =
                    &operate.operation
                {
                    let known = self.jobs.contains_key(job);
                    let verdict = if known {
                        Ok(None)
                    } else {
                        Err(RefusalCode::UnknownJob)
                    };
                    expected.answer = Answer::Wish(operate.reference, verdict);
                }
            }
            Input::Reports { reports, .. } => {
                let reports: Vec<&Done> = reports.iter().map(|report| &report.done).collect();
                let counts = |done: &&&Done| {
                    self.counts(&Attempt {
                        id: done.id.clone(),
                        attempt: done.attempt,
                    })
                    .is_some()
                };
                expected.ends = reports
                    .iter()
                    .filter(counts)
                    .map(|done| (done.id.clone(), TaskState::Done))
                    .collect();
                let may = |done: &&&Done| {
                    self.tasks
                        .get(&done.id)
                        .is_some_and(|fate| fate.open && fate.may_succeed(done.attempt))
                };
                expected.may_be_done = reports
                    .iter()
                    .filter(may)
                    .map(|done| done.id.clone())
                    .collect();
            }
            Input::Message {
                message: ToMaster::Failed(reports),
                ..
            } => {
                // A runner may tell of several attempts at once: those that no master had heard of
                // when it ended.
                let mut before: BTreeMap<TaskId, u32> = BTreeMap::new();
                let fails = |failed: &&Failed| {
                    let fate = self.counts(&Attempt {
                        id: failed.id.clone(),
                        attempt: failed.attempt,
                    });
                    let (Some(fate), false) = (fate, failed.error.kind == ErrorKind::Cancelled)
                    else {
                        return false;
                    };
                    let earlier = before.entry(failed.id.clone()).or_default();
                    *earlier += 1;
                    !fate.tries_again(&failed.error, *earlier - 1)
                };
                expected.may_fail = reports
                    .iter()
                    .filter(fails)
                    .map(|failed| failed.id.clone())
                    .collect();
            }
            Input::Add { batch, tasks, .. } => {
                let prepared: Vec<&Prepared> = prepared(input).collect();
                if prepared.len() == tasks.len() {
                    expected.answer = Answer::Batch(*batch, self.admits(&prepared));
                }
            }
            _ => {}
        }
        expected
    }

    /// Whether a report of this attempt decides about its task.
    fn counts(&self, attempt: &Attempt) -> Option<&Fate> {
        let fate = self.tasks.get(&attempt.id)?;
        (fate.open && fate.waits.is_empty() && attempt.attempt > fate.fence).then_some(fate)
    }

    fn open_of(&self, job: &JobName) -> Refusable<Vec<TaskId>> {
        let open = self
            .tasks
            .iter()
            .filter(|(_, fate)| fate.open && fate.body.job == *job);
        let known = self.jobs.contains_key(job);
        if known {
            Ok(open.map(|(id, _)| id.clone()).collect())
        } else {
            Err(RefusalCode::UnknownJob)
        }
    }

    fn cancels(&self, id: &TaskId) -> Refusable<Option<TaskId>> {
        let fate = self.tasks.get(id).ok_or(RefusalCode::UnknownTask)?;
        match fate
            .ends
            .last()
            .filter(|_| !fate.open)
            .map(|ended| ended.state)
        {
            None => Ok(Some(id.clone())),
            Some(TaskState::Cancelled) => Ok(None),
            Some(_) => Err(RefusalCode::WrongState),
        }
    }

    fn retries(&self, id: &TaskId) -> Refusable<()> {
        let fate = self.tasks.get(id).ok_or(RefusalCode::UnknownTask)?;
        let ended = fate
            .ends
            .last()
            .filter(|_| !fate.open)
            .ok_or(RefusalCode::WrongState)?;
        // Whether what is no longer kept was done, nobody can tell; one that was sent has waited
        // for it.
        let kept = self.lost_dependency(&fate.body).is_none();
        let has_waited = ended.last_sent.n > 0 && !fate.body.is_continued();
        match ended.state {
            TaskState::Failed | TaskState::Cancelled if kept || has_waited => Ok(()),
            _ => Err(RefusalCode::WrongState),
        }
    }

    /// Which documents of a batch are taken: in whatever order, as long as nothing waits for what
    /// nobody knows.
    fn admits(&self, tasks: &[&Prepared]) -> Vec<Refusable<(TaskId, bool)>> {
        let mut outcomes: BTreeMap<usize, Refusable<(TaskId, bool)>> = BTreeMap::new();
        let mut taken: BTreeMap<&TaskId, [u8; 16]> = BTreeMap::new();
        loop {
            let before = outcomes.len();
            for (index, task) in tasks.iter().enumerate() {
                if outcomes.contains_key(&index) {
                    continue;
                }
                let fate = self.tasks.get(&task.id);
                let document = fate
                    .map(|fate| fate.body.document)
                    .or_else(|| taken.get(&task.id).copied());
                let outcome = match document {
                    Some(document) if document == task.hash => {
                        Ok((task.id.clone(), fate.is_some_and(|fate| !fate.open)))
                    }
                    Some(_) => Err(RefusalCode::IdConflict),
                    None if !self.usable(task) => Err(RefusalCode::UnknownModule),
                    None if needs(task)
                        .all(|on| self.tasks.contains_key(on) || taken.contains_key(on)) =>
                    {
                        taken.insert(&task.id, task.hash);
                        Ok((task.id.clone(), false))
                    }
                    None => continue,
                };
                outcomes.insert(index, outcome);
            }
            if outcomes.len() == before {
                break;
            }
        }
        let rest = |index| {
            outcomes
                .remove(&index)
                .unwrap_or(Err(RefusalCode::UnknownDependency))
        };
        (0..tasks.len()).map(rest).collect()
    }

    fn usable(&self, task: &Prepared) -> bool {
        self.modules
            .get(&task.document.module.name)
            .is_some_and(|record| record.present)
    }
}

/// The documents of an add that are right on their own.
fn prepared(input: &Input) -> impl Iterator<Item = &Prepared> {
    let tasks = if let Input::Add { tasks, .. } = input {
        tasks.as_slice()
    } else {
        &[]
    };
    tasks.iter().flatten().map(|task| &**task)
}

fn needs(task: &Prepared) -> impl Iterator<Item = &TaskId> {
    task.document
        .dependencies
        .iter()
        .map(|dependency| &dependency.on)
        .chain(&task.references)
}

impl Expected {
    /// It comes over a line that its runner has given up: the next one may bring it first, and
    /// brings it in any case.
    pub fn comes_late(&mut self) {
        self.ends.clear();
    }

    /// Whether the turn brought it.
    pub fn judge(&self, turn: &Turn) -> Result<(), String> {
        let mut missing = self.ends.clone();
        for record in &turn.records {
            let Record::Ended(ended) = record else {
                continue;
            };
            let poison = ended
                .error
                .as_ref()
                .is_some_and(|error| error.kind == ErrorKind::RunnerLost);
            let wanted = missing.remove(&ended.id);
            let right = match ended.state {
                // Each is judged by what it waited for.
                TaskState::Skipped => true,
                TaskState::Failed => poison || self.may_fail.contains(&ended.id),
                TaskState::Done => {
                    wanted == Some(TaskState::Done) || self.may_be_done.contains(&ended.id)
                }
                state => wanted == Some(state),
            };
            if !right {
                return Err(format!(
                    "{} ends as {:?}, and {self:?} was expected",
                    ended.id, ended.state
                ));
            }
        }
        if !missing.is_empty() {
            return Err(format!("{missing:?} should have ended so"));
        }
        let said = turn.after.iter().filter_map(|release| match release {
            Release::Say(_, message) => Some(message),
            Release::Reply(..) | Release::Pruned(..) => None,
        });
        // What promises nothing need not wait.
        let refused = turn
            .now
            .iter()
            .map(|(_, message)| message)
            .filter(|message| match message {
                FromMaster::Added(added) => added.ids.is_empty(),
                message => matches!(message, FromMaster::Refused(_) | FromMaster::Rejected(_)),
            });
        self.judge_answer(said.chain(refused).collect())
    }

    fn judge_answer(&self, said: Vec<&FromMaster>) -> Result<(), String> {
        let right = match &self.answer {
            Answer::Any => true,
            Answer::Wish(reference, wanted) => said.iter().any(|message| match message {
                FromMaster::Answer(answer) => {
                    let counts: BTreeMap<String, u64> = answer.data.read().unwrap_or_default();
                    let count = |(name, n): (&str, u64)| counts.get(name) == Some(&n);
                    answer.reference == *reference
                        && wanted.is_ok_and(|wanted| wanted.is_none_or(count))
                }
                FromMaster::Refused(refused) => {
                    // Whether a runner has let go of it yet is not the model's to know.
                    let busy = refused.error.message.contains("still being stopped");
                    refused.reference == Some(*reference)
                        && (busy || wanted.err() == Some(refused.error.code))
                }
                _ => false,
            }),
            Answer::Batch(batch, wanted) => judge_batch(*batch, wanted, &said),
        };
        if right {
            Ok(())
        } else {
            Err(format!(
                "{:?} was expected, and it said {said:?}",
                self.answer
            ))
        }
    }
}

fn judge_batch(batch: u64, wanted: &[Refusable<(TaskId, bool)>], said: &[&FromMaster]) -> bool {
    let refused: Vec<(usize, RefusalCode)> = said
        .iter()
        .filter_map(|message| match message {
            FromMaster::Rejected(rejected) if rejected.batch == batch => Some(&rejected.tasks),
            _ => None,
        })
        .flatten()
        .map(|rejection| (rejection.index, rejection.error.code))
        .collect();
    // A cycle is an unknown dependency with a better explanation.
    let same = |code: RefusalCode, wanted: RefusalCode| {
        code == wanted
            || (code, wanted) == (RefusalCode::DependencyCycle, RefusalCode::UnknownDependency)
    };
    let wants_refused: Vec<(usize, RefusalCode)> = wanted
        .iter()
        .enumerate()
        .filter_map(|(index, outcome)| Some((index, outcome.as_ref().err().copied()?)))
        .collect();
    let ids: Vec<TaskId> = wanted.iter().flatten().map(|(id, _)| id.clone()).collect();
    let ended: Vec<TaskId> = wanted
        .iter()
        .flatten()
        .filter(|(_, ended)| *ended)
        .map(|(id, _)| id.clone())
        .collect();
    let added = said.iter().any(|message| match message {
        FromMaster::Added(added) => {
            added.batch == batch && (&added.ids, &added.ended) == (&ids, &ended)
        }
        _ => false,
    });
    added
        && refused.len() == wants_refused.len()
        && refused
            .iter()
            .zip(&wants_refused)
            .all(|(is, wanted)| is.0 == wanted.0 && same(is.1, wanted.1))
}
