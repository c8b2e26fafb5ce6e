//! Peers that mean harm, or that are broken in a way that looks like it: each is limited, named,
//! and harms no other.

use serde_json::{Value, json};
use std::io::Write;
use std::net::TcpStream;
use std::time::{Duration, Instant};
use taskmaster_harness::socket::{Heard, Socket};
use taskmaster_harness::wat::{SLEEP, echo};
use taskmaster_harness::{Master, json_lines, micros_between, until, wait_for};

fn master() -> Master {
    let master = Master::with("master", &[]);
    master.drop_module("echo.wat", echo());
    master
}

fn attempt(id: &str) -> Value {
    json!({"id": id, "attempt": [1, 1]})
}

fn done(id: &str, attempt: Value, result: Value) -> Value {
    json!({"id": id, "attempt": attempt, "result": result, "started_us": 0,
        "stats": {"run_us": 1, "memory_bytes": 0, "log_bytes": 0}})
}

fn say(socket: &mut Socket, event: &str, data: Value) {
    socket.text(&json!({"event": event, "data": data}).to_string());
}

/// A runner of the test's own that has been sent the task `id`.
fn runner_with(master: &Master, name: &str, id: &str) -> Socket {
    let mut socket = Socket::runner(&master.url, name);
    socket.wait("module:announce");
    master
        .run(&["add", "echo", "--params", "1", "--id", id, "--retries", "0"])
        .with(0);
    assert_eq!(socket.wait("task:send")[0]["id"], id);
    socket
}

