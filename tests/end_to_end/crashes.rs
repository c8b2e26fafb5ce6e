//! `kill -9` of either side, and restarts: what was acknowledged is there, and every task is done
//! once.

use crate::many;
use serde_json::json;
use std::collections::HashSet;
use taskmaster_harness::socket::Socket;
use taskmaster_harness::wat::{SLEEP, TRAP, echo};
use taskmaster_harness::{Folder, Master, Process, json_lines, run, until};

fn write_feed(folder: &Folder, tasks: usize) -> String {
    let lines: String = (0..tasks)
        .map(|n| {
            format!(
                "{}\n",
                json!({"id": format!("t{n}"), "module": "echo", "params": n})
            )
        })
        .collect();
    folder.write("feed.jsonl", lines)
}

/// Waits until the feed has told of `lines` ends; false: it is through already.
fn told(feed: &mut Process, lines: usize) -> bool {
    let mut through = false;
    until("the feed to go on", || {
        through = feed.has_ended();
        through || feed.printed().lines().count() >= lines
    });
    !through
}

fn check_all_done_once(master: &Master, feed: &mut Process, tasks: usize) {
    assert_eq!(feed.exit_code(), Some(0), "{}", feed.said());
    let lines = json_lines(&feed.printed());
    assert_eq!(lines.len(), tasks, "one line for each task");
    let ids: HashSet<&str> = lines
        .iter()
        .map(|task| task["id"].as_str().unwrap())
        .collect();
    assert_eq!(ids.len(), tasks, "each task once");
    for task in &lines {
        assert_eq!(task["state"], "done", "{task}");
        assert_eq!(
            task["id"].as_str().unwrap()[1..],
            task["result"].to_string(),
            "the result of another task"
        );
    }
    let job = master.job("kill");
    assert_eq!(
        (&job["done"], &job["total"]),
        (&json!(tasks), &json!(tasks)),
        "{job}"
    );
    // Committed exactly once: the durable events tell of each end once.
    let mut events = master.spawn(&[
        "watch",
        "--since",
        "0",
        "--filter",
        "event=task:done",
        "--filter",
        "job=kill",
    ]);
    until("every end among the events", || {
        events.printed().lines().count() >= tasks
    });
    events.kill();
    let text = events.printed();
    let done: Vec<_> = json_lines(&text[..=text.rfind('\n').unwrap()]);
    assert_eq!(
        done.iter()
            .map(|event| event["task"].as_str().unwrap())
            .collect::<HashSet<_>>()
            .len(),
        tasks
    );
    assert_eq!(done.len(), tasks);
}

#[test]
fn a_feed_survives_kills_of_its_master() {
    let tasks = many();
    let mut master = Master::with("master", &[]);
    master.drop_module("echo.wat", echo());
    let _runner = master.runner("r", &["--slots", "2"]);
    let file = write_feed(&master.folder, tasks);
    let mut feed = master.spawn(&["feed", &file, "--job", "kill", "--follow"]);
    let mut hits = 0;
    for part in 1..=4 {
        if !told(&mut feed, part * tasks / 6) {
            break;
        }
        master.process.kill();
        hits += usize::from(!feed.has_ended());
        master.start_again();
    }
    assert!(
        hits >= 2,
        "the feed was through after {hits} kills: raise TASKMASTER_E2E_TASKS"
    );
    check_all_done_once(&master, &mut feed, tasks);
}

#[test]
fn a_feed_survives_kills_of_its_runner() {
    let tasks = many() / 4;
    let master = Master::with("master", &[]);
    master.drop_module("echo.wat", echo());
    let mut runner = master.runner("first", &["--slots", "2"]);
    let file = write_feed(&master.folder, tasks);
    let mut feed = master.spawn(&["feed", &file, "--job", "kill", "--follow"]);
    for name in ["second", "third"] {
        let lines = feed.printed().lines().count() + tasks / 4;
        if !told(&mut feed, lines) {
            break;
        }
        runner.kill();
        runner = master.runner(name, &["--slots", "2"]);
    }
    check_all_done_once(&master, &mut feed, tasks);
}

