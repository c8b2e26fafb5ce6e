//! The engine. It looks up what an input needs to become an event of the core, and turns the core's
//! effects into records, messages and answers. The engine does no IO except reading the view, and it
//! has no clock and no thread. [`crate::turns`] drives it.

mod add;
mod answers;
mod approval;
mod ask;
mod capacity;
mod children;
mod conflict;
mod effects;
mod failed_compilations;
mod job_results;
mod lists;
mod modules;
mod operate;
mod reports;
mod restore;
mod unmet;
mod why;

pub use approval::LIST;

use crate::disk_space::DiskSpace;
use crate::events::EventFeed;
use crate::facts::Facts;
use crate::inbox::{AdmissionPermit, ConnectionId, Input, Outbox, Reply};
use crate::lanes;
use crate::sick_runners::SickRunners;
use crate::store_damage::StoreDamage;
use crate::waits::Waits;
use add::AddedBatch;
use effects::EndWithoutReport;
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use taskmaster_core::{Effect, Event, RunnerKey, Scheduler};
use taskmaster_protocol::message::{Done, Failed, Offer, Role};
use taskmaster_protocol::{EventKind, FromMaster, JobName, Now, Requires, ToMaster, Wall};
use taskmaster_store::cache_entry::CacheEntry;
use taskmaster_store::record::Record;
use taskmaster_store::view::EndedTask;
use tokio::sync::oneshot;

/// Settings of the engine.
#[derive(Debug, Clone)]
pub struct EngineConfig {
    /// How long one attempt may run, ms, if its task names no limit.
    pub timeout_ms: u64,
    /// Memory that one attempt may use, MiB, if its task names no limit.
    pub memory_mb: u32,
    /// Memory that open tasks may take, bytes. Above it, no tasks are added.
    pub queue_bytes: u64,
    /// The durability as `status` and `bench` show it: `sync` or `interval:<ms>`.
    pub durability: String,
    /// Whether only modules are used whose hash is on the list in the task folder.
    pub require_approved: bool,
    /// Bytes that kept answers may have together, with their blobs. Above it, those go that were not
    /// used for longest.
    pub cache_bytes: u64,
    /// Seed of the jitter of back-offs. It must differ between two starts.
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
            cache_bytes: limits::ANSWERS_BYTES_DEFAULT,
            seed: 1,
        }
    }
}

/// What may leave the engine only when the turn is durable.
#[derive(Debug)]
pub enum DeferredEffect {
    /// A message to a connection.
    Say(Outbox, FromMaster),
    /// The answer to a question.
    Reply(oneshot::Sender<Reply>, Reply),
    /// Ended tasks that the fold may forget. The ends of the tasks that needed them must be durable
    /// before they are forgotten.
    Pruned(std::sync::mpsc::Sender<Vec<EndedTask>>, Vec<EndedTask>),
}

/// What the engine has made in one turn of the loop.
#[derive(Debug, Default)]
pub struct Turn {
    /// The seq of the turn's first event. A turn without events has the seq of the next event.
    pub first_seq: u64,
    /// When the turn ended.
    pub time: Wall,
    /// The changes that must become durable, in order.
    pub records: Vec<Record>,
    /// Messages that leave at once, in order. None of them says that a change is durable.
    pub now: Vec<(Outbox, FromMaster)>,
    /// Effects that are released in order when the turn is durable.
    pub after: Vec<DeferredEffect>,
    /// The permits of the large batches that were taken in this turn.
    pub permits: Vec<AdmissionPermit>,
}

/// An open connection.
#[derive(Debug)]
struct Connection {
    role: Role,
    /// The client's own name, which stays the same when it connects again.
    name: Arc<str>,
    outbox: Outbox,
    /// What a runner offers to tasks; `None` for other clients.
    offer: Option<Offer>,
    /// The runner's name in the offer. All tasks that ran there share it.
    runner: Option<Arc<str>>,
    /// Whether the runner has told which attempts it holds.
    joined: bool,
    /// What is wrong with the machine of the runner, if anything.
    fault: Option<String>,
    /// When the connection was made.
    since: Wall,
}

/// The report of an attempt that ended.
#[derive(Debug)]
enum AttemptReport {
    Done(Done),
    Failed(Failed),
}

