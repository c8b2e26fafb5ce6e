//! A session after its `hello`: messages in and out until one side ends it.

use super::writer::Writer;
use super::ws::{FAREWELL, binary, short};
use super::{Gate, add, children, follow, reports, watch};
use crate::handle::MasterHandle;
use axum::extract::ws::{CloseFrame, Message, Utf8Bytes, WebSocket};
use futures_util::StreamExt;
use futures_util::stream::SplitStream;
use serde::Deserialize;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use taskmaster_engine::inbox::{Input, SessionNo};
use taskmaster_protocol::message::{
    Answer, Attempt, Done, Follow, Hello, Query, Question, Refused, Role, Watch, Welcome,
};
use taskmaster_protocol::shape::ModuleView;
use taskmaster_protocol::{
    EventKind, FromMaster, JobName, Json, Refusal, RefusalCode, ToMaster, limits, near,
};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::timeout;

/// Messages of a session's own tasks (answers, events) that wait for its writer: of somebody who
/// does not read, so many, and as many that the writer has.
pub(super) const SIDE: usize = 4;

/// Questions of one session that are being answered.
const ASKED_MAX: usize = 64;

/// Groups of tasks that one session follows by id.
const FOLLOWS_MAX: usize = 256;

/// Jobs that one session follows: their names take some 10 MiB then.
const JOBS_FOLLOWED_MAX: usize = 100_000;

/// Jobs that wait to be followed.
const WISHES: usize = 1_024;

/// Messages of one session that the engine has not taken yet, KiB: beyond that nothing more is read
/// from it.
const INBOX_KIB: usize = 64 << 10;

/// Of these, so many are given back at a time.
const ROOM_KIB: usize = 1 << 10;

/// Reports of one runner whose acknowledgement is not written yet: a runner that does not read is
/// not read either.
const REPORTS_UNREAD_MAX: usize = 64 << 10;

/// Wishes of one client whose answer is not written yet.
const WISHES_UNREAD_MAX: usize = 256;

/// The close code for a message above the limit. Its rest cannot be read: the connection is left
/// open for a moment, so that the code is seen before the reset.
const TOO_LARGE: u16 = 1009;

/// Tells the engine when the session is over, however it ends: also where its task is dropped.
struct Connected {
    handle: MasterHandle,
    session: SessionNo,
}

impl Drop for Connected {
    fn drop(&mut self) {
        self.handle.tell(Input::Disconnected {
            session: self.session,
        });
    }
}

/// Runs the session to its end.
pub(super) async fn run(gate: Gate, socket: WebSocket, hello: Hello) {
    let number = SessionNo(gate.next.fetch_add(1, Ordering::Relaxed));
    let (sink, mut stream) = socket.split();
    let (outbox, outgoing) = mpsc::unbounded_channel();
    let (side, aside) = mpsc::channel(SIDE);
    let (close, closing) = oneshot::channel();
    let batches = Arc::new(Semaphore::new(limits::BATCHES_IN_FLIGHT_MAX));
    let reports = Arc::new(Semaphore::new(REPORTS_UNREAD_MAX));
    let wanted = Arc::new(Semaphore::new(WISHES_UNREAD_MAX));
    let writer = Writer {
        session: number,
        sink,
        outbox: outgoing,
        side: aside,
        batches: batches.clone(),
        reports: reports.clone(),
        wanted: wanted.clone(),
        close: closing,
        buffer: bytes::BytesMut::new(),
    };
    let role = hello.role;
    let protocol = hello.protocol;
    let seq = gate.handle.events.latest();
    gate.handle.tell(Input::Connected {
        session: number,
        hello,
        outbox,
    });
    let connected = Connected {
        handle: gate.handle.clone(),
        session: number,
    };
    let welcome = welcome(protocol, gate.handle.epoch, seq);
    let mut writing = tokio::spawn(writer.run(FromMaster::Welcome(welcome)));
    let asked = Arc::new(Semaphore::new(ASKED_MAX));
    let mut reader = Reader {
        gate,
        session: number,
        role,
        side,
        batches,
        asked,
        reports,
        wanted,
        inbox: Arc::new(Semaphore::new(INBOX_KIB)),
        owed: None,
        tasks: JoinSet::new(),
        watch: None,
        follows: Vec::new(),
        wishes: None,
        jobs: BTreeSet::new(),
    };
    let frame = tokio::select! {
        frame = reader.read(&mut stream) => Some(frame),
        // The connection is broken, or the engine has let go.
        _ = &mut writing => None,
    };
    let Some(frame) = frame else { return };
    let unreadable = frame.code == TOO_LARGE;
    let _ = close.send(frame);
    drop((connected, reader));
    let farewell = async {
        let _ = (&mut writing).await;
        // What is unread would cut off what was said last.
        while let Some(Ok(_)) = stream.next().await {}
        if unreadable {
            std::future::pending::<()>().await;
        }
    };
    let _ = timeout(FAREWELL, farewell).await;
    writing.abort();
}

