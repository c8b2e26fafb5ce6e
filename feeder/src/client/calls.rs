//! Many calls in flight on one connection: their answers come in any order and are matched by id.
//!
//! ```no_run
//! use taskmaster_feeder::client::{CallNews, Calls, Client, Target};
//! use taskmaster_protocol::{JobName, Json, ModuleRef, TaskDocument};
//!
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! let target = Target::parse("ws://127.0.0.1:3232", None)?;
//! let mut calls = Calls::new(Client::connect(target).await?, JobName::new("squares")?);
//! for n in 0..1_000 {
//!     let mut task = TaskDocument::new(ModuleRef::parse("echo")?);
//!     task.params = Some(Json::of(&n));
//!     calls.call(task)?;
//! }
//! while let Some(news) = calls.next().await? {
//!     match news {
//!         CallNews::Partial(partial) => println!("{}: first {}", partial.id, partial.value.get()),
//!         CallNews::Ended(task) => println!("{}: {}", task.id, task.state.as_str()),
//!         CallNews::Refused(call) => println!("{}: {}", call.id, call.refusal),
//!     }
//! }
//! # Ok(())
//! # }
//! ```

use super::{Client, ClientError, SeenPartials};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use taskmaster_protocol::message::{
    Add, Added, Cancel, Follow, PartialResult, Rejected, Rejection, TasksEnded,
};
use taskmaster_protocol::{
    FromMaster, JobName, Json, Refusal, RefusalCode, TaskDocument, TaskId, TaskView, ToMaster,
    limits,
};

/// Bytes of the documents of one batch, about.
const BATCH_BYTES: usize = 1 << 20;

/// What came of a call.
#[derive(Debug)]
pub enum CallNews {
    /// A partial result.
    Partial(PartialResult),
    /// The task has ended. Nothing more comes of this call.
    Ended(Box<TaskView>),
    /// The task was not added. Nothing more comes of this call.
    Refused(RefusedCall),
}

/// A call whose task was not added.
#[derive(Debug)]
pub struct RefusedCall {
    /// The id that the task would have.
    pub id: TaskId,
    /// Why it was not added.
    pub refusal: Refusal,
}

/// Calls on one connection. A connection that breaks is made again, and no call is lost or made
/// twice. Dropping this cancels nothing.
pub struct Calls {
    client: Client,
    /// The job of the calls that name none.
    job: JobName,
    /// The jobs that are followed, each up to a seq.
    followed: BTreeMap<JobName, u64>,
    /// Calls that are to be sent.
    queued: VecDeque<QueuedCall>,
    /// Batches that were sent and not answered, by number.
    unanswered: BTreeMap<u64, SentBatch>,
    last_batch: u64,
    open: BTreeSet<TaskId>,
    /// Calls that were cancelled and have not ended.
    cancelled: BTreeSet<TaskId>,
    seen: SeenPartials,
    news: VecDeque<CallNews>,
}

struct QueuedCall {
    id: TaskId,
    /// Whether the caller chose the id, and so wants to find the task under it.
    has_own_id: bool,
    document: Json,
}

struct SentBatch {
    ids: Vec<TaskId>,
    message: String,
}

impl Calls {
    /// No calls yet. Those whose documents name no job will be in `job`.
    pub fn new(client: Client, job: JobName) -> Calls {
        Calls {
            client,
            job,
            followed: BTreeMap::new(),
            queued: VecDeque::new(),
            unanswered: BTreeMap::new(),
            last_batch: 0,
            open: BTreeSet::new(),
            cancelled: BTreeSet::new(),
            seen: SeenPartials::default(),
            news: VecDeque::new(),
        }
    }

    /// Begins a call and gives the id of its task, which is made up where the document has none. It
    /// is sent by the next [`Calls::next`]: calls that are begun together travel together.
    ///
    /// # Errors
    ///
    /// [`ClientError::Refused`] where the document is not one that a master takes.
    pub fn call(&mut self, mut document: TaskDocument) -> Result<TaskId, ClientError> {
        let has_own_id = document.id.is_some();
        let id = match document.id.take() {
            Some(id) => id,
            None => TaskId::new(&uuid::Uuid::now_v7().to_string())
                .map_err(|error| Refusal::new(RefusalCode::Internal, error.to_string()))?,
        };
        document.id = Some(id.clone());
        let job = document.job.get_or_insert_with(|| self.job.clone());
        let job = job.clone();
        let document = Json::of(&document);
        TaskDocument::parse(document.get())?;

        if !self.followed.contains_key(&job) {
            let since = self.client.welcome().seq;
            self.follow(&job, since);
            self.followed.insert(job, since);
        }
        self.open.insert(id.clone());
        self.queued.push_back(QueuedCall {
            id: id.clone(),
            has_own_id,
            document,
        });
        Ok(id)
    }

    /// Cancels the task of a call. Its end is told as any other.
    pub fn cancel(&mut self, id: TaskId) {
        self.send_queued();
        self.send_cancel(vec![id.clone()]);
        self.cancelled.insert(id);
    }

