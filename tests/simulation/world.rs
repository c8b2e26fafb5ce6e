//! The world of a history: what happens, and when. First with faults, then healed, until everything
//! is done.

use crate::chance::{Chance, Swarm};
use crate::feeders::Feeder;
use crate::history::{History, HistoryMode};
use crate::master::Master;
use crate::network::{Client, Link};
use crate::oracle::Oracle;
use crate::planted::Planted;
use crate::runners::Runner;
use crate::watchers::Watcher;
use std::collections::BTreeMap;
use std::sync::Arc;
use taskmaster_protocol::message::Attempt;
use taskmaster_store::disk::AMPLE_BYTES;
use taskmaster_store::kv::memory::MemoryShelf;

/// A millisecond, in µs as all times here.
pub const MS: u64 = 1_000;
pub const SECOND: u64 = 1_000_000;
const HOUR: u64 = 3_600 * SECOND;

/// How long everything may take to end once the world is healed, in µs. The hold of a feeder that is
/// away lasts for a minute, and a single runner may have hundreds of tasks before it that take
/// seconds each.
const HEALED_US_MAX: u64 = 600 * SECOND;

#[derive(Debug, Clone)]
pub enum Happening {
    Deliver {
        link: u64,
        up: bool,
    },
    Dialled {
        client: Client,
        process: u32,
    },
    Noticed {
        link: u64,
        by_master: bool,
    },
    Turn {
        life: u32,
    },
    Write {
        life: u32,
    },
    Synced {
        life: u32,
    },
    Fold {
        life: u32,
    },
    Forget {
        life: u32,
    },
    Tick {
        runner: usize,
        process: u32,
    },
    Ends {
        runner: usize,
        process: u32,
        attempt: Attempt,
    },
    RunnerStarts {
        runner: usize,
    },
    Feeds {
        feeder: usize,
    },
    MasterStarts,
    Fault(Fault),
    /// Somebody has freed space on the disk.
    SpaceFreed,
    /// The master measures the free space.
    Measures,
    Heals,
    Looks,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    KillMaster,
    PowerOff,
    FailDisk,
    KillRunner,
    DrainRunner,
    Cut,
    Stall,
    TouchModule,
    PauseMaster,
    PauseRunner,
    StepClock,
    Abandon,
    OneWay,
    Prune,
    Trim,
    FillDisk,
}

impl Fault {
    /// Every fault, with the pause between two of its kind on average, in µs.
    fn all(swarm: &Swarm) -> [(Fault, u64); 16] {
        [
            (Fault::KillMaster, swarm.kill_master),
            (Fault::PowerOff, swarm.power_off),
            (Fault::FailDisk, swarm.fail_disk),
            (Fault::KillRunner, swarm.kill_runner),
            (Fault::DrainRunner, swarm.drain_runner),
            (Fault::Cut, swarm.cut),
            (Fault::Stall, swarm.stall),
            (Fault::TouchModule, swarm.touch_module),
            (Fault::PauseMaster, swarm.pause_master),
            (Fault::PauseRunner, swarm.pause_runner),
            (Fault::StepClock, swarm.step_clock),
            (Fault::Abandon, swarm.abandon),
            (Fault::OneWay, swarm.one_way),
            (Fault::Prune, swarm.prune),
            (Fault::Trim, swarm.trim),
            (Fault::FillDisk, swarm.fill_disk),
        ]
    }
}

/// What is told of a play when it is over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Told {
    pub hash: u64,
    pub lines: u64,
    pub tasks: usize,
    pub starts: u32,
}

