//! The half of a session that reads: each message is decoded, checked and passed on.

use super::GatewayState;
use super::closing::{self, code};
use super::permits::{AnswerPermits, InboxPermits};
use super::subscriptions::Subscriptions;
use super::{add, follow_ups, heavy, questions, reports};
use axum::extract::ws::{CloseFrame, Message, Utf8Bytes, WebSocket};
use futures_util::StreamExt;
use futures_util::stream::SplitStream;
use serde::Deserialize;
use std::sync::Arc;
use std::time::Duration;
use taskmaster_engine::inbox::{ConnectionId, Input};
use taskmaster_protocol::message::{Add, Done, Question, Refused, Role};
use taskmaster_protocol::{FromMaster, Json, Refusal, RefusalCode, ToMaster, limits};
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};

/// Questions of one session that are being answered.
const QUESTIONS_MAX: usize = 64;

/// A runner's lease is kept alive by whatever comes from it. The engine is told so no more often.
const HEARD_INTERVAL: Duration = Duration::from_millis(100);

/// What the reader has of the writer of its session.
pub(super) struct ToWriter {
    /// Messages from the session's own tasks.
    pub(super) side: mpsc::Sender<FromMaster>,
    /// One for each ping. It is bounded, so a peer that does not read its answers is not read.
    pub(super) ping: mpsc::Sender<()>,
    pub(super) permits: AnswerPermits,
}

/// The half of a session that reads.
pub(super) struct SessionReader {
    state: GatewayState,
    session: ConnectionId,
    role: Role,
    /// To the writer, from the session's own tasks.
    side: mpsc::Sender<FromMaster>,
    ping: mpsc::Sender<()>,
    permits: AnswerPermits,
    /// When the engine was told last that the other side lives.
    heard: Option<Instant>,
    inbox: InboxPermits,
    questions: Arc<Semaphore>,
    /// Answers to questions and subscriptions under way. They end with the session.
    tasks: JoinSet<()>,
    subscriptions: Subscriptions,
}

impl SessionReader {
    pub(super) fn new(
        state: GatewayState,
        session: ConnectionId,
        role: Role,
        writer: ToWriter,
    ) -> SessionReader {
        let ToWriter {
            side,
            ping,
            permits,
        } = writer;
        SessionReader {
            subscriptions: Subscriptions::new(state.handle.clone(), side.clone()),
            state,
            session,
            role,
            side,
            ping,
            permits,
            heard: None,
            inbox: InboxPermits::default(),
            questions: Arc::new(Semaphore::new(QUESTIONS_MAX)),
            tasks: JoinSet::new(),
        }
    }

    /// Reads until the session ends. Returns the close frame for the other side.
    pub(super) async fn read(&mut self, stream: &mut SplitStream<WebSocket>) -> CloseFrame {
        let silence_max = Duration::from_millis(limits::SILENT_MS_MAX);
        let mut stop = self.state.stop.clone();
        loop {
            let next = tokio::select! {
                next = timeout(silence_max, stream.next()) => next,
                _ = stop.wait_for(|stop| *stop) => {
                    return closing::frame(code::GOING_AWAY, "the master is stopping");
                }
            };
            let Ok(next) = next else {
                let reason = format!("nothing came for {} ms", silence_max.as_millis());
                tracing::info!(session = self.session.0, reason, "a session is closed");
                return closing::frame(code::POLICY, &reason);
            };
            match next {
                None => return closing::frame(code::NORMAL, ""),
                Some(Err(error)) => return closing::frame_for_read_error(&error.to_string()),
                Some(Ok(Message::Text(text))) => self.take_text(text).await,
                Some(Ok(Message::Binary(_))) => self.refuse(None, closing::binary_refusal()).await,
                Some(Ok(Message::Ping(_))) => {
                    self.heard();
                    // The writer ends only with the session.
                    let _ = self.ping.send(()).await;
                }
                Some(Ok(Message::Pong(_))) => self.heard(),
                Some(Ok(Message::Close(_))) => return closing::frame(code::NORMAL, ""),
            }
            while self.tasks.try_join_next().is_some() {}
        }
    }