#[test]
fn a_runner_cannot_end_what_others_hold() {
    let master = master();
    master.drop_module("sleep.wat", SLEEP);
    let _honest = master.runner("honest", &["--slots", "1"]);
    master
        .run(&["add", "sleep", "--params", "3000", "--id", "s"])
        .with(0);
    master.wait_state("s", "assigned");
    let mut evil = Socket::runner(&master.url, "evil");
    for at in [
        json!([1, 1]),
        json!([1, 2]),
        json!([0, 7]),
        json!([4_294_967_295_u32, 4_294_967_295_u32]),
    ] {
        say(
            &mut evil,
            "task:done",
            json!([done("s", at.clone(), json!({"json": "forged"}))]),
        );
        assert_eq!(
            evil.wait("task:ack")[0],
            json!({"id": "s", "attempt": at}),
            "it may forget it"
        );
        let error = json!({"kind": "exit", "message": "no", "code": 64});
        say(
            &mut evil,
            "task:error",
            json!([{"id": "s", "attempt": at, "error": error,
            "stats": {"run_us": 1, "memory_bytes": 0, "log_bytes": 0}}]),
        );
        evil.wait("task:ack");
        say(
            &mut evil,
            "task:returned",
            json!([{"id": "s", "attempt": at}]),
        );
    }
    say(
        &mut evil,
        "task:done",
        json!([done("nobody", json!([1, 1]), json!({"json": 1}))]),
    );
    assert_eq!(evil.wait("task:ack"), json!([attempt("nobody")]));
    assert_eq!(master.task("s")["state"], "assigned");
    // Nor by a claim that it holds it: that is void.
    let mut other = Socket::connect(&master.url);
    other.text(r#"{"event":"hello","data":{"role":"runner","protocol":1,"runner":{"name":"thief","slots":1}}}"#);
    let claims = json!({"credits": 1, "held": [attempt("s"), {"id": "s", "attempt": [0, 4_294_967_295_u32]}]});
    say(&mut other, "task:request", claims);
    assert_eq!(other.wait("task:cancel")[0], attempt("s"));
    let task = master.wait_state("s", "done");
    assert_eq!(
        (&task["runner"], &task["result"], &task["attempt"]),
        (&json!("honest"), &json!(3_000), &json!(1))
    );
}

/// Says `hello` as a runner of one slot, and that it holds `held`.
fn runner_as(master: &Master, name: &str, session: Option<&str>, held: Value) -> Socket {
    let mut socket = Socket::connect(&master.url);
    let runner = json!({"name": name, "slots": 1});
    let mut hello = json!({"role": "runner", "protocol": 1, "runner": runner});
    if let Some(session) = session {
        hello["session"] = json!(session);
    }
    say(&mut socket, "hello", hello);
    say(
        &mut socket,
        "task:request",
        json!({"credits": 1, "held": held}),
    );
    socket
}

#[test]
fn a_runners_name_and_attempts_belong_to_its_process() {
    let master = master();
    let mill = runner_with(&master, "mill", "t");
    let held = json!([attempt("t")]);
    let forged = |socket: &mut Socket| {
        let result = json!({"json": "forged"});
        say(
            socket,
            "task:done",
            json!([done("t", json!([1, 1]), result)]),
        );
    };
    // While the runner is connected, nobody else has its name: not one without a session, not one
    // with another.
    for session in [None, Some("guessed")] {
        let mut thief = runner_as(&master, "mill", session, held.clone());
        forged(&mut thief);
        let refused = thief.wait("refused");
        assert_eq!(refused["error"]["code"], "unavailable", "{refused}");
    }
    // When its line is lost, another process may take the name, but not the attempt.
    drop(mill);
    for session in [None, Some("guessed")] {
        let mut thief = wait_for("the name to be free", || {
            let mut thief = runner_as(&master, "mill", session, held.clone());
            let Heard::Text(first) = thief.hear() else {
                return None;
            };
            (first["event"] == "welcome").then_some(thief)
        });
        assert_eq!(thief.wait("task:cancel")[0], attempt("t"));
        forged(&mut thief);
        thief.wait("task:ack");
        assert_ne!(master.task("t")["state"], "done");
    }
    // The process itself comes back with its result, which counts.
    let mut mill = wait_for("the name to be free", || {
        let mut mill = runner_as(&master, "mill", Some("mill"), held.clone());
        matches!(mill.hear(), Heard::Text(first) if first["event"] == "welcome").then_some(mill)
    });
    let result = json!({"json": "honest"});
    say(
        &mut mill,
        "task:done",
        json!([done("t", json!([1, 1]), result)]),
    );
    mill.wait("task:ack");
    assert_eq!(master.wait_state("t", "done")["result"], "honest");
}

#[test]
fn a_runner_that_lies_about_its_results_is_found_out() {
    let master = master();
    let mut evil = runner_with(&master, "evil", "blob");
    say(
        &mut evil,
        "task:done",
        json!([done("blob", json!([1, 1]), json!({"blob": "a".repeat(64)}))]),
    );
    evil.wait("task:ack");
    let error = master.wait_state("blob", "failed")["error"].clone();
    assert_eq!(error["kind"], "output");
    assert!(
        error["message"]
            .as_str()
            .unwrap()
            .contains("had not put it"),
        "{error}"
    );
    drop(evil);
    let mut evil = runner_with(&master, "evil-2", "large");
    say(
        &mut evil,
        "task:done",
        json!([done(
            "large",
            json!([1, 1]),
            json!({"json": "x".repeat(1 << 20)})
        )]),
    );
    let error = master.wait_state("large", "failed")["error"].clone();
    assert!(
        error["message"]
            .as_str()
            .unwrap()
            .contains("must be put as a blob"),
        "{error}"
    );
    // Bytes under another name than their own.
    let host = master.url.trim_start_matches("ws://");
    let mut stream = TcpStream::connect(host).unwrap();
    let request = format!(
        "PUT /blobs/{} HTTP/1.1\r\nHost: {host}\r\nContent-Length: 2\r\nConnection: close\r\n\r\nhi",
        "b".repeat(64)
    );
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = String::new();
    std::io::Read::read_to_string(&mut stream, &mut answer).unwrap();
    assert!(
        answer.starts_with("HTTP/1.1 4") && answer.contains("hash"),
        "{answer}"
    );
}

#[test]
fn texts_of_a_runner_are_cut_and_its_lists_are_bounded() {
    let master = master();
    let mut evil = runner_with(&master, "evil", "t");
    let logs: Vec<Value> = (0..9_000)
        .map(|_| json!({"id": "t", "attempt": [1, 1], "data": 1}))
        .collect();
    say(&mut evil, "task:log", json!(logs));
    let refused = evil.wait("refused");
    assert_eq!(refused["error"]["code"], "too_large");
    assert!(
        refused["error"]["message"]
            .as_str()
            .unwrap()
            .contains("8192"),
        "{refused}"
    );
    say(
        &mut evil,
        "task:progress",
        json!([{"id": "t", "attempt": [1, 1], "data": "p".repeat(9 << 20)}]),
    );
    let megabytes = |n: usize| "m".repeat(n << 20);
    let error = json!({"kind": "trap", "message": megabytes(8), "backtrace": megabytes(8)});
    say(
        &mut evil,
        "task:error",
        json!([{"id": "t", "attempt": [1, 1], "error": error,
        "stats": {"run_us": u64::MAX, "memory_bytes": u64::MAX, "log_bytes": u64::MAX},
        "log": {"head": megabytes(4), "tail": megabytes(4)}}]),
    );
    evil.wait("task:ack");
    let task = master.wait_state("t", "failed");
    let error = &task["error"];
    assert_eq!(error["message"].as_str().unwrap().len(), 8 << 10);
    assert_eq!(error["backtrace"].as_str().unwrap().len(), 64 << 10);
    let logs = master.run(&["tasks", "logs", "t"]).with(0).out;
    assert!(logs.len() <= 200 << 10, "{}", logs.len());
}

/// The most memory that a process had, MiB.
fn peak_mib(master: &Master) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", master.process.id())).unwrap();
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmHWM:"))
        .unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() >> 10
}

