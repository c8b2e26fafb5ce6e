//! Tasks that add tasks and go on as others, from outside: nothing twice, nothing lost, nothing
//! waits in a slot.

use serde_json::{Value, json};
use taskmaster_harness::wat::{echo, says, speak};
use taskmaster_harness::{Master, run, until};

fn master(slots: u32) -> Master {
    let master = Master::up(slots);
    master.drop_module("echo.wat", echo());
    master.drop_module("speak.wat", speak());
    master
}

/// A task that says these lines.
fn speaker(id: &str, lines: &[&str], more: Value) -> String {
    let mut task = json!({ "id": id, "module": "speak", "args": [lines.join("\n")], "retries": 0 });
    task.as_object_mut()
        .unwrap()
        .extend(more.as_object().cloned().unwrap_or_default());
    task.to_string()
}

fn logs(master: &Master, id: &str) -> String {
    master.run(&["tasks", "logs", id]).with(0).out
}

#[test]
fn a_task_adds_tasks_and_its_result_is_made_of_theirs_in_one_slot() {
    let master = master(1);
    let lines = [
        r#"::add {"module":"echo","params":1}"#,
        r#"::add {"id":"mine","module":"echo","params":2,"priority":9}"#,
        r#"::then {"module":"echo","params":{"$results":["p.1","mine"]}}"#,
    ];
    let feed = speaker("p", &lines, json!({ "priority": 5 }));
    let ran = master
        .run_with(&["feed", "--job", "j", "--follow"], &feed)
        .with(0);
    let ended: Vec<String> = ran
        .lines()
        .iter()
        .map(|task| task["id"].as_str().unwrap().to_owned())
        .collect();
    assert!(ended.contains(&"p".to_owned()), "{ended:?}");
    let p = master.task("p");
    assert_eq!(
        (&p["state"], &p["result"], &p["module"]),
        (&json!("done"), &json!([1, 2]), &json!("echo"))
    );
    for (id, priority) in [("p.1", 5), ("mine", 9)] {
        let child = master.task(id);
        assert_eq!(
            (&child["state"], &child["job"], &child["priority"]),
            (&json!("done"), &json!("j"), &json!(priority))
        );
    }
    let job = master.job("j");
    assert_eq!(
        (&job["done"], &job["total"], &job["run"]),
        (&json!(3), &json!(3), &json!(1)),
        "it was open all the time"
    );
}

#[test]
fn what_failed_adds_nothing_and_what_is_retried_adds_once() {
    let master = master(1);
    let add = "::add {\"id\":\"child\",\"module\":\"echo\"}\n";
    master.drop_module("fails.wat", says("", add, 1));
    master
        .run_with(
            &["feed", "--wait"],
            r#"{"id":"f","module":"fails","retries":0}"#,
        )
        .with(3);
    master.run(&["tasks", "show", "child"]).with(1);
    master.drop_module("works.wat", says("", add, 0));
    for id in ["w1", "w2"] {
        master.run(&["call", "works", "--id", id]).with(0);
    }
    until("the child", || {
        master.run(&["tasks", "show", "child"]).code == 0
    });
    master.wait_state("child", "done");
    assert_eq!(
        master.job("default")["total"],
        3,
        "the same id with the same document is one task"
    );
}

#[test]
fn what_cannot_be_added_is_told_in_the_log_and_fails_nobody() {
    let master = master(1);
    let lines = [
        "::add {\"module\":\"ecco\"}",
        "::add nothing",
        "::add {\"module\":\"echo\",\"dependencies\":[\"nobody\"]}",
        "::add {\"id\":\"x\",\"module\":\"echo\",\"dependencies\":[\"y\"]}",
        "::add {\"id\":\"y\",\"module\":\"echo\",\"dependencies\":[\"x\"]}",
        "::add {\"id\":\"good\",\"module\":\"echo\",\"params\":1}",
        "::cache 60",
        "::then",
    ];
    master
        .run_with(&["feed", "--wait"], &speaker("p", &lines, json!({})))
        .with(0);
    let log = logs(&master, "p");
    for words in [
        "taskmaster: `::add nothing`: not JSON",
        "taskmaster: `::then `: not JSON",
        "taskmaster: the answer is not kept: `::cache` counts only for a task with `cache`",
        "task 1 was not added: unknown module `ecco` (did you mean `echo`?)",
        "task 2 was not added: unknown dependency `nobody`",
        "task 3 was not added: dependency cycle",
    ] {
        assert!(log.contains(words), "{words} is not in: {log}");
    }
    assert_eq!(master.wait_state("good", "done")["result"], 1);
    master.run(&["tasks", "show", "x"]).with(1);
}

