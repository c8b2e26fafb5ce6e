//! Who may tell the engine of new tasks, when there are more than it can take in: so few wait in its queue that nobody
//! waits behind a crowd for long.
//!
//! Large batches take turns, in the order in which they came, one for each session. A small batch of a session that has
//! nothing else on its way goes past them: there is room kept for it, and whoever adds one urgent task does not stand
//! behind a hundred feeds.

use std::sync::Arc;
use taskmaster_protocol::limits;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Tasks of large batches that the engine has not taken in yet: two batches of a feed, so that it never waits for the next
/// one. Whoever else has something to say waits behind them.
const BULK: usize = 2_048;

/// Tasks of small batches, beside them.
const EXPRESS: usize = limits::BATCH_TASKS_MAX;

/// A batch of no more tasks is small.
const SMALL: usize = 16;

/// So many bytes count as a task: what waits is bounded in memory, too.
const BYTES: usize = 4 << 10;

/// The way in. Clones share it.
#[derive(Debug, Clone)]
pub(super) struct Intake {
    bulk: Arc<Semaphore>,
    express: Arc<Semaphore>,
}

impl Default for Intake {
    fn default() -> Intake {
        Intake { bulk: Arc::new(Semaphore::new(BULK)), express: Arc::new(Semaphore::new(EXPRESS)) }
    }
}

impl Intake {
    /// Waits until a batch may go on. `alone`: its session has no other without an answer. The room is free again when
    /// what is given back is dropped.
    pub(super) async fn enter(&self, tasks: usize, bytes: usize, alone: bool) -> Option<OwnedSemaphorePermit> {
        let weight = tasks.max(bytes / BYTES).clamp(1, BULK);
        let way = if alone && weight <= SMALL { &self.express } else { &self.bulk };
        // The semaphores are never closed.
        way.clone().acquire_many_owned(u32::try_from(weight).unwrap_or(u32::MAX)).await.ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[tokio::test]
    async fn a_small_batch_goes_past_a_crowd_and_the_crowd_takes_turns() {
        let intake = Intake::default();
        let mut crowd = Vec::new();
        for _ in 0..2 {
            crowd.push(intake.enter(BULK / 2, 0, false).await);
        }
        let soon = Duration::from_millis(50);
        assert!(tokio::time::timeout(soon, intake.enter(1_000, 0, true)).await.is_err(), "the queue is full");
        assert!(tokio::time::timeout(soon, intake.enter(1, 1 << 20, true)).await.is_err(), "a large one is not small");
        assert!(tokio::time::timeout(soon, intake.enter(1, 0, false)).await.is_err(), "it would pass its own session");
        assert!(tokio::time::timeout(soon, intake.enter(1, 100, true)).await.is_ok());
        crowd.pop();
        assert!(tokio::time::timeout(soon, intake.enter(1_000, 0, false)).await.is_ok());
        assert!(tokio::time::timeout(soon, intake.enter(1, usize::MAX, false)).await.is_err(), "never more than all");
        crowd.clear();
        assert!(tokio::time::timeout(soon, intake.enter(1, usize::MAX, false)).await.is_ok());
    }
}
