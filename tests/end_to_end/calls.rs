//! `call` as people use it: what it says while it waits, and what becomes of the task when they go.

use serde_json::json;
use std::collections::BTreeMap;
use std::time::Duration;
use taskmaster_feeder::client::{CallNews, Calls, Client as FeederClient, Target};
use taskmaster_harness::wat::{SLEEP, echo, says_and_sleeps};
use taskmaster_harness::{Master, Process, on_terminal, until, wait_for};
use taskmaster_protocol::{JobName, Json, ModuleRef, TaskDocument, TaskState};

/// A master with two runners of one slot each, and the modules that are called here.
struct Cluster {
    master: Master,
    _runners: [Process; 2],
}

impl Cluster {
    fn new() -> Cluster {
        let master = Master::with("master", &[]);
        master.drop_module("echo.wat", echo());
        master.drop_module("sleep.wat", SLEEP);
        let runners = ["one", "two"].map(|name| master.runner(name, &["--slots", "1"]));
        Cluster {
            master,
            _runners: runners,
        }
    }

    /// The id of the one task that runs.
    fn running(&self) -> String {
        wait_for("a task that runs", || {
            let list = self
                .master
                .run(&["tasks", "list", "--state", "assigned", "-o", "quiet"]);
            Some(list.out.trim().to_owned()).filter(|id| !id.is_empty())
        })
    }

    fn on_terminal(&self, args: &[&str]) -> String {
        let settings = [("TASKMASTER_URL", self.master.url.as_str())];
        on_terminal(&self.master.folder, args, &settings)
    }
}

#[test]
fn a_call_that_is_interrupted_cancels_its_task_and_says_so() {
    let cluster = Cluster::new();
    for signal in ["INT", "TERM"] {
        let mut call = cluster
            .master
            .spawn(&["call", "sleep", "--params", "600000"]);
        let id = cluster.running();
        call.signal(signal);
        assert_eq!(call.exit_code(), Some(4), "{}", call.said());
        let said = call.said();
        assert!(said.contains(&format!("task {id} cancelled")), "{said}");
        assert_eq!(call.printed(), "");
        assert_eq!(cluster.master.task(&id)["state"], "cancelled");
        until("both slots to be free", || {
            let runners = cluster.master.json(&["runners", "list"]);
            runners.as_array().unwrap().iter().all(|it| it["used"] == 0)
        });
    }
}

#[test]
fn a_call_that_is_detached_or_has_an_id_of_its_own_goes_on() {
    let cluster = Cluster::new();
    for more in [&["--detach"][..], &["--id", "mine"]] {
        let args = [&["call", "sleep", "--params", "600000"], more].concat();
        let mut call = cluster.master.spawn(&args);
        let id = cluster.running();
        // The answer to what was sent last is on its way.
        std::thread::sleep(Duration::from_millis(100));
        call.signal("INT");
        assert_eq!(call.exit_code(), Some(130), "{}", call.said());
        let said = call.said();
        for words in [
            format!("task {id} goes on"),
            format!("taskmaster tasks result {id}"),
            format!("taskmaster tasks cancel {id}"),
        ] {
            assert!(said.contains(&words), "`{words}` is not in: {said}");
        }
        assert_eq!(cluster.master.task(&id)["state"], "assigned");
        cluster.master.run(&["tasks", "cancel", &id]).with(0);
        cluster.master.wait_state(&id, "cancelled");
    }
}

#[test]
fn a_call_whose_patience_ends_leaves_its_task_with_its_id() {
    let cluster = Cluster::new();
    let args = [
        "call",
        "sleep",
        "--params",
        "600000",
        "--wait-timeout",
        "300ms",
    ];
    let ran = cluster.master.run(&args).with(5);
    let id = cluster.running();
    let ran = ran.says(&["--wait-timeout passed", &format!("task {id} goes on")]);
    assert_eq!(ran.out, "");
    assert_eq!(cluster.master.task(&id)["state"], "assigned");
}

#[test]
fn an_interrupted_call_whose_master_is_away_says_that_the_task_goes_on() {
    let mut cluster = Cluster::new();
    let mut call = cluster
        .master
        .spawn(&["call", "sleep", "--params", "600000"]);
    let id = cluster.running();
    cluster.master.process.kill();
    until("the call to notice", || {
        call.said().contains("connecting again")
    });
    call.signal("INT");
    assert_eq!(call.exit_code(), Some(130), "{}", call.said());
    let words = format!("task {id} goes on");
    assert!(call.said().contains(&words), "{}", call.said());
}

