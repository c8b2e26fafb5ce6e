//! Kept answers: looks them up for tasks that would be ready, and keeps those of tasks that are done.

mod asked;

use super::children::write_line;
use super::{Engine, Told};
use crate::cache::BlobIndex;
use crate::cache::index::{AnswerIndex, Found};
use crate::cache::key::{self, ModulePart};
use crate::cache::unfolded::UnfoldedAnswers;
use crate::events::ended_view;
use crate::prepare::PreparedTask;
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;
use taskmaster_core::{Event, SharedRunKey, State, TaskKey};
use taskmaster_protocol::message::{Log, ResultRef};
use taskmaster_protocol::shape::AnswerSource;
use taskmaster_protocol::{
    AttemptId, CacheMode, Hash, JobName, ModuleName, ModuleRef, TaskState, TaskView, Wall,
};
use taskmaster_store::body::TaskBody;
use taskmaster_store::cache::{CacheRequest, CacheTerms};
use taskmaster_store::cache_entry::CacheEntry;
use taskmaster_store::record::{EndExtras, Ended, Record, TaskEnd, TaskOutput};
use taskmaster_store::view;

/// The release that makes answers, for whoever looks at them later.
const ENGINE: &str = env!("CARGO_PKG_VERSION");

/// Results in params that are compared, and their bytes. More of them make the key doubtful, because
/// the engine would be busy for too long.
const RESULTS_MAX: usize = 1_000;
const RESULT_BYTES_MAX: usize = 1 << 20;

/// Files of an answer that are looked for before it is given. An answer with more is not kept.
const FILES_MAX: usize = 1_000;

/// How often old answers are looked for, µs, and among how many.
const SWEEP_EVERY_US: u64 = 10_000_000;
const SWEPT_MAX: usize = 20_000;

/// Answers, runs that equal tasks share, and what has become of look-ups.
pub(super) struct Answers {
    pub(super) index: AnswerIndex,
    /// What the view does not know yet of the answers.
    unfolded: UnfoldedAnswers,
    blobs: Box<dyn BlobIndex>,
    /// Tasks for which an answer has to be looked up.
    waiting: VecDeque<TaskKey>,
    /// Whether the tasks above are being looked at.
    is_looking: bool,
    /// The run that equal tasks share now, by their key.
    runs: HashMap<Hash, SharedRunKey>,
    /// The key of each of these runs, and of runs that a refresh has taken the place of.
    run_keys: BTreeMap<SharedRunKey, Hash>,
    last_run: u64,
    last_sweep_us: u64,
    pub(super) counts: AnswerCounts,
}

/// What has happened since the master started.
#[derive(Debug, Default, Clone, Copy)]
pub(super) struct AnswerCounts {
    pub hits: u64,
    pub misses: u64,
    pub joined: u64,
    pub kept: u64,
    /// Answers that were not kept because of a doubt.
    pub doubtful: u64,
    /// Answers that went because others needed their room, or because they were too old.
    pub evicted: u64,
}

/// What is known of the attempt that has made an answer.
pub(super) struct SentAttempt {
    /// The key of the answer when the attempt was sent; `None` where an earlier master has sent it.
    pub key: Option<Hash>,
    /// Whether the attempt adds tasks.
    pub adds_tasks: bool,
}

/// The key of a task's answer.
struct AnswerKey {
    key: Hash,
    results: Vec<Hash>,
}

impl Answers {
    pub fn new(bytes_max: u64, blobs: Box<dyn BlobIndex>) -> Answers {
        Answers {
            index: AnswerIndex::new(bytes_max),
            unfolded: UnfoldedAnswers::default(),
            blobs,
            waiting: VecDeque::new(),
            is_looking: false,
            runs: HashMap::new(),
            run_keys: BTreeMap::new(),
            last_run: 0,
            last_sweep_us: 0,
            counts: AnswerCounts::default(),
        }
    }

    pub fn look_for_blobs_in(&mut self, blobs: Box<dyn BlobIndex>) {
        self.blobs = blobs;
    }

    /// An answer has to be looked up for this task.
    pub fn wanted(&mut self, task: TaskKey) {
        self.waiting.push_back(task);
    }

    /// The view has all events up to `seq`.
    pub fn view_has(&mut self, seq: u64) {
        self.index.view_has(seq);
        self.unfolded.view_has(seq);
    }

    /// No further task joins this run.
    pub fn forget_run(&mut self, run: SharedRunKey) {
        let Some(key) = self.run_keys.remove(&run) else {
            return;
        };
        if self.runs.get(&key) == Some(&run) {
            self.runs.remove(&key);
        }
    }