pub struct World {
    /// The time since the play began, in µs.
    pub now: u64,
    /// What is to happen, by its time and then by the order of planning.
    queue: BTreeMap<(u64, u64), Happening>,
    /// How many things were ever planned.
    planned: u64,
    pub chance: Chance,
    pub swarm: Swarm,
    pub planted: Option<Planted>,
    pub shelf: Arc<MemoryShelf>,
    /// Free bytes on the disk.
    pub free: u64,
    /// Whether the disk was ever full, or nearly.
    pub has_lacked_room: bool,
    pub master: Option<Master>,
    /// How many masters have started.
    pub lives: u32,
    pub runners: Vec<Runner>,
    pub feeders: Vec<Feeder>,
    pub watchers: Vec<Watcher>,
    pub links: BTreeMap<u64, Link>,
    pub last_link: u64,
    /// Connections into which the master may still send something.
    pub open_links: Vec<u64>,
    pub oracle: Oracle,
    pub history: History,
    pub healed: bool,
    /// How far the wall clock is set forward, in µs.
    pub wall_shift: i64,
    /// The latest time that the wall clock has shown, in µs since the play began.
    pub latest_wall: i64,
    over: bool,
}

impl World {
    pub fn new(seed: u64, planted: Option<Planted>, mode: HistoryMode) -> World {
        let mut chance = Chance::new(seed);
        let swarm = Swarm::drawn(&mut chance);
        let mut world = World {
            now: 0,
            queue: BTreeMap::new(),
            planned: 0,
            runners: (0..swarm.runners)
                .map(|i| Runner::new(i as usize, &mut chance))
                .collect(),
            feeders: (0..swarm.feeders)
                .map(|i| Feeder::new(i as usize, &swarm, &mut chance))
                .collect(),
            watchers: (0..swarm.watchers).map(|_| Watcher::default()).collect(),
            chance,
            swarm,
            planted,
            shelf: Arc::new(MemoryShelf::default()),
            free: AMPLE_BYTES,
            has_lacked_room: false,
            master: None,
            lives: 0,
            links: BTreeMap::new(),
            last_link: 0,
            open_links: Vec::new(),
            oracle: Oracle::default(),
            history: History::new(mode),
            healed: false,
            wall_shift: 0,
            latest_wall: 0,
            over: false,
        };
        world.oracle.steady = world.swarm.step_clock == 0;
        world.oracle.kept_from = 1;
        let swarm = format!("{:?}", world.swarm);
        world.note("swarm", || swarm);
        world.begin();
        world
    }

    fn begin(&mut self) {
        self.plan(0, Happening::MasterStarts);
        for runner in 0..self.runners.len() {
            let at = self.chance.within(0, 500 * MS);
            self.plan(at, Happening::RunnerStarts { runner });
        }
        for feeder in 0..self.feeders.len() {
            let at = self.chance.within(0, 500 * MS);
            self.plan(at, Happening::Feeds { feeder });
        }
        for watcher in 0..self.watchers.len() {
            self.dial(Client::Watcher(watcher), 0);
        }
        for (fault, _) in Fault::all(&self.swarm) {
            self.plan_fault(fault);
        }
        self.plan(self.swarm.heals, Happening::Heals);
    }

    /// Has something happen `after` µs from now.
    pub fn plan(&mut self, after: u64, happening: Happening) {
        self.planned += 1;
        self.queue
            .insert((self.now + after, self.planned), happening);
    }

    fn plan_fault(&mut self, fault: Fault) {
        let pause = Fault::all(&self.swarm)
            .iter()
            .find(|(is, _)| *is == fault)
            .map_or(0, |(_, pause)| *pause);
        if pause > 0 && !self.healed {
            let after = self.chance.within(1, 2 * pause);
            self.plan(after, Happening::Fault(fault));
        }
    }

    pub fn note(&mut self, what: &str, text: impl FnOnce() -> String) {
        self.history.note(self.now, what, text);
    }

    /// Plays to the end, or to the first broken promise.
    pub fn play(mut self) -> Result<Told, String> {
        while !self.over {
            let Some(((at, _), happening)) = self.queue.pop_first() else {
                return Err("nothing happens any more".into());
            };
            self.now = at;
            self.happens(happening);
            if let Some(broken) = self.oracle.broken.take() {
                self.note("BROKEN", || broken.clone());
                return Err(broken);
            }
        }
        Ok(Told {
            hash: self.history.hash(),
            lines: self.history.lines,
            tasks: self.oracle.durable.tasks.len(),
            starts: self.lives,
        })
    }

