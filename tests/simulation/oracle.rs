//! The oracle: it knows what was promised, and judges whether every promise is kept.

use crate::feeders::Feeder;
use crate::master::Master;
use crate::model::Model;
use crate::world::World;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use taskmaster_engine::engine::{DeferredEffect, Turn};
use taskmaster_engine::events::durable_events;
use taskmaster_protocol::message::{Attempt, Done, Page, Query, Status};
use taskmaster_protocol::shape::RunnerView;
use taskmaster_protocol::{EventKind, EventView, FromMaster, TaskId, TaskState, ToMaster, Wall};
use taskmaster_runner_session::Ending;
use taskmaster_store::body::Fingerprint;
use taskmaster_store::journal;
use taskmaster_store::kv::SharedStore;
use taskmaster_store::record::{Ended, JournalEntry, Record, TaskOutput};
use taskmaster_store::view::{self, EndedIndex, EndedTask, RestoredView};

#[derive(Default)]
pub struct Oracle {
    /// The first promise that was not kept.
    pub broken: Option<String>,
    /// What the journal says, as far as it is known to be synced.
    pub durable: Model,
    /// After a start that found more in the journal than was known to be synced: what was known
    /// before. `None` once all of it is synced.
    last_synced: Option<Model>,
    /// What is durable, with the turns of the present master that are not synced yet.
    pub pending: Model,
    /// The number of the last commit that the writer has reported as synced.
    safe: u64,
    /// The acknowledged tasks, with the hash of their documents.
    acknowledged: BTreeMap<TaskId, Fingerprint>,
    pub acknowledged_ids: Vec<TaskId>,
    /// Attempts that were sent, with the connection.
    pub sent: BTreeMap<Attempt, u64>,
    /// How guest code ended, by attempt.
    ends: BTreeMap<Attempt, Ending>,
    /// Results that have reached the master.
    done: BTreeMap<TaskId, Done>,
    /// Attempts whose guest code was started.
    started: BTreeSet<Attempt>,
    pub healed_at: u64,
    /// The time of the last turn.
    pub wall: Wall,
    /// Whether the wall clock is never set in this history.
    pub steady: bool,
    /// What watchers must see: the durable events, from the first on.
    events: Vec<(EventKind, Option<TaskId>, Wall)>,
    /// The seq of the first event that the journal has.
    pub kept_from: u64,
    /// Ids that were forgotten at some time. Each may name another task since.
    pub forgotten: BTreeSet<TaskId>,
    /// The seq of the last end of each id that was taken out of the view.
    forgotten_ends: BTreeMap<TaskId, u64>,
    /// Ids whose end was being forgotten when the power failed. The view may have such an end until
    /// it is pruned again.
    pub relapsed: BTreeSet<TaskId>,
    /// Ends that were looked up by id already, by the seq of the end.
    looked_up: BTreeMap<TaskId, u64>,
}

/// The ended tasks in the view.
type InView = BTreeMap<TaskId, Arc<Ended>>;

impl Oracle {
    pub fn claim(&mut self, holds: bool, text: impl FnOnce() -> String) {
        if !holds && self.broken.is_none() {
            self.broken = Some(text());
        }
    }

    pub fn judge(&mut self, verdict: Result<(), String>) {
        if let Err(text) = verdict {
            self.claim(false, || text);
        }
    }

    /// A turn has ended. Its records are not synced yet, but the master acts on them.
    pub fn turn_ends(&mut self, turn: &Turn) {
        // The fold may have asked in this turn, before one of the ids was added anew.
        for release in &turn.after {
            if let DeferredEffect::Pruned(_, tasks) = release {
                self.pending.leaving.extend(
                    tasks
                        .iter()
                        .map(|task| (task.ended.id.clone(), task.ended.seq)),
                );
            }
        }
        let verdict = self.pending.take(turn.first_seq, &turn.records);
        self.judge(verdict.map_err(|text| format!("in a turn: {text}")));
    }

    /// The writer has reported a commit as synced.
    pub fn commit_is_durable(&mut self, entry: &Arc<JournalEntry>) {
        let verdict = self.durable.take(entry.first_seq, &entry.records);
        self.judge(verdict);
        self.durable.commits += 1;
        self.last_synced = None;
        self.safe = self.durable.commits;
        self.keep_events(entry);
        entry
            .records
            .iter()
            .for_each(|record| self.judge_end(record));
    }

    /// Everything that was written is synced.
    pub fn all_is_synced(&mut self) {
        self.last_synced = None;
    }

