//! Large params: put as blobs, kept as blobs, put together by the runner.

use serde_json::{Value, json};
use std::fs;
use taskmaster_harness::socket::{Heard, Socket};
use taskmaster_harness::{Master, Ran, run};

/// Returns its params, of whatever length.
const ECHO: &str = include_str!("../../tasks/echo.wat");

fn master(slots: u32) -> Master {
    let master = Master::up(slots);
    master.drop_module("echo.wat", ECHO);
    master
}

fn text(mib: usize) -> String {
    "0123456789abcdef".repeat(mib << 16)
}

fn sha256(text: &str) -> String {
    taskmaster_protocol::Hash::of(text.as_bytes()).to_string()
}

#[test]
fn what_is_longer_than_a_message_travels_in_parts() {
    let master = master(2);
    // 42 MB of results; a message has 32 MiB at the most.
    let count = 700;
    let value = "z".repeat(60_000);
    let feed: String = (0..count)
        .map(|n| {
            json!({"id": format!("r{n}"), "module": "echo", "params": value}).to_string() + "\n"
        })
        .collect();
    master.run_with(&["feed", "-", "--wait"], &feed).with(0);
    let ids: Vec<String> = (0..count).map(|n| format!("r{n}")).collect();
    let params = json!({ "$results": ids }).to_string();
    master
        .run(&["add", "echo", "--id", "sum", "--params", &params])
        .with(0);
    master.wait_state("sum", "done");
    let sum = master.run(&["tasks", "result", "sum"]).with(0);
    let results: Vec<String> = serde_json::from_str(&sum.out).unwrap();
    assert_eq!(results.len(), count);
    assert!(results.iter().all(|result| *result == value));
    let lost = master.process.said();
    assert!(!lost.contains("connection to the master is gone"), "{lost}");
    // So do the rows of a list.
    let list = master
        .run(&["tasks", "list", "--limit", "1000", "-o", "jsonl"])
        .with(0);
    assert_eq!(list.out.lines().count(), count + 1);
}

/// Puts bytes over HTTP as a client does; the status line.
fn put(master: &Master, name: &str, bytes: &[u8]) -> String {
    use std::io::{Read, Write};
    let host = master.url.trim_start_matches("ws://");
    let mut stream = std::net::TcpStream::connect(host).unwrap();
    let head = format!(
        "PUT /blobs/{name}?for=task HTTP/1.1\r\nHost: {host}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
        bytes.len()
    );
    stream
        .write_all(head.as_bytes())
        .and_then(|()| stream.write_all(bytes))
        .unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer.lines().next().unwrap_or_default().to_owned()
}

/// Adds documents over a socket; what was said of them.
fn add(socket: &mut Socket, batch: u32, tasks: &[Value]) -> Vec<Value> {
    socket
        .text(&json!({"event": "task:add", "data": {"batch": batch, "tasks": tasks}}).to_string());
    let mut rejected = Vec::new();
    loop {
        match socket.hear() {
            Heard::Text(text) if text["event"] == "task:rejected" => {
                rejected.extend(
                    text["data"]["tasks"]
                        .as_array()
                        .unwrap()
                        .iter()
                        .map(|one| one["error"].clone()),
                );
            }
            Heard::Text(text) if text["event"] == "task:added" => return rejected,
            other => panic!("{other:?}"),
        }
    }
}

fn export(master: &Master) -> Ran {
    run(
        &master.folder,
        &["store", "export", "--data", "data"],
        &[],
        "",
    )
    .with(0)
}

