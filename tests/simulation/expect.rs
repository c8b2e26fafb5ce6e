//! What must follow from one input, by the model: which answer, and which tasks end. This is judged
//! in turns that take in a single input.

use crate::model::{Fate, Model};
use std::collections::{BTreeMap, BTreeSet};
use taskmaster_engine::disk_space::DiskSpace;
use taskmaster_engine::engine::{DeferredEffect, Turn};
use taskmaster_engine::inbox::Input;
use taskmaster_engine::prepare::PreparedTask;
use taskmaster_protocol::message::{Attempt, Done, Failed, Operation};
use taskmaster_protocol::{
    ErrorKind, FromMaster, JobName, RefusalCode, TaskId, TaskState, ToMaster,
};
use taskmaster_store::body::Fingerprint;
use taskmaster_store::record::Record;

type Refusable<T> = Result<T, RefusalCode>;

/// What one input must lead to.
#[derive(Debug, Default)]
pub struct Expected {
    answer: Answer,
    /// The tasks that must end, and how. If a whole job is cancelled, some may be skipped instead.
    ends: BTreeMap<TaskId, TaskState>,
    /// The tasks that may fail.
    may_fail: BTreeSet<TaskId>,
    /// The tasks that may be done.
    may_be_done: BTreeSet<TaskId>,
}

#[derive(Debug, Default)]
enum Answer {
    #[default]
    Any,
    /// The answer to a request with this reference, with the name and the value of a count if there
    /// is one.
    Request(u64, Refusable<Option<(&'static str, u64)>>),
    /// The answer to a batch of this number: for each document its id, and whether the task had ended
    /// before.
    Batch(u64, Vec<Refusable<(TaskId, bool)>>),
}

impl Model {
    /// What must follow from an input with this free-space state of the disk.
    pub fn expects(&self, input: &Input, disk: &DiskSpace) -> Expected {
        let full = matches!(disk, DiskSpace::Full(_));
        let reference = match input {
            _ if *disk == DiskSpace::Ample => return self.expects_with_space(input),
            Input::Add { .. } => {
                let mut expected = self.expects_with_space(input);
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
            // Reports are held back until the disk has space.
            Input::Reports { .. }
            | Input::Message {
                message: ToMaster::Failed(_),
                ..
            } if full => {
                return Expected::default();
            }
            _ => return self.expects_with_space(input),
        };
        Expected {
            answer: Answer::Request(reference, Err(RefusalCode::Unavailable)),
            ..Expected::default()
        }
    }

    fn expects_with_space(&self, input: &Input) -> Expected {
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
                expected.answer = Answer::Request(cancel.reference, count);
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
                expected.answer = Answer::Request(retry.reference, verdict.map(|()| None));
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
                expected.answer = Answer::Request(set.reference, verdict);
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
                    expected.answer = Answer::Request(operate.reference, verdict);
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
                // A runner may report several attempts of a task at once, because no master has taken
                // its reports for a while.
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
                let prepared: Vec<&PreparedTask> = prepared(input).collect();
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
            .map(|ended| ended.end.state)
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
        // Nobody knows how a task ended that is no longer kept. But a task that was sent has waited
        // for it.
        let kept = self.lost_dependency(&fate.body).is_none();
        let has_waited = ended.end.last_sent.n > 0 && !fate.body.is_continued();
        match ended.end.state {
            TaskState::Failed | TaskState::Cancelled if kept || has_waited => Ok(()),
            _ => Err(RefusalCode::WrongState),
        }
    }

    /// Which documents of a batch are taken. Their order does not matter, as long as no task waits
    /// for an unknown one.
    fn admits(&self, tasks: &[&PreparedTask]) -> Vec<Refusable<(TaskId, bool)>> {
        let mut outcomes: BTreeMap<usize, Refusable<(TaskId, bool)>> = BTreeMap::new();
        let mut taken: BTreeMap<&TaskId, Fingerprint> = BTreeMap::new();
        loop {
            let before = outcomes.len();
            for (index, task) in tasks.iter().enumerate() {
                if outcomes.contains_key(&index) {
                    continue;
                }
                let fate = self.tasks.get(&task.id);
                let document = fate
                    .map(|fate| fate.body.fingerprint)
                    .or_else(|| taken.get(&task.id).copied());
                let outcome = match document {
                    Some(document) if document == task.fingerprint => {
                        Ok((task.id.clone(), fate.is_some_and(|fate| !fate.open)))
                    }
                    Some(_) => Err(RefusalCode::IdConflict),
                    None if !self.usable(task) => Err(RefusalCode::UnknownModule),
                    None if needs(task)
                        .all(|on| self.tasks.contains_key(on) || taken.contains_key(on)) =>
                    {
                        taken.insert(&task.id, task.fingerprint);
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

    fn usable(&self, task: &PreparedTask) -> bool {
        self.modules
            .get(&task.document.module.name)
            .is_some_and(|record| record.present)
    }
}

/// The documents of an add that are valid on their own.
fn prepared(input: &Input) -> impl Iterator<Item = &PreparedTask> {
    let tasks = if let Input::Add { tasks, .. } = input {
        tasks.as_slice()
    } else {
        &[]
    };
    tasks.iter().flatten().map(|task| &**task)
}

fn needs(task: &PreparedTask) -> impl Iterator<Item = &TaskId> {
    task.document
        .dependencies
        .iter()
        .map(|dependency| &dependency.on)
        .chain(&task.references.tasks)
}

impl Expected {
    /// Expects no ends, because the runner has given up the connection that the input came over. The
    /// reports come over the next one, too, and may have come already.
    pub fn comes_late(&mut self) {
        self.ends.clear();
    }

    /// Whether a turn has led to what was expected.
    pub fn judge(&self, turn: &Turn) -> Result<(), String> {
        let mut missing = self.ends.clone();
        for record in &turn.records {
            let Record::Ended(ended) = record else {
                continue;
            };
            let poison = ended
                .end
                .error
                .as_ref()
                .is_some_and(|error| error.kind == ErrorKind::RunnerLost);
            let wanted = missing.remove(&ended.id);
            let right = match ended.end.state {
                // The model judges an answer by the task that came to it.
                _ if ended.end.cached().is_some() => true,
                // The model judges a skipped task by what it waited for.
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
                    ended.id, ended.end.state
                ));
            }
        }
        if !missing.is_empty() {
            return Err(format!("{missing:?} should have ended so"));
        }
        let said = turn.after.iter().filter_map(|release| match release {
            DeferredEffect::Say(_, message) => Some(message),
            DeferredEffect::Reply(..) | DeferredEffect::Pruned(..) => None,
        });
        // Messages that promise nothing need not wait for the commit.
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
            Answer::Request(reference, wanted) => said.iter().any(|message| match message {
                FromMaster::Answer(answer) => {
                    let counts: BTreeMap<String, u64> = answer.data.read().unwrap_or_default();
                    let count = |(name, n): (&str, u64)| counts.get(name) == Some(&n);
                    answer.reference == *reference
                        && wanted.is_ok_and(|wanted| wanted.is_none_or(count))
                }
                FromMaster::Refused(refused) => {
                    // The model does not know whether a runner holds an attempt of an ended task.
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
    // A dependency cycle is an unknown dependency with a better explanation.
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
            added.batch == batch && added.ids == ids && added.ended == ended
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
