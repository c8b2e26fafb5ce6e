//! Who may tell the engine of new tasks, when there are more than it can take in: so few wait in
//! its queue that nobody waits behind a crowd for long.
//!
//! Large batches take turns, in the order in which they came, one for each session. When a crowd
//! waits, fewer of them are on their way at once: what is taken in is bounded by the cores, not by
//! how much is in the pipe, and whoever is urgent finds a core free at each step. A small batch of
//! a session that has hardly anything else on its way goes past them: there is room kept for it.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use taskmaster_engine::inbox::Pass;
use taskmaster_protocol::limits;
use tokio::sync::Semaphore;

/// Tasks of large batches that are not durable yet. Whoever else has something to say waits behind
/// them, in the engine's queue or for the commit before its own.
const BULK: usize = 4_096;

/// The same, when a crowd waits: one batch of a feed, or several small ones.
const BULK_OF_A_CROWD: usize = 256;

/// More sessions than this, each with a large batch that is waiting, are a crowd.
const CROWD: usize = 4;

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
    /// Sessions with a large batch that waits.
    waiting: Arc<AtomicUsize>,
}

/// One of those that wait, until it is dropped: a session may end meanwhile.
struct Waits<'a>(&'a AtomicUsize);

impl Drop for Waits<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Relaxed);
    }
}

impl Default for Intake {
    fn default() -> Intake {
        let (bulk, express) = (Semaphore::new(BULK), Semaphore::new(EXPRESS));
        Intake {
            bulk: Arc::new(bulk),
            express: Arc::new(express),
            waiting: Arc::default(),
        }
    }
}

impl Intake {
    /// Waits until a batch may go on. `alone`: its session has hardly another without an answer.
    pub(super) async fn enter(&self, tasks: usize, bytes: usize, alone: bool) -> Option<Pass> {
        let weight = tasks.max(bytes / BYTES).clamp(1, BULK);
        let room = |way: &Arc<Semaphore>, weight| {
            way.clone()
                .acquire_many_owned(u32::try_from(weight).unwrap_or(u32::MAX))
        };
        // The semaphores are never closed.
        if alone && weight <= SMALL {
            return Some(Pass::Express(room(&self.express, weight).await.ok()?));
        }
        let before = self.waiting.fetch_add(1, Relaxed);
        let _waits = Waits(&self.waiting);
        let weight = if before < CROWD {
            weight
        } else {
            (weight * (BULK / BULK_OF_A_CROWD)).min(BULK)
        };
        Some(Pass::Bulk(room(&self.bulk, weight).await.ok()?))
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
        assert!(
            tokio::time::timeout(soon, intake.enter(1_000, 0, true))
                .await
                .is_err(),
            "the queue is full"
        );
        assert!(
            tokio::time::timeout(soon, intake.enter(1, 1 << 20, true))
                .await
                .is_err(),
            "a large one is not small"
        );
        assert!(
            tokio::time::timeout(soon, intake.enter(1, 0, false))
                .await
                .is_err(),
            "it would pass its own session"
        );
        assert!(
            tokio::time::timeout(soon, intake.enter(1, 100, true))
                .await
                .is_ok()
        );
        crowd.pop();
        assert!(
            tokio::time::timeout(soon, intake.enter(1_000, 0, false))
                .await
                .is_ok()
        );
        assert!(
            tokio::time::timeout(soon, intake.enter(1, usize::MAX, false))
                .await
                .is_err(),
            "never more than all"
        );
        crowd.clear();
        assert!(
            tokio::time::timeout(soon, intake.enter(1, usize::MAX, false))
                .await
                .is_ok()
        );
    }

    #[tokio::test]
    async fn of_a_crowd_one_batch_is_on_its_way_at_a_time() {
        let intake = Intake::default();
        let full = intake.enter(BULK, 0, false).await;
        let (tell, mut told) = tokio::sync::mpsc::unbounded_channel();
        for _ in 0..3 * CROWD {
            let (intake, tell) = (intake.clone(), tell.clone());
            tokio::spawn(async move { tell.send(intake.enter(BULK_OF_A_CROWD, 0, false).await) });
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
        drop(full);
        // The first of them came before there was a crowd.
        let few: Vec<_> = [
            told.recv().await,
            told.recv().await,
            told.recv().await,
            told.recv().await,
        ]
        .into();
        drop(few);
        let one = told.recv().await;
        assert!(
            tokio::time::timeout(Duration::from_millis(50), told.recv())
                .await
                .is_err()
        );
        drop(one);
        assert!(told.recv().await.is_some());
    }
}
