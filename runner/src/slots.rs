//! The threads on which guest code runs. There is one for each slot, with a small tokio runtime of
//! its own, so that a guest that computes for an hour holds up nobody.

pub mod queue;

use crate::at_work::AttemptsAtWork;
use crate::fault::MachineFault;
use crate::leaving::leave;
use crate::outcome::{Outcome, outcome};
use crate::sandbox::{GuestEnd, LiveEvent, Sandbox, run};
use queue::{QueuedWork, Room, SlotNumber, SlotQueue};
use std::collections::HashSet;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::thread::JoinHandle;
use taskmaster_console::long_lived;
use taskmaster_protocol::message::Attempt;
use tokio::runtime::Runtime;

/// Threads that one slot's runtime may start for calls that block, such as those on files.
const BLOCKING_THREADS_MAX: usize = 4;

/// What the slots tell.
#[derive(Debug)]
pub enum SlotEvent {
    /// An attempt ended.
    Ended(Outcome),
    /// A running attempt told something.
    Live(Attempt, LiveEvent),
}

/// Hears what the slots tell. Called on their threads, so it must not wait.
pub type SlotListener = Arc<dyn Fn(SlotEvent) + Send + Sync>;

/// The slots of this process. Dropping them waits a little for the attempts that run, so these must
/// be stopped first.
pub struct Slots {
    queue: Arc<SlotQueue>,
    threads: Vec<JoinHandle<()>>,
    at_work: Arc<AttemptsAtWork>,
}

/// What the slots work with.
pub struct SlotParts {
    /// Slots and memory. A thread is started for each slot.
    pub offered: Room,
    /// Where guest code lives.
    pub sandbox: Arc<Sandbox>,
    /// Hears what the slots tell.
    pub listener: SlotListener,
    /// Remembers what is at work, in case the process dies.
    pub at_work: Arc<AttemptsAtWork>,
}

impl Slots {
    /// Starts a thread for each slot.
    pub fn start(parts: SlotParts) -> std::io::Result<Slots> {
        let queue = Arc::new(SlotQueue::new(parts.offered));
        let threads = (0..parts.offered.slots).map(|number| {
            let runtime = slot_runtime()?;
            let slot = Slot {
                number: SlotNumber(number as usize),
                queue: queue.clone(),
                sandbox: parts.sandbox.clone(),
                runtime,
                listener: parts.listener.clone(),
                at_work: parts.at_work.clone(),
            };
            long_lived::spawn(&format!("slot-{number}"), move || slot.work_off())
        });
        let threads = threads.collect::<std::io::Result<Vec<_>>>()?;
        Ok(Slots {
            queue,
            threads,
            at_work: parts.at_work,
        })
    }

    /// Adds attempts, which start in this order.
    pub fn push(&self, works: Vec<QueuedWork>) {
        self.queue.push(works);
    }

    /// Removes those of `attempts` that have not begun, and names them. The others run on.
    pub fn take_back(&self, attempts: &HashSet<Attempt>) -> Vec<Attempt> {
        self.queue.take_back(attempts)
    }
}

impl Drop for Slots {
    fn drop(&mut self) {
        self.queue.close();
        leave(self.threads.drain(..));
        self.at_work.close();
    }
}

/// The runtime of one slot, with sockets for the HTTP requests of components.
pub fn slot_runtime() -> std::io::Result<Runtime> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .max_blocking_threads(BLOCKING_THREADS_MAX)
        .build()
}

/// What one thread works with.
struct Slot {
    number: SlotNumber,
    queue: Arc<SlotQueue>,
    sandbox: Arc<Sandbox>,
    runtime: Runtime,
    listener: SlotListener,
    at_work: Arc<AttemptsAtWork>,
}

impl Slot {
    fn work_off(mut self) {
        let mut ticking = None;
        let mut freed = Room::default();
        loop {
            let next = self.queue.try_next(freed).or_else(|| {
                // The epoch need not rise while this thread waits.
                ticking = None;
                self.queue.wait()
            });
            let Some(next) = next else {
                // Dropping it would wait for calls that may wait for ever.
                return self.runtime.shutdown_background();
            };
            freed = next.room();
            let work = next.work;
            ticking.get_or_insert_with(|| self.sandbox.keep_ticking());

            let attempt = work.attempt.clone();
            let timeout = work.timeout;
            self.at_work.begin(self.number, &attempt);
            let running = AssertUnwindSafe(|| run(&self.sandbox, &self.runtime, work));
            let ended = match catch_unwind(running) {
                Ok(report) => {
                    self.leave_calls_behind(&report.end);
                    outcome(attempt, timeout, report)
                }
                Err(_) => {
                    let what = "a fault of this program";
                    Outcome::Fault(
                        attempt,
                        MachineFault::under_task(what, "the sandbox panicked"),
                    )
                }
            };
            self.at_work.end(self.number);
            (self.listener)(SlotEvent::Ended(ended));
        }
    }

    /// A guest that was stopped may have left a call behind that blocks a thread of the runtime,
    /// such as one on a disk that does not answer. The next guest needs these threads.
    fn leave_calls_behind(&mut self, end: &GuestEnd) {
        let was_stopped = matches!(
            end,
            GuestEnd::Timeout | GuestEnd::Cancelled | GuestEnd::Output(_)
        );
        if was_stopped && let Ok(fresh) = slot_runtime() {
            std::mem::replace(&mut self.runtime, fresh).shutdown_background();
        }
    }
}
