//! The line between a master and its runners: half open, silent, one-sided, of another version.

use serde_json::json;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use taskmaster_harness::socket::{Heard, Socket};
use taskmaster_harness::wat::{SLEEP, echo};
use taskmaster_harness::{Master, Process, until, wait_for};

/// A line that swallows one direction while it is told to; both ends stay open, as behind a router
/// that has forgotten. Connections that are made later are whole.
struct Proxy {
    url: String,
    /// What comes from the runner is lost; what goes to it is lost.
    up: Arc<AtomicBool>,
    down: Arc<AtomicBool>,
}

impl Proxy {
    fn to(url: &str) -> Proxy {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let target = url.trim_start_matches("ws://").to_owned();
        let proxy = Proxy {
            url: format!("ws://{}", listener.local_addr().unwrap()),
            up: Arc::default(),
            down: Arc::default(),
        };
        let (up, down) = (proxy.up.clone(), proxy.down.clone());
        std::thread::spawn(move || {
            for near in listener.incoming().flatten() {
                let Ok(far) = TcpStream::connect(&target) else {
                    continue;
                };
                // The line that is there when the fault begins has it until it ends.
                let faulty = Arc::new(AtomicBool::new(
                    !up.load(Ordering::SeqCst) && !down.load(Ordering::SeqCst),
                ));
                for (from, to, lost) in [(&near, &far, &up), (&far, &near, &down)] {
                    let (from, to) = (from.try_clone().unwrap(), to.try_clone().unwrap());
                    let (lost, faulty) = (lost.clone(), faulty.clone());
                    std::thread::spawn(move || copy(from, to, &lost, &faulty));
                }
            }
        });
        proxy
    }
}

fn copy(mut from: TcpStream, mut to: TcpStream, lost: &AtomicBool, faulty: &AtomicBool) {
    let mut bytes = vec![0; 64 << 10];
    while let Ok(n @ 1..) = from.read(&mut bytes) {
        if !(lost.load(Ordering::SeqCst) && faulty.load(Ordering::SeqCst))
            && to.write_all(&bytes[..n]).is_err()
        {
            break;
        }
    }
    let _ = (to.shutdown(Shutdown::Both), from.shutdown(Shutdown::Both));
}

/// When the runner joined, as it is listed; `None`: it is not there.
fn joined(master: &Master) -> Option<String> {
    let list = master.json(&["runners", "list"]);
    let runner = list
        .as_array()
        .unwrap()
        .iter()
        .find(|runner| runner["runner"] == "r")?;
    Some(runner["joined"].as_str().unwrap().to_owned())
}

#[test]
fn a_half_open_line_is_noticed_from_either_side() {
    for down in [true, false] {
        let master = Master::with("master", &[]);
        master.drop_module("sleep.wat", SLEEP);
        let proxy = Proxy::to(&master.url);
        let runner = Process::start(
            &master.folder,
            &[
                "runner",
                "--name",
                "r",
                "--cache",
                "runner-cache",
                "--slots",
                "1",
            ],
            &[("TASKMASTER_URL", &proxy.url)],
        );
        let before = wait_for("the runner", || joined(&master));
        master
            .run(&["add", "sleep", "--params", "16000", "--id", "s"])
            .with(0);
        master.wait_state("s", "assigned");
        let fault = if down { &proxy.down } else { &proxy.up };
        fault.store(true, Ordering::SeqCst);
        let began = Instant::now();
        until("another connection", || {
            joined(&master).is_some_and(|now| now != before)
        });
        let took = began.elapsed();
        // 9.5 s, and the time of a dial; the machine may be busy.
        assert!(
            (Duration::from_secs(5)..Duration::from_secs(25)).contains(&took),
            "{took:?} {}",
            runner.said()
        );
        let task = master.wait_state("s", "done");
        assert_eq!(task["attempt"], 1, "it worked on, and was adopted: {task}");
    }
}

