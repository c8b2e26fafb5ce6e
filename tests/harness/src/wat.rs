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

/// Writes 60,000 times `x` to stdout: little less than what becomes a blob.
pub fn large() -> String {
    format!(
        "{HEAD}
 (func (export \"_start\")
  (memory.fill (i32.const 64) (i32.const 120) (i32.const 60000))
  (i32.store (i32.const 0) (i32.const 64)) (i32.store (i32.const 4) (i32.const 60000))
  (drop (call $write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 8)))))"
    )
}

/// Writes 120,000 times `x` to stdout, which becomes a blob.
pub fn larger() -> String {
    let write = "(drop (call $write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 8)))";
    large().replace(write, &format!("{write} {write}"))
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

/// Writes its first argument to stderr, and a newline: what it says to the master is the task's
/// choice.
pub fn speak() -> String {
    format!(
        "{HEAD}
 (func (export \"_start\") (local $at i32)
  (drop (call $sizes (i32.const 0) (i32.const 4)))
  (drop (call $args (i32.const 64) (i32.const 1024)))
  (local.set $at (i32.load (i32.const 68)))
  (i32.store8 (i32.add (i32.const 1023) (i32.load (i32.const 4))) (i32.const 10))
  (i32.store (i32.const 8) (local.get $at))
  (i32.store (i32.const 12) (i32.sub (i32.add (i32.const 1024) (i32.load (i32.const 4))) (local.get $at)))
  (drop (call $write (i32.const 2) (i32.const 8) (i32.const 1) (i32.const 16)))))"
    )
}

/// Gives `count` partial results, one every `every_ms` milliseconds: the time at which it gives it,
/// nanoseconds since 1970. Its result is the number 7.
pub fn stamps(count: u32, every_ms: u64) -> String {
    let head = HEAD.replace(
        "(memory",
        "(import \"wasi_snapshot_preview1\" \"clock_time_get\" (func $clock (param i32 i64 i32) (result i32)))
 (import \"wasi_snapshot_preview1\" \"poll_oneoff\" (func $poll (param i32 i32 i32 i32) (result i32)))
 (memory",
    );
    let every_ns = every_ms * 1_000_000;
    format!(
        "{head}
 (data (i32.const 512) \"::partial ???????????????????\\0a7\")
 (func $stamp (local $time i64) (local $at i32)
  (drop (call $clock (i32.const 0) (i64.const 0) (i32.const 64)))
  (local.set $time (i64.load (i32.const 64)))
  (local.set $at (i32.const 540))
  (loop $next
   (i32.store8 (local.get $at)
    (i32.add (i32.const 48) (i32.wrap_i64 (i64.rem_u (local.get $time) (i64.const 10)))))
   (local.set $time (i64.div_u (local.get $time) (i64.const 10)))
   (local.set $at (i32.sub (local.get $at) (i32.const 1)))
   (br_if $next (i32.ge_u (local.get $at) (i32.const 522))))
  (i32.store (i32.const 0) (i32.const 512)) (i32.store (i32.const 4) (i32.const 30))
  (drop (call $write (i32.const 2) (i32.const 0) (i32.const 1) (i32.const 8))))
 (func (export \"_start\") (local $left i32)
  (local.set $left (i32.const {count}))
  (i32.store (i32.const 144) (i32.const 1)) (i64.store (i32.const 152) (i64.const {every_ns}))
  (loop $next
   (call $stamp)
   (drop (call $poll (i32.const 128) (i32.const 192) (i32.const 1) (i32.const 8)))
   (local.set $left (i32.sub (local.get $left) (i32.const 1)))
   (br_if $next (local.get $left)))
  (i32.store (i32.const 0) (i32.const 542)) (i32.store (i32.const 4) (i32.const 1))
  (drop (call $write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 8)))))"
    )
}

/// Writes `line` to stderr, sleeps for `ms` milliseconds, and has the number 7 as its result.
pub fn says_and_sleeps(line: &str, ms: u64) -> String {
    let head = HEAD.replace(
        "(memory",
        "(import \"wasi_snapshot_preview1\" \"poll_oneoff\" (func $poll (param i32 i32 i32 i32) (result i32)))
 (memory",
    );
    format!(
        "{head}
 (data (i32.const 512) \"7\") (data (i32.const 1024) \"{}\")
 (func (export \"_start\")
  (i32.store (i32.const 0) (i32.const 1024)) (i32.store (i32.const 4) (i32.const {}))
  (drop (call $write (i32.const 2) (i32.const 0) (i32.const 1) (i32.const 8)))
  (i32.store (i32.const 144) (i32.const 1)) (i64.store (i32.const 152) (i64.const {}))
  (drop (call $poll (i32.const 128) (i32.const 192) (i32.const 1) (i32.const 8)))
  (i32.store (i32.const 0) (i32.const 512)) (i32.store (i32.const 4) (i32.const 1))
  (drop (call $write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 8)))))",
        escaped(&format!("{line}\n")),
        line.len() + 1,
        ms * 1_000_000,
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

/// Like [`echo`], but its first attempt ends with 75, "try again".
pub fn flaky() -> String {
    let head = HEAD.replace(
        "(memory",
        "(import \"wasi_snapshot_preview1\" \"environ_sizes_get\" (func $env_sizes (param i32 i32) (result i32)))
 (import \"wasi_snapshot_preview1\" \"environ_get\" (func $env (param i32 i32) (result i32)))
 (memory",
    );
    format!(
        "{head}
 (data (i32.const 512) \"_ATTEMPT=1\\00\")
 (func $is_first (param $at i32) (result i32) (local $n i32)
  (loop $next
   (if (i32.ne (i32.load8_u (i32.add (local.get $at) (local.get $n)))
               (i32.load8_u (i32.add (i32.const 512) (local.get $n)))) (then (return (i32.const 0))))
   (local.set $n (i32.add (local.get $n) (i32.const 1)))
   (br_if $next (i32.lt_u (local.get $n) (i32.const 11))))
  (i32.const 1))
 (func (export \"_start\") (local $at i32)
  (drop (call $env_sizes (i32.const 0) (i32.const 4)))
  (drop (call $env (i32.const 1024) (i32.const 65536)))
  (local.set $at (i32.const 65536))
  (loop $next
   (if (call $is_first (local.get $at)) (then (call $exit (i32.const 75))))
   (local.set $at (i32.add (local.get $at) (i32.const 1)))
   (br_if $next (i32.lt_u (local.get $at) (i32.add (i32.const 65536) (i32.load (i32.const 4))))))
  (i32.store (i32.const 0) (i32.const 2048)) (i32.store (i32.const 4) (i32.const 60000))
  (drop (call $read (i32.const 0) (i32.const 0) (i32.const 1) (i32.const 8)))
  (i32.store (i32.const 4) (i32.load (i32.const 8)))
  (drop (call $write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 8)))))"
    )
}

/// Writes to stdout: its environment, the name of the fourth folder that it finds, the file `x` in
/// it, and the number of the error where it makes a file there.
pub fn peek() -> String {
    let import = |name: &str, params: &str| {
        format!(
            "(import \"wasi_snapshot_preview1\" \"{name}\" (func ${name} (param {params}) (result i32)))"
        )
    };
    let imports = [
        import("environ_sizes_get", "i32 i32"),
        import("environ_get", "i32 i32"),
        import("fd_prestat_get", "i32 i32"),
        import("fd_prestat_dir_name", "i32 i32 i32"),
        import("path_open", "i32 i32 i32 i32 i32 i64 i64 i32 i32"),
        "(memory".into(),
    ];
    let head = HEAD.replace("(memory", &imports.join("\n "));
    format!(
        "{head}
 (data (i32.const 512) \"x\") (data (i32.const 528) \" write: ??\")
 (func $say (param $at i32) (param $length i32)
  (i32.store (i32.const 0) (local.get $at)) (i32.store (i32.const 4) (local.get $length))
  (drop (call $write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 8))))
 (func (export \"_start\") (local $error i32)
  (drop (call $environ_sizes_get (i32.const 16) (i32.const 20)))
  (drop (call $environ_get (i32.const 1024) (i32.const 65536)))
  (call $say (i32.const 65536) (i32.load (i32.const 20)))
  ;; 3 is `.`, 4 is `/`, 5 is `/tmp`
  (if (i32.eqz (call $fd_prestat_get (i32.const 6) (i32.const 32))) (then
   (drop (call $fd_prestat_dir_name (i32.const 6) (i32.const 600) (i32.load (i32.const 36))))
   (call $say (i32.const 600) (i32.load (i32.const 36)))))
  (if (i32.eqz (call $path_open (i32.const 6) (i32.const 0) (i32.const 512) (i32.const 1) (i32.const 0)
    (i64.const 2) (i64.const 0) (i32.const 0) (i32.const 40))) (then
   (i32.store (i32.const 0) (i32.const 800)) (i32.store (i32.const 4) (i32.const 100))
   (drop (call $read (i32.load (i32.const 40)) (i32.const 0) (i32.const 1) (i32.const 8)))
   (call $say (i32.const 800) (i32.load (i32.const 8)))))
  (local.set $error (call $path_open (i32.const 6) (i32.const 0) (i32.const 529) (i32.const 1) (i32.const 1)
    (i64.const 64) (i64.const 0) (i32.const 0) (i32.const 40)))
  (i32.store8 (i32.const 536) (i32.add (i32.const 48) (i32.div_u (local.get $error) (i32.const 10))))
  (i32.store8 (i32.const 537) (i32.add (i32.const 48) (i32.rem_u (local.get $error) (i32.const 10))))
  (call $say (i32.const 528) (i32.const 10))))"
    )
}

/// Imports what no host has.
pub const FOREIGN: &str = r#"(module (import "somewhere" "else" (func)) (memory (export "memory") 1) (func (export "_start")))"#;

/// The samples that misbehave, and the one that waits.
pub const SPIN: &str = include_str!("../../../tasks/spin.wat");
pub const TRAP: &str = include_str!("../../../tasks/trap.wat");
pub const HOARD: &str = include_str!("../../../tasks/hoard.wat");
pub const SLEEP: &str = include_str!("../../../tasks/sleep.wat");

fn escaped(text: &str) -> String {
    text.bytes().map(|byte| format!("\\{byte:02x}")).collect()
}
