//! Adds the tasks of a batch, and says why some of them are refused.

use super::Engine;
use super::conflict::different_field;
use super::unmet::{DeferredDocuments, unknown_dependency};
use crate::facts::{DependencyState, Known, Unreadable};
use crate::inbox::ConnectionId;
use crate::prepare::{PreparedBatch, PreparedTask};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use taskmaster_core::{DependsOn, Due, Event, FinalState, NewTask, Origin, TaskKey};
use taskmaster_core::{JobCounts, StoredJob};
use taskmaster_protocol::message::{Added, Rejected, Rejection};
use taskmaster_protocol::{
    CacheMode, Dependency, FromMaster, JobName, Now, Refusal, RefusalCode, TaskId, TaskState,
    TaskView, Wall, When,
};
use taskmaster_store::body::{AddedTask, JobRun, TaskBody};
use taskmaster_store::cache::CacheRequest;
use taskmaster_store::record::JobRecord;

/// The job of tasks for which neither document, batch nor manifest names one.
const DEFAULT_JOB: &str = "default";

/// The contents of a `task:add`.
pub(super) struct AddedBatch {
    /// The client's number of the batch, which the answers repeat.
    pub number: u64,
    /// The job of tasks whose documents name none.
    pub job: Option<JobName>,
    /// Whether the client holds that job open from now on.
    pub hold: bool,
    /// Whether a kept answer is enough.
    pub answers: bool,
    /// The documents in order. Documents that are wrong on their own are refused already.
    pub tasks: PreparedBatch,
}

/// A task that was accepted.
pub(super) struct AdmittedTask {
    id: TaskId,
    /// Whether the same task was added earlier.
    is_known: bool,
    /// Whether the same task was added earlier, and has ended.
    has_ended: bool,
    /// How it ended, if it was not added because an answer is kept for it.
    answer: Option<Box<TaskView>>,
}

/// Why a task was not accepted.
enum NotAdmitted {
    /// The task is refused for good.
    Refused(Refusal),
    /// The task depends on ids that are unknown, but that the rest of its batch may add.
    UnknownDependencies(Vec<TaskId>, Box<PreparedTask>),
}

impl From<Refusal> for NotAdmitted {
    fn from(refusal: Refusal) -> NotAdmitted {
        NotAdmitted::Refused(refusal)
    }
}

impl From<Unreadable> for NotAdmitted {
    fn from(unreadable: Unreadable) -> NotAdmitted {
        NotAdmitted::Refused(unreadable.into())
    }
}

/// The tasks of one batch while they are added.
struct BatchInProgress {
    /// The job of tasks whose documents name none.
    job: Option<JobName>,
    /// Whether a kept answer is enough.
    answers: bool,
    /// The ids of all tasks of the batch.
    ids: BTreeSet<TaskId>,
    /// Documents that wait for other tasks of the batch.
    deferred: DeferredDocuments,
}

impl Engine {
    pub(super) fn add(&mut self, connection: ConnectionId, batch: AddedBatch) {
        let Some(client) = self
            .connections
            .get(&connection)
            .map(|connection| connection.name.clone())
        else {
            return;
        };
        // A client that has a newer connection may have released the job over that one. What comes
        // late over its old connection must not hold the job again.
        let newer = ConnectionId(connection.0 + 1);
        let is_replaced = self
            .connections
            .range(newer..)
            .any(|(_, other)| other.name == client);
        let holds = batch.hold && !is_replaced && self.disk_refusal().is_none();
        let held = batch.job.clone().filter(|_| holds);
        let outcomes = self.admit_all(batch.tasks, batch.job, batch.answers);
        if let Some(job) = held {
            self.hold_if_open(job, client);
        }
        self.answer_batch(connection, batch.number, outcomes);
    }

    /// Holds a job for a client if the job is open, which it is as soon as a task was added to it.
    /// A batch of which nothing is added opens no job: the job would be empty.
    fn hold_if_open(&mut self, job: JobName, by: Arc<str>) {
        if self.core.job(&job).is_some_and(|job| job.open) {
            self.tell(Event::JobHeld {
                job,
                by,
                restored: false,
            });
        }
    }

