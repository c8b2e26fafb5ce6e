//! Components of many kinds, and what an inspection finds in them.

#![allow(
    clippy::unwrap_used,
    reason = "the whole file is a test; what builds its modules may fail it too"
)]

use std::time::{Duration, Instant};
use taskmaster_module::{EntryPoint, ParamsStage, WitType, inspect};
use taskmaster_protocol::ModuleKind;

/// The text of a component around a core module. The component exports the module's function `f`
/// with the type `lifted`; `items` stand before the module.
fn component(items: &str, lifted: &str, core: &str) -> String {
    format!(
        r#"(component {items}
          (core module $m (memory (export "memory") 1)
            (func (export "realloc") (param i32 i32 i32 i32) (result i32) (i32.const 1024))
            {core})
          (core instance $i (instantiate $m))
          (func $f {lifted} (canon lift (core func $i "f") (memory (core memory $i "memory")) (realloc (core func $i "realloc"))))
          (export "f" (func $f)))"#
    )
}

const ADD: &str =
    r#"(func (export "f") (param i32 i32) (result i32) (i32.add (local.get 0) (local.get 1)))"#;

#[test]
fn a_component_with_one_function_is_told_with_its_types() {
    let text = component("", r#"(param "a" u32) (param "b" u32) (result u32)"#, ADD);
    for bytes in [text.as_bytes().to_vec(), wat::parse_str(&text).unwrap()] {
        let found = inspect("add", &bytes);
        assert_eq!(
            (found.check.ok, found.check.kind),
            (true, Some(ModuleKind::Component)),
            "{:?}",
            found.check.error
        );
        assert_eq!(
            found.check.entry.as_deref(),
            Some("f: func(a: u32, b: u32) -> u32")
        );
        assert_eq!(found.check.exports, ["f: func(a: u32, b: u32) -> u32"]);
        assert_eq!(found.check.reach.as_deref(), Some("nothing of the machine"));
        let Some(EntryPoint::Function { signature, .. }) = found.entry else {
            panic!("{:?}", found.entry)
        };
        assert_eq!(signature.params[1], ("b".to_owned(), WitType::U32));
        let refusal = signature
            .arguments(Some(r#"{"a":1,"b":-1}"#), ParamsStage::Open)
            .unwrap_err();
        assert_eq!(refusal.field.as_deref(), Some("params.b"));
    }
}

#[test]
fn every_type_of_wit_is_read() {
    let types = r#"
        (type $r' (record (field "width" u8) (field "name" (option string)))) (export $r "r" (type $r'))
        (type $v' (variant (case "dot") (case "circle" f64))) (export $v "v" (type $v'))
        (type $e' (enum "low" "high")) (export $e "e" (type $e'))
        (type $g' (flags "read" "write")) (export $g "g" (type $g'))"#;
    let lifted = r#"(param "r" $r) (param "v" $v) (param "e" $e) (param "g" $g) (param "l" (list s64))
        (param "t" (tuple bool char)) (param "o" (option f32)) (result (result string (error u16)))"#;
    let flat = "(param i32 i32 i32 i32 i32 f64 i32 i32 i32 i32 i32 i32 i32 f32)";
    let core = format!(r#"(func (export "f") {flat} (result i32) unreachable)"#);
    let found = inspect("all", component(types, lifted, &core).as_bytes());
    assert_eq!(found.check.error, None);
    assert_eq!(
        found.check.entry.unwrap(),
        "f: func(r: record { width: u8, name: option<string> }, v: variant { dot, circle(f64) }, e: enum { low, high }, \
         g: flags { read, write }, l: list<s64>, t: tuple<bool, char>, o: option<f32>) -> result<string, u16>"
    );
}

