//! A store whose bytes have changed: never worked on as if it were whole, and the way from the
//! refusal to a running master that docs/operating.md describes. Also a data folder that is removed
//! while its master runs.

use serde_json::Value;
use std::collections::BTreeMap;
use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Command, Stdio};
use taskmaster_harness::wat::echo;
use taskmaster_harness::{Folder, Master, Process, Ran, binary, run, until};

/// Tasks that have ended, and tasks that wait for a runner that never comes.
const ENDED: usize = 300;
const OPEN: usize = 30;

/// Places of the store's file in which a bit is flipped.
const FLIPS: usize = 14;

/// A stopped master's folder. Its store was folded, opened again and written to, so that its file
/// has old and new pages.
fn with_a_past() -> Master {
    let mut master = Master::up(2);
    master.drop_module("echo.wat", echo());
    let half = ENDED / 2;
    for round in 0..2 {
        let ended: String = (round * half..(round + 1) * half)
            .map(|n| format!("{{\"id\":\"t{n}\",\"module\":\"echo\",\"params\":[{n},\"ü\"]}}\n"))
            .collect();
        master
            .run_with(&["feed", "-", "--job", "past", "--wait"], &ended)
            .with(0);
        let open: String = (0..OPEN / 2)
            .map(|n| {
                let id = format!("o{round}-{n}");
                format!("{{\"id\":\"{id}\",\"module\":\"echo\",\"requires\":{{\"labels\":{{\"no\":\"where\"}}}}}}\n")
            })
            .collect();
        master
            .run_with(&["feed", "-", "--job", "open"], &open)
            .with(0);
        assert_eq!(master.process.terminate(), Some(0));
        master.start_again();
    }
    assert_eq!(master.process.terminate(), Some(0));
    master
}

fn store(folder: &Folder, args: &[&str]) -> Ran {
    let mut all = vec!["store"];
    all.extend(args);
    run(folder, &all, &[], "")
}

fn copy(from: &Path, to: &Path) {
    let _ = fs::remove_dir_all(to);
    let copied = Command::new("cp").arg("-r").arg(from).arg(to).status();
    assert!(copied.unwrap().success());
}

/// A master on a data folder, or what it says as it ends.
fn start_on(master: &Master, data: &str) -> Result<(Process, String), String> {
    let args = [
        "master",
        "--listen",
        "127.0.0.1:0",
        "--tasks",
        "tasks",
        "--data",
        data,
    ];
    let mut process = Process::start(&master.folder, &args, &[]);
    until("a master that is ready or has ended", || {
        process.said().contains("listening on ws://") || process.has_ended()
    });
    if process.has_ended() {
        assert_eq!(process.exit_code(), Some(1), "{}", process.said());
        return Err(process.said());
    }
    let url = Master::ready(&process);
    Ok((process, url))
}

/// The states of all tasks, by id.
fn states(master: &Master, url: &str) -> BTreeMap<String, String> {
    let settings = [("TASKMASTER_URL", url)];
    let listed = run(
        &master.folder,
        &["tasks", "list", "--limit", "10000", "-o", "jsonl"],
        &settings,
        "",
    );
    listed
        .with(0)
        .lines()
        .iter()
        .map(|task| {
            let text = |field: &str| task[field].as_str().unwrap_or_default().to_owned();
            (text("id"), text("state"))
        })
        .collect()
}

#[test]
fn a_damaged_store_is_refused_and_what_is_sound_goes_into_a_new_one() {
    let master = with_a_past();
    let whole = master.folder.join("whole");
    copy(&master.folder.join("data"), &whole);
    let (process, url) = start_on(&master, "data").unwrap();
    let wanted = states(&master, &url);
    assert_eq!(wanted.len(), ENDED + OPEN);
    drop(process);

    let bytes = fs::read(whole.join("store/db")).unwrap();
    let used = bytes.iter().rposition(|byte| *byte != 0).unwrap();
    let (mut harmless, mut refused) = (0, 0);
    for flip in 0..FLIPS {
        let at = 100 + flip * (used - 200) / FLIPS;
        copy(&whole, &master.folder.join("data"));
        let mut spoilt = bytes.clone();
        spoilt[at] ^= 16;
        fs::write(master.folder.join("data/store/db"), spoilt).unwrap();
        match start_on(&master, "data") {
            // What is damaged is not needed: an older copy of a page, or nothing.
            Ok((_process, url)) => {
                assert_eq!(states(&master, &url), wanted, "a flipped bit at {at}");
                harmless += 1;
            }
            Err(said) => {
                for word in ["data/store", "store export", "Restore a copy"] {
                    assert!(said.contains(word), "`{word}` is not in: {said}");
                }
                refused += 1;
                new_store_of_what_is_sound(&master, &wanted, at);
            }
        }
    }
    println!("{refused} damaged stores were refused, {harmless} had everything");
    assert!(refused > 0, "no damage was felt");
}

