//! The attempts that the session has handed out. They are being prepared, wait for a slot, or run.

use super::event::{LinkEvent, LinkSender, PreparedAttempt, ResultsQuestion};
use crate::at_work::AttemptsAtWork;
use crate::outcome::Outcome;
use crate::prepare::{AskError, AskResults, Preparer};
use crate::sandbox::{LiveEvent, LiveListener, Sandbox, StopSwitch};
use crate::slots::queue::{QueuedWork, Room};
use crate::slots::{SlotEvent, SlotListener, SlotParts, Slots};
use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use taskmaster_console::long_lived;
use taskmaster_protocol::message::{Assignment, Attempt};
use taskmaster_runner_session::Ending;
use tokio::sync::oneshot;

/// Bytes of live events that wait to be written, over all attempts. Beyond that watchers miss some.
/// Live events are shown and never stored; the log that is stored does not come this way.
const LIVE_BYTES_MAX: usize = 4 << 20;

/// Bytes of live events on their way to the link, in this process.
static LIVE_BYTES: AtomicUsize = AtomicUsize::new(0);

/// An attempt that was handed out and has not ended.
struct ActiveAttempt {
    stage: AttemptStage,
    stop: Arc<StopSwitch>,
}

enum AttemptStage {
    Preparing,
    /// In the queue or on a slot. Only the queue knows which.
    Queued,
}

/// What an executor is made of.
pub struct ExecutorParts {
    /// The slots and the memory of this runner.
    pub offered: Room,
    /// Where guest code lives.
    pub sandbox: Arc<Sandbox>,
    /// Remembers what is at work, in case the process dies.
    pub at_work: Arc<AttemptsAtWork>,
    /// Gets what attempts need.
    pub preparer: Preparer,
    /// Hears what becomes of attempts.
    pub link: LinkSender,
}

/// Prepares attempts and passes them to the slots.
pub struct Executor {
    active: HashMap<Attempt, ActiveAttempt>,
    /// What goes to the slots with the next [`Executor::flush`].
    ready: Vec<QueuedWork>,
    slots: Slots,
    preparer: Preparer,
    link: LinkSender,
}

impl Executor {
    /// Starts a slot for each that is offered.
    pub fn start(parts: ExecutorParts) -> std::io::Result<Executor> {
        let ExecutorParts {
            offered,
            sandbox,
            at_work,
            preparer,
            link,
        } = parts;
        let to_link = link.clone();
        // The link ends after its slots. Nobody needs what they tell after that.
        let listener: SlotListener =
            Arc::new(move |event| drop(to_link.send(LinkEvent::Slot(event))));
        let slots = Slots::start(SlotParts {
            offered,
            sandbox,
            listener,
            at_work,
        })?;
        Ok(Executor {
            active: HashMap::new(),
            ready: Vec::new(),
            slots,
            preparer,
            link,
        })
    }

    /// Begins an attempt. It goes to the slots with a later [`Executor::flush`].
    pub fn run(&mut self, send: Box<Assignment>) {
        let attempt = Attempt {
            id: send.id.clone(),
            attempt: send.attempt,
        };
        let slots = send.slots;
        let stop = Arc::new(StopSwitch::default());
        let send = match self.preparer.at_once(send, &stop) {
            Ok(work) => {
                let stage = AttemptStage::Queued;
                self.active.insert(attempt, ActiveAttempt { stage, stop });
                self.ready.push(QueuedWork { work, slots });
                return;
            }
            Err(send) => send,
        };

        let active = ActiveAttempt {
            stage: AttemptStage::Preparing,
            stop: stop.clone(),
        };
        self.active.insert(attempt.clone(), active);
        let preparer = self.preparer.clone();
        let link = self.link.clone();
        // A panic here would leave the attempt neither running nor ended.
        long_lived::spawn_task("preparing", async move {
            let result = preparer.later(*send, stop.clone()).await;
            let _ = link.send(LinkEvent::Prepared(PreparedAttempt {
                attempt,
                slots,
                stop,
                result,
            }));
        });
    }

