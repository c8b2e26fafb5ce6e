//! Blobs in an object store: a real S3 server with a real disk, killed and started again; masters
//! that lose their folder.

use crate::files::GUEST;
use serde_json::{Value, json};
use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;
use taskmaster_harness::s3::{BUCKET, READER, READERS_SECRET, SECRET, Server};
use taskmaster_harness::{Folder, Master, Process, Ran, json_lines, run, until, wait_for};

/// Returns its params, of whatever length.
const ECHO: &str = include_str!("../../tasks/echo.wat");

/// Where the blobs of these tests are.
const PLACE: &str = "s3://farm/some/place";

fn up(server: &Server, more: &[&str]) -> Master {
    let settings = server.settings();
    let settings: Vec<(&str, &str)> = settings
        .iter()
        .map(|(name, value)| (*name, value.as_str()))
        .collect();
    let master = Master::with_settings(
        "up",
        &[&["--slots", "2", "--blobs", PLACE], more].concat(),
        &settings,
        "DATA",
    );
    master.drop_module("files.wat", GUEST);
    master.drop_module("echo.wat", ECHO);
    master
}

/// A command of the store's keeper, who may use the bucket.
fn store(server: &Server, folder: &Folder, args: &[&str]) -> Ran {
    let settings = server.settings();
    let settings: Vec<(&str, &str)> = settings
        .iter()
        .map(|(name, value)| (*name, value.as_str()))
        .collect();
    run(folder, &[&["store"], args].concat(), &settings, "")
}

fn object(hash: &str) -> String {
    format!("some/place/{}/{hash}", &hash[..2])
}

fn sha256(bytes: &[u8]) -> String {
    taskmaster_protocol::Hash::of(bytes).to_string()
}

/// A line of a feed.
fn task(id: &str, steps: &str, more: Value) -> String {
    let mut task = json!({"id": id, "module": "files", "params": steps, "job": "j"});
    task.as_object_mut()
        .unwrap()
        .extend(more.as_object().unwrap().clone());
    format!("{task}\n")
}

/// The blobs in a data folder.
fn here(master: &Master) -> Vec<String> {
    let folders = fs::read_dir(master.folder.join("data/blobs"))
        .unwrap()
        .map(|entry| entry.unwrap().path());
    let files = folders
        .filter(|path| path.is_dir())
        .flat_map(|folder| fs::read_dir(folder).unwrap());
    files
        .map(|entry| entry.unwrap().file_name().to_str().unwrap().to_owned())
        .collect()
}

/// The first line of what the master answers.
fn status(master: &Master, method: &str, path: &str, body: &[u8]) -> (String, String) {
    let mut stream = TcpStream::connect(master.url.trim_start_matches("ws://")).unwrap();
    let length = body.len();
    let head = format!(
        "{method} {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n"
    );
    stream
        .write_all(head.as_bytes())
        .and_then(|()| stream.write_all(body))
        .unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    let answer = String::from_utf8_lossy(&answer).into_owned();
    (answer.lines().next().unwrap_or_default().to_owned(), answer)
}

fn forget(master: &Master, folders: &[&str]) {
    for folder in folders {
        fs::remove_dir_all(master.folder.join(folder)).unwrap();
    }
}

fn noise(bytes: usize) -> Vec<u8> {
    let mut x = 88_172_645_463_325_252_u64;
    let mut next = || {
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        x
    };
    (0..bytes / 8).flat_map(|_| next().to_le_bytes()).collect()
}

