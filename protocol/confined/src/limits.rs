//! What a process may take.

use std::time::Duration;

/// The wall clock may run so many times longer than the processor time that a process has: other
/// processes want the processors, too. Only what waits for ever is ended by this.
const CLOCK_TIMES: u32 = 10;

/// What a process may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ProcessLimits {
    /// Bytes of memory that the process may write to.
    pub memory_bytes: u64,
    /// Seconds that the process may compute, over all of its threads.
    pub processor_s: u64,
    /// Bytes that the process may answer.
    pub output_bytes: usize,
}

impl ProcessLimits {
    /// How long the process may live.
    pub(crate) fn clock(&self) -> Duration {
        Duration::from_secs(self.processor_s).saturating_mul(CLOCK_TIMES)
    }
}