fn welcome(protocol: u32, epoch: u32, seq: u64) -> Welcome {
    Welcome {
        protocol,
        epoch,
        seq,
        message_bytes_max: limits::MESSAGE_BYTES_MAX as u64,
        batch_tasks_max: limits::BATCH_TASKS_MAX as u64,
        leader: None,
    }
}

/// The half of a session that reads.
struct Reader {
    gate: Gate,
    session: SessionNo,
    role: Role,
    side: mpsc::Sender<FromMaster>,
    batches: Arc<Semaphore>,
    asked: Arc<Semaphore>,
    reports: Arc<Semaphore>,
    wanted: Arc<Semaphore>,
    inbox: Arc<Semaphore>,
    /// Room of the inbox that the engine is to give back.
    owed: Option<OwnedSemaphorePermit>,
    /// Answers and subscriptions under way; they end with the session.
    tasks: JoinSet<()>,
    watch: Option<AbortHandle>,
    follows: Vec<AbortHandle>,
    /// To the task that follows jobs, once one is followed.
    wishes: Option<mpsc::Sender<follow::Wish>>,
    jobs: BTreeSet<JobName>,
}

impl Reader {
    /// Reads until the session ends; what to say at the end.
    async fn read(&mut self, stream: &mut SplitStream<WebSocket>) -> CloseFrame {
        let silent = Duration::from_millis(limits::SILENT_MS_MAX);
        let mut stop = self.gate.stop.clone();
        loop {
            let next = tokio::select! {
                next = timeout(silent, stream.next()) => next,
                _ = stop.wait_for(|stop| *stop) => return frame(1001, "the master is stopping"),
            };
            match next {
                Err(_) => {
                    let reason = format!("nothing came for {} ms", silent.as_millis());
                    tracing::info!(session = self.session.0, reason, "a session is closed");
                    return frame(1008, &reason);
                }
                Ok(None) => return frame(1000, ""),
                Ok(Some(Err(error))) => return broken(&error.to_string()),
                Ok(Some(Ok(Message::Text(text)))) => self.hear(text).await,
                Ok(Some(Ok(Message::Binary(_)))) => self.refuse(None, binary()).await,
                Ok(Some(Ok(Message::Ping(_) | Message::Pong(_)))) => self.heard(),
                Ok(Some(Ok(Message::Close(_)))) => return frame(1000, ""),
            }
            while self.tasks.try_join_next().is_some() {}
        }
    }

    /// A runner's lease is kept alive by whatever comes from it.
    fn heard(&self) {
        if self.role == Role::Runner {
            self.gate.handle.tell(Input::Heard {
                session: self.session,
            });
        }
    }

    async fn hear(&mut self, text: Utf8Bytes) {
        let copy = text.clone();
        match add::heavy(text.len(), move || ToMaster::decode(&text))
            .await
            .and_then(|decoded| decoded)
        {
            Err(refusal) => self.refuse(reference_in(&copy), refusal).await,
            Ok(message) => match self.allows(&message) {
                Err(refusal) => self.refuse(reference_in(&copy), refusal).await,
                Ok(()) => self.act(message, copy.len()).await,
            },
        }
    }

    async fn act(&mut self, message: ToMaster, bytes: usize) {
        match message {
            ToMaster::Add(add) => {
                // Waiting here is the flow control: nothing more is read from this feeder
                // meanwhile.
                let Ok(permit) = self.batches.acquire().await else {
                    return;
                };
                // Itself, and one whose answer may be on its way.
                let alone = self.batches.available_permits() + 2 >= limits::BATCHES_IN_FLIGHT_MAX;
                let tasks = add.tasks.len();
                match add::read(&self.gate, self.session, add).await {
                    Ok(mut input) => {
                        if let Input::Add { pass, .. } = &mut input {
                            *pass = self.gate.intake.enter(tasks, bytes, alone).await;
                        }
                        // Given back by the writer, with the batch's `task:added`.
                        permit.forget();
                        self.gate.handle.tell(input);
                    }
                    Err(refusal) => {
                        drop(permit);
                        self.refuse(None, refusal).await;
                    }
                }
            }
            ToMaster::Watch(watch) => self.watch(watch).await,
            ToMaster::Follow(follow) => self.follow(follow).await,
            ToMaster::Ask(ask) => self.ask(ask).await,
            message => match reports::sound(message, &self.gate.blobs).await {
                Ok(messages) => {
                    for mut message in messages {
                        if let ToMaster::Done(reports) = &mut message {
                            self.tell_wishes(reports).await;
                        }
                        self.pass_on(message, bytes).await;
                    }
                }
                Err(refusal) => self.refuse(None, refusal).await,
            },
        }
    }

