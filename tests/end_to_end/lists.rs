//! Lists that are longer than one message may be: they come in pages, and whole.

use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::time::Duration;
use taskmaster_harness::Master;
use taskmaster_harness::socket::Socket;
use taskmaster_harness::wat::echo;

/// Rows that a page has at the most.
const PAGE_ROWS: usize = 1_000;

/// Asks for all pages of a list. No page is longer than `bytes_max`.
fn pages(client: &mut Socket, what: &str, bytes_max: usize) -> Vec<Vec<Value>> {
    let mut pages = Vec::new();
    let mut after = Value::Null;
    loop {
        let question = json!({"ref": 1, "what": what, "after": after});
        client.text(&json!({"event": "query", "data": question}).to_string());
        let answer = client.wait("answer")["data"].take();
        assert!(answer.to_string().len() < bytes_max);
        pages.push(answer["rows"].as_array().unwrap().clone());
        after = answer["next"].clone();
        if after.is_null() {
            return pages;
        }
    }
}

#[test]
fn many_runners_with_many_labels_are_listed_in_pages() {
    const RUNNERS: usize = 150;
    let master = Master::with("master", &[]);
    let label = "x".repeat(900);
    let labels: serde_json::Map<String, Value> = (0..64)
        .map(|no| (format!("label-{no}"), json!(label)))
        .collect();
    // Together they have 8.8 MB, more than a page.
    let connect = |no: usize| {
        let mut socket = Socket::connect(&master.url);
        socket.patience(Duration::from_secs(60));
        let name = format!("runner-{no:03}");
        let offer = json!({"name": name, "slots": 1, "labels": labels});
        let hello = json!({"role": "runner", "protocol": 1, "session": name, "runner": offer});
        socket.text(&json!({"event": "hello", "data": hello}).to_string());
        socket.wait("welcome");
        let request = json!({"credits": 1, "held": []});
        socket.text(&json!({"event": "task:request", "data": request}).to_string());
        socket
    };
    let _runners: Vec<Socket> = (0..RUNNERS).map(connect).collect();
    let names: BTreeSet<String> = (0..RUNNERS).map(|no| format!("runner-{no:03}")).collect();
    let listed = || -> BTreeSet<String> {
        let rows = master.json(&["runners", "list"]);
        let rows = rows.as_array().unwrap().iter();
        rows.map(|row| row["runner"].as_str().unwrap().to_owned())
            .collect()
    };
    taskmaster_harness::until("every runner to be listed", || listed() == names);
    let mut client = Socket::client(&master.url);
    let pages = pages(&mut client, "runners", 9 << 20);
    assert_eq!(pages.len(), 2);
    let rows: Vec<String> = pages
        .iter()
        .flatten()
        .map(|row| row["runner"].as_str().unwrap().to_owned())
        .collect();
    assert!(rows.iter().eq(&names), "{rows:?}");
}

#[test]
fn more_jobs_than_a_page_are_all_listed_while_they_are_open_and_when_they_are_done() {
    const JOBS: usize = 2 * PAGE_ROWS + 100;
    let mut master = Master::with("master", &[]);
    master.drop_module("echo.wat", echo());
    let job = |no: usize| format!("job-{no:04}");
    let line = |no: usize| format!("{{\"module\":\"echo\",\"job\":\"{}\"}}\n", job(no));
    let lines: String = (0..JOBS).map(line).collect();
    master.run_with(&["feed", "--job", "fed"], &lines).with(0);
    let listed = |master: &Master| -> Vec<(String, bool)> {
        let rows = master.json(&["jobs", "list"]);
        let row = |row: &Value| {
            let name = row["job"].as_str().unwrap().to_owned();
            (name, row["open"].as_bool().unwrap())
        };
        rows.as_array().unwrap().iter().map(row).collect()
    };
    let names = |open: bool| (0..JOBS).map(move |no| (job(no), open));
    let jobs = listed(&master);
    assert!(names(true).all(|job| jobs.contains(&job)), "{jobs:?}");
    // The cancelled job is behind all that are open.
    master.run(&["jobs", "cancel", &job(7)]).with(0);
    taskmaster_harness::until("the job to be done", || {
        listed(&master).last() == Some(&(job(7), false))
    });
    // Afterwards the view has them.
    let _runner = master.runner("mill", &["--slots", "2"]);
    taskmaster_harness::until("every job to be done", || {
        listed(&master).iter().all(|(_, open)| !open)
    });
    master.process.kill();
    master.start_again();
    let mut client = Socket::client(&master.url);
    let pages = pages(&mut client, "jobs", 1 << 20);
    assert!(pages.iter().all(|page| page.len() <= PAGE_ROWS));
    let rows = pages.into_iter().flatten();
    let rows: Vec<String> = rows
        .map(|row| row["job"].as_str().unwrap().to_owned())
        .filter(|name| name.starts_with("job-"))
        .collect();
    assert!(rows.into_iter().eq((0..JOBS).map(job)));
}
