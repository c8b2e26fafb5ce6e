//! Those who come and go beside the steady load: feeds, watchers, somebody who replaces a module.

use serde_json::json;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use taskmaster_harness::client::Client;
use taskmaster_harness::wat::constant;
use taskmaster_harness::{Master, json_lines};

/// Lines of one feed, of which some trap.
const LINES: usize = 500;

/// Versions of the module that is replaced: they come again, so that what is kept of each is soon
/// there.
const VERSIONS: u64 = 30;

/// Waits, or until `stop`.
fn pause(time: Duration, stop: &AtomicBool) {
    let until = Instant::now() + time;
    while Instant::now() < until && !stop.load(Ordering::Relaxed) {
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// `feed --follow`, one after the other, each of a job of its own; every tenth is killed in the
/// middle.
pub fn feeders(master: &Master, stop: &AtomicBool) {
    for round in 0.. {
        if stop.load(Ordering::Relaxed) {
            return;
        }
        let line = |n: usize| match n % 50 {
            0 => json!({"id": format!("feed{round}-{n}"), "module": "trap"}).to_string() + "\n",
            1 => {
                json!({"id": format!("feed{round}-{n}"), "module": "version", "args": ["x"]})
                    .to_string()
                    + "\n"
            }
            _ => {
                json!({"id": format!("feed{round}-{n}"), "module": "echo", "params": n}).to_string()
                    + "\n"
            }
        };
        let file = master
            .folder
            .write("feed.jsonl", (0..LINES).map(line).collect::<String>());
        let mut feed = master.spawn(&["feed", &file, "--job", &format!("feed{round}"), "--follow"]);
        if round % 10 == 9 {
            pause(Duration::from_millis(100), stop);
            feed.kill();
        } else {
            // Some fail, and are told.
            assert_eq!(feed.exit_code(), Some(3), "{}", feed.said());
            assert_eq!(json_lines(&feed.printed()).len(), LINES);
        }
        let _ = std::fs::remove_file(&feed.stdout);
        let _ = std::fs::remove_file(&feed.stderr);
        pause(Duration::from_millis(200), stop);
    }
}

/// Watchers that stay for some seconds: some read, some do not.
pub fn watchers(url: &str, stop: &AtomicBool) {
    for round in 0.. {
        if stop.load(Ordering::Relaxed) {
            return;
        }
        let mut client = Client::dial(url, None).unwrap();
        client.say("watch", json!({"filter": {}})).unwrap();
        let until = Instant::now() + Duration::from_secs(3);
        while Instant::now() < until && !stop.load(Ordering::Relaxed) {
            if round % 2 == 0 {
                client.hear(Duration::from_millis(50)).unwrap();
            } else {
                pause(Duration::from_millis(100), stop);
            }
        }
    }
}

/// A new version of a module every few seconds.
pub fn replace_module(master: &Master, stop: &AtomicBool) {
    for version in 1u64.. {
        pause(Duration::from_secs(5), stop);
        if stop.load(Ordering::Relaxed) {
            return;
        }
        // In one go, as a build writes its result: under another name first.
        let path = master.tasks().join("version.wat");
        let new = master.folder.join("version.new");
        std::fs::write(&new, constant(&(version % VERSIONS).to_string())).unwrap();
        std::fs::rename(new, path).unwrap();
    }
}
