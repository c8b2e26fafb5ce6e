//! Random numbers from a seed.

/// Random numbers by xorshift64*, which is small and good enough for faults.
#[derive(Debug)]
pub struct Chance(u64);

impl Chance {
    pub fn new(seed: u64) -> Chance {
        let mut chance = Chance(seed.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
        (0..4).for_each(|_| _ = chance.draw());
        chance
    }

    pub fn draw(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    /// A number in `0..n`; 0 if `n` is 0.
    pub fn below(&mut self, n: u64) -> u64 {
        (self.draw() >> 24) % n.max(1)
    }

    /// A number in `low..=high`.
    pub fn within(&mut self, low: u64, high: u64) -> u64 {
        low + self.below(high - low + 1)
    }

    /// True `n` times in a thousand.
    pub fn permille(&mut self, n: u64) -> bool {
        self.below(1_000) < n
    }

    pub fn of<'a, T>(&mut self, all: &'a [T]) -> Option<&'a T> {
        all.get(self.below(all.len() as u64) as usize)
    }

    /// A number in `low..=high`, of which each order of magnitude is as likely as the next: most are
    /// small, and some are very large.
    pub fn spread(&mut self, low: u64, high: u64) -> u64 {
        let scale = (high / low.max(1)).max(1).ilog2() + 1;
        let ceiling = low << self.below(u64::from(scale) + 1);
        self.within(low, ceiling.clamp(low, high))
    }
}
