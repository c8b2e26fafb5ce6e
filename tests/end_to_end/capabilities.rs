//! What modules may reach beyond their folder: asked for by a manifest, approved by name, offered
//! by a runner.

use serde_json::json;
use std::fs;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use taskmaster_harness::wat::{constant, echo, peek};
use taskmaster_harness::{Folder, Master, Process, run, until};
use taskmaster_protocol::Hash;

const PEEK: &str = "description = 'Looks around'\n[capabilities]\nenv = ['ZONE']\nsecrets = ['KEY']\nfolders = ['data']\n";

/// Component that gets a page, see `guests/`.
const FETCH: &[u8] = include_bytes!("guests/fetch.wasm");

/// A file with a secret, and a folder with a file, as a runner offers them.
fn treasures(folder: &Folder) {
    folder.write("secrets", "# of the test\nKEY=hunter2\n");
    fs::set_permissions(folder.join("secrets"), fs::Permissions::from_mode(0o600)).unwrap();
    fs::create_dir_all(folder.join("shared")).unwrap();
    folder.write("shared/x", "from the folder");
}

const RICH: [&str; 6] = [
    "--env",
    "ZONE",
    "--secrets",
    "secrets",
    "--folder",
    "data=shared",
];

#[test]
fn a_module_is_given_what_was_approved_by_a_runner_that_offers_it() {
    let mut master = Master::with("master", &[]);
    treasures(&master.folder);
    fs::write(master.tasks().join("peek.toml"), PEEK).unwrap();
    fs::write(master.tasks().join("peek.wat"), peek()).unwrap();
    master.drop_module("echo.wat", echo());
    until("the module to wait", || {
        master.module("peek")["state"] == "waiting"
    });
    let asks =
        "asks for variable ZONE, secret KEY, folder data; `modules approve peek` lets it have that";
    let shown = master.json(&["modules", "show", "peek"]);
    assert!(
        shown["version"].is_null() && shown["waiting"]["why"].as_str().unwrap().ends_with(asks),
        "{shown}"
    );
    assert_eq!(
        shown["waiting"]["asks"],
        json!({"env": ["ZONE"], "secrets": ["KEY"], "folders": ["data"]})
    );
    assert_eq!(shown["description"], "Looks around");
    assert!(
        master
            .run(&["modules", "list", "-o", "table"])
            .with(0)
            .out
            .contains(asks)
    );
    let plain = master.runner("plain", &[]);
    master.run(&["add", "peek", "--id", "a"]).with(0);
    assert!(
        master.why("a").contains("waits for approval") && master.why("a").contains(asks),
        "{}",
        master.why("a")
    );
    master
        .run(&["modules", "approve", "peek"])
        .with(0)
        .says(&["may from now on reach variable ZONE, secret KEY"]);
    until("the approval", || {
        master.module("peek")["state"] != "waiting"
    });
    // Approved, and no runner has it: that is said, and holds up nobody else.
    let lacks = "needs variable ZONE, secret KEY, folder data (a runner offers that with --env NAME --secrets FILE";
    assert!(
        master.why("a").contains("none of 1 connected runner") && master.why("a").contains(lacks),
        "{}",
        master.why("a")
    );
    let listed = master.json(&["tasks", "list"]);
    assert!(
        listed[0]["note"]
            .as_str()
            .unwrap_or_default()
            .contains(lacks),
        "{listed}"
    );
    master.run(&["call", "echo", "--params", "1"]).with(0);
    let args: Vec<&str> = ["runner", "--name", "rich", "--cache", "rich-cache"]
        .into_iter()
        .chain(RICH)
        .collect();
    let rich = Process::start(
        &master.folder,
        &args,
        &[("TASKMASTER_URL", &master.url), ("ZONE", "eu")],
    );
    let done = master.wait_state("a", "done");
    assert_eq!(done["runner"], "rich");
    let result = done["result"].as_str().unwrap();
    for part in [
        "ZONE=eu\0",
        "KEY=hunter2\0",
        "from the folder",
        "/folders/data",
        "write: 63",
    ] {
        assert!(result.contains(part), "{part}: {result:?}");
    }
    // What a task says of its environment does not replace what its module is given.
    let own = master.json(&[
        "add", "peek", "--env", "KEY=mine", "--env", "OWN=1", "--wait",
    ]);
    let result = own["result"].as_str().unwrap();
    assert!(
        result.contains("KEY=hunter2\0") && result.contains("OWN=1\0") && !result.contains("mine"),
        "{result:?}"
    );
    assert_eq!(master.process.terminate(), Some(0));
    master.start_again();
    until("both runners", || {
        master.json(&["runners", "list"]).as_array().unwrap().len() == 2
    });
    master.run(&["call", "peek"]).with(0);
    let watching = master.spawn(&["watch", "--since", "0", "--filter", "event=module"]);
    until("the events", || {
        watching.printed().contains("module:waiting")
    });
    let told = [
        rich.said(),
        plain.said(),
        master.process.said(),
        watching.printed(),
        master
            .run(&["runners", "show", "rich", "-o", "json"])
            .with(0)
            .out,
        master
            .run(&["modules", "show", "peek", "-o", "json"])
            .with(0)
            .out,
        master.run(&["tasks", "logs", "a"]).out,
    ];
    assert!(
        told[4].contains("\"KEY\"") && !told.concat().contains("hunter2"),
        "{told:?}"
    );
}

