//! Components by hand: every kind of entry, and what misbehaves.

use crate::sandbox::tests::World;
use crate::sandbox::{GuestEnd, LiveEvent, Program, RunReport, Work};
use bytes::Bytes;
use std::time::{Duration, Instant};
use taskmaster_module::wasi_interfaces;

/// A component of our world: what stands in its memory, and what `run` does.
fn task(data: &str, body: &str) -> String {
    include_str!("task.wat")
        .replace("DATA", data)
        .replace("BODY", body)
}

const COMMAND: &str = include_str!("command.wat");

/// A component with one function of this type, as `f` of its core module; `types` are those that it
/// exports.
fn typed(types: &str, function: &str, core: &str) -> String {
    format!(
        r#"(component {types}
          (core module $m (memory (export "memory") 1) (global $heap (mut i32) (i32.const 4096))
            (func (export "realloc") (param i32 i32 i32 i32) (result i32)
              (global.get $heap) (global.set $heap (i32.add (global.get $heap) (i32.and (i32.add (local.get 3) (i32.const 15)) (i32.const -8)))))
            {core})
          (core instance $i (instantiate $m))
          (func $f {function} (canon lift (core func $i "f") (memory (core memory $i "memory")) (realloc (core func $i "realloc"))))
          (export "f" (func $f)))"#
    )
}

fn run(world: &World, text: &str, params: &str) -> RunReport {
    let mut work = world.work(text);
    work.input = Bytes::copy_from_slice(params.as_bytes());
    world.run(work)
}

fn given(report: &RunReport) -> (&GuestEnd, &str) {
    (&report.end, std::str::from_utf8(&report.stdout).unwrap())
}

