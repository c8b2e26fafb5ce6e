//! Kept answers from outside: equal tasks run once, an answer is given as long as it may be, and
//! nothing is given that is in doubt.

use serde_json::{Value, json};
use taskmaster_harness::wat::{SLEEP, TRAP, constant, echo, larger, says, speak};
use taskmaster_harness::{Master, Ran, until};

/// A master with two runners of two slots each.
fn master() -> (Master, Vec<taskmaster_harness::Process>) {
    let master = Master::with("master", &[]);
    for (file, text) in [
        ("sleep.wat", SLEEP.to_owned()),
        ("echo.wat", echo()),
        ("speak.wat", speak()),
        ("trap.wat", TRAP.to_owned()),
    ] {
        master.drop_module(file, text);
    }
    let runners = ["one", "two"].map(|name| master.runner(name, &["--slots", "2"]));
    (master, runners.into())
}

/// Feeds these tasks, and waits for them.
fn feed(master: &Master, tasks: &[Value]) -> Ran {
    let lines: Vec<String> = tasks.iter().map(Value::to_string).collect();
    master.run_with(&["feed", "--follow"], &lines.join("\n"))
}

/// How many attempts the master has assigned since it started, by the attempts of the tasks.
fn attempts(master: &Master, ids: &[&str]) -> u64 {
    let of = |id: &&str| master.task(id)["attempt"].as_u64().unwrap();
    ids.iter().map(of).sum()
}

#[test]
fn an_answer_is_given_again_until_it_is_too_old_and_after_a_restart() {
    let (mut master, _runners) = master();
    let task = |id: &str, params: Value| json!({ "id": id, "module": "echo", "params": params, "cache": { "ttl_s": 100 } });
    feed(&master, &[task("first", json!({ "a": 1, "b": [2] }))]).with(0);
    // Equal params, written in another way.
    let other = r#"{"id":"again","module":"echo","params":{ "b": [ 2 ], "\u0061": 1 },"cache":{"ttl_s":5}}"#;
    let ran = master.run_with(&["feed", "--follow"], other).with(0);
    let answer = &ran.lines()[0];
    assert_eq!(answer["result"], json!({ "a": 1, "b": [2] }));
    assert_eq!(answer["cached"]["from"], "first");
    assert_eq!(
        (&answer["attempt"], &answer["runner"]),
        (&json!(0), &Value::Null)
    );
    assert_eq!(answer["version"], master.task("first")["version"]);

    feed(&master, &[task("other", json!({ "a": 1, "b": [3] }))]).with(0);
    assert_eq!(master.task("other")["attempt"], 1, "other params run");
    let plain = json!({ "id": "plain", "module": "echo", "params": { "a": 1, "b": [2] } });
    feed(&master, &[plain]).with(0);
    assert_eq!(
        master.task("plain")["attempt"],
        1,
        "a task without `cache` runs"
    );

    master.process.kill();
    master.start_again();
    feed(&master, &[task("later", json!({ "a": 1, "b": [2] }))]).with(0);
    assert_eq!(master.task("later")["cached"]["from"], "first");

    let brief = |id: &str| json!({ "id": id, "module": "echo", "params": "brief", "cache": { "ttl_s": 1 } });
    feed(&master, &[brief("b1")]).with(0);
    until("the answer is too old", || {
        let id = format!("b{}", uuid());
        feed(&master, &[brief(&id)]).with(0);
        master.task(&id)["attempt"] == 1
    });
}

/// Whether the log of a task has all these words.
fn log_says(master: &Master, id: &str, words: &[&str]) {
    let log = master.run(&["tasks", "logs", id]).with(0).out;
    for word in words {
        assert!(
            log.contains(word),
            "`{word}` is not in the log of {id}: {log}"
        );
    }
}

/// A part of an id that nothing else has.
fn uuid() -> String {
    use std::sync::atomic::{AtomicU32, Ordering};
    static LAST: AtomicU32 = AtomicU32::new(10);
    LAST.fetch_add(1, Ordering::Relaxed).to_string()
}

#[test]
fn a_thousand_equal_tasks_of_two_feeders_run_once() {
    let (master, _runners) = master();
    let tasks = |of: &str| -> Vec<Value> {
        (0..500)
            .map(|i| {
                json!({ "id": format!("{of}{i}"), "module": "sleep", "params": 700,
                        "cache": { "ttl_s": 60 } })
            })
            .collect()
    };
    let [one, other] = std::thread::scope(|scope| {
        let feeds = ["a", "b"].map(|of| scope.spawn(|| feed(&master, &tasks(of)).with(0)));
        feeds.map(|feed| feed.join().unwrap())
    });
    let lines: Vec<Value> = one.lines().into_iter().chain(other.lines()).collect();
    assert_eq!(lines.len(), 1_000);
    assert!(
        lines
            .iter()
            .all(|line| line["result"] == 700 && line["state"] == "done")
    );
    let ran: Vec<&Value> = lines.iter().filter(|line| line["attempt"] != 0).collect();
    assert_eq!(ran.len(), 1, "one of them ran");
    let joined = lines
        .iter()
        .filter(|line| line["cached"]["joined"] == true)
        .count();
    assert!(joined > 400, "{joined} have waited for it");
}

