//! The main job: drop a module, feed it work, watch it, change one's mind.

use serde_json::json;
use std::collections::{BTreeMap, BTreeSet};
use taskmaster_harness::wat::{SLEEP, SPIN, TRAP, argument, echo, says};
use taskmaster_harness::{Master, Process, json_lines, micros_between, until, wait_for};

fn with_echo(slots: u32) -> Master {
    let master = Master::up(slots);
    master.drop_module("echo.wat", echo());
    master
}

#[test]
fn a_module_is_live_at_the_first_call_after_its_file_is_there() {
    let master = Master::up(1);
    for n in 0..5 {
        // No waiting: an unknown name makes the master look into the folder.
        std::fs::write(master.tasks().join(format!("m{n}.wat")), echo()).unwrap();
        assert_eq!(
            master
                .run(&["call", &format!("m{n}"), "--params", "7"])
                .with(0)
                .out,
            "7\n"
        );
    }
}

#[test]
fn call_prints_the_result_alone() {
    let master = with_echo(1);
    master.drop_module("greet.wat", says("grüß dich\n", "a log line\n", 0));
    master.drop_module("silent.wat", says("", "", 0));
    master.drop_module("argument.wat", argument());
    for (args, out) in [
        (
            vec!["echo", "--params", r#"{"a": [1, 2.50, "ü"]}"#],
            "{\"a\": [1, 2.50, \"ü\"]}\n",
        ),
        (vec!["echo", "--params", r#""text""#], "text\n"),
        (vec!["greet"], "grüß dich\n"),
        (vec!["silent"], "null\n"),
        (vec!["argument", "--arg", "-x y"], "-x y\n"),
    ] {
        let ran = master.run(&[&["call"], args.as_slice()].concat()).with(0);
        assert_eq!(ran.out, out, "{args:?}");
    }
    assert_eq!(
        master
            .run_with(&["call", "echo", "--params", "-"], " [3] ")
            .with(0)
            .out,
        "[3]\n"
    );
}

#[test]
fn add_prints_an_id_that_can_be_asked_about() {
    let master = with_echo(1);
    let id = master
        .run(&["add", "echo", "--params", "{\"n\":1}"])
        .with(0)
        .out;
    let task = master.wait_state(id.trim(), "done");
    assert_eq!(
        (&task["result"], &task["attempt"], &task["job"]),
        (&json!({"n": 1}), &json!(1), &json!("default"))
    );
    assert_eq!(
        master.run(&["tasks", "result", id.trim()]).with(0).out,
        "{\"n\":1}\n"
    );
    // The same id with the same document changes nothing; with another it is refused.
    master
        .run(&["add", "echo", "--id", "a", "--params", "1"])
        .with(0);
    master
        .run(&["add", "echo", "--id", "a", "--params", "1"])
        .with(0);
    master
        .run(&["add", "echo", "--id", "a", "--params", "2"])
        .with(1)
        .says(&["`a`"]);
    assert_eq!(master.job("default")["total"], 2);
    master
        .run(&["add", "echo", "--wait", "--id", "b", "--params", "5"])
        .with(0);
    assert_eq!(master.task("b")["result"], 5);
}

#[test]
fn a_feed_follows_each_task_to_its_end_once() {
    let master = with_echo(2);
    let lines: String = (0..500)
        .map(|n| {
            format!(
                "{}\n",
                json!({"id": format!("t{n}"), "module": "echo", "params": n})
            )
        })
        .collect();
    let ran = master
        .run_with(&["feed", "--job", "j", "--follow"], &lines)
        .with(0);
    let results: BTreeMap<String, i64> = ran
        .lines()
        .iter()
        .map(|task| {
            (
                task["id"].as_str().unwrap().to_owned(),
                task["result"].as_i64().unwrap(),
            )
        })
        .collect();
    assert_eq!(ran.lines().len(), 500);
    assert!((0..500).all(|n| results[&format!("t{n}")] == n));
    let job = master.job("j");
    assert_eq!(
        (&job["done"], &job["total"], &job["open"]),
        (&json!(500), &json!(500), &json!(false))
    );
    // Again: nothing is run twice, and every end is told all the same.
    let again = master
        .run_with(&["feed", "--job", "j", "--follow"], &lines)
        .with(0);
    assert_eq!(again.lines().len(), 500);
    assert_eq!(master.job("j")["total"], 500);
}

#[test]
fn a_feed_may_be_an_array_a_file_or_a_stream() {
    let master = with_echo(1);
    let array = r#"[{"module":"echo","params":1}, {"module":"echo","params":2}]"#;
    master
        .run_with(&["feed", "--job", "array", "--wait"], array)
        .with(0);
    assert_eq!(master.job("array")["done"], 2);
    let file = master.folder.write(
        "feed.jsonl",
        "{\"module\":\"echo\"}\n\n{\"module\":\"echo\"}",
    );
    master
        .run(&["feed", &file, "--job", "file", "--wait"])
        .with(0)
        .says(&["done 2"]);
    master.run(&["feed", &file]).with(0).says(&["job feed-"]);
}

#[test]
fn dependencies_order_results_and_skips() {
    let master = with_echo(2);
    master.drop_module("trap.wat", TRAP);
    let lines = [
        // Forward references are legal.
        json!({"id": "sum", "module": "echo", "params": [{"$result": "a"}, {"$results": ["a", "b"]}, {"$literal": {"$result": 1}}]}),
        json!({"id": "a", "module": "echo", "params": {"x": 1}}),
        json!({"id": "b", "module": "echo", "params": 2, "dependencies": ["a"]}),
        json!({"id": "bad", "module": "trap"}),
        json!({"id": "after-bad", "module": "echo", "dependencies": ["bad"]}),
        json!({"id": "after-that", "module": "echo", "dependencies": ["after-bad"]}),
        json!({"id": "cleanup", "module": "echo", "dependencies": [{"on": "bad", "when": "failed"}], "params": 1}),
        json!({"id": "either", "module": "echo", "dependencies": [{"on": "bad", "when": "settled"}], "params": 1}),
        json!({"id": "never", "module": "echo", "dependencies": [{"on": "a", "when": "failed"}]}),
    ];
    let lines: String = lines.iter().map(|line| format!("{line}\n")).collect();
    master
        .run_with(&["feed", "--job", "dag", "--wait"], &lines)
        .with(3);
    assert_eq!(
        master.task("sum")["result"],
        json!([{"x": 1}, [{"x": 1}, 2], {"$result": 1}])
    );
    let states = [
        "b",
        "bad",
        "after-bad",
        "after-that",
        "cleanup",
        "either",
        "never",
    ]
    .map(|id| master.task(id)["state"].clone());
    assert_eq!(
        states,
        [
            "done", "failed", "skipped", "skipped", "done", "done", "skipped"
        ]
    );
    assert!(
        master.why("after-that").contains("after-bad") || master.why("after-that").contains("bad")
    );
    // `retry` runs it anew and revives what it skipped.
    let before = master.task("bad");
    master.run(&["tasks", "retry", "bad"]).with(0);
    let after = wait_for("the retried task's end", || {
        Some(master.task("bad"))
            .filter(|task| task["state"] == "failed" && task["finished"] != before["finished"])
    });
    assert!(micros_between(&before["finished"], &after["finished"]) > 0);
    master.drop_module("other.wat", echo());
    std::fs::write(master.tasks().join("trap.wat"), echo()).unwrap();
    let version = master.task("bad")["version"].clone();
    until("the repaired module", || {
        master.module("trap")["version"] != version
    });
    master.run(&["tasks", "retry", "bad"]).with(0);
    master.wait_state("after-that", "done");
    assert_eq!(master.task("after-bad")["state"], "done");
}

#[test]
fn a_skipped_task_waits_for_no_other_task_of_the_same_id() {
    let master = Master::with("up", &["--slots", "1", "--keep", "10s"]);
    master.drop_module("echo.wat", echo());
    master
        .run(&["add", "echo", "--id", "first", "--wait"])
        .with(0);
    master
        .run(&["add", "echo", "--id", "cause", "--delay", "1h"])
        .with(0);
    master
        .run(&[
            "add", "echo", "--id", "skipped", "--after", "cause", "--after", "first",
        ])
        .with(0);
    // Those two are to be kept for longer than the first.
    std::thread::sleep(std::time::Duration::from_secs(7));
    master.run(&["tasks", "cancel", "cause"]).with(0);
    master.wait_state("skipped", "skipped");
    until("the first one to be forgotten", || {
        master.run(&["tasks", "show", "first"]).code != 0
    });
    master
        .run(&["add", "echo", "--id", "first", "--delay", "1h"])
        .with(0);
    master.run(&["tasks", "retry", "cause"]).with(0);
    master.wait_state("cause", "done");
    assert_eq!(master.task("skipped")["state"], "skipped");
    master
        .run(&["tasks", "retry", "skipped"])
        .with(1)
        .says(&["`first`", "no longer kept"]);
}

#[test]
fn priority_decides_who_is_next() {
    let master = with_echo(1);
    let mut lines = format!(
        "{}\n",
        json!({"id": "gate", "module": "echo", "delay_ms": 300})
    );
    for n in [1, 5, -3, 9, 5] {
        let id = format!("p{}", lines.lines().count());
        lines += &format!(
            "{}\n",
            json!({"id": id, "module": "echo", "params": n, "priority": n, "dependencies": ["gate"]})
        );
    }
    let ran = master.run_with(&["feed", "--follow"], &lines).with(0);
    let mut ends: Vec<_> = ran
        .lines()
        .into_iter()
        .filter(|task| task["id"] != "gate")
        .collect();
    ends.sort_by_key(|task| task["started"].as_str().unwrap().to_owned());
    let order: Vec<_> = ends
        .iter()
        .map(|task| task["result"].as_i64().unwrap())
        .collect();
    assert_eq!(order, [9, 5, 5, 1, -3]);
}

#[test]
fn set_changes_an_open_task() {
    let master = with_echo(1);
    master.drop_module("sleep.wat", SLEEP);
    master
        .run(&["add", "sleep", "--params", "800", "--id", "busy"])
        .with(0);
    master.wait_state("busy", "assigned");
    master.run(&["add", "echo", "--id", "first"]).with(0);
    master.run(&["add", "echo", "--id", "second"]).with(0);
    master
        .run(&["add", "echo", "--id", "later", "--delay", "1h"])
        .with(0);
    assert!(
        master.why("later").contains("may not start before"),
        "{}",
        master.why("later")
    );
    master
        .run(&["tasks", "set", "second", "--priority", "9"])
        .with(0);
    assert_eq!(master.task("second")["priority"], 9);
    let (first, second) = (
        master.wait_state("first", "done"),
        master.wait_state("second", "done"),
    );
    assert!(
        second["started"].as_str() < first["started"].as_str(),
        "{first} {second}"
    );
    assert_eq!(master.task("later")["state"], "delayed");
    master
        .run(&["tasks", "set", "later", "--delay", "0s"])
        .with(0);
    master.wait_state("later", "done");
    master
        .run(&["tasks", "set", "later", "--priority", "1"])
        .with(1)
        .says(&["`later`", "ended"]);
}

#[test]
fn cancel_takes_what_is_open_and_nothing_else() {
    let master = with_echo(1);
    master.drop_module("spin.wat", SPIN);
    master
        .run(&["add", "spin", "--id", "running", "--job", "c"])
        .with(0);
    master.wait_state("running", "assigned");
    master
        .run(&["add", "echo", "--id", "waiting", "--job", "c"])
        .with(0);
    master
        .run(&[
            "add",
            "echo",
            "--id",
            "dependent",
            "--job",
            "c",
            "--after",
            "running",
        ])
        .with(0);
    master.run(&["add", "echo", "--id", "elsewhere"]).with(0);
    master.run(&["tasks", "cancel", "--job", "c"]).with(0);
    for id in ["running", "waiting", "dependent"] {
        let task = master.wait_state(id, "cancelled");
        assert_eq!(task["error"]["kind"], "cancelled", "{task}");
    }
    master.wait_state("elsewhere", "done");
    master.run(&["jobs", "wait", "c"]).with(4);
    master.run(&["tasks", "result", "running"]).with(4);
    master
        .run(&["tasks", "cancel", "elsewhere"])
        .with(1)
        .says(&["`elsewhere` is done"]);
    master.run(&["tasks", "retry", "waiting"]).with(0);
    master.wait_state("waiting", "done");
}

#[test]
fn a_paused_job_waits_and_says_so() {
    let master = with_echo(1);
    master
        .run(&["add", "echo", "--id", "a", "--job", "p", "--wait"])
        .with(0);
    master.run(&["jobs", "pause", "p"]).with(0);
    master
        .run(&["add", "echo", "--id", "b", "--job", "p"])
        .with(0);
    // Others pass.
    master.still_works();
    assert_eq!(master.task("b")["state"], "ready");
    assert!(
        master.why("b").contains("job `p` is paused"),
        "{}",
        master.why("b")
    );
    assert_eq!(master.job("p")["paused"], true);
    master
        .run(&["jobs", "wait", "p", "--wait-timeout", "200ms"])
        .with(5);
    master.run(&["jobs", "resume", "p"]).with(0);
    master.run(&["jobs", "wait", "p"]).with(0);
    master.run(&["modules", "pause", "echo"]).with(0);
    master.run(&["add", "echo", "--id", "c"]).with(0);
    assert!(
        master.why("c").contains("module `echo` is paused"),
        "{}",
        master.why("c")
    );
    master.run(&["modules", "resume", "echo"]).with(0);
    master.wait_state("c", "done");
}

#[test]
fn a_watcher_sees_a_task_from_beginning_to_end() {
    let master = with_echo(1);
    master.drop_module(
        "chatty.wat",
        says(
            "1",
            "::progress 0.5 half\nplain log\n::partial {\"x\":1}\n",
            0,
        ),
    );
    let mut watch = master.spawn(&["watch", "--since", "0", "--filter", "task=seen"]);
    let tested = |watch: &Process| {
        let lines = watch.printed();
        let whole = &lines[..lines.rfind('\n').map_or(0, |end| end + 1)];
        json_lines(whole)
    };
    // Live events come only to who is there already: a first task shows that the watch is on.
    let mut rounds = 0;
    until("the watch", || {
        rounds += 1;
        master
            .run(&["add", "echo", "--id", &format!("probe{rounds}"), "--wait"])
            .with(0);
        let mut probe = master.spawn(&["watch", "--since", "0"]);
        until("an event", || !probe.printed().is_empty());
        probe.kill();
        !watch.has_ended()
    });
    master
        .run(&["add", "chatty", "--id", "seen", "--wait"])
        .with(0);
    until("the last event", || {
        tested(&watch)
            .iter()
            .any(|event| event["event"] == "task:done")
    });
    let events = tested(&watch);
    assert!(events.iter().all(|event| event["task"] == "seen"));
    let names: BTreeSet<&str> = events
        .iter()
        .map(|event| event["event"].as_str().unwrap())
        .collect();
    for name in ["task:added", "task:done"] {
        assert!(names.contains(name), "{name} is missing in {names:?}");
    }
    let seqs: Vec<u64> = events
        .iter()
        .filter_map(|event| event["seq"].as_u64())
        .collect();
    assert!(seqs.windows(2).all(|pair| pair[0] < pair[1]), "{seqs:?}");
    assert!(
        master
            .run(&["tasks", "logs", "seen"])
            .with(0)
            .out
            .contains("plain log")
    );
    assert!(
        !master
            .run(&["tasks", "logs", "seen"])
            .with(0)
            .out
            .contains("::progress"),
        "a directive is no log"
    );
    watch.kill();
}

#[test]
fn lists_are_filtered() {
    let master = with_echo(1);
    master.drop_module("trap.wat", TRAP);
    master
        .run(&["add", "echo", "--id", "good", "--job", "x", "--wait"])
        .with(0);
    master
        .run(&["add", "trap", "--id", "bad", "--job", "y", "--wait"])
        .with(3);
    let ids = |args: &[&str]| {
        master
            .run(&[&["tasks", "list", "-o", "quiet"], args].concat())
            .with(0)
            .out
    };
    assert_eq!(ids(&["--state", "failed"]), "bad\n");
    assert_eq!(ids(&["--job", "x"]), "good\n");
    assert_eq!(ids(&["--module", "trap"]), "bad\n");
    assert_eq!(ids(&["--limit", "1"]).lines().count(), 1);
    assert_eq!(ids(&["--state", "blocked"]), "");
    assert_eq!(
        master
            .run(&["jobs", "list", "-o", "quiet"])
            .with(0)
            .out
            .lines()
            .collect::<BTreeSet<_>>(),
        BTreeSet::from(["x", "y"])
    );
    master.run(&["doctor"]).with(0);
}