    fn answer_batch(
        &mut self,
        connection: ConnectionId,
        batch: u64,
        outcomes: Vec<Result<AdmittedTask, Refusal>>,
    ) {
        let mut added = Added {
            batch,
            ids: Vec::with_capacity(outcomes.len()),
            known: Vec::new(),
            ended: Vec::new(),
            answers: Vec::new(),
        };
        let mut rejections = Vec::new();
        for (index, outcome) in outcomes.into_iter().enumerate() {
            match outcome {
                Ok(AdmittedTask {
                    answer: Some(view), ..
                }) => added.answers.push(*view),
                Ok(AdmittedTask {
                    id,
                    is_known,
                    has_ended,
                    answer: None,
                }) => {
                    if is_known {
                        added.known.push(id.clone());
                    }
                    if has_ended {
                        added.ended.push(id.clone());
                    }
                    added.ids.push(id);
                }
                Err(error) => rejections.push(Rejection { index, error }),
            }
        }
        // If no task is accepted, the answer promises nothing, and on a full disk it must not wait
        // for a commit.
        let send = if added.ids.is_empty() && self.is_full() {
            Engine::send_now
        } else {
            Engine::send_when_durable
        };
        if !rejections.is_empty() {
            let rejected = Rejected {
                batch,
                tasks: rejections,
            };
            send(self, connection, FromMaster::Rejected(rejected));
        }
        send(self, connection, FromMaster::Added(added));
    }

    /// Adds every task that can be added, dependencies first, because the tasks of a batch may
    /// depend on each other in any order. Tasks that still depend on an unknown id in the end are
    /// refused. A refusal because of a cycle names the ids of the cycle.
    pub(super) fn admit_all(
        &mut self,
        tasks: PreparedBatch,
        job: Option<JobName>,
        answers: bool,
    ) -> Vec<Result<AdmittedTask, Refusal>> {
        let mut admission = BatchInProgress {
            job,
            answers,
            ids: tasks.iter().flatten().map(|task| task.id.clone()).collect(),
            deferred: DeferredDocuments::default(),
        };
        let mut outcomes: BTreeMap<usize, Result<AdmittedTask, Refusal>> = BTreeMap::new();
        for (index, task) in tasks.into_iter().enumerate() {
            let mut next = vec![(index, task)];
            while let Some((index, task)) = next.pop() {
                let outcome = match task {
                    Ok(task) => self.admit_or_defer(index, task, &mut admission),
                    Err(refusal) => Some(Err(refusal)),
                };
                let Some(outcome) = outcome else { continue };
                if let Ok(admitted) = &outcome {
                    let ready = admission.deferred.task_added(&admitted.id);
                    next.extend(ready.into_iter().map(|(index, task)| (index, Ok(task))));
                }
                outcomes.insert(index, outcome);
            }
        }
        let is_known = |id: &TaskId| self.facts.state_of(id) != Ok(DependencyState::Unknown);
        let refused = admission.deferred.refuse(is_known).into_iter();
        outcomes.extend(refused.map(|(index, refusal)| (index, Err(refusal))));
        outcomes.into_values().collect()
    }

    /// Adds one task. Returns `None` if the task is deferred until other tasks of the batch are
    /// added.
    fn admit_or_defer(
        &mut self,
        index: usize,
        task: Box<PreparedTask>,
        admission: &mut BatchInProgress,
    ) -> Option<Result<AdmittedTask, Refusal>> {
        match self.admit(task, admission) {
            Ok(admitted) => Some(Ok(admitted)),
            Err(NotAdmitted::Refused(refusal)) => Some(Err(refusal)),
            Err(NotAdmitted::UnknownDependencies(unknown, task)) => {
                let in_batch: BTreeSet<TaskId> = unknown
                    .iter()
                    .filter(|id| admission.ids.contains(*id))
                    .cloned()
                    .collect();
                if in_batch.is_empty() {
                    return Some(Err(unknown_dependency(unknown)));
                }
                admission.deferred.defer(index, task, in_batch);
                None
            }
        }
    }

    /// Adds one task, or says why it cannot be added.
    fn admit(
        &mut self,
        task: Box<PreparedTask>,
        batch: &BatchInProgress,
    ) -> Result<AdmittedTask, NotAdmitted> {
        if let Some(known) = self.known_document(&task)? {
            return Ok(known);
        }
        self.check_admission(&task)?;
        let dependencies = task
            .document
            .dependencies
            .iter()
            .map(|dependency| &dependency.on)
            .chain(&task.references.tasks);
        let mut unknown = self.facts.unknown_of(dependencies)?;
        unknown.dedup();
        if !unknown.is_empty() {
            return Err(NotAdmitted::UnknownDependencies(unknown, task));
        }
        let document = &task.document;
        if self.core.classes_full(
            &document.module.name,
            &document.requires,
            self.memory_mb(document.memory_mb),
        ) {
            let text = "field `requires`: too many different requirements are queued already; \
                        wait until some have run";
            return Err(Refusal::new(RefusalCode::Unavailable, text)
                .at("requires")
                .into());
        }
        let job = document
            .job
            .clone()
            .or_else(|| batch.job.clone())
            .or_else(|| task.default_job.clone())
            .or_else(|| JobName::new(DEFAULT_JOB).ok())
            .ok_or_else(|| Refusal::new(RefusalCode::Internal, "no job"))?;
        if batch.answers
            && let Some(view) = self.answer_at_once(&task, &job)
        {
            return Ok(AdmittedTask {
                id: task.id,
                is_known: false,
                has_ended: true,
                answer: Some(Box::new(view)),
            });
        }
        let jobs = self.bind_jobs(&task.references.jobs, &job)?;
        let dependencies = task.document.dependencies.iter();
        let dependencies = dependencies.map(|dependency| &dependency.on);
        self.refuse_own_job(&job, dependencies.chain(&task.references.tasks))?;
        Ok(self.add_task(*task, job, jobs)?)
    }

