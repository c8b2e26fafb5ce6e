//! The engine: turns inputs into events of the core with the facts looked up, and the core's
//! effects into records, messages and answers. It does no IO but reads of the view; it has no clock
//! and no thread. [`crate::turns`] drives it.

mod add;
mod approval;
mod ask;
mod children;
mod effects;
mod modules;
mod operate;
mod reports;
mod restore;
mod room;
mod unmet;
mod why;

pub use approval::LIST;

use crate::events::EventFeed;
use crate::facts::Facts;
use crate::inbox::{Input, Outbox, Pass, Reply, SessionNo};
use crate::room::Disk;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use taskmaster_core::{Effect, Event, RunnerKey, Scheduler};
use taskmaster_protocol::message::{Attempt, Done, Failed, Offer, Role};
use taskmaster_protocol::{FromMaster, JobName, Now, Requires, ToMaster, Wall};
use taskmaster_store::record::Record;
use taskmaster_store::view::Stored;
use tokio::sync::oneshot;

/// What an operator can set.
#[derive(Debug, Clone)]
pub struct EngineConfig {
    /// Limit of one attempt where the task names none.
    pub timeout_ms: u64,
    /// Limit of one attempt where the task names none.
    pub memory_mb: u32,
    /// Memory that tasks which have not ended may take, bytes; beyond it none are added.
    pub queue_bytes: u64,
    /// As `status` and `bench` tell it: `sync` or `interval:<ms>`.
    pub durability: String,
    /// Only modules whose hash is on the list in the task folder are used.
    pub require_approved: bool,
    /// A number that differs between two starts, for the jitter of back-offs.
    pub seed: u64,
}

impl Default for EngineConfig {
    fn default() -> EngineConfig {
        use taskmaster_protocol::limits;
        EngineConfig {
            timeout_ms: limits::TIMEOUT_MS_DEFAULT,
            memory_mb: limits::MEMORY_MB_DEFAULT,
            queue_bytes: u64::MAX,
            durability: "sync".into(),
            require_approved: false,
            seed: 1,
        }
    }
}

/// What leaves only when the turn is durable.
#[derive(Debug)]
pub enum Release {
    /// A message to a connection.
    Say(Outbox, FromMaster),
    /// The answer to a question.
    Reply(oneshot::Sender<Reply>, Reply),
    /// Ended tasks that may be forgotten: what needed them has ended, and that must be durable
    /// before they go.
    Pruned(std::sync::mpsc::Sender<Vec<Stored>>, Vec<Stored>),
}

/// What one turn of the loop made.
#[derive(Debug, Default)]
pub struct Turn {
    /// The seq of its first event, or the next one's.
    pub first_seq: u64,
    /// When it ended.
    pub time: Wall,
    /// What must become durable.
    pub records: Vec<Record>,
    /// What may leave at once: nothing in it says that anything is safe.
    pub now: Vec<(Outbox, FromMaster)>,
    /// What leaves when it is durable, in order.
    pub after: Vec<Release>,
    /// Of the large batches in it.
    pub passes: Vec<Pass>,
}

/// A connection.
#[derive(Debug)]
struct Session {
    role: Role,
    /// The client's own name, the same across its reconnects.
    name: Arc<str>,
    outbox: Outbox,
    /// What a runner offers.
    offer: Option<Offer>,
    /// The name in it, as every task that ran there has it.
    runner: Option<Arc<str>>,
    /// It has told what it holds.
    joined: bool,
    since: Wall,
}

/// What a runner reports of an attempt that ended.
#[derive(Debug)]
enum Report {
    Done(Done),
    Failed(Failed),
}

/// A report, and the connection of the runner that makes it.
#[derive(Debug)]
struct RunnerReport {
    runner: RunnerKey,
    report: Report,
}

/// How long a follower may be away and still find what it missed, whatever is kept of history: an
/// hour, µs.
const TOLD_US: i64 = 3_600_000_000;

