//! A feeder that never stops: adds of all kinds, dependencies, retries, cancels; a few at a time,
//! for as long as it is told to. What it was not answered it says again after a reconnect, as every
//! good client does.

use crate::chance::Chance;
use crate::client::Client;
use crate::ledger::{Expected, Ledger, Promise};
use crate::witness::Witness;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::io::Error;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Says stop when it is dropped: also when a test panics, so that no thread is waited for in vain.
pub struct Stop<'a>(pub &'a [&'a AtomicBool]);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0
            .iter()
            .for_each(|stop| stop.store(true, Ordering::Relaxed));
    }
}

/// Longer than any test: a task that is to be cancelled never ends by itself.
const FOR_EVER_MS: u64 = 3_600_000;

/// One feeder and what it does.
pub struct Feeder<'a> {
    /// Its session, and the beginning of all its ids and jobs.
    pub name: String,
    pub url: String,
    pub ledger: &'a Ledger,
    pub witness: &'a Witness,
    /// Tasks open at a time, over all feeders: the load follows the machine.
    pub open_max: u64,
    /// Tasks per second at the most, of this feeder.
    pub rate: u64,
    /// The longest nap, ms.
    pub nap_ms: u64,
    pub chance: Chance,
}

/// How long adds took to be acknowledged, µs, and how many there were.
#[derive(Default)]
pub struct Served {
    pub tasks: AtomicU64,
    pub waits_us: std::sync::Mutex<Vec<u64>>,
}

struct Batch {
    number: u64,
    tasks: Vec<Value>,
    promises: Vec<(String, Promise)>,
    said: Instant,
}

struct Wish {
    ids: Vec<String>,
    job: Option<String>,
    /// It is not said before.
    due: Instant,
    reference: Option<u64>,
}

/// What is not answered yet.
struct State {
    next_batch: u64,
    next_task: u64,
    next_reference: u64,
    batches: BTreeMap<u64, Batch>,
    wishes: Vec<Wish>,
    /// A task that was acknowledged and is done some day: others may wait for it.
    last: Option<String>,
}