    /// Checks everything that may refuse a new task, except its dependencies and requirements.
    fn check_admission(&self, task: &PreparedTask) -> Result<(), Refusal> {
        if let Some(refusal) = &task.wrong {
            return Err(refusal.clone());
        }
        if task.lineage.is_none() {
            if self.stopping {
                let text = "the master is stopping and takes no more tasks; \
                            add this one again when it has started";
                return Err(Refusal::new(RefusalCode::Unavailable, text));
            }
            let refusal = self
                .disk_refusal()
                .or_else(|| self.queue_full(task.document.priority));
            refusal.map_or(Ok(()), Err)?;
        }
        self.usable_module(&task.document.module)
    }

    /// Adds a task that passed all checks.
    fn add_task(
        &mut self,
        task: PreparedTask,
        job: JobName,
        job_results: Vec<JobRun>,
    ) -> Result<AdmittedTask, Unreadable> {
        self.open_job(&job)?;
        self.last_ordinal += 1;
        let PreparedTask {
            document,
            id,
            fingerprint,
            references,
            lineage,
            cache,
            ..
        } = task;
        let body = TaskBody::new(AddedTask {
            document,
            fingerprint,
            references: references.tasks,
            job_results,
            id: id.clone(),
            job,
            ordinal: self.last_ordinal,
            created: self.now.wall,
            lineage,
            cache,
        });
        let priority = body.priority;
        self.open_task(Arc::new(body), priority, Origin::Added, None)?;
        Ok(AdmittedTask {
            id,
            is_known: false,
            has_ended: false,
            answer: None,
        })
    }

    /// The outcome for a task whose id is known: nothing is to do if the document is the same, and
    /// another document is refused. `None` if the id is unknown.
    fn known_document(&self, task: &PreparedTask) -> Result<Option<AdmittedTask>, Refusal> {
        let id = &task.id;
        let known = self.facts.known(id);
        let has_ended = !matches!(known, Some(Known::Open(_)));
        let body = match known {
            Some(Known::Open(key) | Known::Closing(key, _)) => self.facts.body(key),
            Some(Known::Ended(stored)) => stored.body.clone(),
            None => match self.facts.ended_in_view(id)? {
                Some(stored) => stored.body,
                None => return Ok(None),
            },
        };
        if body.fingerprint == task.fingerprint {
            return Ok(Some(AdmittedTask {
                id: id.clone(),
                is_known: true,
                has_ended,
                answer: None,
            }));
        }
        let difference = match different_field(&body, &task.document) {
            Some(field) => format!(", which differs in `{field}`"),
            None => String::new(),
        };
        let text = format!(
            "the id `{id}` is taken by another task document{difference}; use another id, or the \
             same document again"
        );
        Err(Refusal::new(RefusalCode::IdConflict, text)
            .at("id")
            .about(vec![id.clone()]))
    }

    /// The state of the task of this id on which `body` depends.
    pub(super) fn dependency_state(
        &self,
        body: &TaskBody,
        id: &TaskId,
    ) -> Result<DependencyState, Unreadable> {
        let ordinal_of = |key| self.core.task(key).map_or(0, |task| task.ordinal);
        self.facts.dependency_state(body, id, ordinal_of)
    }

    /// The dependencies of `body` as the core takes them. A dependency that is no longer kept counts
    /// as met: tasks are forgotten only when they have ended and no open task depends on them, so
    /// the task of `body` had waited for it in an earlier run and is open again now.
    pub(super) fn dependencies_of(&self, body: &TaskBody) -> Result<Vec<DependsOn>, Unreadable> {
        let depends_on = |Dependency { on, when }: &Dependency| {
            let when = *when;
            Ok(match self.dependency_state(body, on)? {
                DependencyState::Open(key) => DependsOn::Open(key, when),
                DependencyState::Ended { state, .. } => DependsOn::Ended(state, when),
                DependencyState::Unknown => {
                    let state = match when {
                        When::Failed => FinalState::Failed,
                        When::Done | When::Settled => FinalState::Done,
                    };
                    DependsOn::Ended(state, when)
                }
            })
        };
        let tasks = body.dependencies().iter().map(depends_on);
        let jobs = body.job_results().iter().map(|_| Ok(DependsOn::Told));
        tasks.chain(jobs).collect()
    }