#[test]
fn on_a_terminal_a_call_says_what_it_waits_for() {
    let cluster = Cluster::new();
    let quick = cluster.on_terminal(&["call", "echo", "--params", "1"]);
    assert_eq!(quick, "1\r\n", "nothing is said of what is over at once");

    let long = cluster.on_terminal(&["call", "sleep", "--params", "1500"]);
    assert!(long.contains(": attempt 1 is with runner `"), "{long:?}");
    assert!(
        long.ends_with("\r\u{1b}[K1500\r\n"),
        "the line is removed: {long:?}"
    );

    cluster.master.drop_module(
        "half.wat",
        says_and_sleeps("::progress 0.4 half way", 1_500),
    );
    let half = cluster.on_terminal(&["call", "half"]);
    assert!(
        half.contains(": 40 % half way; attempt 1 is with runner `"),
        "{half:?}"
    );

    let impatient = ["--wait-timeout", "1s"];
    let args = [&["call", "echo", "--label", "gpu=yes"][..], &impatient].concat();
    let nobody = cluster.on_terminal(&args);
    assert!(
        nobody.contains(": none of 2 connected runners takes it"),
        "{nobody:?}"
    );

    for id in ["a", "b"] {
        cluster
            .master
            .run(&["add", "sleep", "--id", id, "--params", "600000"])
            .with(0);
        cluster.master.wait_state(id, "assigned");
    }
    let args = [&["call", "echo", "--params", "1"][..], &impatient].concat();
    let queued = cluster.on_terminal(&args);
    assert!(
        queued.contains(": it waits for a slot: 2 of 2 slots"),
        "{queued:?}"
    );
}

#[test]
fn away_from_a_terminal_a_call_says_nothing_while_it_waits() {
    let cluster = Cluster::new();
    let ran = cluster
        .master
        .run(&["call", "sleep", "--params", "900"])
        .with(0);
    assert_eq!((ran.out.as_str(), ran.err.as_str()), ("900\n", ""));
}

#[test]
fn a_bench_measures_a_chain_and_a_fan() {
    let cluster = Cluster::new();
    for (shape, tasks) in [("chain", 20), ("fan", 22)] {
        let report = cluster.master.json(&["bench", &format!("--{shape}"), "20"]);
        assert_eq!(
            (&report["shape"], &report["tasks"]),
            (&json!(shape), &json!(tasks))
        );
        assert!(report["seconds"].as_f64().unwrap() > 0.0, "{report}");
    }
    let ran = cluster
        .master
        .run(&["bench", "--chain", "2", "--tasks", "9"])
        .with(2);
    ran.says(&["--chain"]);
}

/// A call of `module` with these params.
fn task(module: &str, params: u32) -> TaskDocument {
    let mut document = TaskDocument::new(ModuleRef::parse(module).unwrap());
    document.params = Some(Json::of(&params));
    document
}

#[test]
fn many_calls_are_in_flight_on_one_connection_and_are_matched_by_id() {
    let mut cluster = Cluster::new();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let target = Target::parse(&cluster.master.url, None).unwrap();
        let client = FeederClient::connect(target).await.unwrap();
        let mut calls = Calls::new(client, JobName::new("calls").unwrap());
        let mut wanted = BTreeMap::new();
        for n in 0..1_000 {
            wanted.insert(calls.call(task("echo", n)).unwrap(), n.to_string());
        }
        let unknown = calls.call(task("ecco", 1)).unwrap();
        let endless = calls.call(task("sleep", 600_000)).unwrap();
        assert_eq!(calls.open(), 1_002);

        let (mut refused, mut cancelled) = (0, 0);
        let mut was_killed = false;
        while let Some(news) = calls.next().await.unwrap() {
            match news {
                CallNews::Ended(ended) if ended.id == endless => {
                    assert_eq!(ended.state, TaskState::Cancelled);
                    cancelled += 1;
                }
                CallNews::Ended(ended) => {
                    let result = ended.result.as_ref().map(Json::get);
                    assert_eq!(result, wanted.remove(&ended.id).as_deref(), "{}", ended.id);
                }
                CallNews::Refused(call) => {
                    assert_eq!(call.id, unknown);
                    refused += 1;
                }
                CallNews::Partial(partial) => panic!("{partial:?}"),
            }
            if wanted.len() == 500 && !std::mem::replace(&mut was_killed, true) {
                cluster.master.process.kill();
                cluster.master.start_again();
            }
            if wanted.is_empty() && cancelled == 0 {
                calls.cancel(endless.clone());
            }
        }
        assert_eq!((wanted.len(), refused, cancelled), (0, 1, 1));
    });
}