    /// The run for a task of this key. A refresh begins a new one, which later tasks join.
    fn run_for(&mut self, key: Hash, mode: CacheMode) -> SharedRunKey {
        let known = self.runs.get(&key).copied();
        if let Some(run) = known.filter(|_| mode != CacheMode::Refresh) {
            return run;
        }
        self.last_run += 1;
        let run = SharedRunKey(self.last_run);
        self.runs.insert(key, run);
        self.run_keys.insert(run, key);
        run
    }

    /// Bytes of all blobs of an answer; `None` if one of them is not there.
    fn blob_bytes(&self, output: &TaskOutput) -> Option<u64> {
        let result = match output.result() {
            ResultRef::Blob(hash) => self.blobs.size(&hash)?,
            ResultRef::Json(_) => 0,
        };
        let files = output
            .outputs()
            .into_iter()
            .flat_map(|files| files.values());
        files
            .map(|hash| self.blobs.size(hash))
            .try_fold(result, |sum, bytes| Some(sum + bytes?))
    }
}

impl Engine {
    /// Looks answers up for the tasks that have asked for it, and tells the core.
    pub(super) fn look_up_answers(&mut self) {
        if self.answers.is_looking {
            return;
        }
        self.answers.is_looking = true;
        while let Some(task) = self.answers.waiting.pop_front() {
            self.look_up(task);
        }
        self.answers.is_looking = false;
    }

    fn look_up(&mut self, task: TaskKey) {
        // The task may have been cancelled within the same turn.
        let is_looking = |task: &taskmaster_core::Task| task.state() == State::LookingUp;
        if !self.core.task(task).is_some_and(is_looking) {
            return;
        }
        let body = self.facts.body(task);
        let timeout_ms = self.timeout_ms(&body);
        let mode = body.cache().map_or(CacheMode::Off, |request| request.mode);
        let run = match self.answer_key(&body) {
            Ok(AnswerKey { key, .. }) => {
                let kept = (mode == CacheMode::Use)
                    .then(|| self.kept_answer(&key))
                    .flatten();
                if let Some(entry) = kept {
                    self.answers.counts.hits += 1;
                    let event = Event::AnswerFound { task };
                    return self.tell_with(event, Some(Told::Answer(entry)));
                }
                self.answers.counts.misses += 1;
                Some(self.answers.run_for(key, mode))
            }
            Err(_) => None,
        };
        self.tell(Event::AnswerMissed {
            task,
            run,
            timeout_ms,
        });
    }

    /// How a task ends that is not added, because an answer is kept for it. `None` if it has to be
    /// added.
    pub(super) fn answer_at_once(
        &mut self,
        task: &PreparedTask,
        job: &JobName,
    ) -> Option<TaskView> {
        let document = &task.document;
        let request = task.cache.as_ref()?;
        let waits = !document.dependencies.is_empty()
            || !task.references.tasks.is_empty()
            || !task.references.jobs.is_empty()
            || document.delay_ms.is_some()
            || document.not_before.is_some();
        if waits || request.mode != CacheMode::Use {
            return None;
        }
        let ModuleRef { name, pin } = &document.module;
        let own = request.document?;
        let make = |module: &ModulePart<'_>| key::whole(module, &own, &[]);
        let key = self.with_module_part(name, pin.as_deref(), make).ok()?;
        let entry = self.kept_answer(&key)?;
        self.answers.counts.hits += 1;
        let attempt = AttemptId {
            epoch: self.epoch,
            n: 0,
        };
        let mut end = TaskEnd::new(TaskState::Done, attempt, self.now.wall);
        end.priority = document.priority;
        answer_with(&mut end, &entry, self.now.wall);
        Some(ended_view(&Ended {
            seq: 0,
            id: task.id.clone(),
            ordinal: 0,
            module: name.clone(),
            job: job.clone(),
            created: self.now.wall,
            end,
        }))
    }

    /// The answer of this key, if one is kept that is young enough and whose blobs are there.
    fn kept_answer(&mut self, key: &Hash) -> Option<Arc<CacheEntry>> {
        let entry = match self.answers.index.get(key, self.now.wall) {
            Found::Nothing => return None,
            Found::Answer(entry) => entry,
            Found::InView => {
                let read = self.facts.answer_in_view(key).ok().flatten();
                let entry = read.map(Arc::new);
                if let Some(entry) = &entry {
                    self.answers.index.was_read(entry.clone());
                }
                entry?
            }
        };
        if self.answers.blob_bytes(&entry.result).is_none() {
            let task = &entry.task;
            tracing::warn!(%task, "a blob of a kept answer is gone: the answer is dropped");
            self.drop_answers(vec![*key]);
            return None;
        }
        Some(entry)
    }

    /// Keeps these answers no longer. Returns how many of them were kept.
    pub(super) fn drop_answers(&mut self, mut keys: Vec<Hash>) -> usize {
        keys.retain(|key| self.answers.index.remove(key));
        let dropped = keys.len();
        if dropped > 0 {
            self.persist_dropped(keys);
        }
        dropped
    }

