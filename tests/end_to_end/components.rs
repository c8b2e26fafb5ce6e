//! Components from outside: dropped, checked, given params of wrong types, called, replaced,
//! cancelled.

use serde_json::{Value, json};
use std::time::{Duration, Instant};
use taskmaster_harness::{Master, until};

/// One function: repeats a string.
const REPEAT: &str = r#"(component
  (core module $m (memory (export "memory") 1)
    (func (export "realloc") (param i32 i32 i32 i32) (result i32) (i32.const 1024))
    (func (export "repeat") (param $at i32) (param $length i32) (param $times i32) (result i32) (local $to i32)
      (local.set $to (i32.const 8192))
      (loop $next (if (local.get $times) (then
        (memory.copy (local.get $to) (local.get $at) (local.get $length))
        (local.set $to (i32.add (local.get $to) (local.get $length)))
        (local.set $times (i32.sub (local.get $times) (i32.const 1)))
        (br $next))))
      (i32.store (i32.const 0) (i32.const 8192))
      (i32.store (i32.const 4) (i32.sub (local.get $to) (i32.const 8192)))
      (i32.const 0)))
  (core instance $i (instantiate $m))
  (func (export "repeat") (param "text" string) (param "times" u8) (result string)
    (canon lift (core func $i "repeat") (memory (core memory $i "memory")) (realloc (core func $i "realloc")))))"#;