#[test]
fn a_joined_task_says_for_whom_it_waits_and_goes_on_when_that_one_is_cancelled() {
    let (master, _runners) = master();
    let task = |id: &str| {
        json!({ "id": id, "module": "sleep", "params": 60_000, "cache": { "ttl_s": 60 } })
            .to_string()
    };
    master.run_with(&["feed"], &task("one")).with(0);
    master.wait_state("one", "assigned");
    master.run_with(&["feed"], &task("two")).with(0);
    until("it says why", || {
        master
            .why("two")
            .contains("an equal task, `one`, is at work")
    });
    assert_eq!(master.task("two")["state"], "ready");
    master.run(&["tasks", "cancel", "one"]).with(0);
    master.wait_state("two", "assigned");
    assert_eq!(master.task("two")["attempt"], 1);
    master.run(&["tasks", "cancel", "two"]).with(0);
}

#[test]
fn a_refresh_runs_and_its_answer_takes_the_place_of_the_older_one() {
    let (master, _runners) = master();
    let call = |more: &[&str]| {
        let args = ["add", "echo", "--params", "7", "--wait", "-o", "json"];
        master.run(&[&args, more].concat()).with(0).json()
    };
    let first = call(&["--cache", "1m"]);
    assert_eq!(call(&["--cache", "1m"])["cached"]["from"], first["id"]);
    let refreshed = call(&["--cache", "1m", "--refresh"]);
    assert_eq!(refreshed["attempt"], 1);
    assert_eq!(call(&["--cache", "1m"])["cached"]["from"], refreshed["id"]);
    assert_eq!(call(&["--no-cache"])["attempt"], 1);
    assert_eq!(call(&[])["attempt"], 1);
    master.run(&["add", "echo", "--refresh"]).with(2);
}

#[test]
fn failures_are_shared_and_never_kept() {
    let (master, _runners) = master();
    master.drop_module("refuses.wat", says("", "no such slice\n", 64));
    let task = |id: &str, module: &str| json!({ "id": id, "module": module, "retries": 0, "cache": { "ttl_s": 60 } });
    for module in ["refuses", "trap"] {
        for id in ["1", "2"] {
            let id = format!("{module}{id}");
            feed(&master, &[task(&id, module)]).with(3);
            assert_eq!(master.task(&id)["attempt"], 1, "{id} has run itself");
        }
    }
    assert_eq!(master.task("refuses1")["error"]["code"], 64);
}

#[test]
fn a_task_sets_or_shortens_its_own_time() {
    let (master, _runners) = master();
    let task = |id: &str, says: &str, cache: Value| json!({ "id": id, "module": "speak", "args": [says], "cache": cache });
    let sets = "::cache 100";
    feed(&master, &[task("sets", sets, json!({}))]).with(0);
    feed(&master, &[task("sets2", sets, json!({}))]).with(0);
    assert_eq!(master.task("sets2")["cached"]["from"], "sets");
    feed(&master, &[task("silent", "nothing", json!({}))]).with(0);
    feed(&master, &[task("silent2", "nothing", json!({}))]).with(0);
    assert_eq!(
        master.task("silent2")["attempt"],
        1,
        "nobody has set a time"
    );
    feed(
        &master,
        &[task("never", "::cache 0", json!({ "ttl_s": 60 }))],
    )
    .with(0);
    feed(
        &master,
        &[task("never2", "::cache 0", json!({ "ttl_s": 60 }))],
    )
    .with(0);
    assert_eq!(
        master.task("never2")["attempt"],
        1,
        "it has taken all its time away"
    );

    let plain = json!({ "id": "plain", "module": "speak", "args": ["::cache 100"] });
    feed(&master, &[plain]).with(0);
    log_says(
        &master,
        "plain",
        &["the answer is not kept", "`cache = {}`"],
    );
}

