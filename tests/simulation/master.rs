//! The master: the real engine with its loop, its start and its sudden end.

use crate::disk::Written;
use crate::keeping::Pruning;
use crate::network::{self, Client, Parcel};
use crate::planted::{self, Planted};
use crate::world::{Happening, MS, SECOND, World};
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;
use taskmaster_engine::committing;
use taskmaster_engine::disk_monitor::DiskMonitor;
use taskmaster_engine::disk_space::DiskSpace;
use taskmaster_engine::engine::{DeferredEffect, Engine, EngineConfig, Turn};
use taskmaster_engine::events::EventFeed;
use taskmaster_engine::inbox::{ConnectionId, DoneReport, Input, ModuleFile, Reply};
use taskmaster_engine::prepare::prepare;
use taskmaster_engine::steady::SteadyClock;
use taskmaster_engine::store_damage::StoreDamage;
use taskmaster_protocol::message::{Attempt, Done, Query};
use taskmaster_protocol::{
    FromMaster, Hash, Json, ModuleKind, ModuleName, Now, Refusal, RefusalCode, ToMaster, Wall,
};
use taskmaster_store::journal::KvJournal;
use taskmaster_store::kv::SharedStore;
use taskmaster_store::record::JournalEntry;
use taskmaster_store::view;

/// When the play begins by the wall clock, in µs: in 2026, so that times look like times.
const WALL_START_US: i64 = 1_767_225_600_000_000;

/// The invariants of the core are checked once in this many turns, because each check walks through
/// everything.
const CHECKED_EVERY: u64 = 16;

/// After how many of a thousand turns somebody asks something.
const QUESTIONS_PERMILLE: u64 = 60;

pub const MODULES: [&str; 2] = ["ma", "mb"];

pub struct Master {
    /// The number of this process: things that were planned for an earlier one do not happen.
    pub life: u32,
    pub epoch: u32,
    /// When the monotonic clock began.
    since: u64,
    clock: SteadyClock,
    /// Until when the process is stopped.
    pub asleep_until: u64,
    /// Whether clients can connect: the epoch is durable.
    pub listens: bool,
    pub engine: Engine,
    pub events: EventFeed,
    pub journal: KvJournal,
    inbox: VecDeque<Input>,
    /// When the next turn is planned.
    pub turn_at: Option<u64>,
    turns: u64,
    /// Turns that wait for the writer.
    pub waiting: VecDeque<Turn>,
    /// The commit that is appended and not synced.
    pub writing: Option<Written>,
    /// A commit that cannot be appended, because the disk is full.
    pub waits_for_space: Option<Written>,
    pub write_planned: bool,
    pub folds: VecDeque<Arc<JournalEntry>>,
    pub fold_planned: bool,
    pub pruning: Pruning,
    /// The disk's free-space state.
    pub room: DiskMonitor,
    /// Changes of that state, which the engine has not been told of yet.
    pub disk_changes: Receiver<Input>,
    /// The free-space state that the engine knows of.
    pub disk: DiskSpace,
}

impl Master {
    /// Whether something is not durable yet.
    pub fn has_unwritten(&self) -> bool {
        self.writing.is_some() || self.waits_for_space.is_some() || !self.waiting.is_empty()
    }
}

impl World {
    /// The time by the clocks of the machine.
    pub fn plain_clock(&mut self) -> Now {
        let since = self.master.as_ref().map_or(self.now, |master| master.since);
        let wall = self.now as i64 + self.wall_shift;
        self.latest_wall = self.latest_wall.max(wall);
        Now {
            mono_us: 5 * SECOND + self.now - since,
            wall: Wall(WALL_START_US + wall),
        }
    }

    /// The time by the steady clock of the master.
    pub fn clock(&mut self) -> Now {
        let plain = self.plain_clock();
        self.master
            .as_mut()
            .map_or(plain, |master| master.clock.at(plain))
    }

    pub fn reader(&self) -> SharedStore {
        self.store.clone()
    }

