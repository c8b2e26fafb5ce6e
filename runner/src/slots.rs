//! The threads on which guest code runs: one for each slot, each with a small tokio runtime of its
//! own, so that a guest that computes for an hour holds up nobody.

pub mod queue;

use crate::outcome::{Outcome, outcome};
use crate::sandbox::{Sandbox, Utterance, Work, run};
use queue::Queue;
use std::collections::HashSet;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::thread::JoinHandle;
use taskmaster_protocol::message::Attempt;
use taskmaster_protocol::{ErrorKind, TaskError};
use taskmaster_runner_session::Ending;

/// What comes from the slots.
#[derive(Debug)]
pub enum News {
    /// An attempt ended.
    Ended(Outcome),
    /// A running attempt says something.
    Said(Attempt, Utterance),
}

/// Takes what comes from the slots; called on their threads, must not wait.
pub type Tell = Arc<dyn Fn(News) + Send + Sync>;

/// An attempt that lacks nothing but a slot.
pub struct Ready {
    /// What to run.
    pub work: Work,
    /// Slots that it takes.
    pub slots: u32,
}

/// The slots of this process. Dropping them waits for what runs: stop it first.
pub struct Slots {
    queue: Arc<Queue>,
    threads: Vec<JoinHandle<()>>,
}

impl Slots {
    /// Starts `count` threads.
    pub fn start(count: u32, sandbox: &Arc<Sandbox>, tell: &Tell) -> std::io::Result<Slots> {
        let queue = Arc::new(Queue::new(count));
        let threads = (0..count).map(|i| {
            let (queue, sandbox, tell) = (queue.clone(), sandbox.clone(), tell.clone());
            // Sockets, for the requests of components.
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .max_blocking_threads(4)
                .build()?;
            std::thread::Builder::new()
                .name(format!("slot-{i}"))
                .spawn(move || work_off(&queue, &sandbox, &runtime, &tell))
        });
        let threads = threads.collect::<std::io::Result<Vec<_>>>()?;
        Ok(Slots { queue, threads })
    }

    /// Adds attempts; they start in this order.
    pub fn push(&self, ready: Vec<Ready>) {
        self.queue.push(ready);
    }

    /// Takes back those of `attempts` that have not begun; the others run on.
    pub fn take_back(&self, attempts: &HashSet<Attempt>) -> Vec<Attempt> {
        self.queue.take_back(attempts)
    }
}

impl Drop for Slots {
    fn drop(&mut self) {
        self.queue.close();
        for thread in self.threads.drain(..) {
            // A slot's thread catches panics; there is nothing to learn here.
            let _ = thread.join();
        }
    }
}

fn work_off(queue: &Queue, sandbox: &Sandbox, runtime: &tokio::runtime::Runtime, tell: &Tell) {
    let mut busy = None;
    let mut free = 0;
    loop {
        let next = queue.try_next(free).or_else(|| {
            // Nothing waits: let the engine's clock rest.
            busy = None;
            queue.wait()
        });
        let Some(Ready { work, slots }) = next else {
            return;
        };
        busy.get_or_insert_with(|| sandbox.busy());
        let (attempt, timeout) = (work.attempt.clone(), work.timeout);
        let ended = match catch_unwind(AssertUnwindSafe(|| run(sandbox, runtime, work))) {
            Ok(report) => outcome(attempt, timeout, report),
            Err(_) => Outcome::Ready(Ending::failed(
                attempt,
                TaskError::new(ErrorKind::Module, "the sandbox panicked"),
            )),
        };
        tell(News::Ended(ended));
        free = slots;
    }
}
