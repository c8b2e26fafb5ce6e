//! The real binary under a steady load, killed, paused and cut off at random moments: nothing that
//! was acknowledged is lost, and nothing is done twice.
//!
//! `KILLS=200 cargo test --release --test crash -- --nocapture kills` kills the master and runners
//! 200 times each and prints what it took; `SEED=7` draws other moments. The moments are the
//! machine's too, so a seed does not play the same history again.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::print_stderr,
    clippy::expect_used,
    clippy::panic,
    reason = "a test: a broken promise ends it"
)]

mod cluster;
mod faults;
mod feeds;
mod judge;
mod proxy;
mod tails;

use cluster::Cluster;
use faults::{Done, Faults};
use feeds::Feeds;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use taskmaster_harness::chance::Chance;
use taskmaster_harness::feeder::{Feeder, Served, Stop};
use taskmaster_harness::ledger::Ledger;
use taskmaster_harness::witness::{Witness, replay};
use taskmaster_harness::{setting, until};

/// What a run has left behind.
struct Run {
    cluster: Cluster,
    ledger: Ledger,
    witness: Witness,
    feeds: Feeds,
    done: Done,
}

/// The load and the faults, until all that was added has ended.
fn run(kills: u32, seed: u64) -> Run {
    let mut cluster = Cluster::new(3);
    cluster.wait_ready();
    let (ledger, witness, served, feeds) = (
        Ledger::default(),
        Witness::default(),
        Served::default(),
        Feeds::new(),
    );
    let (url, by_proxy) = (cluster.url.clone(), cluster.proxy.url.clone());
    let (load_stop, watch_stop) = (AtomicBool::new(false), AtomicBool::new(false));
    let done = std::thread::scope(|scope| {
        let _stop = Stop(&[&load_stop, &watch_stop]);
        scope.spawn(|| witness.run(&url, &watch_stop));
        let feeder = |(index, url): (usize, &String)| Feeder {
            name: format!("f{index}"),
            url: url.clone(),
            ledger: &ledger,
            witness: &witness,
            open_max: 300,
            rate: 150,
            nap_ms: 400,
            chance: Chance::new(seed * 100 + index as u64),
        };
        let feeders = [&url, &by_proxy].into_iter().enumerate().map(feeder);
        let feeders: Vec<_> = feeders
            .map(|feeder| scope.spawn(|| feeder.run(&load_stop, &served)))
            .collect();
        let feeding = scope.spawn(|| feeds.run(&[&url, &by_proxy], &load_stop));
        let mut faults = Faults::new(&mut cluster, &witness, Chance::new(seed));
        faults.run(kills);
        load_stop.store(true, Ordering::Relaxed);
        feeders
            .into_iter()
            .for_each(|feeder| feeder.join().unwrap());
        feeding.join().unwrap();
        until("every task to end", || witness.open(&ledger) == 0);
        std::mem::take(&mut faults.done)
    });
    Run {
        cluster,
        ledger,
        witness,
        feeds,
        done,
    }
}

#[test]
fn kills_pauses_and_cuts_lose_nothing() {
    let kills: u32 = setting("KILLS").unwrap_or(20);
    let seed: u64 = setting("SEED").unwrap_or(1);
    println!("SEED={seed} KILLS={kills}");
    let began = Instant::now();
    let Run {
        cluster,
        ledger,
        witness,
        feeds,
        done,
    } = run(kills, seed);
    let heard = witness.seen();
    let mut wrong = heard.wrong.clone();
    wrong.extend(ledger.complaints());
    wrong.extend(feeds.wrong());
    // What the journal tells a stranger is what was told while it happened, event by event.
    let journal = replay(&cluster.url, heard.seq);
    if journal.digests != heard.digests {
        wrong.push("the journal tells other events than were told before".into());
    }
    let verdict = judge::judge(&ledger, &journal, &mut wrong);
    for (job, (total, done, cancelled)) in judge::counts(&ledger, &journal) {
        let shown = cluster.job(&job);
        if shown["total"] != total
            || shown["done"] != done
            || shown["cancelled"] != cancelled
            || shown["open"] != false
        {
            wrong.push(format!(
                "{job} should have {total}, {done} done, {cancelled} cancelled: {shown}"
            ));
        }
    }
    println!(
        "{}",
        judge::report(
            &verdict,
            judge::repeated(&ledger, &heard),
            &done,
            &cluster.proxy,
            began.elapsed()
        )
    );
    println!(
        "  fed by {} runs of `feed --follow`, each line once: {}",
        feeds.ran(),
        feeds.lines()
    );
    assert!(
        wrong.is_empty(),
        "{} promises are broken:\n{}",
        wrong.len(),
        wrong[..wrong.len().min(50)].join("\n")
    );
    assert_eq!(
        verdict.done_once + verdict.cancelled + verdict.poison,
        verdict.acknowledged
    );
    assert!(
        verdict.poison <= kills.div_ceil(20) as usize,
        "kills alone do not make so many poison: {verdict:?}"
    );
    assert!(
        done.master_kills == kills
            && done.runner_kills == kills
            && cluster.proxy.cuts() > 0
            && done.held > 0
    );
    // A second of grace is part of it. The median: on a machine that has other things to do, a
    // single one may be late.
    let rerun = judge::percentile(&done.runner.alone, 0.5);
    assert!(
        rerun <= Duration::from_secs(2),
        "what dead runners held ran elsewhere after {rerun:?}"
    );
}