#[test]
fn a_runner_that_lives_and_answers_nothing_is_noticed_and_passed_by() {
    let master = Master::with("master", &[]);
    master.drop_module("echo.wat", echo());
    let events = master.spawn(&["watch", "--filter", "event=runner:stuck"]);
    // It reads, pings, and does nothing else.
    let mut deaf = Socket::runner(&master.url, "deaf");
    deaf.wait("module:announce");
    until("the watcher", || {
        !master
            .json(&["runners", "list"])
            .as_array()
            .unwrap()
            .is_empty()
    });
    master
        .run(&[
            "add",
            "echo",
            "--params",
            "1",
            "--id",
            "t",
            "--retries",
            "0",
        ])
        .with(0);
    deaf.wait("task:send");
    assert!(master.why("t").contains("`deaf`"), "{}", master.why("t"));
    let _runner = master.runner("r", &["--slots", "1"]);
    let pings = std::thread::spawn(move || {
        while deaf.frame(9, b"").is_ok() {
            std::thread::sleep(Duration::from_secs(1));
        }
    });
    let task = master.wait_state("t", "done");
    assert_eq!(
        (&task["runner"], &task["attempt"]),
        (&json!("r"), &json!(2)),
        "{task}"
    );
    until("the event", || events.printed().contains("runner:stuck"));
    assert!(
        events.printed().contains("deaf") && events.printed().contains("task:recall"),
        "{}",
        events.printed()
    );
    pings.join().unwrap();
}

#[test]
fn a_poison_task_fails_with_its_story() {
    let master = Master::with("master", &[]);
    master.drop_module("echo.wat", echo());
    master.run(&["add", "echo", "--id", "p"]).with(0);
    for n in 1..=5 {
        let mut runner = Socket::runner(&master.url, &format!("victim-{n}"));
        let send = runner.wait("task:send");
        assert_eq!(
            (&send[0]["id"], &send[0]["attempt"][1]),
            (&json!("p"), &json!(n))
        );
    }
    let task = master.wait_state("p", "failed");
    assert_eq!(task["error"]["kind"], "runner_lost");
    let story = task["error"]["message"].as_str().unwrap();
    assert!(
        story.contains("5 times") && story.contains("its connection ended"),
        "{story}"
    );
    for n in 1..=5 {
        assert!(
            story.contains(&format!("attempt {n} on `victim-{n}`, sent at 20")),
            "{story}"
        );
    }
}

#[test]
fn a_version_is_agreed_on_or_refused_with_what_to_do() {
    let master = Master::with("master", &[]);
    let hello = |version: u32| {
        let mut socket = Socket::connect(&master.url);
        socket.text(
            &json!({"event": "hello", "data": {"role": "client", "protocol": version}}).to_string(),
        );
        match socket.hear() {
            Heard::Text(text) if text["event"] == "welcome" => {
                Ok(text["data"]["protocol"].as_u64().unwrap())
            }
            Heard::Text(text) => Err(text["data"]["error"].clone()),
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(hello(1), Ok(1));
    for (version, upgrade) in [(0, "upgrade your side"), (2, "upgrade the master")] {
        let error = hello(version).unwrap_err();
        let text = error["message"].as_str().unwrap();
        assert_eq!(error["code"], "protocol_version");
        assert!(
            text.contains(&format!("version {version}")) && text.contains("speaks 1"),
            "{text}"
        );
        assert!(text.contains(upgrade), "{text}");
    }
}

#[test]
fn a_name_belongs_to_one_process_at_a_time() {
    let master = Master::with("master", &[]);
    let mut first = master.runner("same", &[]);
    let second = Process::start(
        &master.folder,
        &["runner", "--name", "same", "--cache", "other"],
        &[("TASKMASTER_URL", &master.url)],
    );
    until("it to be told", || {
        second.said().contains("`same` is connected already")
    });
    assert!(
        second.said().contains("another --name"),
        "{}",
        second.said()
    );
    let of_first = master.json(&["runners", "show", "same"])["joined"].clone();
    assert_eq!(first.terminate(), Some(0));
    until("the second one has the name", || {
        let ran = master.run(&["runners", "show", "same", "-o", "json"]);
        ran.code == 0 && ran.json()["joined"] != of_first
    });
}
