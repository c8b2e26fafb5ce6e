//! Modules made for tests, in text.

/// Imports of every command here, and a memory.
const HEAD: &str = r#"(module
 (import "wasi_snapshot_preview1" "fd_read" (func $read (param i32 i32 i32 i32) (result i32)))
 (import "wasi_snapshot_preview1" "fd_write" (func $write (param i32 i32 i32 i32) (result i32)))
 (import "wasi_snapshot_preview1" "proc_exit" (func $exit (param i32)))
 (import "wasi_snapshot_preview1" "args_sizes_get" (func $sizes (param i32 i32) (result i32)))
 (import "wasi_snapshot_preview1" "args_get" (func $args (param i32 i32) (result i32)))
 (memory (export "memory") 2)"#;

/// Writes up to 60,000 bytes of stdin to stdout.
pub fn echo() -> String {
    format!(
        "{HEAD}
 (func (export \"_start\")
  (i32.store (i32.const 0) (i32.const 64)) (i32.store (i32.const 4) (i32.const 60000))
  (drop (call $read (i32.const 0) (i32.const 0) (i32.const 1) (i32.const 8)))
  (i32.store (i32.const 4) (i32.load (i32.const 8)))
  (drop (call $write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 8)))))"
    )
}

/// Prints `text`, and ends with `code`.
pub fn says(stdout: &str, stderr: &str, code: u8) -> String {
    format!(
        "{HEAD}
 (data (i32.const 1024) \"{}\") (data (i32.const 16384) \"{}\")
 (func (export \"_start\")
  (i32.store (i32.const 0) (i32.const 1024)) (i32.store (i32.const 4) (i32.const {}))
  (drop (call $write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 8)))
  (i32.store (i32.const 0) (i32.const 16384)) (i32.store (i32.const 4) (i32.const {}))
  (drop (call $write (i32.const 2) (i32.const 0) (i32.const 1) (i32.const 8)))
  (call $exit (i32.const {code}))))",
        escaped(stdout),
        escaped(stderr),
        stdout.len(),
        stderr.len(),
    )
}

/// Ends with 0 and `text` as its result: a version that can be told from others.
pub fn constant(text: &str) -> String {
    says(text, "", 0)
}

/// Writes its second argument (argv[1]).
pub fn argument() -> String {
    format!(
        "{HEAD}
 (func (export \"_start\") (local $n i32)
  (drop (call $sizes (i32.const 0) (i32.const 4)))
  (drop (call $args (i32.const 16) (i32.const 1024)))
  (local.set $n (i32.const 0))
  (block $end (loop $next
   (br_if $end (i32.eqz (i32.load8_u (i32.add (i32.load (i32.const 20)) (local.get $n)))))
   (local.set $n (i32.add (local.get $n) (i32.const 1)))
   (br $next)))
  (i32.store (i32.const 0) (i32.load (i32.const 20))) (i32.store (i32.const 4) (local.get $n))
  (drop (call $write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 8)))))"
    )
}

/// Imports what no host has.
pub const FOREIGN: &str =
    r#"(module (import "somewhere" "else" (func)) (memory (export "memory") 1) (func (export "_start")))"#;

/// The samples that misbehave, and the one that waits.
pub const SPIN: &str = include_str!("../../tasks/spin.wat");
pub const TRAP: &str = include_str!("../../tasks/trap.wat");
pub const HOARD: &str = include_str!("../../tasks/hoard.wat");
pub const SLEEP: &str = include_str!("../../tasks/sleep.wat");

fn escaped(text: &str) -> String {
    text.bytes().map(|byte| format!("\\{byte:02x}")).collect()
}
