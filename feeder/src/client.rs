//! A client of a master: connects, asks, and connects again when the link breaks.
//!
//! The session's name is made once and told in every `hello`, so that the master knows batches and
//! held jobs again.

mod link;
mod target;

pub use link::Link;
pub use target::Target;

use crate::trouble::Trouble;
use serde::de::DeserializeOwned;
use std::collections::VecDeque;
use std::time::Duration;
use taskmaster_protocol::message::{Operate, Operation, Query, Question, Welcome};
use taskmaster_protocol::{FromMaster, Json, ToMaster};
use taskmaster_transport::BlobClient;
use tokio::time::Instant;
use tokio_tungstenite::tungstenite::Utf8Bytes;

/// How long the first connection is tried: a master that was started a moment ago has time to come
/// up.
pub const FIRST_CONNECT: Duration = Duration::from_secs(5);

/// The first wait before another try; each is twice the one before.
const BACKOFF_FIRST: Duration = Duration::from_millis(50);

/// The longest wait before another try: a master that is back is found within a second.
const BACKOFF_MAX: Duration = Duration::from_secs(1);

/// A client with a connection.
pub struct Client {
    target: Target,
    link: Link,
    reference: u64,
    /// What came while an answer was waited for, in order.
    aside: VecDeque<Utf8Bytes>,
}

impl Client {
    /// Connects to the first master that answers; tries for 5 s.
    pub async fn connect(target: Target) -> Result<Client, Trouble> {
        Client::connect_within(target, FIRST_CONNECT).await
    }

    /// The same, for so long.
    pub async fn connect_within(target: Target, patience: Duration) -> Result<Client, Trouble> {
        let link = target.dial_within(patience).await?;
        Ok(Client {
            target,
            link,
            reference: 0,
            aside: VecDeque::new(),
        })
    }

    /// What the master said first on the present connection.
    pub fn welcome(&self) -> &Welcome {
        &self.link.welcome
    }

    /// Connects again after the link broke, however long it takes; says so once. Fails only when
    /// the master refuses.
    pub async fn reconnect(&mut self, why: &Trouble) -> Result<(), Trouble> {
        crate::output::chat(&format!("{why}; connecting again …"));
        self.reconnect_silently().await?;
        crate::output::chat("connected again");
        Ok(())
    }

    /// The same without a word: for those who own the terminal.
    pub async fn reconnect_silently(&mut self) -> Result<(), Trouble> {
        self.aside.clear();
        self.link = self.target.dial_forever().await?;
        Ok(())
    }

    /// Sends a message that has no answer, or whose answer the caller listens for.
    pub fn say(&self, message: &ToMaster) {
        self.link.say(message.encode());
    }

    /// Sends a message that was written by hand.
    pub fn say_text(&self, text: impl Into<Utf8Bytes>) {
        self.link.say(text);
    }

    /// The next message that is no answer to [`Client::request`]. May be dropped and called again.
    pub async fn hear(&mut self) -> Result<Utf8Bytes, Trouble> {
        match self.aside.pop_front() {
            Some(text) => Ok(text),
            None => self.link.hear().await,
        }
    }

    /// Puts a message back in front of what [`Client::hear`] gives next.
    pub fn put_back(&mut self, text: Utf8Bytes) {
        self.aside.push_front(text);
    }

    /// A number for the next message that wants an answer.
    pub fn next_reference(&mut self) -> u64 {
        self.reference += 1;
        self.reference
    }

    /// Asks something and reads the answer as `T`.
    pub async fn ask<T: DeserializeOwned>(&mut self, query: Query) -> Result<T, Trouble> {
        let answer = self.ask_raw(query).await?;
        answer
            .read()
            .map_err(|error| Trouble::Local(format!("the master's answer cannot be read: {error}")))
    }

    /// Asks something; the answer as it was sent, so that fields this version does not know are
    /// passed on.
    pub async fn ask_raw(&mut self, query: Query) -> Result<Json, Trouble> {
        self.request(|reference| {
            ToMaster::Ask(Question {
                reference,
                query: query.clone(),
            })
        })
        .await
    }

    /// Does what an operator wishes.
    pub async fn operate(&mut self, operation: Operation) -> Result<Json, Trouble> {
        self.request(|reference| {
            ToMaster::Operate(Operate {
                reference,
                operation: operation.clone(),
            })
        })
        .await
    }

    /// Sends what `message` makes of a reference and waits for its answer. Where the link breaks
    /// meanwhile it connects once more (5 s) and sends it again: every request of the wire may be
    /// repeated.
    pub async fn request(&mut self, message: impl Fn(u64) -> ToMaster) -> Result<Json, Trouble> {
        match self.request_once(&message).await {
            Err(Trouble::Lost(_)) => {
                self.aside.clear();
                self.link = self.target.dial_within(FIRST_CONNECT).await?;
                self.request_once(&message).await
            }
            other => other,
        }
    }

    /// The same, but a broken link is an error: for those who have more to restore than one
    /// question.
    pub async fn request_once(
        &mut self,
        message: impl Fn(u64) -> ToMaster,
    ) -> Result<Json, Trouble> {
        let reference = self.next_reference();
        self.say(&message(reference));
        loop {
            let text = self.link.hear().await?;
            // Only what can be an answer is read here; the rest waits for `hear`.
            match answer_of(&text, reference) {
                Some(answer) => return answer,
                None => self.aside.push_back(text),
            }
        }
    }

    /// Which masters it speaks to.
    pub fn target(&self) -> &Target {
        &self.target
    }

    /// Bytes by hash, from the same master.
    pub fn blobs(&self) -> BlobClient {
        self.target.blobs()
    }
}

/// The answer to `reference`, where `text` is that. A refusal without a number is an answer to
/// whatever was said last.
fn answer_of(text: &str, reference: u64) -> Option<Result<Json, Trouble>> {
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

/// Waits between tries: 50 ms, doubled up to 1 s.
pub(crate) struct Backoff(Duration);

impl Backoff {
    pub(crate) fn new() -> Backoff {
        Backoff(BACKOFF_FIRST)
    }

    /// Waits; not beyond `until`.
    pub(crate) async fn wait(&mut self, until: Option<Instant>) {
        let next = Instant::now() + self.0;
        self.0 = (self.0 * 2).min(BACKOFF_MAX);
        tokio::time::sleep_until(until.map_or(next, |until| until.min(next))).await;
    }
}
