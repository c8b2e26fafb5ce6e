//! What is known of a task or a job by its id.
//!
//! A task is in one of three places: the core holds it ([`LiveTasks`]), it has ended and the view
//! does not have it yet, or the view has it. This room answers for all three, so that nobody else
//! has to know in which order to look.

mod attempt;
mod live;
mod order;
#[cfg(test)]
mod tests;

pub(crate) use attempt::LastAttempt;
pub(crate) use live::{Known, Live};

use live::LiveTasks;
use std::cell::RefCell;
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;
use taskmaster_core::{FinalState, TaskKey};
use taskmaster_protocol::{JobName, TaskId, TaskState, Wall};
use taskmaster_store::body::TaskBody;
use taskmaster_store::kv::{SharedStore, StoreError};
use taskmaster_store::packed::StoredBody;
use taskmaster_store::record::{Ended, JobRecord};
use taskmaster_store::view::{self, EndedIndex, EndedTask};

/// What a task is to those that depend on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fact {
    /// The core holds it, open.
    Open(TaskKey),
    /// It has ended.
    Ended {
        /// How.
        how: FinalState,
        /// Its place in the order of adding.
        ordinal: u64,
    },
    /// Nobody has added it, or it is no longer kept.
    Unknown,
}

/// A job that the core does not hold, until the view has it as it is here.
#[derive(Debug)]
struct IdleJob {
    /// The view has it when it has this seq.
    since: u64,
    record: JobRecord,
}

/// The end of a turn that added tasks.
#[derive(Debug)]
struct TurnEnd {
    seq: u64,
    /// The newest task.
    ordinal: u64,
}

/// Everything that is known of tasks and jobs by their ids.
pub(crate) struct Facts {
    live: LiveTasks,
    store: SharedStore,
    /// Where the view has ended tasks. A look-up teaches it, hence the cell.
    places: RefCell<EndedIndex>,
    /// The view has all events up to this seq.
    folded_seq: u64,
    /// Turns with new tasks that the view does not have yet, oldest first.
    unfolded_turns: VecDeque<TurnEnd>,
    /// Bodies of waiting tasks are packed up to this place in the order of adding.
    packed_ordinal: u64,
    /// EndEvents that the view does not have yet, oldest first.
    unfolded_ends: VecDeque<Arc<Ended>>,
    /// Skipped tasks among them, by the dependency for which they were skipped.
    skipped: HashMap<TaskId, Vec<TaskId>>,
    /// Tasks that were opened again, or added anew, with the seq of that. Until the view has that
    /// seq, it may still have their former end.
    reopened: HashMap<TaskId, u64>,
    /// Ended tasks that the fold may forget, with the seq of their end: nobody may count on them
    /// any more, though the view may still have them. An id may have a newer end.
    leaving: HashMap<TaskId, u64>,
    idle_jobs: BTreeMap<JobName, IdleJob>,
}