    /// A new process starts on what the last one has left on the disk.
    pub fn master_starts(&mut self) {
        if self.master.is_some() {
            return;
        }
        if self.store.is_full() {
            self.note("no room", || "the master does not start".into());
            return self.plan(SECOND, Happening::MasterStarts);
        }
        let reader = self.reader();
        let read = view::catch_up(&reader).and_then(|()| view::restore(reader.as_ref()));
        let mut restored = match read {
            Ok(restored) => restored,
            Err(error) => {
                return self.oracle.broken = Some(format!("the store cannot be read: {error}"));
            }
        };
        self.oracle.master_starts(&reader, &restored);
        if let Some(planted) = self.planted {
            planted::misread(planted, &mut restored);
        }
        let Ok(journal) = KvJournal::open(reader.clone()) else {
            return;
        };
        self.lives += 1;
        let life = self.lives;
        let epoch = restored.watermarks.epoch + 1;
        let now = self.plain_clock();
        let events = EventFeed::new(restored.watermarks.seq, reader.clone());
        let config = EngineConfig {
            seed: self.chance.draw(),
            ..EngineConfig::default()
        };
        let mut engine = match Engine::restore(restored, config, reader, events.clone(), now) {
            Ok(engine) => engine,
            Err(error) => {
                return self.oracle.broken = Some(format!("the store cannot be read: {error}"));
            }
        };
        engine.keep_ended_for(Duration::from_micros(self.swarm.kept));
        let (disk_sender, disk_changes) = channel();
        self.master = Some(Master {
            life,
            epoch,
            since: self.now,
            clock: SteadyClock::default(),
            asleep_until: 0,
            listens: false,
            engine,
            events,
            journal,
            inbox: VecDeque::new(),
            turn_at: None,
            turns: 0,
            waiting: VecDeque::new(),
            writing: None,
            waits_for_space: None,
            write_planned: false,
            folds: VecDeque::new(),
            fold_planned: false,
            pruning: Pruning::default(),
            room: DiskMonitor::new(disk_sender),
            disk_changes,
            disk: DiskSpace::Ample,
        });
        self.note("master starts", || format!("epoch {epoch}"));
        // The master makes its epoch durable before it listens.
        self.turn();
        self.write();
        self.measures();
        self.put_modules_back();
    }

    /// The process is killed. If the power fails, some of what is not synced is lost as well.
    pub fn kill_master(&mut self, power: bool) {
        if power {
            let unsynced = self.store.unsynced() as u64;
            let kept = self.chance.within(0, unsynced) as usize;
            self.store.crash(kept);
        }
        if self.master.take().is_none() {
            return;
        }
        let lines: Vec<u64> = self
            .links
            .iter()
            .filter(|(_, link)| !link.cut)
            .map(|(no, _)| *no)
            .collect();
        lines.into_iter().for_each(|link| self.cut(link));
        let after = if self.healed {
            MS
        } else {
            self.chance.spread(MS, 4 * SECOND)
        };
        self.plan(after, Happening::MasterStarts);
    }

    /// The master finds a module in the folder.
    fn sees_module(&mut self, name: &str, version: u64) {
        if let Ok(module) = ModuleName::new(name) {
            let version = Hash::of(format!("{name} {version}").as_bytes());
            let seen = ModuleFile::Sound {
                version,
                kind: ModuleKind::Command,
                bytes: 100,
                wants: Some(Default::default()),
                cache_version: None,
            };
            self.tell_master(Input::Module {
                name: module,
                seen,
                known: None,
            });
        }
    }

    pub fn touch_module(&mut self) {
        let version = self.chance.below(4);
        let gone = self.swarm.removing && self.chance.permille(300);
        match self.chance.of(&MODULES).copied() {
            Some(name) if !gone => self.sees_module(name, version),
            Some(name) => {
                let Ok(name) = ModuleName::new(name) else {
                    return;
                };
                self.tell_master(Input::Module {
                    name,
                    seen: ModuleFile::Gone,
                    known: None,
                });
            }
            None => {}
        }
    }

