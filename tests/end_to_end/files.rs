//! Files into tasks and out of them: inputs by hash, folders that many share, what is given back
//! and fetched.

use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::symlink;
use std::path::Path;
use taskmaster_harness::{Folder, Master, json_lines, run, until};

/// A guest that does what its params say, a string of steps: `r PATH` prints a file, `w PATH TEXT`
/// writes one, `u PATH` removes one, `s PATH TARGET` makes a link, `d PATH` a folder, `m PATH PATH`
/// renames; `;` ends each. A step that fails prints its letter, `!` and the number of the error.
pub const GUEST: &str = r#"(module
  (import "wasi_snapshot_preview1" "fd_read" (func $fd_read (param i32 i32 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "fd_write" (func $fd_write (param i32 i32 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "fd_close" (func $fd_close (param i32) (result i32)))
  (import "wasi_snapshot_preview1" "path_open" (func $path_open (param i32 i32 i32 i32 i32 i64 i64 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "path_unlink_file" (func $unlink (param i32 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "path_symlink" (func $symlink (param i32 i32 i32 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "path_create_directory" (func $mkdir (param i32 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "path_rename" (func $rename (param i32 i32 i32 i32 i32 i32) (result i32)))
  (memory (export "memory") 8)
  (global $a (mut i32) (i32.const 0)) (global $a_len (mut i32) (i32.const 0))
  (global $b (mut i32) (i32.const 0)) (global $b_len (mut i32) (i32.const 0))
  (func $write (param $fd i32) (param $at i32) (param $len i32) (result i32)
    (i32.store (i32.const 0) (local.get $at)) (i32.store (i32.const 4) (local.get $len))
    (call $fd_write (local.get $fd) (i32.const 0) (i32.const 1) (i32.const 8)))
  (func $read (param $fd i32) (param $at i32) (param $len i32) (result i32)
    (i32.store (i32.const 0) (local.get $at)) (i32.store (i32.const 4) (local.get $len))
    (if (call $fd_read (local.get $fd) (i32.const 0) (i32.const 1) (i32.const 8)) (then (return (i32.const 0))))
    (i32.load (i32.const 8)))
  (func $open (param $oflags i32) (param $rights i64) (result i32)
    (call $path_open (i32.const 3) (i32.const 1) (global.get $a) (global.get $a_len) (local.get $oflags)
      (local.get $rights) (i64.const 0) (i32.const 0) (i32.const 16)))
  (func $cat (result i32) (local $error i32) (local $n i32)
    (local.set $error (call $open (i32.const 0) (i64.const 2)))
    (if (local.get $error) (then (return (local.get $error))))
    (loop $more
      (local.set $n (call $read (i32.load (i32.const 16)) (i32.const 262144) (i32.const 65536)))
      (if (local.get $n) (then
        (drop (call $write (i32.const 1) (i32.const 262144) (local.get $n)))
        (br $more))))
    (call $fd_close (i32.load (i32.const 16))))
  (func $put (result i32) (local $error i32)
    (local.set $error (call $open (i32.const 9) (i64.const 64)))
    (if (local.get $error) (then (return (local.get $error))))
    (drop (call $write (i32.load (i32.const 16)) (global.get $b) (global.get $b_len)))
    (call $fd_close (i32.load (i32.const 16))))
  (func $step (param $op i32) (result i32)
    (if (i32.eq (local.get $op) (i32.const 114)) (then (return (call $cat))))
    (if (i32.eq (local.get $op) (i32.const 119)) (then (return (call $put))))
    (if (i32.eq (local.get $op) (i32.const 117)) (then (return (call $unlink (i32.const 3) (global.get $a) (global.get $a_len)))))
    (if (i32.eq (local.get $op) (i32.const 115)) (then (return
      (call $symlink (global.get $b) (global.get $b_len) (i32.const 3) (global.get $a) (global.get $a_len)))))
    (if (i32.eq (local.get $op) (i32.const 100)) (then (return (call $mkdir (i32.const 3) (global.get $a) (global.get $a_len)))))
    (if (i32.eq (local.get $op) (i32.const 109)) (then (return
      (call $rename (i32.const 3) (global.get $a) (global.get $a_len) (i32.const 3) (global.get $b) (global.get $b_len)))))
    (i32.const 99))
  ;; The first place from $at on that holds $c or $d; the end where none does.
  (func $find (param $at i32) (param $end i32) (param $c i32) (param $d i32) (result i32)
    (loop $next
      (if (i32.ge_u (local.get $at) (local.get $end)) (then (return (local.get $end))))
      (if (i32.or (i32.eq (i32.load8_u (local.get $at)) (local.get $c)) (i32.eq (i32.load8_u (local.get $at)) (local.get $d)))
        (then (return (local.get $at))))
      (local.set $at (i32.add (local.get $at) (i32.const 1)))
      (br $next))
    (unreachable))
  (func (export "_start") (local $at i32) (local $end i32) (local $n i32) (local $op i32)
    (local.set $end (i32.const 65536))
    (loop $more
      (local.set $n (call $read (i32.const 0) (local.get $end) (i32.const 65536)))
      (local.set $end (i32.add (local.get $end) (local.get $n)))
      (br_if $more (local.get $n)))
    ;; Without the quotes of the JSON string.
    (local.set $at (i32.const 65537))
    (local.set $end (i32.sub (local.get $end) (i32.const 1)))
    (block $done (loop $steps
      (br_if $done (i32.ge_u (local.get $at) (local.get $end)))
      (local.set $op (i32.load8_u (local.get $at)))
      (global.set $a (i32.add (local.get $at) (i32.const 2)))
      (local.set $at (call $find (global.get $a) (local.get $end) (i32.const 32) (i32.const 59)))
      (global.set $a_len (i32.sub (local.get $at) (global.get $a)))
      (global.set $b (i32.add (local.get $at) (i32.const 1)))
      (if (i32.ne (i32.load8_u (local.get $at)) (i32.const 32)) (then (global.set $b (local.get $at))))
      (local.set $at (call $find (global.get $b) (local.get $end) (i32.const 59) (i32.const 59)))
      (global.set $b_len (i32.sub (local.get $at) (global.get $b)))
      (local.set $at (i32.add (local.get $at) (i32.const 1)))
      (local.set $n (call $step (local.get $op)))
      (if (local.get $n) (then
        (i32.store8 (i32.const 32) (local.get $op)) (i32.store8 (i32.const 33) (i32.const 33))
        (i32.store8 (i32.const 34) (i32.add (i32.const 48) (i32.div_u (local.get $n) (i32.const 10))))
        (i32.store8 (i32.const 35) (i32.add (i32.const 48) (i32.rem_u (local.get $n) (i32.const 10))))
        (drop (call $write (i32.const 1) (i32.const 32) (i32.const 4)))))
      (br $steps)))))"#;

/// "Permission denied", as the guest prints it.
const DENIED: &str = "!02";

fn master() -> Master {
    let master = Master::up(2);
    master.drop_module("files.wat", GUEST);
    fs::create_dir_all(master.folder.join("given/deep")).unwrap();
    for (path, text) in [
        ("given/one", "1"),
        ("given/deep/two", "2"),
        ("given/empty", ""),
        ("single", "s"),
    ] {
        fs::write(master.folder.join(path), text).unwrap();
    }
    master
}

fn http(url: &str, request: &str) -> String {
    let mut stream = TcpStream::connect(url.trim_start_matches("ws://")).unwrap();
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

/// A task that does `steps`.
fn task(id: &str, steps: &str, more: Value) -> String {
    let mut task = json!({"id": id, "module": "files", "params": steps, "retries": 0});
    task.as_object_mut()
        .unwrap()
        .extend(more.as_object().unwrap().clone());
    format!("{task}\n")
}

/// The files of `folder`, by their path below it.
fn files_of(folder: &Path) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(next) = folders.pop() {
        for entry in fs::read_dir(next).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else {
                let name = path
                    .strip_prefix(folder)
                    .unwrap()
                    .to_str()
                    .unwrap()
                    .to_owned();
                found.insert(name, fs::read_to_string(&path).unwrap());
            }
        }
    }
    found
}

fn expected(files: &[(&str, &str)]) -> BTreeMap<String, String> {
    files
        .iter()
        .map(|(path, text)| ((*path).to_owned(), (*text).to_owned()))
        .collect()
}

#[test]
fn files_go_in_and_come_back_whatever_the_command() {
    let master = master();
    let steps = "r in/one;r in/deep/two;r in/empty;r f;w made new;d sub;w sub/x y;m in/one renamed;d tmp;w tmp/u no;";
    let inputs = ["--input", "in=given", "--input", "f=single"];
    let params = json!(steps).to_string();
    let made = [("made", "new"), ("renamed", "1"), ("sub/x", "y")];
    let under = |id: &str| -> BTreeMap<String, String> {
        made.iter()
            .map(|(path, text)| (format!("{id}/{path}"), (*text).to_owned()))
            .collect()
    };
    let options = [&["--params", &params, "--fetch", "out"], inputs.as_slice()].concat();
    let printed = "12s";
    let added = master
        .run(
            &[
                &["add", "files", "--id", "a", "--wait", "-o", "json"],
                options.as_slice(),
            ]
            .concat(),
        )
        .with(0);
    assert_eq!(added.json()["result"], printed);
    let outputs = added.json()["outputs"].as_object().unwrap().clone();
    assert_eq!(
        outputs.keys().collect::<Vec<_>>(),
        ["made", "renamed", "sub/x"]
    );
    let called = master
        .run(&[&["call", "files", "--id", "c"], options.as_slice()].concat())
        .with(0);
    assert_eq!(called.out.trim_end(), printed);
    let ran = run(
        &master.folder,
        &[&["run", "tasks/files.wat"], options.as_slice()].concat(),
        &[],
        "",
    )
    .with(0);
    assert_eq!(
        ran.out.trim_end(),
        printed,
        "without a master it is the same"
    );
    // Relative to the feed file, wherever the command is given.
    fs::create_dir(master.folder.join("feeds")).unwrap();
    let line = task(
        "f",
        steps,
        json!({"inputs": {"in": "../given", "f": "../single"}}),
    );
    master.folder.write("feeds/feed.jsonl", &line);
    let fed = master
        .run(&["feed", "feeds/feed.jsonl", "--follow", "--fetch", "out"])
        .with(0)
        .lines();
    assert_eq!(
        (
            &fed[0]["result"],
            fed[0]["outputs"].as_object().unwrap().len()
        ),
        (&json!(printed), 3)
    );
    let out = files_of(&master.folder.join("out"));
    assert_eq!(
        out,
        [under("a"), under("c"), under("f"), under("local")]
            .into_iter()
            .flatten()
            .collect()
    );
    // Again: nothing is run, and what is there is not fetched again, what is not is.
    fs::remove_file(master.folder.join("out/f/made")).unwrap();
    master
        .run(&["feed", "feeds/feed.jsonl", "--follow", "--fetch", "out"])
        .with(0);
    assert_eq!(files_of(&master.folder.join("out")), out);
    let listed = master
        .run(&["tasks", "files", "f", "--fetch", "again"])
        .with(0)
        .lines();
    assert_eq!(
        listed
            .iter()
            .map(|file| file["path"].as_str().unwrap())
            .collect::<Vec<_>>(),
        ["made", "renamed", "sub/x"]
    );
    assert_eq!(files_of(&master.folder.join("again")), under("f"));
}

#[test]
fn what_a_task_does_to_its_inputs_no_other_task_sees() {
    let master = master();
    let inputs = json!({"inputs": {"in": "given", "f": "single"}});
    let spoil = "w f X;w in/one X;w in/deep/two X;u in/empty;w in/empty X;m f g;w f X;r f;";
    let feed: String = (0..10)
        .flat_map(|n| {
            [
                task(&format!("w{n}"), spoil, inputs.clone()),
                task(
                    &format!("r{n}"),
                    "r f;r in/one;r in/deep/two;r in/empty;",
                    inputs.clone(),
                ),
            ]
        })
        .collect();
    let ended = master
        .run_with(&["feed", "--follow"], &feed)
        .with(0)
        .lines();
    for task in &ended {
        let reads = task["id"].as_str().unwrap().starts_with('r');
        let denied = format!("w{DENIED}w{DENIED}w{DENIED}X");
        assert_eq!(
            task["result"],
            if reads { json!("s12") } else { json!(denied) },
            "{task}"
        );
        let outputs: Vec<String> = task["outputs"]
            .as_object()
            .unwrap()
            .keys()
            .cloned()
            .collect();
        assert_eq!(
            outputs,
            if reads {
                vec![]
            } else {
                vec!["f", "g", "in/empty"]
            },
            "{task}"
        );
    }
    assert_eq!(
        files_of(&master.folder.join("given")),
        expected(&[("deep/two", "2"), ("empty", ""), ("one", "1")])
    );
}

#[test]
fn a_shared_folder_of_a_thousand_files_is_put_once_and_not_copied() {
    let master = master();
    for n in 0..1_000 {
        fs::write(
            master.folder.join(&format!("given/{n}.txt")),
            format!("file {n}"),
        )
        .unwrap();
    }
    let feed: String = (0..20)
        .map(|n| {
            task(
                &format!("t{n}"),
                &format!("r in/{n}.txt;w out {n};"),
                json!({"inputs": {"in": "given"}}),
            )
        })
        .collect();
    let ended = master
        .run_with(&["feed", "--follow"], &feed)
        .with(0)
        .lines();
    assert!(
        ended
            .iter()
            .all(|task| task["state"] == "done" && task["outputs"].as_object().unwrap().len() == 1)
    );
    // 1,003 files, of which the empty one and 1,002 others differ, the listing, the module; and 20
    // outputs.
    let blobs = files_of(&master.folder.join("data/blobs"));
    assert!(blobs.len() <= 1_003 + 2 + 20, "{} blobs", blobs.len());
    let cached = files_of(&master.folder.join("data/runner/inputs"));
    assert_eq!(
        cached.keys().filter(|path| *path != ".lock").count(),
        1_003 + 1
    );
    let task = &master.json(&["tasks", "show", "t0"]);
    assert!(
        task.to_string().len() < 1_000,
        "the task carries the folder's name, not its files: {task}"
    );
}

#[test]
fn outputs_are_chosen_by_globs_and_a_glob_without_a_file_is_a_failure() {
    let master = master();
    let more = |outputs: Value| json!({"inputs": {"in": "given"}, "outputs": outputs});
    let steps = "w a.png 1;w b.txt 2;d sub;w sub/c.png 3;s inside a.png;s outside ../../../../../../etc/hostname;s loop loop;";
    let feed = [
        task("all", steps, json!({"inputs": {"in": "given"}})),
        task("png", steps, more(json!(["**/*.png"]))),
        task("none", steps, more(json!([]))),
        task("missing", steps, more(json!(["*.png", "*.jpg"]))),
        task("unchanged", steps, more(json!(["in/*"]))),
        task("odd", "w a.txt 1;", more(json!(["*.txt"]))),
    ]
    .concat();
    let ended = master
        .run_with(&["feed", "--follow"], &feed)
        .with(3)
        .lines();
    let of = |id: &str| {
        ended
            .iter()
            .find(|task| task["id"] == id)
            .unwrap_or_else(|| panic!("{id}: {ended:?}"))
    };
    let names = |id: &str| {
        of(id)["outputs"]
            .as_object()
            .unwrap()
            .keys()
            .cloned()
            .collect::<Vec<String>>()
    };
    // A link inside the folder stands for its file; what one outside leads to is nobody's to see.
    assert_eq!(names("all"), ["a.png", "b.txt", "inside", "sub/c.png"]);
    assert_eq!(
        (names("png"), names("none"), names("odd")),
        (
            vec!["a.png".to_owned(), "sub/c.png".into()],
            vec![],
            vec!["a.txt".to_owned()]
        )
    );
    for (id, words) in [
        (
            "missing",
            "`*.jpg`; the task made a.png, b.txt, inside, sub/c.png",
        ),
        ("unchanged", "matches only inputs"),
    ] {
        let error = &of(id)["error"];
        assert!(
            error["kind"] == "output" && error["message"].as_str().unwrap().contains(words),
            "{id}: {error}"
        );
    }
}

#[test]
fn bad_files_are_refused_by_name_and_stop_nobody() {
    let master = master();
    let here = |name: &str| master.folder.join(name);
    symlink("/etc/hostname", here("given/leak")).unwrap();
    fs::create_dir(here("clean")).unwrap();
    fs::create_dir(here("cases")).unwrap();
    for name in ["cases/a", "cases/A"] {
        fs::write(here(name), "").unwrap();
    }
    let hash = "0a".repeat(32);
    let bad = [
        (json!({"../x": "single"}), "the part `..`"),
        (json!({"/x": "single"}), "is absolute"),
        (json!({"a//b": "single"}), "an empty part"),
        (
            json!({"a": "single", "A": "single"}),
            "`A` and `a` differ only by case",
        ),
        (
            json!({"a": "single", "a/b": "single"}),
            "`a/b` lies inside `a`",
        ),
        (json!({"tmp/a": "single"}), "/tmp"),
        (json!({"a": "nowhere"}), "inputs.a`: cannot read"),
        (
            json!({"a": "given"}),
            "given/leak is a link that leads outside the folder, to /etc/hostname",
        ),
        (json!({"a": "cases"}), "differ only by case"),
        (json!({"a": "/dev/null"}), "neither a file nor a folder"),
        (json!({"a": {"sha256": hash}}), "no blob 0a0a"),
        (json!({"a": {"folder": hash}}), "no blob 0a0a"),
        (json!({"a": {"sha265": hash}}), "unknown field"),
        (json!({"a": 7}), "inputs.a"),
    ];
    let mut feed: String = bad
        .iter()
        .map(|(inputs, _)| task("bad", "", json!({"inputs": inputs})))
        .collect();
    feed.push_str(&task("globs", "", json!({"outputs": ["../*"]})));
    feed.push_str(&task(
        "good",
        "r f;",
        json!({"inputs": {"f": "single", "clean": "clean"}}),
    ));
    let ran = master.run_with(&["feed", "--follow"], &feed).with(1);
    for (number, (_, words)) in bad.iter().enumerate() {
        let line = ran
            .err
            .lines()
            .find(|line| line.starts_with(&format!("line {}: ", number + 1)));
        assert!(
            line.is_some_and(|line| line.contains(words)),
            "line {}, `{words}`: {}",
            number + 1,
            ran.err
        );
    }
    assert!(
        ran.err.contains("line 15: ") && ran.err.contains("the glob `../*`"),
        "{}",
        ran.err
    );
    assert_eq!(ran.lines().len(), 1);
    assert_eq!(ran.lines()[0]["result"], "s");
    for (args, words) in [
        (vec!["add", "files", "--input", "single"], vec!["path=file"]),
        (
            vec!["add", "files", "--input", "../x=single"],
            vec!["the part `..`"],
        ),
        (
            vec!["add", "files", "--outputs", "a**"],
            vec!["--outputs", "a**"],
        ),
        (vec!["add", "files", "--fetch", "out"], vec!["--wait"]),
        (vec!["feed", "--fetch", "out"], vec!["--follow"]),
        (
            vec!["run", "tasks/files.wat", "--input", "x"],
            vec!["path=file"],
        ),
    ] {
        master.run(&args).with(2).says(&words);
    }
    master
        .run(&["call", "files", "--input", "x=nowhere"])
        .with(1)
        .says(&["inputs.x", "nowhere"]);
    run(
        &master.folder,
        &["run", "tasks/files.wat", "--input", "x=nowhere"],
        &[],
        "",
    )
    .with(1)
    .says(&["nowhere"]);
}

#[test]
fn bytes_with_another_hash_are_not_taken() {
    let master = master();
    let hash = "0a".repeat(32);
    let put = format!(
        "PUT /blobs/{hash} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 3\r\nConnection: close\r\n\r\nabc"
    );
    let answer = http(&master.url, &put);
    assert!(
        answer.starts_with("HTTP/1.1 400") && answer.contains("the bytes have the hash"),
        "{answer}"
    );
    assert_eq!(
        files_of(&master.folder.join("data/blobs")).len(),
        1,
        "only the module"
    );
}

#[test]
fn an_upload_and_a_fetch_outlast_a_restart_of_their_master() {
    let mut master = master();
    let line = task(
        "late",
        "r f;w out done;",
        json!({"inputs": {"f": "given/one"}}),
    );
    master.folder.write("late.jsonl", &line);
    let mut feeding = master.spawn(&["feed", "late.jsonl", "--follow", "--fetch", "out"]);
    until("the feed has a master", || {
        feeding.said().contains("job feed-")
    });
    master.process.kill();
    master.start_again();
    until("the file of the task", || {
        master.folder.join("out/late/out").exists()
    });
    assert_eq!(feeding.exit_code(), Some(0), "{}", feeding.said());
    assert_eq!(json_lines(&feeding.printed())[0]["result"], 1);
    let folder = Folder::new();
    master
        .run(&[
            "tasks",
            "files",
            "late",
            "--fetch",
            folder.path().to_str().unwrap(),
        ])
        .with(0);
    assert_eq!(files_of(folder.path()), expected(&[("late/out", "done")]));
}

#[test]
fn what_nothing_names_any_more_is_removed() {
    let mut master = Master::with(
        "up",
        &["--slots", "2", "--keep", "1s", "--blob-grace", "1s"],
    );
    master.drop_module("files.wat", GUEST);
    fs::create_dir(master.folder.join("given")).unwrap();
    for (path, text) in [
        ("given/one", "1"),
        ("given/two", "2"),
        ("gone", "gone"),
        ("kept", "kept"),
    ] {
        fs::write(master.folder.join(path), text).unwrap();
    }
    let waits = [
        "add", "files", "--id", "waits", "--delay", "1h", "--input", "in=given", "--input",
        "k=kept",
    ];
    master.run(&waits).with(0);
    let blobs = || {
        files_of(&master.folder.join("data/blobs"))
            .into_values()
            .collect::<Vec<String>>()
    };
    master
        .run(&[
            "call",
            "files",
            "--params",
            "\"r g;w out made;\"",
            "--job",
            "over",
            "--input",
            "g=gone",
            "--input",
            "in=given",
        ])
        .with(0);
    assert!(blobs().contains(&"gone".to_owned()) && blobs().contains(&"made".to_owned()));
    let orphan = format!(
        "PUT /blobs/{} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 3\r\nConnection: close\r\n\r\nabc",
        sha256("abc")
    );
    assert!(http(&master.url, &orphan).starts_with("HTTP/1.1 201"));
    until("what nothing names is gone", || {
        !["gone", "made", "abc"]
            .iter()
            .any(|text| blobs().contains(&(*text).to_owned()))
    });
    let mut left = blobs();
    left.retain(|text| text.len() < 10);
    left.sort();
    assert_eq!(
        left,
        ["1", "2", "kept"],
        "beside them, the listing and the module"
    );
    assert_eq!(blobs().len(), 5);
    // The same after a start, in a check, and in what is exported and imported.
    master.process.kill();
    master.start_again();
    master
        .run(&["tasks", "set", "waits", "--delay", "0s"])
        .with(0);
    master.wait_state("waits", "done");
    master
        .run(&[
            "add", "files", "--id", "again", "--delay", "1h", "--input", "in=given",
        ])
        .with(0);
    assert_eq!(master.process.terminate(), Some(0));
    let store = |args: &[&str]| run(&master.folder, &[&["store"], args].concat(), &[], "").with(0);
    assert_eq!(
        store(&["check", "--data", "data", "-o", "json"]).json()["ok"],
        true
    );
    store(&["export", "all.jsonl", "--data", "data"]);
    store(&["import", "all.jsonl", "--data", "fresh"]);
    let checked = store(&["check", "--data", "fresh", "-o", "json"]).json();
    assert!(
        checked["ok"] == true && checked["blobs"].as_u64() >= Some(4),
        "{checked}"
    );
    let fresh: Vec<String> = files_of(&master.folder.join("fresh/blobs"))
        .into_values()
        .collect();
    assert!(
        ["1", "2"]
            .iter()
            .all(|text| fresh.contains(&(*text).to_owned())),
        "a folder's files go with it"
    );
}

fn sha256(text: &str) -> String {
    taskmaster_protocol::Hash::of(text.as_bytes()).to_string()
}

/// A gigabyte in and out again; not in CI, for its disk's sake.
#[test]
#[ignore = "needs 4 GiB of disk"]
fn a_file_of_a_gigabyte_is_a_file_like_any_other() {
    let master = master();
    let path = master.folder.join("large");
    let file = fs::File::create(&path).unwrap();
    file.set_len(1 << 30).unwrap();
    let ran = master
        .run(&[
            "call",
            "files",
            "--params",
            "\"m large moved;\"",
            "--input",
            "large=large",
            "--fetch",
            "out",
            "--id",
            "l",
        ])
        .with(0);
    assert_eq!(ran.out.trim(), "null");
    let moved = fs::metadata(master.folder.join("out/l/moved")).unwrap();
    assert_eq!(moved.len(), 1 << 30);
    let same = std::process::Command::new("cmp")
        .arg(&path)
        .arg(master.folder.join("out/l/moved"))
        .status()
        .unwrap();
    assert!(same.success());
}
