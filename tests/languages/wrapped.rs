//! Scripts that were not written as tasks: a wrapper of a few lines makes them tasks, and they
//! print what they print when Python and Node run them.

use crate::projects::{Project, toolchains};
use serde_json::{Value, json};
use std::io::Write;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use taskmaster_harness::{Folder, Master};

fn script(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("tests/languages/scripts")
        .join(name)
}

/// What the script prints without us.
fn natively(interpreter: &str, name: &str, args: &[&str], stdin: &str) -> String {
    let mut command = Command::new(interpreter);
    command
        .arg(script(name))
        .args(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null());
    let mut child = command.spawn().unwrap();
    child
        .stdin
        .take()
        .unwrap()
        .write_all(stdin.as_bytes())
        .unwrap();
    String::from_utf8(child.wait_with_output().unwrap().stdout).unwrap()
}

/// Runs it on a master with each of these arguments, and compares.
fn compare(master: &Master, name: &str, interpreter: &str, file: &str, calls: &[(&[&str], &str)]) {
    for (args, stdin) in calls {
        let params = json!({"args": args, "stdin": stdin}).to_string();
        let ran = master
            .run_with(&["call", name, "--params", "-"], &params)
            .with(0);
        // A task that prints nothing has the result `null`.
        let native = natively(interpreter, file, args, stdin);
        let expected = if native.is_empty() {
            "null"
        } else {
            native.trim_end()
        };
        assert_eq!(ran.out.trim_end(), expected, "{name} {args:?}");
    }
}

#[test]
#[ignore = "needs the compilers that tests/languages/toolchains installs"]
fn a_python_script_and_a_node_script_become_tasks() {
    let tools = toolchains();
    let (folder, master) = (Folder::new(), Master::up(1));

    let python = Project::new(tools, &folder, "report-task", "python");
    std::fs::copy(script("report.py"), python.folder.join("report.py")).unwrap();
    python.write(
        "app.py",
        "import taskmaster\n\nWitWorld = taskmaster.script(\"report\")\n",
    );
    master.drop_module("report.wasm", python.build("component").1);
    let table = "city,amount\nOslo,1.5\nLima,2\nOslo,3\n";
    let calls: &[(&[&str], &str)] = &[
        (&["amount"], table),
        (&["amount", "--by", "city"], table),
        (&["amount"], "amount\n"),
    ];
    compare(&master, "report", "python3", "report.py", calls);
    let wrong = json!({"args": ["weight"], "stdin": table}).to_string();
    let ran = master
        .run_with(
            &[
                "add",
                "report",
                "--retries",
                "0",
                "--wait",
                "-o",
                "json",
                "--params",
                "-",
            ],
            &wrong,
        )
        .with(3);
    let error = ran.json()["error"]["message"].as_str().unwrap().to_owned();
    assert!(
        error.contains("Traceback")
            && error.contains("in main")
            && error.contains("KeyError: 'weight'"),
        "{error}"
    );

    let node = Project::new(tools, &folder, "words-task", "javascript");
    std::fs::copy(script("words.cjs"), node.folder.join("words.cjs")).unwrap();
    let wrapper = "import { script } from './taskmaster.js';\nimport words from './out/words.js';\nexport const run = script(words, 'words.cjs');\n";
    node.write("task.js", wrapper);
    master.drop_module("words.wasm", node.build("component").1);
    let text = "The fox, the dog; the Ärger.\nFox!";
    compare(
        &master,
        "words",
        "node",
        "words.cjs",
        &[(&[], text), (&["2"], text), (&[], "")],
    );
    assert_eq!(
        master
            .run(&["call", "words", "--params", "\"one two one\""])
            .with(0)
            .out,
        "    2 one\n    1 two\n"
    );
    let wrong = json!({"args": ["many"], "stdin": ""}).to_string();
    let ran = master
        .run_with(
            &["add", "words", "--wait", "-o", "json", "--params", "-"],
            &wrong,
        )
        .with(3)
        .json();
    assert_eq!(
        (&ran["error"]["code"], &ran["attempt"]),
        (&json!(65), &json!(1)),
        "{ran}"
    );
    assert!(
        ran["error"]["message"]
            .as_str()
            .unwrap()
            .contains("exit code 64: usage: words.cjs"),
        "{ran}"
    );
    let log: Value = master.json(&["tasks", "logs", ran["id"].as_str().unwrap()]);
    assert!(log.to_string().contains("usage: words.cjs"), "{log}");
}
