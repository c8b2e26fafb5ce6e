//! Waiting for what must come, under a deadline.

use std::time::{Duration, Instant};

/// How long anything may take before the test gives up. Generous: machines are busy, and a test
/// that passes is quick.
pub const PATIENCE: Duration = Duration::from_secs(120);

/// Waits until `probe` gives something.
pub fn wait_for<T>(what: &str, mut probe: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(found) = probe() {
            return found;
        }
        assert!(
            start.elapsed() < PATIENCE,
            "waited {} s for {what}",
            PATIENCE.as_secs()
        );
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Waits until `probe` holds.
pub fn until(what: &str, mut probe: impl FnMut() -> bool) {
    wait_for(what, || probe().then_some(()));
}