#[test]
fn a_runner_that_dies_costs_its_task_no_try() {
    let master = Master::with("master", &[]);
    master.drop_module("sleep.wat", SLEEP);
    let mut runner = master.runner("first", &[]);
    master
        .run(&[
            "add",
            "sleep",
            "--params",
            "1000",
            "--id",
            "s",
            "--retries",
            "0",
        ])
        .with(0);
    master.wait_state("s", "assigned");
    runner.kill();
    let _second = master.runner("second", &[]);
    let task = master.wait_state("s", "done");
    assert_eq!(
        (&task["runner"], &task["result"]),
        (&json!("second"), &json!(1000)),
        "{task}"
    );
}

#[test]
fn a_runner_works_on_while_its_master_is_away() {
    let mut master = Master::with("master", &[]);
    master.drop_module("sleep.wat", SLEEP);
    let _runner = master.runner("r", &[]);
    master
        .run(&["add", "sleep", "--params", "1500", "--id", "s"])
        .with(0);
    let before = master.wait_state("s", "assigned");
    master.process.kill();
    master.start_again();
    let task = master.wait_state("s", "done");
    assert_eq!(
        task["attempt"], 1,
        "re-adopted, not run again: {before} {task}"
    );
}

#[test]
fn a_restarted_master_has_everything() {
    let mut master = Master::up(1);
    master.drop_module("echo.wat", echo());
    master.drop_module("trap.wat", TRAP);
    master
        .run(&[
            "add",
            "echo",
            "--id",
            "done",
            "--job",
            "j",
            "--params",
            "{\"kept\":1}",
            "--wait",
        ])
        .with(0);
    master
        .run(&["add", "trap", "--id", "failed", "--job", "j", "--wait"])
        .with(3);
    master
        .run(&[
            "add", "echo", "--id", "blocked", "--job", "j", "--after", "delayed", "--params", "2",
        ])
        .with(1);
    master
        .run(&[
            "add", "echo", "--id", "delayed", "--job", "j", "--delay", "1h",
        ])
        .with(0);
    master
        .run(&[
            "add", "echo", "--id", "blocked", "--job", "j", "--after", "delayed", "--params", "2",
        ])
        .with(0);
    master
        .run(&["jobs", "pause", "paused"])
        .with(1)
        .says(&["paused"]);
    let shown = |master: &Master| {
        let tasks = ["done", "failed", "blocked", "delayed"].map(|id| master.task(id));
        (
            tasks,
            master.job("j"),
            master.module("echo")["version"].clone(),
        )
    };
    let before = shown(&master);
    for way in ["kill", "terminate"] {
        match way {
            "kill" => master.process.kill(),
            _ => assert_eq!(master.process.terminate(), Some(0)),
        }
        master.start_again();
        assert_eq!(shown(&master), before, "after {way}");
    }
    master
        .run(&["tasks", "set", "delayed", "--delay", "0s"])
        .with(0);
    assert_eq!(master.wait_state("blocked", "done")["result"], 2);
}

#[test]
fn a_signal_ends_every_role_with_0() {
    let mut up = Master::up(1);
    assert_eq!(up.process.terminate(), Some(0), "{}", up.process.said());
    let mut master = Master::with("master", &[]);
    let mut runner = master.runner("r", &[]);
    assert_eq!(runner.terminate(), Some(0), "{}", runner.said());
    assert_eq!(
        master.process.terminate(),
        Some(0),
        "{}",
        master.process.said()
    );
    // A runner whose master is away ends too.
    let folder = Folder::new();
    let mut lonely = Process::start(&folder, &["runner", "--url", "ws://127.0.0.1:1"], &[]);
    until("it to look for its master", || {
        !lonely.said().is_empty() || lonely.has_ended()
    });
    assert_eq!(lonely.terminate(), Some(0), "{}", lonely.said());
}