#[test]
fn a_command_reads_params_and_prints_its_result() {
    let world = World::new();
    let report = run(&world, COMMAND, r#"{"n":1}"#);
    assert_eq!(given(&report), (&GuestEnd::Exit(0), r#"{"n":1}"#));
    assert_eq!(
        run(&world, COMMAND, "").end,
        GuestEnd::Exit(1),
        "its `run` gives an error"
    );
}

#[test]
fn our_world_takes_params_and_gives_a_result() {
    let world = World::new();
    let echo = task("", "(call $ok (local.get $at) (local.get $length))");
    assert_eq!(
        given(&run(&world, &echo, r#"{"n":1.50}"#)),
        (&GuestEnd::Exit(0), r#"{"n":1.50}"#)
    );
    assert_eq!(given(&run(&world, &echo, "")), (&GuestEnd::Exit(0), "null"));
    let text = r#"(data (i32.const 1024) "not today")"#;
    let length = 9;
    for (case, code) in [(0, 75), (1, 65)] {
        let body =
            format!("(call $failed (i32.const {case}) (i32.const 1024) (i32.const {length}))");
        assert_eq!(
            run(&world, &task(text, &body), "").end,
            GuestEnd::Failed("not today".into(), code)
        );
    }
}

#[test]
fn what_it_says_is_heard_as_a_commands_directives_are() {
    let world = World::new();
    let data = r#"(data (i32.const 1024) "half way") (data (i32.const 1040) "[1]") (data (i32.const 1048) "::add nothing")
        (data (i32.const 1064) "{\"module\":\"echo\",\"params\":7}") (data (i32.const 1100) "{\"modul\":1}")"#;
    let body = "(call $progress (f32.const 0.5) (i32.const 1024) (i32.const 8))
        (call $progress (f32.const 2) (i32.const 1024) (i32.const 8))
        (call $partial (i32.const 1040) (i32.const 3))
        (call $partial (i32.const 1024) (i32.const 8))
        (call $log (i32.const 1048) (i32.const 13))
        (call $cache (i32.const 60))
        (call $then (i32.const 1064) (i32.const 28) (i32.const 16))
        (if (i32.load8_u (i32.const 16)) (then unreachable))
        (call $add (i32.const 1100) (i32.const 11) (i32.const 16))
        (if (i32.eqz (i32.load8_u (i32.const 16))) (then unreachable))
        (call $add (i32.const 1064) (i32.const 28) (i32.const 16))
        (if (i32.load8_u (i32.const 16)) (then unreachable))
        (if (call $is-cancelled) (then unreachable))
        (call $ok (i32.load (i32.const 20)) (i32.load (i32.const 24)))";
    let report = run(&world, &task(data, body), "");
    assert_eq!(given(&report), (&GuestEnd::Exit(0), "t.1"), "{report:?}");
    let log: Vec<&str> = report.log.head.lines().collect();
    assert_eq!(log.len(), 3, "{log:?}");
    assert!(
        log[0].contains("between 0 and 1") && log[1].contains("not JSON"),
        "{log:?}"
    );
    assert_eq!(
        log[2], "::add nothing",
        "a line for the log is no directive"
    );
    assert_eq!(report.follow_ups.cache_s, Some(60));
    assert_eq!(
        report.follow_ups.adds[0].get(),
        r#"{"id":"t.1","module":"echo","params":7}"#
    );
    assert_eq!(
        report.follow_ups.then.unwrap().get(),
        r#"{"module":"echo","params":7}"#
    );
    let heard = world.heard.lock().unwrap();
    let has = |wanted: &dyn Fn(&LiveEvent) -> bool| heard.iter().any(wanted);
    assert!(has(
        &|event| matches!(event, LiveEvent::Progress(json) if json.get() == r#"{"fraction":0.5,"note":"half way"}"#)
    ));
    assert!(
        has(&|event| matches!(event, LiveEvent::Partial { n: 1, value } if value.get() == "[1]")),
        "{heard:?}"
    );
}

#[test]
fn one_function_takes_and_gives_json_of_its_types() {
    let world = World::new();
    let add = typed(
        "",
        r#"(param "a" u32) (param "b" u32) (result u64)"#,
        r#"(func (export "f") (param i32 i32) (result i64)
            (i64.add (i64.extend_i32_u (local.get 0)) (i64.extend_i32_u (local.get 1))))"#,
    );
    for params in [r#"{"a":4294967295,"b":1}"#, "[4294967295,1]"] {
        assert_eq!(
            given(&run(&world, &add, params)),
            (&GuestEnd::Exit(0), "4294967296")
        );
    }
    let GuestEnd::Params(text) = run(&world, &add, r#"{"a":1,"b":-1}"#).end else {
        panic!("params fit")
    };
    assert!(text.contains("`params.b` is -1"), "{text}");
    // Its argument is given back as it lies in memory, so that every type goes both ways.
    let same = |ty: &str, params: &str, result: i32| {
        let types = r#"(type $r' (record (field "width" u8) (field "name" (option string)))) (export $r "r" (type $r'))
            (type $v' (variant (case "dot") (case "text" string))) (export $v "v" (type $v'))
            (type $e' (enum "low" "high")) (export $e "e" (type $e'))
            (type $g' (flags "read" "write" "run")) (export $g "g" (type $g'))"#;
        // One parameter behind 16 others is passed in memory, at the address that is given.
        let many: String = (0..16).map(|i| format!(r#"(param "p{i}" u64)"#)).collect();
        let core = format!(
            r#"(func (export "f") (param i32) (result i32) (i32.add (local.get 0) (i32.const {result})))"#
        );
        let text = typed(
            types,
            &format!(r#"{many} (param "x" {ty}) (result {ty})"#),
            &core,
        );
        let zeros = "0,".repeat(16);
        run(&world, &text, &format!("[{zeros}{params}]"))
    };
    for (ty, params) in [
        ("string", r#""grün\n""#),
        ("(list s16)", "[-32768,0,32767]"),
        ("(list string)", r#"["a","b"]"#),
        ("$r", r#"{"width":3,"name":null}"#),
        ("$r", r#"{"width":3,"name":"x"}"#),
        ("$v", r#""dot""#),
        ("$v", r#"{"text":"x"}"#),
        ("(option (option u8))", r#"{"some":null}"#),
        ("(option string)", r#""x""#),
        (
            "(tuple bool char f64 s64)",
            r#"[true,"ü",0.1,-9223372036854775808]"#,
        ),
        ("(list $e)", r#"["high","low"]"#),
        ("(list $g)", r#"[["read","run"],[]]"#),
        ("(list f32)", r#"["NaN",0.1,"-Infinity"]"#),
        (
            "(list (result u8 (error string)))",
            r#"[{"ok":1},{"err":"x"}]"#,
        ),
    ] {
        assert_eq!(
            given(&same(ty, params, 128)),
            (&GuestEnd::Exit(0), params),
            "{ty}"
        );
    }
}

#[test]
fn a_result_of_a_function_is_its_value_or_its_failure() {
    let world = World::new();
    let text = |case: i32| {
        typed(
            "",
            r#"(param "x" (option u8)) (result (result u8 (error string)))"#,
            &format!(
                r#"(data (i32.const 64) "too large")
                (func (export "f") (param i32 i32) (result i32) (i32.store8 (i32.const 0) (i32.const {case}))
                  (i32.store (i32.const 4) (i32.const 64)) (i32.store (i32.const 8) (i32.const 9))
                  (if (i32.eqz (i32.const {case})) (then (i32.store8 (i32.const 4) (local.get 1)))) (i32.const 0))"#
            ),
        )
    };
    assert_eq!(
        given(&run(&world, &text(0), "7")),
        (&GuestEnd::Exit(0), "7")
    );
    assert_eq!(
        given(&run(&world, &text(0), "null")),
        (&GuestEnd::Exit(0), "0")
    );
    assert_eq!(
        run(&world, &text(1), r#"{"x":7}"#).end,
        GuestEnd::Failed("too large".into(), 1)
    );
    let nothing = typed("", "", r#"(func (export "f"))"#);
    assert_eq!(
        given(&run(&world, &nothing, "")),
        (&GuestEnd::Exit(0), "null")
    );
}

#[test]
fn a_component_has_the_limits_of_every_task() {
    let world = World::new();
    let spin = task("", "(loop $l (br $l)) unreachable");
    let mut work = world.work(&spin);
    work.timeout = Duration::from_millis(50);
    let began = Instant::now();
    assert_eq!(world.run(work).end, GuestEnd::Timeout);
    assert!(
        began.elapsed() < Duration::from_millis(150),
        "{:?}",
        began.elapsed()
    );
    let (report, took) = world.cancelled(world.work(&spin), Duration::from_millis(20));
    assert_eq!(report.end, GuestEnd::Cancelled);
    assert!(took < Duration::from_millis(100), "{took:?}");
    let hoard = task(
        "",
        "(loop $l (br_if $l (i32.ne (memory.grow (i32.const 16)) (i32.const -1)))) unreachable",
    );
    let GuestEnd::Memory(text) = run(&world, &hoard, "").end else {
        panic!("no limit")
    };
    assert!(text.contains("limit (`memory_mb`) is 16"), "{text}");
    let GuestEnd::Trap(reason, Some(frames)) = run(&world, &task("", "unreachable"), "").end else {
        panic!("no trap")
    };
    assert!(
        reason.contains("unreachable") && frames.contains("m!"),
        "{reason}: {frames}"
    );
    // The core module's own mistake: a string that lies outside its memory.
    let GuestEnd::Trap(reason, _) = run(
        &world,
        &task("", "(call $ok (i32.const -8) (i32.const 100))"),
        "",
    )
    .end
    else {
        panic!("no trap")
    };
    assert!(
        reason.contains("pointer") || reason.contains("bounds"),
        "{reason}"
    );
}

#[test]
fn the_memories_of_a_component_count_together() {
    let world = World::new();
    let two = |pages: u32| {
        format!(
            r#"(component
              (core module $a (memory {pages}))
              (core module $m (memory (export "memory") {pages}) (func (export "f")))
              (core instance (instantiate $a)) (core instance $i (instantiate $m))
              (func $f (canon lift (core func $i "f"))) (export "f" (func $f)))"#
        )
    };
    let report = run(&world, &two(100), "");
    assert_eq!(
        (report.end, report.stats.memory_bytes),
        (GuestEnd::Exit(0), 200 << 16)
    );
    assert!(
        matches!(run(&world, &two(200), "").end, GuestEnd::Memory(_)),
        "16 MiB are 256 pages"
    );
}

/// As tools for JavaScript and composed programs make them: text goes from one memory into another.
#[test]
fn the_parts_of_a_component_may_call_each_other() {
    let world = World::new();
    let text = r#"(component
      (component $inner
        (core module $m (memory (export "memory") 1)
          (func (export "realloc") (param i32 i32 i32 i32) (result i32) (i32.const 1024))
          (func (export "first") (param i32 i32) (result i32) (i32.load8_u (local.get 0))))
        (core instance $i (instantiate $m))
        (func (export "first") (param "text" string) (result u32)
          (canon lift (core func $i "first") (memory (core memory $i "memory")) (realloc (core func $i "realloc")))))
      (component $outer
        (import "first" (func $inner (param "text" string) (result u32)))
        (core module $libc (memory (export "memory") 1)
          (func (export "realloc") (param i32 i32 i32 i32) (result i32) (i32.const 2048)))
        (core instance $libc (instantiate $libc))
        (core func $first (canon lower (func $inner) (memory (core memory $libc "memory"))))
        (core module $m (import "inner" "first" (func $first (param i32 i32) (result i32)))
          (func (export "twice") (param i32 i32) (result i32)
            (i32.mul (i32.const 2) (call $first (local.get 0) (local.get 1)))))
        (core instance $i (instantiate $m (with "inner" (instance (export "first" (func $first))))))
        (func (export "twice") (param "text" string) (result u32)
          (canon lift (core func $i "twice") (memory (core memory $libc "memory"))
            (realloc (core func $libc "realloc")))))
      (instance $inner (instantiate $inner))
      (instance $outer (instantiate $outer (with "first" (func $inner "first"))))
      (export "twice" (func $outer "twice")))"#;
    let report = run(&world, text, r#""A""#);
    assert_eq!(
        (
            report.end,
            String::from_utf8_lossy(&report.stdout).into_owned()
        ),
        (GuestEnd::Exit(0), "130".to_owned())
    );
}

#[test]
fn what_a_component_leaves_is_gone_for_the_next_one() {
    let world = World::new();
    let body = "(local.set $length (i32.load8_u (i32.const 60000))) (i32.store8 (i32.const 60000) (i32.const 1))
        (if (local.get $length) (then unreachable)) (call $ok (i32.const 1024) (i32.const 0))";
    let text = task("", body);
    let program = world.work(&text).program;
    for _ in 0..20 {
        let work = Work {
            program: program.clone(),
            ..world.work(&text)
        };
        assert_eq!(world.run(work).end, GuestEnd::Exit(0));
    }
}

#[test]
fn many_components_run_from_one_pool() {
    let world = World::new();
    for _ in 0..50 {
        assert_eq!(run(&world, COMMAND, "1").end, GuestEnd::Exit(0));
    }
}

#[test]
fn the_list_of_wasi_is_what_the_linker_has() {
    let world = World::new();
    let refusal = |import: &str| {
        let text = typed("", "", r#"(func (export "f"))"#).replacen(
            "(component",
            &format!("(component {import}"),
            1,
        );
        Program::compile(world.sandbox(), text.as_bytes())
            .err()
            .map_or_else(String::new, |error| error.to_string())
    };
    for (interface, functions) in wasi_interfaces() {
        for version in ["0.2.0", "0.2.12"] {
            assert_eq!(
                refusal(&format!(r#"(import "{interface}@{version}" (instance))"#)),
                "",
                "{interface}"
            );
        }
        for function in functions.iter().filter(|name| !name.starts_with('[')) {
            // Of a type that none has: where there is such a function the linker says that the type
            // differs.
            let import = format!(
                r#"(import "{interface}@0.2.0" (instance (export "{function}" (func (param "no" char)))))"#
            );
            let error = refusal(&import);
            assert!(
                error.contains("type mismatch"),
                "{interface}#{function}: {error}"
            );
        }
    }
    let error = refusal(r#"(import "wasi:cli/exit@0.2.0" (instance (export "leave" (func))))"#);
    assert!(
        !error.is_empty() && !error.contains("type mismatch"),
        "{error}"
    );
    let error = refusal(r#"(import "wasi:http/types@0.2.0" (instance (export "f" (func))))"#);
    assert!(error.contains("wasi:http/types@0.2.0"), "{error}");
}
