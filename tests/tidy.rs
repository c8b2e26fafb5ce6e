//! The house rules that a machine can check.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test: a broken promise ends it"
)]

use std::fs;
use std::path::{Path, PathBuf};

const ROOT: &str = env!("CARGO_MANIFEST_DIR");

/// Longer than this, a file has more than one job.
const LINES_MAX: usize = 800;

/// Every file below a folder, without what is built, fetched or git's own.
fn files(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        if path.is_dir()
            && !matches!(
                name.as_str(),
                "target" | ".git" | "taskmaster-data" | "node_modules"
            )
        {
            files(&path, found);
        } else if path.is_file() {
            found.push(path);
        }
    }
}

fn sources() -> Vec<(PathBuf, String)> {
    let mut found = Vec::new();
    files(Path::new(ROOT), &mut found);
    let is_source = |path: &PathBuf| path.extension().is_some_and(|extension| extension == "rs");
    found
        .into_iter()
        .filter(is_source)
        .map(|path| (path.clone(), fs::read_to_string(path).unwrap()))
        .collect()
}

fn read(name: &str) -> String {
    fs::read_to_string(Path::new(ROOT).join(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

#[test]
fn no_source_is_too_long() {
    let sources = sources();
    assert!(
        sources.len() > 100,
        "only {} sources were found: is this test looking in the right place?",
        sources.len()
    );
    for (path, text) in sources {
        let lines = text.lines().count();
        assert!(
            lines <= LINES_MAX,
            "{} has {lines} lines, at most {LINES_MAX} are good",
            path.display()
        );
    }
}

#[test]
fn every_room_is_named_for_what_is_in_it() {
    let mut found = Vec::new();
    files(Path::new(ROOT), &mut found);
    for path in found {
        let inside = path.strip_prefix(ROOT).unwrap();
        for part in inside.iter().map(|part| part.to_string_lossy()) {
            let stem = part.split('.').next().unwrap_or_default();
            let vague = matches!(
                stem,
                "util" | "utils" | "common" | "helper" | "helpers" | "manager" | "misc"
            );
            assert!(
                !vague,
                "{}: `{part}` says nothing of what it is for",
                inside.display()
            );
        }
    }
}

#[test]
fn nothing_is_left_for_later() {
    // In parts, so that this file does not find itself.
    let words =
        [["to", "do!"], ["unimple", "mented!"], ["#[ig", "nore"]].map(|parts| parts.concat());
    for (path, text) in sources() {
        for (index, line) in text.lines().enumerate() {
            if let Some(word) = words.iter().find(|word| line.contains(word.as_str())) {
                panic!("{}:{}: `{word}`", path.display(), index + 1);
            }
        }
    }
}

#[test]
fn every_dependency_has_a_reason() {
    for (manifest, section) in [
        ("Cargo.toml", "[workspace.dependencies]"),
        ("tasks/Cargo.toml", "[workspace.dependencies]"),
        ("tests/fuzz/Cargo.toml", "[dependencies]"),
    ] {
        let text = read(manifest);
        let (_, after) = text.split_once(section).unwrap();
        let section = after.split("\n[").next().unwrap();
        let mut checked = 0;
        for line in section.lines().filter(|line| {
            line.contains('=') && !line.contains("path = ") && !line.starts_with('#')
        }) {
            let reason = line
                .rsplit_once(" # ")
                .map(|(_, reason)| reason.trim())
                .unwrap_or_default();
            assert!(reason.len() >= 5, "{manifest}: no reason beside `{line}`");
            checked += 1;
        }
        assert!(
            checked >= 3,
            "{manifest}: only {checked} dependencies were found"
        );
    }
    // Versions and features stand in one place: a member says `.workspace = true` and nothing else.
    for member in [
        "protocol",
        "protocol/module",
        "protocol/transport",
        "master",
        "master/core",
        "runner",
        "runner/session",
        "feeder",
        ".",
    ] {
        let text = read(&format!("{member}/Cargo.toml"));
        for part in text.split("\n[").filter(|part| {
            part.starts_with("dependencies]") || part.starts_with("dev-dependencies]")
        }) {
            for line in part
                .lines()
                .skip(1)
                .filter(|line| !line.trim().is_empty() && !line.starts_with('#'))
            {
                assert!(
                    line.contains(".workspace = true"),
                    "{member}/Cargo.toml: `{line}`"
                );
            }
        }
    }
}

/// The lines of a file before its tests, without comments.
fn code(text: &str) -> String {
    let before = text
        .split("#[cfg(test)]\nmod tests {")
        .next()
        .unwrap_or_default();
    before
        .lines()
        .map(|line| line.split("//").next().unwrap_or_default())
        .collect::<Vec<_>>()
        .join("\n")
}

#[test]
fn the_core_and_the_runners_session_are_pure() {
    for pure in ["master/core", "runner/session"] {
        let manifest = read(&format!("{pure}/Cargo.toml"));
        let (_, after) = manifest.split_once("[dependencies]").unwrap();
        let dependencies: Vec<&str> = after
            .split("\n[")
            .next()
            .unwrap()
            .lines()
            .filter(|line| line.contains('='))
            .map(|line| line.split(['.', ' ', '=']).next().unwrap())
            .collect();
        assert_eq!(dependencies, ["taskmaster-protocol"], "{pure}");
    }
    let mut checked = 0;
    for (path, text) in sources() {
        let inside = path
            .strip_prefix(ROOT)
            .unwrap()
            .to_string_lossy()
            .into_owned();
        let pure =
            inside.starts_with("master/core/src/") || inside.starts_with("runner/session/src/");
        if !pure || inside.ends_with("/tests.rs") {
            continue;
        }
        checked += 1;
        for word in [
            "Instant",
            "SystemTime",
            "tokio",
            "HashMap",
            "HashSet",
            "std::fs",
            "std::net",
            "std::thread",
            "async ",
            "rand::",
            "println!",
        ] {
            assert!(
                !code(&text).contains(word),
                "{inside}: `{word}` in what must be a function of its input"
            );
        }
    }
    assert!(checked >= 10, "only {checked} files were checked");
}

#[test]
fn documents_know_every_state() {
    let diagram: String = read("master/core/src/state.rs")
        .lines()
        .filter(|line| line.starts_with("//!"))
        .collect();
    let states = [
        "blocked",
        "delayed",
        "ready",
        "assigned",
        "done",
        "failed",
        "cancelled",
        "skipped",
    ];
    for state in states {
        assert!(
            diagram.contains(state),
            "the diagram of state.rs has no `{state}`"
        );
    }
    if let Ok(text) = fs::read_to_string(Path::new(ROOT).join("ARCHITECTURE.md")) {
        for state in states {
            assert!(
                text.contains(state),
                "ARCHITECTURE.md does not tell of the state `{state}`"
            );
        }
    }
}
