//! Whether every promise was kept, and the table of what it took.

use crate::faults::{Done, Times};
use crate::proxy::Proxy;
use std::collections::{BTreeMap, HashMap};
use std::fmt::Write;
use std::time::Duration;
use taskmaster_harness::ledger::{Expected, Ledger};
use taskmaster_harness::witness::{End, Seen};

/// What was found; all but the numbers of these four ends must be 0: done, cancelled, poison, and
/// all.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Verdict {
    pub acknowledged: usize,
    pub done_once: usize,
    pub cancelled: usize,
    pub done_twice: usize,
    pub lost: usize,
    /// Failed as poison, because by chance too many runners were killed under them; or skipped
    /// after such a one.
    pub poison: usize,
    /// Ended in another way than was acknowledged, or with the result of another task.
    pub otherwise: usize,
}

/// A task whose runner was killed five times is failed, and says so; what depends on it is skipped.
/// That is promised too.
fn is_poison(ends: &HashMap<String, End>, id: &str) -> bool {
    let Some(end) = ends.get(id) else {
        return false;
    };
    let message = end.error["message"].as_str().unwrap_or_default();
    match end.state.as_str() {
        "failed" => {
            end.error["kind"] == "runner_lost" && message.contains("lost 5 times while it ran")
        }
        "skipped" => message
            .split('`')
            .nth(1)
            .is_some_and(|on| on != id && is_poison(ends, on)),
        _ => false,
    }
}

/// Compares what was acknowledged with what the journal tells.
pub fn judge(ledger: &Ledger, journal: &Seen, wrong: &mut Vec<String>) -> Verdict {
    let promises = ledger.promises();
    let mut verdict = Verdict {
        acknowledged: promises.len(),
        ..Verdict::default()
    };
    for (id, promise) in promises.iter() {
        let Some(end) = journal.ends.get(id) else {
            verdict.lost += 1;
            wrong.push(format!("{id} was acknowledged and is lost: {promise:?}"));
            continue;
        };
        let as_promised = match &promise.expected {
            Expected::Done(result) => end.state == "done" && end.result == *result,
            Expected::Cancelled => end.state == "cancelled",
            Expected::Either(result) => {
                end.state == "cancelled" || (end.state == "done" && end.result == *result)
            }
        };
        match (as_promised, end.times) {
            (true, 1) if end.state == "done" => verdict.done_once += 1,
            (true, 1) => verdict.cancelled += 1,
            (false, 1) if is_poison(&journal.ends, id) => verdict.poison += 1,
            (true, _) => {
                verdict.done_twice += 1;
                wrong.push(format!("{id} ended {} times", end.times));
            }
            (false, _) => {
                verdict.otherwise += 1;
                let (state, result, error) = (&end.state, &end.result, &end.error);
                wrong.push(format!(
                    "{id} is {state}, result {result}, error {error}; promised was {promise:?}"
                ));
            }
        }
    }
    verdict
}

/// What each job must say of itself: its total, how many are done, how many cancelled.
pub fn counts(ledger: &Ledger, journal: &Seen) -> BTreeMap<String, (u64, u64, u64)> {
    let mut jobs: BTreeMap<String, (u64, u64, u64)> = BTreeMap::new();
    for (id, promise) in ledger.promises().iter() {
        let job = jobs.entry(promise.job.clone()).or_default();
        job.0 += 1;
        match journal.ends.get(id).map(|end| end.state.as_str()) {
            Some("done") => job.1 += 1,
            Some("cancelled") => job.2 += 1,
            _ => {}
        }
    }
    jobs
}

/// Tasks lent to a runner more often than they need to be: how often in all, and the one most
/// often; the witness hears of most of it.
pub fn repeated(ledger: &Ledger, heard: &Seen) -> (u64, u64) {
    let promises = ledger.promises();
    let more = |(id, lent): (&String, &u64)| {
        lent.saturating_sub(promises.get(id).map_or(1, |promise| promise.attempts))
    };
    (
        heard.lent.iter().map(more).sum(),
        heard.lent.iter().map(more).max().unwrap_or(0),
    )
}

