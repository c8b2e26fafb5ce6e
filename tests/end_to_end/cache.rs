//! What people see of kept answers and do with them: lists, explanations, counts, purges, salts, and
//! the version in a manifest.

use serde_json::{Value, json};
use std::fs;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use taskmaster_harness::socket::Socket;
use taskmaster_harness::wat::{constant, echo, says, speak};
use taskmaster_harness::{Master, until};

fn master() -> Master {
    let master = Master::up(2);
    master.drop_module("echo.wat", echo());
    master.drop_module("speak.wat", speak());
    master
}

/// Feeds a task of `echo` with these params and fields, and waits for it.
fn run_echo(master: &Master, id: &str, params: Value, more: Value) -> Value {
    let mut task =
        json!({ "id": id, "module": "echo", "params": params, "cache": { "ttl_s": 300 } });
    task.as_object_mut()
        .unwrap()
        .extend(more.as_object().cloned().unwrap_or_default());
    master
        .run_with(&["feed", "--wait"], &task.to_string())
        .with(0);
    master.task(id)
}

fn keep(master: &Master, id: &str, params: Value) -> Value {
    run_echo(master, id, params, json!({}))
}

/// The ids of the tasks whose answers are listed, sorted.
fn listed(master: &Master, more: &[&str]) -> Vec<String> {
    let mut args = vec!["cache", "list"];
    args.extend(more);
    let rows = master.json(&args);
    let task = |row: &Value| row["task"].as_str().unwrap().to_owned();
    let mut tasks: Vec<String> = rows.as_array().unwrap().iter().map(task).collect();
    tasks.sort();
    tasks
}

