//! Dependencies that carry data: chains, diamonds, fans, and the results of whole jobs.

use serde_json::{Value, json};
use taskmaster_harness::wat::{SLEEP, TRAP};
use taskmaster_harness::{Master, Process};

/// Returns its params, of whatever length.
const ECHO: &str = include_str!("../../tasks/echo.wat");

/// A master with two runners.
struct Cluster {
    master: Master,
    _runners: [Process; 2],
}

impl Cluster {
    fn up() -> Cluster {
        let master = Master::with("master", &[]);
        let runners = ["a", "b"].map(|name| master.runner(name, &["--slots", "2"]));
        for (file, text) in [("echo.wat", ECHO), ("trap.wat", TRAP), ("sleep.wat", SLEEP)] {
            master.drop_module(file, text);
        }
        Cluster {
            master,
            _runners: runners,
        }
    }

    fn feed(&self, job: &str, tasks: &[Value]) {
        let lines: String = tasks.iter().map(|task| format!("{task}\n")).collect();
        self.master
            .run_with(&["feed", "-", "--job", job, "--wait"], &lines)
            .with(0);
    }

    /// Adds a task that takes the results of a whole job.
    fn add_taker(&self, id: &str, of: &str) {
        let params = json!({"$results": {"job": of}}).to_string();
        self.master
            .run(&["add", "echo", "--id", id, "--params", &params])
            .with(0);
    }

    fn result(&self, id: &str) -> Value {
        self.master.run(&["tasks", "result", id]).with(0).json()
    }
}

#[test]
fn results_go_along_chains_diamonds_and_fans() {
    let cluster = Cluster::up();
    let mut tasks = vec![json!({"id": "c0", "module": "echo", "params": {"n": 1.50}})];
    tasks.extend((1..50).map(|n| {
        let params = json!({"$result": format!("c{}", n - 1)});
        json!({"id": format!("c{n}"), "module": "echo", "params": params})
    }));
    let both = json!([{"$result": "left"}, {"$result": "right"}]);
    let left = json!({"left": {"$result": "c49"}});
    let right = json!({"right": {"$result": "c49"}});
    tasks.extend([
        json!({"id": "bottom", "module": "echo", "params": both}),
        json!({"id": "left", "module": "echo", "params": left}),
        json!({"id": "right", "module": "echo", "params": right}),
    ]);
    tasks.extend((0..1_000).map(|n| {
        let params = json!([n, {"$result": "bottom"}]);
        json!({"id": format!("f{n}"), "module": "echo", "params": params})
    }));
    let ids: Vec<String> = (0..1_000).map(|n| format!("f{n}")).collect();
    tasks.push(json!({"id": "all", "module": "echo", "params": {"$results": ids}}));
    cluster.feed("shapes", &tasks);

    let bottom = json!([{"left": {"n": 1.5}}, {"right": {"n": 1.5}}]);
    assert_eq!(cluster.result("bottom"), bottom);
    let all: Vec<Value> = (0..1_000).map(|n| json!([n, bottom])).collect();
    assert_eq!(cluster.result("all"), json!(all));
}

#[test]
fn a_task_takes_the_results_of_a_whole_job_in_the_order_of_adding() {
    let mut cluster = Cluster::up();
    let master = &cluster.master;
    // The last to be added is the first to end.
    master
        .run(&[
            "add", "sleep", "--id", "slow", "--job", "data", "--params", "1500",
        ])
        .with(0);
    for n in 0..3 {
        let params = json!({"n": n}).to_string();
        master
            .run(&["add", "echo", "--job", "data", "--params", &params])
            .with(0);
    }
    cluster.add_taker("sum", "data");
    let why = master.why("sum");
    assert!(why.contains("the end of job `data` (1 task open)"), "{why}");
    // Some of the ends are in the view by then, and the others are not.
    cluster.master.process.kill();
    cluster.master.start_again();
    cluster.master.wait_state("sum", "done");
    let expected = json!([1_500, {"n": 0}, {"n": 1}, {"n": 2}]);
    assert_eq!(cluster.result("sum"), expected);

    // The job goes on in another run, of which the next one takes the results; and what has ended
    // can still be taken after another start.
    cluster.feed("data", &[json!({"module": "echo", "params": "again"})]);
    cluster.add_taker("second", "data");
    cluster.master.wait_state("second", "done");
    assert_eq!(cluster.result("second"), json!(["again"]));
    cluster.master.process.kill();
    cluster.master.start_again();
    cluster.add_taker("third", "data");
    cluster.master.wait_state("third", "done");
    assert_eq!(cluster.result("third"), json!(["again"]));
}

#[test]
fn a_job_with_a_failure_skips_who_takes_its_results_until_it_is_retried() {
    let cluster = Cluster::up();
    let master = &cluster.master;
    cluster.feed(
        "data",
        &[json!({"id": "good", "module": "echo", "params": 1})],
    );
    let feed = json!({"id": "bad", "module": "trap"}).to_string()
        + "\n"
        + &json!({"id": "fine", "module": "echo", "params": 2}).to_string();
    master
        .run_with(&["feed", "-", "--job", "data", "--wait"], &feed)
        .with(3);
    cluster.add_taker("sum", "data");
    let skipped = master.wait_state("sum", "skipped");
    assert_eq!(
        skipped["error"]["message"],
        "the task `bad` of job `data`, whose results it takes, ended as failed"
    );

    master.drop_module("trap.wat", ECHO);
    master.run(&["tasks", "retry", "bad"]).with(0);
    master.wait_state("sum", "done");
    assert_eq!(cluster.result("sum"), json!([null, 2]));
}

#[test]
fn a_job_that_cannot_be_waited_for_is_refused_and_nothing_is_lost() {
    let cluster = Cluster::up();
    let master = &cluster.master;
    cluster.feed("first", &[json!({"module": "echo", "params": 1})]);
    master
        .run(&[
            "add", "sleep", "--id", "long", "--job", "second", "--params", "60000",
        ])
        .with(0);
    let of = |job: &str| json!({"$results": {"job": job}});
    let taker = json!({"id": "taker", "module": "echo", "job": "third", "params": of("second")});
    let tasks = [
        taker,
        json!({"id": "unknown", "module": "echo", "params": of("nobody")}),
        json!({"id": "own", "module": "echo", "job": "first", "params": of("first")}),
        json!({"id": "circle", "module": "echo", "job": "second", "params": of("third")}),
        json!({"id": "behind", "module": "echo", "job": "second", "dependencies": ["taker"]}),
        json!({"id": "named", "module": "echo", "params": {"$results": {"jobs": "first"}}}),
        json!({"id": "good", "module": "echo", "params": of("first")}),
    ];
    let lines: String = tasks.iter().map(|task| format!("{task}\n")).collect();
    let ran = master
        .run_with(&["feed", "-", "--job", "rest"], &lines)
        .with(1);
    for expected in [
        "line 2: unknown job `nobody`",
        "line 3: a task cannot wait for its own job `first`",
        "line 4: dependency cycle: tasks of job `third` wait for the end of job `second`",
        "line 5: dependency cycle: `taker` waits for the end of job `second`",
        "line 6: unknown field `params.$results.jobs`",
    ] {
        assert!(ran.err.contains(expected), "{expected}: {}", ran.err);
    }
    master.wait_state("good", "done");
    assert_eq!(cluster.result("good"), json!([1]));
    master.run(&["tasks", "cancel", "long"]).with(0);
    let skipped = master.wait_state("taker", "skipped");
    let why = skipped["error"]["message"].as_str().unwrap();
    assert!(why.contains("`long` of job `second`"), "{why}");
}
