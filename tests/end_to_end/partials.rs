//! Partial results, from a guest on one of two runners to whoever follows its task.

use serde_json::{Value, json};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use taskmaster_harness::client::Client;
use taskmaster_harness::wat::{says, says_and_sleeps, speak, stamps};
use taskmaster_harness::{Master, Process, json_lines, wait_for};

/// How long anything may take here.
const PATIENCE: Duration = Duration::from_secs(30);

struct Cluster {
    master: Master,
    runners: Vec<Process>,
}

impl Cluster {
    /// A master with two runners of two slots each.
    fn new() -> Cluster {
        let master = Master::with("master", &[]);
        let runner = |name| master.runner(name, &["--slots", "2"]);
        let runners = ["one", "two"].map(runner).into();
        Cluster { master, runners }
    }

    /// A client that follows what `follow` says.
    fn follower(&self, follow: Value) -> Client {
        let mut client = Client::dial(&self.master.url, None).unwrap();
        client.say("task:follow", follow).unwrap();
        client
    }
}

/// The partial results, or the ended tasks, of the next message that has some.
fn hear(client: &mut Client) -> Vec<Value> {
    let deadline = Instant::now() + PATIENCE;
    while Instant::now() < deadline {
        let Some(message) = client.hear(PATIENCE).unwrap() else {
            break;
        };
        match message["event"].as_str().unwrap() {
            "task:partial" => return message["data"].as_array().unwrap().clone(),
            "task:final" => return message["data"]["tasks"].as_array().unwrap().clone(),
            "refused" => panic!("{message}"),
            _ => {}
        }
    }
    panic!("nothing came");
}

#[test]
fn a_call_prints_each_partial_result_as_a_line_and_the_result_last() {
    let cluster = Cluster::new();
    cluster.master.drop_module("stamps.wat", stamps(20, 5));
    let ran = cluster
        .master
        .run(&["call", "stamps", "--partials"])
        .with(0);
    let lines = ran.lines();
    assert_eq!(lines.len(), 21, "{}", ran.out);
    assert!(
        lines[..20].is_sorted_by_key(|stamp| stamp.as_u64()),
        "{}",
        ran.out
    );
    assert_eq!(lines[20], 7);
    assert_eq!(cluster.master.run(&["call", "stamps"]).with(0).out, "7\n");
}

#[test]
fn a_feed_that_follows_prints_them_in_order_before_the_ends_of_their_tasks() {
    let cluster = Cluster::new();
    cluster.master.drop_module("stamps.wat", stamps(20, 5));
    let feed: Vec<String> = (0..8)
        .map(|n| json!({"id": format!("t{n}"), "module": "stamps"}).to_string())
        .collect();
    let args = ["feed", "--job", "j", "--follow", "--partials"];
    let ran = cluster.master.run_with(&args, &feed.join("\n")).with(0);
    let lines = ran.lines();
    for n in 0..8 {
        let id = format!("t{n}");
        let of_task: Vec<&Value> = lines
            .iter()
            .filter(|line| line["id"] == id.as_str())
            .collect();
        let (end, partials) = of_task.split_last().unwrap();
        assert_eq!((&end["state"], end.get("partial")), (&json!("done"), None));
        let numbers: Vec<u64> = partials
            .iter()
            .map(|it| it["n"].as_u64().unwrap())
            .collect();
        assert_eq!(numbers.last(), Some(&20), "{}", ran.out);
        assert!(numbers.is_sorted_by(|a, b| a < b), "{numbers:?}");
        for partial in partials {
            assert!(
                partial["partial"].is_u64() && partial["attempt"] == 1,
                "{partial}"
            );
            assert_eq!(partial.get("state"), None);
        }
    }
    let ran = cluster
        .master
        .run_with(&["feed", "--wait", "--partials"], "")
        .with(2);
    ran.says(&["--partials"]);
}

#[test]
fn a_new_attempt_begins_again_and_says_so() {
    let cluster = Cluster::new();
    cluster
        .master
        .drop_module("again.wat", says("", "::partial {\"a\": 1}\n", 75));
    let retries = json!({"max": 1, "backoff_ms": 1});
    let feed = json!({"id": "fed", "module": "again", "retries": retries}).to_string();
    let args = ["feed", "--follow", "--partials"];
    let lines = cluster.master.run_with(&args, &feed).with(3).lines();
    let first = json!({"id": "fed", "partial": {"a": 1}, "n": 1, "attempt": 1});
    let second = json!({"id": "fed", "partial": {"a": 1}, "n": 1, "attempt": 2, "restart": true});
    assert_eq!(lines[..lines.len() - 1], [first, second]);

    let args = ["call", "again", "--partials", "--retries", "1"];
    let ran = cluster.master.run(&args).with(3);
    assert_eq!(ran.out, "{\"a\": 1}\n{\"a\": 1}\n", "as they were sent");
    ran.says(&["attempt 2 begins again"]);
}