#[test]
fn a_runner_that_floods_and_does_not_read_is_held_back() {
    let master = master();
    let before = peak_mib(&master);
    let mut evil = Socket::runner(&master.url, "evil");
    let reports: Vec<Value> = (0..8_000)
        .map(|n| {
            done(
                &format!("none-{n}"),
                json!([1, 1]),
                json!({"json": "x".repeat(500)}),
            )
        })
        .collect();
    let flood = json!({"event": "task:done", "data": reports}).to_string();
    // More than 4 GB, were it taken; nothing is read. It ends when the master no longer reads, or
    // hangs up.
    evil.patience(Duration::from_secs(5));
    let sent = (0..800)
        .take_while(|_| evil.frame(1, flood.as_bytes()).is_ok())
        .count();
    assert!(sent < 800, "it was never held back");
    let after = peak_mib(&master);
    assert!(
        after < before + 800,
        "{before} MiB before, {after} MiB at the peak, {sent} messages"
    );
    let _honest = master.runner("honest", &["--slots", "1"]);
    master.still_works();
}

#[test]
fn a_feeder_is_limited_in_what_it_names() {
    let master = master();
    let mut evil = Socket::client(&master.url);
    let deep = format!("{}{}", "[".repeat(200_000), "]".repeat(200_000));
    let add = |batch: u32, tasks: &str| {
        format!(r#"{{"event":"task:add","data":{{"batch":{batch},"tasks":[{tasks}]}}}}"#)
    };
    evil.text(&add(
        1,
        &format!(r#"{{"id":"{}","module":"echo"}}"#, "i".repeat(1 << 20)),
    ));
    let rejected = evil.wait("task:rejected");
    evil.wait("task:added");
    let message = rejected["tasks"][0]["error"]["message"].as_str().unwrap();
    assert!(
        message.contains("128") && message.len() < 1_000,
        "{}",
        message.len()
    );
    let many: Vec<String> = (0..1_000_000).map(|n| format!("\"d{n}\"")).collect();
    evil.text(&add(
        2,
        &format!(
            r#"{{"id":"many","module":"echo","dependencies":[{}]}}"#,
            many.join(",")
        ),
    ));
    let rejected = evil.wait("task:rejected");
    evil.wait("task:added");
    assert_eq!(
        rejected["tasks"][0]["error"]["code"], "too_large",
        "{rejected}"
    );
    // Deep JSON is a value like any other where nobody has to understand it, and an error where
    // somebody does.
    evil.text(&add(
        3,
        &format!(r#"{{"id":"deep","module":"echo","params":{deep}}}"#),
    ));
    let answer = evil.hear();
    assert!(
        matches!(&answer, Heard::Text(text) if text["data"]["batch"] == 3),
        "{answer:?}"
    );
    evil.text(&add(
        4,
        &format!(r#"{{"id":"deeper","module":"echo","dependencies":{deep}}}"#),
    ));
    while !matches!(evil.hear(), Heard::Text(text) if text["data"]["batch"] == 4 && text["event"] == "task:added")
    {
    }
    // Also where results are looked for in it; and a chain as long as a batch is refused before
    // anybody waits for it.
    let inside = format!(
        "{}{{\"$result\":\"ghost\"}}{}",
        "[".repeat(2_000_000),
        "]".repeat(2_000_000)
    );
    evil.text(&add(
        5,
        &format!(r#"{{"module":"echo","params":{inside}}}"#),
    ));
    assert_eq!(
        evil.wait("task:rejected")["tasks"][0]["error"]["code"],
        "unknown_dependency"
    );
    evil.wait("task:added");
    let chain: Vec<String> = (0..4_096)
        .map(|n| json!({"id": format!("c{n:0>100}"), "module": "echo", "dependencies": [format!("c{:0>100}", (n + 1) % 4_096)]}))
        .map(|task| task.to_string())
        .collect();
    let began = Instant::now();
    evil.text(&add(6, &chain.join(",")));
    assert_eq!(
        evil.wait("task:rejected")["tasks"]
            .as_array()
            .unwrap()
            .len(),
        4_096
    );
    // What came had some megabytes: whoever reads it says that he is still there.
    evil.frame(9, b"").unwrap();
    assert!(
        began.elapsed() < Duration::from_secs(20),
        "{:?}",
        began.elapsed()
    );
    evil.wait("task:added");
    evil.text(&format!(r#"{{"event":"query","data":{deep}}}"#));
    evil.refusal();
    let _runner = master.runner("honest", &["--slots", "1"]);
    master.still_works();
}

#[test]
fn ten_thousand_jobs_and_a_crowd_behind_one_task_delay_nobody() {
    let master = master();
    let _runner = master.runner("honest", &["--slots", "2"]);
    let jobs: String = (0..10_000)
        .map(|n| format!("{}\n", json!({"module": "echo", "job": format!("j{n}")})))
        .collect();
    let file = master.folder.write("jobs.jsonl", jobs);
    master.run(&["feed", &file, "--wait"]).with(0);
    master
        .run(&["add", "echo", "--id", "first", "--delay", "1h"])
        .with(0);
    let crowd: String = (0..50_000)
        .map(|_| format!("{}\n", json!({"module": "echo", "dependencies": ["first"]})))
        .collect();
    let file = master.folder.write("crowd.jsonl", crowd);
    master.run(&["feed", &file, "--job", "crowd"]).with(0);
    master.still_works();
    master
        .run(&["tasks", "set", "first", "--delay", "0s"])
        .with(0);
    master.still_works();
    until("the crowd", || master.job("crowd")["done"] == 50_000);
}

#[test]
fn a_frame_that_never_ends_and_a_connection_that_never_speaks_are_closed() {
    let master = master();
    let mut half = Socket::client(&master.url);
    half.part(1, 30 << 20, b"{\"event\":");
    let mut mute = Socket::connect(&master.url);
    let began = Instant::now();
    let Heard::Text(refused) = mute.hear() else {
        panic!("closed without a word")
    };
    assert!(
        refused["data"]["error"]["message"]
            .as_str()
            .unwrap()
            .contains("no `hello` within 5 s"),
        "{refused}"
    );
    // A byte now and then is no message.
    let closed = wait_for("the end of it", || {
        let _ = half.raw(b"x");
        match half.hear_within(Duration::from_millis(900)) {
            Some(Heard::Closed(code, reason)) => Some((code, reason)),
            Some(Heard::Ended) => Some((0, String::new())),
            _ => None,
        }
    });
    assert_eq!(closed.0, 1008, "{closed:?}");
    assert!(closed.1.contains("nothing came for 9500 ms"), "{closed:?}");
    assert!(began.elapsed() < Duration::from_secs(60));
}

#[test]
fn a_thousand_connections_in_a_burst_are_served_and_let_go() {
    let master = master();
    let _runner = master.runner("honest", &["--slots", "1"]);
    let host = master.url.trim_start_matches("ws://").to_owned();
    for _ in 0..3 {
        // Half of them say nothing at all.
        let burst: Vec<TcpStream> = (0..300)
            .filter_map(|_| TcpStream::connect(&host).ok())
            .collect();
        for mut stream in burst.iter().step_by(2) {
            let _ = stream.write_all(b"GET /health HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n");
        }
        master.still_works();
    }
}

#[test]
fn a_guest_that_takes_all_it_can_gets_its_own_failure() {
    let master = master();
    let loud =
        "(module (import \"wasi_snapshot_preview1\" \"fd_write\" (func $write (param i32 i32 i32 i32) (result i32)))
      (memory (export \"memory\") 2)
      (func (export \"_start\") (local $n i32)
        (memory.fill (i32.const 1024) (i32.const 120) (i32.const 65536))
        (i32.store (i32.const 0) (i32.const 1024)) (i32.store (i32.const 4) (i32.const 65536))
        (loop $again
          (drop (call $write (i32.const 2) (i32.const 0) (i32.const 1) (i32.const 8)))
          (local.set $n (i32.add (local.get $n) (i32.const 1)))
          (br_if $again (i32.lt_u (local.get $n) (i32.const 1600))))))";
    master.drop_module("loud.wat", loud);
    let _runner = master.runner("honest", &["--slots", "2"]);
    let before = peak_mib(&master);
    let task = master
        .run(&["add", "loud", "--id", "loud", "--wait", "-o", "json"])
        .with(0)
        .json();
    assert_eq!(
        task["stats"]["log_bytes"],
        1_600 * 65_536,
        "100 MB of stderr: {task}"
    );
    let logs = master.run(&["tasks", "logs", "loud"]).with(0).out;
    assert!(
        (60 << 10..80 << 10).contains(&logs.len()),
        "first and last 32 KiB: {}",
        logs.len()
    );
    assert!(peak_mib(&master) < before + 200);
    master.still_works();
    let done = json_lines(&master.run(&["tasks", "list", "-o", "jsonl"]).with(0).out);
    assert!(done.iter().all(|task| task["state"] == "done"), "{done:?}");
}

#[test]
fn a_runner_whose_clock_is_off_does_not_turn_the_times_of_a_task_around() {
    let master = master();
    let in_year_2100_us = 4_102_444_800_000_000_u64;
    for (id, started_us) in [("behind", 0), ("ahead", in_year_2100_us)] {
        let mut runner = runner_with(&master, id, id);
        let mut report = done(id, json!([1, 1]), json!({"json": 1}));
        report["started_us"] = started_us.into();
        report["stats"]["run_us"] = 1_000.into();
        say(&mut runner, "task:done", json!([report]));
        let task = master.wait_state(id, "done");
        let waited_us = micros_between(&task["created"], &task["started"]);
        let ran_us = micros_between(&task["started"], &task["finished"]);
        assert!(waited_us >= 0 && ran_us >= 1_000, "{task}");
    }
}