/// A component of the world in tasks/wit: never ends with `true` as params, else says that it was
/// wrong.
const STUBBORN: &str = r#"(component
  (import "taskmaster:task/host@1.0.0" (instance $host
    (type $error' (variant (case "retryable" string) (case "permanent" string)))
    (export "error" (type $error (eq $error')))
    (export "progress" (func (param "fraction" f32) (param "note" string)))))
  (alias export $host "error" (type $error))
  (core module $libc (memory (export "memory") 1) (data (i32.const 64) "this time")
    (func (export "realloc") (param i32 i32 i32 i32) (result i32) (i32.const 1024)))
  (core instance $libc (instantiate $libc))
  (core func $progress (canon lower (func $host "progress") (memory (core memory $libc "memory"))))
  (core module $m
    (import "libc" "memory" (memory 1)) (import "host" "progress" (func $progress (param f32 i32 i32)))
    (func (export "run") (param $at i32) (param i32) (result i32)
      (call $progress (f32.const 0.25) (i32.const 64) (i32.const 9))
      (loop $l (br_if $l (i32.eq (i32.load8_u (local.get $at)) (i32.const 116))))
      (i32.store (i32.const 0) (i32.const 1))
      (i32.store (i32.const 4) (i32.eq (i32.load8_u (local.get $at)) (i32.const 48)))
      (i32.store (i32.const 8) (i32.const 64)) (i32.store (i32.const 12) (i32.const 9)) (i32.const 0)))
  (core instance $i (instantiate $m (with "libc" (instance $libc))
    (with "host" (instance (export "progress" (func $progress))))))
  (func (export "run") (param "params" string) (result (result string (error $error)))
    (canon lift (core func $i "run") (memory (core memory $libc "memory")) (realloc (core func $libc "realloc")))))"#;

fn refusal(master: &Master, args: &[&str]) -> Value {
    let ran = master.run(&[args, &["-o", "json"]].concat()).with(1);
    let line = ran.err.lines().last().unwrap_or_default().to_owned();
    serde_json::from_str::<Value>(&line).unwrap_or_else(|error| panic!("{error}: {}", ran.err))["error"].clone()
}

#[test]
fn params_are_compared_with_types_when_a_task_is_added() {
    let master = Master::up(1);
    master.drop_module("repeat.wat", REPEAT);
    let call = |params: &str| master.run(&["call", "repeat", "--params", params]);
    assert_eq!(call(r#"{"text":"ab","times":3}"#).with(0).out, "ababab\n");
    assert_eq!(call(r#"["ü",2]"#).with(0).out, "üü\n");
    for (params, field, words) in [
        (
            r#"{"text":"a","times":300}"#,
            "params.times",
            "300, expected u8, a whole number from 0 to 255",
        ),
        (r#"{"text":"a"}"#, "params.times", "is missing"),
        (
            r#"{"text":"a","time":3}"#,
            "params.time",
            "did you mean `times`",
        ),
        (r#"["a"]"#, "params", "an array of 2 values"),
    ] {
        let error = refusal(&master, &["add", "repeat", "--params", params]);
        assert_eq!(error["field"], field, "{error}");
        assert!(
            error["message"].as_str().unwrap().contains(words),
            "{error}"
        );
    }
    // A bad line of a feed is named and stops nobody; what is not there yet is compared when it is.
    let feed = r#"{"id":"a","module":"repeat","params":["x",2]}
{"id":"bad","module":"repeat","params":["x",-1]}
{"id":"b","module":"repeat","params":{"text":{"$result":"a"},"times":2}}
{"id":"c","module":"repeat","params":{"text":"x","times":{"$result":"a"}}}"#;
    master
        .run_with(&["feed", "--wait"], feed)
        .with(1)
        .says(&["line 2: field `params[1]` is -1"]);
    assert_eq!(master.task("b")["result"], "xxxx");
    let error = master.task("c")["error"].clone();
    assert_eq!(
        (&error["kind"], &error["code"]),
        (&json!("input"), &json!(65)),
        "no other try would find it right"
    );
    assert!(
        error["message"]
            .as_str()
            .unwrap()
            .contains("`params.times` is \"xx\""),
        "{error}"
    );
    assert_eq!(master.task("c")["attempt"], 1);
    master.run(&["tasks", "show", "bad"]).with(1);
}

#[test]
fn a_replaced_component_has_its_own_types() {
    let master = Master::up(1);
    master.drop_module("repeat.wat", REPEAT);
    let add = ["add", "repeat", "--id", "first", "--params", r#"["x",1]"#];
    master.run(&add).with(0);
    let other = REPEAT.replace(r#"(param "times" u8)"#, r#"(param "times" bool)"#);
    std::fs::write(master.tasks().join("repeat.wat"), &other).unwrap();
    let last = master.module("repeat")["version"].clone();
    until("the new version", || {
        master.module("repeat")["version"] != last
            || master
                .run(&["call", "repeat", "--params", r#"["x",true]"#])
                .code
                == 0
    });
    assert_eq!(
        master
            .run(&["call", "repeat", "--params", r#"["x",true]"#])
            .with(0)
            .out,
        "x\n"
    );
    assert_eq!(
        refusal(&master, &["add", "repeat", "--params", r#"["x",1]"#])["field"],
        "params[1]"
    );
    // What was acknowledged stays so.
    assert_eq!(master.run(&add).with(0).out, "first\n");
    master.run(&["modules", "rollback", "repeat"]).with(0);
    assert_eq!(
        master
            .run(&["call", "repeat", "--params", r#"["x",2]"#])
            .with(0)
            .out,
        "xx\n"
    );
}

#[test]
fn errors_decide_about_retries_and_a_cancel_takes_effect() {
    let master = Master::up(1);
    master.drop_module("stubborn.wat", STUBBORN);
    master
        .run(&["call", "stubborn", "--params", "0", "--id", "never"])
        .with(3)
        .says(&["this time"]);
    let error = master.task("never")["error"].clone();
    assert_eq!(
        (&error["kind"], &error["code"]),
        (&json!("exit"), &json!(65)),
        "{error}"
    );
    assert_eq!(master.task("never")["attempt"], 1, "permanent");
    let line =
        r#"{"id":"again","module":"stubborn","params":1,"retries":{"max":2,"backoff_ms":1}}"#;
    master.run_with(&["feed", "--wait"], line).with(3);
    assert_eq!(
        (
            &master.task("again")["attempt"],
            &master.task("again")["error"]["code"]
        ),
        (&json!(3), &json!(75))
    );
    master
        .run(&["add", "stubborn", "--params", "true", "--id", "spins"])
        .with(0);
    master.wait_state("spins", "assigned");
    let start = Instant::now();
    master.run(&["tasks", "cancel", "spins"]).with(0);
    master.run(&["call", "stubborn", "--params", "0"]).with(3);
    assert!(
        start.elapsed() < Duration::from_secs(5),
        "the slot is free again: {:?}",
        start.elapsed()
    );
    assert_eq!(master.task("spins")["state"], "cancelled");
}

#[test]
fn what_a_component_is_and_may_reach_is_told() {
    let master = Master::up(1);
    master.drop_module("repeat.wat", REPEAT);
    let entry = "repeat: func(text: string, times: u8) -> string";
    let path = master.tasks().join("repeat.wat");
    let check = master.json(&["modules", "check", path.to_str().unwrap()]);
    let shown = || master.json(&["modules", "show", "repeat"]);
    for found in [&check, &shown()["check"]] {
        assert_eq!(
            (&found["ok"], &found["kind"], &found["entry"]),
            (&json!(true), &json!("component"), &json!(entry))
        );
        assert_eq!(
            (&found["exports"], &found["imports"]),
            (&json!([entry]), &json!([]))
        );
        assert_eq!(
            (&found["reach"], &found["bytes"]),
            (&json!("nothing of the machine"), &json!(REPEAT.len()))
        );
    }
    assert_eq!(check["version"], shown()["version"]);
    until("the time of its compilation", || {
        shown()["versions"][0]["compile_us"]
            .as_u64()
            .is_some_and(|us| us > 0)
    });
    let table = master
        .run(&["modules", "show", "repeat", "-o", "table"])
        .with(0)
        .out;
    for words in [entry, "component", "may reach", "compiled in"] {
        assert!(table.contains(words), "{table}");
    }
    let foreign = REPEAT.replacen(
        "(component",
        r#"(component (import "wasi:nn/graph@0.2.0" (instance))"#,
        1,
    );
    std::fs::write(master.tasks().join("foreign.wat"), foreign).unwrap();
    until("the rejection", || {
        master.module("foreign")["state"] == "rejected"
    });
    assert!(
        master.module("foreign")["error"]
            .as_str()
            .unwrap()
            .contains("unknown imports: wasi:nn/graph@0.2.0;")
    );
    let file = master.tasks().join("foreign.wat");
    let check = master
        .run(&["modules", "check", file.to_str().unwrap(), "-o", "json"])
        .with(1)
        .json();
    assert_eq!(
        (&check["ok"], &check["kind"]),
        (&json!(false), &json!("component"))
    );
}

#[test]
fn run_and_a_runner_say_the_same() {
    let master = Master::up(1);
    master.drop_module("stubborn.wat", STUBBORN);
    master.drop_module("repeat.wat", REPEAT);
    let file = |name: &str| master.tasks().join(name).to_str().unwrap().to_owned();
    let params = r#"["ab",2]"#;
    assert_eq!(
        master
            .run(&["run", &file("repeat.wat"), "--params", params])
            .with(0)
            .out,
        "abab\n"
    );
    master
        .run(&["run", &file("repeat.wat"), "--params", "[1,2]"])
        .with(3)
        .says(&["input", "`params[0]` is 1, expected string"]);
    master
        .run(&["run", &file("stubborn.wat"), "--params", "0"])
        .with(3)
        .says(&["exit: this time", "0.25"]);
    master
        .run(&[
            "run",
            &file("stubborn.wat"),
            "--params",
            "true",
            "--task-timeout",
            "50ms",
        ])
        .with(3)
        .says(&["timeout"]);
}