pub fn percentile(times: &[Duration], part: f64) -> Duration {
    let mut sorted = times.to_vec();
    sorted.sort();
    let at = ((sorted.len() as f64 * part).ceil() as usize).clamp(1, sorted.len().max(1)) - 1;
    sorted.get(at).copied().unwrap_or_default()
}

fn row(table: &mut String, name: &str, times: &[Duration]) {
    let ms = |part| percentile(times, part).as_millis();
    let (count, max) = (times.len(), ms(1.0));
    let _ = writeln!(
        table,
        "  {name:<58} {count:>5} {:>8} {:>8} {max:>8}",
        ms(0.5),
        ms(0.99)
    );
}

fn rows(table: &mut String, name: &str, times: &Times) {
    row(table, name, &times.alone);
    row(table, "  on top of other faults", &times.among);
}

/// The table for people.
pub fn report(
    verdict: &Verdict,
    repeated: (u64, u64),
    done: &Done,
    proxy: &Proxy,
    took: Duration,
) -> String {
    let mut table = String::new();
    let _ = writeln!(
        table,
        "{} kills of the master, {} of runners ({} tasks held); {} and {} pauses; {} connections cut in mid frame; {} s",
        done.master_kills,
        done.runner_kills,
        done.held,
        done.master_pauses,
        done.runner_pauses,
        proxy.cuts(),
        took.as_secs()
    );
    for (name, number) in [
        ("acknowledged", verdict.acknowledged),
        ("done once", verdict.done_once),
        ("cancelled, as acknowledged", verdict.cancelled),
        (
            "failed as poison, five runners killed under it",
            verdict.poison,
        ),
        ("done twice", verdict.done_twice),
        ("lost", verdict.lost),
        ("ended otherwise", verdict.otherwise),
        ("lent to a runner again", repeated.0 as usize),
        ("  one task, at the most", repeated.1 as usize),
    ] {
        let _ = writeln!(table, "  {name:<58} {number:>5}");
    }
    let _ = writeln!(
        table,
        "  {:<58} {:>5} {:>8} {:>8} {:>8}",
        "time of healing, ms", "", "p50", "p99", "max"
    );
    rows(
        &mut table,
        "kill of the master → next task durably done",
        &done.master,
    );
    rows(
        &mut table,
        "kill of a runner → all it held runs elsewhere",
        &done.runner,
    );
    row(
        &mut table,
        "pause of a runner → all it held runs elsewhere",
        &done.paused_runner,
    );
    row(
        &mut table,
        "master wakes from a pause → next task done",
        &done.woken_master,
    );
    row(
        &mut table,
        "half-open connection → hung up",
        &proxy.noticed().0,
    );
    table
}

#[test]
fn every_way_to_break_a_promise_is_told() {
    use taskmaster_harness::ledger::Promise;
    let (ledger, mut journal) = (Ledger::default(), Seen::default());
    let mut told = |id: &str, expected: Expected, state: &str, times: u32, result: u64| {
        ledger.acknowledged(
            id,
            Promise {
                job: "j".into(),
                expected,
                attempts: 1,
            },
        );
        if times > 0 {
            let error = serde_json::json!({"kind": "runner_lost", "message": "its runner was lost 5 times while it ran"});
            let (result, at) = (result.into(), std::time::Instant::now());
            let end = End {
                state: state.into(),
                times,
                result,
                error,
                at,
            };
            journal.ends.insert(id.into(), end);
        }
    };
    told("good", Expected::Done(1), "done", 1, 1);
    told("free", Expected::Either(1), "cancelled", 1, 0);
    told("twice", Expected::Done(1), "done", 2, 1);
    told("lost", Expected::Done(1), "", 0, 0);
    told("of another", Expected::Done(1), "done", 1, 2);
    told("poison", Expected::Done(1), "failed", 1, 0);
    told("ran on", Expected::Cancelled, "done", 1, 1);
    let mut wrong = Vec::new();
    let verdict = judge(&ledger, &journal, &mut wrong);
    let expected = Verdict {
        acknowledged: 7,
        done_once: 1,
        cancelled: 1,
        done_twice: 1,
        lost: 1,
        poison: 1,
        otherwise: 2,
    };
    assert_eq!((verdict, wrong.len()), (expected, 4));
}
