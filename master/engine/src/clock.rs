//! Reads the clocks of the machine. No other file of this crate does.

#![expect(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "the other files of this crate ask this one for the time"
)]

use std::sync::OnceLock;
use std::time::{Instant, SystemTime, UNIX_EPOCH};
use taskmaster_protocol::{Now, Wall};

/// The time: monotonic since the first call in this process, and by the wall clock.
pub fn now() -> Now {
    static START: OnceLock<Instant> = OnceLock::new();
    let mono_us = START.get_or_init(Instant::now).elapsed().as_micros();
    let wall = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_micros());
    Now {
        mono_us: u64::try_from(mono_us).unwrap_or(u64::MAX),
        wall: Wall(i64::try_from(wall).unwrap_or(i64::MAX)),
    }
}
