//! What depends on what, and why.

use crate::sources::{Source, none, read, sources};

/// The lines of a section of a manifest, without its head.
fn section<'a>(manifest: &'a str, head: &str) -> impl Iterator<Item = &'a str> {
    let (_, after) = manifest
        .split_once(&format!("{head}\n"))
        .unwrap_or(("", ""));
    after
        .split("\n[")
        .next()
        .unwrap_or_default()
        .lines()
        .filter(|line| line.contains('=') && !line.starts_with('#'))
}

#[test]
fn every_dependency_has_a_reason() {
    for (manifest, head) in [
        ("Cargo.toml", "[workspace.dependencies]"),
        ("tasks/Cargo.toml", "[workspace.dependencies]"),
        ("tests/fuzz/Cargo.toml", "[dependencies]"),
    ] {
        let text = read(manifest);
        let mut checked = 0;
        for line in section(&text, head).filter(|line| !line.contains("path = ")) {
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
}

/// Versions and features stand in one place: a member says `.workspace = true` and nothing else.
#[test]
fn members_take_their_dependencies_from_the_workspace() {
    let root = read("Cargo.toml");
    let (_, after) = root.split_once("\nmembers = [").unwrap();
    let members: Vec<&str> = after
        .split(']')
        .next()
        .unwrap()
        .split('"')
        .skip(1)
        .step_by(2)
        .collect();
    assert!(members.len() >= 7, "only {members:?} were found");
    for member in members.into_iter().chain(["."]) {
        let manifest = format!("{member}/Cargo.toml");
        let text = read(&manifest);
        for head in ["\n[dependencies]", "\n[dev-dependencies]"] {
            for line in section(&text, head) {
                assert!(line.contains(".workspace = true"), "{manifest}: `{line}`");
            }
        }
    }
}

/// The lines of a source before its tests, without comments.
fn code(source: &Source) -> Vec<&str> {
    source
        .product_lines()
        .map(|line| line.split("//").next().unwrap_or_default())
        .collect()
}

/// The names that a crate's manifest lists as its dependencies.
fn dependencies_of(member: &str) -> Vec<String> {
    let manifest = read(&format!("{member}/Cargo.toml"));
    section(&manifest, "\n[dependencies]")
        .map(|line| line.split(['.', ' ', '=']).next().unwrap().to_owned())
        .collect()
}

#[test]
fn no_crate_of_the_master_knows_one_above_it() {
    let ours =
        ["core", "store", "engine", "blobs", "master"].map(|name| format!("taskmaster-{name}"));
    for (member, allowed) in [
        ("master/core", &[][..]),
        ("master/store", &[]),
        ("master/blobs", &[]),
        ("master/engine", &["taskmaster-core", "taskmaster-store"]),
    ] {
        let mut known = dependencies_of(member);
        known.retain(|name| ours.contains(name));
        assert_eq!(known, allowed, "{member}");
    }
    let outside = ["axum", "notify", "object_store", "sled", "rustls", "hyper"];
    let engine = dependencies_of("master/engine");
    assert!(
        !outside
            .iter()
            .any(|name| engine.iter().any(|other| other == name)),
        "the engine opens no file and no socket: {engine:?}"
    );
}

#[test]
fn the_core_and_the_runners_session_are_pure() {
    for pure in ["master/core", "runner/session"] {
        assert_eq!(dependencies_of(pure), ["taskmaster-protocol"], "{pure}");
    }

    let is_pure = |source: &&Source| {
        let path = &source.path;
        (path.starts_with("master/core/src/") || path.starts_with("runner/session/src/"))
            && !path.ends_with("/tests.rs")
    };
    let mut checked = 0;
    let mut found = Vec::new();
    for source in sources().iter().filter(is_pure) {
        checked += 1;
        for (index, line) in code(source).into_iter().enumerate() {
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
                if line.contains(word) {
                    found.push(source.finding(index, word));
                }
            }
        }
    }
    none(
        &found,
        "this stands in what must be a function of its input",
    );
    assert!(checked >= 10, "only {checked} files were checked");
}
