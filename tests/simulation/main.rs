//! The whole cluster in one thread from one seed: the real engine, journal, view and runner
//! sessions in a simulated world of feeders, watchers, networks, disks, clocks and processes that
//! fail; an oracle that knows what was promised; and a model of what a queue is, which must agree
//! with every answer.
//!
//! ```text
//! cargo test --release --test simulation                                       2,000 seeds, all planted bugs
//! SEEDS=1000000 cargo test --release --test simulation many -- --nocapture     a million (FIRST=n: from seed n on)
//! SEED=17 cargo test --release --test simulation replay -- --nocapture         one, line by line (PLANTED=NoFence: with it)
//! ```

#![allow(
    clippy::unwrap_used,
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

use history::Telling;
use planted::Planted;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;
use world::{Told, World};

/// A play is many small allocations, as a master's day is.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Plays a seed to its end; a panic of ours is a broken promise too.
fn play(seed: u64, planted: Option<Planted>, telling: Telling) -> Result<Told, String> {
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

/// Plays `seeds` on all cores and gives what `told` makes of each, in any order, until one breaks a
/// promise: the smallest such seed of those played.
fn play_all(
    first: u64,
    seeds: u64,
    planted: Option<Planted>,
    told: impl Fn(Told) + Sync,
) -> Result<(), (u64, String)> {
    let next = AtomicU64::new(first);
    let threads = std::thread::available_parallelism().map_or(2, usize::from);
    let player = || loop {
        let seed = next.fetch_add(1, Ordering::Relaxed);
        if seed >= first + seeds {
            return None;
        }
        match play(seed, planted, Telling::Quiet) {
            Ok(end) => told(end),
            Err(broken) => {
                // The others finish the seed they are at.
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
    let (began, first, seeds) = (
        Instant::now(),
        number("FIRST").unwrap_or(0),
        number("SEEDS").unwrap_or(2_000),
    );
    let (played, tasks, starts, lines) = (
        AtomicU64::new(0),
        AtomicU64::new(0),
        AtomicU64::new(0),
        AtomicU64::new(0),
    );
    let rate = |played: u64| played as f64 / began.elapsed().as_secs_f64();
    let broken = play_all(first, seeds, None, |told| {
        tasks.fetch_add(told.tasks as u64, Ordering::Relaxed);
        lines.fetch_add(told.lines, Ordering::Relaxed);
        starts.fetch_add(u64::from(told.starts), Ordering::Relaxed);
        let played = played.fetch_add(1, Ordering::Relaxed) + 1;
        if played.is_multiple_of(10_000) {
            println!("{played} seeds, {:.0} a second", rate(played));
        }
    });
    if let Err((seed, broken)) = broken {
        panic!(
            "{broken}\n\nSEED={seed} cargo test --release --test simulation replay -- --nocapture\nplays this again, line by line"
        );
    }
    let (played, tasks, starts) = (played.into_inner(), tasks.into_inner(), starts.into_inner());
    let (seconds, rate) = (began.elapsed().as_secs_f64(), rate(played));
    println!(
        "{played} seeds in {seconds:.1} s: {rate:.0} a second; {tasks} tasks, {starts} starts of a master, {} events",
        lines.into_inner()
    );
}

#[test]
fn the_same_seed_gives_the_same_history() {
    for seed in 0..40 {
        let told = play(seed, None, Telling::Hashed);
        assert_eq!(told, play(seed, None, Telling::Hashed), "seed {seed}");
    }
}

/// Prints what became of each seed, with the hash of its history: two trees that behave alike print the same.
#[test]
fn histories() {
    let Some(seeds) = number("HISTORIES") else {
        return;
    };
    let first = number("FIRST").unwrap_or(0);
    for seed in first..first + seeds {
        println!("seed {seed}: {:?}", play(seed, None, Telling::Hashed));
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
fn replay() {
    let wanted = std::env::var("PLANTED").unwrap_or_default();
    let planted = Planted::ALL
        .into_iter()
        .find(|planted| format!("{planted:?}") == wanted);
    if let Some(seed) = number("SEED") {
        println!("{:?}", play(seed, planted, Telling::Printed));
    }
}