/// A report, and the runner that sent it.
#[derive(Debug)]
struct RunnerReport {
    runner: RunnerKey,
    report: AttemptReport,
}

/// What the end of a task is made from, beside what the core says.
#[derive(Debug)]
#[expect(
    clippy::large_enum_variant,
    reason = "nearly all are reports, and a report on the heap would cost an allocation each"
)]
enum Told {
    /// A runner has reported the end of an attempt.
    Report(RunnerReport),
    /// An answer was kept.
    Answer(Arc<CacheEntry>),
}

/// How long ended tasks are kept at least, µs: one hour. A follower that lost its connection finds
/// what it missed for this long, unless the operator keeps ended tasks for less.
const RETENTION_US: i64 = 3_600_000_000;

/// Decides what each input means. The caller gives it inputs with [`Engine::take`], and commits what
/// [`Engine::end_turn`] returns.
pub struct Engine {
    core: Scheduler,
    /// Counts the starts of masters on this data.
    epoch: u32,
    config: EngineConfig,
    events: EventFeed,
    /// The time of the input that is being taken.
    now: Now,
    /// When this master started.
    started: Now,
    /// The place of the newest task in the order of adding.
    last_ordinal: u64,
    /// The seq of the newest event of all turns so far.
    last_seq: u64,
    facts: Facts,
    connections: BTreeMap<ConnectionId, Connection>,
    /// Empty requirements, shared by the many tasks that require nothing.
    no_requirements: Arc<Requires>,
    modules: modules::ModuleTable,
    disk: DiskSpace,
    /// Reports kept until the disk has space, in the order in which they came. Their runners keep
    /// them, too.
    postponed_reports: Vec<Input>,
    /// Tasks that have ended since this start, by final state.
    finished: [u64; 4],
    /// An empty buffer for the core's effects, kept for its allocation.
    effects: Vec<Effect>,
    /// What the present turn has made so far.
    turn: Turn,
    /// State of the random numbers for back-offs.
    random_state: u64,
    /// Why the connection of a runner ended, by the runner's name. It is kept until the runner
    /// connects again or counts as lost. While the end of an attempt is taken under which the
    /// machine of its runner failed: how it failed.
    lost_links: BTreeMap<Arc<str>, Cow<'static, str>>,
    /// Whether the master is stopping, so that new tasks are refused.
    stopping: bool,
    /// Notified at the end of the first turn in which no runner holds an attempt.
    idle_waiter: Option<oneshot::Sender<()>>,
    /// How long ended tasks are kept at least, µs, so that a follower that lost its connection may
    /// still ask for them.
    retention_us: i64,
    sick_runners: SickRunners,
    /// What blocked tasks wait for beside tasks.
    waits: Waits,
    /// Why a task is skipped, while the core is told that a dependency is not met.
    why_skipped: Option<EndWithoutReport>,
    answers: answers::Answers,
}

impl Engine {
    /// Sets how long ended tasks are kept at least: for `time`, but for an hour at most.
    pub fn keep_ended_for(&mut self, time: Duration) {
        let time_us = i64::try_from(time.as_micros()).unwrap_or(RETENTION_US);
        self.retention_us = time_us.min(RETENTION_US);
    }

    /// Lets kept answers count only while their blobs are in `blobs`.
    pub fn look_for_blobs_in(&mut self, blobs: Box<dyn crate::cache::BlobIndex>) {
        self.answers.look_for_blobs_in(blobs);
    }

    /// Tells `damage` of what the engine cannot read from the store.
    pub fn report_damage_to(&mut self, damage: StoreDamage) {
        self.facts.report_damage_to(damage);
    }

    /// How many runners are sick. The engine keeps the number up to date.
    pub fn sick_runners(&self) -> SickRunners {
        self.sick_runners.clone()
    }

    /// The versions of components. The engine keeps them up to date.
    pub fn components(&self) -> crate::components::Components {
        self.modules.components()
    }