impl Feeder<'_> {
    /// Goes on until `stop`, and then until everything that was said is answered.
    pub fn run(mut self, stop: &AtomicBool, served: &Served) {
        let mut state = State {
            next_batch: 1,
            next_task: 0,
            next_reference: 1,
            batches: BTreeMap::new(),
            wishes: Vec::new(),
            last: None,
        };
        let patience = crate::waiting::PATIENCE;
        let mut stopped: Option<Instant> = None;
        loop {
            if let Ok(mut client) = Client::dial(&self.url, Some(&self.name)) {
                let ended = self.session(&mut client, &mut state, stop, served);
                if ended.is_ok() {
                    return;
                }
            }
            if stop.load(Ordering::Relaxed) {
                let since = stopped.get_or_insert_with(Instant::now);
                if since.elapsed() > patience {
                    return self.ledger.complain(format!(
                        "{}: {} batches are not answered",
                        self.name,
                        state.batches.len()
                    ));
                }
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// One connection. An error: it was lost.
    fn session(
        &mut self,
        client: &mut Client,
        state: &mut State,
        stop: &AtomicBool,
        served: &Served,
    ) -> Result<(), Error> {
        for batch in state.batches.values() {
            client.say(
                "task:add",
                json!({"batch": batch.number, "tasks": batch.tasks}),
            )?;
        }
        state
            .wishes
            .iter_mut()
            .for_each(|wish| wish.reference = None);
        let mut next = Instant::now();
        loop {
            let stopping = stop.load(Ordering::Relaxed);
            if stopping && state.batches.is_empty() && state.wishes.is_empty() {
                return Ok(());
            }
            let now = Instant::now();
            if !stopping
                && now >= next
                && state.batches.len() < 4
                && self.witness.open(self.ledger) < self.open_max
            {
                let batch = self.make(state);
                next = now
                    + Duration::from_secs(1) * batch.tasks.len() as u32 / self.rate.max(1) as u32;
                let message = json!({"batch": batch.number, "tasks": batch.tasks});
                state.batches.insert(batch.number, batch);
                client.say("task:add", message)?;
            }
            for wish in state
                .wishes
                .iter_mut()
                .filter(|wish| wish.reference.is_none() && (wish.due <= now || stopping))
            {
                wish.reference = Some(state.next_reference);
                state.next_reference += 1;
                client.say(
                    "task:cancel",
                    json!({"ref": wish.reference, "ids": wish.ids, "job": wish.job}),
                )?;
            }
            while let Some(message) = client.hear(Duration::from_millis(3))? {
                self.take(state, &message, served);
            }
        }
    }

    fn take(&mut self, state: &mut State, message: &Value, served: &Served) {
        let data = &message["data"];
        match message["event"].as_str().unwrap_or_default() {
            "task:added" => self.added(state, data, served),
            "answer" | "refused" => {
                let Some(at) = state.wishes.iter().position(|wish| {
                    wish.reference.is_some() && wish.reference == data["ref"].as_u64()
                }) else {
                    return self
                        .ledger
                        .complain(format!("{}: an answer to nothing: {message}", self.name));
                };
                let wish = state.wishes.swap_remove(at);
                let taken = message["event"] == "answer";
                if !taken && data["error"]["code"] != "wrong_state" {
                    self.ledger.complain(format!(
                        "{}: a cancel of {:?} was refused: {message}",
                        self.name, wish.ids
                    ));
                }
                // A list is cancelled as a whole, or not at all; only single tasks may have ended
                // meanwhile.
                wish.ids
                    .iter()
                    .for_each(|id| self.ledger.cancelled(id, taken));
            }
            _ => self
                .ledger
                .complain(format!("{}: unexpected: {message}", self.name)),
        }
    }

    fn added(&mut self, state: &mut State, data: &Value, served: &Served) {
        // An answer to a batch that was said twice comes twice.
        let Some(batch) = state.batches.remove(&data["batch"].as_u64().unwrap_or(0)) else {
            return;
        };
        served
            .tasks
            .fetch_add(batch.tasks.len() as u64, Ordering::Relaxed);
        served
            .waits_us
            .lock()
            .unwrap()
            .push(batch.said.elapsed().as_micros() as u64);
        let ids: Vec<&str> = data["ids"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(Value::as_str)
            .collect();
        if ids.len() != batch.promises.len() {
            self.ledger.complain(format!(
                "{}: {} of {} were taken: {data}",
                self.name,
                ids.len(),
                batch.tasks.len()
            ));
        }
        let mut doomed: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for (id, promise) in batch.promises {
            match promise.expected {
                Expected::Cancelled => doomed
                    .entry(promise.job.clone())
                    .or_default()
                    .push(id.clone()),
                Expected::Either(_) => state.wishes.push(self.wish(vec![id.clone()], None, 30)),
                Expected::Done(_) if promise.attempts == 1 => state.last = Some(id.clone()),
                Expected::Done(_) => {}
            }
            self.ledger.acknowledged(&id, promise);
        }
        for (job, ids) in doomed {
            let whole = self.chance.permille(500).then_some(job);
            let wish = self.wish(ids, whole, 400);
            state.wishes.push(wish);
        }
    }

    fn wish(&mut self, ids: Vec<String>, job: Option<String>, wait_ms: u64) -> Wish {
        let due = Instant::now() + Duration::from_millis(self.chance.below(wait_ms));
        Wish {
            ids,
            job,
            due,
            reference: None,
        }
    }

    /// A batch of one to thirty tasks. Tasks to be cancelled have a job of their own, so that it
    /// can be cancelled whole.
    fn make(&mut self, state: &mut State) -> Batch {
        let number = state.next_batch;
        state.next_batch += 1;
        let mut batch = Batch {
            number,
            tasks: Vec::new(),
            promises: Vec::new(),
            said: Instant::now(),
        };
        for _ in 0..self.chance.within(1, 30) {
            let no = state.next_task;
            state.next_task += 1;
            let id = format!("{}-{no}", self.name);
            let job = format!("{}-{}", self.name, no / 5_000);
            let (more, job, expected, attempts) = self.draw(no, number, job, state.last.as_deref());
            let mut task = json!({"id": id, "module": "echo", "params": no, "job": job});
            task.as_object_mut()
                .unwrap()
                .extend(more.as_object().unwrap().clone());
            batch.tasks.push(task);
            batch.promises.push((
                id,
                Promise {
                    job,
                    expected,
                    attempts,
                },
            ));
        }
        batch
    }

    fn draw(
        &mut self,
        no: u64,
        batch: u64,
        job: String,
        last: Option<&str>,
    ) -> (Value, String, Expected, u64) {
        match (self.chance.below(100), last) {
            (0..15, Some(last)) => (json!({"dependencies": [last]}), job, Expected::Done(no), 1),
            (15..25, _) => {
                let ms = self.chance.within(20, self.nap_ms);
                (
                    json!({"module": "sleep", "params": ms}),
                    job,
                    Expected::Done(ms),
                    1,
                )
            }
            (25..35, _) => {
                let retries = json!({"max": 50, "backoff_ms": 20, "max_backoff_ms": 100});
                (
                    json!({"module": "flaky", "retries": retries}),
                    job,
                    Expected::Done(no),
                    2,
                )
            }
            (35..40, _) => (
                json!({"delay_ms": self.chance.below(50)}),
                job,
                Expected::Either(no),
                1,
            ),
            (40..43, _) => {
                let job = format!("{}-doomed-{batch}", self.name);
                let running = self.chance.permille(300);
                let more = if running {
                    json!({"module": "sleep", "params": FOR_EVER_MS})
                } else {
                    json!({"delay_ms": FOR_EVER_MS})
                };
                (more, job, Expected::Cancelled, 1)
            }
            _ => (json!({}), job, Expected::Done(no), 1),
        }
    }
}
