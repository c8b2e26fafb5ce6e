//! The connection to the master, around the session that decides: reads, feeds the session, does
//! what it says, writes.
//!
//! One task does all of this and never waits for anything but its next event: guests run on the
//! slots' threads, preparation and uploads on tasks of their own. Everything that ended since the
//! last write goes out in one message.

pub mod executor;
pub mod giving;
pub mod outbox;
pub mod owed;
pub mod source;
pub mod wire;

use crate::grants::Grants;
use crate::inputs::Inputs;
use crate::modules::Modules;
use crate::outcome::Outcome;
use crate::prepare::{Preparer, Results};
use crate::sandbox::{Sandbox, SandboxError};
use crate::slots;
use executor::{Executor, Prepared};
use outbox::Outbox;
use owed::Owed;
use source::Source;
use std::collections::BTreeMap;
use std::future::Future;
use std::path::PathBuf;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::time::{Duration, Instant};
use taskmaster_protocol::message::{
    Announce, Ask, Attempt, Compiled, Compiling, FromMaster, Hello, Offer, Query, Role, ToMaster,
    Welcome,
};
use taskmaster_protocol::{ErrorKind, PROTOCOL_VERSION, RefusalCode, TaskError, TaskId, limits};
use taskmaster_runner_session::{
    Ending, RunnerSession, SessionEffect, SessionEvent, SessionSettings,
};
use taskmaster_transport::{Address, DialError, Socket, dial};
use tokio::sync::{mpsc, oneshot};
use wire::Wire;

/// Everything that a runner must know.
#[derive(Debug, Clone)]
pub struct RunnerConfig {
    /// Masters, tried in turn.
    pub urls: Vec<Address>,
    /// The token, where they want one.
    pub token: Option<String>,
    /// What it offers; its name and slots too.
    pub offer: Offer,
    /// What it gives to modules that may have it; told with the offer.
    pub grants: Grants,
    /// Where compiled modules, input files and task folders are.
    pub cache: PathBuf,
    /// How many bytes of input files are kept there.
    pub inputs_bytes: u64,
    /// How long running attempts may go on once it is told to end.
    pub grace: Duration,
}