/// See the module's documentation.
pub struct Engine {
    core: Scheduler,
    epoch: u32,
    config: EngineConfig,
    events: EventFeed,
    now: Now,
    started: Now,
    /// The `no` of the newest task.
    last_ordinal: u64,
    /// The seq of the last event of the turns so far.
    last_seq: u64,
    facts: Facts,
    sessions: BTreeMap<SessionNo, Session>,
    /// What most tasks require.
    nothing: Arc<Requires>,
    modules: modules::Modules,
    disk: Disk,
    /// Reports that came while nothing could be written, in order. Their runners keep them.
    held_back: Vec<(SessionNo, ToMaster)>,
    /// What attempts want added whose report has not been taken yet, with the connection that it
    /// comes over.
    wishes: BTreeMap<Attempt, (SessionNo, crate::inbox::Wishes)>,
    /// Ended tasks since this start, by final state.
    finished: [u64; 4],
    effects: Vec<Effect>,
    turn: Turn,
    chance: u64,
    /// How the link of a runner ended that may still come back.
    gone: BTreeMap<Arc<str>, &'static str>,
    /// New tasks are refused: the master is to stop.
    stopping: bool,
    /// Who waits for the last running attempt to end.
    idle: Option<oneshot::Sender<()>>,
    /// Ended tasks are kept at least this long, µs: a follower that lost its link may still ask for
    /// them.
    told_us: i64,
}

impl Engine {
    /// Ended tasks are kept for an hour at least, or for as long as this where that is less.
    pub fn keep_ended_for(&mut self, time: Duration) {
        self.told_us = i64::try_from(time.as_micros()).map_or(TOLD_US, |time| time.min(TOLD_US));
    }

    /// The versions of components, as they will always be.
    pub fn components(&self) -> crate::components::Components {
        self.modules.components()
    }

    /// Takes one input in.
    pub fn take(&mut self, input: Input, now: Now) {
        self.now = now;
        match input {
            Input::Connected {
                session,
                hello,
                outbox,
            } => self.connected(session, hello, outbox),
            Input::Disconnected { session } => self.disconnected(session),
            Input::Heard { session } => self.tell(Event::RunnerHeard {
                runner: RunnerKey(session.0),
            }),
            Input::Message { session, message } => self.message(session, message),
            Input::Add {
                session,
                batch,
                job,
                hold,
                tasks,
                pass,
            } => {
                self.add(session, batch, job, hold, tasks);
                self.turn
                    .passes
                    .extend(pass.filter(|pass| matches!(pass, Pass::Bulk(_))));
            }
            Input::Module { name, seen, known } => {
                self.module_seen(name, seen);
                if let Some(known) = known {
                    let _ = known.send(());
                }
            }
            Input::Approved(list) => self.approved_list(list),
            Input::Ask { query, reply } if self.is_full() => self.asked_when_full(query, reply),
            Input::Ask { query, reply } => {
                let answer = self.answer(query);
                self.turn.after.push(Release::Reply(reply, answer));
            }
            Input::Folded { seq } => self.facts.view_has(seq),
            Input::Prune { tasks, reply } => {
                let ended_before = Wall(self.now.wall.0.saturating_sub(self.told_us));
                let core = &self.core;
                let is_job_open = |job: &JobName| core.job(job).is_some_and(|job| job.open);
                let tasks = self.facts.prunable(tasks, ended_before, is_job_open);
                self.turn.after.push(Release::Pruned(reply, tasks));
            }
            Input::Stop { idle } => {
                self.idle = Some(idle);
                self.stopping = true;
                self.tell(Event::StopRequested);
            }
            Input::Wishes {
                session,
                attempt,
                wishes,
            } => drop(self.wishes.insert(attempt, (session, *wishes))),
            Input::Room(permit) => drop(permit),
            Input::Disk(disk) => self.disk_is(disk),
            Input::Shutdown => {}
        }
    }

    /// Ends the turn: what it made is the caller's to make durable and to release.
    pub fn end_turn(&mut self, now: Now) -> Turn {
        self.now = now;
        self.tell(Event::TurnEnded);
        if let Some(idle) = self.idle.take_if(|_| self.core.attempts_in_flight() == 0) {
            // Who no longer waits shuts down already.
            let _ = idle.send(());
        }
        self.facts.turn_ended(self.last_seq, self.last_ordinal);
        self.turn.time = self.now.wall;
        let next = Turn {
            first_seq: self.last_seq + 1,
            ..Turn::default()
        };
        std::mem::replace(&mut self.turn, next)
    }

    /// When a turn is due even if nothing comes, by the monotonic clock.
    pub fn next_deadline(&self, now: Now) -> Option<u64> {
        self.core.next_deadline(now)
    }

    /// The core's invariants that do not hold. For tests.
    pub fn check(&self) -> Vec<String> {
        self.core.check()
    }

    /// Tells the core, and carries out what follows.
    fn tell(&mut self, event: Event) {
        self.tell_with(event, None);
    }