    fn send_cancel(&mut self, ids: Vec<TaskId>) {
        self.client.send_change(|reference| {
            ToMaster::Cancel(Cancel {
                reference,
                ids,
                job: None,
            })
        });
    }

    /// How many calls have not ended.
    pub fn open(&self) -> usize {
        self.open.len()
    }

    /// What comes next; `None` when no call is open. The future may be dropped and made again:
    /// nothing is lost.
    ///
    /// # Errors
    ///
    /// Those of [`Client::reconnect`], and [`ClientError::Refused`] where the master does not
    /// understand this client.
    pub async fn next(&mut self) -> Result<Option<CallNews>, ClientError> {
        loop {
            if let Some(news) = self.news.pop_front() {
                return Ok(Some(news));
            }
            if self.open.is_empty() {
                return Ok(None);
            }
            self.send_queued();
            match self.client.receive().await {
                Ok(text) => self.take(&text)?,
                Err(ClientError::Lost(_)) => self.reconnect().await?,
                Err(other) => return Err(other),
            }
        }
    }

    fn send_queued(&mut self) {
        while let Some(first) = self.queued.front() {
            let has_own_id = first.has_own_id;
            let mut ids = Vec::new();
            let mut tasks = Vec::new();
            let mut bytes = 0;
            while tasks.len() < limits::BATCH_TASKS_MAX
                && bytes < BATCH_BYTES
                && let Some(call) = self
                    .queued
                    .pop_front_if(|call| call.has_own_id == has_own_id)
            {
                bytes += call.document.get().len();
                ids.push(call.id);
                tasks.push(call.document);
            }
            self.last_batch += 1;
            let add = ToMaster::Add(Add {
                batch: self.last_batch,
                job: None,
                hold: false,
                answers: !has_own_id,
                tasks,
            });
            let message = add.encode();
            self.client.send_text(message.clone());
            let batch = SentBatch { ids, message };
            self.unanswered.insert(self.last_batch, batch);
        }
    }

    fn follow(&self, job: &JobName, since: u64) {
        self.client.send(&ToMaster::Follow(Follow {
            job: Some(job.clone()),
            ids: Vec::new(),
            since: Some(since),
            partials: true,
        }));
    }

    /// Connects again, and repeats what was not answered, under the numbers that it had.
    async fn reconnect(&mut self) -> Result<(), ClientError> {
        self.client.reconnect().await?;
        for (job, since) in &self.followed {
            self.follow(job, *since);
        }
        for batch in self.unanswered.values() {
            self.client.send_text(batch.message.clone());
        }
        // The connection may have broken before the master read of them.
        let cancelled: Vec<TaskId> = self.cancelled.iter().cloned().collect();
        for ids in cancelled.chunks(limits::IDS_MAX) {
            self.send_cancel(ids.to_vec());
        }
        Ok(())
    }

    fn take(&mut self, text: &str) -> Result<(), ClientError> {
        let unreadable = |refusal: Refusal| ClientError::Unreadable(refusal.to_string());
        match FromMaster::decode(text).map_err(unreadable)? {
            FromMaster::Partials(partials) => {
                for partial in partials {
                    if self.open.contains(&partial.id) {
                        let new = self.seen.take(partial);
                        self.news.extend(new.map(CallNews::Partial));
                    }
                }
            }
            FromMaster::Final(TasksEnded { seq, tasks, .. }) => {
                // Where one job is followed, the seq is its own.
                if let (Some(seq), 1) = (seq, self.followed.len()) {
                    let since = self.followed.values_mut();
                    since.for_each(|since| *since = seq.max(*since));
                }
                tasks.into_iter().for_each(|task| self.ended(task));
            }
            FromMaster::Added(added) => self.added(added),
            FromMaster::Rejected(rejected) => self.rejected(rejected),
            FromMaster::Refused(refused) if refused.reference.is_none() => {
                return Err(refused.error.into());
            }
            // The answer to a cancel, or what a newer master says.
            _ => {}
        }
        Ok(())
    }

    fn ended(&mut self, task: TaskView) {
        if self.open.remove(&task.id) {
            self.cancelled.remove(&task.id);
            self.seen.forget(task.id.as_str());
            self.news.push_back(CallNews::Ended(Box::new(task)));
        }
    }

    /// A batch is durable. A task that was there before this client came may have ended before it
    /// followed the job, so it is asked for.
    fn added(&mut self, added: Added) {
        self.unanswered.remove(&added.batch);
        added.answers.into_iter().for_each(|task| self.ended(task));
        for ids in added.known.chunks(limits::IDS_MAX) {
            self.client.send(&ToMaster::Follow(Follow {
                job: None,
                ids: ids.to_vec(),
                since: None,
                partials: true,
            }));
        }
    }

    fn rejected(&mut self, rejected: Rejected) {
        let Some(batch) = self.unanswered.get(&rejected.batch) else {
            return;
        };
        for Rejection { index, error } in rejected.tasks {
            if let Some(id) = batch.ids.get(index)
                && self.open.remove(id)
            {
                let refused = RefusedCall {
                    id: id.clone(),
                    refusal: error,
                };
                self.news.push_back(CallNews::Refused(refused));
            }
        }
    }
}
