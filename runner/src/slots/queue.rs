//! The queue before the slots: first come, first served; an attempt of k slots waits at its head
//! until k are free.

use super::Ready;
use std::collections::{HashSet, VecDeque};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use taskmaster_protocol::message::Attempt;

/// A queue with many consumers that knows how many slots are free.
pub struct Queue {
    inner: Mutex<Inner>,
    changed: Condvar,
    slots: u32,
}

struct Inner {
    waiting: VecDeque<Ready>,
    free: u32,
    closed: bool,
}

impl Inner {
    fn take(&mut self) -> Option<Ready> {
        if self.waiting.front()?.slots > self.free {
            return None;
        }
        let ready = self.waiting.pop_front()?;
        self.free -= ready.slots;
        Some(ready)
    }
}

impl Queue {
    /// Empty, with `slots` free.
    pub fn new(slots: u32) -> Queue {
        let inner = Inner {
            waiting: VecDeque::new(),
            free: slots,
            closed: false,
        };
        Queue {
            inner: Mutex::new(inner),
            changed: Condvar::new(),
            slots,
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // Nothing between lock and unlock can panic.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds to the end.
    pub fn push(&self, ready: Vec<Ready>) {
        let count = ready.len();
        let most = self.slots;
        let sized = ready.into_iter().map(|ready| Ready {
            slots: ready.slots.clamp(1, most),
            ..ready
        });
        self.lock().waiting.extend(sized);
        if count == 1 {
            self.changed.notify_one()
        } else {
            self.changed.notify_all()
        }
    }

    /// Gives back `freed` slots and takes the next attempt, if one can start now.
    pub fn try_next(&self, freed: u32) -> Option<Ready> {
        let mut inner = self.lock();
        inner.free += freed;
        if inner.closed {
            return None;
        }
        let next = inner.take();
        let more = inner.free > 0 && !inner.waiting.is_empty();
        drop(inner);
        // Several slots became free at once, and only this thread knows.
        if freed > 1 && more {
            self.changed.notify_all();
        }
        next
    }

    /// Waits for the next attempt that can start; `None` when the queue is closed.
    pub fn wait(&self) -> Option<Ready> {
        let mut inner = self.lock();
        loop {
            if inner.closed {
                return None;
            }
            if let Some(ready) = inner.take() {
                return Some(ready);
            }
            inner = self
                .changed
                .wait(inner)
                .unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Removes those of `attempts` that wait here.
    pub fn take_back(&self, attempts: &HashSet<Attempt>) -> Vec<Attempt> {
        let mut taken = Vec::new();
        let mut inner = self.lock();
        let (gone, kept) = std::mem::take(&mut inner.waiting)
            .into_iter()
            .partition(|ready| attempts.contains(&ready.work.attempt));
        inner.waiting = kept;
        drop(inner);
        let gone: VecDeque<Ready> = gone;
        taken.extend(gone.into_iter().map(|ready| ready.work.attempt));
        // What stood behind a large attempt may start now.
        self.changed.notify_all();
        taken
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
    use crate::sandbox::{Program, Sandbox, Work};
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
        let folder = std::env::temp_dir().join(format!(
            "taskmaster-queue-{}",
            uuid::Uuid::now_v7().simple()
        ));
        let sandbox = Sandbox::new(1, &folder).unwrap();
        let program =
            Arc::new(Program::compile(&sandbox, br#"(module (func (export "_start")))"#).unwrap());
        let ready = |id: &str, slots| {
            let (input, args, env, control) =
                (Default::default(), Vec::new(), Vec::new(), Arc::default());
            let (timeout, memory_mb, listener) =
                (Duration::from_secs(1), 1, Arc::new(|_: &_, _| {}));
            let work = Work {
                attempt: name(id),
                program: program.clone(),
                input,
                args,
                env,
                granted: Default::default(),
                timeout,
                memory_mb,
                files: Default::default(),
                control,
                listener,
            };
            Ready { work, slots }
        };
        let id = |ready: Option<Ready>| ready.map(|ready| ready.work.attempt.id.to_string());
        let queue = Queue::new(2);
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
        drop(sandbox);
        let _ = std::fs::remove_dir_all(&folder);
    }
}
