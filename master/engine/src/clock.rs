//! The one place that reads clocks.

use std::sync::OnceLock;
use std::time::{Instant, SystemTime, UNIX_EPOCH};
use taskmaster_protocol::{Now, Wall};

/// The time: monotonic since this process first asked, and by the wall.
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