    /// What reports want added goes ahead of them, read as a feeder's tasks are. Where that breaks
    /// off, the runner's attempt has added nothing, which its log does not tell: the master's does.
    async fn tell_wishes(&self, reports: &mut [Done]) {
        for report in reports {
            match children::take(&self.gate, report).await {
                Ok(None) => {}
                Ok(Some(wishes)) => {
                    let attempt = Attempt {
                        id: report.id.clone(),
                        attempt: report.attempt,
                    };
                    let (session, wishes) = (self.session, Box::new(wishes));
                    self.gate.handle.tell(Input::Wishes {
                        session,
                        attempt,
                        wishes,
                    });
                }
                Err(error) => {
                    tracing::error!(task = %report.id, %error, "the tasks that it adds cannot be read")
                }
            }
        }
    }

    /// To the engine, when there is room. Waiting here is the flow control for everything that is
    /// no `task:add`.
    async fn pass_on(&mut self, message: ToMaster, bytes: usize) {
        let (unread, count) = match &message {
            ToMaster::Done(list) => (&self.reports, list.len()),
            ToMaster::Failed(list) => (&self.reports, list.len()),
            ToMaster::Cancel(_) | ToMaster::Retry(_) | ToMaster::Set(_) | ToMaster::Operate(_) => {
                (&self.wanted, 1)
            }
            _ => (&self.wanted, 0),
        };
        // Given back by the writer, with the acknowledgement or the answer. The semaphores are
        // never closed.
        let Ok(permit) = unread
            .acquire_many(u32::try_from(count).unwrap_or(u32::MAX))
            .await
        else {
            return;
        };
        permit.forget();
        let kib =
            u32::try_from((bytes >> 10).min(INBOX_KIB - ROOM_KIB - 1)).unwrap_or(u32::MAX) + 1;
        let Ok(room) = self.inbox.clone().acquire_many_owned(kib).await else {
            return;
        };
        self.gate.handle.tell(Input::Message {
            session: self.session,
            message,
        });
        let owed = match self.owed.take() {
            Some(mut owed) => {
                owed.merge(room);
                owed
            }
            None => room,
        };
        if owed.num_permits() >= ROOM_KIB {
            self.gate.handle.tell(Input::Room(owed));
        } else {
            self.owed = Some(owed);
        }
    }

