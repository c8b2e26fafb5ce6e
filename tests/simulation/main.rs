//! The whole cluster in one thread, from one seed. The engine, the journal, the view and the runner
//! sessions are the real ones. Feeders, watchers, networks, disks, clocks and processes are
//! simulated, and fail. An oracle knows what was promised, and a model of what a queue is must agree
//! with every answer.
//!
//! ```text
//! cargo test --release --test simulation                                       2,000 seeds, all planted bugs
//! SEEDS=1000000 cargo test --release --test simulation many -- --nocapture     a million (FIRST=n: from seed n on)
//! SEED=17 cargo test --release --test simulation replay -- --ignored --nocapture         one, line by line (PLANTED=NoFence: with it)
//! ```

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::print_stderr,
    clippy::expect_used,
    clippy::panic,
    reason = "a test: a broken promise ends it"
)]

mod chance;
mod disk;
mod expect;
mod feeders;
mod history;
mod keeping;
mod master;
mod model;
mod network;
mod oracle;
mod planted;
mod questions;
mod runners;
mod watchers;
mod world;

use history::HistoryMode;
use planted::Planted;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;
use world::{Told, World};

/// A play makes many small allocations, as a master does.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Plays a seed to its end. A panic is a broken promise, too.
fn play(seed: u64, planted: Option<Planted>, telling: HistoryMode) -> Result<Told, String> {
    let played = catch_unwind(AssertUnwindSafe(|| {
        World::new(seed, planted, telling).play()
    }));
    played.unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().cloned();
        Err(text
            .or_else(|| panic.downcast_ref::<&str>().map(|text| text.to_string()))
            .unwrap_or_else(|| "a panic".into()))
    })
}

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

/// Plays `seeds` on all cores until one breaks a promise, and hands the end of each to `played`, in
/// any order. The error has the smallest of the seeds that broke a promise, and what was broken.
fn play_all(
    first: u64,
    seeds: u64,
    planted: Option<Planted>,
    played: impl Fn(Told) + Sync,
) -> Result<(), (u64, String)> {
    let next = AtomicU64::new(first);
    let threads = std::thread::available_parallelism().map_or(2, usize::from);
    let player = || loop {
        let seed = next.fetch_add(1, Ordering::Relaxed);
        if seed >= first + seeds {
            return None;
        }
        match play(seed, planted, HistoryMode::Quiet) {
            Ok(end) => played(end),
            Err(broken) => {
                // The other players finish the seed that they are playing.
                next.store(u64::MAX / 2, Ordering::Relaxed);
                return Some((seed, broken));
            }
        }
    };
    let broken = std::thread::scope(|scope| {
        let players: Vec<_> = (0..threads).map(|_| scope.spawn(player)).collect();
        players
            .into_iter()
            .filter_map(|player| player.join().expect("a player"))
            .min_by_key(|(seed, _)| *seed)
    });
    broken.map_or(Ok(()), Err)
}

#[test]
fn many_seeds_hold() {
    let began = Instant::now();
    let first = number("FIRST").unwrap_or(0);
    let seeds = number("SEEDS").unwrap_or(2_000);
    let played = AtomicU64::new(0);
    let tasks = AtomicU64::new(0);
    let starts = AtomicU64::new(0);
    let lines = AtomicU64::new(0);
    let rate = |played: u64| played as f64 / began.elapsed().as_secs_f64();

    let broken = play_all(first, seeds, None, |end| {
        tasks.fetch_add(end.tasks as u64, Ordering::Relaxed);
        lines.fetch_add(end.lines, Ordering::Relaxed);
        starts.fetch_add(u64::from(end.starts), Ordering::Relaxed);
        let played = played.fetch_add(1, Ordering::Relaxed) + 1;
        if played.is_multiple_of(10_000) {
            println!("{played} seeds, {:.0} a second", rate(played));
        }
    });
    if let Err((seed, broken)) = broken {
        panic!(
            "{broken}\n\nSEED={seed} cargo test --release --test simulation replay -- --ignored --nocapture\nplays this again, line by line"
        );
    }
    let played = played.into_inner();
    println!(
        "{played} seeds in {:.1} s: {:.0} a second; {} tasks, {} starts of a master, {} events",
        began.elapsed().as_secs_f64(),
        rate(played),
        tasks.into_inner(),
        starts.into_inner(),
        lines.into_inner()
    );
}

#[test]
fn the_same_seed_gives_the_same_history() {
    for seed in 0..40 {
        let end = play(seed, None, HistoryMode::Hashed);
        assert_eq!(end, play(seed, None, HistoryMode::Hashed), "seed {seed}");
    }
}

/// Prints the end of each seed with the hash of its history. Two trees that behave alike print the
/// same.
#[test]
#[ignore = "needs HISTORIES, the number of seeds"]
fn histories() {
    let seeds = number("HISTORIES").expect("HISTORIES=n says how many seeds");
    let first = number("FIRST").unwrap_or(0);
    for seed in first..first + seeds {
        println!("seed {seed}: {:?}", play(seed, None, HistoryMode::Hashed));
    }
}

#[test]
fn planted_bugs_are_found() {
    for planted in Planted::ALL {
        let found = play_all(0, 500, Some(planted), drop).err();
        let (seed, broken) =
            found.unwrap_or_else(|| panic!("{planted:?} is not found within 500 seeds"));
        let broken: String = broken.chars().take(160).collect();
        println!("{planted:?} is found by seed {seed}: {broken}");
    }
}

#[test]
#[ignore = "needs SEED, the seed to play"]
fn replay() {
    let wanted = std::env::var("PLANTED").unwrap_or_default();
    let planted = Planted::ALL
        .into_iter()
        .find(|planted| format!("{planted:?}") == wanted);
    let seed = number("SEED").expect("SEED=n says which seed");
    println!("{:?}", play(seed, planted, HistoryMode::Printed));
}