    /// Tells the engine that a runner lives.
    fn heard(&mut self) {
        let is_due = self
            .heard
            .is_none_or(|heard| heard.elapsed() >= HEARD_INTERVAL);
        if self.role == Role::Runner && is_due {
            self.heard = Some(Instant::now());
            let session = self.session;
            self.state.handle.tell(Input::Heard {
                connection: session,
            });
        }
    }

    async fn take_text(&mut self, text: Utf8Bytes) {
        let copy = text.clone();
        let decoded = heavy::run(text.len(), move || ToMaster::decode(&text))
            .await
            .and_then(|decoded| decoded)
            .and_then(|message| check_role(&message, self.role).map(|()| message));
        match decoded {
            Ok(message) => self.take_message(message, copy.len()).await,
            Err(refusal) => self.refuse(reference_in(&copy), refusal).await,
        }
    }

    /// `bytes` is the length of the message as it came.
    async fn take_message(&mut self, mut message: ToMaster, bytes: usize) {
        if let Err(refusal) = reports::check_count(&message) {
            return self.refuse(reference_of(&message), refusal).await;
        }
        reports::trim(&mut message);
        match message {
            ToMaster::Add(add) => self.add(add, bytes).await,
            ToMaster::Watch(watch) => {
                let watched = self.subscriptions.watch(watch, &mut self.tasks);
                self.refuse_if_err(watched).await;
            }
            ToMaster::Follow(follow) => {
                let followed = self.subscriptions.follow(follow, &mut self.tasks).await;
                self.refuse_if_err(followed).await;
            }
            ToMaster::Ask(ask) => self.answer(ask).await,
            ToMaster::Done(done) => self.pass_on_done(done, bytes).await,
            ToMaster::Hello(_)
            | ToMaster::Request(_)
            | ToMaster::Started(_)
            | ToMaster::Failed(_)
            | ToMaster::Returned(_)
            | ToMaster::Progress(_)
            | ToMaster::Partial(_)
            | ToMaster::Log(_)
            | ToMaster::Compiled(_)
            | ToMaster::Compiling(_)
            | ToMaster::Release(_)
            | ToMaster::Cancel(_)
            | ToMaster::Retry(_)
            | ToMaster::Set(_)
            | ToMaster::Operate(_) => self.pass_on_message(message, bytes).await,
        }
    }

    async fn add(&mut self, add: Add, bytes: usize) {
        // Waiting here is the flow control: nothing more is read from this feeder meanwhile.
        let Some(permit) = self.permits.batch().await else {
            return;
        };
        let is_alone = self.permits.is_nearly_alone();
        let count = add.tasks.len();
        match add::read(&self.state, add).await {
            Ok(batch) => {
                let admission = self.state.admission.enter(count, bytes, is_alone).await;
                permit.leave_to_writer();
                self.state.handle.tell(Input::Add {
                    connection: self.session,
                    batch: batch.number,
                    job: batch.job,
                    hold: batch.hold,
                    answers: batch.answers,
                    tasks: batch.tasks,
                    permit: admission,
                });
            }
            Err(refusal) => {
                drop(permit);
                self.refuse(None, refusal).await;
            }
        }
    }

    /// Passes results on, with the tasks that they add. A result that cannot be taken as it is
    /// becomes a failure of its attempt.
    async fn pass_on_done(&mut self, done: Vec<Done>, bytes: usize) {
        let judged = match reports::judge(done, &self.state.blobs).await {
            Ok(judged) => judged,
            Err(refusal) => return self.refuse(None, refusal).await,
        };
        if !judged.done.is_empty() {
            let reports = follow_ups::read(&self.state, judged.done).await;
            let session = self.session;
            self.pass_on(
                Input::Reports {
                    connection: session,
                    reports,
                },
                bytes,
            )
            .await;
        }
        if !judged.failed.is_empty() {
            self.pass_on_message(ToMaster::Failed(judged.failed), bytes)
                .await;
        }
    }

    async fn pass_on_message(&mut self, message: ToMaster, bytes: usize) {
        let session = self.session;
        self.pass_on(
            Input::Message {
                connection: session,
                message,
            },
            bytes,
        )
        .await;
    }