    /// Puts the file of every module back.
    pub fn put_modules_back(&mut self) {
        for name in MODULES {
            self.sees_module(name, 0);
        }
    }

    /// Puts an input into the inbox and wakes the loop.
    pub fn tell_master(&mut self, input: Input) {
        let after = self.chance.within(1, 100);
        let Some(master) = &mut self.master else {
            return;
        };
        master.inbox.push_back(input);
        self.plan_turn(self.now + after);
    }

    fn plan_turn(&mut self, at: u64) {
        let Some(master) = &mut self.master else {
            return;
        };
        if master.turn_at.is_none_or(|planned| planned > at) {
            master.turn_at = Some(at);
            let life = master.life;
            self.plan(at - self.now, Happening::Turn { life });
        }
    }

    /// Drains the inbox and ends the turn, as `run_engine` does, or takes in only one input.
    pub fn turn(&mut self) {
        let Some(master) = &self.master else { return };
        // The turn was planned anew for an earlier time, and has happened.
        if master.turns > 0 && master.turn_at != Some(self.now) {
            return;
        }
        let draining = self.chance.permille(self.swarm.draining);
        let now = self.clock();
        let Some(master) = &mut self.master else {
            return;
        };
        master.turn_at = None;
        let most = if draining {
            master.inbox.len()
        } else {
            master.inbox.len().min(1)
        };
        let inputs: Vec<Input> = master.inbox.drain(..most).collect();
        // When the disk has space again, the engine takes in the reports that it has held back. The
        // input that says so does not tell which.
        let judged = inputs
            .first()
            .filter(|input| !draining && !matches!(input, Input::DiskSpace(_)));
        let mut expected = judged.map(|input| self.oracle.pending.expects(input, &master.disk));
        if let Some((
            expected,
            Input::Message { connection, .. } | Input::Reports { connection, .. },
        )) = expected.as_mut().zip(judged)
            && network::is_given_up(&self.links, &self.runners, connection.0)
        {
            expected.comes_late();
        }
        for input in inputs {
            if let Input::DiskSpace(disk) = &input {
                master.disk = disk.clone();
            }
            master.engine.take(input, now);
        }
        let turn = master.engine.end_turn(now);
        if let Some(expected) = expected {
            self.oracle.judge(expected.judge(&turn));
        }
        self.turn_ended(turn, now);
        if self
            .master
            .as_ref()
            .is_some_and(|master| !master.inbox.is_empty())
        {
            let after = self.chance.within(1, 20);
            self.plan_turn(self.now + after);
        }
        if self.chance.permille(QUESTIONS_PERMILLE) {
            self.question();
        }
    }

    /// Judges a turn, sends what need not wait, and hands the rest to the writer.
    fn turn_ended(&mut self, mut turn: Turn, now: Now) {
        let Some(master) = &mut self.master else {
            return;
        };
        master.turns += 1;
        let sayings = std::mem::take(&mut turn.now);
        if master.turns.is_multiple_of(CHECKED_EVERY) {
            let wrong = master.engine.check();
            self.oracle
                .claim(wrong.is_empty(), || format!("in the core: {wrong:?}"));
        }
        self.oracle.turn_ends(&turn);
        let leaving = turn.after.iter().find_map(|release| match release {
            DeferredEffect::Pruned(_, tasks) => Some(tasks),
            DeferredEffect::Say(..) | DeferredEffect::Reply(..) => None,
        });
        if let Some(tasks) = leaving {
            self.oracle.leave(tasks);
        }
        // A message to a client that is gone is lost.
        sayings
            .into_iter()
            .for_each(|(outbox, message)| drop(outbox.send(message)));
        if !turn.records.is_empty() || !turn.after.is_empty() {
            master.waiting.push_back(turn);
            self.plan_write();
        }
        self.oracle.wall = now.wall;
        self.flush();
        let plain = self.plain_clock();
        let Some(master) = &mut self.master else {
            return;
        };
        let due = master
            .engine
            .next_deadline(now)
            .map(|at| at.saturating_sub(now.mono_us));
        master
            .clock
            .waiting_from(plain, Duration::from_micros(due.unwrap_or(3_600 * SECOND)));
        if let Some(due) = due {
            self.plan_turn(self.now + due.max(1));
        }
    }

