//! What is decided at random once for a whole history: how many clients there are, and how often
//! what goes wrong.

pub use taskmaster_harness::chance::Chance;

/// What a history is like. Rates are drawn once per seed, and some are zero, because a bug that
/// needs many restarts is not found in a world in which everything goes wrong at once. All times are
/// in µs. The history begins with this value as text, so names of fields are part of its hash.
#[derive(Debug)]
pub struct Swarm {
    pub runners: u64,
    pub feeders: u64,
    pub watchers: u64,
    /// How many things a feeder does before it is done.
    pub actions: u64,
    /// The pause between two faults of a kind, on average; 0 if the fault never happens.
    pub kill_master: u64,
    pub power_off: u64,
    pub fail_disk: u64,
    pub kill_runner: u64,
    pub drain_runner: u64,
    pub cut: u64,
    pub stall: u64,
    pub touch_module: u64,
    pub pause_master: u64,
    pub pause_runner: u64,
    pub step_clock: u64,
    pub abandon: u64,
    pub one_way: u64,
    pub prune: u64,
    pub trim: u64,
    pub fill_disk: u64,
    /// When the faults end.
    pub heals: u64,
    /// The longest time that a message is on its way.
    pub latency: u64,
    /// The longest time that a sync of the disk takes.
    pub sync: u64,
    /// The longest time that an attempt runs.
    pub run: u64,
    /// The longest pause before the fold goes on.
    pub fold: u64,
    /// How long the engine remembers ended tasks.
    pub kept: u64,
    /// How many of a thousand attempts fail.
    pub failing: u64,
    /// How many of a thousand attempts meet a fault of their runner's machine.
    pub sickening: u64,
    /// How many of a thousand cuts are noticed only by silence.
    pub silent: u64,
    /// How many of a thousand things that a feeder does are not an add, but a cancel, a retry, or
    /// another operation.
    pub wishes: u64,
    /// How many of a thousand turns take in everything that has come. The others take in one input,
    /// and the model says what must follow from it.
    pub draining: u64,
    /// Whether modules are also taken out of the folder.
    pub removing: bool,
}

impl Swarm {
    pub fn drawn(chance: &mut Chance) -> Swarm {
        let rate = |chance: &mut Chance, often: u64| match chance.below(3) {
            0 => 0,
            1 => often,
            _ => often * 4,
        };
        Swarm {
            runners: chance.within(1, 4),
            feeders: chance.within(1, 3),
            watchers: chance.below(3),
            actions: chance.spread(8, 40),
            kill_master: rate(chance, 600_000),
            power_off: rate(chance, 600_000),
            fail_disk: rate(chance, 2_000_000),
            kill_runner: rate(chance, 700_000),
            drain_runner: rate(chance, 2_000_000),
            cut: rate(chance, 200_000),
            stall: rate(chance, 300_000),
            touch_module: rate(chance, 1_000_000),
            pause_master: rate(chance, 2_000_000),
            pause_runner: rate(chance, 1_000_000),
            step_clock: rate(chance, 700_000),
            abandon: rate(chance, 400_000),
            one_way: rate(chance, 1_000_000),
            prune: rate(chance, 200_000),
            trim: rate(chance, 1_000_000),
            fill_disk: rate(chance, 1_500_000),
            heals: chance.spread(1_000_000, 20_000_000),
            latency: chance.spread(200, 20_000),
            sync: if chance.permille(50) {
                3_000_000
            } else {
                chance.spread(200, 40_000)
            },
            run: chance.spread(1_000, 2_000_000),
            fold: chance.spread(1_000, 1_000_000),
            kept: if chance.permille(500) {
                3_600_000_000
            } else {
                chance.spread(10_000, 5_000_000)
            },
            failing: chance.within(0, 300),
            sickening: if chance.permille(300) {
                chance.within(1, 50)
            } else {
                0
            },
            silent: if chance.permille(300) {
                chance.within(0, 1_000)
            } else {
                0
            },
            wishes: chance.within(0, 400),
            draining: if chance.permille(500) {
                0
            } else {
                chance.within(0, 1_000)
            },
            removing: chance.permille(250),
        }
    }
}
