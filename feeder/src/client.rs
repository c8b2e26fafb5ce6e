//! A client of a master: connects, asks, and connects again when the connection breaks.
//!
//! A [`Target`] names the masters and the session. The session is told at each connection, so the
//! master knows it again after a break: a batch that is sent twice with one number is added once,
//! and a job that the session holds open stays open.
//!
//! [`Calls`] has many tasks in flight on one connection and matches their answers by id.
//!
//! A client has one connection at a time. Messages that are no answer to a question (`task:added`,
//! `task:final`, events) wait in memory until [`Client::receive`] takes them, in the order in which
//! they came.
//!
//! ```no_run
//! use taskmaster_feeder::client::{Client, ClientError, Target};
//! use taskmaster_protocol::message::{Query, Status};
//!
//! # async fn example() -> Result<(), ClientError> {
//! let target = Target::parse("ws://127.0.0.1:3232", None)?;
//! let mut client = Client::connect(target).await?;
//! let status: Status = client.ask(Query::Status).await?;
//! println!("{} runners", status.runners);
//! # Ok(())
//! # }
//! ```

mod backoff;
mod calls;
mod connection;
mod error;
mod partials;
mod target;

pub(crate) use backoff::Backoff;
pub use calls::{CallNews, Calls, RefusedCall};
pub use error::ClientError;
pub use partials::SeenPartials;
pub use target::Target;

use connection::MasterConnection;
use serde::de::DeserializeOwned;
use std::collections::VecDeque;
use std::time::Duration;
use taskmaster_protocol::message::{
    Cancel, ChangeTask, Operate, Operation, Page, Query, Question, Retry, Welcome,
};
use taskmaster_protocol::{FromMaster, JobName, Json, TaskId, ToMaster};
use taskmaster_transport::BlobClient;
use tokio_tungstenite::tungstenite::Utf8Bytes;

/// How long [`Client::connect`] tries: a master that was started a moment ago has time to come up.
pub const CONNECT_PATIENCE: Duration = Duration::from_secs(5);

/// A client with a connection.
pub struct Client {
    target: Target,
    connection: MasterConnection,
    last_reference: u64,
    /// Messages that came while an answer was waited for, in order.
    pending: VecDeque<Utf8Bytes>,
}

impl Client {
    /// Connects to the first master that answers. Tries for [`CONNECT_PATIENCE`].
    ///
    /// # Errors
    ///
    /// [`ClientError::Unreachable`] where none answers in that time, [`ClientError::Refused`] or
    /// [`ClientError::NotAMaster`] at once where a further try is of no use.
    pub async fn connect(target: Target) -> Result<Client, ClientError> {
        Client::connect_within(target, CONNECT_PATIENCE).await
    }

    /// Like [`Client::connect`], but tries for `patience`.
    ///
    /// # Errors
    ///
    /// Those of [`Client::connect`].
    pub async fn connect_within(target: Target, patience: Duration) -> Result<Client, ClientError> {
        let connection = target.dial_within(patience).await?;
        Ok(Client {
            target,
            connection,
            last_reference: 0,
            pending: VecDeque::new(),
        })
    }

    /// The master's first message on the present connection.
    pub fn welcome(&self) -> &Welcome {
        &self.connection.welcome
    }

    /// The masters and the session of this client.
    pub fn target(&self) -> &Target {
        &self.target
    }

    /// Bytes by hash, at the same master.
    pub fn blobs(&self) -> BlobClient {
        self.target.blobs()
    }

    /// Connects again after the connection broke, however long it takes. Messages that
    /// [`Client::receive`] has not taken are forgotten, and nothing is sent again: the caller
    /// repeats what was not answered and what it follows or watches.
    ///
    /// # Errors
    ///
    /// [`ClientError::Refused`] or [`ClientError::NotAMaster`]; a master that is away is waited
    /// for.
    pub async fn reconnect(&mut self) -> Result<(), ClientError> {
        self.pending.clear();
        self.connection = self.target.dial_forever().await?;
        Ok(())
    }

