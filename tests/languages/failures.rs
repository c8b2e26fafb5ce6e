//! What a feeder sees when a task in Rust, Python or JavaScript goes wrong, and what the Rust SDK
//! costs.

use crate::projects::{Project, toolchains};
use serde_json::{Value, json};
use taskmaster_harness::{Folder, Master};

/// One function that goes wrong as it is told.
const RUST: &str = r#"
use serde::{Deserialize, Serialize};
use taskmaster::Error;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Params { how: String, rows: Vec<Row> }

#[derive(Deserialize)]
struct Row { width: u8 }

#[derive(Serialize)]
struct Sum { sum: u32 }

taskmaster::task!(go_wrong);

#[inline(never)]
fn go_wrong(params: Params) -> Result<Sum, Error> {
    let sum = params.rows.iter().map(|row| u32::from(row.width)).sum();
    match params.how.as_str() {
        "panic" => panic!("boom with {sum}"),
        "overflow" => Ok(Sum { sum: deeper(u64::from(sum)) as u32 }),
        "later" => Err(Error::retryable("come back")),
        "parse" => { params.how.parse::<u8>()?; Ok(Sum { sum }) }
        "add" => {
            taskmaster::add(&serde_json::json!({"module": "none-of-that-name"}))?;
            Ok(Sum { sum })
        }
        "speak" => {
            taskmaster::progress(0.25, "a\nb");
            taskmaster::partial(&[1, 2])?;
            taskmaster::log("said");
            Ok(Sum { sum })
        }
        _ => Ok(Sum { sum }),
    }
}

#[inline(never)]
fn deeper(n: u64) -> u64 {
    let some = std::hint::black_box([n; 64]);
    1 + deeper(some[0] + 1) + some[63]
}
"#;

/// The same task without the SDK: what it does when nothing goes wrong.
const PLAIN: &str = r#"
use serde::{Deserialize, Serialize};
use std::io::Read;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Params { how: String, rows: Vec<Row> }

#[derive(Deserialize)]
struct Row { width: u8 }

#[derive(Serialize)]
struct Sum { sum: u32 }

fn main() {
    let mut text = String::new();
    std::io::stdin().read_to_string(&mut text).unwrap();
    match serde_json::from_str::<Params>(&text) {
        Ok(params) => {
            let sum = params.rows.iter().map(|row| u32::from(row.width)).sum();
            if params.how == "panic" { panic!("boom with {sum}") }
            println!("{}", serde_json::to_string(&Sum { sum }).unwrap())
        }
        Err(error) => {
            eprintln!("params: {error}");
            std::process::exit(65)
        }
    }
}
"#;

/// And the SDK's side of that comparison.
const WITH_SDK: &str = r#"
use serde::{Deserialize, Serialize};
use taskmaster::Error;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Params { how: String, rows: Vec<Row> }

#[derive(Deserialize)]
struct Row { width: u8 }

#[derive(Serialize)]
struct Sum { sum: u32 }

taskmaster::task!(sum);

fn sum(params: Params) -> Result<Sum, Error> {
    let sum = params.rows.iter().map(|row| u32::from(row.width)).sum();
    if params.how == "panic" { panic!("boom with {sum}") }
    Ok(Sum { sum })
}
"#;

fn ended(master: &Master, module: &str, params: &Value) -> Value {
    let add = [
        "add",
        module,
        "--retries",
        "0",
        "--wait",
        "-o",
        "json",
        "--params",
        "-",
    ];
    let ran = master.run_with(&add, &params.to_string());
    assert!(ran.code == 0 || ran.code == 3, "{}", ran.err);
    ran.json()
}

#[track_caller]
fn says(task: &Value, words: &[&str]) {
    let error = &task["error"];
    let text = format!(
        "{} {}",
        error["message"].as_str().unwrap_or_default(),
        error["backtrace"].as_str().unwrap_or_default()
    );
    for word in words {
        assert!(text.contains(word), "`{word}` is not in: {error}");
    }
}

