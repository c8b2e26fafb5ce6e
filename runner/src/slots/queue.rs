//! The queue before the slots: first come, first served. An attempt that takes several slots waits
//! at the head until all of them are free, and one that may take much memory until it has room beside
//! the others.

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

/// The number of a slot's thread, counted from 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SlotNumber(pub usize);

/// What an attempt takes of its runner while it is at work.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Room {
    /// Slots.
    pub slots: u32,
    /// The most memory, in MiB.
    pub memory_mb: u64,
}

impl QueuedWork {
    /// What the attempt takes while it is at work.
    pub fn room(&self) -> Room {
        Room {
            slots: self.slots,
            memory_mb: u64::from(self.work.memory_mb),
        }
    }
}

/// A queue with many consumers that counts the room which attempts at work take.
pub struct SlotQueue {
    state: Mutex<QueueState>,
    changed: Condvar,
    /// All the room that there is.
    offered: Room,
}

#[derive(Default)]
struct QueueState {
    waiting: VecDeque<QueuedWork>,
    /// What the attempts at work take.
    used: Room,
    closed: bool,
}

impl QueueState {
    /// Whether the first attempt can start. If nothing is at work any attempt can, since it may take
    /// less memory than its limit.
    fn first_fits(&self, offered: Room) -> bool {
        let Some(first) = self.waiting.front() else {
            return false;
        };
        let with_first = self.used + first.room();
        let has_memory = self.used.slots == 0 || with_first.memory_mb <= offered.memory_mb;
        with_first.slots <= offered.slots && has_memory
    }

    /// Takes the first attempt, if it can start.
    fn take(&mut self, offered: Room) -> Option<QueuedWork> {
        if !self.first_fits(offered) {
            return None;
        }
        let next = self.waiting.pop_front()?;
        self.used = self.used + next.room();
        Some(next)
    }
}

impl std::ops::Add for Room {
    type Output = Room;

    fn add(self, other: Room) -> Room {
        Room {
            slots: self.slots + other.slots,
            memory_mb: self.memory_mb + other.memory_mb,
        }
    }
}

impl std::ops::Sub for Room {
    type Output = Room;

    fn sub(self, other: Room) -> Room {
        Room {
            slots: self.slots - other.slots,
            memory_mb: self.memory_mb - other.memory_mb,
        }
    }
}

impl SlotQueue {
    /// An empty queue before room that nobody takes.
    pub fn new(offered: Room) -> SlotQueue {
        SlotQueue {
            state: Mutex::default(),
            changed: Condvar::new(),
            offered,
        }
    }

    fn lock(&self) -> MutexGuard<'_, QueueState> {
        // Nothing between lock and unlock can panic.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds attempts to the end. An attempt that asks for more slots than there are takes all.
    pub fn push(&self, works: Vec<QueuedWork>) {
        let count = works.len();
        let slots_max = self.offered.slots;
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

    /// Gives back what an attempt took that has ended, and takes the next one, if it can start now.
    pub fn try_next(&self, freed: Room) -> Option<QueuedWork> {
        let mut state = self.lock();
        state.used = state.used - freed;
        if state.closed {
            return None;
        }
        let next = state.take(self.offered);
        let others_can_start = state.first_fits(self.offered);
        drop(state);

        // Where room for several attempts became free at once, only this thread knows of it.
        if others_can_start {
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
            if let Some(next) = state.take(self.offered) {
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

    const NOTHING: Room = Room {
        slots: 0,
        memory_mb: 0,
    };

    fn room(slots: u32, memory_mb: u64) -> Room {
        Room { slots, memory_mb }
    }

    /// A queue of attempts, each with the room that it takes.
    fn queue(offered: Room, attempts: &[(&str, Room)]) -> SlotQueue {
        let folder = tempfile::tempdir().unwrap();
        let sandbox = Sandbox::new(1, folder.path()).unwrap();
        let module = br#"(module (func (export "_start")))"#;
        let program = Arc::new(Program::compile(&sandbox, module).unwrap());
        let work = |id: &str, memory_mb| Work {
            attempt: name(id),
            program: program.clone(),
            input: Default::default(),
            args: Vec::new(),
            env: Vec::new(),
            granted: Default::default(),
            timeout: Duration::from_secs(1),
            memory_mb,
            files: Default::default(),
            stop: Arc::default(),
            listener: Arc::new(|_, _| {}),
        };
        let queue = SlotQueue::new(offered);
        let works = attempts.iter().map(|(id, takes)| QueuedWork {
            work: work(id, takes.memory_mb as u32),
            slots: takes.slots,
        });
        queue.push(works.collect());
        queue
    }

    fn id(next: Option<QueuedWork>) -> Option<String> {
        next.map(|next| next.work.attempt.id.to_string())
    }

    #[test]
    fn a_large_attempt_waits_at_the_head_and_can_be_taken_back() {
        let attempts = [
            ("a", room(1, 1)),
            ("b", room(9, 1)),
            ("c", room(1, 1)),
            ("d", room(1, 1)),
            ("e", room(1, 1)),
        ];
        let queue = queue(room(2, 100), &attempts);
        assert_eq!(id(queue.try_next(NOTHING)).as_deref(), Some("a"));
        assert_eq!(
            id(queue.try_next(NOTHING)),
            None,
            "b needs both slots, and c does not pass it"
        );
        assert_eq!(id(queue.try_next(room(1, 1))).as_deref(), Some("b"));
        assert_eq!(id(queue.try_next(NOTHING)), None);
        assert_eq!(
            queue.take_back(&[name("c"), name("a")].into()),
            [name("c")],
            "a has begun"
        );
        assert_eq!(id(queue.try_next(room(2, 1))).as_deref(), Some("d"));
        assert_eq!(id(queue.wait()).as_deref(), Some("e"));
        queue.close();
        assert_eq!(id(queue.wait()), None);
    }

    #[test]
    fn the_memory_of_what_is_at_work_is_never_more_than_there_is() {
        let attempts = [
            ("half", room(1, 400)),
            ("more", room(1, 500)),
            ("small", room(1, 1)),
            ("giant", room(1, 4_000)),
            ("last", room(1, 1)),
        ];
        let queue = queue(room(4, 700), &attempts);
        assert_eq!(id(queue.try_next(NOTHING)).as_deref(), Some("half"));
        assert_eq!(id(queue.try_next(NOTHING)), None, "900 MiB are too much");
        assert_eq!(id(queue.try_next(room(1, 400))).as_deref(), Some("more"));
        assert_eq!(id(queue.try_next(NOTHING)).as_deref(), Some("small"));
        assert_eq!(id(queue.try_next(room(1, 500))), None, "small is at work");
        let alone = queue.try_next(room(1, 1));
        assert_eq!(id(alone).as_deref(), Some("giant"), "nothing is at work");
        assert_eq!(id(queue.try_next(NOTHING)), None);
        assert_eq!(id(queue.try_next(room(1, 4_000))).as_deref(), Some("last"));
    }
}
