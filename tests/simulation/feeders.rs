//! Feeders. They add batches with dependencies, and send them again after a reconnect until they are
//! acknowledged. They also cancel, retry and change tasks, and do what operators do.

use crate::chance::{Chance, Swarm};
use crate::master::MODULES;
use crate::network::{Client, Parcel};
use crate::world::{Happening, MS, World};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use taskmaster_protocol::message::{
    Add, Added, Cancel, ChangeTask, JobRef, Operate, Operation, Rejected, Retry,
};
use taskmaster_protocol::{FromMaster, JobName, Json, ModuleName, RefusalCode, TaskId, ToMaster};

const JOBS: [&str; 3] = ["alpha", "beta", "gamma"];

/// A batch that is not acknowledged.
#[derive(Debug, Clone)]
struct Batch {
    add: Add,
    wanted: Vec<Wanted>,
    /// Indices of the documents that were refused.
    refused: Vec<usize>,
    /// Indices of the documents that were refused because the disk was full.
    put_off: Vec<usize>,
}

/// A document as it was sent, and whether it must be taken or refused.
#[derive(Debug, Clone)]
struct Wanted {
    id: TaskId,
    text: Json,
    verdict: Result<(), RefusalCode>,
}

/// A request that a feeder waits for the answer to.
#[derive(Debug)]
pub enum FeederRequest {
    /// A cancel of these tasks. Each has the number of its ends that were durable when the feeder
    /// asked.
    Cancel(Vec<(TaskId, usize)>),
    Other,
}

pub struct Feeder {
    pub name: String,
    pub link: Option<u64>,
    /// Whether the feeder has received its welcome.
    pub up: bool,
    /// How many things the feeder is still to do.
    left: u64,
    job: Option<JobName>,
    /// Whether the feeder holds the job.
    hold: bool,
    unanswered: VecDeque<Batch>,
    /// Documents that were refused because the disk was full. They are sent again.
    put_off: Vec<Wanted>,
    /// Whether a request was refused because the disk was full.
    request_put_off: bool,
    next_batch: u64,
    /// The feeder's documents, by id.
    documents: BTreeMap<TaskId, String>,
    /// Requests without an answer, by reference.
    requests: BTreeMap<u64, FeederRequest>,
    next_reference: u64,
}

impl Feeder {
    pub fn new(index: usize, swarm: &Swarm, chance: &mut Chance) -> Feeder {
        let job = if chance.permille(700) {
            chance.of(&JOBS).and_then(|name| JobName::new(name).ok())
        } else {
            None
        };
        Feeder {
            name: format!("f{index}"),
            link: None,
            up: false,
            left: swarm.actions,
            hold: job.is_some() && chance.permille(500),
            job,
            unanswered: VecDeque::new(),
            put_off: Vec::new(),
            request_put_off: false,
            next_batch: 1,
            documents: BTreeMap::new(),
            requests: BTreeMap::new(),
            next_reference: 1,
        }
    }

    /// How many batches have no final answer.
    pub fn unanswered(&self) -> usize {
        self.unanswered.len() + usize::from(!self.put_off.is_empty())
    }
}

impl World {
    /// A feeder does its next thing.
    pub fn feeds(&mut self, index: usize) {
        let feeder = &mut self.feeders[index];
        if feeder.next_batch == 1 && feeder.left == self.swarm.actions && feeder.link.is_none() {
            self.dial(Client::Feeder(index), 0);
        }
        self.feed_put_off(index);
        let feeder = &mut self.feeders[index];
        if self.healed || feeder.left == 0 {
            return;
        }
        if feeder.up {
            feeder.left -= 1;
            if self.chance.permille(self.swarm.wishes) {
                self.request_something(index)
            } else {
                self.add(index)
            }
        }
        let after = self.chance.spread(100, 300 * MS);
        self.plan(after, Happening::Feeds { feeder: index });
    }

    /// Sends again what was refused because the disk was full.
    fn feed_put_off(&mut self, index: usize) {
        let feeder = &mut self.feeders[index];
        if !feeder.up || feeder.unanswered.len() >= 8 {
            return;
        }
        // Each id is sent once, because which of two documents is taken would be left to chance.
        let mut ids = BTreeSet::new();
        let (batch, rest) = std::mem::take(&mut feeder.put_off)
            .into_iter()
            .partition(|wanted: &Wanted| ids.insert(wanted.id.clone()));
        feeder.put_off = rest;
        if !batch.is_empty() {
            self.send_batch(index, batch);
        }
        if self.healed && std::mem::take(&mut self.feeders[index].request_put_off) {
            self.put_right(index);
        }
    }

