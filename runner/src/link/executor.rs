//! The attempts that the session has handed out: being prepared, waiting for a slot, or running.

use super::News;
use crate::prepare::{Ask, Preparer};
use crate::sandbox::{Control, Listener, Sandbox, Utterance, Work};
use crate::slots::{self, Ready, Slots};
use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use taskmaster_protocol::TaskError;
use taskmaster_protocol::message::{Attempt, Send};
use taskmaster_runner_session::Ending;
use tokio::sync::{mpsc, oneshot};

/// Bytes of live events that wait to be written, over all attempts; beyond that watchers miss some.
/// They are shown, never stored, and the log that is stored does not come this way.
const LIVE_BYTES_MAX: usize = 4 << 20;

/// Bytes of live events on their way to the link, in this process.
static LIVE_BYTES: AtomicUsize = AtomicUsize::new(0);

/// An attempt that was being prepared.
pub struct Prepared {
    attempt: Attempt,
    slots: u32,
    control: Arc<Control>,
    result: Result<Work, TaskError>,
}

enum Stage {
    Preparing,
    /// In the queue or on a slot: only the queue knows.
    Queued,
}

/// Prepares attempts and passes them to the slots.
pub struct Executor {
    held: HashMap<Attempt, (Stage, Arc<Control>)>,
    ready: Vec<Ready>,
    slots: Slots,
    preparer: Preparer,
    tell: mpsc::UnboundedSender<News>,
}

impl Executor {
    /// Starts the slots.
    pub fn start(
        count: u32,
        sandbox: &Arc<Sandbox>,
        preparer: Preparer,
        tell: mpsc::UnboundedSender<News>,
    ) -> std::io::Result<Executor> {
        let to_link = tell.clone();
        // The link ends after its slots; what they still say then is for nobody.
        let tell_slot: slots::Tell = Arc::new(move |news| drop(to_link.send(News::Slot(news))));
        let slots = Slots::start(count, sandbox, &tell_slot)?;
        Ok(Executor {
            held: HashMap::new(),
            ready: Vec::new(),
            slots,
            preparer,
            tell,
        })
    }

    /// Takes an attempt on; [`Executor::flush`] lets it go.
    pub fn run(&mut self, send: Box<Send>) {
        let attempt = Attempt {
            id: send.id.clone(),
            attempt: send.attempt,
        };
        let slots = send.slots;
        let control = Arc::new(Control::default());
        match self.preparer.at_once(send, &control) {
            Ok(work) => {
                self.held.insert(attempt, (Stage::Queued, control));
                self.ready.push(Ready { work, slots });
            }
            Err(send) => {
                self.held
                    .insert(attempt.clone(), (Stage::Preparing, control.clone()));
                let (preparer, tell) = (self.preparer.clone(), self.tell.clone());
                tokio::spawn(async move {
                    let result = preparer.later(*send, control.clone()).await;
                    let _ = tell.send(News::Prepared(Prepared {
                        attempt,
                        slots,
                        control,
                        result,
                    }));
                });
            }
        }
    }

    /// Lets everything that is ready go to the slots.
    pub fn flush(&mut self) {
        if !self.ready.is_empty() {
            self.slots.push(std::mem::take(&mut self.ready));
        }
    }

    /// An attempt is prepared, unless it was given up meanwhile. Comes back where it failed.
    pub fn prepared(
        &mut self,
        Prepared {
            attempt,
            slots,
            control,
            result,
        }: Prepared,
    ) -> Option<Ending> {
        match self.held.get_mut(&attempt) {
            // Another one of the same name would have another switch.
            Some((stage, held)) if Arc::ptr_eq(held, &control) => *stage = Stage::Queued,
            _ => return None,
        }
        match result {
            Ok(work) => {
                self.ready.push(Ready { work, slots });
                None
            }
            Err(error) => {
                self.held.remove(&attempt);
                Some(Ending::failed(attempt, error))
            }
        }
    }

    /// An attempt ended.
    pub fn forget(&mut self, attempt: &Attempt) {
        self.held.remove(attempt);
    }

    /// Gives up those that have not begun, and names them.
    pub fn take_back(&mut self, attempts: Vec<Attempt>) -> Vec<Attempt> {
        self.flush();
        let (mut taken, mut queued) = (Vec::new(), HashSet::new());
        for attempt in attempts {
            match self.held.get(&attempt) {
                Some((Stage::Preparing, _)) => taken.push(attempt),
                Some((Stage::Queued, _)) => drop(queued.insert(attempt)),
                None => {}
            }
        }
        taken.extend(self.slots.take_back(&queued));
        for attempt in &taken {
            self.held.remove(attempt);
        }
        taken
    }

    /// Stops an attempt. Comes back at once where it had not begun, else as news from its slot.
    pub fn stop(&mut self, attempt: Attempt) -> Option<Ending> {
        if let Some((_, control)) = self.held.get(&attempt) {
            control.cancel();
        }
        self.take_back(vec![attempt]).pop().map(Ending::cancelled)
    }

    /// A live event has arrived at the link.
    pub fn heard(&self, utterance: &Utterance) {
        LIVE_BYTES.fetch_sub(size(utterance), Ordering::Relaxed);
    }
}

impl Drop for Executor {
    /// Stops everything: the slots' threads are joined next, and a guest could run for an hour.
    fn drop(&mut self) {
        for (_, control) in self.held.values() {
            control.cancel();
        }
    }
}

fn size(utterance: &Utterance) -> usize {
    match utterance {
        Utterance::Started(_) => 0,
        Utterance::Progress(json) | Utterance::Partial(json) | Utterance::Log(json) => {
            json.get().len()
        }
    }
}

/// Passes on what attempts say, as long as the link keeps up.
pub fn listener(tell: mpsc::UnboundedSender<News>) -> Listener {
    Arc::new(move |attempt, utterance| {
        let bytes = size(&utterance);
        if LIVE_BYTES.fetch_add(bytes, Ordering::Relaxed) > LIVE_BYTES_MAX {
            LIVE_BYTES.fetch_sub(bytes, Ordering::Relaxed);
            return;
        }
        if tell
            .send(News::Slot(slots::News::Said(attempt.clone(), utterance)))
            .is_err()
        {
            LIVE_BYTES.fetch_sub(bytes, Ordering::Relaxed);
        }
    })
}

/// Asks the master, through the link.
pub fn ask(tell: mpsc::UnboundedSender<News>) -> Ask {
    Arc::new(move |ids| {
        let (reply, answer) = oneshot::channel();
        let asked = tell.send(News::Ask(ids, reply)).is_ok();
        Box::pin(async move {
            if !asked {
                return Err("the runner is ending".to_owned());
            }
            answer
                .await
                .unwrap_or_else(|_| Err("the runner is ending".to_owned()))
        })
    })
}