    fn keep_events(&mut self, entry: &Arc<JournalEntry>) {
        for (event, seq) in durable_events(entry).zip(entry.first_seq..) {
            let dense = event.seq() == seq && seq == self.events.len() as u64 + 1;
            self.claim(dense, || format!("event {seq} is told as {}", event.seq()));
            self.events
                .push((event.kind(), event.task().cloned(), entry.time));
        }
    }

    /// A watcher sees an event.
    pub fn event_is_seen(&mut self, event: &EventView) {
        let durable = event.seq.and_then(|seq| self.events.get(seq as usize - 1));
        let same = durable.is_some_and(|(kind, task, time)| {
            (kind, task, time) == (&event.event, &event.task, &event.time)
        });
        let durable = durable.cloned();
        self.claim(same, || {
            format!("a watcher is told of {event:?}, durable is {durable:?}")
        });
    }

    /// The engine has let these ended tasks be forgotten. Nothing may need them, and their ids are
    /// free.
    pub fn leave(&mut self, tasks: &[EndedTask]) {
        for EndedTask { ended, .. } in tasks {
            let needed = self.pending.needs(&ended.id, ended.seq);
            self.claim(needed.is_none(), || needed.clone().unwrap_or_default());
            self.pending.forget(&ended.id, ended.seq);
            self.durable.leaving.insert(ended.id.clone(), ended.seq);
            self.acknowledged.remove(&ended.id);
            self.forgotten.insert(ended.id.clone());
        }
        let acknowledged = &self.acknowledged;
        self.acknowledged_ids
            .retain(|id| acknowledged.contains_key(id));
    }

    /// These ended tasks are about to be taken out of the view. Nothing may need them, after a crash
    /// either.
    pub fn forgets(&mut self, tasks: &[EndedTask]) {
        for EndedTask { ended, .. } in tasks {
            let needed = self.durable.needs(&ended.id, ended.seq);
            self.claim(needed.is_none(), || needed.clone().unwrap_or_default());
            let models = [Some(&mut self.durable), self.last_synced.as_mut()];
            models
                .into_iter()
                .flatten()
                .for_each(|model| model.forget(&ended.id, ended.seq));
            self.forgotten_ends.insert(ended.id.clone(), ended.seq);
            if !self.pending.tasks.contains_key(&ended.id)
                && !self.durable.tasks.contains_key(&ended.id)
            {
                self.acknowledged.remove(&ended.id);
                self.acknowledged_ids.retain(|id| *id != ended.id);
            }
        }
    }

    /// A task that is done must have the result with which the guest code of this attempt ended.
    fn judge_end(&mut self, record: &Record) {
        let Record::Ended(ended) = record else { return };
        if ended.end.cached().is_some() {
            // The model judges an answer that another task came to.
            return;
        }
        let attempt = Attempt {
            id: ended.id.clone(),
            attempt: ended.end.attempt,
        };
        match (ended.end.state, &ended.end.result) {
            (TaskState::Done, result) => {
                let ending = self.ends.get(&attempt).cloned();
                let right = matches!(&ending, Some(Ending::Done(done)) if Some(&done.result) == result.as_ref().map(TaskOutput::result).as_ref());
                self.claim(right, || {
                    format!("{attempt:?} is done with {result:?}, and ended as {ending:?}")
                });
            }
            (_, None) => {}
            (state, Some(result)) => self.claim(false, || {
                format!("{attempt:?} is {state:?} with {result:?}")
            }),
        }
    }