    /// Has the feeder do something again, if it would have stopped.
    pub fn feeds_again(&mut self, index: usize) {
        if self.healed || self.feeders[index].left == 0 {
            let after = self.chance.within(50 * MS, 300 * MS);
            self.plan(after, Happening::Feeds { feeder: index });
        }
    }

    fn send_batch(&mut self, index: usize, wanted: Vec<Wanted>) {
        let feeder = &mut self.feeders[index];
        let tasks = wanted.iter().map(|wanted| wanted.text.clone()).collect();
        // When the world is healed, the job is released and held no more.
        let hold = feeder.hold && !self.healed;
        let add = Add {
            batch: feeder.next_batch,
            job: feeder.job.clone(),
            hold,
            answers: false,
            tasks,
        };
        feeder.next_batch += 1;
        feeder.unanswered.push_back(Batch {
            add: add.clone(),
            wanted,
            refused: Vec::new(),
            put_off: Vec::new(),
        });
        self.feeder_says(index, ToMaster::Add(add));
    }

    fn feeder_says(&mut self, index: usize, message: ToMaster) {
        if let Some(link) = self.feeders[index].link.filter(|_| self.feeders[index].up) {
            self.post(link, true, Parcel::Text(message.encode()));
        }
    }

    fn add(&mut self, index: usize) {
        if self.feeders[index].unanswered.len() >= 8 {
            return;
        }
        let number = self.feeders[index].next_batch;
        let count = self.chance.spread(1, 12);
        let ids: Vec<TaskId> = (0..count)
            .filter_map(|i| TaskId::new(&format!("f{index}-{number}-{i}")).ok())
            .collect();
        let shape = self.chance.below(4);
        let mut batch: Vec<Wanted> = Vec::new();
        for at in 0..ids.len() {
            let near = self.near(&ids, at, shape);
            let text = self.document(index, &ids[at], near);
            batch.push(Wanted {
                id: ids[at].clone(),
                text,
                verdict: Ok(()),
            });
        }
        self.odd_ones(index, number, &mut batch);
        // Documents may come in any order: forward references are legal within a batch.
        if self.chance.permille(300) {
            let turn = self.chance.below(batch.len() as u64) as usize;
            batch.rotate_left(turn);
        }
        self.send_batch(index, batch);
    }

    /// The tasks of its own batch that a task waits for. Together they are a chain, a fan-in, a
    /// fan-out, or single dependencies on earlier tasks.
    fn near(&mut self, ids: &[TaskId], at: usize, shape: u64) -> Vec<TaskId> {
        match shape {
            0 if at > 0 => vec![ids[at - 1].clone()],
            1 if at + 1 == ids.len() => ids[..at].to_vec(),
            2 if at > 0 => vec![ids[0].clone()],
            3 if at > 0 && self.chance.permille(400) => {
                let on = self.chance.below(at as u64) as usize;
                vec![ids[on].clone()]
            }
            _ => Vec::new(),
        }
    }

    fn document(&mut self, index: usize, id: &TaskId, near: Vec<TaskId>) -> Json {
        let chance = &mut self.chance;
        let mut fields = vec![
            format!("\"id\":\"{id}\""),
            format!("\"module\":\"{}\"", chance.of(&MODULES).unwrap_or(&"ma")),
        ];
        let mut on = near;
        let acknowledged: &[TaskId] = &self.oracle.acknowledged_ids;
        if chance.permille(250)
            && let Some(far) = chance.of(acknowledged)
            && !on.contains(far)
        {
            on.push(far.clone());
        }
        if !on.is_empty() {
            let when = |chance: &mut Chance| match chance.below(6) {
                0 => "failed",
                1 | 2 => "settled",
                _ => "done",
            };
            let all: Vec<String> = on
                .iter()
                .map(|id| format!("{{\"on\":\"{id}\",\"when\":\"{}\"}}", when(chance)))
                .collect();
            fields.push(format!("\"dependencies\":[{}]", all.join(",")));
        }
        for (often, field) in [
            (300, format!("\"priority\":{}", chance.below(5) as i64 - 2)),
            (200, format!("\"delay_ms\":{}", chance.spread(1, 2_000))),
            (
                200,
                format!("\"requires\":{{\"slots\":{}}}", chance.within(1, 3)),
            ),
            (
                200,
                format!("\"job\":\"{}\"", chance.of(&JOBS).unwrap_or(&"alpha")),
            ),
            (
                900,
                format!(
                    "\"retries\":{{\"max\":{},\"backoff_ms\":{}}}",
                    chance.below(4),
                    chance.spread(1, 300)
                ),
            ),
        ] {
            if chance.permille(often) {
                fields.push(field);
            }
        }
        let results: Vec<&TaskId> = on.iter().collect();
        match results.as_slice() {
            [one, ..] if chance.permille(300) => {
                fields.push(format!("\"params\":{{\"in\":{{\"$result\":\"{one}\"}}}}"))
            }
            many if !many.is_empty() && chance.permille(200) => {
                let ids: Vec<String> = many.iter().map(|id| format!("\"{id}\"")).collect();
                fields.push(format!("\"params\":{{\"$results\":[{}]}}", ids.join(",")));
            }
            _ if chance.permille(250) => fields.push(format!("\"params\":{}", chance.below(2))),
            _ => {}
        }
        if chance.permille(300) {
            let mode = if chance.permille(100) {
                "refresh"
            } else {
                "use"
            };
            let ttl_s = chance.within(1, 20);
            fields.push(format!(
                "\"cache\":{{\"ttl_s\":{ttl_s},\"mode\":\"{mode}\"}}"
            ));
        }
        let text = format!("{{{}}}", fields.join(","));
        self.feeders[index]
            .documents
            .insert(id.clone(), text.clone());
        Json::from_string(text).unwrap_or_else(|_| Json::null())
    }

