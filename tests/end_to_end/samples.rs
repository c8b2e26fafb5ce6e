//! The samples through a real master; and, where their toolchain is there, built again from source.

use serde_json::{Value, json};
use std::fs;
use std::path::Path;
use std::process::Command;
use taskmaster_harness::{Folder, Master, command, run};

const TASKS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tasks");

fn master() -> Master {
    let master = Master::up(2);
    for name in ["echo.wat", "sleep.wat", "mandelbrot.wasm", "stocks.wasm"] {
        master.drop_module(name, fs::read(Path::new(TASKS).join(name)).unwrap());
    }
    master
}

/// The fenced block of the samples' README that follows a comment, `<!-- feed: stocks -->`.
fn block(mark: &str) -> String {
    let readme = fs::read_to_string(Path::new(TASKS).join("README.md")).unwrap();
    let (_, after) = readme
        .split_once(&format!("<!-- {mark} -->"))
        .unwrap_or_else(|| panic!("no `{mark}` in tasks/README.md"));
    let mut parts = after.split("```");
    parts.next();
    parts.next().unwrap().split_once('\n').unwrap().1.to_owned()
}

/// What a script of the README prints.
fn script(mark: &str) -> String {
    let ran = Command::new("python3")
        .args(["-c", &block(mark)])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .unwrap();
    assert!(
        ran.status.success(),
        "{}",
        String::from_utf8_lossy(&ran.stderr)
    );
    String::from_utf8(ran.stdout).unwrap()
}

/// The size of a picture, if these are the bytes of a PNG file.
fn png_size(bytes: &[u8]) -> Option<(u32, u32)> {
    let number = |at: usize| Some(u32::from_be_bytes(bytes.get(at..at + 4)?.try_into().ok()?));
    let whole = bytes.starts_with(b"\x89PNG\r\n\x1a\n")
        && bytes.get(12..16)? == b"IHDR"
        && bytes.ends_with(b"IEND\xaeB`\x82");
    whole.then_some((number(16)?, number(20)?))
}

#[test]
fn mandelbrot_makes_a_picture() {
    let master = master();
    for (name, feed) in [
        ("feed", block("feed: mandelbrot")),
        (
            "script",
            script("script: mandelbrot").replace("mandelbrot-", "m-"),
        ),
    ] {
        let ids = feed.lines().count();
        let ran = master.run_with(&["feed", "--follow"], &feed).with(0);
        assert_eq!(ran.lines().len(), ids, "{name}");
        let picture = if name == "feed" {
            "mandelbrot-picture"
        } else {
            "m-picture"
        };
        let bytes = master.run(&["tasks", "result", picture]).with(0).bytes;
        assert_eq!(
            png_size(&bytes),
            Some((800, 600)),
            "{name}: {} bytes",
            bytes.len()
        );
        assert!(bytes.len() > 10_000, "a picture with something on it");
    }
}

#[test]
fn stocks_makes_a_chart() {
    let master = master();
    let expected = {
        let readme = fs::read_to_string(Path::new(TASKS).join("README.md")).unwrap();
        let after = readme
            .split_once("<!-- result: stocks -->")
            .unwrap()
            .1
            .trim_start()
            .to_owned();
        serde_json::from_str::<Value>(after.lines().next().unwrap().trim()).unwrap()
    };
    master
        .run_with(&["feed", "--wait"], &block("feed: stocks"))
        .with(0);
    assert_eq!(master.task("stocks-MSFT")["result"], expected);
    let chart = master.run(&["tasks", "result", "stocks-chart"]).with(0).out;
    assert!(
        chart.trim_start().starts_with("<svg")
            && chart.trim_end().ends_with("</svg>")
            && chart.contains("MSFT"),
        "{chart}"
    );
    let all = script("script: stocks").replace("\"stocks-", "\"all-");
    master.run_with(&["feed", "--wait"], &all).with(0);
    let chart = master.run(&["tasks", "result", "all-chart"]).with(0).out;
    assert!(
        ["MSFT", "AMZN", "IBM", "GOOG", "AAPL"]
            .iter()
            .all(|symbol| chart.contains(symbol)),
        "{chart}"
    );
}