    /// A new master has read the store. Nothing that was promised may be missing, and the view must
    /// say what the journal says.
    pub fn master_starts(&mut self, reader: &SharedStore, restored: &RestoredView) {
        let end = journal::last(reader).unwrap_or_default();
        let safe = self.safe;
        self.claim(end >= safe, || {
            format!("the journal ends with commit {end}, {safe} was safe")
        });
        // The synced commits have been judged, and comparing the view shows whether they are there.
        // Commits that were written and not synced may have survived.
        let last_synced = self
            .last_synced
            .take()
            .unwrap_or_else(|| std::mem::take(&mut self.durable));
        let mut model = last_synced.clone();
        self.events.truncate(model.seq as usize);
        for number in model.commits + 1..=end {
            match journal::entry(reader, number) {
                Ok(Some(entry)) => {
                    let entry = Arc::new(entry);
                    self.keep_events(&entry);
                    let verdict = model.take(entry.first_seq, &entry.records);
                    self.judge(verdict);
                    entry
                        .records
                        .iter()
                        .for_each(|record| self.judge_end(record));
                }
                other => self.claim(false, || format!("commit {number} is {other:?}")),
            }
        }
        self.last_synced = (end > model.commits).then_some(last_synced);
        model.commits = end;
        let in_view = self.ends_in_view(reader);
        self.relapsed.clone_from(&self.forgotten);
        // Forgets the tasks whose ends are in commits that were read again.
        for (id, seq) in &self.forgotten_ends {
            if !in_view.contains_key(id) {
                model.forget(id, *seq);
            }
        }
        // Takes in again what the power failure has kept from being forgotten.
        for id in &self.forgotten {
            if let Some(fate) = model.gone.get(id)
                && in_view
                    .get(id)
                    .is_some_and(|again| Some(again) == fate.ends.last())
                && !model.tasks.contains_key(id)
            {
                model.tasks.insert(id.clone(), fate.clone());
            }
        }
        let lost = self.acknowledged.iter().find(|(id, document)| {
            model
                .tasks
                .get(*id)
                .is_none_or(|fate| fate.body.fingerprint != **document)
        });
        let lost = lost.map(|(id, _)| format!("{id} was acknowledged, and is lost"));
        self.judge(lost.map_or(Ok(()), Err));
        self.compare(reader, restored, &model, &in_view);
        self.pending = model.clone();
        self.durable = model;
    }

    /// Reads all ended tasks of the view.
    fn ends_in_view(&mut self, reader: &SharedStore) -> InView {
        let read = view::ended_from(reader.as_ref(), 0, usize::MAX);
        self.claim(read.is_ok(), || {
            format!("the ended tasks cannot be read: {read:?}")
        });
        read.unwrap_or_default()
            .into_iter()
            .map(|stored| (stored.ended.id.clone(), stored.ended))
            .collect()
    }

    /// The view must say what the records of the journal say.
    fn compare(
        &mut self,
        reader: &SharedStore,
        restored: &RestoredView,
        model: &Model,
        in_view: &InView,
    ) {
        let marks = &restored.watermarks;
        let counts = (marks.folded, marks.seq, marks.epoch, marks.ordinal);
        let right = (model.commits, model.seq, model.epoch, model.no);
        self.claim(counts == right, || {
            format!("the view is at {counts:?}, the journal at {right:?}")
        });
        let open = model.tasks.values().filter(|fate| fate.open).count();
        let mut open_in_view = 0;
        let read = view::open_tasks(reader.as_ref(), &mut |body, task| {
            open_in_view += 1;
            let fate = model.tasks.get(&body.id).filter(|fate| fate.open);
            let counts = (task.priority, task.tries, task.lost, task.fence);
            let same = fate
                .is_some_and(|fate| (fate.priority, fate.tries, fate.lost, fate.fence) == counts);
            self.claim(same, || {
                format!("the view has {task:?}, the journal {fate:?}")
            });
            Ok(())
        });
        self.claim(read.is_ok(), || {
            format!("the open tasks cannot be read: {read:?}")
        });
        self.claim(open == open_in_view, || {
            format!("{open} are open, {open_in_view} in the view")
        });
        let mut places = EndedIndex::with_filters(reader.as_ref()).unwrap_or_default();
        for (id, fate) in model.tasks.iter().filter(|(_, fate)| !fate.open) {
            let ended = in_view.get(id);
            let same = ended.is_some() && ended == fate.ends.last();
            self.claim(same, || {
                format!("{id} is {ended:?} in the view, in the journal {fate:?}")
            });
            if let Some(ended) = ended
                && self.looked_up.insert(id.clone(), ended.seq) != Some(ended.seq)
            {
                self.look_up(reader, &mut places, ended);
            }
        }
        for (id, ended) in in_view
            .iter()
            .filter(|(id, _)| !self.forgotten.contains(*id))
        {
            let ours = model.tasks.get(id).is_some_and(|fate| !fate.open);
            self.broken = self
                .broken
                .take()
                .or((!ours).then(|| format!("{ended:?} is in the view, and not ended")));
        }
        self.compare_jobs(restored, model);
    }

    /// The view must find an end by its id, too.
    fn look_up(&mut self, reader: &SharedStore, places: &mut EndedIndex, ended: &Arc<Ended>) {
        let stored = view::ended_task_by_index(reader.as_ref(), places, &ended.id);
        let same = matches!(&stored, Ok(Some(stored)) if stored.ended == *ended);
        self.claim(same, || {
            format!(
                "{} is {stored:?} by its id, and {ended:?} in its place",
                ended.id
            )
        });
    }