#[test]
fn a_version_that_asks_for_more_waits_and_the_one_before_stays_in_use() {
    let master = Master::up(1);
    let manifest = |text: &str| {
        let hidden = master.tasks().join(".m.toml");
        fs::write(&hidden, text).unwrap();
        fs::rename(hidden, master.tasks().join("m.toml")).unwrap();
    };
    let call = || master.run(&["call", "m"]).with(0).out.trim().to_owned();
    // A module that is in use is not called waiting because a newer version waits.
    let newer_waits = || {
        until("a newer version to wait", || {
            let module = master.module("m");
            !module["waiting"].is_null() && module["state"] == "ready"
        });
    };
    master.drop_module("m.wat", constant("v1"));
    assert_eq!(call(), "v1");
    manifest("capabilities.http = ['a.org']");
    newer_waits();
    assert_eq!(
        (
            call().as_str(),
            master.module("m")["capabilities"].is_null()
        ),
        ("v1", true)
    );
    fs::write(master.tasks().join("m.wat"), constant("v2")).unwrap();
    let v2 = Hash::of(constant("v2").as_bytes()).to_string();
    until("v2 to wait", || {
        master.module("m")["waiting"]["version"] == v2.as_str()
    });
    assert_eq!(call(), "v1");
    master
        .run(&["add", &format!("m@sha256:{}", &v2[..12])])
        .with(1)
        .says(&["asks for HTTP to a.org"]);
    // Only what was shown is approved.
    let answer = master
        .run(&["modules", "approve", "m", "-o", "json"])
        .with(0)
        .json();
    assert_eq!(
        (&answer["version"], &answer["capabilities"]),
        (&json!(v2), &json!({"http": ["a.org"]}))
    );
    assert_eq!(call(), "v2");
    manifest("capabilities.http = ['a.org', 'b.org']");
    newer_waits();
    let shown = master.json(&["modules", "show", "m"]);
    assert_eq!(shown["waiting"]["more"], json!({"http": ["b.org"]}));
    assert_eq!(
        (call().as_str(), &shown["capabilities"]),
        ("v2", &json!({"http": ["a.org"]}))
    );
    // Less needs no approval, and what was approved once needs none again.
    manifest("description = 'nothing'");
    until("nothing", || {
        master.module("m")["capabilities"].is_null() && master.module("m")["waiting"].is_null()
    });
    manifest("capabilities.http = ['a.org']");
    until("what it had", || {
        master.module("m")["capabilities"] == json!({"http": ["a.org"]})
    });
    master
        .run(&["modules", "approve", "m"])
        .with(1)
        .says(&["no version of the module `m` is held back"]);
    let watching = master.spawn(&["watch", "--since", "0", "--filter", "event=module:waiting"]);
    let told = |text: &str| {
        watching
            .printed()
            .lines()
            .nth(2)
            .is_some_and(|line| line.contains(text))
    };
    until("the third version that waited", || {
        told(r#""more":{"http":["b.org"]}"#)
    });
}

#[test]
fn with_require_approved_only_listed_hashes_are_used() {
    let mut master = Master::with("up", &["--slots", "1", "--require-approved"]);
    let list = |names: &[&str]| {
        let line = |text: &&str| format!("{}  m.wat\n", Hash::of(constant(text).as_bytes()));
        fs::write(
            master.tasks().join("approved.sha256"),
            names.iter().map(line).collect::<String>(),
        )
        .unwrap();
    };
    let tasks = master.tasks();
    let drop_version = |text: &str| fs::write(tasks.join("m.wat"), constant(text)).unwrap();
    drop_version("v1");
    until("the module to wait", || {
        master.module("m")["state"] == "waiting"
    });
    master.run(&["add", "m", "--id", "early"]).with(0);
    assert!(
        master
            .why("early")
            .contains("approved.sha256 in the task folder lacks the line"),
        "{}",
        master.why("early")
    );
    master
        .run(&["modules", "approve", "m"])
        .with(1)
        .says(&["approved.sha256"]);
    list(&["v1"]);
    assert_eq!(master.wait_state("early", "done")["result"], "v1");
    drop_version("v2");
    until("v2 to wait", || !master.module("m")["waiting"].is_null());
    assert_eq!(master.run(&["call", "m"]).with(0).out.trim(), "v1");
    let v2 = Hash::of(constant("v2").as_bytes()).to_string();
    master
        .run(&["add", &format!("m@sha256:{}", &v2[..12])])
        .with(1)
        .says(&["is not approved"]);
    list(&["v1", "v2"]);
    until("v2", || {
        master.run(&["call", "m"]).with(0).out.trim() == "v2"
    });
    assert_eq!(master.process.terminate(), Some(0));
    master.start_again();
    assert_eq!(master.run(&["call", "m"]).with(0).out.trim(), "v2");
    fs::write(master.tasks().join("approved.sha256"), "").unwrap();
    until("none", || master.module("m")["version"].is_null());
    master.run(&["add", "m", "--id", "late"]).with(0);
    master.wait_state("late", "ready");
    assert!(
        master.why("late").contains("waits for approval"),
        "{}",
        master.why("late")
    );
}

#[test]
fn run_gives_what_is_typed_and_names_what_is_missing() {
    let folder = Folder::new();
    treasures(&folder);
    folder.write("peek.wat", peek());
    folder.write("peek.toml", PEEK);
    let here = |more: &[&str]| {
        run(
            &folder,
            &[&["run", "peek.wat"], more].concat(),
            &[("ZONE", "eu")],
            "",
        )
    };
    here(&[])
        .with(2)
        .says(&["asks for variable ZONE, secret KEY, folder data; give it with --allow-env ZONE"]);
    here(&["--allow-env", "ZONE"])
        .with(2)
        .says(&["--secrets FILE with a line KEY=VALUE"]);
    let all = [
        "--allow-env",
        "ZONE",
        "--secrets",
        "secrets",
        "--folder",
        "data=shared",
    ];
    let out = here(&all).with(0).out;
    for part in [
        "ZONE=eu\0",
        "KEY=hunter2\0",
        "from the folder",
        "/folders/data",
        "write: 63",
    ] {
        assert!(out.contains(part), "{part}: {out:?}");
    }
    fs::set_permissions(folder.join("secrets"), fs::Permissions::from_mode(0o640)).unwrap();
    here(&all).with(2).says(&["mode 640", "chmod 600"]);
    let check = run(
        &folder,
        &["modules", "check", "peek.wat", "-o", "json"],
        &[],
        "",
    )
    .with(0)
    .json();
    assert_eq!(check["capabilities"]["folders"], json!(["data"]));
    assert_eq!(check["description"], "Looks around");
    let table = run(
        &folder,
        &["modules", "check", "peek.wat", "-o", "table"],
        &[],
        "",
    )
    .with(0)
    .out;
    assert!(
        table.contains("asks for")
            && table.contains("secret KEY")
            && table.contains("Looks around"),
        "{table}"
    );
}

/// A server that greets; `/hang` has no answer. Its port, and how many connections it has had.
fn server() -> (u16, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let (port, count) = (
        listener.local_addr().unwrap().port(),
        Arc::new(AtomicUsize::new(0)),
    );
    let counter = count.clone();
    std::thread::spawn(move || {
        let mut hanging = Vec::new();
        for mut stream in listener.incoming().map_while(Result::ok) {
            counter.fetch_add(1, Ordering::SeqCst);
            let (mut head, mut byte) = (Vec::new(), [0]);
            while !head.ends_with(b"\r\n\r\n") && stream.read(&mut byte).is_ok_and(|n| n == 1) {
                head.push(byte[0]);
            }
            let head = String::from_utf8_lossy(&head).into_owned();
            if head.starts_with("GET /hang ") {
                hanging.push(stream);
                continue;
            }
            let body = format!("hello, {}", head.lines().next().unwrap_or_default());
            let answer = format!(
                "HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}",
                body.len()
            );
            let _ = stream.write_all(answer.as_bytes());
        }
    });
    (port, count)
}

#[test]
fn a_component_speaks_to_approved_hosts_and_to_no_other() {
    let (port, count) = server();
    // A port that was free a moment ago: nobody listens there.
    let dead = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port();
    let master = Master::up(1);
    let manifest = format!("capabilities.http = ['127.0.0.1:{port}', '127.0.0.1:{dead}']");
    fs::write(master.tasks().join("fetch.toml"), &manifest).unwrap();
    fs::write(master.tasks().join("fetch.wasm"), FETCH).unwrap();
    until("the module to wait", || {
        master.module("fetch")["state"] == "waiting"
    });
    master.run(&["modules", "approve", "fetch"]).with(0);
    let params =
        |authority: &str, path: &str| json!({"authority": authority, "path": path}).to_string();
    let call = |authority: &str, path: &str| {
        master.run(&[
            "call",
            "fetch",
            "--retries",
            "0",
            "--params",
            &params(authority, path),
        ])
    };
    let good = format!("127.0.0.1:{port}");
    assert_eq!(
        call(&good, "/a?b=c").with(0).out.trim(),
        "hello, GET /a?b=c HTTP/1.1"
    );
    for other in [
        format!("localhost:{port}"),
        format!("[::1]:{port}"),
        "127.0.0.1".into(),
        format!("x@127.0.0.1:{port}"),
    ] {
        call(&other, "/").with(3).says(&["HTTP-request-denied"]);
    }
    assert_eq!(
        count.load(Ordering::SeqCst),
        1,
        "what is denied never leaves"
    );
    let denied = master.run(&[
        "add",
        "fetch",
        "--id",
        "d",
        "--retries",
        "0",
        "--wait",
        "--params",
        &params("b.org", "/"),
    ]);
    denied.with(3);
    let log = master.run(&["tasks", "logs", "d"]).with(0).out;
    assert!(
        log.contains("taskmaster: HTTP to b.org is denied: name it in `capabilities.http`"),
        "{log}"
    );
    call(&format!("127.0.0.1:{dead}"), "/")
        .with(3)
        .says(&["connection-refused"]);
    let hang = [
        "add",
        "fetch",
        "--retries",
        "0",
        "--task-timeout",
        "300ms",
        "--wait",
        "-o",
        "json",
        "--params",
    ];
    let hung = master
        .run(&[&hang[..], &[&params(&good, "/hang")]].concat())
        .with(3)
        .json();
    assert_eq!(hung["error"]["kind"], "timeout");
    call(&good, "/").with(0);
    assert!(
        !master.process.said().contains("denied"),
        "a task's failure is no line of ours: {}",
        master.process.said()
    );
    // Without a master, the same.
    fs::write(master.folder.join("fetch.wasm"), FETCH).unwrap();
    let here = |more: &[&str], authority: &str| {
        master.run(
            &[
                &["run", "fetch.wasm", "--params", &params(authority, "/here")],
                more,
            ]
            .concat(),
        )
    };
    here(&[], &good)
        .with(3)
        .says(&["HTTP-request-denied", "is denied"]);
    fs::write(master.folder.join("fetch.toml"), &manifest).unwrap();
    here(&[], &good)
        .with(2)
        .says(&["give it with --allow-http 127.0.0.1:"]);
    let allow = [
        "--allow-http",
        &good,
        "--allow-http",
        &format!("127.0.0.1:{dead}"),
    ];
    assert_eq!(
        here(&allow, &good).with(0).out.trim(),
        "hello, GET /here HTTP/1.1"
    );
    let check = master
        .run(&["modules", "check", "fetch.wasm", "-o", "json"])
        .with(0)
        .json();
    assert!(
        check["reach"]
            .as_str()
            .unwrap()
            .contains("HTTP, to hosts that its manifest names"),
        "{check}"
    );
}