    /// Tells the engine of an input when there is space for it. Waiting here is the flow control of
    /// everything but `task:add`.
    async fn pass_on(&mut self, input: Input, bytes: usize) {
        self.permits.input(&input).await;
        let Some(permit) = self.inbox.take(bytes).await else {
            return;
        };
        self.state.handle.tell(input);
        if let Some(space) = self.inbox.told(permit) {
            self.state.handle.tell(space);
        }
    }

    async fn answer(&mut self, ask: Question) {
        // The semaphore is never closed.
        let Ok(permit) = self.questions.clone().acquire_owned().await else {
            return;
        };
        let state = self.state.clone();
        let side = self.side.clone();
        self.tasks.spawn(async move {
            let _ = side.send(questions::answer(&state, ask).await).await;
            drop(permit);
        });
    }

    async fn refuse_if_err(&mut self, result: Result<(), Refusal>) {
        if let Err(refusal) = result {
            self.refuse(None, refusal).await;
        }
    }

    async fn refuse(&mut self, reference: Option<u64>, error: Refusal) {
        let refused = FromMaster::Refused(Refused { reference, error });
        let _ = self.side.send(refused).await;
    }
}

/// Refuses a message that a session with this role may not send.
fn check_role(message: &ToMaster, role: Role) -> Result<(), Refusal> {
    let senders_role = match message {
        ToMaster::Hello(_) => {
            let text = "`hello` was said already";
            return Err(Refusal::new(RefusalCode::NotAllowed, text).at("event"));
        }
        ToMaster::Ask(_) => return Ok(()),
        ToMaster::Request(_)
        | ToMaster::Started(_)
        | ToMaster::Done(_)
        | ToMaster::Failed(_)
        | ToMaster::Returned(_)
        | ToMaster::Progress(_)
        | ToMaster::Partial(_)
        | ToMaster::Log(_)
        | ToMaster::Compiled(_)
        | ToMaster::Compiling(_) => Role::Runner,
        ToMaster::Add(_)
        | ToMaster::Release(_)
        | ToMaster::Follow(_)
        | ToMaster::Cancel(_)
        | ToMaster::Retry(_)
        | ToMaster::Set(_)
        | ToMaster::Operate(_)
        | ToMaster::Watch(_) => Role::Client,
    };
    if senders_role == role {
        return Ok(());
    }
    let (sender, own_role) = match senders_role {
        Role::Runner => ("a runner", "client"),
        Role::Client => ("a client", "runner"),
    };
    let text = format!(
        "`{}` is for {sender} to say; this session said `hello` as a {own_role}",
        message.event()
    );
    Err(Refusal::new(RefusalCode::NotAllowed, text).at("event"))
}

/// The `ref` of a message, if it has one.
fn reference_of(message: &ToMaster) -> Option<u64> {
    match message {
        ToMaster::Cancel(cancel) => Some(cancel.reference),
        ToMaster::Retry(retry) => Some(retry.reference),
        ToMaster::Set(set) => Some(set.reference),
        ToMaster::Operate(operate) => Some(operate.reference),
        ToMaster::Ask(ask) => Some(ask.reference),
        ToMaster::Hello(_)
        | ToMaster::Request(_)
        | ToMaster::Started(_)
        | ToMaster::Done(_)
        | ToMaster::Failed(_)
        | ToMaster::Returned(_)
        | ToMaster::Progress(_)
        | ToMaster::Partial(_)
        | ToMaster::Log(_)
        | ToMaster::Compiled(_)
        | ToMaster::Compiling(_)
        | ToMaster::Add(_)
        | ToMaster::Release(_)
        | ToMaster::Follow(_)
        | ToMaster::Watch(_) => None,
    }
}

/// The `ref` of a message that cannot be read or is not allowed. Whoever waits for the answer must
/// hear of the refusal.
fn reference_in(text: &str) -> Option<u64> {
    #[derive(Deserialize)]
    struct Outer {
        data: Option<Json>,
    }
    #[derive(Deserialize)]
    struct Inner {
        #[serde(rename = "ref")]
        reference: Option<u64>,
    }
    let outer: Outer = serde_json::from_str(text).ok()?;
    outer.data?.read::<Inner>().ok()?.reference
}