    /// Looks for answers that are too old, a few at a time.
    pub(super) fn sweep_answers(&mut self) {
        let is_due = self.now.mono_us >= self.answers.last_sweep_us + SWEEP_EVERY_US;
        if !is_due || self.answers.index.len() == 0 {
            return;
        }
        self.answers.last_sweep_us = self.now.mono_us;
        let keys = self.answers.index.sweep(self.now.wall, SWEPT_MAX);
        if !keys.is_empty() {
            self.answers.counts.evicted += keys.len() as u64;
            // Whoever reads the view passes over what is too old, so nobody else need know.
            self.persist(Record::AnswersDropped { keys });
        }
    }

    /// When old answers are looked for again, by the monotonic clock, µs.
    pub(super) fn next_sweep(&self) -> Option<u64> {
        let has_answers = self.answers.index.len() > 0;
        has_answers.then_some(self.answers.last_sweep_us + SWEEP_EVERY_US)
    }

    fn evicted(&mut self, keys: Vec<Hash>) {
        if !keys.is_empty() {
            self.answers.counts.evicted += keys.len() as u64;
            self.persist_dropped(keys);
        }
    }

    fn persist_dropped(&mut self, keys: Vec<Hash>) {
        // This record has no event, so the view has it when it has the next one.
        self.answers.unfolded.dropped(&keys, self.last_seq + 1);
        self.persist(Record::AnswersDropped { keys });
    }

    /// The key by which the answer of a task is kept now, or why it has none, as the end of a
    /// sentence.
    fn answer_key(&self, body: &TaskBody) -> Result<AnswerKey, String> {
        let request = body.cache();
        let doubt = || request.and_then(|request| request.doubt.clone());
        let Some(document) = request.and_then(|request| request.document) else {
            return Err(doubt().unwrap_or_else(|| "its document says nothing of it".into()));
        };
        let results = self.result_hashes(body)?;
        let key = self.with_module_part(&body.module, body.pin.as_deref(), |module| {
            key::whole(module, &document, &results)
        })?;
        Ok(AnswerKey { key, results })
    }