    /// Queues a message that has no answer, or whose answer the caller takes from
    /// [`Client::receive`]. A broken connection shows there, too.
    pub fn send(&self, message: &ToMaster) {
        self.connection.send(message.encode());
    }

    /// Queues a question and gives its reference. The caller takes the answer, or the refusal, from
    /// [`Client::receive`], among all other messages: many questions may be on their way at a time.
    pub fn send_question(&mut self, query: Query) -> u64 {
        self.send_change(|reference| ToMaster::Ask(Question { reference, query }))
    }

    /// Queues the message that `message` makes of a reference, as [`Client::send_question`] does
    /// with a question.
    pub fn send_change(&mut self, message: impl FnOnce(u64) -> ToMaster) -> u64 {
        self.last_reference += 1;
        let reference = self.last_reference;
        self.send(&message(reference));
        reference
    }

    /// Queues a message that is JSON already.
    pub fn send_text(&self, text: impl Into<Utf8Bytes>) {
        self.connection.send(text);
    }

    /// The next message that is no answer to [`Client::request`]. The future may be dropped and
    /// made again: no message is lost.
    ///
    /// # Errors
    ///
    /// [`ClientError::Lost`], also where the master was silent for
    /// [`SILENT_MS_MAX`](taskmaster_protocol::limits::SILENT_MS_MAX).
    pub async fn receive(&mut self) -> Result<Utf8Bytes, ClientError> {
        match self.pending.pop_front() {
            Some(text) => Ok(text),
            None => self.connection.receive().await,
        }
    }

    /// Has [`Client::receive`] give these messages again, before all others.
    pub(crate) fn put_back(&mut self, messages: Vec<Utf8Bytes>) {
        for message in messages.into_iter().rev() {
            self.pending.push_front(message);
        }
    }

    /// Asks a question and reads the answer as `T`.
    ///
    /// # Errors
    ///
    /// Those of [`Client::request`], and [`ClientError::Unreadable`] where the answer is no `T`.
    pub async fn ask<T: DeserializeOwned>(&mut self, query: Query) -> Result<T, ClientError> {
        read_answer(&self.ask_raw(query).await?)
    }

    /// Asks a question and gives the answer as it was sent, so that fields which this version does
    /// not know are passed on.
    ///
    /// # Errors
    ///
    /// Those of [`Client::request`].
    pub async fn ask_raw(&mut self, query: Query) -> Result<Json, ClientError> {
        self.request(|reference| {
            ToMaster::Ask(Question {
                reference,
                query: query.clone(),
            })
        })
        .await
    }

    /// Asks for a list and reads each of its rows as `T`. The list comes page by page.
    ///
    /// # Errors
    ///
    /// Those of [`Client::ask`].
    pub async fn ask_list<T: DeserializeOwned>(
        &mut self,
        mut query: Query,
    ) -> Result<Vec<T>, ClientError> {
        let mut rows = Vec::new();
        loop {
            let page: Page<T> = self.ask(query.clone()).await?;
            rows.extend(page.rows);
            if page.next.is_none() {
                return Ok(rows);
            }
            query = query.at(page.next);
        }
    }

    /// Like [`Client::ask_raw`], but a broken connection is an error: for callers who have more to
    /// restore than one question.
    ///
    /// # Errors
    ///
    /// Those of [`Client::request_once`].
    pub async fn ask_once(&mut self, query: Query) -> Result<Json, ClientError> {
        self.request_once(|reference| {
            ToMaster::Ask(Question {
                reference,
                query: query.clone(),
            })
        })
        .await
    }

    /// Has the master do what an operator wants. The answer comes when it is durably done.
    ///
    /// # Errors
    ///
    /// Those of [`Client::request`].
    pub async fn operate(&mut self, operation: Operation) -> Result<Json, ClientError> {
        self.request(|reference| {
            ToMaster::Operate(Operate {
                reference,
                operation: operation.clone(),
            })
        })
        .await
    }