#[test]
#[ignore = "needs SeaweedFS: TASKMASTER_S3_SERVER names its program"]
fn a_master_that_is_killed_and_loses_its_folder_has_everything() {
    let server = Server::start();
    let mut master = up(&server, &[]);
    let large = noise(20 << 20);
    fs::write(master.folder.join("large"), &large).unwrap();
    fs::create_dir_all(master.folder.join("given/deep")).unwrap();
    fs::write(master.folder.join("given/deep/one"), "1").unwrap();
    let inputs = json!({"inputs": {"large": "large", "in": "given"}});
    let feed = [
        task("moved", "m large moved;w made 5;r in/deep/one;", inputs),
        task("plain", "w a 1;", json!({})),
    ]
    .concat();
    master.folder.write("feed.jsonl", &feed);
    master.run(&["feed", "feed.jsonl", "--follow"]).with(0);
    let long = "0123456789abcdef".repeat(40_000);
    let params = json!(long).to_string();
    master.folder.write(
        "echo.jsonl",
        format!(
            "{}\n",
            json!({"id": "long", "module": "echo", "params": long})
        ),
    );
    master.run(&["feed", "echo.jsonl", "--follow"]).with(0);
    let module = master.module("files")["version"]
        .as_str()
        .unwrap()
        .to_owned();
    // What is acknowledged lies in the bucket: the module, inputs, outputs, params and result.
    for hash in [
        &module,
        &sha256(&large),
        &sha256(b"1"),
        &sha256(b"5"),
        &sha256(params.as_bytes()),
    ] {
        assert_eq!(sha256(&server.object(&object(hash)).unwrap()), *hash);
    }
    assert!(
        here(&master)
            .iter()
            .all(|hash| server.object(&object(hash)).is_some())
    );
    master.process.kill();
    forget(&master, &["data/blobs", "data/runner"]);
    master.start_again();
    master
        .run(&["tasks", "files", "moved", "--fetch", "out"])
        .with(0);
    assert!(fs::read(master.folder.join("out/moved/moved")).unwrap() == large);
    assert_eq!(
        fs::read(master.folder.join("out/moved/made")).unwrap(),
        b"5"
    );
    assert_eq!(
        master.run(&["tasks", "result", "long"]).with(0).out.trim(),
        params
    );
    let again = [
        "call",
        "files",
        "--params",
        "\"r in/deep/one;\"",
        "--input",
        "in=given",
    ];
    assert_eq!(master.run(&again).with(0).out.trim(), "1");
    assert!(here(&master).contains(&module), "the runner has it again");
    // The keeper's commands look into the bucket, too.
    assert_eq!(master.process.terminate(), Some(0));
    assert_eq!(
        store(
            &server,
            &master.folder,
            &["check", "--data", "data", "-o", "json"]
        )
        .with(0)
        .json()["ok"],
        true
    );
    store(
        &server,
        &master.folder,
        &["export", "all.jsonl", "--data", "data"],
    )
    .with(0);
    run(
        &master.folder,
        &["store", "import", "all.jsonl", "--data", "fresh"],
        &[],
        "",
    )
    .with(0);
    assert_eq!(
        run(
            &master.folder,
            &["store", "check", "--data", "fresh"],
            &[],
            ""
        )
        .code,
        0
    );
    store(
        &server,
        &master.folder,
        &["backup", "copy", "--data", "data"],
    )
    .with(0);
    server.lose(&object(&sha256(b"5")));
    let checked = store(&server, &master.folder, &["check", "--data", "data"]).with(1);
    assert!(
        checked
            .err
            .contains(&format!("blob {} is not in {PLACE}", sha256(b"5"))),
        "{}",
        checked.err
    );
    // A copy needs no object store.
    drop(server);
    assert_eq!(
        run(
            &master.folder,
            &["store", "check", "--data", "copy"],
            &[],
            ""
        )
        .code,
        0
    );
    let of_copy = [
        "master",
        "--listen",
        "127.0.0.1:0",
        "--data",
        "copy",
        "--tasks",
        "tasks",
    ];
    let copy = Process::start(&master.folder, &of_copy, &[]);
    let url = Master::ready(&copy);
    run(
        &master.folder,
        &["tasks", "files", "moved", "--fetch", "copied"],
        &[("TASKMASTER_URL", &url)],
        "",
    )
    .with(0);
    assert_eq!(
        fs::read(master.folder.join("copied/moved/made")).unwrap(),
        b"5"
    );
}

#[test]
#[ignore = "needs SeaweedFS: TASKMASTER_S3_SERVER names its program"]
fn an_object_store_that_is_away_is_waited_for() {
    let mut server = Server::start();
    let mut master = up(&server, &[]);
    let tasks = 60;
    let feed: String = (0..tasks)
        .map(|n| {
            fs::write(master.folder.join(&format!("in{n}")), format!("{n}")).unwrap();
            // The steps are read from params; what is written differs for each, so every result has
            // a blob of its own.
            task(
                &format!("t{n}"),
                &format!("r f;w out made-{n};"),
                json!({"inputs": {"f": format!("in{n}")}}),
            )
        })
        .collect();
    master.folder.write("feed.jsonl", &feed);
    master.run(&["call", "echo", "--params", "1"]).with(0);
    let mut feeding = master.spawn(&["feed", "feed.jsonl", "--follow", "--fetch", "out"]);
    until("some are done", || json_lines(&whole(&feeding)).len() > 5);
    server.kill();
    let (first, all) = status(
        &master,
        "PUT",
        &format!("/blobs/{}", sha256(b"late")),
        b"late",
    );
    assert!(
        first.contains("503") && all.contains(PLACE) && all.contains("cannot be used now"),
        "{all}"
    );
    // Tasks are taken all the same, also by a master that was killed meanwhile. (They are run when
    // the slots, which wait for the files of others, are free.)
    master
        .run(&["add", "echo", "--id", "before", "--params", "2"])
        .with(0);
    master.process.kill();
    master.start_again();
    master
        .run(&["add", "echo", "--id", "after", "--params", "3"])
        .with(0);
    let unknown = format!("/blobs/{}", sha256(b"unknown"));
    assert!(status(&master, "GET", &unknown, b"").0.contains("503"));
    assert!(!feeding.has_ended(), "{}", feeding.said());
    server.start_again();
    assert_eq!(feeding.exit_code(), Some(0), "{}", feeding.said());
    let ended = json_lines(&feeding.printed());
    assert!(
        ended.len() == tasks && ended.iter().all(|task| task["state"] == "done"),
        "{ended:?}"
    );
    assert_eq!(
        (
            &master.wait_state("before", "done")["result"],
            &master.wait_state("after", "done")["result"]
        ),
        (&json!(2), &json!(3))
    );
    for n in 0..tasks {
        let made = format!("made-{n}");
        assert_eq!(
            fs::read_to_string(master.folder.join(&format!("out/t{n}/out"))).unwrap(),
            made
        );
        assert!(
            server.object(&object(&sha256(made.as_bytes()))).is_some(),
            "{made}"
        );
    }
    wait_for("the put that was refused", || {
        let (first, _) = status(
            &master,
            "PUT",
            &format!("/blobs/{}", sha256(b"late")),
            b"late",
        );
        first.contains("201").then_some(())
    });
    assert!(status(&master, "GET", &unknown, b"").0.contains("404"));
}