    /// Tells the core of an attempt that has ended. The report goes into what follows from it.
    fn tell_with(&mut self, event: Event, mut report: Option<RunnerReport>) {
        let mut effects = std::mem::take(&mut self.effects);
        self.core.handle(event, self.now, &mut effects);
        for effect in effects.drain(..) {
            self.carry_out(effect, &mut report);
        }
        self.effects = effects;
    }

    /// A random number for the jitter of back-offs (xorshift64*; nothing depends on its quality).
    fn chance(&mut self) -> u32 {
        self.chance ^= self.chance >> 12;
        self.chance ^= self.chance << 25;
        self.chance ^= self.chance >> 27;
        (self.chance.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 32) as u32
    }

    /// Makes a record durable with this turn, and counts its event.
    fn store(&mut self, record: Record) {
        self.last_seq += u64::from(record.event().is_some());
        self.turn.records.push(record);
    }

    fn connected(
        &mut self,
        session: SessionNo,
        hello: taskmaster_protocol::message::Hello,
        outbox: Outbox,
    ) {
        let name: Arc<str> = hello
            .session
            .unwrap_or_else(|| format!("connection-{}", session.0))
            .into();
        // A feeder that is back goes on holding what it held, also when it has nothing to add for a
        // while.
        for job in self.core.jobs_held_by(&name) {
            self.tell(Event::JobHeld {
                job,
                by: name.clone(),
                restored: false,
            });
        }
        let (role, offer, since) = (hello.role, hello.runner, self.now.wall);
        let runner = offer.as_ref().map(|offer| offer.name.as_str().into());
        self.sessions.insert(
            session,
            Session {
                role,
                name,
                outbox,
                offer,
                runner,
                joined: false,
                since,
            },
        );
    }

    fn disconnected(&mut self, session: SessionNo) {
        self.held_back.retain(|(of, _)| *of != session);
        self.wishes.retain(|_, (of, _)| *of != session);
        let Some(gone) = self.sessions.remove(&session) else {
            return;
        };
        match gone.role {
            Role::Runner => {
                if let Some(offer) = gone.offer.filter(|_| gone.joined) {
                    self.gone.insert(offer.name.into(), "its connection ended");
                }
                self.tell(Event::RunnerDisconnected {
                    runner: RunnerKey(session.0),
                });
            }
            Role::Client => {
                // The same client may be back already under a new connection.
                if !self.sessions.values().any(|other| other.name == gone.name) {
                    self.tell(Event::HolderLost { by: gone.name });
                }
            }
        }
    }

    fn message(&mut self, session: SessionNo, message: ToMaster) {
        let Some(message) = self.there_is_room_for(session, message) else {
            return;
        };
        match message {
            ToMaster::Request(request) => self.request(session, request),
            ToMaster::Done(reports) => self.done(session, reports),
            ToMaster::Failed(reports) => self.failed(session, reports),
            ToMaster::Returned(attempts) => self.returned(session, attempts),
            ToMaster::Started(started) => self.guest_started(session, started),
            ToMaster::Progress(said) => {
                self.said(session, taskmaster_protocol::EventKind::TaskProgress, said)
            }
            ToMaster::Partial(said) => {
                self.said(session, taskmaster_protocol::EventKind::TaskPartial, said)
            }
            ToMaster::Log(said) => {
                self.said(session, taskmaster_protocol::EventKind::TaskLog, said)
            }
            ToMaster::Compiled(compiled) => self.compiled(session, compiled),
            ToMaster::Compiling(compiling) => self.compiling(session, compiling),
            ToMaster::Release(of) => self.release(session, of.job),
            ToMaster::Cancel(cancel) => self.cancel(session, cancel),
            ToMaster::Retry(retry) => self.retry(session, retry),
            ToMaster::Set(set) => self.set(session, set),
            ToMaster::Operate(operate) => self.operate(session, operate),
            // The gateway deals with these, or turns them into other inputs.
            ToMaster::Hello(_)
            | ToMaster::Add(_)
            | ToMaster::Follow(_)
            | ToMaster::Watch(_)
            | ToMaster::Ask(_) => {}
        }
    }

    /// To a connection, at once. Whoever is gone does not hear it.
    fn say(&mut self, session: SessionNo, message: FromMaster) {
        if let Some(session) = self.sessions.get(&session) {
            self.turn.now.push((session.outbox.clone(), message));
        }
    }

    /// To a connection, when this turn is durable.
    fn say_after(&mut self, session: SessionNo, message: FromMaster) {
        if let Some(session) = self.sessions.get(&session) {
            self.turn
                .after
                .push(Release::Say(session.outbox.clone(), message));
        }
    }
}