    /// Takes one input in.
    pub fn take(&mut self, input: Input, now: Now) {
        self.now = now;
        match input {
            Input::Connected {
                connection,
                hello,
                outbox,
            } => self.connected(connection, hello, outbox),
            Input::Disconnected { connection } => self.disconnected(connection),
            Input::Heard { connection } => self.tell(Event::RunnerHeard {
                runner: RunnerKey(connection.0),
            }),
            Input::Message {
                connection,
                message,
            } => self.message(connection, message),
            Input::Add {
                connection,
                batch,
                job,
                hold,
                answers,
                tasks,
                permit,
            } => {
                let batch = AddedBatch {
                    number: batch,
                    job,
                    hold,
                    answers,
                    tasks,
                };
                self.add(connection, batch);
                let is_bulk = |permit: &AdmissionPermit| matches!(permit, AdmissionPermit::Bulk(_));
                self.turn.permits.extend(permit.filter(is_bulk));
            }
            Input::Module { name, seen, known } => {
                self.module_seen(name, seen);
                if let Some(known) = known {
                    let _ = known.send(());
                }
            }
            Input::Approved(list) => self.approved_list(list),
            Input::Ask { query, reply } if self.is_full() => self.answer_when_full(query, reply),
            Input::Ask { query, reply } => {
                let answer = self.answer(query);
                self.turn.after.push(DeferredEffect::Reply(reply, answer));
            }
            Input::Folded { seq } => {
                self.facts.view_has(seq);
                self.answers.view_has(seq);
            }
            Input::Prune { tasks, reply } => {
                let tasks = self.prunable(tasks);
                self.turn.after.push(DeferredEffect::Pruned(reply, tasks));
            }
            Input::Stop { idle } => {
                self.idle_waiter = Some(idle);
                self.stopping = true;
                self.tell(Event::StopRequested);
            }
            Input::Reports {
                connection,
                reports,
            } => self.reports_received(connection, reports),
            Input::Permit(permit) => drop(permit),
            Input::DiskSpace(disk) => self.disk_changed(disk),
            Input::Shutdown => {}
        }
    }

    /// The tasks among `tasks` that may be forgotten.
    fn prunable(&mut self, tasks: Vec<EndedTask>) -> Vec<EndedTask> {
        let ended_before = Wall(self.now.wall.0.saturating_sub(self.retention_us));
        let core = &self.core;
        let is_job_open = |job: &JobName| core.job(job).is_some_and(|job| job.open);
        self.facts.prunable(tasks, ended_before, is_job_open)
    }

    /// Ends the turn. The caller makes durable what the turn has made, and then releases it.
    pub fn end_turn(&mut self, now: Now) -> Turn {
        self.now = now;
        self.settle_waits();
        loop {
            self.tell(Event::TurnEnded);
            // A job may have ended with the turn.
            if !self.settle_waits() {
                break;
            }
        }
        self.tell(Event::TurnEnded);
        self.sweep_answers();
        let is_idle = self.core.attempts_in_flight() == 0;
        if let Some(waiter) = self.idle_waiter.take_if(|_| is_idle) {
            // The waiter may have given up, because the master shuts down already.
            let _ = waiter.send(());
        }
        self.facts.turn_ended(self.last_seq, self.last_ordinal);
        self.turn.time = self.now.wall;
        let next = Turn {
            first_seq: self.last_seq + 1,
            ..Turn::default()
        };
        std::mem::replace(&mut self.turn, next)
    }

    /// When the next turn is due even if no input comes, by the monotonic clock, µs.
    pub fn next_deadline(&self, now: Now) -> Option<u64> {
        let core = self.core.next_deadline(now);
        core.into_iter().chain(self.next_sweep()).min()
    }

    /// The core's invariants that do not hold, as sentences. For tests.
    pub fn check(&self) -> Vec<String> {
        self.core.check()
    }

    /// Gives the core an event, and carries out its effects.
    fn tell(&mut self, event: Event) {
        self.tell_with(event, None);
    }

    /// Gives the core an event, and carries out its effects. If the event says that an attempt has
    /// ended, or that an answer was found, the effects take what they need from `told`.
    fn tell_with(&mut self, event: Event, mut told: Option<Told>) {
        let mut effects = std::mem::take(&mut self.effects);
        self.core.handle(event, self.now, &mut effects);
        for effect in effects.drain(..) {
            self.carry_out(effect, &mut told);
        }
        self.effects = effects;
        self.look_up_answers();
    }

