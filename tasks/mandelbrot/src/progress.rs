//! How far a task has come, told to the master in lines of its log.

use crate::report;

/// Writes a line each time another tenth is done: enough for a bar, and never a flood.
pub struct ProgressLog {
    total: usize,
    noun: &'static str,
    tenths: usize,
}

impl ProgressLog {
    pub fn new(total: usize, noun: &'static str) -> Self {
        Self {
            total: total.max(1),
            noun,
            tenths: 0,
        }
    }

    pub fn reached(&mut self, done: usize) {
        let tenths = done * 10 / self.total;
        if tenths > self.tenths {
            self.tenths = tenths;
            report(&format!(
                "::progress {} {done} of {} {}",
                tenths as f64 / 10.0,
                self.total,
                self.noun
            ));
        }
    }
}