/// What a process has printed, without a line that is being written.
fn whole(process: &Process) -> String {
    let text = process.printed();
    text[..text.rfind('\n').map_or(0, |end| end + 1)].to_owned()
}

/// Starts a master that must not start; what it says.
fn refused(folder: &Folder, url: &str, settings: &[(&str, String)]) -> (Option<i32>, String) {
    let settings: Vec<(&str, &str)> = settings
        .iter()
        .map(|(name, value)| (*name, value.as_str()))
        .collect();
    let args = [
        "master",
        "--listen",
        "127.0.0.1:0",
        "--data",
        "data",
        "--tasks",
        "tasks",
        "--blobs",
        url,
    ];
    let mut master = Process::start(folder, &args, &settings);
    (master.exit_code(), master.said())
}

#[test]
#[ignore = "needs SeaweedFS: TASKMASTER_S3_SERVER names its program"]
fn what_is_wrong_is_told_at_the_start_and_secrets_are_not() {
    let folder = Folder::new();
    let nobody = [
        ("AWS_ENDPOINT_URL", "http://127.0.0.1:1".to_owned()),
        ("AWS_ALLOW_HTTP", "true".into()),
        ("AWS_ACCESS_KEY_ID", "k".into()),
        ("AWS_SECRET_ACCESS_KEY", SECRET.into()),
    ];
    for (url, words) in [
        ("gs://bucket", "s3://bucket/prefix"),
        ("s3://key:hidden@b", "AWS_SECRET_ACCESS_KEY"),
        ("s3://", "no bucket"),
    ] {
        let (code, said) = refused(&folder, url, &nobody);
        assert!(
            code == Some(2)
                && said.contains("--blobs: ")
                && said.contains(words)
                && !said.contains("hidden"),
            "{said}"
        );
    }
    let (code, said) = refused(&folder, "s3://bucket", &nobody);
    assert!(
        code == Some(1) && said.contains("does not answer") && said.contains("AWS_ENDPOINT_URL"),
        "{said}"
    );
    let (code, said) = refused(
        &folder,
        "s3://bucket",
        &[&nobody[..1], &nobody[2..]].concat(),
    );
    assert!(
        code == Some(1) && said.contains("AWS_ALLOW_HTTP=true"),
        "{said}"
    );
    let server = Server::start();
    for (url, settings, words) in [
        (
            "s3://no-such-bucket/x",
            server.settings(),
            "there is no bucket for s3://no-such-bucket/x",
        ),
        (
            "s3://farm/x",
            server.settings_of("tester", "wrong"),
            "SignatureDoesNotMatch",
        ),
        (
            "s3://farm/x",
            server.settings_of("nobody", SECRET),
            "may not be used",
        ),
        (
            "s3://farm/x",
            server.settings_of(READER, READERS_SECRET),
            "read, write, list and remove",
        ),
    ] {
        let (code, said) = refused(&folder, url, &settings);
        assert!(
            code == Some(1) && said.contains("--blobs: ") && said.contains(words),
            "{url}: {said}"
        );
        assert!(
            ![SECRET, READERS_SECRET]
                .iter()
                .any(|secret| said.contains(secret)),
            "{said}"
        );
    }
    // Two data folders do not share a place, and one does not change its own by mistake.
    let mut master = up(&server, &[]);
    let (_, said) = refused(&folder, PLACE, &server.settings());
    assert!(said.contains("another data folder"), "{said}");
    assert_eq!(master.process.terminate(), Some(0));
    let started = run(
        &master.folder,
        &["master", "--listen", "127.0.0.1:0", "--data", "data"],
        &[],
        "",
    )
    .with(1);
    assert!(
        started.err.contains(&format!("start with --blobs {PLACE}")),
        "{}",
        started.err
    );
}