#[test]
fn who_comes_later_gets_the_newest_at_once_and_a_lost_runners_are_void() {
    let mut cluster = Cluster::new();
    let module = says_and_sleeps("::partial 1\n::partial {\"best\": 2}", 600_000);
    cluster.master.drop_module("slow.wat", module);
    cluster
        .master
        .run(&["add", "slow", "--id", "slow", "--job", "j"])
        .with(0);
    let shown = wait_for("the partial result", || {
        Some(cluster.master.task("slow")).filter(|task| task["partial"]["n"] == 2)
    });
    let partial = &shown["partial"];
    assert_eq!(
        (&partial["value"], &partial["attempt"]),
        (&json!({"best": 2}), &json!(1))
    );
    assert!(partial["time"].is_string());
    for follow in [
        json!({"ids": ["slow"], "partials": true}),
        json!({"job": "j", "partials": true}),
    ] {
        let told = hear(&mut cluster.follower(follow));
        assert_eq!(told.len(), 1, "{told:?}");
        assert_eq!(
            (&told[0]["n"], &told[0]["value"]),
            (&json!(2), &json!({"best": 2}))
        );
    }

    // The runner is lost, and the task begins again on the other one.
    let mut follower = cluster.follower(json!({"ids": ["slow"], "partials": true}));
    assert_eq!(hear(&mut follower)[0]["attempt"], 1);
    let at = if shown["runner"] == "one" { 0 } else { 1 };
    cluster.runners[at].kill();
    let again = hear(&mut follower);
    assert_eq!(
        (&again[0]["attempt"], &again[0]["restart"]),
        (&json!(2), &json!(true))
    );

    cluster.master.run(&["tasks", "cancel", "slow"]).with(0);
    let ended = cluster.master.wait_state("slow", "cancelled");
    assert_eq!(ended.get("partial"), None);
}

#[test]
fn a_partial_result_that_is_none_is_a_line_in_the_log() {
    let cluster = Cluster::new();
    cluster.master.drop_module("speak.wat", speak());
    let long = format!("::partial \"{}\"", "x".repeat(70_000));
    let lines = ["::partial {", "::partial", &long, "::partial 3"].join("\n");
    let feed = json!({"id": "s", "module": "speak", "args": [lines]}).to_string();
    let args = ["feed", "--follow", "--partials"];
    let told = cluster.master.run_with(&args, &feed).with(0).lines();
    assert_eq!(
        (told.len(), &told[0]["partial"]),
        (2, &json!(3)),
        "{told:?}"
    );
    let log = cluster.master.run(&["tasks", "logs", "s"]).with(0).out;
    for words in [
        "taskmaster: `::partial {`: not JSON",
        "taskmaster: `::partial `: not JSON",
        "taskmaster: `::partial`: 70002 bytes, at most 65536 are allowed",
    ] {
        assert!(log.contains(words), "`{words}` is not in: {log}");
    }
}

#[test]
fn partial_results_are_told_within_milliseconds() {
    let cluster = Cluster::new();
    cluster.master.drop_module("stamps.wat", stamps(500, 4));
    let mut follower = cluster.follower(json!({"job": "j", "partials": true}));
    for id in ["a", "b"] {
        cluster
            .master
            .run(&["add", "stamps", "--id", id, "--job", "j"])
            .with(0);
    }
    let mut took_us = Vec::new();
    let mut ended = 0;
    while ended < 2 {
        for told in hear(&mut follower) {
            let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
            match told["value"].as_u64() {
                Some(given_ns) => {
                    took_us.push((now.as_nanos() as u64).saturating_sub(given_ns) / 1_000);
                }
                None => ended += 1,
            }
        }
    }
    took_us.sort_unstable();
    let rank = |percent: usize| took_us[took_us.len() * percent / 100];
    println!(
        "{} partial results: p50 {} µs, p99 {} µs",
        took_us.len(),
        rank(50),
        rank(99)
    );
    assert!(took_us.len() > 900, "{}", took_us.len());
    assert!(
        rank(50) < 20_000,
        "half of them took {} µs or more",
        rank(50)
    );
}

#[test]
fn partial_results_go_on_when_the_follower_was_cut_off() {
    let mut cluster = Cluster::new();
    cluster.master.drop_module("stamps.wat", stamps(600, 10));
    let feed = json!({"id": "t", "module": "stamps"}).to_string();
    let file = cluster.master.folder.write("feed.jsonl", feed);
    let mut feed = cluster
        .master
        .spawn(&["feed", &file, "--follow", "--partials"]);
    let printed = |feed: &Process| {
        let text = feed.printed();
        json_lines(&text[..text.rfind('\n').map_or(0, |end| end + 1)])
    };
    wait_for("the first ones", || {
        (printed(&feed).len() > 20).then_some(())
    });
    cluster.master.process.kill();
    cluster.master.start_again();
    assert_eq!(feed.exit_code(), Some(0), "{}", feed.said());
    let lines = printed(&feed);
    let (end, partials) = lines.split_last().unwrap();
    assert_eq!(
        (&end["state"], &end["attempt"]),
        (&json!("done"), &json!(1)),
        "adopted"
    );
    let numbers: Vec<u64> = partials
        .iter()
        .map(|it| it["n"].as_u64().unwrap())
        .collect();
    assert!(numbers.is_sorted_by(|a, b| a < b), "{numbers:?}");
    assert_eq!(numbers.last(), Some(&600));
    let missed: u64 = partials.iter().filter_map(|it| it["missed"].as_u64()).sum();
    assert_eq!(
        numbers.len() as u64 + missed,
        600,
        "each is told or counted"
    );
}
