//! Random events from a seed, against a model of what a queue is. Nothing runs before its time,
//! twice at once, on a runner that does not suit, or beyond what a runner takes. The most urgent
//! task goes first. Every task ends once, as its attempts and dependencies say. When the world is
//! healed, everything ends.
//!
//! `SEEDS=100000` plays that many seeds. `SEED=17 cargo test --release -p taskmaster-core --test
//! random -- --nocapture` plays one seed and prints it.

#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a test fails by panicking, in its helpers too"
)]

mod harness;
#[path = "random/healing.rs"]
mod healing;
#[path = "random/judge.rs"]
mod judge;
#[path = "random/steps.rs"]
mod steps;

use harness::{World, module_name};
use std::collections::{BTreeMap, BTreeSet};
use taskmaster_core::{Event, RunnerKey};
use taskmaster_protocol::AttemptId;
use taskmaster_protocol::message::Offer;

/// Random numbers from a seed.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    /// A number below `limit`; 0 if that is 0.
    fn below(&mut self, limit: usize) -> usize {
        (self.next() >> 33) as usize % limit.max(1)
    }

    fn one_in(&mut self, n: usize) -> bool {
        self.below(n) == 0
    }

    fn of<'a, T>(&mut self, all: &'a [T]) -> Option<&'a T> {
        all.get(self.below(all.len()))
    }
}

/// The process of a runner, which outlives its connections.
#[derive(Clone, Default)]
struct Process {
    offer: Offer,
    credits: u32,
    draining: bool,
    /// The connection, unless the core was told that it is lost.
    connection: Option<RunnerKey>,
    /// Attempts that arrived here, in order, and have not ended.
    held: Vec<(String, AttemptId)>,
    /// Attempts that were sent, and are lost if the connection is lost now.
    on_the_way: Vec<(String, AttemptId)>,
}

struct Play {
    world: World,
    random: Random,
    processes: Vec<Process>,
    /// Every event and effect.
    log: Vec<String>,
    /// Whether the log is printed.
    loud: bool,
    /// The number of tasks that were named.
    names: usize,
    /// Runners that have joined since the master started.
    joined: BTreeSet<String>,
    /// Whether the master no longer waits for the runners of an earlier epoch.
    roster_wait_is_over: bool,
    /// Tasks that were sent since the turn began to end, each with the index of the process.
    sent: Vec<(String, usize)>,
}

const JOBS: [&str; 4] = ["j", "k", "l", "n"];
const MODULES: [&str; 2] = ["m", "o"];

impl Play {
    fn new(seed: u64, loud: bool) -> Play {
        let mut random = Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
        let processes = (0..1 + random.below(4))
            .map(|i| Play::process(i, &mut random))
            .collect();
        Play {
            world: World::new(),
            random,
            processes,
            log: Vec::new(),
            loud,
            names: 0,
            joined: BTreeSet::new(),
            roster_wait_is_over: true,
            sent: Vec::new(),
        }
    }

    fn process(i: usize, random: &mut Random) -> Process {
        let zone = ["x", "y"][random.below(2)].to_owned();
        let labels = if random.one_in(2) {
            BTreeMap::from([("zone".to_owned(), zone)])
        } else {
            BTreeMap::new()
        };
        let modules = if random.one_in(4) {
            vec![module_name(MODULES[0])]
        } else {
            Vec::new()
        };
        let slots = 1 + random.below(4) as u32;
        let offer = Offer {
            name: format!("r{i}"),
            slots,
            labels,
            modules,
            memory_mb: 500 * (1 + random.below(4) as u64),
            ..Offer::default()
        };
        Process {
            offer,
            credits: random.below(9) as u32,
            ..Process::default()
        }
    }

    /// Tells the core of an event, and judges the effects.
    fn event(&mut self, event: Event) {
        let shown = if self.loud {
            format!("{event:?}")
        } else {
            String::new()
        };
        let effects = self.world.event(event);
        self.judge(&shown, &effects);
    }

    /// Attempts that are on the way arrive.
    fn deliver(&mut self) {
        for process in self
            .processes
            .iter_mut()
            .filter(|process| process.connection.is_some())
        {
            process.held.append(&mut process.on_the_way);
        }
    }

    fn note(&mut self, line: String) {
        if self.loud {
            println!("{line}");
        }
        self.log.push(line);
    }
}

fn play(seed: u64, loud: bool) -> Vec<String> {
    let mut play = Play::new(seed, loud);
    let steps = 100 + play.random.below(300);
    (0..steps).for_each(|_| play.step());
    play.heal();
    play.log
}

#[test]
fn thousands_of_seeds_hold_against_the_model_and_end() {
    #[allow(
        clippy::disallowed_methods,
        reason = "the switch of a test, not of the core"
    )]
    let [one, many] = ["SEED", "SEEDS"].map(|name| {
        std::env::var(name)
            .ok()
            .and_then(|text| text.parse::<u64>().ok())
    });
    if let Some(seed) = one {
        play(seed, true);
        return;
    }
    for seed in 0..many.unwrap_or(1_500) {
        let played = std::panic::catch_unwind(|| play(seed, false));
        assert!(
            played.is_ok(),
            "seed {seed} failed: SEED={seed} cargo test --release -p taskmaster-core --test random -- --nocapture"
        );
    }
}

#[test]
fn the_same_seed_gives_the_same_effects() {
    for seed in 0..100 {
        assert_eq!(play(seed, false), play(seed, false), "seed {seed}");
    }
}