/// The recipe of docs/operating.md.
fn new_store_of_what_is_sound(master: &Master, wanted: &BTreeMap<String, String>, at: usize) {
    let folder = &master.folder;
    store(folder, &["check", "--data", "data"]).with(1);
    let export = store(folder, &["export", "sound.jsonl", "--data", "data"]).with(1);
    export.says(&["lost: ", "all else is exported"]);
    let _ = fs::remove_dir_all(folder.join("new"));
    store(folder, &["import", "sound.jsonl", "--data", "new"]).with(0);
    store(folder, &["check", "--data", "new"]).with(0);
    let (_process, url) = start_on(master, "new").unwrap();
    let left = states(master, &url);
    assert!(
        left.len() * 10 >= wanted.len() * 8,
        "a flipped bit at {at}: {} of {} tasks are left",
        left.len(),
        wanted.len()
    );
    for (id, state) in left {
        assert_eq!(wanted[&id], state, "task {id} after a flipped bit at {at}");
    }
}

#[test]
fn a_data_folder_that_is_removed_ends_its_master_with_a_sentence() {
    let mut master = Master::up(1);
    master.drop_module("echo.wat", echo());
    master.run(&["call", "echo"]).with(0);
    fs::rename(master.folder.join("data"), master.folder.join("moved")).unwrap();
    assert_eq!(
        master.process.exit_code(),
        Some(1),
        "{}",
        master.process.said()
    );
    let said = master.process.said();
    assert!(said.contains("was removed or exchanged"), "{said}");
    // What was there is whole where it is now.
    store(&master.folder, &["check", "--data", "moved"]).with(0);
}

/// An HTTP exchange as text; what has come where the connection is cut.
fn exchange(url: &str, request: &str, body_mib: usize) -> String {
    let address = url.trim_start_matches("ws://");
    let mut stream = TcpStream::connect(address).unwrap();
    let head = format!("{request} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n");
    let bytes = body_mib << 20;
    let _ = write!(stream, "{head}Content-Length: {bytes}\r\n\r\n");
    for _ in 0..body_mib {
        if stream.write_all(&vec![7; 1 << 20]).is_err() {
            break;
        }
    }
    let mut text = String::new();
    let _ = stream.read_to_string(&mut text);
    text
}

#[test]
fn a_limit_of_file_sizes_is_a_full_disk_and_ends_nobody() {
    let folder = Folder::new();
    fs::create_dir(folder.join("tasks")).unwrap();
    fs::write(folder.join("tasks/echo.wat"), echo()).unwrap();
    let log = fs::File::create(folder.join("log")).unwrap();
    // 32 MiB, in the blocks of 512 bytes that a shell counts.
    let limited = "ulimit -f 65536; exec \"$0\" \"$@\"";
    let mut master = Command::new("sh")
        .args(["-c", limited])
        .arg(binary())
        .args([
            "master",
            "--listen",
            "127.0.0.1:0",
            "--tasks",
            "tasks",
            "--data",
            "data",
        ])
        .current_dir(folder.join("."))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(log)
        .spawn()
        .unwrap();
    let said = || fs::read_to_string(folder.join("log")).unwrap();
    until("a master that listens", || {
        said().contains("listening on ws://")
    });
    let url = said()
        .lines()
        .find_map(|line| line.strip_prefix("listening on ").map(str::to_owned))
        .unwrap();
    let hash = "0".repeat(64);
    exchange(&url, &format!("PUT /blobs/{hash}"), 40);
    assert!(
        exchange(&url, "GET /health", 0).contains("200 OK"),
        "{}",
        said()
    );

    let many: String = (0..2_000)
        .map(|n| {
            let pad = "x".repeat(20_000);
            format!("{{\"id\":\"t{n}\",\"module\":\"echo\",\"params\":\"{n}{pad}\"}}\n")
        })
        .collect();
    let file = folder.write("many.jsonl", many);
    let settings = [("TASKMASTER_URL", url.as_str())];
    let feed = Process::start(&folder, &["feed", &file, "--job", "many"], &settings);
    until("a refusal that names the limit", || {
        exchange(&url, "GET /health", 0).contains("ulimit -f")
    });
    assert!(master.try_wait().unwrap().is_none(), "{}", said());
    drop(feed);
    let job = run(
        &folder,
        &["jobs", "show", "many", "-o", "json"],
        &settings,
        "",
    )
    .with(0);
    let acknowledged = job.json()["total"].as_u64().unwrap();
    assert!((100..2_000).contains(&acknowledged), "{acknowledged}");
    master.kill().unwrap();
    master.wait().unwrap();
    let check = store(&folder, &["check", "--data", "data", "-o", "json"]).with(0);
    let check: Value = check.json();
    assert!(check["commits"].as_u64().unwrap() > 0, "{check}");
}