    /// Adds odd documents to a batch: one that was sent before, an id that another document has, an
    /// unknown dependency, a cycle.
    fn odd_ones(&mut self, index: usize, number: u64, batch: &mut Vec<Wanted>) {
        let mut put = |id: TaskId, text: String, verdict: Result<(), RefusalCode>| {
            let text = Json::from_string(text).unwrap_or_else(|_| Json::null());
            batch.push(Wanted { id, text, verdict });
        };
        let here = format!("f{index}-{number}-");
        let known = self.feeders[index]
            .documents
            .keys()
            .filter(|id| !id.as_str().starts_with(&here));
        let known: Vec<TaskId> = known.take(50).cloned().collect();
        let again = self.chance.permille(200);
        let other = self.chance.permille(100);
        if let Some(id) = self.chance.of(&known).filter(|_| again || other).cloned() {
            let again = again.then(|| self.feeders[index].documents[&id].clone());
            match again {
                Some(text) => put(id, text, Ok(())),
                None => {
                    let text =
                        format!("{{\"id\":\"{id}\",\"module\":\"ma\",\"params\":\"another\"}}");
                    put(id, text, Err(RefusalCode::IdConflict));
                }
            }
        }
        let waiting = |name: &str, on: &str| {
            format!("{{\"id\":\"{here}{name}\",\"module\":\"ma\",\"dependencies\":[\"{on}\"]}}")
        };
        let id = |name: &str| TaskId::new(&format!("{here}{name}")).unwrap();
        if self.chance.permille(100) {
            put(
                id("x"),
                waiting("x", "nobody"),
                Err(RefusalCode::UnknownDependency),
            );
        }
        if self.chance.permille(50) {
            for (name, on) in [("y", "z"), ("z", "y")] {
                put(
                    id(name),
                    waiting(name, &format!("{here}{on}")),
                    Err(RefusalCode::DependencyCycle),
                );
            }
        }
    }