#[test]
fn a_runner_that_is_stopped_finishes_what_it_has() {
    let master = Master::with("master", &[]);
    master.drop_module("sleep.wat", SLEEP);
    let mut runner = master.runner("r", &["--slots", "1"]);
    master
        .run(&["add", "sleep", "--params", "700", "--id", "s"])
        .with(0);
    master.wait_state("s", "assigned");
    assert_eq!(runner.terminate(), Some(0));
    let task = master.task("s");
    assert_eq!(
        (&task["state"], &task["attempt"]),
        (&json!("done"), &json!(1)),
        "{task}"
    );
}

#[test]
fn a_client_finds_no_master() {
    let folder = Folder::new();
    for args in [
        ["tasks", "list"],
        ["jobs", "list"],
        ["call", "echo"],
        ["add", "echo"],
        ["watch", "--since=0"],
        ["feed", "-"],
    ] {
        run(
            &folder,
            &args,
            &[("TASKMASTER_URL", "ws://127.0.0.1:1")],
            "",
        )
        .with(69)
        .says(&["127.0.0.1:1", "taskmaster up"]);
    }
}

/// Whether the file of what is at work names a task.
fn is_written(master: &Master, id: &str) -> bool {
    let folder = master.folder.join("data/runner/at-work");
    let files = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let mut texts = files.filter_map(|file| std::fs::read_to_string(file.path()).ok());
    texts.any(|text| text.contains(id))
}

#[test]
fn a_task_under_which_master_and_runner_die_together_fails_in_the_end() {
    let mut master = Master::up(1);
    master.drop_module("sleep.wat", SLEEP);
    master
        .run(&["add", "sleep", "--params", "60000", "--id", "poison"])
        .with(0);
    for _ in 0..5 {
        master.wait_state("poison", "assigned");
        until("the file to name it", || is_written(&master, "poison"));
        master.process.kill();
        master.start_again();
    }
    let error = master.wait_state("poison", "failed")["error"].clone();
    assert_eq!(error["kind"], "runner_lost", "{error}");
    assert!(
        error["message"].as_str().unwrap().contains("poison"),
        "{error}"
    );

    // A task that was not at work is not to blame.
    master.drop_module("echo.wat", echo());
    master.still_works();
}

#[test]
fn what_is_retried_while_its_job_is_cancelled_stays_open_over_a_restart() {
    let mut master = Master::with("master", &[]);
    master.drop_module("echo.wat", echo());
    master
        .run(&["add", "echo", "--id", "wanted", "--job", "large"])
        .with(0);
    master.run(&["tasks", "cancel", "wanted"]).with(0);
    let others = "{\"module\":\"echo\"}\n".repeat(many());
    master
        .run_with(&["feed", "--job", "large"], &others)
        .with(0);
    // 256 tasks are cancelled in a turn, so the cancel is under way when the master dies.
    let mut client = Socket::client(&master.url);
    for (event, data) in [
        ("task:cancel", json!({"ref": 1, "job": "large"})),
        ("task:retry", json!({"ref": 2, "ids": ["wanted"]})),
    ] {
        client.text(&json!({"event": event, "data": data}).to_string());
    }
    let cancelled = client.wait("answer");
    assert_eq!(cancelled["data"]["cancelled"], many(), "{cancelled}");
    let reopened = client.wait("answer");
    assert_eq!(reopened["data"]["reopened"], 1, "{reopened}");
    master.process.kill();
    master.start_again();
    until("the end of the cancel", || {
        let job = master.job("large");
        job["ready"].as_u64().unwrap() + job["assigned"].as_u64().unwrap() <= 1
    });
    assert_eq!(master.task("wanted")["state"], "ready");
    let job = master.job("large");
    assert_eq!(
        (&job["cancelled"], &job["ready"]),
        (&json!(many()), &json!(1)),
        "{job}"
    );
    // A cancel that comes later is meant for it.
    master.run(&["jobs", "cancel", "large"]).with(0);
    master.wait_state("wanted", "cancelled");
}
