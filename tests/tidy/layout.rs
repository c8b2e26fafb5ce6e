//! Where things are, how large they are, and what must not be left in them.

use crate::LINES_MAX;
use crate::sources::{files, none, read, sources};

#[test]
fn no_source_is_too_long() {
    let mut found = Vec::new();
    for source in sources() {
        let lines = source.text.lines().count();
        if lines > LINES_MAX {
            found.push(source.finding(lines - 1, format!("{lines} lines")));
        }
    }
    none(&found, &format!("{LINES_MAX} lines at most are good"));
}

#[test]
fn every_room_is_named_for_what_is_in_it() {
    for path in files() {
        for part in path.iter().map(|part| part.to_string_lossy()) {
            let stem = part.split('.').next().unwrap_or_default();
            let vague = matches!(
                stem,
                "util" | "utils" | "common" | "helper" | "helpers" | "manager" | "misc"
            );
            assert!(
                !vague,
                "{}: `{part}` says nothing of what it is for",
                path.display()
            );
        }
    }
}

#[test]
fn nothing_is_left_for_later() {
    // In parts, so that this file does not find itself.
    let words = [["to", "do!"], ["unimple", "mented!"]].map(|parts| parts.concat());
    let mut found = Vec::new();
    for source in sources() {
        for (index, line) in source.text.lines().enumerate() {
            if words.iter().any(|word| line.contains(word)) {
                found.push(source.finding(index, line.trim()));
            }
        }
    }
    none(&found, "this is left for later");
}

/// A test that cannot run everywhere is reported as ignored, never as passed.
#[test]
fn an_ignored_test_says_what_it_needs() {
    let ignore = ["#[ig", "nore"].concat();
    let good = format!("{ignore} = \"needs ");
    let mut found = Vec::new();
    for source in sources() {
        for (index, line) in source.text.lines().enumerate() {
            let line = line.trim();
            if line.starts_with(&ignore) && !line.starts_with(&good) {
                found.push(source.finding(index, line));
            }
        }
    }
    none(&found, &format!("write {good}…\"]"));
}

#[test]
fn documents_know_every_state() {
    let diagram: String = read("master/core/src/state.rs")
        .lines()
        .filter(|line| line.starts_with("//!"))
        .collect();
    let architecture = read("ARCHITECTURE.md");
    for state in [
        "blocked",
        "delayed",
        "ready",
        "assigned",
        "done",
        "failed",
        "cancelled",
        "skipped",
    ] {
        assert!(
            diagram.contains(state),
            "the diagram of state.rs has no `{state}`"
        );
        assert!(
            architecture.contains(state),
            "ARCHITECTURE.md does not tell of the state `{state}`"
        );
    }
}