    /// A random number for the jitter of back-offs (xorshift64*, because its quality does not
    /// matter).
    fn random(&mut self) -> u32 {
        self.random_state ^= self.random_state >> 12;
        self.random_state ^= self.random_state << 25;
        self.random_state ^= self.random_state >> 27;
        (self.random_state.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 32) as u32
    }

    /// Adds a record to what this turn makes durable, and counts its event.
    fn persist(&mut self, record: Record) {
        self.last_seq += u64::from(record.event().is_some());
        self.turn.records.push(record);
    }

    fn connected(
        &mut self,
        connection: ConnectionId,
        hello: taskmaster_protocol::message::Hello,
        outbox: Outbox,
    ) {
        let name: Arc<str> = hello
            .session
            .unwrap_or_else(|| format!("connection-{}", connection.0))
            .into();
        // A feeder that has connected again still holds its jobs, even if it adds nothing for a
        // while.
        for job in self.core.jobs_held_by(&name) {
            self.tell(Event::JobHeld {
                job,
                by: name.clone(),
                restored: false,
            });
        }
        let offer = hello.runner;
        let runner = offer.as_ref().map(|offer| offer.name.as_str().into());
        let connected = Connection {
            role: hello.role,
            name,
            outbox,
            offer,
            runner,
            joined: false,
            fault: None,
            since: self.now.wall,
        };
        self.connections.insert(connection, connected);
    }

    fn disconnected(&mut self, connection: ConnectionId) {
        self.postponed_reports
            .retain(|input| lanes::connection_of(input) != Some(connection));
        let Some(closed) = self.connections.remove(&connection) else {
            return;
        };
        if closed.fault.is_some() {
            self.sick_runners.lose();
        }
        match closed.role {
            Role::Runner => {
                if let Some(offer) = closed.offer.filter(|_| closed.joined) {
                    self.lost_links
                        .insert(offer.name.into(), "its connection ended".into());
                }
                self.tell(Event::RunnerDisconnected {
                    runner: RunnerKey(connection.0),
                });
            }
            Role::Client => {
                // The client may already have a new connection.
                let is_back = self
                    .connections
                    .values()
                    .any(|other| other.name == closed.name);
                if !is_back {
                    self.tell(Event::HolderLost { by: closed.name });
                }
            }
        }
    }

    fn message(&mut self, connection: ConnectionId, message: ToMaster) {
        let Some(message) = self.admit_message(connection, message) else {
            return;
        };
        match message {
            ToMaster::Request(request) => self.request(connection, request),
            ToMaster::Failed(reports) => self.failed(connection, reports),
            ToMaster::Returned(attempts) => self.returned(connection, attempts),
            ToMaster::Started(started) => self.guest_started(connection, started),
            ToMaster::Progress(output) => {
                self.live_output(connection, EventKind::TaskProgress, output)
            }
            ToMaster::Partial(partials) => self.partials(connection, partials),
            ToMaster::Log(output) => self.live_output(connection, EventKind::TaskLog, output),
            ToMaster::Compiled(compiled) => self.compiled(connection, compiled),
            ToMaster::Compiling(compiling) => self.compiling(connection, compiling),
            ToMaster::Release(of) => self.release(connection, of.job),
            ToMaster::Cancel(cancel) => self.cancel(connection, cancel),
            ToMaster::Retry(retry) => self.retry(connection, retry),
            ToMaster::Set(set) => self.set(connection, set),
            ToMaster::Operate(operate) => self.operate(connection, operate),
            // The gateway deals with these messages, or turns them into other inputs.
            ToMaster::Hello(_)
            | ToMaster::Add(_)
            | ToMaster::Done(_)
            | ToMaster::Follow(_)
            | ToMaster::Watch(_)
            | ToMaster::Ask(_) => {}
        }
    }

    /// Sends a message to a connection at once, if the connection is still open.
    fn send_now(&mut self, connection: ConnectionId, message: FromMaster) {
        if let Some(connection) = self.connections.get(&connection) {
            self.turn.now.push((connection.outbox.clone(), message));
        }
    }

    /// Sends a message to a connection when this turn is durable.
    fn send_when_durable(&mut self, connection: ConnectionId, message: FromMaster) {
        if let Some(connection) = self.connections.get(&connection) {
            self.turn
                .after
                .push(DeferredEffect::Say(connection.outbox.clone(), message));
        }
    }
}
