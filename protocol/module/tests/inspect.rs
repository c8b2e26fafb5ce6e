//! Files of many kinds, and what an inspection finds in them.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "the whole file is a test; what builds its modules may fail it too"
)]

use std::time::{Duration, Instant};
use taskmaster_module::to_binary;
use taskmaster_protocol::shape::ModuleCheck;
use taskmaster_protocol::{Hash, ModuleKind};

const ECHO: &str = r#"(module
 (import "wasi_snapshot_preview1" "fd_read" (func $r (param i32 i32 i32 i32) (result i32)))
 (import "wasi_snapshot_preview1" "fd_write" (func $w (param i32 i32 i32 i32) (result i32)))
 (memory (export "memory") 2)
 (func (export "_start") (drop (call $r (i32.const 0) (i32.const 0) (i32.const 1) (i32.const 8)))))"#;

fn inspect(stem: &str, bytes: &[u8]) -> ModuleCheck {
    taskmaster_module::inspect(stem, bytes).check
}

/// The text of a command with these items beside its memory and `_start`.
fn command(items: &str) -> Vec<u8> {
    command_with(items, "")
}

fn command_with(items: &str, body: &str) -> Vec<u8> {
    let text =
        format!(r#"(module {items} (memory (export "memory") 1) (func (export "_start") {body}))"#);
    wat::parse_str(text).unwrap()
}

#[test]
fn a_command_is_told_with_its_imports_and_version() {
    for bytes in [ECHO.as_bytes().to_vec(), wat::parse_str(ECHO).unwrap()] {
        let check = inspect("echo", &bytes);
        assert_eq!(check.error, None);
        assert!(check.ok);
        assert_eq!(check.kind, Some(ModuleKind::Command));
        assert_eq!(check.version, Some(Hash::of(&bytes)));
        assert_eq!(
            check.imports,
            [
                "wasi_snapshot_preview1.fd_read",
                "wasi_snapshot_preview1.fd_write"
            ]
        );
    }
}

#[test]
fn a_module_without_imports_needs_no_memory() {
    assert!(inspect("m", br#"(module (func (export "_start")))"#).ok);
}

#[test]
fn what_cannot_be_a_module_is_told_in_a_sentence() {
    let whole = wat::parse_str(ECHO).unwrap();
    let text = |text: &str| text.as_bytes().to_vec();
    let missing = r#"(import "env" "puts" (func)) (import "host" "log" (global i32))"#;
    let cases: Vec<(&str, Vec<u8>, &[&str])> = vec![
        ("empty", vec![], &["the file is empty"]),
        ("blank", text(" \n"), &["white space"]),
        (
            "garbage",
            vec![0xff, 0xfe, 0, 1],
            &["neither", "\\0asm", "UTF-8"],
        ),
        (
            "text that is not wat",
            text("(module\n  garbage"),
            &["line 2 column 3"],
        ),
        ("another text", text("hello"), &["line 1 column 1"]),
        (
            "two bytes of a header",
            whole[..2].to_vec(),
            &["ends after 2 bytes", "header"],
        ),
        (
            "a header cut off",
            whole[..6].to_vec(),
            &["ends after 6 bytes", "header"],
        ),
        (
            "cut in the middle",
            whole[..whole.len() - 3].to_vec(),
            &["not a valid WebAssembly module", "offset 0x"],
        ),
        (
            "the header alone",
            whole[..8].to_vec(),
            &["exports no `_start`"],
        ),
        (
            "another version",
            b"\0asm\x07\0\0\0".to_vec(),
            &["version 7", "offset 4"],
        ),
        (
            "no layer",
            b"\0asm\x01\0\x05\0".to_vec(),
            &["header at offset 4"],
        ),
        (
            "no _start",
            text("(module)"),
            &["`_start`", "wasm32-wasip1"],
        ),
        (
            "a reactor",
            text(r#"(module (func (export "_initialize")))"#),
            &["`_initialize`", "reactor"],
        ),
        (
            "_start takes",
            text(r#"(module (func (export "_start") (param i32)))"#),
            &["no parameters"],
        ),
        (
            "_start is a memory",
            text(r#"(module (memory (export "_start") 1))"#),
            &["`_start` is no function"],
        ),
        (
            "no memory",
            text(
                r#"(module (import "wasi_snapshot_preview1" "sched_yield" (func (result i32))) (func (export "_start")))"#,
            ),
            &["does not export its `memory`"],
        ),
        (
            "unknown imports",
            command(missing),
            &[
                "unknown imports: env.puts, host.log;",
                "wasi_snapshot_preview1",
            ],
        ),
        (
            "a typo",
            command(r#"(import "wasi_snapshot_preview1" "fd_wirte" (func))"#),
            &["wasi_snapshot_preview1.fd_wirte"],
        ),
        (
            "old WASI",
            command(r#"(import "wasi_unstable" "fd_write" (func))"#),
            &["wasi_unstable.fd_write"],
        ),
        (
            "another type",
            command(r#"(import "wasi_snapshot_preview1" "fd_close" (func (param i64)))"#),
            &["another type", "wasi_snapshot_preview1.fd_close"],
        ),
        (
            "a type error",
            command_with("", "i32.const 1"),
            &["not a valid WebAssembly module", "offset 0x"],
        ),
    ];
    for (case, bytes, words) in cases {
        let check = inspect("m", &bytes);
        let error = check.error.clone().unwrap_or_default();
        assert!(!check.ok, "{case}: {check:?}");
        assert_eq!(check.version, Some(Hash::of(&bytes)), "{case}");
        for word in words {
            assert!(
                error.contains(word),
                "{case}: {error:?} does not say {word:?}"
            );
        }
    }
}

#[test]
fn a_file_whose_name_cannot_be_a_module_is_told_so() {
    let check = inspect("my module", ECHO.as_bytes());
    assert!(!check.ok);
    assert!(check.error.unwrap().contains("`my module`"));
    assert!(inspect("my module", b"").error.unwrap().contains("empty"));
}

#[test]
fn proposals_that_the_engine_lacks_are_listed() {
    let (tag, shared) = ("(tag $t)", r#"(memory $s 1 1 shared)"#);
    for (case, bytes, words) in [
        (
            "legacy",
            command_with(tag, "try catch $t end"),
            &["legacy exceptions"][..],
        ),
        ("exceptions", command(tag), &["exceptions"]),
        ("threads", command(shared), &["threads"]),
        (
            "externref",
            command("(table 1 externref)"),
            &["garbage-collected"],
        ),
        (
            "structs",
            command("(type (struct (field i32)))"),
            &["garbage-collected"],
        ),
        (
            "page sizes",
            command("(memory $p 1 (pagesize 1))"),
            &["custom page sizes"],
        ),
        (
            "two",
            command(&format!("{shared} {tag}")),
            &["threads", "exceptions"],
        ),
    ] {
        let error = inspect("m", &bytes).error.unwrap_or_default();
        assert!(
            error.contains("runners' engine does not have"),
            "{case}: {error}"
        );
        for word in words {
            assert!(
                error.contains(word),
                "{case}: {error:?} does not say {word:?}"
            );
        }
    }
}

#[test]
fn proposals_that_the_engine_has_pass() {
    for (case, bytes) in [
        ("simd", command_with("", "v128.const i32x4 0 0 0 0 drop")),
        (
            "relaxed simd",
            command_with(
                "",
                "v128.const i32x4 0 0 0 0 v128.const i32x4 0 0 0 0 i8x16.relaxed_swizzle drop",
            ),
        ),
        ("tail calls", command_with("(func $f)", "return_call $f")),
        ("several memories", command("(memory 1)")),
        ("memory64", command("(memory i64 1)")),
        (
            "function references",
            command_with(
                "(type $t (func)) (func $f (type $t)) (elem declare func $f)",
                "ref.func $f call_ref $t",
            ),
        ),
        (
            "bulk memory",
            command_with("", "i32.const 0 i32.const 0 i32.const 0 memory.copy"),
        ),
        (
            "extended constants",
            command("(global i32 (i32.add (i32.const 1) (i32.const 2)))"),
        ),
    ] {
        assert_eq!(inspect("m", &bytes).error, None, "{case}");
    }
}

#[test]
fn no_prefix_and_no_flipped_byte_panics() {
    // The text has no names, so that no name section, which a module may lack, stands at the end.
    let whole = wat::parse_str(
        ECHO.replace("call $r", "call 0")
            .replace("$r", "")
            .replace("$w", ""),
    )
    .unwrap();
    for end in 0..whole.len() {
        assert!(!inspect("m", &whole[..end]).ok, "{end} of {}", whole.len());
        let mut flipped = whole.clone();
        flipped[end] ^= 0x41;
        inspect("m", &flipped);
        inspect("m", &ECHO.as_bytes()[..end]);
    }
}

#[test]
fn text_becomes_binary_and_binary_is_passed_on() {
    let binary = wat::parse_str(ECHO).unwrap();
    assert_eq!(to_binary(ECHO.as_bytes()).unwrap(), binary);
    assert!(matches!(
        to_binary(&binary).unwrap(),
        std::borrow::Cow::Borrowed(_)
    ));
}

/// A command of about `bytes` bytes: many functions of a few hundred instructions each.
fn large(bytes: usize, last: &str) -> Vec<u8> {
    let body: String = (0..400)
        .map(|i| format!("local.get 0 i32.const {i} i32.add local.set 0 "))
        .collect();
    let one = wat::parse_str(format!(r#"(module (func (param i32) {body}))"#))
        .unwrap()
        .len();
    let functions = format!("(func (param i32) {body})");
    // Text of 60 MB would take long to parse, so that one function is encoded and repeated.
    let head = wat::parse_str(format!(
        r#"(module (memory (export "memory") 1) {functions} (func (export "_start") {last}))"#
    ));
    repeat_first_function(&head.unwrap(), bytes / one)
}

/// Rewrites the function and code sections so that copies of the first function stand at the end,
/// `times` of them.
fn repeat_first_function(module: &[u8], times: usize) -> Vec<u8> {
    let mut out = module[..8].to_vec();
    let mut at = 8;
    while at < module.len() {
        let id = module[at];
        let (size, after) = leb(module, at + 1);
        let content = &module[after..after + size];
        let mut new = content.to_vec();
        if id == 3 || id == 10 {
            let (count, first) = leb(content, 0);
            let entry = if id == 3 {
                content[first..first + 1].to_vec()
            } else {
                let (length, start) = leb(content, first);
                content[first..start + length].to_vec()
            };
            new = unleb(count + times);
            new.extend_from_slice(&content[first..]);
            new.extend(entry.repeat(times));
        }
        out.push(id);
        out.extend(unleb(new.len()));
        out.extend(new);
        at = after + size;
    }
    out
}

fn leb(bytes: &[u8], mut at: usize) -> (usize, usize) {
    let (mut value, mut shift) = (0, 0);
    loop {
        value |= usize::from(bytes[at] & 0x7f) << shift;
        at += 1;
        if bytes[at - 1] < 0x80 {
            return (value, at);
        }
        shift += 7;
    }
}

fn unleb(mut value: usize) -> Vec<u8> {
    let mut out = Vec::new();
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
    out
}

#[test]
fn a_large_module_is_validated_in_parallel_and_quickly() {
    let sound = large(60 << 20, "");
    assert!(sound.len() > 55 << 20);
    let start = Instant::now();
    let check = inspect("large", &sound);
    let took = start.elapsed();
    println!("{} MiB validated in {took:?}", sound.len() >> 20);
    assert_eq!(check.error, None);
    // It took 0.6 s on two busy cores. The bound leaves room for a machine that does other work,
    // too.
    assert!(took < Duration::from_secs(10), "{took:?}");
}

#[test]
fn a_mistake_deep_in_a_large_module_is_found() {
    let check = inspect("large", &large(4 << 20, "i32.const 1"));
    assert!(
        check
            .error
            .unwrap()
            .contains("not a valid WebAssembly module")
    );
}