    /// Gives the core an open task. `due` counts instead of the time in the document.
    pub(super) fn open_task(
        &mut self,
        mut body: Arc<TaskBody>,
        priority: i32,
        origin: Origin,
        due: Option<Due>,
    ) -> Result<TaskKey, Unreadable> {
        if let Some(own) = Arc::get_mut(&mut body) {
            self.share_values(own);
        }
        let dependencies = self.dependencies_of(&body)?;
        let due = due.or_else(|| due_of(&body, self.now));
        let was_pruned = self.facts.stop_pruning(&body.id);
        let key = self.facts.opened(body.clone(), priority);
        let task = self.new_task(key, &body, dependencies, due, origin);
        self.tell(Event::TaskOpened(Box::new(NewTask { priority, ..task })));
        if was_pruned {
            self.facts.reopened(body.id.clone(), self.last_seq);
        }
        self.remember_waits(key, &body);
        Ok(key)
    }

    /// A task as the core takes it, with the priority in its body.
    pub(super) fn new_task(
        &self,
        key: TaskKey,
        body: &TaskBody,
        dependencies: Vec<DependsOn>,
        due: Option<Due>,
        origin: Origin,
    ) -> NewTask {
        let requires = body.requires.as_ref().unwrap_or(&self.no_requirements);
        let extras = body.extras.as_ref();
        NewTask {
            key,
            ordinal: body.ordinal,
            job: body.job.clone(),
            module: body.module.clone(),
            requires: requires.clone(),
            memory_mb: self.memory_mb(extras.and_then(|extras| extras.memory_mb)),
            priority: body.priority,
            dependencies,
            due,
            retries: extras
                .and_then(|extras| extras.retries.clone())
                .map(Box::new),
            is_cached: !body.is_continued() && body.cache().is_some_and(is_looked_up),
            origin,
        }
    }

    /// The memory that an attempt may take at most, in MiB, of a task whose document says this.
    pub(super) fn memory_mb(&self, in_document: Option<u32>) -> u32 {
        in_document.unwrap_or(self.config.memory_mb)
    }

    /// How long an attempt of a task may run, in milliseconds.
    pub(super) fn timeout_ms(&self, body: &TaskBody) -> u64 {
        let extras = body.extras.as_deref();
        extras
            .and_then(|extras| extras.timeout_ms)
            .unwrap_or(self.config.timeout_ms)
    }

    /// Lets a task share the allocations of its job, module and requirements with other tasks. That
    /// takes less memory, and less time to read it.
    pub(super) fn share_values(&self, body: &mut TaskBody) {
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

    /// Makes sure that the core has the job, and that it is open.
    pub(super) fn open_job(&mut self, name: &JobName) -> Result<(), Unreadable> {
        if self.core.job(name).is_some_and(|job| job.open) {
            return Ok(());
        }
        let stored = stored_job(&self.facts.idle_job(name)?.unwrap_or_default());
        self.tell(Event::JobOpened {
            job: name.clone(),
            stored,
            restored: false,
        });
        self.facts.job_opened(name);
        Ok(())
    }

    pub(super) fn release(&mut self, connection: ConnectionId, job: JobName) {
        if let Some(connection) = self.connections.get(&connection) {
            let by = connection.name.clone();
            self.tell(Event::JobReleased { job, by });
        }
    }
}

/// Whether an answer is looked up for such a task.
fn is_looked_up(request: &CacheRequest) -> bool {
    request.mode != CacheMode::Off && request.document.is_some()
}

/// A job as the core takes it, with the counts of its ended tasks. Open tasks count when the core
/// gets them one by one.
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

/// When a task may start, as its document says. A delay counts on the monotonic clock, and a time on
/// the wall clock. If the document has both, the later one counts.
pub(super) fn due_of(body: &TaskBody, now: Now) -> Option<Due> {
    let extras = body.extras.as_ref()?;
    let delayed = extras.delay_ms.map(|ms| body.created.plus_us(ms * 1_000));
    match (delayed, extras.not_before) {
        (Some(delayed), not_before) if not_before.is_none_or(|wall| wall <= delayed) => {
            Some(mono(delayed, now))
        }
        (_, not_before) => not_before.map(Due::Wall),
    }
}

/// A wall time converted to the monotonic clock.
pub(super) fn mono(wall: Wall, now: Now) -> Due {
    Due::Mono(now.mono_us + wall.since_us(now.wall))
}
