//! What a signal does to each role while tasks run, and what a drain looks like from outside.

use serde_json::json;
use taskmaster_harness::wat::{SLEEP, echo};
use taskmaster_harness::{Master, Process, until};

/// A master with a runner of one slot that sleeps for so long, and a task behind it.
fn busy(more: &[&str], sleep_ms: u32) -> (Master, Process) {
    let master = Master::with("master", more);
    master.drop_module("echo.wat", echo());
    master.drop_module("sleep.wat", SLEEP);
    let runner = master.runner("r", &["--slots", "1"]);
    master
        .run(&[
            "add",
            "sleep",
            "--params",
            &sleep_ms.to_string(),
            "--id",
            "s",
        ])
        .with(0);
    // What has not begun would be given back.
    until("the task to have started", || {
        !master.task("s")["started"].is_null()
    });
    master
        .run(&["add", "sleep", "--params", "1", "--id", "next"])
        .with(0);
    (master, runner)
}

fn stopping(process: &Process) {
    process.signal("TERM");
    until("it to say that it stops", || {
        process.said().contains("stopping: running tasks may go on")
    });
}

#[test]
fn a_stopping_master_takes_no_more_and_lets_tasks_finish() {
    let (mut master, mut runner) = busy(&["--grace", "1h"], 4_000);
    stopping(&master.process);
    master
        .run(&["add", "echo", "--id", "late", "-o", "json"])
        .with(1)
        .says(&["unavailable", "the master is stopping"]);
    assert!(
        master.why("next").contains("the master is stopping"),
        "{}",
        master.why("next")
    );
    assert_eq!(
        master.process.exit_code(),
        Some(0),
        "{}",
        master.process.said()
    );
    runner.kill();
    master.start_again();
    let task = master.task("s");
    assert_eq!(
        (&task["state"], &task["attempt"]),
        (&json!("done"), &json!(1)),
        "it ended before the master did: {task}"
    );
    assert_eq!(master.task("next")["state"], "ready");
    master
        .run(&["tasks", "show", "late"])
        .with(1)
        .says(&["late"]);
}

#[test]
fn what_runs_longer_than_the_grace_goes_on_under_the_next_master() {
    let (mut master, _runner) = busy(&["--grace", "200ms"], 3_000);
    assert_eq!(
        master.process.terminate(),
        Some(0),
        "{}",
        master.process.said()
    );
    master.start_again();
    let task = master.wait_state("s", "done");
    assert_eq!(task["attempt"], 1, "adopted, not run again: {task}");
    master.wait_state("next", "done");
}

#[test]
fn a_feed_waits_for_the_next_master() {
    let (mut master, _runner) = busy(&["--grace", "1h"], 1_500);
    stopping(&master.process);
    let lines: String = (0..3_000)
        .map(|n| format!("{}\n", json!({"module": "echo", "params": n})))
        .collect();
    let file = master.folder.write("feed.jsonl", lines);
    let mut feed = master.spawn(&["feed", &file, "--job", "j", "--wait"]);
    assert_eq!(
        master.process.exit_code(),
        Some(0),
        "{}",
        master.process.said()
    );
    master.start_again();
    assert_eq!(feed.exit_code(), Some(0), "{}", feed.said());
    assert_eq!(master.job("j")["done"], 3_000);
}

#[test]
fn a_second_signal_ends_each_role_at_once() {
    let (mut master, mut runner) = busy(&["--grace", "1h"], 600_000);
    stopping(&master.process);
    assert_eq!(master.process.terminate(), Some(1));
    runner.signal("TERM");
    until("the runner to say that it drains", || {
        runner.said().contains("draining")
    });
    assert_eq!(runner.terminate(), Some(1), "its grace is 30 s");
    assert!(
        runner.said().contains("ended by a second signal"),
        "{}",
        runner.said()
    );
    master.start_again();
    assert_eq!(
        master.task("next")["state"],
        "ready",
        "what was acknowledged is there"
    );
}

#[test]
fn up_lets_its_own_runner_finish() {
    let mut up = Master::up(1);
    up.drop_module("sleep.wat", SLEEP);
    up.run(&["add", "sleep", "--params", "1500", "--id", "s"])
        .with(0);
    up.wait_state("s", "assigned");
    assert_eq!(up.process.terminate(), Some(0), "{}", up.process.said());
    let mut again = up;
    again.start_again();
    let task = again.task("s");
    assert_eq!(
        (&task["state"], &task["attempt"]),
        (&json!("done"), &json!(1)),
        "{task}"
    );
}

#[test]
fn a_drain_is_seen_while_it_lasts() {
    let (master, mut runner) = busy(&[], 2_000);
    let state = |master: &Master| {
        let list = master.json(&["runners", "list"]);
        list.as_array()
            .unwrap()
            .iter()
            .find(|r| r["runner"] == "r")
            .map(|r| r["state"].as_str().unwrap().to_owned())
    };
    assert_eq!(state(&master).as_deref(), Some("connected"));
    master.run(&["runners", "drain", "r"]).with(0);
    assert_eq!(state(&master).as_deref(), Some("draining"));
    assert_eq!(runner.exit_code(), Some(0), "{}", runner.said());
    assert_eq!(master.task("s")["state"], "done", "it finished what it had");
    assert_eq!(master.task("next")["state"], "ready", "and took no more");
    assert_eq!(state(&master), None);
}
