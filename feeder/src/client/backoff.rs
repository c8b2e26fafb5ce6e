//! Pauses between tries to connect.

use std::time::Duration;
use tokio::time::Instant;

/// The pause before the second try.
const FIRST: Duration = Duration::from_millis(50);

/// The longest pause: a master that is back is found within a second.
const MAX: Duration = Duration::from_secs(1);

/// Pauses between tries: 50 ms at first, then twice the one before, up to 1 s.
pub(crate) struct Backoff {
    next: Duration,
}

impl Backoff {
    pub(crate) fn new() -> Backoff {
        Backoff { next: FIRST }
    }

    /// Waits for the next pause, but not beyond `end`.
    pub(crate) async fn wait(&mut self, end: Option<Instant>) {
        let full = Instant::now() + self.next;
        self.next = (self.next * 2).min(MAX);
        tokio::time::sleep_until(end.map_or(full, |end| end.min(full))).await;
    }
}
