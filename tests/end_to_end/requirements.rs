//! What a task requires of its runner; and that `why` says what is missing.

use serde_json::json;
use taskmaster_harness::Master;
use taskmaster_harness::wat::{SLEEP, echo};

fn master() -> Master {
    let master = Master::with("master", &[]);
    master.drop_module("echo.wat", echo());
    master.drop_module("sleep.wat", SLEEP);
    master
}

#[test]
fn a_task_waits_for_a_runner_that_suits() {
    let master = master();
    master.run(&["add", "echo", "--id", "any"]).with(0);
    assert!(
        master.why("any").contains("no runner is connected"),
        "{}",
        master.why("any")
    );
    let _plain = master.runner("plain", &["--slots", "1"]);
    master.wait_state("any", "done");
    master
        .run(&["add", "echo", "--id", "eu", "--label", "zone=eu"])
        .with(0);
    let requires = [
        json!({"id": "os", "module": "echo", "requires": {"os": "plan9"}}),
        json!({"id": "arch", "module": "echo", "requires": {"arch": "pdp11"}}),
        json!({"id": "env", "module": "echo", "requires": {"env": ["GPU"]}}),
        json!({"id": "huge", "module": "echo", "requires": {"memory_mb": 999_999_999_u64}}),
        json!({"id": "here", "module": "echo", "requires": {"os": std::env::consts::OS, "arch": std::env::consts::ARCH, "memory_mb": 1}}),
    ];
    master
        .run_with(
            &["feed"],
            &requires.map(|line| format!("{line}\n")).concat(),
        )
        .with(0);
    assert_eq!(master.wait_state("here", "done")["runner"], "plain");
    for (id, word) in [
        ("eu", "zone"),
        ("os", "plan9"),
        ("arch", "pdp11"),
        ("env", "GPU"),
        ("huge", "999999999"),
    ] {
        assert_eq!(master.task(id)["state"], "ready");
        let why = master.why(id);
        assert!(
            why.contains("none of 1 connected runner") && why.contains(word),
            "{id}: {why}"
        );
    }
    let _eu = master.runner("eu", &["--label", "zone=eu", "--env", "GPU"]);
    assert_eq!(master.wait_state("eu", "done")["runner"], "eu");
    assert_eq!(master.wait_state("env", "done")["runner"], "eu");
    let shown = master.json(&["runners", "show", "eu"]);
    assert_eq!(shown["offer"]["labels"], json!({"zone": "eu"}));
}

#[test]
fn a_runner_may_take_some_modules_only() {
    let master = master();
    let _sleeper = master.runner("sleeper", &["--modules", "sleep"]);
    master.run(&["add", "echo", "--id", "e"]).with(0);
    master
        .run(&["add", "sleep", "--params", "1", "--id", "s", "--wait"])
        .with(0);
    assert_eq!(master.task("e")["state"], "ready");
    assert!(master.why("e").contains("`echo`"), "{}", master.why("e"));
    let _echoer = master.runner("echoer", &["--modules", "echo,other"]);
    assert_eq!(master.wait_state("e", "done")["runner"], "echoer");
}

#[test]
fn a_task_may_take_several_slots() {
    let master = master();
    let _runner = master.runner("r", &["--slots", "2"]);
    master
        .run(&["add", "echo", "--id", "wide", "--slots", "3"])
        .with(0);
    master.still_works();
    let why = master.why("wide");
    assert!(
        why.contains("none of 1 connected runner") && why.contains("\"slots\":3"),
        "{why}"
    );
    // Two slots at once: it waits until both are free, and nobody overtakes it for ever.
    master
        .run(&["add", "sleep", "--id", "busy", "--params", "1500"])
        .with(0);
    master.wait_state("busy", "assigned");
    master
        .run(&["add", "echo", "--id", "both", "--slots", "2"])
        .with(0);
    let why = master.why("both");
    assert!(
        why.contains("keeps its slots") && why.contains("1 of the 2"),
        "{why}"
    );
    let both = master.wait_state("both", "done");
    let busy = master.task("busy");
    assert!(
        busy["finished"].as_str() <= both["started"].as_str(),
        "{busy} {both}"
    );
}

#[test]
fn a_runner_that_drains_takes_no_more() {
    let master = master();
    let mut first = master.runner("first", &[]);
    master.still_works();
    master.run(&["runners", "drain", "first"]).with(0);
    assert_eq!(first.exit_code(), Some(0), "{}", first.said());
    master.run(&["add", "echo", "--id", "waits"]).with(0);
    assert_eq!(master.task("waits")["state"], "ready");
    let _second = master.runner("second", &[]);
    assert_eq!(master.wait_state("waits", "done")["runner"], "second");
    master
        .run(&["runners", "drain", "nobody"])
        .with(1)
        .says(&["nobody"]);
}
