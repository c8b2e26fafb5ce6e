//! Which batches of new tasks may go to the engine, when there are more than it can take in. Few
//! wait in its queue, so nobody waits behind a crowd for long.
//!
//! Large batches take turns, one of each session, in the order in which they came. While many
//! sessions wait, fewer batches are admitted at once. What is taken in is bounded by the cores and
//! not by how much is under way, so an urgent task finds a free core at each step. A small batch of
//! a session that has hardly anything else under way passes them, because some permits are kept for
//! small batches.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use taskmaster_engine::inbox::AdmissionPermit;
use taskmaster_protocol::limits;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Tasks of large batches that are not durable yet. Everybody else's messages wait behind them, in
/// the engine's queue or for the commit before their own.
const BULK_TASKS: usize = 4_096;

/// Tasks of large batches that are not durable yet while a crowd waits: one batch of a feed, or
/// several small ones.
const BULK_TASKS_OF_CROWD: usize = 256;

/// More waiting large batches than this are a crowd. A session has one at most.
const CROWD: usize = 4;

/// Tasks of small batches that are under way besides the large ones.
const EXPRESS_TASKS: usize = limits::BATCH_TASKS_MAX;

/// Tasks in a small batch, at most.
const SMALL_TASKS: usize = 16;

/// Bytes that count as one task, so that what waits is bounded in memory, too.
const BYTES_PER_TASK: usize = 4 << 10;

/// Admits batches to the engine. Clones share it.
#[derive(Debug, Clone)]
pub(super) struct Admission {
    bulk: Arc<Semaphore>,
    express: Arc<Semaphore>,
    /// Large batches that wait.
    waiting: Arc<AtomicUsize>,
}

/// A large batch that waits. It does so until this is dropped, because its session may end
/// meanwhile.
struct WaitingBatch<'a>(&'a AtomicUsize);

impl Drop for WaitingBatch<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Relaxed);
    }
}

impl Default for Admission {
    fn default() -> Admission {
        Admission {
            bulk: Arc::new(Semaphore::new(BULK_TASKS)),
            express: Arc::new(Semaphore::new(EXPRESS_TASKS)),
            waiting: Arc::default(),
        }
    }
}

impl Admission {
    /// Waits until a batch may go to the engine. `is_alone` says that its session has hardly
    /// another batch without an answer.
    pub(super) async fn enter(
        &self,
        tasks: usize,
        bytes: usize,
        is_alone: bool,
    ) -> Option<AdmissionPermit> {
        let weight = tasks.max(bytes / BYTES_PER_TASK).clamp(1, BULK_TASKS);
        if is_alone && weight <= SMALL_TASKS {
            return acquire(&self.express, weight)
                .await
                .map(AdmissionPermit::Express);
        }
        let waiting_before = self.waiting.fetch_add(1, Relaxed);
        let _waiting = WaitingBatch(&self.waiting);
        let weight = if waiting_before < CROWD {
            weight
        } else {
            (weight * (BULK_TASKS / BULK_TASKS_OF_CROWD)).min(BULK_TASKS)
        };
        acquire(&self.bulk, weight).await.map(AdmissionPermit::Bulk)
    }
}

/// Waits for `weight` permits. The semaphores are never closed.
async fn acquire(semaphore: &Arc<Semaphore>, weight: usize) -> Option<OwnedSemaphorePermit> {
    let weight = u32::try_from(weight).unwrap_or(u32::MAX);
    semaphore.clone().acquire_many_owned(weight).await.ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;
    use tokio::time::timeout;

    const SOON: Duration = Duration::from_millis(50);

    #[tokio::test]
    async fn a_small_batch_goes_past_a_crowd_and_the_crowd_takes_turns() {
        let admission = Admission::default();
        let is_admitted = async |tasks, bytes, is_alone| {
            timeout(SOON, admission.enter(tasks, bytes, is_alone))
                .await
                .is_ok()
        };
        let mut crowd = Vec::new();
        for _ in 0..2 {
            crowd.push(admission.enter(BULK_TASKS / 2, 0, false).await);
        }
        assert!(!is_admitted(1_000, 0, true).await, "the queue is full");
        assert!(
            !is_admitted(1, 1 << 20, true).await,
            "a large one is not small"
        );
        assert!(
            !is_admitted(1, 0, false).await,
            "it would pass its own session"
        );
        assert!(is_admitted(1, 100, true).await);
        crowd.pop();
        assert!(is_admitted(1_000, 0, false).await);
        assert!(
            !is_admitted(1, usize::MAX, false).await,
            "never more than all"
        );
        crowd.clear();
        assert!(is_admitted(1, usize::MAX, false).await);
    }

    #[tokio::test]
    async fn of_a_crowd_one_batch_is_on_its_way_at_a_time() {
        let admission = Admission::default();
        let full = admission.enter(BULK_TASKS, 0, false).await;
        let (tell, mut told) = tokio::sync::mpsc::unbounded_channel();
        for _ in 0..3 * CROWD {
            let admission = admission.clone();
            let tell = tell.clone();
            tokio::spawn(
                async move { tell.send(admission.enter(BULK_TASKS_OF_CROWD, 0, false).await) },
            );
        }
        tokio::time::sleep(SOON).await;
        drop(full);
        // The first of them came before there was a crowd.
        let before_crowd = [
            told.recv().await,
            told.recv().await,
            told.recv().await,
            told.recv().await,
        ];
        drop(before_crowd);
        let one = told.recv().await;
        assert!(timeout(SOON, told.recv()).await.is_err());
        drop(one);
        assert!(told.recv().await.is_some());
    }
}