    /// Whether this role may say that.
    fn allows(&self, message: &ToMaster) -> Result<(), Refusal> {
        let of = match message {
            ToMaster::Hello(_) => {
                return Err(
                    Refusal::new(RefusalCode::NotAllowed, "`hello` was said already").at("event"),
                );
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
        if of == self.role {
            return Ok(());
        }
        let (whose, is) = match of {
            Role::Runner => ("a runner", "client"),
            Role::Client => ("a client", "runner"),
        };
        let text = format!(
            "`{}` is for {whose} to say; this session said `hello` as a {is}",
            message.event()
        );
        Err(Refusal::new(RefusalCode::NotAllowed, text).at("event"))
    }

    async fn watch(&mut self, watch: Watch) {
        if let Some(&word) = watch.filter.unknown_events().first() {
            let kinds = EventKind::ALL.iter().map(|kind| kind.as_str());
            let hint = near::hint(word, kinds);
            let text = format!("no event is called `{word}`{hint}");
            return self
                .refuse(
                    None,
                    Refusal::new(RefusalCode::InvalidValue, text).at("filter.events"),
                )
                .await;
        }
        if let Some(earlier) = self.watch.take() {
            earlier.abort();
        }
        let events = self.gate.handle.events.clone();
        let seq = events.latest();
        self.watch = Some(
            self.tasks
                .spawn(watch::run(events, watch, seq, self.side.clone())),
        );
    }

    async fn follow(&mut self, follow: Follow) {
        self.follows.retain(|follow| !follow.is_finished());
        if self.follows.len() >= FOLLOWS_MAX || self.jobs.len() >= JOBS_FOLLOWED_MAX {
            let text = format!(
                "a session may follow {FOLLOWS_MAX} groups of tasks and {JOBS_FOLLOWED_MAX} jobs at a time; use another for more"
            );
            return self
                .refuse(None, Refusal::new(RefusalCode::TooLarge, text))
                .await;
        }
        let Follow { job, ids, since } = follow;
        if job.is_none() && ids.is_empty() {
            let text = "`task:follow` names neither a `job` nor `ids`";
            return self
                .refuse(
                    None,
                    Refusal::new(RefusalCode::MissingField, text).at("job"),
                )
                .await;
        }
        // Read now, in the order of this session's messages: what it adds after this ends after
        // this.
        let latest = self.gate.handle.events.latest();
        if let Some(job) = job {
            self.jobs.insert(job.clone());
            let since = since.map_or(latest, |since| since.min(latest));
            // It ends with the session only.
            let _ = self.wish((job, since)).await;
        }
        if !ids.is_empty() {
            let task = follow::ids(self.gate.handle.clone(), ids, latest, self.side.clone());
            self.follows.push(self.tasks.spawn(task));
        }
    }

    async fn wish(
        &mut self,
        wish: follow::Wish,
    ) -> Result<(), mpsc::error::SendError<follow::Wish>> {
        if let Some(wishes) = &self.wishes {
            return wishes.send(wish).await;
        }
        let (wishes, wished) = mpsc::channel(WISHES);
        self.tasks.spawn(follow::jobs(
            self.gate.handle.events.clone(),
            wished,
            self.side.clone(),
        ));
        let sent = wishes.send(wish).await;
        self.wishes = Some(wishes);
        sent
    }

    async fn ask(&mut self, ask: Question) {
        let Ok(permit) = self.asked.clone().acquire_owned().await else {
            return;
        };
        let (gate, side) = (self.gate.clone(), self.side.clone());
        self.tasks.spawn(async move {
            let Question { reference, query } = ask;
            let message = match answer(&gate, query).await {
                Ok(data) => FromMaster::Answer(Answer { reference, data }),
                Err(error) => FromMaster::Refused(Refused {
                    reference: Some(reference),
                    error,
                }),
            };
            let _ = side.send(message).await;
            drop(permit);
        });
    }

    async fn refuse(&mut self, reference: Option<u64>, error: Refusal) {
        let _ = self
            .side
            .send(FromMaster::Refused(Refused { reference, error }))
            .await;
    }
}

/// The engine's answer; of one module with what is in its version, and what it is for.
async fn answer(gate: &Gate, query: Query) -> Result<Json, Refusal> {
    let of_module = matches!(query, Query::Module { .. });
    let answer = gate.handle.ask(query).await?;
    if !of_module {
        return Ok(answer);
    }
    let Ok(mut view) = answer.read::<ModuleView>() else {
        return Ok(answer);
    };
    // Of what waits, so that whoever approves it sees what it is.
    let version = view
        .version
        .or(view.waiting.as_ref().map(|waiting| waiting.version));
    if let Some(version) = version {
        let inspection = gate.interfaces.inspection(&view.name, version).await;
        view.check = inspection.map(|inspection| inspection.check.clone());
    }
    if let Ok(Some(manifest)) = gate.folder.manifest(&view.name) {
        view.description = Some(manifest.description.clone()).filter(|text| !text.is_empty());
    }
    Ok(Json::of(&view))
}

fn frame(code: u16, reason: &str) -> CloseFrame {
    CloseFrame {
        code,
        reason: short(reason),
    }
}

/// The close frame for a connection that cannot be read any further.
fn broken(error: &str) -> CloseFrame {
    // axum hides the kind of the error; the codec's text for it is stable within the version we
    // pin.
    if error.contains("too long") || error.contains("too large") || error.contains("too big") {
        return frame(
            TOO_LARGE,
            &format!(
                "a message may have at most {} bytes",
                limits::MESSAGE_BYTES_MAX
            ),
        );
    }
    if error.contains("UTF-8") || error.contains("utf-8") {
        return frame(1007, "text messages must be UTF-8");
    }
    frame(1002, error)
}

/// The `ref` of a message that cannot be read or is not allowed: who waits for its answer must hear
/// of it.
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
