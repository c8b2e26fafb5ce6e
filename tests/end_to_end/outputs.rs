//! The shapes that scripts rely on, field by field; the four formats; the exit codes.

use serde_json::Value;
use std::collections::BTreeSet;
use taskmaster_harness::wat::{FOREIGN, SPIN, TRAP, echo};
use taskmaster_harness::{Folder, Master, json_lines, micros, run, until};

fn master() -> Master {
    let master = Master::up(1);
    master.drop_module("echo.wat", echo());
    master.drop_module("trap.wat", TRAP);
    master
}

/// That an object has these fields. More may be added; none may go, or change its name.
#[track_caller]
fn has(value: &Value, fields: &str) {
    let object = value
        .as_object()
        .unwrap_or_else(|| panic!("{value} is no object"));
    for field in fields.split(' ') {
        assert!(
            object.contains_key(field),
            "`{field}` is missing in {value}"
        );
    }
}

const TASK: &str = "id module version state job priority attempt runner created started finished result result_blob error outputs stats";

#[test]
fn a_task_has_every_field_in_every_state() {
    let master = master();
    let done = master
        .run(&[
            "add",
            "echo",
            "--params",
            "{\"a\":1}",
            "--wait",
            "-o",
            "json",
        ])
        .with(0)
        .json();
    has(&done, TASK);
    let (created, started, finished) = (
        micros(&done["created"]),
        micros(&done["started"]),
        micros(&done["finished"]),
    );
    assert!(created <= finished && started <= finished + 1_000, "{done}");
    assert_eq!(
        (
            done["version"].as_str().unwrap().len(),
            done["result"]["a"].as_i64()
        ),
        (64, Some(1))
    );
    assert!(done["error"].is_null() && done["outputs"].is_object());
    has(&done["stats"], "run_us memory_bytes");
    assert_eq!(
        master.task(done["id"].as_str().unwrap()),
        done,
        "`show` and `add --wait` say the same"
    );
    let failed = master
        .run(&["add", "trap", "--wait", "-o", "json"])
        .with(3)
        .json();
    has(&failed, TASK);
    has(&failed["error"], "kind message backtrace");
    assert!(failed["result"].is_null());
    master
        .run(&["add", "echo", "--delay", "1h", "--id", "open"])
        .with(0);
    let open = master.task("open");
    has(&open, TASK);
    assert!(
        ["version", "runner", "started", "finished", "error"]
            .iter()
            .all(|field| open[field].is_null()),
        "{open}"
    );
    let followed = master
        .run_with(&["feed", "--follow"], "{\"module\":\"echo\",\"params\":3}")
        .with(0);
    has(&followed.lines()[0], TASK);
    assert_eq!(
        followed.lines()[0],
        master.task(followed.lines()[0]["id"].as_str().unwrap())
    );
}

#[test]
fn jobs_modules_runners_and_bench() {
    let master = master();
    master.run(&["add", "echo", "--job", "j", "--wait"]).with(0);
    has(
        &master.job("j"),
        "job run open total blocked delayed ready assigned done failed cancelled skipped",
    );
    let modules = master.json(&["modules", "list"]);
    assert_eq!(modules.as_array().unwrap().len(), 2);
    modules
        .as_array()
        .unwrap()
        .iter()
        .for_each(|module| has(module, "name version kind state"));
    until("a compiled module", || {
        master.module("echo")["state"] == "ready"
    });
    assert_eq!(master.module("echo")["kind"], "command");
    has(
        &master.json(&["runners", "show", "local"]),
        "runner state slots used",
    );
    let bench = master.json(&["bench", "--tasks", "200"]);
    has(&bench, "tasks seconds tasks_per_s p50_ms p99_ms durability");
    assert_eq!(
        (bench["tasks"].as_u64(), bench["durability"].as_str()),
        (Some(200), Some("sync"))
    );
    assert!(
        bench["p50_ms"].as_f64() <= bench["p99_ms"].as_f64()
            && bench["tasks_per_s"].as_f64() > Some(1.0),
        "{bench}"
    );
    let lazy = Master::with("up", &["--slots", "1", "--durability", "interval:20"]);
    assert_eq!(
        lazy.json(&["bench", "--tasks", "50"])["durability"],
        "interval:20"
    );
}

#[test]
fn check_needs_no_master() {
    let folder = Folder::new();
    let settings = [("TASKMASTER_URL", "ws://127.0.0.1:1")];
    let check = |text: &str| {
        let file = folder.write("m.wat", text);
        run(
            &folder,
            &["modules", "check", &file, "-o", "json"],
            &settings,
            "",
        )
    };
    let good = check(&echo()).with(0).json();
    has(&good, "ok name kind version imports error");
    assert_eq!(
        (
            good["ok"].as_bool(),
            good["name"].as_str(),
            good["kind"].as_str()
        ),
        (Some(true), Some("m"), Some("command"))
    );
    assert!(
        good["imports"]
            .as_array()
            .unwrap()
            .iter()
            .any(|import| import == "wasi_snapshot_preview1.fd_read"),
        "{good}"
    );
    let bad = check(FOREIGN).with(1).json();
    has(&bad, "ok name kind version imports error");
    assert!(
        bad["ok"] == false && bad["error"].as_str().unwrap().contains("somewhere"),
        "{bad}"
    );
    let bad = check("(module").with(1).json();
    assert!(bad["ok"] == false && bad["error"].is_string(), "{bad}");
}

