//! Each language through new, build, run, `modules check`, drop, feed, on a master and two runners.

use crate::expected::{LANGUAGES, Language, same, smaller};
use crate::projects::{Project, chosen, toolchains};
use crate::table::{Row, table};
use serde_json::{Value, json};
use std::sync::Mutex;
use std::time::Instant;
use taskmaster_harness::{Folder, Master, micros_between, run};

/// How many tasks a warm start is measured with.
const WARM: usize = 5;

#[test]
#[ignore = "needs the compilers that tests/languages/toolchains installs"]
fn every_language_from_new_to_a_fleet_of_two_runners() {
    let tools = toolchains();
    let folder = Folder::new();
    let master = Master::with("master", &[]);
    let runners = ["a", "b"].map(|name| master.runner(name, &["--slots", "1"]));
    let chosen = chosen();
    let is_chosen = |language: &&Language| {
        language
            .toolchain
            .is_none_or(|toolchain| chosen.iter().any(|name| name == toolchain))
    };
    let languages: Vec<&Language> = LANGUAGES.iter().filter(is_chosen).collect();
    let waiting = Mutex::new(languages.iter());
    let rows = Mutex::new(Vec::new());
    // Two at a time: compilers for single files leave a core idle.
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                loop {
                    let Some(language) = waiting.lock().unwrap().next() else {
                        return;
                    };
                    let project = Project::new(
                        tools,
                        &folder,
                        &format!("hello-{}", language.name),
                        language.name,
                    );
                    for kind in language.kinds {
                        let row = through(&master, &folder, language, &project, kind);
                        rows.lock().unwrap().push(row);
                    }
                }
            });
        }
    });
    let by: std::collections::BTreeSet<String> = master
        .json(&["tasks", "list", "--limit", "1000"])
        .as_array()
        .unwrap()
        .iter()
        .map(|task| task["runner"].to_string())
        .collect();
    assert_eq!(by.len(), 2, "both runners have worked: {by:?}");
    drop(runners);
    let mut rows = rows.into_inner().unwrap();
    rows.sort_by_key(|row| {
        LANGUAGES
            .iter()
            .position(|language| language.name == row.language)
    });
    let played: Vec<&str> = languages.iter().map(|language| language.name).collect();
    table(&rows, &played);
}

/// One language, of one kind. What it took.
fn through(
    master: &Master,
    folder: &Folder,
    language: &Language,
    project: &Project,
    kind: &str,
) -> Row {
    let (built, bytes) = project.build(kind);
    let began = Instant::now();
    let cases = (language.cases)(&project.folder, kind);
    let file = project.module().to_str().unwrap().to_owned();
    let check = run(folder, &["modules", "check", &file, "-o", "json"], &[], "")
        .with(0)
        .json();
    assert_eq!(
        check["kind"],
        if kind == "command" {
            "command"
        } else {
            "component"
        },
        "{check}"
    );
    let input = project
        .data()
        .map(|data| format!("data={}", data.display()));
    let input: Vec<&str> = input
        .iter()
        .flat_map(|input| ["--input", input.as_str()])
        .collect();
    here(folder, project, &file, &input);

    // Dropped as people do it: whole, by a rename.
    let name = if kind == "command" {
        project.name.clone()
    } else {
        format!("{}-component", project.name)
    };
    let end = file.rsplit_once('.').unwrap().1;
    let place = master.tasks().join(format!("{name}.{end}"));
    std::fs::write(place.with_extension("new"), &bytes).unwrap();
    std::fs::rename(place.with_extension("new"), &place).unwrap();
    let first = [&["call", name.as_str(), "--params", "-"], input.as_slice()].concat();
    let result = master.run_with(&first, &cases[0].0.to_string()).with(0);
    let first = built + began.elapsed();
    assert!(same(&result.json(), &cases[0].1), "{name}: {}", result.out);

    feed(master, language, project, kind, &name, &cases);
    let shown = master.json(&["modules", "show", &name]);
    let compiled = shown["versions"][0]["compile_us"]
        .as_u64()
        .unwrap_or_default();
    assert_eq!(shown["state"], "ready", "{shown}");
    Row {
        language: language.name,
        does: language.does,
        kind: kind.to_owned(),
        bytes: bytes.len(),
        build_s: built.as_secs_f64(),
        compile_ms: compiled as f64 / 1e3,
        warm_ms: warm(master, &name, &input, &cases[0].0),
        first_s: first.as_secs_f64(),
        reach: check["reach"].as_str().unwrap_or_default().to_owned(),
    }
}

/// Without a master, the project's own params give a result.
fn here(folder: &Folder, project: &Project, file: &str, input: &[&str]) {
    let own = std::fs::read_to_string(project.folder.join("params.json")).unwrap();
    let args = [&["run", file, "--params", "-"], input].concat();
    assert!(!run(folder, &args, &[], &own).with(0).out.is_empty());
}

/// Each case three times over, so that both runners get some.
fn feed(
    master: &Master,
    language: &Language,
    project: &Project,
    kind: &str,
    name: &str,
    cases: &[(Value, Value)],
) {
    let mut lines = String::new();
    for round in 0..3 {
        for (number, (params, _)) in cases.iter().enumerate() {
            let id = format!("{name}-{kind}-{round}-{number}");
            let mut task = json!({"id": id, "module": name, "params": params});
            if let Some(data) = project.data() {
                task["inputs"] = json!({"data": data});
            }
            lines += &format!("{task}\n");
        }
    }
    let out = format!("{name}-files");
    let ended = master
        .run_with(
            &["feed", "--job", name, "--follow", "--fetch", &out],
            &lines,
        )
        .with(0)
        .lines();
    assert_eq!(ended.len(), cases.len() * 3);
    for task in ended {
        let id = task["id"].as_str().unwrap();
        let number: usize = id.rsplit_once('-').unwrap().1.parse().unwrap();
        let (params, expected) = &cases[number];
        let result = match task["result_blob"].is_null() {
            true => task["result"].clone(),
            false => master.run(&["tasks", "result", id]).with(0).json(),
        };
        assert!(
            same(&result, expected),
            "{id}: {result}, expected {expected}"
        );
        if language.name == "c" {
            let photo = std::fs::read(project.folder.join("data/photo.ppm")).unwrap();
            let width = usize::try_from(params["width"].as_u64().unwrap()).unwrap();
            let small =
                std::fs::read(master.folder.join(&format!("{out}/{id}/small.ppm"))).unwrap();
            assert!(
                small == smaller(&photo, width),
                "{id}: the picture is another"
            );
        }
    }
}

/// Milliseconds from the add of a task to its end, where the module has run before: the median of a
/// few.
fn warm(master: &Master, name: &str, input: &[&str], params: &Value) -> f64 {
    let add = [
        &["add", name, "--wait", "-o", "json", "--params", "-"],
        input,
    ]
    .concat();
    let mut took: Vec<i64> = (0..WARM)
        .map(|_| {
            let task = master.run_with(&add, &params.to_string()).with(0).json();
            micros_between(&task["created"], &task["finished"])
        })
        .collect();
    took.sort_unstable();
    took[WARM / 2] as f64 / 1e3
}