#[test]
fn echo_gives_back_any_json_byte_for_byte() {
    let master = master();
    for params in [
        "null",
        "1.50",
        "[ 1 ]",
        r#"{"b":1,"a":2}"#,
        "12345678901234567890.5",
        r#""\u00fc""#,
    ] {
        let ran = master
            .run(&["add", "echo", "--params", params, "--wait", "-o", "json"])
            .with(0);
        assert!(
            ran.out.contains(&format!("\"result\":{params},")),
            "{params}: {}",
            ran.out
        );
    }
    let large = json!("x".repeat(300_000)).to_string();
    let ran = master
        .run_with(
            &["add", "echo", "--params", "-", "--wait", "-o", "json"],
            &large,
        )
        .with(0)
        .json();
    assert!(
        ran["result"].is_null() && ran["result_blob"].as_str().unwrap().len() == 64,
        "a large result is a blob"
    );
    assert_eq!(
        master
            .run(&["tasks", "result", ran["id"].as_str().unwrap()])
            .with(0)
            .out
            .trim_end(),
        large
    );
}

#[test]
fn wrong_params_are_named() {
    let master = master();
    for (module, params, word) in [
        ("sleep", "\"long\"", "params"),
        (
            "mandelbrot",
            r#"{"width":"8","height":8,"from":0,"rows":8,"max_iter":9}"#,
            "width",
        ),
        (
            "stocks",
            r#"{"symbol":"X","prices":[["yesterday",1]]}"#,
            "prices",
        ),
    ] {
        let task = master
            .run(&["add", module, "--params", params, "--wait", "-o", "json"])
            .with(3)
            .json();
        assert_eq!(
            (
                &task["error"]["kind"],
                &task["error"]["code"],
                &task["attempt"]
            ),
            (&json!("exit"), &json!(65), &json!(1))
        );
        assert!(
            task["error"]["message"].as_str().unwrap().contains(word),
            "{task}"
        );
    }
}

#[test]
fn the_demo_leaves_two_pictures() {
    let folder = Folder::new();
    let ran = run(&folder, &["demo", "--out", "pictures"], &[], "").with(0);
    let paths: Vec<&str> = ran.out.lines().collect();
    assert_eq!(paths.len(), 2, "{}", ran.out);
    let bytes = fs::read(paths[0]).unwrap();
    assert!(png_size(&bytes).is_some());
    assert!(
        fs::read_to_string(paths[1])
            .unwrap()
            .trim_start()
            .starts_with("<svg")
    );
}

/// Feeds of the README as (module, params), references replaced by the results that the committed
/// modules give.
fn calls(folder: &Folder) -> Vec<(String, Value, Vec<u8>)> {
    let mut results = std::collections::BTreeMap::<String, Value>::new();
    let mut calls = Vec::new();
    for feed in [
        block("feed: mandelbrot"),
        block("feed: stocks"),
        script("script: stocks").replace("\"stocks-", "\"all-"),
    ] {
        for line in feed.lines() {
            let task: Value = serde_json::from_str(line).unwrap();
            let mut params = task["params"].clone();
            for value in params.as_object_mut().unwrap().values_mut() {
                if let Some(ids) = value.get("$results").and_then(Value::as_array) {
                    *value = ids
                        .iter()
                        .map(|id| results[id.as_str().unwrap()].clone())
                        .collect();
                }
            }
            let module = task["module"].as_str().unwrap().to_owned();
            let answer = answer(folder, Path::new(TASKS), &module, &params);
            if let Ok(result) = serde_json::from_slice(&answer) {
                results.insert(task["id"].as_str().unwrap().to_owned(), result);
            }
            calls.push((module, params, answer));
        }
    }
    calls
}

fn answer(folder: &Folder, modules: &Path, module: &str, params: &Value) -> Vec<u8> {
    let file = modules.join(format!("{module}.wasm"));
    let ran = run(
        folder,
        &["run", file.to_str().unwrap(), "--params", "-"],
        &[],
        &params.to_string(),
    );
    ran.with(0).bytes
}

#[test]
#[ignore = "needs a Rust toolchain for WASI, or apt-get, with which tasks/build installs one"]
fn the_rust_samples_built_from_source_answer_like_the_committed_ones() {
    let folder = Folder::new();
    let calls = calls(&folder);
    assert!(calls.len() >= 10 && calls.iter().any(|(module, ..)| module == "mandelbrot"));
    let built = folder.join("built");
    // The caller's caches, unlike `command`: there is the toolchain.
    let ran = Command::new(Path::new(TASKS).join("build"))
        .arg(&built)
        .output()
        .unwrap();
    assert!(
        ran.status.success(),
        "{}",
        String::from_utf8_lossy(&ran.stderr)
    );
    for (module, params, expected) in calls {
        let answer = answer(&folder, &built, &module, &params);
        assert!(answer == expected, "{module} answers otherwise to {params}");
    }
    let mut check = command(&folder, &[]);
    check
        .args(["modules", "check"])
        .arg(built.join("stocks.wasm"));
    assert!(check.output().unwrap().status.success());
}