    /// Cancels these tasks, or every open task of `job` where it is given. Running tasks are
    /// stopped. One message names at most [`IDS_MAX`](taskmaster_protocol::limits::IDS_MAX) tasks.
    ///
    /// # Errors
    ///
    /// Those of [`Client::request`].
    pub async fn cancel(
        &mut self,
        ids: Vec<TaskId>,
        job: Option<JobName>,
    ) -> Result<Json, ClientError> {
        self.request(|reference| {
            ToMaster::Cancel(Cancel {
                reference,
                ids: ids.clone(),
                job: job.clone(),
            })
        })
        .await
    }

    /// Opens failed or cancelled tasks again, and what was skipped because of them. One message names
    /// at most [`IDS_MAX`](taskmaster_protocol::limits::IDS_MAX) tasks.
    ///
    /// # Errors
    ///
    /// Those of [`Client::request`].
    pub async fn retry(&mut self, ids: Vec<TaskId>) -> Result<Json, ClientError> {
        self.request(|reference| {
            ToMaster::Retry(Retry {
                reference,
                ids: ids.clone(),
            })
        })
        .await
    }

    /// Changes an open task: its priority, its earliest start in milliseconds from now, or both.
    ///
    /// # Errors
    ///
    /// Those of [`Client::request`].
    pub async fn set(
        &mut self,
        id: TaskId,
        priority: Option<i32>,
        delay_ms: Option<u64>,
    ) -> Result<Json, ClientError> {
        self.request(|reference| {
            ToMaster::Set(ChangeTask {
                reference,
                id: id.clone(),
                priority,
                delay_ms,
            })
        })
        .await
    }

    /// Sends the message that `message` makes of a reference, and waits for its answer. Where the
    /// connection breaks meanwhile, it connects once more ([`CONNECT_PATIENCE`]) and sends the
    /// message again: every request of the protocol may be repeated. Messages that wait for
    /// [`Client::receive`] are forgotten then.
    ///
    /// # Errors
    ///
    /// [`ClientError::Refused`] with the master's reason, [`ClientError::Unreachable`] where no
    /// master answers after a break, [`ClientError::Lost`] where the second connection breaks, too.
    pub async fn request(
        &mut self,
        message: impl Fn(u64) -> ToMaster,
    ) -> Result<Json, ClientError> {
        match self.request_once(&message).await {
            Err(ClientError::Lost(_)) => {
                self.pending.clear();
                self.connection = self.target.dial_within(CONNECT_PATIENCE).await?;
                self.request_once(&message).await
            }
            other => other,
        }
    }

    /// Like [`Client::request`], but a broken connection is an error: for callers who have more to
    /// restore than one question.
    ///
    /// # Errors
    ///
    /// [`ClientError::Refused`] with the master's reason, [`ClientError::Lost`] where the
    /// connection breaks.
    pub async fn request_once(
        &mut self,
        message: impl Fn(u64) -> ToMaster,
    ) -> Result<Json, ClientError> {
        self.last_reference += 1;
        let reference = self.last_reference;
        self.send(&message(reference));
        loop {
            let text = self.connection.receive().await?;
            match answer_to(reference, &text) {
                Some(answer) => return answer,
                None => self.pending.push_back(text),
            }
        }
    }
}

/// Reads an answer of the master.
///
/// # Errors
///
/// [`ClientError::Unreadable`] where the answer is no `T`.
pub fn read_answer<T: DeserializeOwned>(answer: &Json) -> Result<T, ClientError> {
    answer
        .read()
        .map_err(|error| ClientError::Unreadable(error.to_string()))
}

/// The answer to `reference`, where `text` is that. A refusal without a reference answers whatever
/// was sent last.
fn answer_to(reference: u64, text: &str) -> Option<Result<Json, ClientError>> {
    // Only what can be an answer is read: other messages may be long, and come often.
    if !(text.contains("\"answer\"") || text.contains("\"refused\"")) {
        return None;
    }
    match FromMaster::decode(text).ok()? {
        FromMaster::Answer(answer) if answer.reference == reference => Some(Ok(answer.data)),
        FromMaster::Refused(refused) if refused.reference.is_none_or(|r| r == reference) => {
            Some(Err(refused.error.into()))
        }
        _ => None,
    }
}