    /// Passes everything that is ready to the slots.
    pub fn flush(&mut self) {
        if !self.ready.is_empty() {
            self.slots.push(std::mem::take(&mut self.ready));
        }
    }

    /// Queues a prepared attempt, unless it was given up meanwhile. Returns how the attempt ended
    /// if it could not be prepared.
    pub fn prepared(&mut self, prepared: PreparedAttempt) -> Option<Outcome> {
        let active = self.active.get_mut(&prepared.attempt)?;
        // The attempt may have been taken back and have come again under its name.
        if !Arc::ptr_eq(&active.stop, &prepared.stop) {
            return None;
        }
        active.stage = AttemptStage::Queued;
        match prepared.result {
            Ok(work) => {
                let slots = prepared.slots;
                self.ready.push(QueuedWork { work, slots });
                None
            }
            Err(error) => Some(match error.fault() {
                Some(fault) => Outcome::Fault(prepared.attempt, fault),
                None => {
                    let error = error.into_task_error();
                    Outcome::Ready(Ending::failed(prepared.attempt, error))
                }
            }),
        }
    }

    /// Forgets an attempt that ended.
    pub fn forget(&mut self, attempt: &Attempt) {
        self.active.remove(attempt);
    }

    /// Gives up those of `attempts` that have not begun, and names them.
    pub fn take_back(&mut self, attempts: Vec<Attempt>) -> Vec<Attempt> {
        self.flush();
        let mut taken = Vec::new();
        let mut queued = HashSet::new();
        for attempt in attempts {
            match self.active.get(&attempt).map(|active| &active.stage) {
                Some(AttemptStage::Preparing) => taken.push(attempt),
                Some(AttemptStage::Queued) => {
                    queued.insert(attempt);
                }
                None => {}
            }
        }
        taken.extend(self.slots.take_back(&queued));
        for attempt in &taken {
            self.active.remove(attempt);
        }
        taken
    }

    /// Stops an attempt. Returns its ending if it had not begun; otherwise its slot tells the
    /// ending.
    pub fn stop(&mut self, attempt: Attempt) -> Option<Ending> {
        if let Some(active) = self.active.get(&attempt) {
            active.stop.cancel();
        }
        self.take_back(vec![attempt]).pop().map(Ending::cancelled)
    }

    /// A live event has arrived at the link.
    pub fn live_event_arrived(&self, event: &LiveEvent) {
        LIVE_BYTES.fetch_sub(live_bytes(event), Ordering::Relaxed);
    }
}

impl Drop for Executor {
    /// Stops everything. The slots' threads are joined next, and a guest could run for an hour.
    fn drop(&mut self) {
        for active in self.active.values() {
            active.stop.cancel();
        }
    }
}

fn live_bytes(event: &LiveEvent) -> usize {
    match event {
        LiveEvent::Started(_) => 0,
        LiveEvent::Partial { value, .. } => value.get().len(),
        LiveEvent::Progress(json) | LiveEvent::Log(json) => json.get().len(),
    }
}

/// Passes on what attempts tell while they run, as long as the link keeps up.
pub fn live_listener(link: LinkSender) -> LiveListener {
    Arc::new(move |attempt, event| {
        let bytes = live_bytes(&event);
        if LIVE_BYTES.fetch_add(bytes, Ordering::Relaxed) > LIVE_BYTES_MAX {
            LIVE_BYTES.fetch_sub(bytes, Ordering::Relaxed);
            return;
        }
        let event = LinkEvent::Slot(SlotEvent::Live(attempt.clone(), event));
        if link.send(event).is_err() {
            LIVE_BYTES.fetch_sub(bytes, Ordering::Relaxed);
        }
    })
}

/// Asks the master for results, through the link.
pub fn ask_results(link: LinkSender) -> AskResults {
    Arc::new(move |ids| {
        let (reply, answer) = oneshot::channel();
        let asked = link.send(LinkEvent::Question(ResultsQuestion { ids, reply }));
        Box::pin(async move {
            let ending = || AskError("the runner is ending".to_owned());
            asked.map_err(|_| ending())?;
            answer.await.unwrap_or_else(|_| Err(ending()))
        })
    })
}