    /// Gives `make` the parts of the key that the master adds.
    fn with_module_part<T>(
        &self,
        module: &ModuleName,
        pin: Option<&str>,
        make: impl FnOnce(&ModulePart<'_>) -> T,
    ) -> Result<T, String> {
        let version = self.modules.version(module, pin);
        let version = version.ok_or("no version of its module can run")?.version;
        let granted = self.modules.granted(module);
        let values = [
            ("variables", granted.env.is_empty()),
            ("secrets", granted.secrets.is_empty()),
            ("folders", granted.folders.is_empty()),
        ];
        if let Some((what, _)) = values.iter().find(|(_, is_empty)| !is_empty) {
            return Err(format!(
                "its module is given {what} of runners, and their values may differ from runner to runner"
            ));
        }
        Ok(make(&ModulePart {
            name: module,
            version: &self.modules.cache_version(module, &version),
            granted: &granted,
            salt: self.modules.salt(module),
        }))
    }

    /// The hashes of the results that the params of a task ask for, in their order.
    fn result_hashes(&self, body: &TaskBody) -> Result<Vec<Hash>, String> {
        let references = body.references();
        if references.len() > RESULTS_MAX {
            return Err(format!(
                "its params ask for more than {RESULTS_MAX} results"
            ));
        }
        let mut hashes = Vec::with_capacity(references.len());
        let mut bytes = 0;
        for id in references {
            let gone = || format!("the result of `{id}` cannot be read");
            let ended = match self.facts.last_end(id) {
                Some(ended) => ended.clone(),
                None => {
                    self.facts
                        .ended_in_view(id)
                        .ok()
                        .flatten()
                        .ok_or_else(gone)?
                        .ended
                }
            };
            match ended
                .end
                .result
                .as_ref()
                .map(TaskOutput::result)
                .ok_or_else(gone)?
            {
                ResultRef::Blob(hash) => hashes.push(hash),
                ResultRef::Json(json) => {
                    bytes += json.get().len();
                    if bytes > RESULT_BYTES_MAX {
                        return Err(format!(
                            "the results in its params have more than {RESULT_BYTES_MAX} bytes"
                        ));
                    }
                    hashes.push(Hash::of(json.get().as_bytes()));
                }
            }
        }
        Ok(hashes)
    }

    /// The key of an attempt that is sent, and whether the runner must hide the id of the task.
    pub(super) fn key_of_attempt(&self, body: &TaskBody) -> Option<Hash> {
        body.cache()?;
        self.answer_key(body).ok().map(|answer| answer.key)
    }

    /// Decides whether the answer of a task is kept that is done by an attempt. `own_ttl_s` is the time
    /// that the attempt has set, in seconds.
    pub(super) fn keep_answer(
        &mut self,
        body: &TaskBody,
        end: &mut TaskEnd,
        sent: SentAttempt,
        own_ttl_s: Option<u64>,
    ) {
        let ttl_s = match body.cache() {
            Some(request) => time_to_live(request, own_ttl_s),
            None => own_ttl_s.unwrap_or(0),
        };
        if ttl_s == 0 {
            return;
        }
        match self.terms(body, end, sent, ttl_s) {
            Ok(terms) => {
                self.answers.counts.kept += 1;
                end.extras.get_or_insert_default().kept = Some(Box::new(terms));
            }
            Err(why) => {
                self.answers.counts.doubtful += 1;
                let log: &mut Box<Log> = end.log.get_or_insert_default();
                write_line(log, &format!("the answer is not kept: {why}"));
            }
        }
    }

    fn terms(
        &self,
        body: &TaskBody,
        end: &TaskEnd,
        sent: SentAttempt,
        ttl_s: u64,
    ) -> Result<CacheTerms, String> {
        if body
            .cache()
            .is_none_or(|request| request.mode == CacheMode::Off)
        {
            return Err(format!(
                "`::cache` counts only for a task with `cache`; `[defaults]` with `cache = {{}}` in \
                 `{}.toml` gives it to all tasks of the module",
                body.module
            ));
        }
        if body.is_continued() {
            return Err("the task went on as another one".into());
        }
        if sent.adds_tasks {
            return Err("it added tasks, and another one would not add them".into());
        }
        let AnswerKey { key, results } = self.answer_key(body)?;
        let sent = sent.key.ok_or("an earlier master had sent the attempt")?;
        if sent != key {
            return Err("its module has changed since the attempt was sent".into());
        }
        let output = end.result.as_ref().ok_or("it has no result")?;
        if output
            .outputs()
            .is_some_and(|files| files.len() > FILES_MAX)
        {
            return Err(format!("it has more than {FILES_MAX} files"));
        }
        let bytes = self
            .answers
            .blob_bytes(output)
            .ok_or("a blob of it is gone")?;
        if !self.answers.index.has_room_for(bytes) {
            return Err(format!(
                "it has {bytes} bytes, more than all answers together may have (--cache-mb)"
            ));
        }
        Ok(CacheTerms {
            key,
            ttl_s,
            timeout_ms: self.timeout_ms(body),
            memory_mb: self.memory_mb(body.extras.as_ref().and_then(|extras| extras.memory_mb)),
            engine: ENGINE.into(),
            parts: self.with_module_part(&body.module, body.pin.as_deref(), |module| {
                key::parts(module, body, &results)
            })?,
            blob_bytes: bytes,
            former_expires: self.answers.index.expires(&key),
        })
    }

    /// Takes in an answer that a task has left.
    pub(super) fn answer_kept(&mut self, entry: CacheEntry) {
        let entry = Arc::new(entry);
        self.answers.unfolded.kept(entry.clone());
        let gone = self.answers.index.insert(entry);
        self.evicted(gone);
    }

    /// Where the answer comes from that a task shares with the one that ran.
    pub(super) fn shared_answer(&mut self, end: &mut TaskEnd, by: TaskKey) {
        let Some(ended) = self.facts.live(by).ended.clone() else {
            return;
        };
        self.answers.counts.joined += 1;
        end.result = ended.end.result.clone();
        end.error = ended.end.error.clone();
        end.version = ended.end.version;
        set_source(
            end,
            AnswerSource {
                from: ended.id.clone(),
                age_s: 0,
                joined: true,
            },
        );
    }
}

/// Makes a task end with a kept answer.
pub(super) fn answer_with(end: &mut TaskEnd, entry: &CacheEntry, now: Wall) {
    end.result = Some(entry.result.clone());
    end.version = entry.version;
    set_source(
        end,
        AnswerSource {
            from: entry.task.clone(),
            age_s: now.since_us(entry.stored) / 1_000_000,
            joined: false,
        },
    );
}

fn set_source(end: &mut TaskEnd, source: AnswerSource) {
    let extras: &mut Box<EndExtras> = end.extras.get_or_insert_default();
    extras.cached = Some(source);
}

/// How long an answer is kept, in seconds: the task sets or shortens the time of the document.
fn time_to_live(request: &CacheRequest, own_ttl_s: Option<u64>) -> u64 {
    match (request.ttl_s, own_ttl_s) {
        (0, own) => own.unwrap_or(0),
        (ttl_s, own) => own.map_or(ttl_s, |own| own.min(ttl_s)),
    }
}

/// Reads the kept answers into the index.
pub(super) fn restore(
    store: &dyn taskmaster_store::kv::KvStore,
    answers: &mut Answers,
) -> Result<(), taskmaster_store::kv::StoreError> {
    view::cache_entries(store, &mut |entry| {
        answers.index.restore(&entry);
    })
}
