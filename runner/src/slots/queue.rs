//! The queue before the slots: first come, first served. An attempt that takes several slots waits
//! at the head until all of them are free.

use crate::sandbox::Work;
use std::collections::{HashSet, VecDeque};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use taskmaster_protocol::message::Attempt;

/// An attempt that needs nothing but free slots.
pub struct QueuedWork {
    /// The attempt.
    pub work: Work,
    /// How many slots it takes.
    pub slots: u32,
}

/// A queue with many consumers that counts free slots.
pub struct SlotQueue {
    state: Mutex<QueueState>,
    changed: Condvar,
    slots: u32,
}

struct QueueState {
    waiting: VecDeque<QueuedWork>,
    /// Slots that no attempt takes.
    free: u32,
    closed: bool,
}

impl QueueState {
    /// Takes the first attempt, if enough slots are free for it.
    fn take(&mut self) -> Option<QueuedWork> {
        if self.waiting.front()?.slots > self.free {
            return None;
        }
        let next = self.waiting.pop_front()?;
        self.free -= next.slots;
        Some(next)
    }
}

impl SlotQueue {
    /// An empty queue with `slots` free slots.
    pub fn new(slots: u32) -> SlotQueue {
        let state = QueueState {
            waiting: VecDeque::new(),
            free: slots,
            closed: false,
        };
        SlotQueue {
            state: Mutex::new(state),
            changed: Condvar::new(),
            slots,
        }
    }

    fn lock(&self) -> MutexGuard<'_, QueueState> {
        // Nothing between lock and unlock can panic.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds attempts to the end. An attempt that asks for more slots than there are takes all.
    pub fn push(&self, works: Vec<QueuedWork>) {
        let count = works.len();
        let slots_max = self.slots;
        let bounded = works.into_iter().map(|queued| QueuedWork {
            slots: queued.slots.clamp(1, slots_max),
            ..queued
        });
        self.lock().waiting.extend(bounded);
        if count == 1 {
            self.changed.notify_one()
        } else {
            self.changed.notify_all()
        }
    }

    /// Gives back `freed` slots and takes the next attempt, if it can start now.
    pub fn try_next(&self, freed: u32) -> Option<QueuedWork> {
        let mut state = self.lock();
        state.free += freed;
        if state.closed {
            return None;
        }
        let next = state.take();
        let others_can_start = state.free > 0 && !state.waiting.is_empty();
        drop(state);

        // Where several slots became free at once, only this thread knows of it.
        if freed > 1 && others_can_start {
            self.changed.notify_all();
        }
        next
    }

    /// Waits for the next attempt that can start. `None` means that the queue is closed.
    pub fn wait(&self) -> Option<QueuedWork> {
        let mut state = self.lock();
        loop {
            if state.closed {
                return None;
            }
            if let Some(next) = state.take() {
                return Some(next);
            }
            let waited = self.changed.wait(state);
            state = waited.unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Removes those of `attempts` that wait here, and names them.
    pub fn take_back(&self, attempts: &HashSet<Attempt>) -> Vec<Attempt> {
        let mut state = self.lock();
        let (taken, others): (VecDeque<QueuedWork>, _) = std::mem::take(&mut state.waiting)
            .into_iter()
            .partition(|queued| attempts.contains(&queued.work.attempt));
        state.waiting = others;
        drop(state);

        // What stood behind a large attempt may be able to start now.
        self.changed.notify_all();
        let attempts = taken.into_iter().map(|queued| queued.work.attempt);
        attempts.collect()
    }

    /// Lets every consumer go.
    pub fn close(&self) {
        self.lock().closed = true;
        self.changed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sandbox::{Program, Sandbox};
    use std::sync::Arc;
    use std::time::Duration;
    use taskmaster_protocol::{AttemptId, TaskId};

    fn name(id: &str) -> Attempt {
        Attempt {
            id: TaskId::new(id).unwrap(),
            attempt: AttemptId { epoch: 1, n: 1 },
        }
    }

    #[test]
    fn a_large_attempt_waits_at_the_head_and_can_be_taken_back() {
        let folder = tempfile::tempdir().unwrap();
        let sandbox = Sandbox::new(1, folder.path()).unwrap();
        let program =
            Arc::new(Program::compile(&sandbox, br#"(module (func (export "_start")))"#).unwrap());
        let ready = |id: &str, slots| {
            let work = Work {
                attempt: name(id),
                program: program.clone(),
                input: Default::default(),
                args: Vec::new(),
                env: Vec::new(),
                granted: Default::default(),
                timeout: Duration::from_secs(1),
                memory_mb: 1,
                files: Default::default(),
                stop: Arc::default(),
                listener: Arc::new(|_, _| {}),
            };
            QueuedWork { work, slots }
        };
        let id = |next: Option<QueuedWork>| next.map(|next| next.work.attempt.id.to_string());
        let queue = SlotQueue::new(2);
        queue.push(vec![
            ready("a", 1),
            ready("b", 9),
            ready("c", 1),
            ready("d", 1),
            ready("e", 1),
        ]);
        assert_eq!(id(queue.try_next(0)).as_deref(), Some("a"));
        assert_eq!(
            id(queue.try_next(0)),
            None,
            "b needs both slots, and c does not pass it"
        );
        assert_eq!(id(queue.try_next(1)).as_deref(), Some("b"));
        assert_eq!(id(queue.try_next(0)), None);
        assert_eq!(
            queue.take_back(&[name("c"), name("a")].into()),
            [name("c")],
            "a has begun"
        );
        assert_eq!(id(queue.try_next(2)).as_deref(), Some("d"));
        assert_eq!(id(queue.wait()).as_deref(), Some("e"));
        queue.close();
        assert_eq!(id(queue.wait()), None);
    }
}
