//! The link while it runs: one loop over what comes from the master, from inside and from the
//! clock.

use super::blobs::RetryingBlobs;
use super::config::{RunnerConfig, RunnerError, SendFuture};
use super::event::{LinkEvent, LinkSender, ResultsQuestion};
use super::executor::Executor;
use super::outbox::LinkOutbox;
use super::socket::DuplexSocket;
use super::spool::ResultSpool;
use super::uploading::upload;
use crate::fault::MachineFault;
use crate::modules::{ModuleCache, ModuleError};
use crate::outcome::{Outcome, PendingUpload};
use crate::prepare::{AskError, TaskResults};
use crate::self_check::SelfCheck;
use crate::slots::SlotEvent;
use std::collections::BTreeMap;
use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};
use taskmaster_console::long_lived;
use taskmaster_protocol::message::{
    Announce, Answer, Attempt, Compiled, Compiling, FromMaster, Hello, Query, Question, Refused,
    Role, ToMaster, Welcome,
};
use taskmaster_protocol::{ErrorKind, PROTOCOL_VERSION, RefusalCode, TaskError, TaskId, limits};
use taskmaster_runner_session::{
    Ending, RunnerSession, SessionEffect, SessionEvent, SessionSettings,
};
use taskmaster_transport::{Address, DialError, Socket, dial};
use tokio::sync::mpsc;

/// How often the master is told that a module is still being compiled. People watch it.
const COMPILING_EVERY: Duration = Duration::from_secs(1);

/// Events from inside that are handled between two writes.
const EVENTS_MAX: usize = 1_024;

/// The longest sleep of the loop, µs. The session may want nothing for ever, which no timer can
/// hold.
const SLEEP_US_MAX: u64 = 60_000_000;

/// The bits of a version 7 UUID that serve as a random number of the session.
const JITTER_BITS: u128 = 0x3ff;

type DialResult = Result<(Socket, Welcome), DialError>;

/// What a link is made of.
pub struct RunnerLinkParts {
    /// Prepares and runs attempts.
    pub executor: Executor,
    /// What was at work in an earlier process of this runner, which died.
    pub lost: Vec<Attempt>,
    /// The modules, which are compiled when they are announced.
    pub modules: Arc<ModuleCache>,
    /// The master's blobs.
    pub blobs: Arc<RetryingBlobs>,
    /// The results that wait to be uploaded.
    pub spool: Arc<ResultSpool>,
    /// Tries out whether this machine can run tasks.
    pub self_check: SelfCheck,
    /// Sends to `events`.
    pub sender: LinkSender,
    /// What comes from inside.
    pub events: mpsc::UnboundedReceiver<LinkEvent>,
    /// What the runner was told.
    pub config: RunnerConfig,
}

/// The connection of one runner.
pub struct RunnerLink {
    session: RunnerSession,
    /// The session's clock begins here.
    began: Instant,
    /// What the session wants done.
    effects: Vec<SessionEffect>,
    outbox: LinkOutbox,
    socket: Option<DuplexSocket>,
    dialling: Option<SendFuture<DialResult>>,
    /// Counts failed dials, so that addresses are tried in turn.
    failed_dials: usize,
    /// Whether the log says already that no master answers.
    warned: bool,
    /// Whether the log says that the master is away, so that it also says when it is back.
    is_missed: bool,
    /// Whether this process was told to end. Then it does not matter where the master is.
    draining: bool,
    /// What the log says is wrong with this machine.
    told_fault: Option<String>,
    /// Whether the session has ended.
    left: bool,
    /// Identifies this process among others under the same name.
    process: String,
    /// Questions that the master has not answered, by their reference.
    questions: BTreeMap<u64, ResultsQuestion>,
    next_reference: u64,
    parts: RunnerLinkParts,
}

impl RunnerLink {
    /// A link that is not connected.
    pub fn new(parts: RunnerLinkParts) -> RunnerLink {
        let settings = SessionSettings {
            slots: parts.config.offer.slots,
            ahead: limits::CREDITS_MAX,
        };
        RunnerLink {
            session: RunnerSession::new(settings),
            began: Instant::now(),
            effects: Vec::new(),
            outbox: LinkOutbox::default(),
            socket: None,
            dialling: None,
            failed_dials: 0,
            warned: false,
            is_missed: false,
            draining: false,
            told_fault: None,
            left: false,
            process: uuid::Uuid::now_v7().simple().to_string(),
            questions: BTreeMap::new(),
            next_reference: 1,
            parts,
        }
    }