/// Why a runner could not start, or go on.
#[derive(Debug, thiserror::Error)]
pub enum RunnerError {
    /// The master wants nothing of us: a wrong token, another version.
    #[error("{0}")]
    Refused(DialError),
    /// No address was given.
    #[error("no master's address was given")]
    NoAddress,
    /// The engine could not be set up.
    #[error(transparent)]
    Sandbox(#[from] SandboxError),
    /// The cache, or a thread, could not be had.
    #[error("cannot use the cache folder {0}: {1}")]
    Cache(PathBuf, std::io::Error),
}

/// What comes to the link from inside.
pub enum News {
    /// From a slot.
    Slot(slots::News),
    /// An attempt is ready, or cannot be.
    Prepared(Prepared),
    /// A result's bytes have been put, or cannot be.
    Uploaded(Ending),
    /// An attempt wants results.
    Ask(Vec<TaskId>, oneshot::Sender<Result<Results, String>>),
    /// An announced module was compiled, or cannot be.
    Compiled(Compiled),
    /// It is still being compiled.
    Compiling(Compiling),
}

/// How often it is told that a module is still being compiled: people watch it.
const COMPILING_EVERY: Duration = Duration::from_secs(1);

/// Something to wait for. In a box, as is what waits for it: whoever calls this crate would else
/// compile all of it again, the sandbox included.
pub type Waiting<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// Runs a runner until `shutdown` resolves and everything is delivered, or it is refused.
pub fn serve(
    config: RunnerConfig,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> Waiting<Result<(), RunnerError>> {
    begin(config, Box::pin(shutdown))
}

fn begin(config: RunnerConfig, shutdown: Waiting<()>) -> Waiting<Result<(), RunnerError>> {
    Box::pin(serving(config, shutdown))
}

async fn serving(mut config: RunnerConfig, shutdown: Waiting<()>) -> Result<(), RunnerError> {
    config.offer.capabilities = Some(config.grants.offered());
    let Some(first) = config.urls.first() else {
        return Err(RunnerError::NoAddress);
    };
    let (tell, news) = mpsc::unbounded_channel();
    let source = Arc::new(Source::new(first.clone(), config.token.clone()));
    let cache = |error| RunnerError::Cache(config.cache.clone(), error);
    let sandbox = Arc::new(Sandbox::new(
        config.offer.slots,
        &config.cache.join("work"),
    )?);
    let modules = Modules::open(
        sandbox.clone(),
        &config.cache.join("modules"),
        source.clone().fetch(),
    )
    .map_err(cache)?;
    let modules = Arc::new(modules);
    let inputs = Inputs::open(
        &config.cache.join("inputs"),
        config.inputs_bytes,
        source.clone().fetch_file(),
    );
    let inputs = Arc::new(inputs.map_err(cache)?);
    let (ask, listener) = (
        executor::ask(tell.clone()),
        executor::listener(tell.clone()),
    );
    let preparer = Preparer::new(
        (modules.clone(), inputs),
        config.grants.clone(),
        source.clone().fetch(),
        ask,
        listener,
    );
    let executor =
        Executor::start(config.offer.slots, &sandbox, preparer, tell.clone()).map_err(cache)?;
    let settings = SessionSettings {
        slots: config.offer.slots,
        ahead: limits::CREDITS_MAX,
    };
    let link = Link {
        session: RunnerSession::new(settings),
        began: Instant::now(),
        effects: Vec::new(),
        outbox: Outbox::default(),
        wire: None,
        dialling: None,
        turn: 0,
        warned: false,
        left: false,
        process: uuid::Uuid::now_v7().simple().to_string(),
        asks: BTreeMap::new(),
        next_ask: 1,
        executor,
        modules,
        source,
        owed: Arc::new(Owed::new(sandbox.scratch())),
        tell,
        news,
        config,
    };
    link.run(shutdown).await
}

type Dialling = Pin<Box<dyn Future<Output = Result<(Socket, Welcome), DialError>> + Send>>;
type Asked = (Vec<TaskId>, oneshot::Sender<Result<Results, String>>);

struct Link {
    session: RunnerSession,
    began: Instant,
    effects: Vec<SessionEffect>,
    outbox: Outbox,
    wire: Option<Wire>,
    dialling: Option<Dialling>,
    /// Which of the addresses is dialled.
    turn: usize,
    /// Whether it was said that nobody answers.
    warned: bool,
    left: bool,
    /// Tells this process from another one under the same name.
    process: String,
    asks: BTreeMap<u64, Asked>,
    next_ask: u64,
    executor: Executor,
    modules: Arc<Modules>,
    source: Arc<Source>,
    owed: Arc<Owed>,
    tell: mpsc::UnboundedSender<News>,
    news: mpsc::UnboundedReceiver<News>,
    config: RunnerConfig,
}

/// Events from inside that are handled between two writes.
const NEWS_MAX: usize = 1_024;

impl Link {
    async fn run(mut self, shutdown: impl Future<Output = ()>) -> Result<(), RunnerError> {
        let mut shutdown = pin!(shutdown);
        let mut draining = false;
        let mut news = Vec::with_capacity(NEWS_MAX);
        self.event(SessionEvent::Tick);
        loop {
            self.settle().await;
            if self.left {
                self.close().await;
                return Ok(());
            }
            let deadline = self.deadline();
            tokio::select! {
                () = &mut shutdown, if !draining => {
                    draining = true;
                    let grace_us = Some(u64::try_from(self.config.grace.as_micros()).unwrap_or(u64::MAX));
                    self.event(SessionEvent::Drain { grace_us });
                }
                () = read(&mut self.wire) => self.receive(),
                _ = self.news.recv_many(&mut news, NEWS_MAX) => self.take(&mut news),
                dialled = finished(&mut self.dialling) => self.dialled(dialled)?,
                () = tokio::time::sleep_until(deadline.into()) => self.event(SessionEvent::Tick),
            }
        }
    }

    fn now_us(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_micros()).unwrap_or(u64::MAX)
    }

    fn deadline(&self) -> Instant {
        let us = self
            .session
            .next_deadline()
            .unwrap_or(u64::MAX)
            .min(self.now_us() + 60_000_000);
        self.began + Duration::from_micros(us)
    }

    fn event(&mut self, event: SessionEvent) {
        let now_us = self.now_us();
        self.session.handle(event, now_us, &mut self.effects);
    }

    /// Does what the session wants, until it wants nothing more, then writes what there is to say.
    async fn settle(&mut self) {
        while !self.effects.is_empty() {
            for effect in std::mem::take(&mut self.effects) {
                self.effect(effect);
            }
        }
        self.executor.flush();
        let Some(wire) = &mut self.wire else {
            return self.outbox.clear();
        };
        if !self.outbox.is_empty() && wire.write(self.outbox.take()).await.is_err() {
            self.hang_up();
            Box::pin(self.settle()).await;
        }
    }

    fn effect(&mut self, effect: SessionEffect) {
        match effect {
            SessionEffect::Dial => self.dial(),
            SessionEffect::Hangup => {
                tracing::warn!("the master has been silent for too long; connecting anew");
                self.hang_up();
            }
            SessionEffect::Ping => self.outbox.ping(),
            SessionEffect::Say(message) => self.outbox.say(message),
            SessionEffect::Start(send) => self.executor.run(send),
            SessionEffect::TakeBack(attempts) => {
                let taken = self.executor.take_back(attempts);
                self.event(SessionEvent::TakenBack(taken));
            }
            SessionEffect::Stop(attempt) => {
                if let Some(ending) = self.executor.stop(attempt) {
                    self.event(SessionEvent::Ended(vec![ending]));
                }
            }
            SessionEffect::Leave => self.left = true,
        }
    }

    fn hang_up(&mut self) {
        self.wire = None;
        // The last bits of a version 7 UUID are random.
        let jitter = (uuid::Uuid::now_v7().as_u128() & 0x3ff) as u32;
        self.event(SessionEvent::Disconnected { jitter });
    }

    async fn close(mut self) {
        if let Some(wire) = &mut self.wire {
            wire.close().await;
        }
    }

    fn dial(&mut self) {
        let Some(address) = self
            .config
            .urls
            .get(self.turn % self.config.urls.len())
            .cloned()
        else {
            return;
        };
        let hello = Hello {
            role: Role::Runner,
            protocol: PROTOCOL_VERSION,
            token: self.config.token.clone(),
            session: Some(self.process.clone()),
            runner: Some(self.config.offer.clone()),
        };
        self.source.follow(address.clone());
        self.dialling = Some(Box::pin(async move { dial(&address, hello).await }));
    }

    fn dialled(&mut self, result: Result<(Socket, Welcome), DialError>) -> Result<(), RunnerError> {
        self.dialling = None;
        match result {
            Ok((socket, welcome)) => {
                let address = self.config.urls.get(self.turn % self.config.urls.len());
                let address = address.map_or_else(String::new, ToString::to_string);
                tracing::info!(
                    "connected to {address} as `{}` (epoch {})",
                    self.config.offer.name,
                    welcome.epoch
                );
                self.warned = false;
                self.wire = Some(Wire::new(socket));
                self.event(SessionEvent::Connected);
                for (reference, (ids, _)) in &self.asks {
                    self.outbox.say(question(*reference, ids));
                }
            }
            Err(error) if is_final(&error) => return Err(RunnerError::Refused(error)),
            Err(error) => {
                self.turn += 1;
                if !std::mem::replace(&mut self.warned, true) {
                    tracing::warn!("{error}; trying again until one does");
                }
                self.hang_up();
            }
        }
        Ok(())
    }

    /// What the master said.
    fn receive(&mut self) {
        let Some(wire) = &mut self.wire else { return };
        let (texts, broken) = wire.take();
        self.event(SessionEvent::Heard);
        for text in texts {
            match FromMaster::decode(&text) {
                Ok(message) => self.obey(message),
                Err(refusal) => {
                    tracing::warn!("a message from the master could not be read: {refusal}")
                }
            }
        }
        if broken {
            tracing::warn!("the connection to the master is gone; tasks go on, results are kept");
            self.hang_up();
        }
    }

    fn obey(&mut self, message: FromMaster) {
        match message {
            FromMaster::Send(sends) => self.event(SessionEvent::Send(sends)),
            FromMaster::Recall(attempts) => self.event(SessionEvent::Recall(attempts)),
            FromMaster::Cancel(attempts) => self.event(SessionEvent::Cancel(attempts)),
            FromMaster::Ack(attempts) => self.event(SessionEvent::Ack(attempts)),
            FromMaster::Drain(()) => self.event(SessionEvent::Drain { grace_us: None }),
            FromMaster::Announce(modules) => {
                modules.into_iter().for_each(|module| self.compile(module))
            }
            FromMaster::Answer(answer) => {
                if let Some((_, reply)) = self.asks.remove(&answer.reference) {
                    // Who asked may be gone: its attempt was cancelled.
                    let _ = reply.send(
                        answer
                            .data
                            .read::<Results>()
                            .map_err(|error| error.to_string()),
                    );
                }
            }
            FromMaster::Refused(refused) => {
                match refused
                    .reference
                    .and_then(|reference| self.asks.remove(&reference))
                {
                    Some((_, reply)) => drop(reply.send(Err(refused.error.message))),
                    None => tracing::warn!("the master refuses: {}", refused.error),
                }
            }
            // Meant for clients.
            other => tracing::debug!("`{}` is not for runners", other.event()),
        }
    }

    /// Gets a module ready ahead of need, unless this runner takes only others.
    fn compile(&self, Announce { name, version, .. }: Announce) {
        let only = &self.config.offer.modules;
        if !only.is_empty() && !only.contains(&name) {
            return;
        }
        let (modules, tell) = (self.modules.clone(), self.tell.clone());
        tokio::spawn(async move {
            let (began, loading) = (Instant::now(), modules.load(version));
            tokio::pin!(loading);
            let result = loop {
                match tokio::time::timeout(COMPILING_EVERY, &mut loading).await {
                    Ok(result) => {
                        break result
                            .map(|loaded| loaded.compile_us)
                            .map_err(|error| error.0);
                    }
                    Err(_) => {
                        let elapsed_ms =
                            u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
                        let _ = tell.send(News::Compiling(Compiling {
                            name: name.clone(),
                            version,
                            elapsed_ms,
                        }));
                    }
                }
            };
            let (compile_us, error) = result.map_or_else(|error| (0, Some(error)), |us| (us, None));
            // Nobody hears it when the runner has ended meanwhile.
            let _ = tell.send(News::Compiled(Compiled {
                name,
                version,
                compile_us,
                error,
            }));
        });
    }

    /// What happened inside.
    fn take(&mut self, news: &mut Vec<News>) {
        let mut ended = Vec::new();
        for one in news.drain(..) {
            match one {
                News::Slot(slots::News::Ended(outcome)) => ended.extend(self.ended(outcome)),
                News::Slot(slots::News::Said(attempt, utterance)) => {
                    self.executor.heard(&utterance);
                    self.outbox.live(attempt, utterance);
                }
                News::Prepared(prepared) => ended.extend(self.executor.prepared(prepared)),
                News::Uploaded(ending) => ended.push(ending),
                News::Ask(ids, reply) => {
                    self.outbox.say(question(self.next_ask, &ids));
                    self.asks.insert(self.next_ask, (ids, reply));
                    self.next_ask += 1;
                }
                News::Compiled(compiled) => self.outbox.say(ToMaster::Compiled(vec![compiled])),
                News::Compiling(compiling) => self.outbox.say(ToMaster::Compiling(vec![compiling])),
            }
        }
        if !ended.is_empty() {
            self.event(SessionEvent::Ended(ended));
        }
    }

    fn ended(&mut self, outcome: Outcome) -> Option<Ending> {
        match outcome {
            Outcome::Ready(ending) => {
                self.executor.forget(&ending.attempt());
                Some(ending)
            }
            Outcome::Upload(upload) => {
                let (source, owed, tell) =
                    (self.source.clone(), self.owed.clone(), self.tell.clone());
                let attempt = Attempt {
                    id: upload.done.id.clone(),
                    attempt: upload.done.attempt,
                };
                self.executor.forget(&attempt);
                tokio::spawn(async move {
                    let ending = match giving::give(*upload, &source, &owed).await {
                        Ok(done) => Ending::Done(done),
                        Err(why) => Ending::failed(attempt, TaskError::new(ErrorKind::Output, why)),
                    };
                    let _ = tell.send(News::Uploaded(ending));
                });
                None
            }
        }
    }
}

fn question(reference: u64, ids: &[TaskId]) -> ToMaster {
    ToMaster::Ask(Ask {
        reference,
        query: Query::Results { ids: ids.to_vec() },
    })
}

/// Whether trying again is of no use.
fn is_final(error: &DialError) -> bool {
    matches!(error, DialError::Refused { refusal, .. } if refusal.code != RefusalCode::Unavailable)
}

async fn read(wire: &mut Option<Wire>) {
    match wire {
        Some(wire) => wire.read().await,
        None => std::future::pending().await,
    }
}

async fn finished(dialling: &mut Option<Dialling>) -> Result<(Socket, Welcome), DialError> {
    match dialling {
        Some(dialling) => dialling.await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests;