#[test]
fn a_task_that_cannot_go_on_fails_with_the_reason() {
    let master = master(1);
    let then = |id: &str, document: &str| {
        speaker(
            id,
            &[&format!("::then {document}")],
            json!({ "delay_ms": 600 }),
        )
    };
    let feed = [
        then("a", r#"{"module":"ecco"}"#),
        then("b", r#"{"module":"echo","dependencies":["nobody"]}"#),
        then("c", r#"{"module":"echo","dependencies":["waits"]}"#),
        r#"{"id":"waits","module":"echo","dependencies":["c"]}"#.to_owned(),
    ];
    master
        .run_with(&["feed", "--wait"], &feed.join("\n"))
        .with(3);
    for (id, words) in [
        ("a", "unknown module `ecco`"),
        ("b", "unknown dependency `nobody`"),
        ("c", "dependency cycle"),
    ] {
        let task = master.task(id);
        assert_eq!(
            (&task["state"], &task["error"]["kind"]),
            (&json!("failed"), &json!("output")),
            "{task}"
        );
        assert!(
            task["error"]["message"].as_str().unwrap().contains(words),
            "{task}"
        );
    }
    assert_eq!(master.task("waits")["state"], "skipped");
}

#[test]
fn a_task_that_went_on_is_what_it_was_after_a_kill_of_the_master() {
    let mut master = master(2);
    let lines = [
        r#"::add {"id":"slow","module":"echo","params":7,"delay_ms":2500}"#,
        r#"::then {"module":"echo","params":{"$result":"slow"}}"#,
    ];
    let feed = [
        speaker("p", &lines, json!({})),
        r#"{"id":"after","module":"echo","params":{"of":{"$result":"p"}}}"#.to_owned(),
        r#"{"id":"last","module":"echo","dependencies":["after"]}"#.to_owned(),
    ];
    master
        .run_with(&["feed", "--job", "j"], &feed.join("\n"))
        .with(0);
    master.wait_state("p", "blocked");
    // The document that it came with is a no-op all the same: the job's total tells.
    master.run_with(&["feed", "--job", "j"], &feed[0]).with(0);
    master.process.kill();
    master.start_again();
    for id in ["p", "after", "last"] {
        assert_eq!(master.task(id)["state"], "blocked", "{id}");
    }
    assert_eq!(master.wait_state("p", "done")["result"], 7);
    assert_eq!(
        master.wait_state("after", "done")["result"],
        json!({ "of": 7 })
    );
    master.wait_state("last", "done");
    assert_eq!(master.job("j")["total"], 4);
}

#[test]
fn a_thousand_children_are_added_at_once() {
    let master = master(2);
    let ids: Vec<String> = (1..=1000).map(|n| format!("p.{n}")).collect();
    // An argument may have 128 KiB: short documents.
    let mut lines: Vec<String> = (0..1000)
        .map(|n| format!("::add {{\"module\":\"echo\",\"params\":{n}}}"))
        .collect();
    lines.push(format!(
        "::then {{\"module\":\"echo\",\"params\":{{\"$results\":{}}}}}",
        json!(ids)
    ));
    let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
    master
        .run_with(
            &["feed", "--job", "j", "--wait"],
            &speaker("p", &lines, json!({})),
        )
        .with(0);
    let numbers: Vec<u32> = (0..1000).collect();
    assert_eq!(master.task("p")["result"], json!(numbers));
    assert_eq!(master.job("j")["total"], 1001);
}

#[test]
fn while_the_queue_is_full_an_attempt_that_adds_fails_and_is_tried_later() {
    let master = Master::with("up", &["--slots", "1", "--queue-mb", "1"]);
    master.drop_module("echo.wat", echo());
    master.drop_module("speak.wat", speak());
    let lines = [r#"::add {"id":"child","module":"echo","params":7}"#];
    let retries = json!({"retries": {"max": 1_000, "backoff_ms": 50, "factor": 1}});
    let adder = speaker("adder", &lines, retries);
    master
        .run_with(&["feed", "--job", "gate", "--wait"], r#"{"module":"echo"}"#)
        .with(0);
    master.run(&["jobs", "pause", "gate"]).with(0);
    master.run_with(&["feed", "--job", "gate"], &adder).with(0);

    // A task that waits takes some 350 bytes, so 1 MiB is full before all of these are in.
    let waits = json!({"module": "echo", "requires": {"labels": {"no": "runner"}}}).to_string();
    let feed = master
        .folder
        .write("many.jsonl", format!("{waits}\n").repeat(5_000));
    let mut filler = master.spawn(&["feed", &feed, "--job", "filler"]);
    until("a full queue", || {
        let refused = master.run(&["add", "echo", "--params", "1"]);
        refused.err.contains("--queue-mb")
    });
    master.run(&["jobs", "resume", "gate"]).with(0);
    until("an attempt that could add nothing", || {
        master.task("adder")["attempt"].as_u64() > Some(1)
    });
    let why = master.why("adder");
    assert!(
        why.contains("cannot be taken now: the queue is full"),
        "{why}"
    );
    master.run(&["tasks", "show", "child"]).with(1);

    filler.kill();
    master.run(&["tasks", "cancel", "--job", "filler"]).with(0);
    master.wait_state("adder", "done");
    assert_eq!(master.wait_state("child", "done")["result"], 7);
}

#[test]
fn a_job_that_is_cancelled_ends_with_all_that_its_tasks_add() {
    let master = Master::up(2);
    let line = "::add {\"module\":\"bomb\"}\n";
    master.drop_module("bomb.wat", says("", &line.repeat(16), 0));
    master.run(&["add", "bomb", "--job", "b"]).with(0);
    until("a crowd", || {
        master.job("b")["ready"].as_u64() > Some(3_000)
    });

    master.run(&["tasks", "cancel", "--job", "b"]).with(0);
    let asked = master.job("b")["total"].as_u64().unwrap();
    until("the end of the job", || {
        let job = master.job("b");
        job["ready"] == 0 && job["assigned"] == 0
    });
    let job = master.job("b");
    let added = job["total"].as_u64().unwrap() - asked;
    assert_eq!(added, 0, "nothing came in behind the cancel: {job}");
    assert_eq!(job["open"], false, "{job}");
}

#[test]
fn a_line_of_tasks_that_add_each_other_comes_to_an_end() {
    let mut master = master(1);
    let lines = [r#"::add {"id":"child","module":"echo"}"#];
    let adds = speaker(
        "adds",
        &lines,
        json!({"requires": {"labels": {"no": "runner"}}}),
    );
    master.run_with(&["feed"], &adds).with(0);
    assert_eq!(master.process.terminate(), Some(0));

    // Nobody waits for a hundred thousand tasks: the store says that there have been as many.
    let store = |args: &[&str], input: &str| {
        let args = [&["store"], args].concat();
        run(&master.folder, &args, &[], input).with(0).out
    };
    let export = store(&["export", "--data", "data"], "");
    let is_open = |line: &&str| line.starts_with(r#"{"open""#);
    let open = export.lines().find(is_open).unwrap();
    let mut aged: Value = serde_json::from_str(open).unwrap();
    let body = &mut aged["open"]["body"];
    let mut rare: Value = serde_json::from_str(body["rare"].as_str().unwrap()).unwrap();
    rare["lineage"] = json!({"root": 1, "depth": 100_000});
    body["rare"] = rare.to_string().into();
    body["requires"] = "{}".into();
    let aged = export.replace(open, &aged.to_string());
    std::fs::remove_dir_all(master.folder.join("data")).unwrap();
    store(&["import", "--data", "data"], &aged);

    master.start_again();
    let error = master.wait_state("adds", "failed")["error"].clone();
    assert_eq!(
        (&error["kind"], &error["code"]),
        (&json!("output"), &json!(65))
    );
    let message = error["message"].as_str().unwrap();
    assert!(
        message.contains("100000 tasks have added each other"),
        "{error}"
    );
    master.run(&["tasks", "show", "child"]).with(1);
}
