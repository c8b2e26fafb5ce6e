//! Looks up tasks and jobs by their ids.
//!
//! A task is in one of three places: the core has it ([`LiveTasks`]), it has ended and the view does
//! not have it yet, or the view has it. [`Facts`] answers for all three places, so that no other
//! file has to know in which order to look.

mod attempt;
mod job_ends;
mod live;
mod order;
#[cfg(test)]
mod tests;
mod unreadable;

pub(crate) use attempt::{LastAttempt, began};
pub(crate) use live::{Known, Live};
pub(crate) use unreadable::Unreadable;

use crate::store_damage::StoreDamage;
use job_ends::UnfoldedJobEnds;
use live::LiveTasks;
use std::cell::RefCell;
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::ops::Bound::{Excluded, Unbounded};
use std::sync::Arc;
use taskmaster_core::{FinalState, TaskKey};
use taskmaster_protocol::{Hash, JobName, TaskId, TaskState, Wall, limits};
use taskmaster_store::body::TaskBody;
use taskmaster_store::cache_entry::CacheEntry;
use taskmaster_store::kv::{SharedStore, StoreError};
use taskmaster_store::packed::StoredBody;
use taskmaster_store::record::{Ended, JobRecord};
use taskmaster_store::view::{self, EndedIndex, EndedTask, RunEnds};

/// The state of a task as the tasks that depend on it see it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum DependencyState {
    /// The task is open, and the core has it under this key.
    Open(TaskKey),
    /// The task has ended.
    Ended {
        /// The state in which the task ended.
        state: FinalState,
        /// The task's place in the order of adding.
        ordinal: u64,
    },
    /// No task of this id was ever added, or it is no longer kept. That the store cannot be read is
    /// never this, but [`Unreadable`].
    Unknown,
}

/// A job that the core does not have. Memory keeps it until the view has the same record.
#[derive(Debug)]
struct IdleJob {
    /// The view has the record when it has the event of this seq.
    since: u64,
    record: JobRecord,
}

/// The end of a turn that added tasks.
#[derive(Debug)]
struct TurnEnd {
    /// The seq of the last event of the turn.
    seq: u64,
    /// The place of the newest task in the order of adding.
    ordinal: u64,
}

/// Everything that is known about tasks and jobs by their ids.
pub(crate) struct Facts {
    live: LiveTasks,
    store: SharedStore,
    /// Where the view has ended tasks. It is in a cell because a look-up adds what it finds.
    places: RefCell<EndedIndex>,
    /// The view has all events up to this seq.
    folded_seq: u64,
    /// Turns with new tasks that the view does not have yet, oldest first.
    unfolded_turns: VecDeque<TurnEnd>,
    /// Bodies of waiting tasks are packed up to this place in the order of adding.
    packed_ordinal: u64,
    /// Ends of tasks that the view does not have yet, oldest first.
    unfolded_ends: VecDeque<Arc<Ended>>,
    /// Ends of tasks that the view does not have yet, by job.
    job_ends: UnfoldedJobEnds,
    /// Skipped tasks whose ends the view does not have yet, by the dependency for which they were
    /// skipped.
    skipped: HashMap<TaskId, Vec<TaskId>>,
    /// Tasks that were opened again or added anew, with the seq of that event. Until the view has
    /// the event, the view may still have their former end.
    reopened: HashMap<TaskId, u64>,
    /// Ended tasks that the fold may forget, with the seq of their end. They count as unknown,
    /// although the view may still have them. A task with one of these ids may have ended anew.
    pruning: HashMap<TaskId, u64>,
    idle_jobs: BTreeMap<JobName, IdleJob>,
    /// Why the list of runs of the index could not be read after the last fold. Until it is read
    /// again, nothing can be said of an id that memory does not know.
    unreadable_index: Option<Unreadable>,
    /// Hears of damage in the store.
    damage: StoreDamage,
}