#[test]
fn ten_megabytes_of_params_come_back_and_small_tasks_beside_them_too() {
    let master = master(2);
    let large = json!({"n": 1, "text": text(10)}).to_string();
    let ran = master
        .run_with(&["call", "echo", "--params", "-"], &large)
        .with(0);
    assert!(
        ran.out == large || ran.out == format!("{large}\n"),
        "{} bytes came back",
        ran.out.len()
    );
    let mut lines: Vec<String> = (0..200)
        .map(|n| json!({"id": format!("s{n}"), "module": "echo", "params": n}).to_string())
        .collect();
    lines.insert(
        100,
        format!(r#"{{"id":"large","params": {large} ,"module":"echo"}}"#),
    );
    let feed = lines.join("\n");
    let ran = master
        .run_with(&["feed", "--job", "mixed", "--follow"], &feed)
        .with(0);
    assert_eq!(ran.lines().len(), 201);
    let task = master.task("large");
    assert!(task["result_blob"].is_string(), "{task}");
    let result = master.run(&["tasks", "result", "large"]).with(0);
    assert!(
        result.out.trim_end() == large,
        "{} bytes came back",
        result.out.len()
    );
    // The same again is known; something else under its id is not taken.
    let again = master
        .run_with(&["feed", "--job", "mixed", "--follow"], &lines[100])
        .with(0);
    assert_eq!(again.lines().len(), 1);
    let other = lines[100].replacen("\"n\":1", "\"n\":2", 1);
    master
        .run_with(&["feed", "--job", "mixed"], &other)
        .with(1)
        .says(&["line 1", "`large` is taken"]);
}

#[test]
fn results_are_put_into_large_params_and_are_waited_for() {
    let mut master = master(1);
    master
        .run(&[
            "add", "echo", "--id", "first", "--params", "[1.50]", "--delay", "1h",
        ])
        .with(0);
    let large = format!(
        r#"{{"text":"{}","sum":{{"$result":"first"}},"all":{{"$results":["first"]}}}}"#,
        text(9)
    );
    master
        .run_with(&["add", "echo", "--id", "second", "--params", "-"], &large)
        .with(0);
    assert_eq!(master.task("second")["state"], "blocked");
    // What it needs is there after a start, too.
    assert_eq!(master.process.terminate(), Some(0));
    master.start_again();
    assert_eq!(master.task("second")["state"], "blocked");
    master
        .run(&["tasks", "set", "first", "--delay", "0s"])
        .with(0);
    master.wait_state("second", "done");
    let result = master.run(&["tasks", "result", "second"]).with(0).out;
    assert!(
        result
            .trim_end()
            .ends_with(r#","sum":[1.50],"all":[[1.50]]}"#),
        "{} bytes",
        result.len()
    );
}

#[test]
fn neither_journal_nor_message_has_large_params_and_a_store_takes_them_along() {
    let mut master = master(1);
    // Inline, from a client that does not put them.
    let mut socket = Socket::client(&master.url);
    let params = json!({"text": text(4)});
    let task = json!({"id": "inline", "module": "echo", "params": params, "requires": {"labels": {"no": "where"}}});
    assert!(add(&mut socket, 1, std::slice::from_ref(&task)).is_empty());
    assert!(add(&mut socket, 2, &[task]).is_empty(), "the same again");
    let changed = json!({"id": "inline", "module": "echo", "params": {"text": "other"}});
    assert_eq!(add(&mut socket, 3, &[changed])[0]["code"], "id_conflict");
    master
        .run_with(
            &["call", "echo", "--id", "ended", "--params", "-"],
            &json!(text(3)).to_string(),
        )
        .with(0);
    assert_eq!(master.process.terminate(), Some(0));
    let size = fs::metadata(master.folder.join("data/store/db"))
        .unwrap()
        .len();
    let lines = export(&master).lines();
    let of = |id: &str| {
        lines
            .iter()
            .find(|line| line["open"]["body"]["id"] == id || line["ended"]["body"]["id"] == id)
    };
    let body = of("inline").unwrap()["open"]["body"].clone();
    let hash = body["params"]["$blob"]
        .as_str()
        .unwrap_or_else(|| panic!("{body}"))
        .to_owned();
    assert_eq!(hash, sha256(&params.to_string()));
    assert!(of("ended").unwrap()["ended"]["body"]["params"]["$blob"].is_string());
    let pieces = lines
        .iter()
        .filter(|line| line["blob"]["hash"] == *hash)
        .count();
    assert!(pieces >= 4, "{pieces} pieces of 4 MiB");
    // sled's file grows by steps of 512 KiB.
    assert!(size < 4 << 20, "the journal has {size} bytes");

    // Imported elsewhere, checked, and run there.
    let whole: String = lines.iter().map(|line| format!("{line}\n")).collect();
    run(
        &master.folder,
        &["store", "import", "--data", "new"],
        &[],
        &whole,
    )
    .with(0);
    run(
        &master.folder,
        &["store", "check", "--data", "new"],
        &[],
        "",
    )
    .with(0);
    let without: String = lines
        .iter()
        .filter(|line| line["blob"]["hash"] != *hash)
        .map(|line| format!("{line}\n"))
        .collect();
    let refused = run(
        &master.folder,
        &["store", "import", "--data", "newer"],
        &[],
        &without,
    )
    .with(1);
    refused.says(&["names blob", &hash]);
    fs::remove_file(master.folder.join("new/blobs").join(&hash[..2]).join(&hash)).unwrap();
    run(
        &master.folder,
        &["store", "check", "--data", "new"],
        &[],
        "",
    )
    .with(1)
    .says(&["wrong: blob", &hash]);
}

#[test]
fn params_that_name_no_blob_are_refused_and_a_blob_that_is_gone_fails_its_task() {
    let mut master = master(1);
    let mut socket = Socket::client(&master.url);
    let not_json = "no JSON, though text";
    assert!(put(&master, &sha256(not_json), not_json.as_bytes()).contains("201"));
    assert!(put(&master, &sha256("other"), not_json.as_bytes()).contains("400"));
    let named =
        |id: &str, hash: &str| json!({"id": id, "module": "echo", "params": {"$blob": hash}});
    let errors = add(
        &mut socket,
        1,
        &[
            named("a", &"ab".repeat(32)),
            named("b", "abc"),
            named("c", &sha256(not_json)),
            named("d", &sha256("other")),
        ],
    );
    for (error, code, words) in [
        (&errors[0], "unknown_blob", "put it first"),
        (&errors[1], "invalid_value", "`abc`"),
        (&errors[2], "malformed_json", "is not JSON"),
        (&errors[3], "unknown_blob", "no blob"),
    ] {
        assert!(
            error["code"] == code && error["message"].as_str().unwrap().contains(words),
            "{error}"
        );
        assert_eq!(error["field"], "params.$blob", "{error}");
    }
    // A blob that is put by hand, small and with blanks around it, is as good; and one that is lost
    // is named.
    let by_hand = " {\"n\": 1.0}\n";
    put(&master, &sha256(by_hand), by_hand.as_bytes());
    assert!(add(&mut socket, 2, &[named("hand", &sha256(by_hand))]).is_empty());
    assert_eq!(
        master.wait_state("hand", "done")["result"].to_string(),
        r#"{"n":1.0}"#
    );
    let later = json!({"id": "lost", "module": "echo", "params": {"$blob": sha256(by_hand)}, "delay_ms": 3_600_000,
        "retries": 0});
    assert!(add(&mut socket, 3, &[later]).is_empty());
    let hash = sha256(by_hand);
    fs::remove_file(
        master
            .folder
            .join("data/blobs")
            .join(&hash[..2])
            .join(&hash),
    )
    .unwrap();
    master
        .run(&["tasks", "set", "lost", "--delay", "0s"])
        .with(0);
    let error = master.wait_state("lost", "failed")["error"].clone();
    assert_eq!(error["kind"], "input", "{error}");
    assert!(
        error["message"].as_str().unwrap().contains(&hash),
        "{error}"
    );
    // What is known already is answered as before, also without its blob.
    assert!(add(&mut socket, 4, &[named("hand", &hash)]).is_empty());
    assert_eq!(master.process.terminate(), Some(0));
}