    /// Hands a message to the engine, as the gateway does.
    pub fn gateway(&mut self, no: u64, client: Client, mut message: ToMaster) {
        let session = ConnectionId(no);
        if let (Some(Planted::ResultLost), Client::Runner(index), ToMaster::Done(reports)) =
            (self.planted, client, &message)
            && self.runners[index].back_at + 30 * MS > self.now
            && self.runners[index].connects > 1
        {
            let done = reports.iter().map(|done| Attempt {
                id: done.id.clone(),
                attempt: done.attempt,
            });
            let ack = FromMaster::Ack(done.collect()).encode();
            return self.post(no, false, Parcel::Text(ack));
        }
        if let (Some(planted), Client::Runner(index)) = (self.planted, client) {
            let just_back = self.runners[index].back_at + 30 * MS > self.now
                && self.runners[index].connects > 1;
            let sent = &self.oracle.sent;
            let last = |id: &taskmaster_protocol::TaskId| {
                sent.keys()
                    .filter(|attempt| attempt.id == *id)
                    .map(|attempt| attempt.attempt)
                    .max()
            };
            if !planted::garble(planted, &mut message, just_back, last) {
                return;
            }
        }
        self.oracle.master_hears(&message);
        if let ToMaster::Watch(watch) = &message {
            return self.watch(no, watch);
        }
        let input = match message {
            ToMaster::Add(add) => {
                let tasks = add
                    .tasks
                    .iter()
                    .map(|task| {
                        let mut task = prepare(task)?;
                        if let Some(planted) = self.planted {
                            planted::misprepare(planted, &mut task);
                        }
                        Ok(Box::new(task))
                    })
                    .collect();
                Input::Add {
                    connection: session,
                    batch: add.batch,
                    job: add.job,
                    hold: add.hold,
                    answers: false,
                    tasks,
                    permit: None,
                }
            }
            ToMaster::Done(reports) => Input::Reports {
                connection: session,
                reports: reports.into_iter().map(without_follow_ups).collect(),
            },
            message => Input::Message {
                connection: session,
                message,
            },
        };
        self.tell_master(input);
    }

    /// Asks the engine a question and reads the answer at once.
    pub fn ask(&mut self, query: Query) -> Result<Json, Refusal> {
        let now = self.clock();
        let gone = || Refusal::new(RefusalCode::Unavailable, "there is no master");
        let master = self.master.as_mut().ok_or_else(gone)?;
        let (reply, mut answer) = tokio::sync::oneshot::channel();
        master.engine.take(Input::Ask { query, reply }, now);
        let mut turn = master.engine.end_turn(now);
        let place = turn
            .after
            .iter()
            .position(|release| matches!(release, DeferredEffect::Reply(..)));
        let asked = place.map(|place| turn.after.remove(place));
        self.turn_ended(turn, now);
        committing::release(vec![Turn {
            after: asked.into_iter().collect(),
            ..Turn::default()
        }]);
        match answer.try_recv() {
            Ok(Reply::Answer(answer)) => Ok(Json::of(&answer)),
            Ok(Reply::FromStore(lookup)) => {
                let answer = lookup.complete(&self.reader(), &StoreDamage::default())?;
                Ok(Json::of(&answer))
            }
            Ok(Reply::Refused(refusal)) => Err(refusal),
            Err(error) => Err(Refusal::new(RefusalCode::Internal, error.to_string())),
        }
    }
}

fn without_follow_ups(done: Done) -> DoneReport {
    DoneReport {
        done,
        follow_ups: None,
    }
}
