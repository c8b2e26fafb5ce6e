//! `taskmaster feed --follow`, one after the other, in the middle of it all: each must end with 0,
//! and tell of each of its tasks once.

use serde_json::json;
use std::collections::HashSet;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};
use taskmaster_harness::{Folder, PATIENCE, Process, json_lines};

/// Lines of one feed.
const LINES: u64 = 500;

/// Between one feed and the next: the load is steady, not all that the machine can do.
const PAUSE: Duration = Duration::from_millis(400);

/// A feed is in the middle of many faults: it ends some time after the last.
const PATIENCE_OF_A_FEED: Duration = PATIENCE.saturating_mul(10);

pub struct Feeds {
    folder: Folder,
    ran: AtomicU64,
    wrong: Mutex<Vec<String>>,
}

impl Feeds {
    pub fn new() -> Feeds {
        Feeds {
            folder: Folder::new(),
            ran: AtomicU64::new(0),
            wrong: Mutex::default(),
        }
    }

    /// How many have ended.
    pub fn ran(&self) -> u64 {
        self.ran.load(Ordering::Relaxed)
    }

    /// Tasks that were fed and told of.
    pub fn lines(&self) -> u64 {
        self.ran() * LINES
    }

    pub fn wrong(&self) -> Vec<String> {
        self.wrong.lock().unwrap().clone()
    }

    /// Feeds by these addresses in turn, until `stop`.
    pub fn run(&self, urls: &[&str], stop: &AtomicBool) {
        for round in 0.. {
            if stop.load(Ordering::Relaxed) {
                return;
            }
            self.feed(urls[round % urls.len()], round, stop);
            std::thread::sleep(PAUSE);
        }
    }

    fn feed(&self, url: &str, round: usize, stop: &AtomicBool) {
        let line = |n: u64| {
            json!({"id": format!("feed{round}-{n}"), "module": "echo", "params": n}).to_string()
                + "\n"
        };
        let file = self
            .folder
            .write("feed.jsonl", (0..LINES).map(line).collect::<String>());
        let job = format!("feed{round}");
        let settings = [("TASKMASTER_URL", url)];
        let mut feed = Process::start(
            &self.folder,
            &["feed", &file, "--job", &job, "--follow"],
            &settings,
        );
        let began = Instant::now();
        while !feed.has_ended() {
            if began.elapsed() > PATIENCE_OF_A_FEED {
                return self.complain(format!("{job} does not end: {}", feed.said()));
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        let code = feed.exit_code();
        // Where no master is, a feed that was never connected ends with 69, as it should: then
        // nothing was fed.
        if code == Some(69) && feed.printed().is_empty() && !stop.load(Ordering::Relaxed) {
            return;
        }
        let lines = json_lines(&feed.printed());
        let whole = lines.iter().all(|task| {
            task["state"] == "done"
                && task["id"] == format!("feed{round}-{}", task["result"])
                && task["job"] == job
        });
        let different: HashSet<&str> = lines
            .iter()
            .filter_map(|task| task["id"].as_str())
            .collect();
        if code != Some(0)
            || !whole
            || lines.len() as u64 != LINES
            || different.len() as u64 != LINES
        {
            let (told, different) = (lines.len(), different.len());
            let text = format!(
                "{job} ended with {code:?} and told of {told} tasks, {different} of them different: {}",
                feed.said()
            );
            self.complain(text);
        }
        self.ran.fetch_add(1, Ordering::Relaxed);
    }

    fn complain(&self, text: String) {
        self.wrong.lock().unwrap().push(text);
    }
}
