//! Bad input of every kind: the right exit code, a sentence that names what is wrong, and nothing
//! lost.

use serde_json::{Value, json};
use std::fs;
use taskmaster_harness::socket::{Heard, Socket};
use taskmaster_harness::wat::echo;
use taskmaster_harness::{Folder, Master, Process, Ran, run, until};

fn master() -> Master {
    let master = Master::up(1);
    master.drop_module("echo.wat", echo());
    master
        .run(&[
            "add", "echo", "--id", "before", "--params", "1", "--delay", "1h",
        ])
        .with(0);
    master
}

/// A task added before all that is there and still works.
#[track_caller]
fn nothing_lost(master: &Master) {
    assert_eq!(master.task("before")["state"], "delayed");
    master
        .run(&["tasks", "set", "before", "--delay", "0s"])
        .with(0);
    assert_eq!(master.wait_state("before", "done")["result"], 1);
    master.still_works();
}

#[test]
fn bad_lines_of_a_feed_are_named_and_stop_nobody() {
    let master = master();
    let cases: &[(&str, &str, &str, &[&str])] = &[
        (r#"{"module":"#, "malformed_json", "", &["JSON"]),
        (
            r#"{"module":"echo","prams":1}"#,
            "unknown_field",
            "prams",
            &["prams", "did you mean `params`"],
        ),
        (
            r#"{"module":"echo","priority":"high"}"#,
            "wrong_type",
            "priority",
            &["\"high\"", "expected i32"],
        ),
        (
            r#"{"params":1}"#,
            "missing_field",
            "module",
            &["module", "missing"],
        ),
        (
            r#"{"module":"ecko"}"#,
            "unknown_module",
            "module",
            &["ecko", "did you mean `echo`"],
        ),
        (
            r#"{"module":"../echo"}"#,
            "invalid_value",
            "module",
            &["../echo"],
        ),
        (
            r#"{"module":"echo","dependencies":["ghost"]}"#,
            "unknown_dependency",
            "dependencies",
            &["ghost"],
        ),
        (
            r#"{"id":"me","module":"echo","dependencies":["me"]}"#,
            "dependency_cycle",
            "dependencies",
            &["me"],
        ),
        (
            r#"{"module":"echo","params":{"$result":"gone"}}"#,
            "unknown_dependency",
            "",
            &["gone"],
        ),
        (
            r#"{"module":"echo","id":"a b"}"#,
            "invalid_value",
            "id",
            &["a b"],
        ),
        (
            r#"{"module":"echo","id":"before","params":2}"#,
            "id_conflict",
            "id",
            &["before", "differs in `params`"],
        ),
        (
            r#"{"module":"echo","timeout_ms":0}"#,
            "invalid_value",
            "timeout_ms",
            &["0", "from 1"],
        ),
        (
            r#"{"module":"echo","memory_mb":99999}"#,
            "invalid_value",
            "memory_mb",
            &["99999", "4096"],
        ),
        (
            r#"{"module":"echo","retries":{"max":1,"factor":0.1}}"#,
            "invalid_value",
            "retries.factor",
            &["0.1"],
        ),
        (
            r#"{"module":"echo","requires":{"slots":0}}"#,
            "invalid_value",
            "requires.slots",
            &["0"],
        ),
        (
            r#"{"module":"echo","limits":[{"key":"smtp"}]}"#,
            "unsupported",
            "limits",
            &["limits"],
        ),
        (
            r#"{"module":"echo","cache":{"ttl_s":99999999999}}"#,
            "invalid_value",
            "cache.ttl_s",
            &["99999999999", "366 days"],
        ),
        (
            r#"{"module":"echo","not_before":"soon"}"#,
            "invalid_value",
            "not_before",
            &["soon"],
        ),
        (r#"["echo"]"#, "wrong_type", "", &["object"]),
        ("7", "wrong_type", "", &[]),
    ];
    let good = "{\"module\":\"echo\",\"params\":1}\n";
    let feed: String = cases
        .iter()
        .map(|(line, ..)| format!("{good}{line}\n"))
        .collect::<String>()
        + good;
    let ran = master
        .run_with(
            &["feed", "--job", "mixed", "--follow", "-o", "jsonl"],
            &feed,
        )
        .with(1);
    assert_eq!(
        ran.lines().len(),
        cases.len() + 1,
        "every good line ran: {}",
        ran.err
    );
    let errors: Vec<Value> = ran
        .err
        .lines()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok())
        .map(|line| line["error"].clone())
        .collect();
    assert_eq!(errors.len(), cases.len(), "{}", ran.err);
    for (index, (line, code, field, words)) in cases.iter().enumerate() {
        let number = index * 2 + 2;
        let error = errors
            .iter()
            .find(|error| error["line"] == number)
            .unwrap_or_else(|| panic!("nothing of line {number}: {}", ran.err));
        assert_eq!(error["code"], *code, "{line}: {error}");
        assert_eq!(
            error["field"].as_str().unwrap_or_default(),
            if field.is_empty() {
                error["field"].as_str().unwrap_or_default()
            } else {
                field
            },
            "{line}: {error}"
        );
        let message = error["message"].as_str().unwrap();
        assert!(
            words.iter().all(|word| message.contains(word)),
            "{line}: {error}"
        );
    }
    // For people: a sentence with the line's number.
    master
        .run_with(&["feed"], &format!("{good}{{\"module\":\"ecko\"}}\n"))
        .with(1)
        .says(&["line 2:", "ecko", "did you mean `echo`"]);
    nothing_lost(&master);
}

#[test]
fn a_cycle_is_told_with_its_members() {
    let master = master();
    let feed = ["x>y", "y>z", "z>x"]
        .map(|pair| {
            json!({"id": &pair[..1], "module": "echo", "dependencies": [&pair[2..]]}).to_string()
        })
        .join("\n");
    let ran = master
        .run_with(&["feed"], &feed)
        .with(1)
        .says(&["cycle", "x", "y", "z"]);
    assert_eq!(
        ran.err
            .lines()
            .filter(|line| line.starts_with("line "))
            .count(),
        3,
        "{}",
        ran.err
    );
    assert_eq!(
        master
            .run(&["tasks", "show", "x"])
            .with(1)
            .says(&["`x`"])
            .out,
        ""
    );
    nothing_lost(&master);
}

#[test]
fn what_is_too_large_is_refused_with_its_limit() {
    let master = master();
    let large = json!("x".repeat(65 << 20)).to_string();
    master
        .run_with(&["add", "echo", "--params", "-"], &large)
        .with(1)
        .says(&["params", "67108864"]);
    let line = json!({"module": "echo", "params": "x".repeat(65 << 20)}).to_string();
    let ran = master
        .run_with(
            &["feed", "--job", "large", "--follow"],
            &format!("{line}\n{{\"module\":\"echo\",\"params\":2}}\n"),
        )
        .with(1);
    ran.lines()
        .iter()
        .for_each(|task| assert_eq!(task["result"], 2));
    assert_eq!(ran.lines().len(), 1, "the line after it ran");
    ran.says(&["line 1:"]);
    // Inline, where they are not put as a blob.
    let mut socket = Socket::client(&master.url);
    let task = json!({"module": "echo", "params": "x".repeat(9 << 20)});
    socket.text(&json!({"event": "task:add", "data": {"batch": 1, "tasks": [task]}}).to_string());
    let error = socket.wait("task:rejected")["tasks"][0]["error"].clone();
    assert!(
        error["message"].as_str().unwrap().contains("8388608") && error["field"] == "params",
        "{error}"
    );
    // From somebody who does not look at the limits: told, and hung up on.
    let mut socket = Socket::client(&master.url);
    let _ = socket.frame(1, &vec![b' '; 33 << 20]);
    match socket.hear() {
        Heard::Closed(1009, reason) => assert!(reason.contains("33554432"), "{reason}"),
        other => panic!("{other:?}"),
    }
    nothing_lost(&master);
}

#[test]
fn what_is_no_message_is_refused_and_the_session_goes_on() {
    let master = master();
    let mut socket = Socket::client(&master.url);
    for (text, code, words) in [
        ("{", "malformed_json", vec!["JSON"]),
        ("[]", "wrong_type", vec![]),
        (
            r#"{"event":"task:ad","data":{}}"#,
            "unknown_event",
            vec!["task:ad", "task:add"],
        ),
        (
            r#"{"event":"task:add","data":{"batch":1}}"#,
            "missing_field",
            vec!["tasks"],
        ),
        (
            r#"{"event":"task:add","data":{"batch":"x","tasks":[]}}"#,
            "wrong_type",
            vec!["batch"],
        ),
        (
            r#"{"event":"task:done","data":[]}"#,
            "not_allowed",
            vec!["task:done", "runner"],
        ),
        (
            r#"{"event":"hello","data":{"role":"client","protocol":1}}"#,
            "not_allowed",
            vec!["hello"],
        ),
        (
            r#"{"event":"watch","data":{"filter":{"events":["task:dun"]}}}"#,
            "invalid_value",
            vec!["task:dun", "task:done"],
        ),
    ] {
        socket.text(text);
        let error = socket.refusal();
        assert_eq!(error["code"], code, "{text}: {error}");
        assert!(
            words
                .iter()
                .all(|word| error["message"].as_str().unwrap().contains(word)),
            "{text}: {error}"
        );
    }
    socket.frame(2, b"{}").unwrap();
    assert!(
        socket.refusal()["message"]
            .as_str()
            .unwrap()
            .contains("binary")
    );
    // The same session is still good for work.
    socket.text(r#"{"event":"task:add","data":{"batch":1,"tasks":[{"id":"mine","module":"echo"},{"module":"ecko"}]}}"#);
    let Heard::Text(rejected) = socket.hear() else {
        panic!("nothing came")
    };
    assert_eq!(
        (&rejected["event"], &rejected["data"]["tasks"][0]["index"]),
        (&json!("task:rejected"), &json!(1)),
        "{rejected}"
    );
    let Heard::Text(added) = socket.hear() else {
        panic!("nothing came")
    };
    assert_eq!(added["data"]["ids"], json!(["mine"]), "{added}");
    nothing_lost(&master);
}

#[test]
fn whoever_is_no_peer_is_told_why() {
    let master = master();
    let refused = |hello: &str| {
        let mut socket = Socket::connect(&master.url);
        socket.text(hello);
        let error = socket.refusal();
        assert!(
            matches!(socket.hear(), Heard::Closed(1008, _)),
            "{hello}: not closed"
        );
        (
            error["code"].as_str().unwrap().to_owned(),
            error["message"].as_str().unwrap().to_owned(),
        )
    };
    let offer = r#""runner":{"name":"r","slots":1}"#;
    let (code, message) = refused(&format!(
        r#"{{"event":"hello","data":{{"role":"runner","protocol":99,{offer}}}}}"#
    ));
    assert_eq!(code, "protocol_version");
    assert!(
        message.contains("99") && message.contains("speaks 1"),
        "{message}"
    );
    assert_eq!(
        refused(r#"{"event":"hello","data":{"role":"runner","protocol":1}}"#).0,
        "missing_field"
    );
    assert_eq!(
        refused(r#"{"event":"hello","data":{"role":"boss","protocol":1}}"#).0,
        "invalid_value"
    );
    assert_eq!(
        refused(r#"{"event":"task:add","data":{"batch":1,"tasks":[]}}"#).0,
        "not_allowed"
    );
    assert_eq!(refused("hello?").0, "malformed_json");
    // A page of another site may not use the user's browser to speak to a master.
    let answer = Socket::with_headers(&master.url, "Origin: http://evil.example\r\n")
        .err()
        .unwrap();
    assert!(answer.starts_with("HTTP/1.1 403"), "{answer}");
    assert!(
        Socket::with_headers(
            &master.url,
            &format!("Origin: {}\r\n", master.url.replace("ws:", "http:"))
        )
        .is_ok()
    );
    // The reason reaches whoever types a command.
    let by_another_name = master.url.replace("127.0.0.1", "127.1");
    master
        .run(&["--url", &by_another_name, "tasks", "list"])
        .with(1)
        .says(&["127.1", "start it with --token"]);
    master
        .run(&["--url", "ws://no-such-host.invalid:1", "tasks", "list"])
        .with(69)
        .says(&["cannot be resolved"]);
    nothing_lost(&master);
}

#[test]
fn a_token_is_wanted_where_there_is_one() {
    let master = Master::with("master", &["--token", "right"]);
    let settings = |token| {
        [
            ("TASKMASTER_URL", master.url.as_str()),
            ("TASKMASTER_TOKEN", token),
        ]
    };
    let list = |token| {
        run(
            &master.folder,
            &["tasks", "list", "-o", "json"],
            &settings(token),
            "",
        )
    };
    // A variable that was read from a file has a line break at its end.
    for token in ["right", "right\n", " right\r\n"] {
        assert_eq!(list(token).with(0).json(), json!([]));
    }
    list("ri\nght").with(2).says(&["one line"]);
    list("wrong").with(1).says(&["token is wrong"]);
    master
        .run(&["tasks", "list"])
        .with(1)
        .says(&["wants a token", "--token"]);
    let mut runner = Process::start(
        &master.folder,
        &["runner", "--url", &master.url, "--token", "wrong"],
        &[],
    );
    assert_eq!(runner.exit_code(), Some(1), "{}", runner.said());
    assert!(runner.said().contains("token"), "{}", runner.said());
    let mut runner = Process::start(
        &master.folder,
        &[
            "runner",
            "--url",
            &master.url,
            "--token",
            "right",
            "--name",
            "r",
        ],
        &[],
    );
    until("the runner", || {
        let ran = run(
            &master.folder,
            &["runners", "list", "-o", "quiet"],
            &settings("right"),
            "",
        );
        ran.out == "r\n"
    });
    assert_eq!(runner.terminate(), Some(0));
}

#[test]
fn a_master_that_cannot_start_says_why_and_what_to_do() {
    let master = master();
    let folder = &master.folder;
    let start = |args: &[&str]| run(folder, &[&["up", "--slots", "1"], args].concat(), &[], "");
    let port = master.url.trim_start_matches("ws://");
    let ends = |ran: Ran, words: &[&str]| ran.with(1).says(words);
    ends(
        start(&["--listen", port, "--data", "other"]),
        &[port, "in use", "--listen"],
    );
    assert!(
        !folder.join("other").exists(),
        "nothing is touched by a start that fails"
    );
    ends(
        start(&["--listen", "127.0.0.1:0", "--data", "data"]),
        &["data", "another master", "--data"],
    );
    fs::write(folder.join("file"), "").unwrap();
    // As root a read-only folder can be written: a path below a file cannot, by anybody.
    ends(
        start(&["--listen", "127.0.0.1:0", "--data", "file/data"]),
        &["file/data", "cannot be written", "--data"],
    );
    ends(
        start(&[
            "--listen",
            "127.0.0.1:0",
            "--data",
            "new",
            "--tasks",
            "file/tasks",
        ]),
        &["file/tasks", "--tasks"],
    );
    ends(
        start(&["--listen", "192.0.2.1:1", "--data", "new"]),
        &["192.0.2.1:1", "--listen"],
    );
    for (option, value, words) in [
        ("--listen", "here", "127.0.0.1:3232"),
        ("--durability", "never", "interval:MS"),
        ("--keep", "a while", "7d"),
        ("--grace", "soon", "soon"),
        ("--slots", "many", "many"),
    ] {
        run(folder, &["up", option, value], &[], "")
            .with(2)
            .says(&[option, value, words]);
    }
    nothing_lost(&master);
}

#[test]
fn wrong_usage_is_2_and_says_what_is_right() {
    let master = master();
    for (args, words) in [
        (vec!["ad", "echo"], vec!["ad", "add"]),
        (vec!["tasks", "lits"], vec!["lits", "list"]),
        (vec!["add"], vec!["MODULE"]),
        (
            vec!["add", "echo", "--prams", "1"],
            vec!["--prams", "--params"],
        ),
        (
            vec!["add", "echo", "--params", "{a:1}"],
            vec!["--params", "{a:1}", "JSON"],
        ),
        (
            vec!["add", "echo", "--task-timeout", "soon"],
            vec!["--task-timeout", "soon", "10s"],
        ),
        (
            vec!["add", "echo", "--delay", "5"],
            vec!["--delay", "`5`", "10s"],
        ),
        (
            vec!["add", "echo", "--retries", "often"],
            vec!["--retries", "often"],
        ),
        (vec!["add", "echo", "--id", "a b"], vec!["--id", "a b"]),
        (vec!["add", "a/b"], vec!["a/b"]),
        (
            vec!["add", "echo", "--not-before", "tomorrow"],
            vec!["--not-before", "tomorrow"],
        ),
        (
            vec!["add", "echo", "--label", "eu"],
            vec!["--label", "eu", "name=value"],
        ),
        (
            vec!["tasks", "list", "--state", "don"],
            vec!["don", "did you mean `done`"],
        ),
        (vec!["tasks", "list", "-o", "xml"], vec!["xml", "json"]),
        (
            vec!["tasks", "list", "--url", "http//x"],
            vec!["http//x", "ws://"],
        ),
        (
            vec!["feed", "--wait", "--follow"],
            vec!["--wait", "--follow"],
        ),
        (
            vec!["watch", "--filter", "color=red"],
            vec!["color", "event"],
        ),
        (
            vec!["watch", "--filter", "event=task:dun"],
            vec!["task:dun", "task:done"],
        ),
        (vec!["bench", "--tasks", "0"], vec!["--tasks", "0"]),
        (vec!["tasks", "set", "before"], vec!["--priority"]),
        (
            vec!["run", "x.wat", "--params", "{"],
            vec!["--params", "JSON"],
        ),
    ] {
        let ran = master.run(&args);
        assert_eq!(ran.code, 2, "{args:?}: {} {}", ran.out, ran.err);
        assert_eq!(ran.out, "", "{args:?}");
        ran.says(&words);
    }
    nothing_lost(&master);
}

#[test]
fn what_is_not_there_is_1_with_near_names() {
    let master = master();
    for (args, words) in [
        (vec!["tasks", "show", "befor"], vec!["befor"]),
        (vec!["tasks", "cancel", "nobody"], vec!["nobody"]),
        (vec!["tasks", "retry", "before"], vec!["before", "open"]),
        (vec!["tasks", "result", "before"], vec!["before", "delayed"]),
        (vec!["jobs", "show", "nowhere"], vec!["nowhere"]),
        (
            vec!["modules", "show", "ecko"],
            vec!["ecko", "did you mean `echo`"],
        ),
        (vec!["modules", "rollback", "echo"], vec!["echo", "version"]),
        (
            vec!["runners", "show", "locl"],
            vec!["locl", "did you mean `local`"],
        ),
        (vec!["call", "ecko"], vec!["ecko", "did you mean `echo`"]),
        (vec!["feed", "nofile.jsonl"], vec!["nofile.jsonl"]),
        (vec!["modules", "check", "nofile.wat"], vec!["nofile.wat"]),
        (vec!["run", "nofile.wat"], vec!["nofile.wat"]),
    ] {
        let ran = master.run(&args);
        assert_eq!(ran.code, 1, "{args:?}: {} {}", ran.out, ran.err);
        ran.says(&words);
    }
    nothing_lost(&master);
}

#[test]
fn a_runner_does_not_start_with_wrong_settings() {
    let folder = Folder::new();
    for (args, words) in [
        (vec!["--slots", "0"], vec!["--slots", "0"]),
        (vec!["--label", "eu"], vec!["--label", "eu"]),
        (vec!["--url", "tcp://x"], vec!["--url", "tcp://x"]),
        (vec!["--grace", "x"], vec!["--grace", "x"]),
        (vec!["--modules", "a/b"], vec!["--modules", "a/b"]),
    ] {
        run(&folder, &[&["runner"], args.as_slice()].concat(), &[], "")
            .with(2)
            .says(&words);
    }
}
