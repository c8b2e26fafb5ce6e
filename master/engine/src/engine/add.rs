//! Adding tasks: which of a batch are taken, which are refused and why.

use super::Engine;
use super::unmet::{DeferredDocuments, unknown_dependency};
use crate::facts::{Fact, Known};
use crate::inbox::ConnectionId;
use crate::prepare::PreparedTask;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use taskmaster_core::{DependsOn, Due, Event, FinalState, NewTask, Origin, TaskKey};
use taskmaster_core::{JobCounts, StoredJob};
use taskmaster_protocol::message::{Added, Rejected, Rejection};
use taskmaster_protocol::{
    Dependency, FromMaster, JobName, Now, Refusal, RefusalCode, TaskId, TaskState, Wall, When,
};
use taskmaster_store::body::{AddedTask, Fingerprint, TaskBody};
use taskmaster_store::record::JobRecord;

/// The job of tasks for which neither document nor batch names one.
const DEFAULT_JOB: &str = "default";

/// A task that was taken: its id, and whether it had ended before.
type Taken = (TaskId, bool);

impl Engine {
    pub(super) fn add(
        &mut self,
        session: ConnectionId,
        batch: u64,
        job: Option<JobName>,
        hold: bool,
        tasks: Vec<Result<Box<PreparedTask>, Refusal>>,
    ) {
        let Some(by) = self
            .sessions
            .get(&session)
            .map(|session| session.name.clone())
        else {
            return;
        };
        // What comes late over a connection that the client has given up must not take up a hold
        // that it has let go of since, over its new one.
        let newer = ConnectionId(session.0 + 1);
        let hold = hold
            && !self
                .sessions
                .range(newer..)
                .any(|(_, other)| other.name == by);
        if let Some(job) = job.as_ref().filter(|_| hold && self.no_room().is_none()) {
            self.open_job(job);
            self.tell(Event::JobHeld {
                job: job.clone(),
                by,
                restored: false,
            });
        }
        let outcomes = self.admit_all(tasks, job);
        let (mut added, mut rejected) = (
            Added {
                batch,
                ids: Vec::with_capacity(outcomes.len()),
                ended: Vec::new(),
            },
            Vec::new(),
        );
        for (index, outcome) in outcomes.into_iter().enumerate() {
            match outcome {
                Ok((id, ended)) => {
                    if ended {
                        added.ended.push(id.clone());
                    }
                    added.ids.push(id);
                }
                Err(error) => rejected.push(Rejection { index, error }),
            }
        }
        // A batch of which nothing is taken promises nothing, and on a full disk its answer must
        // not wait for a commit.
        let at_once = added.ids.is_empty() && self.is_full();
        let say = if at_once {
            Engine::say
        } else {
            Engine::say_after
        };
        if !rejected.is_empty() {
            say(
                self,
                session,
                FromMaster::Rejected(Rejected {
                    batch,
                    tasks: rejected,
                }),
            );
        }
        say(self, session, FromMaster::Added(added));
    }

    /// Takes what can be taken, in an order in which dependencies come first, so that a batch may
    /// name its own tasks in any order. What then still waits for an unknown id is refused, a cycle
    /// with its ids.
    pub(super) fn admit_all(
        &mut self,
        tasks: Vec<Result<Box<PreparedTask>, Refusal>>,
        job: Option<JobName>,
    ) -> Vec<Result<Taken, Refusal>> {
        let here: BTreeSet<TaskId> = tasks.iter().flatten().map(|task| task.id.clone()).collect();
        let mut outcomes: BTreeMap<usize, Result<Taken, Refusal>> = BTreeMap::new();
        let mut deferred = DeferredDocuments::default();
        for (index, task) in tasks.into_iter().enumerate() {
            let mut next = vec![(index, task)];
            while let Some((index, task)) = next.pop() {
                let outcome = match task {
                    Ok(task) => {
                        self.admit_or_defer(index, task, job.as_ref(), &here, &mut deferred)
                    }
                    Err(refusal) => Some(Err(refusal)),
                };
                let Some(outcome) = outcome else { continue };
                if let Ok((id, _)) = &outcome {
                    next.extend(
                        deferred
                            .came(id)
                            .into_iter()
                            .map(|(index, task)| (index, Ok(task))),
                    );
                }
                outcomes.insert(index, outcome);
            }
        }
        let refused = deferred.refuse(|id| !matches!(self.facts.fact(id), Fact::Unknown));
        outcomes.extend(
            refused
                .into_iter()
                .map(|(index, refusal)| (index, Err(refusal))),
        );
        outcomes.into_values().collect()
    }