impl Facts {
    /// The facts after a start. The view in `store` has all events up to `folded_seq`, and the
    /// newest task has the place `last_ordinal` in the order of adding.
    pub fn new(
        store: SharedStore,
        folded_seq: u64,
        last_ordinal: u64,
    ) -> Result<Facts, StoreError> {
        let places = EndedIndex::with_filters(store.as_ref())?;
        Ok(Facts {
            live: LiveTasks::default(),
            places: RefCell::new(places),
            store,
            folded_seq,
            unfolded_turns: VecDeque::new(),
            packed_ordinal: last_ordinal,
            unfolded_ends: VecDeque::new(),
            job_ends: UnfoldedJobEnds::default(),
            skipped: HashMap::new(),
            reopened: HashMap::new(),
            pruning: HashMap::new(),
            idle_jobs: BTreeMap::new(),
            unreadable_index: None,
            damage: StoreDamage::default(),
        })
    }

    /// Tells `damage` of what cannot be read from now on.
    pub fn report_damage_to(&mut self, damage: StoreDamage) {
        self.damage = damage;
    }

    /// The outcome of a read from the store. An error is told to whoever watches the store.
    fn told<T>(&self, read: Result<T, StoreError>) -> Result<T, Unreadable> {
        read.map_err(|error| {
            self.damage.record(&error);
            Unreadable::from(error)
        })
    }