    fn happens(&mut self, happening: Happening) {
        // A stopped process does nothing until it wakes. Until then, messages wait in its sockets.
        if let Some(wakes) = self.asleep(&happening) {
            let after = wakes - self.now + self.chance.within(1, 2 * MS);
            return self.later(after, happening);
        }
        let life = self.master.as_ref().map_or(0, |master| master.life);
        match happening {
            Happening::Deliver { link, up } => self.deliver(link, up),
            Happening::Dialled { client, process } => self.dialled(client, process),
            Happening::Noticed { link, by_master } => self.noticed(link, by_master),
            Happening::Turn { life: of } if of == life => self.turn(),
            Happening::Write { life: of } if of == life => self.write(),
            Happening::Synced { life: of } if of == life => self.synced(),
            Happening::Fold { life: of } if of == life => self.fold(),
            Happening::Forget { life: of } if of == life => self.forget(),
            Happening::Turn { .. } | Happening::Write { .. } | Happening::Synced { .. } => {}
            Happening::Fold { .. } | Happening::Forget { .. } => {}
            Happening::Tick { runner, process } => self.runner_tick(runner, process),
            Happening::Ends {
                runner,
                process,
                attempt,
            } => self.attempt_ends(runner, process, attempt),
            Happening::RunnerStarts { runner } => self.runner_starts(runner),
            Happening::Feeds { feeder } => self.feeds(feeder),
            Happening::MasterStarts => self.master_starts(),
            Happening::Fault(fault) => {
                if !self.healed {
                    self.fault(fault);
                    self.plan_fault(fault);
                }
            }
            Happening::SpaceFreed => self.free_space(),
            Happening::Measures => self.measures(),
            Happening::Heals => self.heal(),
            Happening::Looks => self.look(),
        }
    }

    /// When the process wakes that this happens to, if the process is stopped now.
    fn asleep(&self, happening: &Happening) -> Option<u64> {
        let master = || self.master.as_ref().map(|master| master.asleep_until);
        let wakes = match happening {
            Happening::Turn { .. } | Happening::Write { .. } | Happening::Synced { .. } => master(),
            Happening::Fold { .. } | Happening::Forget { .. } | Happening::Dialled { .. } => {
                master()
            }
            Happening::Measures => master(),
            Happening::Deliver { up: true, .. }
            | Happening::Noticed {
                by_master: true, ..
            } => master(),
            Happening::Tick { runner, .. } | Happening::Ends { runner, .. } => {
                Some(self.runners[*runner].asleep_until)
            }
            Happening::Deliver { link, up: false } | Happening::Noticed { link, .. } => {
                self.runner_asleep_until(*link)
            }
            Happening::RunnerStarts { .. }
            | Happening::Feeds { .. }
            | Happening::MasterStarts
            | Happening::Fault(_)
            | Happening::SpaceFreed
            | Happening::Heals
            | Happening::Looks => None,
        };
        wakes.filter(|at| *at > self.now)
    }

    /// Plans something anew. Turns and ticks are known by their time, which changes with that.
    fn later(&mut self, after: u64, happening: Happening) {
        let at = self.now + after;
        match (&happening, &mut self.master) {
            (Happening::Turn { life }, Some(master))
                if master.life == *life && master.turn_at == Some(self.now) =>
            {
                master.turn_at = Some(at);
            }
            (Happening::Tick { runner, process }, _) => {
                let runner = &mut self.runners[*runner];
                if runner.process == *process && runner.tick_at == Some(self.now) {
                    runner.tick_at = Some(at);
                }
            }
            _ => {}
        }
        self.plan(after, happening);
    }