    /// Asks for a cancel, a retry, or another operation.
    fn request_something(&mut self, index: usize) {
        let Some(id) = self.chance.of(&self.oracle.acknowledged_ids).cloned() else {
            return;
        };
        let reference = self.feeders[index].next_reference;
        let job = self
            .chance
            .of(&JOBS)
            .and_then(|name| JobName::new(name).ok());
        let name = self
            .chance
            .of(&MODULES)
            .and_then(|name| ModuleName::new(name).ok());
        let (message, request) = match (self.chance.below(13), job, name) {
            (0..=3, ..) => {
                let chance = &mut self.chance;
                let ids = &self.oracle.acknowledged_ids;
                let ids: Vec<TaskId> = (0..chance.within(1, 3))
                    .filter_map(|_| chance.of(ids).cloned())
                    .collect();
                let request = FeederRequest::Cancel(
                    ids.iter()
                        .map(|id| (id.clone(), self.oracle.ends_of(id)))
                        .collect(),
                );
                (
                    ToMaster::Cancel(Cancel {
                        reference,
                        ids,
                        job: None,
                    }),
                    request,
                )
            }
            (4, Some(job), _) => (
                ToMaster::Cancel(Cancel {
                    reference,
                    ids: Vec::new(),
                    job: Some(job),
                }),
                FeederRequest::Other,
            ),
            (5..=8, ..) => (
                ToMaster::Retry(Retry {
                    reference,
                    ids: self.retriable(),
                }),
                FeederRequest::Other,
            ),
            (9, Some(job), Some(name)) => {
                let operation = match self.chance.below(4) {
                    0 => Operation::PauseJob { job },
                    1 => Operation::ResumeJob { job },
                    2 => Operation::PauseModule { name },
                    _ => Operation::ResumeModule { name },
                };
                (
                    ToMaster::Operate(Operate {
                        reference,
                        operation,
                    }),
                    FeederRequest::Other,
                )
            }
            (11, _, Some(name)) => {
                let operation = match self.chance.permille(500) {
                    true => Operation::RollbackModule {
                        name,
                        version: None,
                    },
                    false => Operation::ApproveModule {
                        name,
                        version: None,
                        capabilities: None,
                    },
                };
                (
                    ToMaster::Operate(Operate {
                        reference,
                        operation,
                    }),
                    FeederRequest::Other,
                )
            }
            (10, ..) => {
                let runner = self.chance.below(self.runners.len() as u64) as usize;
                let operation = Operation::DrainRunner {
                    runner: self.runners[runner].offer.name.clone(),
                };
                (
                    ToMaster::Operate(Operate {
                        reference,
                        operation,
                    }),
                    FeederRequest::Other,
                )
            }
            _ => {
                let priority = Some(self.chance.below(9) as i32);
                let delay_ms = Some(self.chance.below(300));
                (
                    ToMaster::Set(ChangeTask {
                        reference,
                        id,
                        priority,
                        delay_ms,
                    }),
                    FeederRequest::Other,
                )
            }
        };
        self.request(index, message, request);
    }

    fn request(&mut self, index: usize, message: ToMaster, request: FeederRequest) {
        let feeder = &mut self.feeders[index];
        feeder.requests.insert(feeder.next_reference, request);
        feeder.next_reference += 1;
        self.feeder_says(index, message);
    }

    /// Some tasks that failed or were cancelled.
    fn retriable(&mut self) -> Vec<TaskId> {
        let ended = self.oracle.retriable();
        (0..self.chance.within(1, 2))
            .filter_map(|_| self.chance.of(&ended).cloned())
            .collect()
    }

    /// Resumes all jobs and modules, and releases the feeder's job.
    pub fn put_right(&mut self, index: usize) {
        let mut operations = Vec::new();
        operations.extend(
            JOBS.iter()
                .chain(&["default"])
                .filter_map(|job| JobName::new(job).ok())
                .map(|job| Operation::ResumeJob { job }),
        );
        operations.extend(
            MODULES
                .iter()
                .filter_map(|name| ModuleName::new(name).ok())
                .map(|name| Operation::ResumeModule { name }),
        );
        for operation in operations {
            let reference = self.feeders[index].next_reference;
            self.request(
                index,
                ToMaster::Operate(Operate {
                    reference,
                    operation,
                }),
                FeederRequest::Other,
            );
        }
        if let Some(job) = self.feeders[index]
            .job
            .clone()
            .filter(|_| self.feeders[index].hold)
        {
            self.feeder_says(index, ToMaster::Release(JobRef { job }));
        }
    }

    pub fn feeder_hears(&mut self, index: usize, link: u64, parcel: Parcel) {
        let Parcel::Text(text) = parcel else { return };
        if self.feeders[index].link != Some(link) {
            return;
        }
        match FromMaster::decode(&text) {
            Ok(FromMaster::Welcome(_)) => {
                self.feeders[index].up = true;
                self.feeders[index].requests.clear();
                for batch in self.feeders[index].unanswered.clone() {
                    self.feeder_says(index, ToMaster::Add(batch.add));
                }
                self.feeders[index].unanswered.iter_mut().for_each(|batch| {
                    batch.refused.clear();
                    batch.put_off.clear();
                });
                if self.healed {
                    self.put_right(index);
                }
                self.feeds_again(index);
            }
            Ok(FromMaster::Rejected(rejected)) => self.rejected(index, rejected),
            Ok(FromMaster::Added(added)) => self.added(index, added),
            Ok(FromMaster::Answer(answer)) => {
                if let Some(FeederRequest::Cancel(ids)) =
                    self.feeders[index].requests.remove(&answer.reference)
                {
                    self.oracle.cancel_is_acknowledged(&ids);
                }
            }
            Ok(FromMaster::Refused(refused)) => {
                drop(
                    refused
                        .reference
                        .and_then(|r| self.feeders[index].requests.remove(&r)),
                );
                if refused.error.code == RefusalCode::Unavailable {
                    self.feeders[index].request_put_off = true;
                    self.feeds_again(index);
                }
            }
            Ok(_) => {}
            Err(refusal) => self.oracle.broken = Some(format!("{text} cannot be read: {refusal}")),
        }
    }