    /// What memory knows about an id. If memory knows nothing, the view may still have the task.
    pub fn known(&self, id: &TaskId) -> Option<Known<'_>> {
        self.live.known(id)
    }

    /// The key of a task that the core has, open or closing.
    pub fn key(&self, id: &TaskId) -> Option<TaskKey> {
        self.known(id)?.key()
    }

    /// How a task ended, if memory knows it.
    pub fn last_end(&self, id: &TaskId) -> Option<&Arc<Ended>> {
        self.known(id)?.end()
    }

    /// An ended task that only the view has; `None` where the view has none of this id.
    pub fn ended_in_view(&self, id: &TaskId) -> Result<Option<EndedTask>, Unreadable> {
        if let Some(error) = &self.unreadable_index {
            return Err(error.clone());
        }
        let read =
            view::ended_task_by_index(self.store.as_ref(), &mut self.places.borrow_mut(), id);
        let is_pruned = |stored: &EndedTask| self.pruning.get(id) == Some(&stored.ended.seq);
        Ok(self.told(read)?.filter(|stored| !is_pruned(stored)))
    }

    /// The kept answer of this key that the view has.
    pub fn answer_in_view(&self, key: &Hash) -> Result<Option<CacheEntry>, Unreadable> {
        self.told(view::cache_entry(self.store.as_ref(), key))
    }

    /// The state of the newest task of this id.
    pub fn state_of(&self, id: &TaskId) -> Result<DependencyState, Unreadable> {
        let ended = |ended: &Ended| DependencyState::Ended {
            state: final_of(ended.end.state),
            ordinal: ended.ordinal,
        };
        Ok(match self.known(id) {
            Some(Known::Open(key)) => DependencyState::Open(key),
            Some(Known::Closing(_, how)) => ended(how),
            Some(Known::Ended(stored)) => ended(&stored.ended),
            None => self
                .ended_in_view(id)?
                .map_or(DependencyState::Unknown, |stored| ended(&stored.ended)),
        })
    }

    /// Those of `ids` of which no task is known.
    pub fn unknown_of<'a>(
        &self,
        ids: impl Iterator<Item = &'a TaskId>,
    ) -> Result<Vec<TaskId>, Unreadable> {
        let mut unknown = Vec::new();
        for id in ids {
            if self.state_of(id)? == DependencyState::Unknown {
                unknown.push(id.clone());
            }
        }
        Ok(unknown)
    }

    /// The state of the task of this id on which `body` depends. A task must be added after its
    /// dependencies, unless it has continued as another task. Therefore a newer task of this id is
    /// not the dependency: its id was free again, and the dependency is no longer kept.
    /// `ordinal_of` gives the place of an open task in the order of adding.
    pub fn dependency_state(
        &self,
        body: &TaskBody,
        id: &TaskId,
        ordinal_of: impl Fn(TaskKey) -> u64,
    ) -> Result<DependencyState, Unreadable> {
        let state = self.state_of(id)?;
        let ordinal = match state {
            DependencyState::Open(key) => ordinal_of(key),
            DependencyState::Ended { ordinal, .. } => ordinal,
            DependencyState::Unknown => return Ok(state),
        };
        let is_dependency = ordinal < body.ordinal || body.is_continued();
        Ok(if is_dependency {
            state
        } else {
            DependencyState::Unknown
        })
    }

    /// Ended tasks that were skipped for `cause`, and have not been opened again since.
    pub fn skipped_for(&self, cause: &TaskId) -> Result<Vec<EndedTask>, Unreadable> {
        let mut ids = self.skipped.get(cause).cloned().unwrap_or_default();
        ids.extend(self.told(view::skipped_for(self.store.as_ref(), cause))?);
        let mut found = Vec::new();
        for id in ids {
            let stored = match self.known(&id) {
                Some(Known::Ended(stored)) => Some(stored.clone()),
                Some(Known::Open(_) | Known::Closing(..)) => None,
                None => self.ended_in_view(&id)?,
            };
            let is_still = |stored: &EndedTask| stored.ended.end.skipped_for() == Some(cause);
            found.extend(stored.filter(is_still));
        }
        Ok(found)
    }

    /// The task of this key.
    #[expect(
        clippy::expect_used,
        reason = "the core names only tasks that it was given here"
    )]
    pub fn live(&self, key: TaskKey) -> &Live {
        self.live
            .get(key)
            .expect("the core names a task that the engine does not hold")
    }

    /// The task of this key, mutable.
    #[expect(
        clippy::expect_used,
        reason = "the core names only tasks that it was given here"
    )]
    pub fn live_mut(&mut self, key: TaskKey) -> &mut Live {
        self.live
            .get_mut(key)
            .expect("the core names a task that the engine does not hold")
    }

    /// The task of this key, if the core still has it.
    pub fn live_if_held(&mut self, key: TaskKey) -> Option<&mut Live> {
        self.live.get_mut(key)
    }

    /// Every task that the core has.
    pub fn all_live(&self) -> impl Iterator<Item = &Live> {
        self.live.iter()
    }

    /// Open tasks in the order of adding, from the place `ordinal` on.
    pub fn open_from(&self, ordinal: u64) -> impl Iterator<Item = (u64, TaskKey)> {
        self.live.open.from(ordinal)
    }

    /// How many tasks are open.
    pub fn open_count(&self) -> usize {
        self.live.open.len()
    }

    /// How many open tasks descend from the task of this ordinal.
    pub fn open_descendants(&self, root: u64) -> usize {
        self.live.open_descendants(root)
    }

    /// Memory that open tasks take, bytes, estimated.
    pub fn open_bytes(&self) -> u64 {
        self.live.bytes
    }

    /// The body of a task. A packed body is unpacked for the caller and stays packed in memory.
    #[expect(clippy::expect_used, reason = "memory packed these bytes itself")]
    pub fn body(&self, key: TaskKey) -> Arc<TaskBody> {
        let body = self.live(key).body.whole();
        body.expect("a body does not read as it was packed")
    }

    /// The body of a task that waits no longer. Memory keeps the body unpacked from now on.
    pub fn whole_body(&mut self, key: TaskKey) -> Arc<TaskBody> {
        let body = self.body(key);
        let live = self.live_mut(key);
        if !matches!(live.body, StoredBody::Whole(_)) {
            live.body = StoredBody::Whole(body.clone());
        }
        body
    }

    /// Takes an id out of the tasks that the fold may forget. Returns whether it was among them.
    pub fn stop_pruning(&mut self, id: &TaskId) -> bool {
        self.pruning.remove(id).is_some()
    }

    /// A task is open from now on. Returns its key.
    pub fn opened(&mut self, body: Arc<TaskBody>, priority: i32) -> TaskKey {
        self.live.insert(body, priority)
    }

    /// The event of this seq opened a task of this id again. The view may still have its former
    /// end.
    pub fn reopened(&mut self, id: TaskId, seq: u64) {
        self.reopened.insert(id, seq);
    }

    /// An open task continues as the task that `body` describes. It keeps its id and its place in
    /// the order of adding.
    pub fn continued(&mut self, key: TaskKey, last: &TaskBody, body: Arc<TaskBody>) {
        self.live.replace(key, last, body);
    }

    /// An open task has ended.
    pub fn ended(&mut self, key: TaskKey, ended: Arc<Ended>) {
        let body = self.whole_body(key);
        self.live_mut(key).ended = Some(ended.clone());
        self.live.close(&body);
        if let Some(cause) = ended.end.skipped_for() {
            let skipped = self.skipped.entry(cause.clone()).or_default();
            skipped.push(ended.id.clone());
        }
        self.unfolded_ends.push_back(ended);
    }

    /// The core has forgotten a task that has ended. Memory keeps the task by its id until the view
    /// has it.
    pub fn forget(&mut self, key: TaskKey) {
        let body = self.body(key);
        let live = self.live.remove(key, &body.id);
        if let Some(Live {
            ended: Some(ended), ..
        }) = live
            && ended.seq > self.folded_seq
        {
            self.live.remember_ended(EndedTask { body, ended });
        }
    }

    /// A turn has ended. `seq` is that of the last event, and `ordinal` the place of the newest task
    /// in the order of adding.
    pub fn turn_ended(&mut self, seq: u64, ordinal: u64) {
        let is_new = self
            .unfolded_turns
            .back()
            .is_none_or(|end| end.ordinal < ordinal);
        if is_new {
            self.unfolded_turns.push_back(TurnEnd { seq, ordinal });
        }
    }

    /// The view has all events up to `seq`, so memory forgets what the view has.
    pub fn view_has(&mut self, seq: u64) {
        self.folded_seq = seq;
        while let Some(ended) = self.unfolded_ends.pop_front_if(|ended| ended.seq <= seq) {
            self.live
                .forget_ended(&ended.id, |stored| stored.ended.seq == ended.seq);
            if let Some(cause) = ended.end.skipped_for() {
                self.forget_skipped(cause, &ended.id);
            }
        }
        self.job_ends.view_has(seq);
        self.idle_jobs.retain(|_, job| job.since > seq);
        let renewed = self.places.get_mut().renew(self.store.as_ref());
        self.unreadable_index = self.told(renewed).err();
        self.reopened.retain(|_, since| *since > seq);
        while let Some(end) = self.unfolded_turns.pop_front_if(|end| end.seq <= seq) {
            self.live.pack(self.packed_ordinal + 1, end.ordinal);
            self.packed_ordinal = self.packed_ordinal.max(end.ordinal);
        }
    }

    fn forget_skipped(&mut self, cause: &TaskId, id: &TaskId) {
        let Some(skipped) = self.skipped.get_mut(cause) else {
            return;
        };
        skipped.retain(|other| other != id);
        if skipped.is_empty() {
            self.skipped.remove(cause);
        }
    }

    /// Returns the tasks among `tasks` that no open task and no open job needs. They count as
    /// unknown from now on. The fold asks again only after it has forgotten the tasks that were
    /// returned last.
    pub fn prunable(
        &mut self,
        mut tasks: Vec<EndedTask>,
        ended_before: Wall,
        is_job_open: impl Fn(&JobName) -> bool,
    ) -> Vec<EndedTask> {
        tasks.retain(|task| {
            task.ended.end.finished < ended_before
                && !is_job_open(&task.ended.job)
                && !self.live.is_named(&task.ended.id)
                && !self.live.is_job_named(&task.ended.job)
                && self.known(&task.ended.id).is_none()
        });
        self.pruning = tasks
            .iter()
            .map(|task| (task.ended.id.clone(), task.ended.seq))
            .collect();
        tasks
    }

    /// Ends of tasks that the view does not have yet, newest first.
    pub fn unfolded_ends(&self) -> impl Iterator<Item = &Arc<Ended>> {
        self.unfolded_ends.iter().rev()
    }

    /// Whether `ended` is the task's last end, so that it has not been opened again since.
    pub fn is_last_end(&self, ended: &Ended) -> bool {
        self.last_end(&ended.id)
            .is_some_and(|last| last.seq == ended.seq)
    }

    /// The seq of the oldest end that the view does not have yet.
    pub fn first_unfolded_end(&self) -> Option<u64> {
        self.unfolded_ends.front().map(|ended| ended.seq)
    }

    /// Tasks that were opened again, so that their end in the view may be a former one.
    pub fn reopened_ids(&self) -> impl Iterator<Item = &TaskId> {
        self.reopened.keys()
    }

    /// Whether the last end of a task, and its last opening after an end, have happened at `seq` or
    /// before.
    pub fn is_unchanged_since(&self, id: &TaskId, seq: u64) -> bool {
        let is_end_older = self.last_end(id).is_none_or(|ended| ended.seq <= seq);
        is_end_older && self.reopened.get(id).is_none_or(|since| *since <= seq)
    }

    /// The event of this seq opened a job for this run.
    pub fn run_began(&mut self, job: &JobName, run: u32, seq: u64) {
        self.job_ends.run_began(job, run, seq);
    }

    /// A task has ended in this run of its job.
    pub fn ended_in_run(&mut self, run: u32, ended: Arc<Ended>) {
        self.job_ends.ended(run, ended);
    }

    /// The ends of the tasks of a run of a job. There may be more than can be used of a run with more
    /// than [`limits::JOB_RESULTS_MAX`] tasks, and then they need not begin at the beginning. An end
    /// may be there twice.
    pub fn run_ends(&self, job: &JobName, run: u32) -> Result<RunEnds, Unreadable> {
        let mut ends = self.job_ends.of_run(job, run);
        if !ends.from_beginning {
            let max = limits::JOB_RESULTS_MAX;
            let folded = view::job_ends(self.store.as_ref(), job, run, max);
            let folded = self.told(folded)?;
            ends.ends.extend(folded.ends);
            ends.from_beginning = folded.from_beginning;
        }
        Ok(ends)
    }

    /// A job that the core does not have.
    pub fn idle_job(&self, name: &JobName) -> Result<Option<JobRecord>, Unreadable> {
        if let Some(record) = self.idle_job_in_memory(name) {
            return Ok(Some(record.clone()));
        }
        self.told(view::job(self.store.as_ref(), name))
    }

    /// A job that the core does not have, if the view does not have its newest record yet.
    pub fn idle_job_in_memory(&self, name: &JobName) -> Option<&JobRecord> {
        self.idle_jobs.get(name).map(|job| &job.record)
    }

    /// Names behind `name`, in order, of the jobs that the core does not have, and whose newest
    /// record the view does not have yet.
    pub fn idle_jobs_after(&self, name: &str) -> impl Iterator<Item = &JobName> {
        let jobs = self.idle_jobs.range::<str, _>((Excluded(name), Unbounded));
        jobs.map(|(name, _)| name)
    }

    /// The core does not have this job, whose record is `record`. The view has the record when it
    /// has the event of the seq `since`.
    pub fn set_idle_job(&mut self, name: JobName, since: u64, record: JobRecord) {
        self.idle_jobs.insert(name, IdleJob { since, record });
    }

    /// The core has this job from now on.
    pub fn job_opened(&mut self, name: &JobName) {
        self.idle_jobs.remove(name);
    }
}

/// A final state as the core has it. A state that is not final would be a bug of the master, and
/// counts as failed.
pub(crate) fn final_of(state: TaskState) -> FinalState {
    match state {
        TaskState::Done => FinalState::Done,
        TaskState::Cancelled => FinalState::Cancelled,
        TaskState::Skipped => FinalState::Skipped,
        TaskState::Failed
        | TaskState::Blocked
        | TaskState::Delayed
        | TaskState::Ready
        | TaskState::Assigned => FinalState::Failed,
    }
}
