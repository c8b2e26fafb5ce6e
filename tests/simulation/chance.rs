//! What chance decides once for a whole history: how many there are and how often what goes wrong.

pub use taskmaster_harness::chance::Chance;

/// What this history is like. Rates are drawn once per seed, and some are none: a bug that needs
/// many restarts is not found in a world in which everything goes wrong at once.
#[derive(Debug)]
pub struct Swarm {
    pub runners: u64,
    pub feeders: u64,
    pub watchers: u64,
    /// Things a feeder does before it is done.
    pub actions: u64,
    /// Mean pauses between faults, µs; 0: never.
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
    /// When the faults end, µs.
    pub heals: u64,
    /// The longest of each, µs.
    pub latency: u64,
    pub sync: u64,
    pub run: u64,
    pub fold: u64,
    /// Ended tasks are kept so long at least, µs.
    pub kept: u64,
    /// Of a thousand attempts, those that fail.
    pub failing: u64,
    /// Of a thousand cuts, those that nobody is told of.
    pub silent: u64,
    /// Of a thousand wishes, those that are cancels and retries.
    pub wishes: u64,
    /// Of a thousand turns, those that take in all that has come; the others take one input, and
    /// the model says what must follow from it.
    pub draining: u64,
    /// Modules are taken out of the folder, too.
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
