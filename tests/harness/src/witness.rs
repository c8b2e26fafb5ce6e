//! A watcher that writes down every event, across reconnects: what ended and how often, who holds
//! what, since when.

use crate::client::Client;
use crate::ledger::Ledger;
use serde_json::{Value, json};
use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard};
use std::time::{Duration, Instant};

/// How a task ended, as far as it was heard.
#[derive(Debug, Clone)]
pub struct End {
    pub state: String,
    /// `task:done` of one task: must be 1.
    pub times: u32,
    pub result: Value,
    /// Why it failed.
    pub error: Value,
    pub at: Instant,
}

#[derive(Default)]
pub struct Seen {
    /// The last durable event heard.
    pub seq: u64,
    /// One for each durable event, in order: the journal must tell the same again.
    pub digests: Vec<u64>,
    pub ends: HashMap<String, End>,
    /// The runner to which an open task was last lent.
    pub holders: HashMap<String, String>,
    /// When guest code of a task last gave a sign.
    pub signs: HashMap<String, Instant>,
    /// How often each task was lent to a runner, as far as it was heard: live events are not kept
    /// for who is away.
    pub lent: HashMap<String, u64>,
    /// When the first task was done under a master, by its epoch.
    pub first_done: HashMap<u64, Instant>,
    pub last_done: Option<Instant>,
    /// Tasks of [`crate::feeder`] that have ended; those of a `feed` have ids that begin so.
    pub load_ended: u64,
    /// Live events that the master dropped.
    pub missed: u64,
    pub wrong: Vec<String>,
    /// The epoch of the master that is being heard, and its last seq when it was first heard.
    epoch: u64,
    welcome_seq: u64,
}

#[derive(Default)]
pub struct Witness(Mutex<Seen>);

impl Witness {
    pub fn seen(&self) -> MutexGuard<'_, Seen> {
        self.0.lock().unwrap()
    }

    /// Acknowledged tasks whose end has not been heard of.
    pub fn open(&self, ledger: &Ledger) -> u64 {
        let promised = ledger.promises().len() as u64;
        promised.saturating_sub(self.seen().load_ended)
    }

    /// Listens until `stop`.
    pub fn run(&self, url: &str, stop: &AtomicBool) {
        while !stop.load(Ordering::Relaxed) {
            if self.listen(url, stop).is_err() {
                std::thread::sleep(Duration::from_millis(5));
            }
        }
    }

    fn listen(&self, url: &str, stop: &AtomicBool) -> Result<(), std::io::Error> {
        let mut client = Client::dial(url, None)?;
        let since = {
            let mut seen = self.seen();
            let (epoch, seq) = (
                client.welcome["epoch"].as_u64().unwrap_or(0),
                client.welcome["seq"].as_u64().unwrap_or(0),
            );
            if epoch != seen.epoch {
                (seen.epoch, seen.welcome_seq) = (epoch, seq);
                // What is not adopted waits in a queue again, and of neither is there an event.
                seen.holders.clear();
            }
            if seq < seen.seq {
                let text = format!(
                    "epoch {epoch} ends at seq {seq}, but seq {} was told before",
                    seen.seq
                );
                seen.wrong.push(text);
            }
            seen.seq
        };
        client.say("watch", json!({"since": since}))?;
        while !stop.load(Ordering::Relaxed) {
            if let Some(message) = client.hear(Duration::from_millis(20))? {
                self.seen().take(&message);
            }
        }
        Ok(())
    }
}

impl Seen {
    pub fn take(&mut self, message: &Value) {
        match message["event"].as_str() {
            Some("watch") => message["data"]
                .as_array()
                .into_iter()
                .flatten()
                .for_each(|event| self.event(event)),
            Some("watch:gap") => {
                let data = &message["data"];
                self.missed += data["missed"].as_u64().unwrap_or(0);
                if data["reason"] != "slow" {
                    self.wrong.push(format!("a gap: {message}"));
                }
            }
            _ => self.wrong.push(format!("the witness heard {message}")),
        }
    }

    fn event(&mut self, event: &Value) {
        let kind = event["event"].as_str().unwrap_or_default();
        let task = event["task"].as_str().unwrap_or_default().to_owned();
        if let Some(seq) = event["seq"].as_u64() {
            if seq != self.seq + 1 {
                self.wrong
                    .push(format!("seq {seq} came after {}", self.seq));
            }
            self.seq = seq;
            let mut hasher = DefaultHasher::new();
            event.to_string().hash(&mut hasher);
            self.digests.push(hasher.finish());
        }
        let now = Instant::now();
        match kind {
            "task:assigned" => {
                let runner = event["runner"].as_str().unwrap_or_default().to_owned();
                *self.lent.entry(task.clone()).or_default() += 1;
                self.holders.insert(task, runner);
            }
            "task:started" => drop(self.signs.insert(task, now)),
            "task:done" | "task:failed" | "task:cancelled" | "task:skipped" => {
                self.ended(kind, task, event, now)
            }
            "task:retrying" => {
                self.holders.remove(&task);
                self.signs.insert(task, now);
            }
            _ => {}
        }
    }

    fn ended(&mut self, kind: &str, task: String, event: &Value, now: Instant) {
        self.holders.remove(&task);
        self.signs.remove(&task);
        if kind == "task:done" && self.seq > self.welcome_seq {
            self.first_done.entry(self.epoch).or_insert(now);
            self.last_done = Some(now);
        }
        self.load_ended += u64::from(!task.starts_with("feed") && !self.ends.contains_key(&task));
        let state = kind.trim_start_matches("task:").to_owned();
        let (result, error) = (
            event["data"]["result"].clone(),
            event["data"]["error"].clone(),
        );
        let first = End {
            state: state.clone(),
            times: 0,
            result,
            error,
            at: now,
        };
        let end = self.ends.entry(task.clone()).or_insert(first);
        end.times += 1;
        if end.state != state {
            self.wrong
                .push(format!("{task} is {} and then {state}", end.state));
        }
    }
}

/// Everything that a master's journal tells, up to `seq`.
pub fn replay(url: &str, seq: u64) -> Seen {
    let mut client = Client::dial(url, None).unwrap();
    let mut seen = Seen::default();
    client.say("watch", json!({"since": 0})).unwrap();
    let began = Instant::now();
    while seen.seq < seq {
        assert!(
            began.elapsed() < crate::waiting::PATIENCE,
            "the journal tells {} of {seq} events",
            seen.seq
        );
        if let Some(message) = client.hear(Duration::from_millis(100)).unwrap() {
            seen.take(&message);
        }
    }
    seen
}
