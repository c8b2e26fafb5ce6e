mod host_calls;

use super::*;
use bytes::Bytes;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use taskmaster_protocol::message::Attempt;
use taskmaster_protocol::{AttemptId, TaskId};
use tempfile::TempDir;

const WASI: &str = r#"
  (import "wasi_snapshot_preview1" "fd_read" (func $fd_read (param i32 i32 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "fd_write" (func $fd_write (param i32 i32 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "poll_oneoff" (func $poll (param i32 i32 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "proc_exit" (func $exit (param i32)))
  (memory (export "memory") 1)
  (func $print (param $fd i32) (param $at i32) (param $length i32)
    (i32.store (i32.const 0) (local.get $at)) (i32.store (i32.const 4) (local.get $length))
    (if (call $fd_write (local.get $fd) (i32.const 0) (i32.const 1) (i32.const 8)) (then (call $exit (i32.const 99)))))
  (func $read (param $at i32) (param $length i32) (result i32)
    (i32.store (i32.const 0) (local.get $at)) (i32.store (i32.const 4) (local.get $length))
    (if (call $fd_read (i32.const 0) (i32.const 0) (i32.const 1) (i32.const 8)) (then (call $exit (i32.const 98))))
    (i32.load (i32.const 8)))
  ;; at 104: a subscription to the monotonic clock
  (func $sleep_ms (param $ms i64)
    (i32.store (i32.const 120) (i32.const 1))
    (i64.store (i32.const 128) (i64.mul (local.get $ms) (i64.const 1000000)))
    (drop (call $poll (i32.const 104) (i32.const 200) (i32.const 1) (i32.const 8))))
"#;

fn wasi(body: &str) -> String {
    format!("(module $test {WASI} {body})")
}

pub(super) struct World {
    sandbox: Option<Arc<Sandbox>>,
    /// After the sandbox, which empties the folder when it is dropped.
    folder: TempDir,
    pub(super) heard: Arc<Mutex<Vec<LiveEvent>>>,
}

impl World {
    pub(super) fn new() -> World {
        let folder = tempfile::tempdir().unwrap();
        let sandbox = Sandbox::new(2, folder.path()).unwrap();
        World {
            sandbox: Some(Arc::new(sandbox)),
            folder,
            heard: Arc::default(),
        }
    }

    pub(super) fn sandbox(&self) -> &Arc<Sandbox> {
        self.sandbox.as_ref().unwrap()
    }

    pub(super) fn work(&self, text: &str) -> Work {
        let heard = self.heard.clone();
        Work {
            attempt: Attempt {
                id: TaskId::new("t").unwrap(),
                attempt: AttemptId { epoch: 1, n: 1 },
            },
            program: Arc::new(Program::compile(self.sandbox(), text.as_bytes()).unwrap()),
            input: Bytes::new(),
            args: vec!["test".into()],
            env: vec![("KEY".into(), "value".into())],
            granted: Default::default(),
            timeout: Duration::from_secs(10),
            memory_mb: 16,
            files: WorkFiles::default(),
            stop: Arc::default(),
            listener: Arc::new(move |_, event| heard.lock().unwrap().push(event)),
        }
    }

    pub(super) fn run(&self, work: Work) -> RunReport {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .build()
            .unwrap();
        let _ticking = self.sandbox().keep_ticking();
        run(self.sandbox(), &runtime, work)
    }

    fn text(&self, text: &str) -> RunReport {
        self.run(self.work(text))
    }

    /// Runs `work` and cancels it when `after` has passed. Returns how long it took from then.
    pub(super) fn cancelled(&self, work: Work, after: Duration) -> (RunReport, Duration) {
        let stop = work.stop.clone();
        std::thread::scope(|scope| {
            let canceller = scope.spawn(move || {
                std::thread::sleep(after);
                stop.cancel();
                Instant::now()
            });
            let report = self.run(work);
            let ended = Instant::now();
            (report, ended.duration_since(canceller.join().unwrap()))
        })
    }
}

const ECHO: &str = r#"(func (export "_start") (call $print (i32.const 1) (i32.const 1024) (call $read (i32.const 1024) (i32.const 4096))))"#;

#[test]
fn params_are_stdin_and_stdout_is_the_result() {
    let world = World::new();
    let mut work = world.work(&wasi(ECHO));
    work.input = Bytes::from_static(b"{\"a\":1}");
    let report = world.run(work);
    assert_eq!(
        (report.end, report.stdout.as_slice()),
        (GuestEnd::Exit(0), b"{\"a\":1}".as_slice())
    );
    assert_eq!(report.stats.memory_bytes, 65_536);
    assert!(report.started_us.unwrap() > 1_600_000_000_000_000);
    let report = world.text(&wasi(ECHO));
    assert_eq!(
        (report.end, report.stdout.len()),
        (GuestEnd::Exit(0), 0),
        "stdin is empty without params"
    );
}

#[test]
fn any_exit_code_is_told() {
    let world = World::new();
    for code in [0, 1, 64, 75, 126, 255, -1] {
        let report = world.text(&wasi(&format!(
            r#"(func (export "_start") (call $exit (i32.const {code})))"#
        )));
        assert_eq!(report.end, GuestEnd::Exit(code));
    }
}

#[test]
fn a_trap_names_its_functions_innermost_first() {
    let world = World::new();
    let text = r#"(module $m (func $_start (export "_start") (call $outer)) (func $outer (call $_ZN4core9panicking5panic17h0123456789abcdefE))
        (func $_ZN4core9panicking5panic17h0123456789abcdefE (unreachable)))"#;
    let GuestEnd::Trap(reason, Some(backtrace)) = world.text(text).end else {
        panic!("no trap")
    };
    assert!(reason.contains("unreachable"), "{reason}");
    let places: Vec<_> = ["core::panicking::panic", "m!outer", "m!_start"]
        .map(|name| backtrace.find(name))
        .into();
    assert!(
        places.iter().all(Option::is_some) && places.is_sorted(),
        "{backtrace}"
    );
    for (body, words) in [
        ("(drop (i32.load (i32.const 0x7fffffff)))", "out of bounds"),
        (
            "(drop (i32.div_s (i32.const 1) (i32.const 0)))",
            "divide by zero",
        ),
        ("(call $again)", "stack"),
    ] {
        let text = format!(
            r#"(module (memory 1) (func $again (call $again)) (func (export "_start") {body}))"#
        );
        let GuestEnd::Trap(reason, _) = world.text(&text).end else {
            panic!("no trap")
        };
        assert!(reason.contains(words), "{reason}");
    }
}

#[test]
fn a_timeout_takes_effect_wherever_the_guest_is() {
    let world = World::new();
    let grow = r#"(loop $l (drop (memory.grow (i32.const 0))) (br $l))"#;
    for body in [
        "(loop $l (br $l))",
        "(call $sleep_ms (i64.const 60000))",
        grow,
    ] {
        let mut work = world.work(&wasi(&format!(r#"(func (export "_start") {body})"#)));
        work.timeout = Duration::from_millis(50);
        let began = Instant::now();
        assert_eq!(world.run(work).end, GuestEnd::Timeout, "{body}");
        let took = began.elapsed();
        assert!((50..150).contains(&took.as_millis()), "{body}: {took:?}");
    }
}

#[test]
fn a_loop_in_the_start_section_is_stopped_too() {
    let world = World::new();
    let mut work =
        world.work(r#"(module (func $s (loop $l (br $l))) (start $s) (func (export "_start")))"#);
    work.timeout = Duration::from_millis(30);
    assert_eq!(world.run(work).end, GuestEnd::Timeout);
}

#[test]
fn a_cancel_takes_effect_wherever_the_guest_is() {
    let world = World::new();
    let nap = "(loop $l (call $sleep_ms (i64.const 1)) (br $l))";
    for body in [
        "(loop $l (br $l))",
        "(call $sleep_ms (i64.const 60000))",
        nap,
    ] {
        let work = world.work(&wasi(&format!(r#"(func (export "_start") {body})"#)));
        let (report, took) = world.cancelled(work, Duration::from_millis(20));
        assert_eq!(report.end, GuestEnd::Cancelled, "{body}");
        assert!(took < Duration::from_millis(100), "{body}: {took:?}");
    }
    assert!(
        world
            .heard
            .lock()
            .unwrap()
            .iter()
            .any(|event| matches!(event, LiveEvent::Started(_)))
    );
}

#[test]
fn a_sleeper_wakes() {
    let world = World::new();
    let report = world.text(&wasi(
        r#"(func (export "_start") (call $sleep_ms (i64.const 20)))"#,
    ));
    assert_eq!(report.end, GuestEnd::Exit(0));
    assert!(report.stats.run_us >= 20_000);
}

#[test]
fn a_guest_without_memory_fails_of_that() {
    let world = World::new();
    let hoard = r#"(module (memory 1) (func (export "_start")
        (loop $l (br_if $l (i32.ne (memory.grow (i32.const 16)) (i32.const -1)))) (unreachable)))"#;
    let report = world.text(hoard);
    let GuestEnd::Memory(text) = report.end else {
        panic!("{:?}", report.end)
    };
    assert!(text.contains("limit (`memory_mb`) is 16"), "{text}");
    assert_eq!(report.stats.memory_bytes, 65_536 + 15 * (1 << 20));
    let gives_up = wasi(
        r#"(func (export "_start") (drop (memory.grow (i32.const 1000))) (call $exit (i32.const 1)))"#,
    );
    assert!(matches!(world.text(&gives_up).end, GuestEnd::Memory(_)));
    let copes = wasi(r#"(func (export "_start") (drop (memory.grow (i32.const 1000))))"#);
    assert_eq!(world.text(&copes).end, GuestEnd::Exit(0));
    let large = r#"(module (memory 1000) (func (export "_start")))"#;
    assert!(matches!(world.text(large).end, GuestEnd::Memory(_)));
}

#[test]
fn stdout_has_a_limit() {
    let world = World::new();
    let body = |times: usize| {
        wasi(&format!(
            r#"(func (export "_start") (local $i i32) (loop $l (call $print (i32.const 1) (i32.const 0) (i32.const 65536))
                (local.set $i (i32.add (local.get $i) (i32.const 1))) (br_if $l (i32.lt_u (local.get $i) (i32.const {times})))))"#
        ))
    };
    let report = world.text(&body(100));
    assert_eq!(
        (report.end, report.stdout.len()),
        (GuestEnd::Exit(0), 6_553_600)
    );
    let GuestEnd::Output(text) = world.text(&body(1_025)).end else {
        panic!("no limit")
    };
    assert!(text.contains("64 MiB"), "{text}");
}

#[test]
fn stderr_is_log_and_directives() {
    let world = World::new();
    let text = wasi(
        r#"(data (i32.const 1024) "one\n::progress 0.5 half\ntwo\n")
        (func (export "_start") (call $print (i32.const 2) (i32.const 1024) (i32.const 28)))"#,
    );
    let report = world.text(&text);
    assert_eq!(
        (report.end, report.log.head.as_str(), report.stats.log_bytes),
        (GuestEnd::Exit(0), "one\ntwo\n", 28)
    );
    let heard = world.heard.lock().unwrap();
    assert!(
        heard
            .iter()
            .any(|event| matches!(event, LiveEvent::Progress(json) if json.get().contains("half"))),
        "{heard:?}"
    );
}

/// Opens `$path` under fd `$dir` for writing, writes, exits with the errno of `path_open`.
fn opens(dir: u32, path: &str, flags: u32) -> String {
    format!(
        r#"(module
        (import "wasi_snapshot_preview1" "path_open" (func $open (param i32 i32 i32 i32 i32 i64 i64 i32 i32) (result i32)))
        (import "wasi_snapshot_preview1" "fd_write" (func $fd_write (param i32 i32 i32 i32) (result i32)))
        (import "wasi_snapshot_preview1" "proc_exit" (func $exit (param i32)))
        (memory (export "memory") 1) (data (i32.const 64) "{path}")
        (func (export "_start") (local $error i32)
          (local.set $error (call $open (i32.const {dir}) (i32.const 0) (i32.const 64) (i32.const {length}) (i32.const {flags})
            (i64.const 64) (i64.const 64) (i32.const 0) (i32.const 16)))
          (if (i32.eqz (local.get $error)) (then
            (i32.store (i32.const 0) (i32.const 64)) (i32.store (i32.const 4) (i32.const {length}))
            (local.set $error (call $fd_write (i32.load (i32.const 16)) (i32.const 0) (i32.const 1) (i32.const 8)))))
          (call $exit (local.get $error))))"#,
        length = path.len()
    )
}

const CREATE_NEW: u32 = 1 | 4;

#[test]
fn a_task_has_an_empty_folder_of_its_own() {
    let world = World::new();
    // 3 is `.`, 4 is `/`, 5 is `/tmp`. Twice: a second task finds nothing of the first.
    for dir in [3, 4, 5, 3, 4, 5] {
        assert_eq!(
            world.text(&opens(dir, "file", CREATE_NEW)).end,
            GuestEnd::Exit(0),
            "{dir}"
        );
    }
    for outside in ["../x", "/etc/passwd", "../../../../etc/passwd"] {
        assert_ne!(
            world.text(&opens(3, outside, 0)).end,
            GuestEnd::Exit(0),
            "{outside}"
        );
    }
    assert_ne!(
        world.text(&opens(6, "file", CREATE_NEW)).end,
        GuestEnd::Exit(0)
    );
}

#[test]
fn folders_are_gone_afterwards() {
    let mut world = World::new();
    world.text(&opens(3, "file", CREATE_NEW));
    world.sandbox = None;
    let left: Vec<_> = std::fs::read_dir(world.folder.path())
        .unwrap()
        .flatten()
        .collect();
    assert!(left.is_empty(), "{left:?}");
}

#[test]
fn nothing_leaks_from_one_task_to_the_next() {
    let world = World::new();
    // Exits with what it finds, having first looked at and then spoilt all of its memory.
    let text = wasi(
        r#"(func (export "_start") (local $found i32) (local.set $found (i32.load8_u (i32.const 60000)))
          (memory.fill (i32.const 0) (i32.const 7) (i32.const 65536)) (call $exit (local.get $found)))"#,
    );
    let work = world.work(&text);
    let program = work.program.clone();
    for _ in 0..20 {
        let work = Work {
            program: program.clone(),
            ..world.work(&text)
        };
        assert_eq!(world.run(work).end, GuestEnd::Exit(0));
    }
}

#[test]
fn what_cannot_run_is_refused_with_its_reason() {
    let world = World::new();
    for (text, words) in [
        ("(module", "line 1 column"),
        (
            r#"(module (func (export "_start") (param i32)))"#,
            "parameters",
        ),
        (
            r#"(module (import "env" "a" (func)) (import "wasi_snapshot_preview1" "sock_dial" (func)) (func (export "_start")))"#,
            "`env.a`, `wasi_snapshot_preview1.sock_dial`",
        ),
        (
            r#"(module (import "wasi_snapshot_preview1" "fd_close" (func)) (func (export "_start")))"#,
            "fd_close",
        ),
        (
            r#"(module (memory 1) (memory 1) (func (export "_start")))"#,
            "memor",
        ),
        ("\0asm\x0d\0\x01\0", "exports no function"),
        ("\0asm\x01\0\0\0garbage", ""),
    ] {
        let error = Program::compile(world.sandbox(), text.as_bytes())
            .err()
            .unwrap();
        assert!(error.to_string().contains(words), "{text}: {error}");
    }
    let module = wasmtime::Module::new(world.sandbox().engine(), "(module)").err();
    assert!(
        module.is_some(),
        "text is translated by us, not by wasmtime"
    );
    let native = world
        .sandbox()
        .engine()
        .precompile_module(&wat::parse_str(r#"(module (func (export "_start")))"#).unwrap())
        .unwrap();
    let error = Program::compile(world.sandbox(), &native).err().unwrap();
    assert!(error.to_string().contains("precompiled"), "{error}");
}

#[test]
fn the_environment_and_arguments_are_the_tasks_own() {
    let world = World::new();
    let text = r#"(module
        (import "wasi_snapshot_preview1" "environ_sizes_get" (func $environ (param i32 i32) (result i32)))
        (import "wasi_snapshot_preview1" "args_sizes_get" (func $args (param i32 i32) (result i32)))
        (import "wasi_snapshot_preview1" "proc_exit" (func $exit (param i32)))
        (memory (export "memory") 1)
        (func (export "_start") (drop (call $environ (i32.const 0) (i32.const 4))) (drop (call $args (i32.const 8) (i32.const 12)))
          (call $exit (i32.add (i32.mul (i32.load (i32.const 0)) (i32.const 10)) (i32.load (i32.const 8))))))"#;
    assert_eq!(world.text(text).end, GuestEnd::Exit(11));
}

/// A command with files: `$open` makes a file named after its argument in `.`, and gives its fd.
fn with_files(body: &str) -> String {
    format!(
        r#"(module
        (import "wasi_snapshot_preview1" "path_open" (func $path_open (param i32 i32 i32 i32 i32 i64 i64 i32 i32) (result i32)))
        (import "wasi_snapshot_preview1" "fd_filestat_set_size" (func $set_size (param i32 i64) (result i32)))
        (import "wasi_snapshot_preview1" "fd_close" (func $close (param i32) (result i32)))
        (import "wasi_snapshot_preview1" "proc_exit" (func $exit (param i32)))
        (memory (export "memory") 1)
        (func $open (param $n i32) (result i32)
          (i64.store (i32.const 64) (i64.add (i64.const 0x3030303030303030) (i64.and (i64.const 0x0f0f0f0f0f0f0f0f)
            (i64.or (i64.or (i64.extend_i32_u (i32.and (local.get $n) (i32.const 15)))
                            (i64.shl (i64.extend_i32_u (i32.and (i32.shr_u (local.get $n) (i32.const 4)) (i32.const 15))) (i64.const 8)))
                    (i64.or (i64.shl (i64.extend_i32_u (i32.and (i32.shr_u (local.get $n) (i32.const 8)) (i32.const 15))) (i64.const 16))
                            (i64.shl (i64.extend_i32_u (i32.shr_u (local.get $n) (i32.const 12))) (i64.const 24)))))))
          (if (call $path_open (i32.const 3) (i32.const 0) (i32.const 64) (i32.const 8) (i32.const 1)
                (i64.const 0x400042) (i64.const 0x400042) (i32.const 0) (i32.const 16)) (then (call $exit (i32.const 77))))
          (i32.load (i32.const 16)))
        (func (export "_start") (local $n i32) {body}))"#
    )
}

#[test]
fn open_files_have_a_limit() {
    let world = World::new();
    let text = with_files(
        "(loop $next (drop (call $open (local.get $n))) (local.set $n (i32.add (local.get $n) (i32.const 1)))
          (br_if $next (i32.lt_u (local.get $n) (i32.const 100000))))",
    );
    let GuestEnd::Trap(reason, _) = world.text(&text).end else {
        panic!("{:?}", world.text(&text).end)
    };
    assert!(reason.contains("more than 256 files"), "{reason}");
    assert_eq!(
        world.text(&opens(3, "file", CREATE_NEW)).end,
        GuestEnd::Exit(0),
        "the next task has all of its own"
    );
}

#[test]
fn disk_has_a_limit_sparse_files_and_many_files_included() {
    let world = World::new();
    let sparse =
        "(if (call $set_size (call $open (i32.const 1)) (i64.const 0x10000000000)) (then (call $exit (i32.const 78))))
        (loop $spin (br $spin))";
    let many = "(loop $next (drop (call $close (call $open (local.get $n)))) (local.set $n (i32.add (local.get $n) (i32.const 1)))
        (br_if $next (i32.lt_u (local.get $n) (i32.const 30000)))) (loop $spin (br $spin))";
    for (body, words) in [(sparse, "1048576 MiB"), (many, "more than the 20000 files")] {
        let mut work = world.work(&with_files(body));
        work.timeout = Duration::from_secs(300);
        let GuestEnd::Output(text) = world.run(work).end else {
            panic!("{body} was not stopped")
        };
        assert!(text.contains(words), "{text}");
    }
    assert_eq!(
        world.text(&opens(3, "file", CREATE_NEW)).end,
        GuestEnd::Exit(0)
    );
}

#[test]
fn recursion_tables_and_exports_have_limits_or_do_no_harm() {
    let world = World::new();
    let deep = "(module (memory (export \"memory\") 1) (func $f (call $f)) (func (export \"_start\") (call $f)))";
    assert!(matches!(world.text(deep).end, GuestEnd::Trap(reason, _) if reason.contains("stack")));
    let table = "(module (memory (export \"memory\") 1) (table $t 1 funcref) (func (export \"_start\")
        (loop $grow (if (i32.eq (table.grow $t (ref.null func) (i32.const 1000)) (i32.const -1)) (then unreachable)) (br $grow))))";
    assert!(matches!(world.text(table).end, GuestEnd::Memory(text) if text.contains("table")));
    let exports: String = (0..10_000)
        .map(|n| format!("(func (export \"f{n}\"))"))
        .collect();
    let many =
        format!("(module (memory (export \"memory\") 1) {exports} (func (export \"_start\")))");
    assert_eq!(world.text(&many).end, GuestEnd::Exit(0));
}