    fn admit_or_defer(
        &mut self,
        index: usize,
        task: Box<PreparedTask>,
        job: Option<&JobName>,
        here: &BTreeSet<TaskId>,
        deferred: &mut DeferredDocuments,
    ) -> Option<Result<Taken, Refusal>> {
        match self.admit(task, job) {
            Ok(taken) => Some(Ok(taken)),
            Err((refusal, task)) => {
                let missing: BTreeSet<TaskId> = refusal
                    .ids
                    .iter()
                    .filter(|id| here.contains(*id))
                    .cloned()
                    .collect();
                match (refusal.code, task) {
                    (RefusalCode::UnknownDependency, Some(task)) if !missing.is_empty() => {
                        deferred.hold(index, task, missing);
                        None
                    }
                    _ => Some(Err(refusal)),
                }
            }
        }
    }

    /// Takes one document, or says why not; a document that waits for unknown ids is handed back.
    fn admit(
        &mut self,
        task: Box<PreparedTask>,
        job: Option<&JobName>,
    ) -> Result<Taken, (Refusal, Option<Box<PreparedTask>>)> {
        if let Some(known) = self.known_document(&task.id, &task.fingerprint) {
            return known.map_err(|refusal| (refusal, None));
        }
        if let Some(refusal) = task.wrong {
            return Err((refusal, None));
        }
        if self.stopping && !task.of_task {
            let text = "the master is stopping and takes no more tasks; add this one again when it has started";
            return Err((Refusal::new(RefusalCode::Unavailable, text), None));
        }
        let no_room = self
            .no_room()
            .or_else(|| self.queue_full(task.document.priority));
        if let Some(refusal) = no_room.filter(|_| !task.of_task) {
            return Err((refusal, None));
        }
        self.usable_module(&task.document.module)
            .map_err(|refusal| (refusal, None))?;
        let wanted = task
            .document
            .dependencies
            .iter()
            .map(|dependency| &dependency.on)
            .chain(&task.references);
        let mut unknown: Vec<TaskId> = wanted
            .filter(|id| matches!(self.facts.fact(id), Fact::Unknown))
            .cloned()
            .collect();
        unknown.dedup();
        if !unknown.is_empty() {
            return Err((unknown_dependency(unknown), Some(task)));
        }
        let document = &task.document;
        if self
            .core
            .classes_full(&document.module.name, &document.requires)
        {
            let text = "field `requires`: too many different requirements are queued already; wait until some have run";
            return Err((
                Refusal::new(RefusalCode::Unavailable, text).at("requires"),
                None,
            ));
        }
        let named = document
            .job
            .clone()
            .or_else(|| job.cloned())
            .or_else(|| task.usual_job.clone());
        let job = named.or_else(|| JobName::new(DEFAULT_JOB).ok());
        let Some(job) = job else {
            return Err((Refusal::new(RefusalCode::Internal, "no job"), None));
        };
        self.open_job(&job);
        self.last_ordinal += 1;
        let PreparedTask {
            document,
            id,
            fingerprint,
            references,
            ..
        } = *task;
        let body = TaskBody::new(AddedTask {
            document,
            fingerprint,
            references,
            id: id.clone(),
            job,
            ordinal: self.last_ordinal,
            created: self.now.wall,
        });
        let priority = body.priority;
        self.came(Arc::new(body), priority, Origin::Added, None);
        Ok((id, false))
    }

    /// Whether the id is taken: by the same document (a no-op), or by another (a refusal).
    fn known_document(
        &self,
        id: &TaskId,
        fingerprint: &Fingerprint,
    ) -> Option<Result<Taken, Refusal>> {
        let (body, ended) = match self.facts.known(id) {
            Some(Known::Open(key)) => (self.facts.body(key), false),
            Some(Known::Closing(key, _)) => (self.facts.body(key), true),
            Some(Known::Ended(stored)) => (stored.body.clone(), true),
            None => (self.facts.ended_in_view(id)?.body, true),
        };
        if body.fingerprint == *fingerprint {
            return Some(Ok((id.clone(), ended)));
        }
        let text = format!(
            "the id `{id}` is taken by another task document; use another id, or the same document again"
        );
        Some(Err(Refusal::new(RefusalCode::IdConflict, text)
            .at("id")
            .about(vec![id.clone()])))
    }

