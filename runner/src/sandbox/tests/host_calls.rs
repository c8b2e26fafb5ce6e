//! Guests that call the host for long, and what they touch there.

use super::*;
use crate::inputs::TaskInputs;
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use taskmaster_protocol::{FilePath, Hash, InputRef};

/// The numbers by which WASI says that something is not permitted, and that it is not there.
const PERM: i32 = 63;

/// Imports of what the guests here call.
const CALLS: &str = r#"
  (import "wasi_snapshot_preview1" "fd_write" (func $fd_write (param i32 i32 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "random_get" (func $random (param i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "path_open" (func $open (param i32 i32 i32 i32 i32 i64 i64 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "path_link" (func $link (param i32 i32 i32 i32 i32 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "path_filestat_set_times" (func $touch (param i32 i32 i32 i32 i64 i64 i32) (result i32)))
  (import "wasi_snapshot_preview1" "fd_filestat_set_times" (func $touch_open (param i32 i64 i64 i32) (result i32)))
  (import "wasi_snapshot_preview1" "proc_exit" (func $exit (param i32)))
"#;

/// A command with this many pages of memory, what lies in it, and what it does.
fn calls(pages: u32, data: &str, body: &str) -> String {
    format!(
        r#"(module {CALLS} (memory (export "memory") {pages}) {data}
          (func (export "_start") (local $n i32) {body}))"#
    )
}

/// Guests without a loop that run for ten seconds where nothing stops them between two calls.
fn without_loops() -> Vec<String> {
    let lines = "(drop (call $fd_write (i32.const 2) (i32.const 0) (i32.const 1) (i32.const 16)))";
    let setup = "(memory.fill (i32.const 65536) (i32.const 10) (i32.const 67108864))
      (i32.store (i32.const 0) (i32.const 65536)) (i32.store (i32.const 4) (i32.const 67108864))";
    let bytes = "(drop (call $random (i32.const 0) (i32.const 60000000)))";
    let fill = "(memory.fill (i32.const 0) (i32.const 7) (i32.const 67108864))";
    let copy = "(memory.copy (i32.const 0) (i32.const 1000) (i32.const 67108864))";
    [
        format!("{setup} {}", lines.repeat(12)),
        bytes.repeat(60),
        fill.repeat(1_000),
        copy.repeat(1_000),
    ]
    .map(|body| calls(1_100, "", &body))
    .into()
}

#[test]
fn code_without_loops_that_calls_the_host_ends_at_its_deadline() {
    let world = World::new();
    for text in without_loops() {
        let mut work = world.work(&text);
        work.memory_mb = 128;
        work.timeout = Duration::from_millis(150);
        let report = world.run(work);
        assert_eq!(
            report.end,
            GuestEnd::Timeout,
            "{}",
            &text[text.len() - 100..]
        );
        assert!(
            report.stats.run_us < 1_000_000,
            "{} ms: {}",
            report.stats.run_us / 1_000,
            &text[text.len() - 100..]
        );
    }
}

#[test]
fn code_without_loops_that_calls_the_host_ends_when_it_is_cancelled() {
    let world = World::new();
    for text in without_loops() {
        let mut work = world.work(&text);
        work.memory_mb = 128;
        work.timeout = Duration::from_secs(300);
        let (report, took) = world.cancelled(work, Duration::from_millis(100));
        assert_eq!(
            report.end,
            GuestEnd::Cancelled,
            "{}",
            &text[text.len() - 100..]
        );
        assert!(took < Duration::from_secs(1), "{took:?}");
    }
}

#[test]
fn a_guest_that_only_calls_the_host_is_told_as_started() {
    let world = World::new();
    let mut work = world.work(&without_loops().remove(1));
    work.memory_mb = 128;
    work.timeout = Duration::from_millis(100);
    world.run(work);
    let heard = world.heard.lock().unwrap();
    let started = |event: &&LiveEvent| matches!(event, LiveEvent::Started(_));
    assert_eq!(heard.iter().filter(started).count(), 1);
}

#[test]
fn random_bytes_fill_their_buffer_to_its_last_byte_and_not_beyond_memory() {
    let world = World::new();
    // 3 MiB and a byte from 65536 on; the byte behind them stays 0.
    let body = "(if (call $random (i32.const 65536) (i32.const 3145729)) (then (call $exit (i32.const 1))))
      (if (i32.load8_u (i32.const 3211265)) (then (call $exit (i32.const 2))))
      (if (i64.eqz (i64.or (i64.load (i32.const 3211257)) (i64.load (i32.const 65536)))) (then (call $exit (i32.const 3))))
      (if (call $random (i32.const 0) (i32.const 0)) (then (call $exit (i32.const 5))))";
    assert_eq!(world.text(&calls(100, "", body)).end, GuestEnd::Exit(0));
    for (at, length) in [(6_553_600, 1), (65_536, -1)] {
        let body =
            format!("(call $exit (i32.eqz (call $random (i32.const {at}) (i32.const {length}))))");
        let end = world.text(&calls(100, "", &body)).end;
        let is_told = matches!(end, GuestEnd::Exit(0) | GuestEnd::Trap(..));
        assert!(is_told, "{at} {length}: {end:?}");
    }
}

/// Runs a guest that opens `name` in each of its first eight folders, and exits with the sum of the
/// errors that say "not permitted".
fn opens_everywhere(name: &str) -> String {
    let open = format!(
        "(if (i32.eq (call $open (local.get $n) (i32.const 1) (i32.const 0) (i32.const {}) (i32.const 0)
            (i64.const 2) (i64.const 2) (i32.const 0) (i32.const 64)) (i32.const {PERM}))
          (then (global.set $refused (i32.add (global.get $refused) (i32.const 1)))))
         (local.set $n (i32.add (local.get $n) (i32.const 1)))",
        name.len()
    );
    let data =
        format!(r#"(data (i32.const 0) "{name}") (global $refused (mut i32) (i32.const 0))"#);
    let body = format!(
        "(local.set $n (i32.const 3)) {} (call $exit (global.get $refused))",
        open.repeat(5)
    );
    calls(1, &data, &body)
}

fn with_folder(world: &World, text: &str, folder: &Path) -> Work {
    let mut work = world.work(text);
    work.granted.folders = vec![("/data".into(), folder.to_owned())];
    work
}

#[test]
fn what_is_neither_file_nor_folder_in_a_granted_folder_is_not_opened() {
    let world = World::new();
    let granted = tempfile::tempdir().unwrap();
    let path = |name: &str| granted.path().join(name);
    let fifo = rustix::fs::FileType::Fifo;
    let mode = rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR;
    rustix::fs::mknodat(rustix::fs::CWD, path("pipe"), fifo, mode, 0).unwrap();
    let _socket = std::os::unix::net::UnixListener::bind(path("socket")).unwrap();
    std::os::unix::fs::symlink("pipe", path("link")).unwrap();
    fs::create_dir(path("folder")).unwrap();
    fs::write(path("file"), "x").unwrap();
    for (name, refused) in [
        ("pipe", 1),
        ("socket", 1),
        ("link", 1),
        ("folder/../pipe", 1),
        ("file", 0),
        ("folder", 0),
        ("none", 0),
    ] {
        let report = world.run(with_folder(&world, &opens_everywhere(name), granted.path()));
        assert_eq!(report.end, GuestEnd::Exit(refused), "{name}");
    }
}

/// Inputs of one file, named `in`, kept in `cache`.
async fn shared_input(cache: &Path) -> TaskInputs {
    let fetch = Arc::new(|_, to| -> crate::fetch::FetchFuture<u64> {
        fs::write(to, "shared").unwrap();
        Box::pin(async { Ok(6) })
    });
    TaskInputs::open(cache, u64::MAX, fetch).unwrap()
}

fn wanted() -> BTreeMap<FilePath, InputRef> {
    let sha256 = Hash::of(b"shared");
    BTreeMap::from([(FilePath::new("in").unwrap(), InputRef::File { sha256 })])
}

#[tokio::test(flavor = "multi_thread")]
async fn the_times_of_a_shared_input_are_not_set_and_those_of_own_files_are() {
    let world = World::new();
    let cache = tempfile::tempdir().unwrap();
    let inputs = shared_input(cache.path()).await;
    let touch = |at: u32| {
        format!(
            "(call $touch (i32.const 3) (i32.const 0) (i32.const {at}) (i32.const 2) (i64.const 1000000000) (i64.const 1000000000) (i32.const 5))"
        )
    };
    let open = |at: u32, flags: u32, rights: u32| {
        format!(
            "(if (call $open (i32.const 3) (i32.const 0) (i32.const {at}) (i32.const 2) (i32.const {flags})
               (i64.const {rights}) (i64.const {rights}) (i32.const 0) (i32.const 64)) (then (call $exit (i32.const 99))))"
        )
    };
    let touch_open = "(call $touch_open (i32.load (i32.const 64)) (i64.const 1000000000) (i64.const 1000000000) (i32.const 5))";
    let data = r#"(data (i32.const 0) "in") (data (i32.const 16) "my") (data (i32.const 32) "ln")"#;
    let linked = "(drop (call $link (i32.const 3) (i32.const 0) (i32.const 0) (i32.const 2) (i32.const 3) (i32.const 32) (i32.const 2)))";
    for (body, expected) in [
        (format!("(call $exit {})", touch(0)), PERM),
        (format!("{linked} (call $exit {})", touch(32)), PERM),
        (format!("{} (call $exit {touch_open})", open(0, 0, 2)), PERM),
        (format!("{} (call $exit {touch_open})", open(16, 1, 64)), 0),
        (format!("{} (call $exit {})", open(16, 1, 64), touch(16)), 0),
    ] {
        let mut work = world.work(&calls(1, data, &body));
        work.files.inputs = Some(inputs.gather(&wanted()).await.unwrap());
        let report = tokio::task::block_in_place(|| {
            std::thread::scope(|scope| scope.spawn(|| world.run(work)).join().unwrap())
        });
        assert_eq!(report.end, GuestEnd::Exit(expected), "{body}");
    }
    let kept = walk_files(cache.path());
    let modified = kept.modified().unwrap();
    assert!(modified.elapsed().unwrap() < Duration::from_secs(3_600));
}

/// The only file of a hash that lies in the cache.
fn walk_files(cache: &Path) -> fs::Metadata {
    let mut found = None;
    let walked = tree::walk(cache, |entry| {
        if entry
            .inside
            .to_string_lossy()
            .contains(&Hash::of(b"shared").to_string())
        {
            found = fs::metadata(cache.join(entry.inside)).ok();
        }
        std::ops::ControlFlow::Continue(())
    });
    walked.unwrap();
    found.unwrap()
}