#[test]
fn another_version_of_the_module_makes_another_answer() {
    let (master, _runners) = master();
    let task = |id: &str| json!({ "id": id, "module": "v", "cache": { "ttl_s": 60 } });
    master.drop_module("v.wat", constant("1"));
    feed(&master, &[task("a")]).with(0);
    feed(&master, &[task("b")]).with(0);
    assert_eq!(master.task("b")["cached"]["from"], "a");
    master.drop_module("v.wat", constant("2"));
    feed(&master, &[task("c")]).with(0);
    let c = master.task("c");
    assert_eq!((&c["result"], &c["attempt"]), (&json!(2), &json!(1)));
    master.drop_module("v.wat", constant("1"));
    feed(&master, &[task("d")]).with(0);
    assert_eq!(
        master.task("d")["cached"]["from"],
        "a",
        "the first version is back"
    );
}

#[test]
fn results_in_params_count_by_what_they_are() {
    let (master, _runners) = master();
    let echo = |id: &str, params: Value| json!({ "id": id, "module": "echo", "params": params });
    let sum = |id: &str, of: &str| {
        json!({ "id": id, "module": "echo", "cache": { "ttl_s": 60 },
                "params": { "all": { "$results": [of, of] } } })
    };
    feed(
        &master,
        &[
            echo("x", json!([1])),
            echo("y", json!([1])),
            echo("z", json!([2])),
        ],
    )
    .with(0);
    feed(&master, &[sum("s1", "x")]).with(0);
    feed(&master, &[sum("s2", "y"), sum("s3", "z")]).with(0);
    assert_eq!(
        master.task("s2")["cached"]["from"],
        "s1",
        "an equal result of another task"
    );
    assert_eq!(master.task("s3")["attempt"], 1, "another result");
    assert_eq!(master.task("s3")["result"], json!({ "all": [[2], [2]] }));
}

#[test]
fn an_answer_counts_only_while_its_blobs_are_there() {
    let (master, _runners) = master();
    master.drop_module("larger.wat", larger());
    let task = |id: &str| json!({ "id": id, "module": "larger", "cache": { "ttl_s": 60 } });
    feed(&master, &[task("a")]).with(0);
    feed(&master, &[task("b")]).with(0);
    let answer = master.task("b");
    assert_eq!(answer["cached"]["from"], "a");
    let hash = answer["result_blob"].as_str().unwrap();
    let blob = master.folder.join("data/blobs").join(&hash[..2]).join(hash);
    std::fs::remove_file(&blob).unwrap();
    feed(&master, &[task("c")]).with(0);
    assert_eq!(master.task("c")["attempt"], 1, "the answer is made again");
    assert!(blob.exists());
    feed(&master, &[task("d")]).with(0);
    assert_eq!(master.task("d")["cached"]["from"], "c");
}

#[test]
fn what_is_in_doubt_runs_and_says_so() {
    let (master, _runners) = master();
    let doubtful = r#"{"id":"ID","module":"echo","params":{"a":1,"a":2},"cache":{"ttl_s":60}}"#;
    for id in ["a", "b"] {
        let line = doubtful.replace("ID", id);
        master.run_with(&["feed", "--wait"], &line).with(0);
        assert_eq!(master.task(id)["attempt"], 1);
        log_says(
            &master,
            id,
            &["the answer is not kept", "the key `a` stands twice"],
        );
    }
    let adds = json!({ "id": "adds", "module": "speak", "cache": { "ttl_s": 60 },
                       "args": [r#"::add {"module":"echo"}"#] });
    feed(&master, &[adds]).with(0);
    log_says(
        &master,
        "adds",
        &["the answer is not kept", "it added tasks"],
    );
}

#[test]
fn an_answer_that_is_larger_than_all_may_be_is_not_kept() {
    let master = Master::with("up", &["--slots", "1", "--cache-mb", "0"]);
    master.drop_module("echo.wat", echo());
    let task = |id: &str| json!({ "id": id, "module": "echo", "cache": { "ttl_s": 60 } });
    for id in ["a", "b"] {
        feed(&master, &[task(id)]).with(0);
        assert_eq!(master.task(id)["attempt"], 1);
    }
    log_says(&master, "a", &["the answer is not kept", "--cache-mb"]);
}

#[test]
fn what_is_only_one_tasks_own_does_not_reach_an_answer_for_all() {
    let (master, _runners) = master();
    master.drop_module("peek.wat", taskmaster_harness::wat::peek());
    let peek = |id: &str, more: Value| {
        let mut task = json!({ "id": id, "module": "peek", "job": "j" });
        task.as_object_mut()
            .unwrap()
            .extend(more.as_object().cloned().unwrap());
        feed(&master, &[task]).with(0);
        master.task(id)["result"].to_string()
    };
    assert!(peek("own", json!({})).contains("TASKMASTER_TASK_ID=own"));
    let shared = peek("shared", json!({ "cache": { "ttl_s": 60 } }));
    assert!(
        !shared.contains("=shared") && !shared.contains("TASKMASTER_JOB=j"),
        "{shared}"
    );
    assert_eq!(attempts(&master, &["own", "shared"]), 2);
}