    fn fault(&mut self, fault: Fault) {
        self.note("fault", || format!("{fault:?}"));
        match fault {
            Fault::KillMaster => self.kill_master(false),
            Fault::PowerOff => self.kill_master(true),
            Fault::FailDisk => self.shelf.fail_syncs(true),
            Fault::KillRunner => {
                let runner = self.any_runner();
                self.kill_runner(runner);
            }
            Fault::DrainRunner => {
                let runner = self.any_runner();
                self.drain_runner(runner);
            }
            Fault::PauseRunner => {
                let runner = self.any_runner();
                self.runners[runner].asleep_until =
                    self.now + self.chance.spread(10 * MS, 14 * SECOND);
            }
            Fault::Cut => {
                if let Some(link) = self.any_link() {
                    self.cut(link);
                }
            }
            Fault::Stall => {
                if let Some(link) = self.any_link() {
                    self.stall(link);
                }
            }
            Fault::Abandon => {
                if let Some(link) = self.any_link() {
                    self.abandon(link);
                }
            }
            Fault::OneWay => {
                if let Some(link) = self.any_link() {
                    self.cut_one_way(link);
                }
            }
            Fault::TouchModule => self.touch_module(),
            Fault::PauseMaster => {
                let until = self.now + self.chance.spread(10 * MS, 14 * SECOND);
                if let Some(master) = &mut self.master {
                    master.asleep_until = until;
                }
            }
            Fault::StepClock => self.step_clock(),
            Fault::Prune => self.prune(),
            Fault::Trim => self.trim(),
            Fault::FillDisk => self.fill_disk(),
        }
    }

    fn any_runner(&mut self) -> usize {
        self.chance.below(self.runners.len() as u64) as usize
    }

    /// A connection that is not cut.
    fn any_link(&mut self) -> Option<u64> {
        let open: Vec<u64> = self
            .links
            .iter()
            .filter(|(_, link)| !link.cut)
            .map(|(no, _)| *no)
            .collect();
        self.chance.of(&open).copied()
    }

    /// The wall clock is set forward or back, by a little or by hours.
    fn step_clock(&mut self) {
        let most = if self.chance.permille(500) {
            3 * HOUR
        } else {
            10 * SECOND
        };
        let by = self.chance.spread(MS, most) as i64;
        self.wall_shift += if self.chance.permille(500) { by } else { -by };
        self.note("clock", || format!("{by} µs"));
    }

    /// Heals the world. From now on nothing goes wrong, and everything must come to its end.
    fn heal(&mut self) {
        self.healed = true;
        self.note("heals", String::new);
        self.shelf.fail_syncs(false);
        self.free_space();
        for link in self.links.values_mut() {
            link.stalled = [0, 0];
        }
        let stopped = self.runners.iter().map(|runner| runner.asleep_until);
        let stopped = stopped
            .chain(self.master.as_ref().map(|master| master.asleep_until))
            .max()
            .unwrap_or(0);
        // Time never runs backwards within a master. It goes on once the clock shows what it showed
        // last.
        self.plain_clock();
        self.wall_shift = self.latest_wall - self.now as i64;
        if self.master.is_none() {
            self.plan(MS, Happening::MasterStarts);
        }
        self.put_modules_back();
        for feeder in 0..self.feeders.len() {
            self.put_right(feeder);
            self.feeds_again(feeder);
        }
        self.oracle.healed_at = self.now.max(stopped);
        self.plan(SECOND, Happening::Looks);
    }

    /// Looks whether everything has come to its end.
    fn look(&mut self) {
        match self.unfinished() {
            None => {
                self.over = true;
                self.last_start();
            }
            Some(what) if self.now > self.oracle.healed_at + HEALED_US_MAX => {
                self.oracle.broken = Some(format!("long after all is healed, {what}"));
            }
            Some(_) => {
                // A request to pause was on its way for longer than the requests to resume.
                if self.oracle.is_anything_paused() {
                    (0..self.feeders.len()).for_each(|feeder| self.put_right(feeder));
                }
                self.plan(SECOND, Happening::Looks);
            }
        }
    }
}