    /// Some documents of a batch were refused.
    fn rejected(&mut self, index: usize, rejected: Rejected) {
        // Documents without an answer yet that must be refused. If the first document of an id is
        // refused, such a document takes the id.
        let rivals: BTreeSet<(TaskId, String)> = self.feeders[index]
            .unanswered
            .iter()
            .flat_map(|batch| &batch.wanted)
            .filter(|wanted| wanted.verdict.is_err())
            .map(|wanted| (wanted.id.clone(), wanted.text.get().to_owned()))
            .collect();
        let feeder = &mut self.feeders[index];
        let batch = feeder
            .unanswered
            .iter_mut()
            .find(|batch| batch.add.batch == rejected.batch);
        let Some(batch) = batch else {
            return self.oracle.broken = Some(format!("nobody waits for {rejected:?}"));
        };
        for rejection in rejected.tasks {
            let wanted = &batch.wanted[rejection.index];
            let code = rejection.error.code;
            // What a document names may be forgotten, and its module gone, before the document
            // arrives.
            let oracle = &self.oracle;
            let lost = |id: &TaskId| oracle.forgotten.contains(id) || !oracle.was_acknowledged(id);
            let meanwhile = match code {
                RefusalCode::UnknownDependency => rejection.error.ids.iter().all(lost),
                RefusalCode::UnknownModule => self.swarm.removing,
                RefusalCode::Unavailable => self.has_lacked_room,
                RefusalCode::IdConflict => {
                    let taken = feeder
                        .documents
                        .get(&wanted.id)
                        .is_some_and(|text| text != wanted.text.get());
                    taken
                        || oracle.forgotten.contains(&wanted.id)
                        || rivals
                            .iter()
                            .any(|(id, text)| *id == wanted.id && text != wanted.text.get())
                }
                _ => false,
            };
            let right = wanted.verdict == Err(code) || meanwhile;
            self.oracle.claim(right, || {
                format!(
                    "{wanted:?} of batch {} is refused: {}",
                    rejected.batch, rejection.error
                )
            });
            batch.refused.push(rejection.index);
            if code == RefusalCode::Unavailable {
                batch.put_off.push(rejection.index);
            }
        }
    }

    /// A batch was acknowledged.
    fn added(&mut self, index: usize, added: Added) {
        // Acknowledgements come in the order of the batches, except for batches of which nothing was
        // taken because the disk was full.
        let at = self.feeders[index]
            .unanswered
            .iter()
            .position(|batch| batch.add.batch == added.batch);
        let at = at.filter(|at| *at == 0 || added.ids.is_empty());
        let Some(batch) = at.and_then(|at| self.feeders[index].unanswered.remove(at)) else {
            return self.oracle.broken = Some(format!("nobody waits for {added:?}"));
        };
        let taken: Vec<&Wanted> = batch
            .wanted
            .iter()
            .enumerate()
            .filter(|(at, _)| !batch.refused.contains(at))
            .map(|(_, wanted)| wanted)
            .collect();
        // A document that must be refused for its id may be taken if the id was forgotten, if the first
        // document of the id was refused, or if it is this document that the id belongs to, because
        // both were put off.
        let oracle = &self.oracle;
        let documents = &self.feeders[index].documents;
        let free = |id: &TaskId| oracle.forgotten.contains(id) || !oracle.was_acknowledged(id);
        let again = |wanted: &Wanted| {
            documents
                .get(&wanted.id)
                .is_some_and(|text| text == wanted.text.get())
        };
        let right = taken.iter().map(|wanted| &wanted.id).eq(&added.ids)
            && taken
                .iter()
                .all(|wanted| wanted.verdict.is_ok() || free(&wanted.id) || again(wanted));
        self.oracle.claim(right, || {
            format!("batch {batch:?} is acknowledged as {added:?}")
        });
        for wanted in taken {
            let text = wanted.text.get().to_owned();
            self.feeders[index]
                .documents
                .insert(wanted.id.clone(), text.clone());
            self.oracle.add_is_acknowledged(wanted.id.clone(), text);
        }
        let put_off = batch.put_off.iter().map(|at| batch.wanted[*at].clone());
        self.feeders[index].put_off.extend(put_off);
        if !self.feeders[index].put_off.is_empty() {
            self.feeds_again(index);
        }
    }
}