    /// What the task that `body` waits for under this id is.
    pub(super) fn meant(&self, body: &TaskBody, id: &TaskId) -> Fact {
        let ordinal_of = |key| self.core.task(key).map_or(0, |task| task.ordinal);
        self.facts.meant(body, id, ordinal_of)
    }

    /// What `body` waits for, as the core takes it. What nobody knows any more is met: only ended
    /// tasks are forgotten, and none that an open task names, so `body` is open again, and it has
    /// run.
    pub(super) fn dependencies_of(&self, body: &TaskBody) -> Vec<DependsOn> {
        let as_it_is = |Dependency { on, when }: &Dependency| match (self.meant(body, on), when) {
            (Fact::Open(key), when) => DependsOn::Open(key, *when),
            (Fact::Ended { how, .. }, when) => DependsOn::Ended(how, *when),
            (Fact::Unknown, When::Failed) => DependsOn::Ended(FinalState::Failed, When::Failed),
            (Fact::Unknown, when) => DependsOn::Ended(FinalState::Done, *when),
        };
        body.dependencies().iter().map(as_it_is).collect()
    }

    /// Tells the core of a task. `due` overrides what the document says.
    pub(super) fn came(
        &mut self,
        mut body: Arc<TaskBody>,
        priority: i32,
        origin: Origin,
        due: Option<Due>,
    ) -> TaskKey {
        if let Some(own) = Arc::get_mut(&mut body) {
            self.share(own);
        }
        let dependencies = self.dependencies_of(&body);
        let due = due.or_else(|| due_of(&body, self.now));
        let is_back = self.facts.is_back(&body.id);
        let key = self.facts.opened(body.clone(), priority);
        self.tell(Event::TaskOpened(Box::new(NewTask {
            key,
            ordinal: body.ordinal,
            job: body.job.clone(),
            module: body.module.clone(),
            requires: body.requires.as_ref().unwrap_or(&self.nothing).clone(),
            priority,
            dependencies,
            due,
            retries: body
                .extras
                .as_ref()
                .and_then(|rare| rare.retries.clone())
                .map(Box::new),
            origin,
        })));
        if is_back {
            self.facts.reopened(body.id.clone(), self.last_seq);
        }
        key
    }

    /// What a task has in common with many others is held once: less memory, and less of it to walk
    /// through.
    pub(super) fn share(&self, body: &mut TaskBody) {
        if let Some(job) = self.core.job(&body.job) {
            body.job = job.name.clone();
        }
        if let Some(name) = self.modules.name(&body.module) {
            body.module = name.clone();
        }
        if let Some(requires) = &mut body.requires
            && let Some(shared) = self.core.shared_requires(&body.module, requires)
        {
            *requires = shared;
        }
    }

    /// Makes sure that the core holds the job, open.
    pub(super) fn open_job(&mut self, name: &JobName) {
        if self.core.job(name).is_some_and(|job| job.open) {
            return;
        }
        let stored = stored_job(&self.facts.idle_job(name).unwrap_or_default());
        self.tell(Event::JobOpened {
            job: name.clone(),
            stored,
            restored: false,
        });
        self.facts.job_opened(name);
    }

    pub(super) fn release(&mut self, session: ConnectionId, job: JobName) {
        if let Some(by) = self
            .sessions
            .get(&session)
            .map(|session| session.name.clone())
        {
            self.tell(Event::JobReleased { job, by });
        }
    }
}

/// What a job was, as the core takes it; its open tasks are told of one by one.
pub(super) fn stored_job(record: &JobRecord) -> StoredJob {
    let mut by_state = [0; 8];
    by_state[TaskState::Done as usize..].copy_from_slice(&record.ended);
    StoredJob {
        run: record.run,
        counts: JobCounts {
            total: record.total,
            by_state,
        },
        paused: record.paused,
    }
}

/// When a task may start, by its document: a delay counts on the monotonic clock, a time on the
/// wall's; of both, the later one.
pub(super) fn due_of(body: &TaskBody, now: Now) -> Option<Due> {
    let rare = body.extras.as_ref()?;
    let delayed = rare.delay_ms.map(|ms| body.created.plus_us(ms * 1_000));
    match (delayed, rare.not_before) {
        (Some(delayed), not_before) if not_before.is_none_or(|wall| wall <= delayed) => {
            Some(mono(delayed, now))
        }
        (_, not_before) => not_before.map(Due::Wall),
    }
}

/// A wall time as one of the monotonic clock.
pub(super) fn mono(wall: Wall, now: Now) -> Due {
    Due::Mono(now.mono_us + wall.since_us(now.wall))
}