#[test]
#[ignore = "needs the compilers that tests/languages/toolchains installs"]
fn rust_names_fields_and_brings_panics_and_overflows_to_the_feeder() {
    let tools = toolchains();
    let (folder, master) = (Folder::new(), Master::up(1));
    let project = Project::new(tools, &folder, "goes-wrong", "rust");
    // What its dependencies become is kept with the toolchains.
    let kept = tools.join("rust-target");
    std::fs::create_dir_all(&kept).unwrap();
    std::os::unix::fs::symlink(kept, project.folder.join("target")).unwrap();
    project.write("src/lib.rs", RUST);
    let manifest = std::fs::read_to_string(project.folder.join("Cargo.toml")).unwrap();
    project.write(
        "Cargo.toml",
        manifest.replace("[dependencies]\n", "[dependencies]\nserde_json = \"1\"\n"),
    );
    for kind in ["command", "component"] {
        master.drop_module(&format!("{kind}.wasm"), project.build(kind).1);
    }
    let rows = json!([{"width": 1}, {"width": 200}]);
    let results = |how: &str| {
        ["command", "component"]
            .map(|kind| ended(&master, kind, &json!({"how": how, "rows": rows})))
    };
    for how in ["well", "speak"] {
        for task in results(how) {
            assert_eq!(task["result"], json!({"sum": 201}), "{task}");
        }
    }
    for task in results("panic") {
        assert_eq!(task["error"]["kind"], "trap", "{task}");
        says(&task, &["boom with 201", "unreachable", "go_wrong"]);
    }
    for task in results("overflow") {
        assert_eq!(task["error"]["kind"], "trap", "{task}");
        says(&task, &["deeper"]);
        // Which of its two stacks ends first, the engine's or the one in its memory, is the
        // compiler's to say.
        let message = task["error"]["message"].as_str().unwrap();
        assert!(
            message.contains("call stack exhausted")
                || message.contains("out of bounds memory access"),
            "{message}"
        );
    }
    for (how, code, word) in [("later", 75, "come back"), ("parse", 75, "invalid digit")] {
        for task in results(how) {
            assert_eq!(task["error"]["code"], code, "{task}");
            says(&task, &[word]);
        }
    }
    for kind in ["command", "component"] {
        for (params, place) in [
            (
                json!({"how": "well", "rows": [{"width": 1}, {"width": "8"}]}),
                "params.rows[1].width: invalid type: string \"8\", expected u8",
            ),
            (
                json!({"how": "well", "rows": [{"width": 256}]}),
                "params.rows[0].width: invalid value: integer `256`",
            ),
            (json!({"how": "well"}), "params: missing field `rows`"),
            (
                json!({"how": "well", "rows": [], "hwo": 1}),
                "params.hwo: unknown field `hwo`",
            ),
        ] {
            let task = ended(&master, kind, &params);
            assert_eq!(
                (&task["error"]["code"], &task["attempt"]),
                (&json!(65), &json!(1)),
                "{task}"
            );
            says(&task, &[place]);
        }
    }
    sizes(&project);
}

/// What the SDK adds to a plain program, both built as the template builds.
fn sizes(project: &Project) {
    project.write("src/lib.rs", WITH_SDK);
    let with = project.build("command").1.len();
    std::fs::create_dir_all(project.folder.join("src/bin")).unwrap();
    project.write("src/bin/plain.rs", PLAIN);
    let mut build = project.command("cargo");
    build.args([
        "build",
        "--quiet",
        "--release",
        "--target",
        "wasm32-wasip1",
        "--target-dir",
        "target",
        "--bin",
        "plain",
    ]);
    let built = build.output().unwrap();
    assert!(
        built.status.success(),
        "{}",
        String::from_utf8_lossy(&built.stderr)
    );
    let plain = std::fs::metadata(
        project
            .folder
            .join("target/wasm32-wasip1/release/plain.wasm"),
    )
    .unwrap()
    .len();
    println!("a plain program: {plain} bytes; with the SDK: {with}");
    assert!(
        with as f64 <= plain as f64 * 1.2,
        "the SDK makes {with} bytes of {plain}"
    );
}

#[test]
#[ignore = "needs the compilers that tests/languages/toolchains installs"]
fn python_and_javascript_bring_their_own_traceback() {
    let tools = toolchains();
    let (folder, master) = (Folder::new(), Master::up(1));
    let python = Project::new(tools, &folder, "py-wrong", "python");
    python.write(
        "app.py",
        "import taskmaster\n\n\ndef inner(n):\n    return inner(n + 1) if n else 1 / n\n\n\ndef outer(params):\n    if params == \"never\":\n        raise taskmaster.Permanent(\"no use\")\n    return inner(params[\"n\"])\n\n\nWitWorld = taskmaster.task(outer)\n",
    );
    master.drop_module("python.wasm", python.build("component").1);
    let javascript = Project::new(tools, &folder, "js-wrong", "javascript");
    javascript.write(
        "task.js",
        "import { Permanent, task } from './taskmaster.js';\n\nfunction inner(n) {\n  return n ? 1 + inner(n + 1) : n.x.y;\n}\n\nexport const run = task((params) => {\n  if (params === 'never') throw new Permanent('no use');\n  return inner(params.n);\n});\n",
    );
    master.drop_module("javascript.wasm", javascript.build("component").1);

    let task = ended(&master, "python", &json!({"n": 0}));
    assert_eq!(task["error"]["code"], 75, "{task}");
    says(
        &task,
        &[
            "Traceback",
            "app.py",
            "in outer",
            "in inner",
            "ZeroDivisionError: division by zero",
        ],
    );
    says(
        &ended(&master, "python", &json!({})),
        &["Traceback", "KeyError: 'n'"],
    );
    says(&ended(&master, "python", &json!({"n": 1})), &["Recursion"]);
    let task = ended(&master, "javascript", &json!({"n": 0}));
    assert_eq!(task["error"]["code"], 75, "{task}");
    says(&task, &["TypeError", "inner", "task.js"]);
    says(&ended(&master, "javascript", &json!({"n": 1})), &["stack"]);
    for module in ["python", "javascript"] {
        let task = ended(&master, module, &json!("never"));
        assert_eq!(task["error"]["code"], 65, "{task}");
        says(&task, &["no use"]);
    }
}