    /// Has every end looked up anew.
    pub fn look_up_all(&mut self) {
        self.looked_up.clear();
    }

    fn compare_jobs(&mut self, restored: &RestoredView, model: &Model) {
        let jobs: BTreeMap<_, _> = restored
            .jobs
            .iter()
            .map(|(name, record)| (name, record))
            .collect();
        for (name, fate) in model
            .jobs
            .iter()
            .filter(|(_, fate)| fate.open || fate.paused)
        {
            let same = jobs.get(name).is_some_and(|record| {
                let holders: BTreeSet<_> = record.holders.iter().cloned().collect();
                let ended = record.total - record.ended.iter().sum::<u64>();
                (record.open, record.paused, record.run, record.total)
                    == (fate.open, fate.paused, fate.run, fate.total)
                    && (holders, ended) == (fate.holders.clone(), fate.open_tasks)
            });
            self.claim(same, || {
                format!(
                    "job {name} is {:?} in the view, in the journal {fate:?}",
                    jobs.get(name)
                )
            });
        }
        let roster: BTreeSet<String> = restored.roster.iter().cloned().collect();
        self.claim(roster == model.roster, || {
            format!(
                "runners are {roster:?} in the view, in the journal {:?}",
                model.roster
            )
        });
    }

    /// A message has left the engine.
    pub fn master_says(&mut self, link: u64, message: &FromMaster) {
        let FromMaster::Send(sends) = message else {
            return;
        };
        for send in sends {
            let attempt = Attempt {
                id: send.id.clone(),
                attempt: send.attempt,
            };
            let twice = self.sent.insert(attempt.clone(), link);
            // The id of a pruned task may name another task, whose attempts are counted anew.
            let anew = self.forgotten.contains(&send.id);
            self.claim(twice.is_none() || anew, || {
                format!("{attempt:?} is sent twice, over {twice:?} and {link}")
            });
            let fate = self.pending.tasks.get(&send.id);
            let verdict = match fate {
                Some(fate) if self.steady && fate.due.is_some_and(|due| due > self.wall) => {
                    Err(format!(
                        "{attempt:?} is sent before its time: {:?}, it is {:?}",
                        fate.due, self.wall
                    ))
                }
                Some(fate) if fate.open && send.attempt > fate.fence => {
                    self.pending.may_run(&fate.body)
                }
                other => Err(format!("{attempt:?} is sent, and it is {other:?}")),
            };
            self.judge(verdict);
        }
    }

    /// A message has reached the engine.
    pub fn master_hears(&mut self, message: &ToMaster) {
        if let ToMaster::Done(reports) = message {
            self.done
                .extend(reports.iter().map(|done| (done.id.clone(), done.clone())));
        }
    }

    /// The last result that reached the master for a task.
    pub fn last_done(&self, id: &TaskId) -> Option<Done> {
        self.done.get(id).cloned()
    }

    pub fn guest_starts(&mut self, attempt: &Attempt) {
        let sent = self.sent.contains_key(attempt);
        self.claim(sent, || format!("{attempt:?} starts, and nobody sent it"));
        let first = self.started.insert(attempt.clone());
        let anew = self.forgotten.contains(&attempt.id);
        self.claim(first || anew, || {
            format!("{attempt:?} starts a second time")
        });
    }

    pub fn guest_ends(&mut self, ending: &Ending) {
        self.ends.insert(ending.attempt(), ending.clone());
    }

    pub fn add_is_acknowledged(&mut self, id: TaskId, text: String) {
        let known = self.durable.tasks.contains_key(&id) || self.pending.tasks.contains_key(&id);
        // The task may have ended and been forgotten before its feeder hears that it was added.
        let gone = self.forgotten.contains(&id);
        self.claim(known || gone, || {
            format!("{id} is acknowledged, and nobody knows it")
        });
        if known
            && self
                .acknowledged
                .insert(id.clone(), Fingerprint::of(&text))
                .is_none()
        {
            self.acknowledged_ids.push(id);
        }
    }

    pub fn was_acknowledged(&self, id: &TaskId) -> bool {
        self.acknowledged.contains_key(id)
    }

    pub fn ends_of(&self, id: &TaskId) -> usize {
        self.durable.tasks.get(id).map_or(0, |fate| fate.ends.len())
    }

