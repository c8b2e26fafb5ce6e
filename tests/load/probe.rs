//! One urgent task after the other, timed from the add to its end as its client sees it.

use serde_json::json;
use std::time::{Duration, Instant};
use taskmaster_harness::Master;
use taskmaster_harness::socket::{Heard, Socket};

/// Calls that make a measure.
const CALLS: usize = 40;

/// Later than this many times the idle one is a broken promise.
pub const PROMISE: f64 = 10.0;

/// An idle call that takes less counts as one that takes so long, ms: of so little, ten times is
/// less than a busy machine makes of one or two of the ten steps from add to end.
const IDLE_LEAST: f64 = 2.5;

/// Machines have other work to do: a measure that is bad is taken again, so many times.
const TRIES: usize = 3;

pub struct Probe {
    socket: Socket,
    next: u32,
    idle: Measure,
}

/// Latencies, ms.
#[derive(Debug, Clone, Copy)]
pub struct Measure {
    pub p50: f64,
    pub p90: f64,
    pub most: f64,
}

impl Measure {
    fn of(mut times: Vec<Duration>) -> Measure {
        times.sort();
        let at =
            |share: f64| times[((times.len() - 1) as f64 * share) as usize].as_secs_f64() * 1_000.0;
        Measure {
            p50: at(0.5),
            p90: at(0.9),
            most: at(1.0),
        }
    }
}

impl Probe {
    /// Measures how long a call takes on this master while nothing else happens.
    pub fn idle(master: &Master) -> Probe {
        let mut socket = Socket::client(&master.url);
        socket.text(r#"{"event":"task:follow","data":{"job":"urgent"}}"#);
        let idle = Measure {
            p50: 0.0,
            p90: 0.0,
            most: 0.0,
        };
        let mut probe = Probe {
            socket,
            next: 0,
            idle,
        };
        // The first ones compile the module and warm up.
        for _ in 0..10 {
            probe.call();
        }
        probe.idle = Measure::of((0..CALLS).map(|_| probe.call()).collect());
        probe
    }

    fn call(&mut self) -> Duration {
        self.next += 1;
        let id = format!("urgent-{}", self.next);
        let task = json!({"id": id, "module": "echo", "params": self.next, "job": "urgent", "priority": 1_000});
        let began = Instant::now();
        self.socket.text(
            &json!({"event": "task:add", "data": {"batch": self.next, "tasks": [task]}})
                .to_string(),
        );
        loop {
            match self.socket.hear() {
                Heard::Text(text) if text["event"] == "task:rejected" => panic!("{text}"),
                Heard::Text(text) if text["event"] == "task:final" => {
                    let tasks = text["data"]["tasks"].as_array().unwrap();
                    if tasks.iter().any(|task| task["id"] == *id) {
                        assert!(tasks.iter().all(|task| task["state"] == "done"), "{text}");
                        return began.elapsed();
                    }
                }
                Heard::Text(_) => {}
                other => panic!("the session of an urgent task ended: {other:?}"),
            }
        }
    }

    /// Measures while there is load; says what it was, and holds it to the promise.
    pub fn under_load(&mut self, what: &str, most: f64) {
        let mut told = String::new();
        for _ in 0..TRIES {
            let loaded = Measure::of((0..CALLS).map(|_| self.call()).collect());
            let (idle, ratio) = (self.idle, loaded.p50 / self.idle.p50.max(IDLE_LEAST));
            told = format!(
                "{what}: an urgent task takes {:.1} ms (p90 {:.1}, at most {:.1}), idle {:.1} ms (p90 {:.1}): {ratio:.1} times",
                loaded.p50, loaded.p90, loaded.most, idle.p50, idle.p90
            );
            println!("{told}");
            if ratio < most {
                return;
            }
        }
        panic!("{told}, at most {most} are good");
    }
}
