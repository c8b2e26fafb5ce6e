//! Many at once: feeders, watchers, connections.

use crate::probe::{PROMISE, Probe};
use crate::{Ends, alone, is_full, lasting, may_open_many_files, peak_mib};
use serde_json::{Value, json};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::time::{Duration, Instant};
use taskmaster_harness::socket::{Heard, Socket};
use taskmaster_harness::wat::echo;
use taskmaster_harness::{Master, until};

const FEEDERS: usize = 100;

/// Tasks in a batch of a feeder.
const BATCH: usize = 256;

/// Memory that a master may have beside its queue: records that wait for the fold, the store's
/// cache, what clients send.
const BESIDE_MIB: u64 = 700;

fn master(more: &[&str]) -> Master {
    let master = Master::with("master", more);
    master.drop_module("echo.wat", echo());
    master
}

/// Adds tasks as fast as they are taken until `over`; what is refused for now is tried again as
/// `feed` does it. Gives the number that was taken, and the reason of the last refusal.
fn feed(url: &str, job: &str, over: &AtomicBool) -> (usize, Option<String>) {
    let mut socket = Socket::client(url);
    let tasks = vec![r#"{"module":"echo","params":1}"#; BATCH].join(",");
    let (mut sent, mut open, mut taken, mut why) = (0, 0, 0, None);
    while open > 0 || !over.load(SeqCst) {
        while open < 8 && !over.load(SeqCst) && why.is_none() {
            sent += 1;
            open += 1;
            socket
                .text(&format!(r#"{{"event":"task:add","data":{{"batch":{sent},"job":"{job}","tasks":[{tasks}]}}}}"#));
        }
        let Some((opcode, bytes)) = socket.next_frame() else {
            panic!("a feeder's session ended without a word")
        };
        match opcode {
            1 if bytes.starts_with(br#"{"event":"task:added""#) => {
                open -= 1;
                // Two are beside the ids.
                let commas = bytes.iter().filter(|byte| **byte == b',').count();
                taken += if bytes.ends_with(b"[]}}") {
                    0
                } else {
                    commas - 1
                };
                if open == 0 && why.is_some() && !over.load(SeqCst) {
                    std::thread::sleep(Duration::from_millis(200));
                    why = None;
                }
            }
            1 => {
                let text: Value = serde_json::from_slice(&bytes).unwrap();
                let error = &text["data"]["tasks"][0]["error"];
                assert_eq!(error["code"], "unavailable", "{text}");
                why = Some(error["message"].as_str().unwrap().to_owned());
            }
            8 => panic!(
                "a feeder's session was closed: {}",
                String::from_utf8_lossy(&bytes)
            ),
            _ => {}
        }
    }
    (taken, why)
}

#[test]
fn a_hundred_feeders_at_full_speed_against_two_runners() {
    let _machine = alone();
    let master = master(&["--queue-mb", "200"]);
    let _runners = [
        master.runner("a", &["--slots", "1"]),
        master.runner("b", &["--slots", "1"]),
    ];
    let mut probe = Probe::idle(&master);
    let (over, taken) = (AtomicBool::new(false), AtomicUsize::new(0));
    let began = Instant::now();
    std::thread::scope(|scope| {
        let _ends = Ends(&over);
        let feeders: Vec<_> = (0..FEEDERS)
            .map(|n| {
                let (url, over, taken) = (&master.url, &over, &taken);
                scope.spawn(move || {
                    let (count, why) = feed(url, &format!("feed-{n}"), over);
                    taken.fetch_add(count, SeqCst);
                    why
                })
            })
            .collect();
        while began.elapsed() < lasting() {
            probe.under_load("a hundred feeders", PROMISE);
        }
        over.store(true, SeqCst);
        let refused: Vec<String> = feeders
            .into_iter()
            .filter_map(|feeder| feeder.join().unwrap())
            .collect();
        for why in &refused {
            assert!(why.contains("--queue-mb"), "{why}");
        }
        println!(
            "{} of {FEEDERS} feeders were refused at the end",
            refused.len()
        );
    });
    let (seconds, peak) = (began.elapsed().as_secs_f64(), peak_mib(master.process.id()));
    let taken = taken.into_inner();
    println!("{taken} tasks were taken in {seconds:.1} s; the master had at most {peak} MiB");
    assert!(taken > FEEDERS * BATCH, "only {taken} were taken");
    assert!(peak < 200 + BESIDE_MIB, "{peak} MiB");
    master.still_works();
}

/// What asks for the ends in a job: every second one watches its events, the others follow it.
fn asks(n: usize, since: Option<u64>) -> String {
    let job = format!("j{n}");
    let asks = if n.is_multiple_of(2) {
        json!({"event": "watch", "data": {"since": since, "filter": {"job": job}}})
    } else {
        json!({"event": "task:follow", "data": {"since": since, "job": job}})
    };
    asks.to_string()
}

/// A follower that reads all that it is told; counts what ended. `None`: it was dropped without a
/// word.
fn follow(url: &str, n: usize, over: &AtomicBool, wanted: &AtomicUsize) -> Option<usize> {
    let mut socket = Socket::client(url);
    socket.text(&asks(n, Some(0)));
    let (mut seen, mut pinged) = (0, Instant::now());
    while !over.load(SeqCst) || seen < wanted.load(SeqCst) {
        if pinged.elapsed() > Duration::from_secs(2) {
            socket.frame(9, b"").ok()?;
            pinged = Instant::now();
        }
        if !socket.comes_within(Duration::from_secs(2)) {
            continue;
        }
        let (opcode, bytes) = socket.next_frame()?;
        assert_ne!(
            opcode,
            8,
            "a follower's session was closed: {}",
            String::from_utf8_lossy(&bytes)
        );
        if opcode == 1 {
            let text: Value = serde_json::from_slice(&bytes).unwrap();
            seen += match text["event"].as_str().unwrap() {
                "task:final" => text["data"]["tasks"].as_array().unwrap().len(),
                "watch" => text["data"]
                    .as_array()
                    .unwrap()
                    .iter()
                    .filter(|e| e["event"] == "task:done")
                    .count(),
                _ => 0,
            };
        }
    }
    Some(seen)
}

#[test]
fn a_thousand_watchers_of_whom_half_do_not_read() {
    let _machine = alone();
    may_open_many_files();
    let followers = if is_full() { 500 } else { 200 };
    let master = master(&[]);
    let _runners = [
        master.runner("a", &["--slots", "1"]),
        master.runner("b", &["--slots", "1"]),
    ];
    let mut probe = Probe::idle(&master);
    let before = peak_mib(master.process.id());
    // How many each is to see in the end; 0 until that is known.
    let (over, wanted) = (AtomicBool::new(false), AtomicUsize::new(0));
    let deaf: Vec<Socket> = (0..followers)
        .map(|n| {
            let mut socket = Socket::client(&master.url);
            socket.text(&asks(n, None));
            socket
        })
        .collect();
    // One half of the deaf ones shows that it lives; the other does nothing at all.
    let (mut pinging, silent): (Vec<_>, Vec<_>) =
        deaf.into_iter().enumerate().partition(|(n, _)| n % 4 < 2);
    let feed_over = AtomicBool::new(false);
    let rounds = std::thread::scope(|scope| {
        let _ends = (Ends(&feed_over), Ends(&over));
        let reading: Vec<_> = (0..followers)
            .map(|n| {
                let (url, over, wanted) = (&master.url, &over, &wanted);
                let small = std::thread::Builder::new().stack_size(256 << 10);
                small
                    .spawn_scoped(scope, move || follow(url, n, over, wanted))
                    .unwrap()
            })
            .collect();
        let (master, over, feed_over) = (&master, &over, &feed_over);
        scope.spawn(move || {
            while !over.load(SeqCst) {
                pinging
                    .iter_mut()
                    .for_each(|(_, socket)| drop(socket.frame(9, b"")));
                std::thread::sleep(Duration::from_secs(2));
            }
        });
        let feeding = scope.spawn(move || rounds(master, followers, feed_over));
        let began = Instant::now();
        while began.elapsed() < lasting() {
            probe.under_load("a thousand watchers", PROMISE);
        }
        feed_over.store(true, SeqCst);
        let rounds = feeding.join().unwrap();
        wanted.store(rounds, SeqCst);
        over.store(true, SeqCst);
        for follower in reading {
            let seen = follower.join().unwrap();
            assert_eq!(seen, Some(rounds), "a follower did not see all of its job");
        }
        rounds
    });
    // Whoever did nothing at all was told why it was let go.
    for (n, mut socket) in silent.into_iter().take(10) {
        until(&format!("the end of follower {n}"), || {
            match socket.hear() {
                Heard::Closed(1008, reason) if reason.contains("nothing came for") => true,
                Heard::Text(_) => false,
                other => panic!("{other:?}"),
            }
        });
    }
    let peak = peak_mib(master.process.id());
    println!(
        "{} watchers, {rounds} tasks in each job; the master had {before} MiB, and {peak} at most",
        2 * followers
    );
    assert!(
        peak < before + BESIDE_MIB,
        "{before} MiB before, {peak} MiB at most"
    );
    master.still_works();
}

/// One task in each of so many jobs, a thousand tasks a second until `over`, and waits until they
/// are done; how many rounds. The load that is meant is that of the watchers: each task is told to
/// two of them, three times and once.
fn rounds(master: &Master, jobs: usize, over: &AtomicBool) -> usize {
    let mut socket = Socket::client(&master.url);
    let tasks: Vec<Value> = (0..jobs)
        .map(|n| json!({"module": "echo", "params": n, "job": format!("j{n}")}))
        .collect();
    let (mut rounds, began) = (0, Instant::now());
    while !over.load(SeqCst) {
        let due = Duration::from_millis((rounds * jobs) as u64);
        std::thread::sleep(due.saturating_sub(began.elapsed()));
        rounds += 1;
        socket.text(
            &json!({"event": "task:add", "data": {"batch": rounds, "tasks": tasks}}).to_string(),
        );
        socket.wait("task:added");
    }
    let last = format!("j{}", jobs - 1);
    until("the last of them", || master.job(&last)["done"] == rounds);
    rounds
}

#[test]
fn a_thousand_connects_a_second() {
    let _machine = alone();
    may_open_many_files();
    let a_second = if is_full() { 1_000 } else { 300 };
    let threads = 8;
    let master = master(&[]);
    let _runner = master.runner("a", &["--slots", "1"]);
    let mut probe = Probe::idle(&master);
    let before = peak_mib(master.process.id());
    let (over, connected) = (AtomicBool::new(false), AtomicUsize::new(0));
    let began = Instant::now();
    std::thread::scope(|scope| {
        let _ends = Ends(&over);
        for _ in 0..threads {
            scope.spawn(|| {
                let (began, mut mine) = (Instant::now(), 0);
                while !over.load(SeqCst) {
                    let due =
                        Duration::from_secs_f64(f64::from(mine * threads) / f64::from(a_second));
                    std::thread::sleep(due.saturating_sub(began.elapsed()));
                    mine += 1;
                    // Some say nothing, some leave at once, most say `hello`.
                    match mine % 8 {
                        0 => drop(Socket::connect(&master.url)),
                        _ => drop(Socket::client(&master.url)),
                    }
                    connected.fetch_add(1, SeqCst);
                }
            });
        }
        while began.elapsed() < lasting() {
            probe.under_load("connects", PROMISE);
        }
        over.store(true, SeqCst);
    });
    let (rate, peak) = (
        connected.into_inner() as f64 / began.elapsed().as_secs_f64(),
        peak_mib(master.process.id()),
    );
    println!("{rate:.0} connects a second; the master had {before} MiB, and {peak} at most");
    assert!(rate > f64::from(a_second) * 0.5, "only {rate:.0} a second");
    assert!(
        peak < before + 200,
        "{before} MiB before, {peak} MiB at most"
    );
    master.still_works();
}