    /// A feeder is told that these tasks are cancelled. Each is given with the number of ends that
    /// were durable when the feeder asked: the last of these, or a later one, must be a cancel.
    pub fn cancel_is_acknowledged(&mut self, ids: &[(TaskId, usize)]) {
        for (id, ends) in ids {
            let states: Vec<TaskState> = self.durable.tasks.get(id).map_or(Vec::new(), |fate| {
                fate.ends
                    .iter()
                    .skip(ends.saturating_sub(1))
                    .map(|ended: &Arc<Ended>| ended.end.state)
                    .collect()
            });
            // The task may have been forgotten since, because the answer was on its way for long.
            let right = states.contains(&TaskState::Cancelled) || self.forgotten.contains(id);
            self.claim(right, || {
                format!("the cancel of {id} is acknowledged, and it ended as {states:?}")
            });
        }
    }

    /// Whether a job or a module is paused.
    pub fn is_anything_paused(&self) -> bool {
        let durable = &self.durable;
        durable.jobs.values().any(|job| job.paused)
            || durable.modules.values().any(|module| module.paused)
    }

    /// The tasks that failed or were cancelled.
    pub fn retriable(&self) -> Vec<TaskId> {
        let last = |state: TaskState| matches!(state, TaskState::Failed | TaskState::Cancelled);
        let tasks = self.durable.tasks.iter().filter(|(_, fate)| !fate.open);
        tasks
            .filter(|(_, fate)| fate.ends.last().is_some_and(|ended| last(ended.end.state)))
            .map(|(id, _)| id.clone())
            .collect()
    }

    fn open_task(&self) -> Option<String> {
        let (id, fate) = self.durable.tasks.iter().find(|(_, fate)| fate.open)?;
        let attempts: Vec<_> = self
            .sent
            .iter()
            .filter(|(attempt, _)| attempt.id == *id)
            .collect();
        Some(format!("{id} is open: {fate:?}; sent {attempts:?}"))
    }

    fn open_job(&self) -> Option<String> {
        self.durable
            .jobs
            .iter()
            .find(|(_, fate)| fate.open)
            .map(|(job, fate)| format!("job {job} is open: {fate:?}"))
    }
}

impl World {
    /// Something that has not come to its end yet.
    pub fn unfinished(&mut self) -> Option<String> {
        if self.master.as_ref().is_none_or(Master::has_unwritten) {
            return Some("the master is not at rest".into());
        }
        if let Some(watcher) = self
            .watchers
            .iter()
            .find(|watcher| watcher.seen < self.oracle.durable.seq)
        {
            return Some(format!(
                "a watcher has seen event {} of {}",
                watcher.seen, self.oracle.durable.seq
            ));
        }
        if let Some(feeder) = self.feeders.iter().find(|feeder| feeder.unanswered() > 0) {
            return Some(format!(
                "{} has {} batches without an answer",
                feeder.name,
                Feeder::unanswered(feeder)
            ));
        }
        if let Some(what) = self.oracle.open_task().or_else(|| self.oracle.open_job()) {
            return Some(what);
        }
        if let Some(runner) = self
            .runners
            .iter()
            .find(|runner| runner.session.is_none() || runner.held() > 0)
        {
            return Some(format!(
                "{} is away or holds {} attempts",
                runner.offer.name,
                runner.held()
            ));
        }
        let status: Status = self.ask(Query::Status).ok()?.read().ok()?;
        if status.runners != self.runners.len() as u64 || status.jobs != 0 {
            return Some(format!("the master says {status:?}"));
        }
        let runners: Page<RunnerView> = self.ask(Query::RUNNERS).ok()?.read().ok()?;
        runners
            .rows
            .iter()
            .find(|runner| runner.used > 0 || runner.attempts > 0)
            .map(|runner| format!("{runner:?} is not free"))
    }

    /// Starts a last master on the disk when everything is over, and judges what it reads.
    pub fn last_start(&mut self) {
        let reader = self.reader();
        self.store.crash(0);
        self.oracle.look_up_all();
        let read = view::catch_up(&reader).and_then(|()| view::restore(reader.as_ref()));
        match read {
            Ok(restored) => self.oracle.master_starts(&reader, &restored),
            Err(error) => self.oracle.broken = Some(format!("the store cannot be read: {error}")),
        }
        let wrong = self
            .master
            .as_ref()
            .map_or(Vec::new(), |master| master.engine.check());
        self.oracle
            .claim(wrong.is_empty(), || format!("in the core: {wrong:?}"));
    }
}