impl Facts {
    /// Knows what the view in `store` knows, which has everything up to `folded_seq` and the task
    /// of `last_ordinal`.
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
            skipped: HashMap::new(),
            reopened: HashMap::new(),
            leaving: HashMap::new(),
            idle_jobs: BTreeMap::new(),
        })
    }

    /// What memory knows of an id. `None` is no statement: the view may have it.
    pub fn known(&self, id: &TaskId) -> Option<Known<'_>> {
        self.live.known(id)
    }

    /// The key of a task that the core holds, open or closing.
    pub fn key(&self, id: &TaskId) -> Option<TaskKey> {
        self.known(id)?.key()
    }

    /// How a task ended, as far as memory has it.
    pub fn last_end(&self, id: &TaskId) -> Option<&Arc<Ended>> {
        self.known(id)?.end()
    }

    /// An ended task that memory has let go of. A view that cannot be read is told in the log, and
    /// knows nothing.
    pub fn ended_in_view(&self, id: &TaskId) -> Option<EndedTask> {
        let read =
            view::ended_task_by_index(self.store.as_ref(), &mut self.places.borrow_mut(), id);
        let stored = read.unwrap_or_else(|error| {
            tracing::error!(%id, %error, "the view cannot be read");
            None
        })?;
        let leaves = self.leaving.get(id) == Some(&stored.ended.seq);
        (!leaves).then_some(stored)
    }

    /// What the task of this id is to those that depend on it.
    pub fn fact(&self, id: &TaskId) -> Fact {
        let ended = |ended: &Ended| Fact::Ended {
            how: final_of(ended.end.state),
            ordinal: ended.ordinal,
        };
        match self.known(id) {
            Some(Known::Open(key)) => Fact::Open(key),
            Some(Known::Closing(_, how)) => ended(how),
            Some(Known::Ended(stored)) => ended(&stored.ended),
            None => self
                .ended_in_view(id)
                .map_or(Fact::Unknown, |stored| ended(&stored.ended)),
        }
    }

    /// What the task that `body` waits for under this id is. It came before `body`, unless `body`
    /// has gone on as another task: a task that came later has an id that was free again, and the
    /// one that is meant is no longer kept. `ordinal_of` gives the place of an open task in the
    /// order of adding.
    pub fn meant(&self, body: &TaskBody, id: &TaskId, ordinal_of: impl Fn(TaskKey) -> u64) -> Fact {
        let fact = self.fact(id);
        let ordinal = match fact {
            Fact::Open(key) => ordinal_of(key),
            Fact::Ended { ordinal, .. } => ordinal,
            Fact::Unknown => return fact,
        };
        if ordinal < body.ordinal || body.is_continued() {
            fact
        } else {
            Fact::Unknown
        }
    }

    /// Ended tasks that were skipped for `cause`, and have not ended otherwise since.
    pub fn skipped_for(&self, cause: &TaskId) -> Vec<EndedTask> {
        let mut ids = self.skipped.get(cause).cloned().unwrap_or_default();
        match view::skipped_for(self.store.as_ref(), cause) {
            Ok(folded) => ids.extend(folded),
            Err(error) => tracing::error!(%cause, %error, "the view cannot be read"),
        }
        let stored = |id: TaskId| match self.known(&id) {
            Some(Known::Ended(stored)) => Some(stored.clone()),
            Some(Known::Open(_) | Known::Closing(..)) => None,
            None => self.ended_in_view(&id),
        };
        let still = |stored: &EndedTask| stored.ended.end.skipped_for() == Some(cause);
        ids.into_iter().filter_map(stored).filter(still).collect()
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

    /// The task of this key, to be changed.
    #[expect(
        clippy::expect_used,
        reason = "the core names only tasks that it was given here"
    )]
    pub fn live_mut(&mut self, key: TaskKey) -> &mut Live {
        self.live
            .get_mut(key)
            .expect("the core names a task that the engine does not hold")
    }

    /// The task of this key, if the core still holds it.
    pub fn live_if_held(&mut self, key: TaskKey) -> Option<&mut Live> {
        self.live.get_mut(key)
    }

    /// Every task that the core holds.
    pub fn all_live(&self) -> impl Iterator<Item = &Live> {
        self.live.iter()
    }

    /// Open tasks from this place in the order of adding on.
    pub fn open_from(&self, ordinal: u64) -> impl Iterator<Item = (u64, TaskKey)> {
        self.live.open.from(ordinal)
    }

    /// How many tasks are open.
    pub fn open_count(&self) -> usize {
        self.live.open.len()
    }

    /// Memory that open tasks take, bytes, about.
    pub fn open_bytes(&self) -> u64 {
        self.live.bytes
    }

    /// The body of a task, for a look at it.
    #[expect(clippy::expect_used, reason = "memory packed these bytes itself")]
    pub fn body(&self, key: TaskKey) -> Arc<TaskBody> {
        let body = self.live(key).body.whole();
        body.expect("a body does not read as it was packed")
    }

    /// The body of a task that waits no longer: memory keeps it whole from now on.
    pub fn whole_body(&mut self, key: TaskKey) -> Arc<TaskBody> {
        let body = self.body(key);
        let live = self.live_mut(key);
        if !matches!(live.body, StoredBody::Whole(_)) {
            live.body = StoredBody::Whole(body.clone());
        }
        body
    }

    /// Whether this id had ended and was about to be forgotten. It is back, and stays.
    pub fn is_back(&mut self, id: &TaskId) -> bool {
        self.leaving.remove(id).is_some()
    }

    /// A task is open from now on, under the key that is given back.
    pub fn opened(&mut self, body: Arc<TaskBody>, priority: i32) -> TaskKey {
        self.live.insert(body, priority)
    }

    /// What was told at `seq` opened a task of this id again; the view may still have its former
    /// end.
    pub fn reopened(&mut self, id: TaskId, seq: u64) {
        self.reopened.insert(id, seq);
    }

    /// An open task is from now on what `body` says; it keeps its id and its place.
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

    /// The core lets go of a task that has ended. Until the view has it, memory keeps it by its id.
    pub fn let_go(&mut self, key: TaskKey) {
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

    /// A turn has ended; `seq` and `ordinal` are those of the last event and of the newest task.
    pub fn turn_ended(&mut self, seq: u64, ordinal: u64) {
        let is_new = self
            .unfolded_turns
            .back()
            .is_none_or(|end| end.ordinal < ordinal);
        if is_new {
            self.unfolded_turns.push_back(TurnEnd { seq, ordinal });
        }
    }

    /// The view has everything up to `seq`: memory lets go of it.
    pub fn view_has(&mut self, seq: u64) {
        self.folded_seq = seq;
        while let Some(ended) = self.unfolded_ends.pop_front_if(|ended| ended.seq <= seq) {
            self.live
                .forget_ended(&ended.id, |stored| stored.ended.seq == ended.seq);
            if let Some(cause) = ended.end.skipped_for() {
                self.forget_skipped(cause, &ended.id);
            }
        }
        self.idle_jobs.retain(|_, job| job.since > seq);
        if let Err(error) = self.places.get_mut().renew(self.store.as_ref()) {
            tracing::error!(%error, "the view cannot be read");
        }
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

    /// Those of these ended tasks that nothing open needs. From now on they count as unknown. The
    /// fold asks again only when the last ones are gone.
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
                && self.known(&task.ended.id).is_none()
        });
        let leaving = tasks
            .iter()
            .map(|task| (task.ended.id.clone(), task.ended.seq));
        self.leaving = leaving.collect();
        tasks
    }

    /// EndEvents that the view does not have yet, newest first.
    pub fn unfolded_ends(&self) -> impl Iterator<Item = &Arc<Ended>> {
        self.unfolded_ends.iter().rev()
    }

    /// Whether the task has not been opened again since this end.
    pub fn is_last_end(&self, ended: &Ended) -> bool {
        self.last_end(&ended.id)
            .is_some_and(|last| last.seq == ended.seq)
    }

    /// The seq of the oldest end that the view does not have yet.
    pub fn first_unfolded_end(&self) -> Option<u64> {
        self.unfolded_ends.front().map(|ended| ended.seq)
    }

    /// Tasks whose end in the view is a former one.
    pub fn reopened_ids(&self) -> impl Iterator<Item = &TaskId> {
        self.reopened.keys()
    }

    /// Whether what memory says of this id is durable up to `seq`: that the task ended, and that it
    /// was opened again.
    pub fn is_told_by(&self, id: &TaskId, seq: u64) -> bool {
        let is_end_told = self.last_end(id).is_none_or(|ended| ended.seq <= seq);
        is_end_told && self.reopened.get(id).is_none_or(|since| *since <= seq)
    }

    /// A job that the core does not hold.
    pub fn idle_job(&self, name: &JobName) -> Option<JobRecord> {
        if let Some(record) = self.idle_job_in_memory(name) {
            return Some(record.clone());
        }
        view::job(self.store.as_ref(), name).unwrap_or_else(|error| {
            tracing::error!(job = %name, %error, "the view cannot be read");
            None
        })
    }

    /// A job that the core does not hold, as far as the view does not have it as it is.
    pub fn idle_job_in_memory(&self, name: &JobName) -> Option<&JobRecord> {
        self.idle_jobs.get(name).map(|job| &job.record)
    }

    /// The names of these jobs.
    pub fn idle_jobs_in_memory(&self) -> impl Iterator<Item = &JobName> {
        self.idle_jobs.keys()
    }

    /// What a job is that the core does not hold. The view has it when it has `since`.
    pub fn job_idles(&mut self, name: JobName, since: u64, record: JobRecord) {
        self.idle_jobs.insert(name, IdleJob { since, record });
    }

    /// The core holds a job from now on.
    pub fn job_opened(&mut self, name: &JobName) {
        self.idle_jobs.remove(name);
    }
}

/// The core's word for a final state. One that is not final would be a bug of ours, and is taken as
/// failed.
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
