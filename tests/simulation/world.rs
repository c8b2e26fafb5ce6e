//! The whole cluster in one thread: what happens when. First with faults, then healed, until all is done.

use crate::chance::{Chance, Swarm};
use crate::feeders::Feeder;
use crate::history::History;
use crate::master::Master;
use crate::network::{Client, Link};
use crate::oracle::Oracle;
use crate::planted::Planted;
use crate::runners::Runner;
use std::collections::BTreeMap;
use std::sync::Arc;
use taskmaster_master::store::memory::MemoryShelf;
use taskmaster_protocol::message::Attempt;

pub const MS: u64 = 1_000;
pub const SECOND: u64 = 1_000_000;

/// How long everything may take once the world is healed, µs: a hold without its feeder lasts for a minute.
const HEALED: u64 = 240 * SECOND;

#[derive(Debug, Clone)]
pub enum Happening {
    Deliver { link: u64, up: bool },
    Dialled { client: Client, process: u32 },
    Noticed { link: u64, by_master: bool },
    Turn { life: u32 },
    Write { life: u32 },
    Synced { life: u32 },
    Fold { life: u32 },
    Tick { runner: usize, process: u32 },
    Ends { runner: usize, process: u32, attempt: Attempt },
    RunnerStarts { runner: usize },
    Feeds { feeder: usize },
    MasterStarts,
    Fault(Fault),
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
}

/// What a history was, when it is over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Told {
    pub hash: u64,
    pub lines: u64,
    pub tasks: usize,
    pub starts: u32,
}

pub struct World {
    pub now: u64,
    queue: BTreeMap<(u64, u64), Happening>,
    planned: u64,
    pub chance: Chance,
    pub swarm: Swarm,
    pub planted: Option<Planted>,
    pub shelf: Arc<MemoryShelf>,
    pub master: Option<Master>,
    pub lives: u32,
    pub runners: Vec<Runner>,
    pub feeders: Vec<Feeder>,
    pub links: BTreeMap<u64, Link>,
    pub last_link: u64,
    pub oracle: Oracle,
    pub history: History,
    pub healed: bool,
    over: bool,
}

impl World {
    pub fn new(seed: u64, planted: Option<Planted>, loud: bool) -> World {
        let mut chance = Chance::new(seed);
        let swarm = Swarm::drawn(&mut chance);
        let mut world = World {
            now: 0,
            queue: BTreeMap::new(),
            planned: 0,
            runners: (0..swarm.runners).map(|i| Runner::new(i as usize, &mut chance)).collect(),
            feeders: (0..swarm.feeders).map(|i| Feeder::new(i as usize, &swarm, &mut chance)).collect(),
            chance,
            swarm,
            planted,
            shelf: Arc::new(MemoryShelf::default()),
            master: None,
            lives: 0,
            links: BTreeMap::new(),
            last_link: 0,
            oracle: Oracle::default(),
            history: History::new(loud),
            healed: false,
            over: false,
        };
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
        use Fault::*;
        for fault in [KillMaster, PowerOff, FailDisk, KillRunner, DrainRunner, Cut, Stall, TouchModule] {
            self.plan_fault(fault);
        }
        let at = self.chance.within(SECOND, 5 * SECOND);
        self.plan(at, Happening::Heals);
    }

    /// Has something happen `after` µs.
    pub fn plan(&mut self, after: u64, happening: Happening) {
        self.planned += 1;
        self.queue.insert((self.now + after, self.planned), happening);
    }

    fn plan_fault(&mut self, fault: Fault) {
        let pause = match fault {
            Fault::KillMaster => self.swarm.kill_master,
            Fault::PowerOff => self.swarm.power_off,
            Fault::FailDisk => self.swarm.fail_disk,
            Fault::KillRunner => self.swarm.kill_runner,
            Fault::DrainRunner => self.swarm.drain_runner,
            Fault::Cut => self.swarm.cut,
            Fault::Stall => self.swarm.stall,
            Fault::TouchModule => self.swarm.touch_module,
        };
        if pause > 0 && !self.healed {
            let after = self.chance.within(1, 2 * pause);
            self.plan(after, Happening::Fault(fault));
        }
    }

    pub fn note(&mut self, what: &str, text: impl FnOnce() -> String) {
        let text = text();
        self.history.note(self.now, what, &text);
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
        let (hash, lines, tasks) = (self.history.hash(), self.history.lines, self.oracle.durable.tasks.len());
        Ok(Told { hash, lines, tasks, starts: self.lives })
    }

    fn happens(&mut self, happening: Happening) {
        let life = self.master.as_ref().map_or(0, |master| master.life);
        match happening {
            Happening::Deliver { link, up } => self.deliver(link, up),
            Happening::Dialled { client, process } => self.dialled(client, process),
            Happening::Noticed { link, by_master } => self.noticed(link, by_master),
            Happening::Turn { life: of } if of == life => self.turn(),
            Happening::Write { life: of } if of == life => self.write(),
            Happening::Synced { life: of } if of == life => self.synced(),
            Happening::Fold { life: of } if of == life => self.fold(),
            Happening::Turn { .. } | Happening::Write { .. } | Happening::Synced { .. } | Happening::Fold { .. } => {}
            Happening::Tick { runner, process } => self.runner_tick(runner, process),
            Happening::Ends { runner, process, attempt } => self.attempt_ends(runner, process, attempt),
            Happening::RunnerStarts { runner } => self.runner_starts(runner),
            Happening::Feeds { feeder } => self.feeds(feeder),
            Happening::MasterStarts => self.master_starts(),
            Happening::Fault(fault) => {
                if !self.healed {
                    self.fault(fault);
                    self.plan_fault(fault);
                }
            }
            Happening::Heals => self.heal(),
            Happening::Looks => self.look(),
        }
    }

    fn fault(&mut self, fault: Fault) {
        self.note("fault", || format!("{fault:?}"));
        match fault {
            Fault::KillMaster => self.kill_master(false),
            Fault::PowerOff => self.kill_master(true),
            Fault::FailDisk => self.shelf.fail_syncs(true),
            Fault::KillRunner | Fault::DrainRunner => {
                let runner = self.chance.below(self.runners.len() as u64) as usize;
                if fault == Fault::KillRunner { self.kill_runner(runner) } else { self.drain_runner(runner) }
            }
            Fault::Cut | Fault::Stall => {
                let open: Vec<u64> = self.links.iter().filter(|(_, link)| !link.cut).map(|(no, _)| *no).collect();
                let Some(link) = self.chance.of(&open).copied() else { return };
                if fault == Fault::Cut { self.cut(link) } else { self.stall(link) }
            }
            Fault::TouchModule => self.touch_module(),
        }
    }

    /// From now on nothing goes wrong, and everything must come to its end.
    fn heal(&mut self) {
        self.healed = true;
        self.note("heals", String::new);
        self.shelf.fail_syncs(false);
        for link in self.links.values_mut() {
            link.stalled = [0, 0];
        }
        if self.master.is_none() {
            self.plan(MS, Happening::MasterStarts);
        }
        for feeder in 0..self.feeders.len() {
            self.put_right(feeder);
        }
        self.oracle.healed_at = self.now;
        self.plan(SECOND, Happening::Looks);
    }

    /// Whether all has come to its end.
    fn look(&mut self) {
        match self.unfinished() {
            None => {
                self.over = true;
                self.last_start();
            }
            Some(what) if self.now > self.oracle.healed_at + HEALED => {
                self.oracle.broken = Some(format!("long after all is healed, {what}"));
            }
            Some(_) => self.plan(SECOND, Happening::Looks),
        }
    }
}