#[test]
#[ignore = "needs SeaweedFS: TASKMASTER_S3_SERVER names its program"]
fn what_nothing_names_is_removed_from_the_bucket_and_the_folder_holds_no_more_than_it_may() {
    let server = Server::start();
    let mut master = up(
        &server,
        &["--keep", "1s", "--blob-grace", "1s", "--blob-cache-mb", "1"],
    );
    for (name, text) in [("gone", "gone"), ("kept", "kept")] {
        master.folder.write(name, text);
    }
    let large = noise(600 << 10);
    fs::write(master.folder.join("large"), &large).unwrap();
    master
        .run(&[
            "add", "files", "--id", "waits", "--delay", "1h", "--input", "k=kept", "--input",
            "l=large",
        ])
        .with(0);
    master
        .run(&[
            "call",
            "files",
            "--params",
            "\"r g;w out made;\"",
            "--input",
            "g=gone",
            "--job",
            "over",
        ])
        .with(0);
    let there = |text: &[u8]| server.object(&object(&sha256(text))).is_some();
    assert!(
        there(b"made") || there(b"gone"),
        "put before it is acknowledged"
    );
    let removed = |server: &Server| {
        let there = |text: &[u8]| server.object(&object(&sha256(text))).is_some();
        !there(b"gone") && !there(b"made")
    };
    until("what nothing names is gone", || removed(&server));
    // 600 KiB more is more than the folder may hold; what it lets go of is still to be had.
    let other = [noise(8), noise(600 << 10)].concat();
    fs::write(master.folder.join("other"), &other).unwrap();
    master
        .run(&[
            "add",
            "files",
            "--id",
            "waits-too",
            "--delay",
            "1h",
            "--input",
            "o=other",
        ])
        .with(0);
    until("the folder lets go of the larger file", || {
        !here(&master).contains(&sha256(&large))
    });
    assert!(there(b"kept") && there(&large) && there(&other));
    master.process.kill();
    forget(&master, &["data/blobs"]);
    master.start_again();
    master.folder.write("gone", "gone again");
    master
        .run(&[
            "call", "files", "--params", "\"r g;\"", "--input", "g=gone", "--job", "over",
        ])
        .with(0);
    until("it is collected after a start, too", || {
        !there(b"gone again")
    });
    master
        .run(&["tasks", "set", "waits", "--delay", "0s"])
        .with(0);
    master.wait_state("waits", "done");
    assert!(there(&other), "a task that waits needs it");
}

#[test]
#[ignore = "needs SeaweedFS: TASKMASTER_S3_SERVER names its program"]
fn the_way_there_may_be_encrypted() {
    let server = Server::with_tls();
    let master = up(&server, &[]);
    assert_eq!(
        master
            .run(&["call", "files", "--params", "\"w a 1;\""])
            .with(0)
            .code,
        0
    );
    assert!(server.object(&object(&sha256(b"1"))).is_some());
    let folder = Folder::new();
    let strangers: Vec<_> = server
        .settings()
        .into_iter()
        .filter(|(name, _)| *name != "AWS_CA_BUNDLE")
        .collect();
    let (code, said) = refused(&folder, "s3://farm/other", &strangers);
    assert!(code == Some(1) && said.contains("ertificate"), "{said}");
}

/// A gigabyte, without its being in memory; not in CI, for its disk's sake.
#[test]
#[ignore = "needs SeaweedFS (TASKMASTER_S3_SERVER) and 4 GiB of disk"]
fn a_gigabyte_is_never_in_memory() {
    let server = Server::start();
    let mut master = up(&server, &[]);
    let path = master.folder.join("large");
    fs::File::create(&path).unwrap().set_len(1 << 30).unwrap();
    let call = [
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
    ];
    master.run(&call).with(0);
    master.process.kill();
    forget(&master, &["data/blobs", "data/runner", "out"]);
    master.start_again();
    master
        .run(&["tasks", "files", "l", "--fetch", "out"])
        .with(0);
    let same = std::process::Command::new("cmp")
        .arg(&path)
        .arg(master.folder.join("out/l/moved"))
        .status()
        .unwrap();
    assert!(same.success());
    let status = fs::read_to_string(
        Path::new("/proc")
            .join(master.process.id().to_string())
            .join("status"),
    )
    .unwrap();
    let most = status
        .lines()
        .find_map(|line| line.strip_prefix("VmHWM:"))
        .unwrap()
        .trim()
        .to_owned();
    eprintln!("a gigabyte from {BUCKET} took {most} at the most");
    let kib: u64 = most.trim_end_matches(" kB").parse().unwrap();
    assert!(kib < 400 << 10, "{most}");
}