    /// Runs until the session leaves, or a master refuses this runner for good.
    pub async fn run(mut self, shutdown: impl Future<Output = ()>) -> Result<(), RunnerError> {
        let mut shutdown = pin!(shutdown);
        let mut events = Vec::with_capacity(EVENTS_MAX);
        let lost = std::mem::take(&mut self.parts.lost);
        if !lost.is_empty() {
            tracing::warn!(
                attempts = lost.len(),
                "the last process of this runner died while it was at work"
            );
        }
        self.tell_session(SessionEvent::DiedAtWork(lost));
        self.tell_session(SessionEvent::Tick);
        loop {
            self.carry_out_and_write().await;
            if self.left {
                self.close().await;
                return Ok(());
            }
            let deadline = self.deadline();
            tokio::select! {
                () = &mut shutdown, if !self.draining => self.drain(),
                () = read(&mut self.socket) => self.receive(),
                _ = self.parts.events.recv_many(&mut events, EVENTS_MAX) => {
                    self.handle_events(&mut events);
                }
                dialled = finished(&mut self.dialling) => self.dialled(dialled)?,
                () = tokio::time::sleep_until(deadline.into()) => {
                    self.tell_session(SessionEvent::Tick);
                }
            }
        }
    }

    fn now_us(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_micros()).unwrap_or(u64::MAX)
    }

    fn deadline(&self) -> Instant {
        let wanted_us = self.session.next_deadline().unwrap_or(u64::MAX);
        let us = wanted_us.min(self.now_us() + SLEEP_US_MAX);
        self.began + Duration::from_micros(us)
    }

    fn tell_session(&mut self, event: SessionEvent) {
        let now_us = self.now_us();
        self.session.handle(event, now_us, &mut self.effects);
        let fault = self.session.fault();
        if fault != self.told_fault.as_deref() {
            match fault {
                Some(fault) => tracing::warn!(
                    "this machine cannot run tasks: {fault}; none are taken until it can"
                ),
                None => tracing::warn!("this machine can run tasks again"),
            }
            self.told_fault = fault.map(str::to_owned);
        }
    }

    /// Tries out whether this machine can run tasks. A disk that does not answer keeps a thread, and
    /// the runner stays sick.
    fn check_machine(&self) {
        let check = self.parts.self_check.clone();
        let sender = self.parts.sender.clone();
        tokio::task::spawn_blocking(move || {
            // Nobody hears of it if the runner has ended meanwhile.
            let _ = sender.send(LinkEvent::MachineChecked(check.run()));
        });
    }

    fn drain(&mut self) {
        self.draining = true;
        let grace = self.parts.config.grace;
        let grace_us = u64::try_from(grace.as_micros()).unwrap_or(u64::MAX);
        self.tell_session(SessionEvent::Drain {
            grace_us: Some(grace_us),
        });
    }

    /// Does what the session wants until it wants nothing more, then writes what there is to say.
    async fn carry_out_and_write(&mut self) {
        loop {
            while !self.effects.is_empty() {
                for effect in std::mem::take(&mut self.effects) {
                    self.carry_out(effect);
                }
            }
            self.parts.executor.flush();

            let Some(socket) = &mut self.socket else {
                return self.outbox.clear();
            };
            if self.outbox.is_empty() || socket.write(self.outbox.take()).await.is_ok() {
                return;
            }
            self.hang_up();
        }
    }

    fn carry_out(&mut self, effect: SessionEffect) {
        match effect {
            SessionEffect::Dial => self.dial(),
            SessionEffect::Hangup => {
                tracing::warn!("the master has been silent for too long; connecting anew");
                self.is_missed = true;
                self.hang_up();
            }
            SessionEffect::Ping => self.outbox.ping(),
            SessionEffect::Say(message) => self.outbox.say(message),
            SessionEffect::Start(send) => self.parts.executor.run(send),
            SessionEffect::TakeBack(attempts) => {
                let taken = self.parts.executor.take_back(attempts);
                self.tell_session(SessionEvent::TakenBack(taken));
            }
            SessionEffect::Stop(attempt) => {
                if let Some(ending) = self.parts.executor.stop(attempt) {
                    self.tell_session(SessionEvent::Ended(vec![ending]));
                }
            }
            SessionEffect::CheckMachine => self.check_machine(),
            SessionEffect::Leave => self.left = true,
        }
    }

    fn hang_up(&mut self) {
        self.socket = None;
        let jitter = (uuid::Uuid::now_v7().as_u128() & JITTER_BITS) as u32;
        self.tell_session(SessionEvent::Disconnected { jitter });
    }

    async fn close(mut self) {
        if let Some(socket) = &mut self.socket {
            socket.close().await;
        }
    }

    /// The address whose turn it is. There is at least one.
    fn address(&self) -> Option<Address> {
        let urls = &self.parts.config.urls;
        let turn = self.failed_dials.checked_rem(urls.len())?;
        urls.get(turn).cloned()
    }

    fn dial(&mut self) {
        let Some(address) = self.address() else {
            return;
        };
        let hello = Hello {
            role: Role::Runner,
            protocol: PROTOCOL_VERSION,
            token: self.parts.config.token.clone(),
            session: Some(self.process.clone()),
            runner: Some(self.parts.config.offer.clone()),
        };
        self.parts.blobs.follow(address.clone());
        self.dialling = Some(Box::pin(async move { dial(&address, hello).await }));
    }

    fn dialled(&mut self, result: DialResult) -> Result<(), RunnerError> {
        self.dialling = None;
        match result {
            Ok((socket, welcome)) => {
                let address = self.address();
                let address = address.map_or_else(String::new, |address| address.to_string());
                let name = &self.parts.config.offer.name;
                let epoch = welcome.epoch;
                if std::mem::take(&mut self.is_missed) {
                    // As loud as what it takes back.
                    tracing::warn!("connected to {address} again as `{name}` (epoch {epoch})");
                } else {
                    tracing::info!("connected to {address} as `{name}` (epoch {epoch})");
                }
                self.connected(socket);
            }
            Err(error) if is_final(&error) => return Err(RunnerError::Refused(error)),
            Err(error) => {
                self.failed_dials += 1;
                if !self.draining && !std::mem::replace(&mut self.warned, true) {
                    self.is_missed = true;
                    tracing::warn!("{error}; trying again until one does");
                }
                self.hang_up();
            }
        }
        Ok(())
    }

    fn connected(&mut self, socket: Socket) {
        self.warned = false;
        self.socket = Some(DuplexSocket::new(socket));
        self.tell_session(SessionEvent::Connected);
        for (reference, question) in &self.questions {
            self.outbox.say(ask_message(*reference, &question.ids));
        }
    }

    /// Handles what the master said.
    fn receive(&mut self) {
        let Some(socket) = &mut self.socket else {
            return;
        };
        let received = socket.take();
        self.tell_session(SessionEvent::Heard);
        for text in received.texts {
            match FromMaster::decode(&text) {
                Ok(message) => self.obey(message),
                Err(refusal) => {
                    tracing::warn!("a message from the master could not be read: {refusal}")
                }
            }
        }
        if received.broken {
            if !self.draining {
                tracing::warn!(
                    "the connection to the master is gone; tasks go on, results are kept"
                );
                self.is_missed = true;
            }
            self.hang_up();
        }
    }

    fn obey(&mut self, message: FromMaster) {
        match message {
            FromMaster::Send(sends) => self.tell_session(SessionEvent::Send(sends)),
            FromMaster::Recall(attempts) => self.tell_session(SessionEvent::Recall(attempts)),
            FromMaster::Cancel(attempts) => self.tell_session(SessionEvent::Cancel(attempts)),
            FromMaster::Ack(attempts) => self.tell_session(SessionEvent::Ack(attempts)),
            FromMaster::Drain(()) => self.tell_session(SessionEvent::Drain { grace_us: None }),
            FromMaster::Announce(modules) => {
                for module in modules {
                    self.compile(module);
                }
            }
            FromMaster::Answer(answer) => self.answered(answer),
            FromMaster::Refused(refused) => self.refused(refused),
            // The other messages are for clients, and a newer master may have more of them.
            other => tracing::debug!("`{}` is not for runners", other.event()),
        }
    }

    fn answered(&mut self, answer: Answer) {
        if let Some(question) = self.questions.remove(&answer.reference) {
            let results = answer.data.read::<TaskResults>();
            // The attempt that asked may have been cancelled.
            let _ = question
                .reply
                .send(results.map_err(|error| AskError(error.to_string())));
        }
    }

    fn refused(&mut self, refused: Refused) {
        let question = refused
            .reference
            .and_then(|reference| self.questions.remove(&reference));
        match question {
            Some(question) => {
                // The attempt that asked may have been cancelled.
                let _ = question.reply.send(Err(AskError(refused.error.message)));
            }
            None => tracing::warn!("the master refuses: {}", refused.error),
        }
    }

    /// Gets a module ready ahead of need, unless this runner accepts only others.
    fn compile(&self, module: Announce) {
        let only = &self.parts.config.offer.modules;
        if !only.is_empty() && !only.contains(&module.name) {
            return;
        }
        let modules = self.parts.modules.clone();
        let sender = self.parts.sender.clone();
        tokio::spawn(async move {
            let began = Instant::now();
            let mut loading = pin!(modules.load(module.version));
            let loaded = loop {
                match tokio::time::timeout(COMPILING_EVERY, &mut loading).await {
                    Ok(loaded) => break loaded,
                    Err(_) => {
                        let elapsed_ms = began.elapsed().as_millis();
                        let _ = sender.send(LinkEvent::Compiling(Compiling {
                            name: module.name.clone(),
                            version: module.version,
                            elapsed_ms: u64::try_from(elapsed_ms).unwrap_or(u64::MAX),
                        }));
                    }
                }
            };
            // Nobody hears of it if the runner has ended meanwhile.
            let _ = sender.send(LinkEvent::Compiled(Compiled {
                name: module.name,
                version: module.version,
                compile_us: loaded.as_ref().map_or(0, |loaded| loaded.compile_us),
                runner_fault: loaded
                    .as_ref()
                    .err()
                    .is_some_and(ModuleError::is_of_the_runner),
                error: loaded.err().map(|error| error.to_string()),
            }));
        });
    }

    /// Handles what happened inside this process.
    fn handle_events(&mut self, events: &mut Vec<LinkEvent>) {
        let mut endings = Vec::new();
        for event in events.drain(..) {
            match event {
                LinkEvent::Slot(SlotEvent::Ended(outcome)) => endings.extend(self.ended(outcome)),
                LinkEvent::Slot(SlotEvent::Live(attempt, event)) => {
                    self.parts.executor.live_event_arrived(&event);
                    self.outbox.live(attempt, event);
                }
                LinkEvent::Prepared(prepared) => {
                    let outcome = self.parts.executor.prepared(prepared);
                    endings.extend(outcome.and_then(|outcome| self.ended(outcome)));
                }
                LinkEvent::Uploaded(outcome) => endings.extend(self.ended(outcome)),
                LinkEvent::MachineChecked(found) => {
                    self.tell_session(SessionEvent::MachineChecked(found));
                }
                LinkEvent::Question(question) => {
                    self.outbox
                        .say(ask_message(self.next_reference, &question.ids));
                    self.questions.insert(self.next_reference, question);
                    self.next_reference += 1;
                }
                LinkEvent::Compiled(compiled) => {
                    self.outbox.say(ToMaster::Compiled(vec![compiled]));
                }
                LinkEvent::Compiling(compiling) => {
                    self.outbox.say(ToMaster::Compiling(vec![compiling]));
                }
            }
        }
        if !endings.is_empty() {
            self.tell_session(SessionEvent::Ended(endings));
        }
    }

    /// Returns the ending if it can be told now.
    fn ended(&mut self, outcome: Outcome) -> Option<Ending> {
        match outcome {
            Outcome::Ready(ending) => {
                self.parts.executor.forget(&ending.attempt());
                Some(ending)
            }
            Outcome::Upload(pending) => {
                self.upload(*pending);
                None
            }
            Outcome::Fault(attempt, fault) => self.machine_failed(attempt, fault),
        }
    }

    /// Gives an attempt back that this machine has failed. Returns its ending where it counts as
    /// lost.
    fn machine_failed(&mut self, attempt: Attempt, fault: MachineFault) -> Option<Ending> {
        self.parts.executor.forget(&attempt);
        let MachineFault {
            why,
            task_may_be_to_blame,
        } = fault;
        let ending = task_may_be_to_blame.then(|| {
            let error = TaskError::new(ErrorKind::RunnerLost, why.clone());
            Ending::failed(attempt.clone(), error)
        });
        let attempts = if ending.is_none() {
            vec![attempt]
        } else {
            Vec::new()
        };
        self.tell_session(SessionEvent::MachineFailed {
            fault: why,
            attempts,
        });
        ending
    }

    fn upload(&mut self, pending: PendingUpload) {
        let attempt = Attempt {
            id: pending.done.id.clone(),
            attempt: pending.done.attempt,
        };
        self.parts.executor.forget(&attempt);
        let blobs = self.parts.blobs.clone();
        let spool = self.parts.spool.clone();
        let sender = self.parts.sender.clone();
        // A panic here would leave the attempt without an end.
        long_lived::spawn_task("uploading", async move {
            let outcome = match upload(pending, &blobs, &spool).await {
                Ok(done) => Outcome::Ready(Ending::Done(done)),
                Err(error) => match error.fault() {
                    Some(fault) => Outcome::Fault(attempt, fault),
                    None => {
                        let error = TaskError::new(ErrorKind::Output, error.to_string());
                        Outcome::Ready(Ending::failed(attempt, error))
                    }
                },
            };
            let _ = sender.send(LinkEvent::Uploaded(outcome));
        });
    }
}

fn ask_message(reference: u64, ids: &[TaskId]) -> ToMaster {
    ToMaster::Ask(Question {
        reference,
        query: Query::Results { ids: ids.to_vec() },
    })
}

/// Whether trying again is of no use.
fn is_final(error: &DialError) -> bool {
    matches!(error, DialError::Refused { refusal, .. } if refusal.code != RefusalCode::Unavailable)
}

async fn read(socket: &mut Option<DuplexSocket>) {
    match socket {
        Some(socket) => socket.read().await,
        None => std::future::pending().await,
    }
}

async fn finished(dialling: &mut Option<SendFuture<DialResult>>) -> DialResult {
    match dialling {
        Some(dialling) => dialling.await,
        None => std::future::pending().await,
    }
}
