//! The whole cluster in one thread from one seed: the real engine, journal, view and runner sessions in a simulated
//! world of feeders, networks, disks and processes that fail; and an oracle that knows what was promised.
//!
//! `SEEDS=100000 cargo test --release --test simulation` plays that many; `SEED=17 cargo test --release --test
//! simulation -- --nocapture replay` plays one and prints it.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test: a broken promise ends it")]

mod chance;
mod disk;
mod feeders;
mod history;
mod master;
mod model;
mod network;
mod oracle;
mod planted;
mod runners;
mod world;

use planted::Planted;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Instant;
use world::{Told, World};

/// Plays a seed to its end; a panic of ours is a broken promise too.
fn play(seed: u64, planted: Option<Planted>, loud: bool) -> Result<Told, String> {
    let played = catch_unwind(AssertUnwindSafe(|| World::new(seed, planted, loud).play()));
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

#[test]
fn two_thousand_seeds_hold() {
    let (began, seeds) = (Instant::now(), number("SEEDS").unwrap_or(1_000));
    let (mut tasks, mut starts) = (0, 0);
    for seed in 0..seeds {
        match play(seed, None, false) {
            Ok(told) => (tasks, starts) = (tasks + told.tasks, starts + told.starts),
            Err(broken) => panic!(
                "{broken}\n\nSEED={seed} cargo test --release --test simulation -- --nocapture replay\nplays this again"
            ),
        }
    }
    let seconds = began.elapsed().as_secs_f64();
    let rate = seeds as f64 / seconds;
    println!("{seeds} seeds in {seconds:.1} s: {rate:.0} a second; {tasks} tasks, {starts} starts of a master");
}

#[test]
fn the_same_seed_gives_the_same_history() {
    for seed in 0..40 {
        assert_eq!(play(seed, None, false), play(seed, None, false), "seed {seed}");
    }
}

#[test]
fn planted_bugs_are_found() {
    for planted in Planted::ALL {
        let found = (0..500).find_map(|seed| play(seed, Some(planted), false).err().map(|broken| (seed, broken)));
        let (seed, broken) = found.unwrap_or_else(|| panic!("{planted:?} is not found within 500 seeds"));
        let broken: String = broken.chars().take(160).collect();
        println!("{planted:?} is found by seed {seed}: {broken}");
    }
}

#[test]
fn replay() {
    if let Some(seed) = number("SEED") {
        println!("{:?}", play(seed, None, true));
    }
}