/// What makes a component one of the world in `tasks/wit`: its `run`, with the interface that it
/// may import.
fn task(imports: &str, error: &str) -> String {
    format!(
        r#"(component {imports}
          (core module $m (memory (export "memory") 1)
            (func (export "realloc") (param i32 i32 i32 i32) (result i32) (i32.const 1024))
            (func (export "run") (param i32 i32) (result i32) unreachable))
          (core instance $i (instantiate $m))
          {error}
          (func $run (param "params" string) (result (result string (error $error)))
            (canon lift (core func $i "run") (memory (core memory $i "memory")) (realloc (core func $i "realloc"))))
          (export "run" (func $run)))"#
    )
}

const HOST: &str = r#"(import "taskmaster:task/host@1.0.0" (instance $host
    (type $error' (variant (case "retryable" string) (case "permanent" string)))
    (export "error" (type $error (eq $error')))
    (export "progress" (func (param "fraction" f32) (param "note" string)))
    (export "is-cancelled" (func (result bool)))
    (export "add" (func (param "task" string) (result (result string (error string)))))))
    (alias export $host "error" (type $error))"#;

#[test]
fn our_world_and_commands_are_known() {
    let plain = task("", "(type $error string)");
    // A C or hand-written component may import the functions of its world without an interface.
    let bare = task(
        r#"(import "progress" (func (param "fraction" f32) (param "note" string)))"#,
        "(type $error string)",
    );
    for text in [plain, task(HOST, ""), bare] {
        let found = inspect("task", text.as_bytes());
        assert_eq!(found.check.error, None, "{text}");
        assert_eq!(found.entry, Some(EntryPoint::Task), "{text}");
    }
    let command = r#"(component
        (core module $m (func (export "run") (result i32) (i32.const 0)))
        (core instance $i (instantiate $m))
        (func $run (result (result)) (canon lift (core func $i "run")))
        (instance $out (export "run" (func $run)))
        (export "wasi:cli/run@0.2.3" (instance $out)))"#;
    let found = inspect("command", command.as_bytes());
    assert_eq!(
        found.entry,
        Some(EntryPoint::Run("wasi:cli/run@0.2.3".into())),
        "{:?}",
        found.check.error
    );
    let other = inspect(
        "other",
        command
            .replace("wasi:cli/run@0.2.3", "wasi:cli/run@0.3.0")
            .as_bytes(),
    );
    assert!(
        matches!(
            other.entry,
            Some(EntryPoint::Function {
                interface: Some(_),
                ..
            })
        ),
        "{other:?}"
    );
}

#[test]
fn what_cannot_be_run_is_told_with_what_is_wrong() {
    let import =
        |text: &str| component(text, r#"(param "a" u32) (param "b" u32) (result u32)"#, ADD);
    let two = import("").replace(
        "(export \"f\" (func $f))",
        "(export \"f\" (func $f)) (export \"g\" (func $f))",
    );
    let wrong = HOST.replace("f32", "f64");
    let missing = HOST.replace("\"is-cancelled\"", "\"is-canceled\"");
    for (case, text, words) in [
        ("nothing", "(component)".to_owned(), &["exports no function", "wasi:cli/run"][..]),
        ("two", two, &["exports 2 functions", "f, g"]),
        (
            "http",
            import(
                r#"(import "wasi:http/incoming-handler@0.2.0" (instance)) (import "wasi:nn/graph@0.2.0" (instance))"#,
            ),
            &["unknown imports: wasi:http/incoming-handler@0.2.0, wasi:nn/graph@0.2.0;", "of HTTP wasi:http/types"],
        ),
        ("an unknown function", import(r#"(import "wasi:cli/exit@0.2.0" (instance (export "leave" (func))))"#), &["wasi:cli/exit@0.2.0#leave"]),
        ("WASI 0.3", import(r#"(import "wasi:clocks/wall-clock@0.3.0" (instance))"#), &["unknown imports: wasi:clocks/wall-clock@0.3.0"]),
        ("a release candidate", import(r#"(import "wasi:io/poll@0.2.0-rc-2023-11-10" (instance))"#), &["unknown imports: wasi:io/poll@0.2.0-rc"]),
        ("a bare function", import(r#"(import "shout" (func))"#), &["unknown imports: shout"]),
        ("another type of ours", task(&wrong, ""), &["another type", "host@1.0.0#progress (it is func(fraction: f32, note: string))"]),
        ("a function that we lack", task(&missing, ""), &["unknown imports: taskmaster:task/host@1.0.0#is-canceled"]),
        (
            "a resource",
            r#"(component (import "r" (type $r (sub resource))) (import "f" (func $f (param "x" (own $r)))) (export "f2" (func $f)))"#.into(),
            &["unknown imports: f"],
        ),
        ("cut", String::from("(component (core module"), &["line 1"]),
    ] {
        let found = inspect("m", text.as_bytes());
        let error = found.check.error.clone().unwrap_or_default();
        assert!(!found.check.ok && found.entry.is_none(), "{case}: {found:?}");
        assert_eq!(found.check.kind, (case != "cut").then_some(ModuleKind::Component), "{case}");
        for word in words {
            assert!(error.contains(word), "{case}: {error:?} does not say {word:?}");
        }
    }
}

#[test]
fn proposals_are_refused_inside_components_too() {
    let text = component(
        "",
        r#"(result u32)"#,
        r#"(func (export "f") (result i32) (i32.const 1)) (tag $t)"#,
    );
    let error = inspect("m", text.as_bytes()).check.error.unwrap();
    assert!(
        error.contains("engine does not have: exceptions"),
        "{error}"
    );
}

#[test]
fn no_prefix_and_no_flipped_byte_of_a_component_panics() {
    let whole = wat::parse_str(task(HOST, "")).unwrap();
    for end in 0..whole.len() {
        inspect("m", &whole[..end]);
        for bit in [0x01, 0x41, 0x80] {
            let mut flipped = whole.clone();
            flipped[end] ^= bit;
            inspect("m", &flipped);
        }
    }
}

/// A custom section of this name, in the binary form.
fn section(name: &str, content: &[u8]) -> Vec<u8> {
    let mut body = vec![u8::try_from(name.len()).unwrap()];
    body.extend_from_slice(name.as_bytes());
    body.extend_from_slice(content);
    let mut section = vec![0];
    let mut size = body.len();
    while size >= 0x80 {
        section.push((size as u8) | 0x80);
        size >>= 7;
    }
    section.push(size as u8);
    section.extend(body);
    section
}

#[test]
fn what_made_a_file_is_told() {
    let mut bytes = wat::parse_str(r#"(module (func (export "_start")))"#).unwrap();
    let text = |text: &str| [&[u8::try_from(text.len()).unwrap()], text.as_bytes()].concat();
    let fields = [
        vec![2],
        text("language"),
        vec![1],
        text("Rust"),
        text("2024"),
        text("processed-by"),
        vec![2],
        text("rustc"),
        text("1.96.0"),
        text("lld"),
        text(""),
    ];
    bytes.extend(section("producers", &fields.concat()));
    let check = inspect("m", &bytes).check;
    assert_eq!(check.error, None);
    assert_eq!(
        (check.language.as_deref(), check.toolchain.as_deref()),
        (Some("Rust 2024"), Some("rustc 1.96.0, lld"))
    );
    assert_eq!(check.bytes, bytes.len() as u64);
    // A broken section says nothing and does no harm.
    let mut broken = wat::parse_str(r#"(module (func (export "_start")))"#).unwrap();
    broken.extend(section("producers", &[200, 200]));
    assert!(inspect("m", &broken).check.ok);
}

#[test]
fn a_large_component_is_validated_quickly() {
    // Text of 60 MB would take long to parse. A custom section of that size is read and hashed,
    // too. Function bodies are measured by `a_large_module_is_validated_in_parallel_and_quickly`.
    let mut bytes = wat::parse_str(component(
        "",
        r#"(param "a" u32) (param "b" u32) (result u32)"#,
        ADD,
    ))
    .unwrap();
    bytes.extend(section("data", &vec![7; 60 << 20]));
    let start = Instant::now();
    assert!(inspect("large", &bytes).check.ok);
    assert!(
        start.elapsed() < Duration::from_secs(10),
        "{:?}",
        start.elapsed()
    );
}