#[test]
fn events_have_eight_fields_and_dense_numbers() {
    let master = master();
    master
        .run_with(&["feed", "--wait"], &"{\"module\":\"echo\"}\n".repeat(20))
        .with(0);
    master.run(&["add", "trap", "--wait"]).with(3);
    let mut watch = master.spawn(&["watch", "--since", "0", "-o", "jsonl"]);
    until("the last event", || watch.printed().contains("task:failed"));
    watch.kill();
    let text = watch.printed();
    let events = json_lines(&text[..=text.rfind('\n').unwrap()]);
    for event in &events {
        has(event, "seq time event task module job runner data");
        micros(&event["time"]);
    }
    let seqs: Vec<u64> = events
        .iter()
        .filter_map(|event| event["seq"].as_u64())
        .collect();
    assert!(
        seqs.iter().copied().eq(1..=seqs.len() as u64),
        "dense, from 1: {seqs:?}"
    );
    let names: BTreeSet<&str> = events
        .iter()
        .filter_map(|event| event["event"].as_str())
        .collect();
    for name in [
        "task:added",
        "task:done",
        "task:failed",
        "module:added",
        "runner:joined",
        "job:opened",
        "job:done",
    ] {
        assert!(names.contains(name), "{name} is missing: {names:?}");
    }
    // From the middle.
    let mut later = master.spawn(&["watch", "--since", "10"]);
    until("an event", || later.printed().contains('\n'));
    later.kill();
    assert_eq!(
        json_lines(later.printed().lines().next().unwrap())[0]["seq"],
        11
    );
}

#[test]
fn errors_are_one_line_of_json_where_json_is_wanted() {
    let master = master();
    for format in ["json", "jsonl"] {
        for args in [
            vec!["tasks", "show", "nobody"],
            vec!["add", "ecko"],
            vec!["jobs", "show", "nowhere"],
        ] {
            let ran = master
                .run(&[args.as_slice(), &["-o", format]].concat())
                .with(1);
            assert_eq!(
                (ran.out.as_str(), ran.err.lines().count()),
                ("", 1),
                "{}",
                ran.err
            );
            let line: Value = serde_json::from_str(&ran.err).unwrap();
            has(&line["error"], "code message field line");
        }
    }
    let away = run(
        &master.folder,
        &["tasks", "list", "-o", "json"],
        &[("TASKMASTER_URL", "ws://127.0.0.1:1")],
        "",
    )
    .with(69);
    let line: Value = serde_json::from_str(&away.err).unwrap();
    assert_eq!(line["error"]["code"], "unreachable");
    // Without -o it is a sentence.
    assert!(
        master
            .run(&["tasks", "show", "nobody"])
            .err
            .starts_with("error: ")
    );
}

#[test]
fn four_formats() {
    let master = master();
    for id in ["a", "b"] {
        master.run(&["add", "echo", "--id", id, "--wait"]).with(0);
    }
    let list = |format: &[&str]| master.run(&[&["tasks", "list"], format].concat()).with(0);
    assert_eq!(list(&["-o", "quiet"]).out, "b\na\n");
    assert_eq!(list(&["-o", "json"]).json().as_array().unwrap().len(), 2);
    assert_eq!(list(&["-o", "jsonl"]).lines().len(), 2);
    assert_eq!(
        list(&[]).out,
        list(&["-o", "jsonl"]).out,
        "JSON lines where stdout is no terminal"
    );
    let table = list(&["-o", "table"]).out;
    assert!(
        table.starts_with("ID") && table.lines().count() == 3 && !table.contains('\x1b'),
        "{table}"
    );
    assert!(
        master
            .run(&["tasks", "show", "a", "-o", "table"])
            .with(0)
            .out
            .contains("done")
    );
    assert_eq!(
        master
            .run(&["tasks", "show", "a", "-o", "quiet"])
            .with(0)
            .out,
        "a\n"
    );
    assert_eq!(
        master
            .run(&["tasks", "list", "--job", "none", "-o", "json"])
            .with(0)
            .json(),
        Value::Array(vec![])
    );
    let id = master.run(&["add", "echo", "-o", "json"]).with(0).json();
    assert_eq!(id.as_object().unwrap().len(), 1);
    assert!(id["id"].is_string());
}

#[test]
fn exit_codes() {
    let master = master();
    master.drop_module("spin.wat", SPIN);
    master.run(&["call", "echo"]).with(0);
    master.run(&["call", "nothing"]).with(1);
    master.run(&["call"]).with(2);
    master.run(&["call", "trap"]).with(3);
    master.run(&["add", "trap", "--wait"]).with(3);
    master
        .run_with(&["feed", "--wait"], "{\"module\":\"trap\"}")
        .with(3);
    master
        .run(&["add", "echo", "--id", "cancelled", "--delay", "1h"])
        .with(0);
    let mut waiting = master.spawn(&[
        "add",
        "echo",
        "--id",
        "cancelled",
        "--delay",
        "1h",
        "--wait",
    ]);
    master.run(&["tasks", "cancel", "cancelled"]).with(0);
    assert_eq!(waiting.exit_code(), Some(4), "{}", waiting.said());
    master
        .run(&[
            "add",
            "spin",
            "--id",
            "spin",
            "--wait",
            "--wait-timeout",
            "200ms",
        ])
        .with(5)
        .says(&["goes on"]);
    assert_eq!(master.task("spin")["state"], "assigned", "the task goes on");
    master
        .run(&["call", "echo", "--wait-timeout", "200ms"])
        .with(5);
    master.run(&["tasks", "cancel", "spin"]).with(0);
    run(
        &master.folder,
        &["call", "echo"],
        &[("TASKMASTER_URL", "ws://127.0.0.1:1")],
        "",
    )
    .with(69);
}
