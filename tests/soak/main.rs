//! Mixed load for as long as you like, and what it costs: memory of master and runner, disk of the
//! store, throughput, latency. Fails when memory or disk goes on growing.
//!
//! `MINUTES=30 cargo test --release --test soak -- --nocapture` prints a row each half minute.
//! Without `MINUTES` it plays half a minute, which shows that all parts work, and is too short to
//! say what grows.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::print_stderr,
    clippy::expect_used,
    clippy::panic,
    reason = "a test: a broken promise ends it"
)]

mod guests;
mod samples;

use samples::{Sample, Sampler};
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};
use taskmaster_harness::chance::Chance;
use taskmaster_harness::client::Client;
use taskmaster_harness::feeder::{Feeder, Served, Stop};
use taskmaster_harness::ledger::Ledger;
use taskmaster_harness::wat;
use taskmaster_harness::witness::Witness;
use taskmaster_harness::{Master, setting};

/// Short, so that what is kept is soon as much as it will ever be.
const KEEP: &str = "1m,50000";

#[test]
fn a_steady_load_takes_no_more_memory_and_disk_as_time_goes_by() {
    let time = Duration::from_secs_f64(setting::<f64>("MINUTES").unwrap_or(0.5) * 60.0);
    let master = Master::with("master", &["--keep", KEEP]);
    for (name, text) in [
        ("echo.wat", wat::echo()),
        ("flaky.wat", wat::flaky()),
        ("sleep.wat", wat::SLEEP.to_owned()),
        ("trap.wat", wat::TRAP.to_owned()),
        ("version.wat", wat::constant("0")),
    ] {
        master.drop_module(name, text);
    }
    let runner = master.runner("soak", &["--slots", "16"]);
    let (ledger, witness, served, stop) = (
        Ledger::default(),
        Witness::default(),
        Served::default(),
        AtomicBool::new(false),
    );
    let done = samples::Counter::default();
    let sampled = std::thread::scope(|scope| {
        let _stop = Stop(&[&stop]);
        // One follows all events for ever; others come and go. What it writes down is let go of:
        // this is no judge.
        scope.spawn(|| samples::count(&master.url, &done, &witness, &ledger, &stop));
        scope.spawn(|| guests::watchers(&master.url, &stop));
        scope.spawn(|| guests::feeders(&master, &stop));
        scope.spawn(|| guests::replace_module(&master, &stop));
        for index in 0..2 {
            let feeder = Feeder {
                name: format!("f{index}"),
                url: master.url.clone(),
                ledger: &ledger,
                witness: &witness,
                open_max: 500,
                rate: 150,
                nap_ms: 2_000,
                chance: Chance::new(index),
            };
            scope.spawn(|| feeder.run(&stop, &served));
        }
        let mut sampler = Sampler::new(&master, &runner, &done, &served);
        let (began, every) = (Instant::now(), (time / 60).max(Duration::from_secs(2)));
        while began.elapsed() < time {
            std::thread::sleep(every);
            sampler.sample();
            let wrong = ledger.complaints();
            assert!(wrong.is_empty(), "{wrong:?}");
        }
        sampler.samples
    });
    let last: &Sample = sampled.last().unwrap();
    assert!(last.done > 0 && last.adds > 0, "nothing was done");
    if time >= Duration::from_secs(600) {
        samples::judge(&sampled);
    }
    master.still_works();
    drop(Client::dial(&master.url, None).unwrap());
}