/// What Prometheus would read.
fn metrics(master: &Master) -> String {
    let address = master.url.trim_start_matches("ws://");
    let mut stream = TcpStream::connect(address).unwrap();
    let request = format!("GET /metrics HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

fn cache_why(master: &Master, id: &str) -> Value {
    master.json(&["cache", "why", id])
}

#[test]
fn kept_answers_are_listed_and_shown_with_what_made_them() {
    let master = master();
    for (id, n) in [("a", 1), ("b", 2), ("c", 3)] {
        keep(&master, id, json!({ "n": n }));
    }
    assert_eq!(listed(&master, &[]), ["a", "b", "c"]);
    assert_eq!(
        listed(&master, &["--module", "echo", "--runner", "local"]).len(),
        3
    );
    for none in [
        ["--module", "other"],
        ["--runner", "other"],
        ["--until", "1h"],
        ["--since", "2100-01-01T00:00:00Z"],
    ] {
        assert_eq!(listed(&master, &none), [""; 0], "{none:?}");
    }
    assert_eq!(listed(&master, &["--since", "1h"]).len(), 3);
    let ran = master.run(&["cache", "list", "--limit", "2"]).with(0);
    assert_eq!(ran.lines().len(), 2);
    assert!(
        ran.err
            .contains("the first 2 are listed, and there are more"),
        "{}",
        ran.err
    );

    let rows = master.json(&["cache", "list"]);
    let keys: Vec<&str> = rows
        .as_array()
        .unwrap()
        .iter()
        .map(|row| row["key"].as_str().unwrap())
        .collect();
    assert!(keys.is_sorted(), "{keys:?}");
    let row = rows
        .as_array()
        .unwrap()
        .iter()
        .find(|row| row["task"] == "b")
        .unwrap();
    let key = row["key"].as_str().unwrap();
    let shown = master.json(&["cache", "show", &key[..20]]);
    assert_eq!(shown["key"], *key);
    assert_eq!(shown["result"], json!({ "n": 2 }));
    assert_eq!(
        (&shown["attempt"], &shown["runner"], &shown["module"]),
        (&json!(1), &json!("local"), &json!("echo"))
    );
    assert_eq!(shown["version"], master.task("b")["version"]);
    assert!(shown["left_s"].as_u64().unwrap() <= 300 && shown["left_s"].as_u64().unwrap() > 200);
    assert!(shown["bytes"].as_u64().unwrap() > 7);
    let parts: Vec<&String> = shown["parts"].as_object().unwrap().keys().collect();
    assert_eq!(
        parts,
        [
            "args",
            "capabilities",
            "env",
            "inputs",
            "module",
            "outputs",
            "params",
            "requires",
            "results",
            "salt",
            "version"
        ]
    );
    let table = master.run(&["cache", "list", "-o", "table"]).with(0).out;
    assert!(table.starts_with("KEY"), "{table}");
    assert!(
        table.contains(&key[..12]) && !table.contains(key),
        "{table}"
    );
    let block = master
        .run(&["cache", "show", key, "-o", "table"])
        .with(0)
        .out;
    assert!(
        block.contains("key of") && block.contains("params "),
        "{block}"
    );
}

#[test]
fn what_is_no_key_and_what_is_not_kept_is_said() {
    let master = master();
    keep(&master, "a", json!(1));
    master
        .run(&["cache", "show", "xyz"])
        .with(2)
        .says(&["`xyz` is no beginning of a key", "hexadecimal"]);
    master
        .run(&["cache", "list", "--key", ""])
        .with(2)
        .says(&["1 to 64 hexadecimal digits"]);
    master
        .run(&["cache", "list", "--since", "soon"])
        .with(2)
        .says(&["`soon` is no time", "2h"]);
    let key = master.json(&["cache", "list"])[0]["key"]
        .as_str()
        .unwrap()
        .to_owned();
    let other = if key.starts_with('0') { "1" } else { "0" };
    master
        .run(&["cache", "show", other])
        .with(1)
        .says(&["no answer is kept whose key begins with"]);
    master
        .run(&["cache", "why", "nobody"])
        .with(1)
        .says(&["unknown task `nobody`"]);
    // Seventeen answers have two whose keys begin with the same digit.
    for n in 0..17 {
        keep(&master, &format!("t{n}"), json!({ "n": n }));
    }
    let said = (0..16).map(|digit| master.run(&["cache", "show", &format!("{digit:x}")]));
    assert!(
        said.into_iter()
            .any(|ran| ran.code == 1 && ran.err.contains("give more digits")),
        "one digit was enough for 18 answers"
    );
    let mut socket = Socket::client(&master.url);
    let mut refused = |message: Value| {
        socket.text(&message.to_string());
        socket.refusal()
    };
    let query = |more: Value| {
        let mut data = json!({ "ref": 1, "what": "kept_answers", "limit": 1 });
        data.as_object_mut()
            .unwrap()
            .extend(more.as_object().unwrap().clone());
        json!({ "event": "query", "data": data })
    };
    for (message, words) in [
        (query(json!({ "after": "x" })), "`after`"),
        (
            query(json!({ "key": "no" })),
            "`no` is no beginning of a key",
        ),
        (query(json!({ "since": "soon" })), "soon"),
        (
            json!({"event": "operate", "data": {"ref": 2, "do": "drop_answers", "keys": ["zz"]}}),
            "64 hexadecimal digits",
        ),
        (
            json!({"event": "operate", "data": {"ref": 3, "do": "drop_answers", "keys": vec![key; 1_001]}}),
            "at most 1000",
        ),
        (
            json!({"event": "operate", "data": {"ref": 4, "do": "salt_module", "name": "echo", "salt": "a b"}}),
            "the salt `a b` may hold only",
        ),
    ] {
        let error = refused(message.clone());
        let text = error["message"].as_str().unwrap();
        assert!(text.contains(words), "{message}: {error}");
    }
    master.still_works();
}

#[test]
fn why_names_the_hit_and_the_part_of_the_key_that_differs() {
    let master = master();
    let none = keep(&master, "first", json!({ "n": 1 }));
    assert_eq!(none["attempt"], 1);
    let why = cache_why(&master, "first");
    assert_eq!(why["outcome"], "miss");
    assert_eq!(why["why"], "no answer of module `echo` was kept");

    keep(&master, "again", json!({ "n": 1 }));
    let why = cache_why(&master, "again");
    assert_eq!(why["outcome"], "hit");
    assert!(
        why["why"].as_str().unwrap().contains("task `first`"),
        "{why}"
    );
    let shown = master
        .run(&["tasks", "show", "again", "-o", "table"])
        .with(0)
        .out;
    assert!(shown.contains("kept from task first, "), "{shown}");

    for (id, params, more, differs) in [
        ("params", json!({ "n": 2 }), json!({}), json!(["params"])),
        (
            "env",
            json!({ "n": 1 }),
            json!({ "env": { "A": "x" } }),
            json!(["env"]),
        ),
        (
            "args",
            json!({ "n": 1 }),
            json!({ "args": ["x"] }),
            json!(["args"]),
        ),
    ] {
        assert_eq!(run_echo(&master, id, params, more)["attempt"], 1, "{id}");
        let why = cache_why(&master, id);
        assert_eq!(
            (&why["outcome"], &why["differs"]),
            (&json!("miss"), &differs),
            "{why}"
        );
        assert_eq!(why["nearest"], "first", "{why}");
        let text = master.run(&["cache", "why", id]).with(0).out;
        assert!(
            text.starts_with("miss: ") && text.contains(&format!("`{id}`")),
            "{text}"
        );
    }
    for (id, cache, words) in [
        ("off", json!(false), "`cache` is off"),
        (
            "refresh",
            json!({ "ttl_s": 9, "mode": "refresh" }),
            "mode `refresh`",
        ),
    ] {
        run_echo(&master, id, json!({ "n": 1 }), json!({ "cache": cache }));
        let why = cache_why(&master, id);
        assert_eq!(why["outcome"], "not_looked_up", "{why}");
        assert!(why["why"].as_str().unwrap().contains(words), "{why}");
    }
    let doubt = r#"{"id":"doubt","module":"echo","params":{"a":1,"a":2},"cache":{"ttl_s":9}}"#;
    master.run_with(&["feed", "--wait"], doubt).with(0);
    let why = cache_why(&master, "doubt");
    assert!(
        why["why"]
            .as_str()
            .unwrap()
            .contains("the key `a` stands twice"),
        "{why}"
    );
    let blocked = r#"{"id":"blocked","module":"echo","delay_ms":600000,"cache":{"ttl_s":9}}"#;
    master.run_with(&["feed"], blocked).with(0);
    let why = cache_why(&master, "blocked");
    assert!(
        why["why"].as_str().unwrap().contains("its time are met"),
        "{why}"
    );
}

#[test]
fn why_says_that_the_answer_was_too_old_and_whose_run_was_shared() {
    let master = master();
    run_echo(&master, "old", json!(7), json!({ "cache": { "ttl_s": 1 } }));
    until("the answer to be too old", || {
        listed(&master, &[]).is_empty()
    });
    run_echo(&master, "new", json!(7), json!({}));
    let why = cache_why(&master, "new");
    assert_eq!(why["outcome"], "miss", "{why}");
    // The master removes old answers now and then, and forgets them.
    let text = why["why"].as_str().unwrap();
    assert!(
        text.contains("too old") || text.contains("no answer of module"),
        "{why}"
    );

    master.drop_module("sleep.wat", taskmaster_harness::wat::SLEEP);
    let task = |id: &str| {
        json!({ "id": id, "module": "sleep", "params": 700, "cache": { "ttl_s": 60 } }).to_string()
    };
    let feed = format!("{}\n{}", task("runs"), task("joins"));
    master.run_with(&["feed"], &feed).with(0);
    until("both to end", || {
        ["runs", "joins"]
            .iter()
            .all(|id| master.task(id)["state"] == "done")
    });
    let outcomes: Vec<String> = ["runs", "joins"]
        .iter()
        .map(|id| {
            cache_why(&master, id)["outcome"]
                .as_str()
                .unwrap()
                .to_owned()
        })
        .collect();
    assert!(outcomes.contains(&"joined".to_owned()), "{outcomes:?}");
}

#[test]
fn a_purge_drops_what_is_named_and_says_how_many() {
    let mut master = master();
    master.run(&["cache", "purge"]).with(2).says(&["--all"]);
    master
        .run(&["cache", "purge", "--all", "--module", "echo"])
        .with(2);
    for (id, n) in [("a", 1), ("b", 2), ("c", 3)] {
        keep(&master, id, json!(n));
    }
    let ran = master
        .run(&["cache", "purge", "--module", "other", "-o", "json"])
        .with(0);
    assert_eq!(ran.json(), json!({ "dropped": 0 }));
    let key = master.json(&["cache", "list"])[0]["key"]
        .as_str()
        .unwrap()
        .to_owned();
    let ran = master.run(&["cache", "purge", "--key", &key]).with(0);
    assert!(ran.err.contains("dropped: 1"), "{}", ran.err);
    assert_eq!(listed(&master, &[]).len(), 2, "it is seen at once");
    assert_eq!(
        master.json(&["cache", "purge", "--runner", "local", "--since", "1h"]),
        json!({ "dropped": 2 })
    );
    assert_eq!(listed(&master, &[]), [""; 0]);
    assert_eq!(keep(&master, "a2", json!(1))["attempt"], 1, "it runs again");
    assert_eq!(keep(&master, "a3", json!(1))["attempt"], 0);
    assert_eq!(
        master.json(&["cache", "purge", "--all"]),
        json!({ "dropped": 1 })
    );
    master.process.kill();
    master.start_again();
    assert_eq!(
        listed(&master, &[]),
        [""; 0],
        "what was dropped is dropped after a restart"
    );
    assert_eq!(keep(&master, "a4", json!(1))["attempt"], 1);
}

#[test]
fn a_salt_makes_older_answers_unknown_and_outlives_a_restart() {
    let mut master = master();
    keep(&master, "a", json!(1));
    master
        .run(&["cache", "salt", "echo"])
        .with(0)
        .says(&["has no salt"]);
    master
        .run(&["cache", "salt", "echo", "two words"])
        .with(2)
        .says(&["the salt `two words`"]);
    master
        .run(&["cache", "salt", "ecco", "x"])
        .with(1)
        .says(&["unknown module `ecco`", "`echo`"]);
    master
        .run(&["cache", "salt", "echo", "x", "--remove"])
        .with(2);
    master.run(&["cache", "salt", "echo", "2026-12"]).with(0);
    assert_eq!(keep(&master, "b", json!(1))["attempt"], 1, "another key");
    let why = cache_why(&master, "b");
    assert_eq!(why["differs"], json!(["salt"]), "{why}");
    master.process.kill();
    master.start_again();
    assert_eq!(
        master.run(&["cache", "salt", "echo"]).with(0).out,
        "2026-12\n"
    );
    assert_eq!(master.json(&["modules", "show", "echo"])["salt"], "2026-12");
    assert_eq!(keep(&master, "c", json!(1))["cached"]["from"], "b");
    master.run(&["cache", "salt", "echo", "--remove"]).with(0);
    assert_eq!(
        keep(&master, "d", json!(1))["cached"]["from"],
        "a",
        "the former key"
    );
}

#[test]
fn counts_are_told_by_the_command_and_by_metrics() {
    let master = master();
    keep(&master, "a", json!(1));
    keep(&master, "b", json!(1));
    keep(&master, "c", json!(2));
    let speaker = json!({ "id": "s", "module": "speak", "args": ["::cache 60"], "retries": 0 });
    master
        .run_with(&["feed", "--wait"], &speaker.to_string())
        .with(0);
    let stats = master.json(&["cache", "stats"]);
    for (name, count) in [
        ("entries", 2),
        ("hits", 1),
        ("misses", 2),
        ("joined", 0),
        ("kept", 2),
        ("doubtful", 1),
        ("evicted", 0),
    ] {
        assert_eq!(stats[name], count, "{name}: {stats}");
    }
    assert!(
        stats["bytes"].as_u64().unwrap() > 2_000 && stats["bytes_max"].as_u64() > Some(1 << 20)
    );
    let table = master.run(&["cache", "stats", "-o", "table"]).with(0).out;
    assert!(table.contains("--cache-mb"), "{table}");
    let told = metrics(&master);
    for line in [
        "taskmaster_cache_entries 2",
        "taskmaster_cache_hits_total 1",
        "taskmaster_cache_misses_total 2",
        "taskmaster_cache_doubtful_total 1",
        "# TYPE taskmaster_cache_kept_total counter",
    ] {
        assert!(told.lines().any(|said| said == line), "{line}: {told}");
    }
}

#[test]
fn a_version_in_the_manifest_outlives_a_rebuild_and_a_default_keeps_answers() {
    let master = master();
    let manifest = |name: &str, text: &str| {
        fs::write(master.tasks().join(name), text).unwrap();
    };
    manifest(
        "fixed.toml",
        "[cache]\nversion = \"3\"\n\n[defaults]\ncache = {ttl_s = 300}\n",
    );
    master.drop_module("fixed.wat", constant("1"));
    let call = |id: &str| {
        let task = json!({ "id": id, "module": "fixed" }).to_string();
        master.run_with(&["feed", "--wait"], &task).with(0);
        master.task(id)
    };
    assert_eq!(call("a")["attempt"], 1);
    assert_eq!(
        call("b")["cached"]["from"],
        "a",
        "the default of the manifest counts"
    );
    let first = master.module("fixed")["version"].clone();
    let rebuild = |text: &str| {
        let before = master.module("fixed")["version"].clone();
        fs::write(master.tasks().join("fixed.wat"), text).unwrap();
        until("the rebuild", || {
            master.module("fixed")["version"] != before
        });
    };
    rebuild(&says("1", "a", 0));
    assert_eq!(
        call("c")["cached"]["from"],
        "a",
        "a rebuild finds the answers"
    );
    // A version that is pinned, and is not the newest, counts by its hash.
    let pinned = format!("fixed@sha256:{}", first.as_str().unwrap());
    let task = json!({ "id": "pinned", "module": pinned }).to_string();
    master.run_with(&["feed", "--wait"], &task).with(0);
    assert_eq!(master.task("pinned")["attempt"], 1);
    manifest(
        "fixed.toml",
        "[cache]\nversion = \"4\"\n\n[defaults]\ncache = {ttl_s = 300}\n",
    );
    let mut n = 0;
    until("the other version to count", || {
        n += 1;
        call(&format!("d{n}"))["attempt"] == 1
    });
    for (text, words) in [
        ("[cache]\nversion = 3", "cache.version"),
        ("[cache]\nversion = ''", "`cache.version` has 0 characters"),
        ("[cache]\nverison = '3'", "did you mean `version`"),
        ("[defaults]\ncache = {ttl = 1}", "defaults.cache"),
        ("[defaults]\ncache = true", "defaults.cache"),
    ] {
        manifest("fixed.toml", text);
        let ran = master.run(&["modules", "check", "tasks/fixed.wat"]).with(1);
        let said = format!("{}{}", ran.out, ran.err);
        assert!(said.contains(words), "{text}: {said}");
    }
}
