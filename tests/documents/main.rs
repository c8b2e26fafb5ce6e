//! The documents say what is so: what they name between backticks exists, their links lead
//! somewhere, their tables have what the types have, and the two that everybody reads stay short.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test: a broken promise ends it"
)]

mod command_line;
mod exceptions;
mod markdown;
mod repository;

use command_line::CommandLine;
use exceptions::EXCEPTIONS;
use markdown::{Document, documents};
use repository::Repository;
use std::path::Path;
use taskmaster_protocol::{FromMaster, ToMaster};

const ROOT: &str = env!("CARGO_MANIFEST_DIR");

/// Bytes of README.md: ten minutes of reading.
const README_BYTES_MAX: usize = 10 << 10;

/// Bytes of ARCHITECTURE.md: a map that needs a map of its own is none.
const ARCHITECTURE_BYTES_MAX: usize = 15 << 10;

/// Endings of names that are files.
const FILE_ENDINGS: &[&str] = &[
    "rs", "md", "toml", "txt", "wat", "wasm", "json", "jsonl", "py", "c", "h", "js", "cjs", "ts",
    "go", "zig", "wit", "svg", "png", "csv", "lock", "sha256",
];

fn read(name: &str) -> String {
    std::fs::read_to_string(Path::new(ROOT).join(name))
        .unwrap_or_else(|error| panic!("{name}: {error}"))
}

/// What is wrong with a token between backticks; `None`: nothing, or it is no name.
fn wrong(token: &str, repository: &Repository, commands: &CommandLine) -> Option<String> {
    if let Some(typed) = token.strip_prefix("taskmaster ") {
        return commands.wrong(typed);
    }
    if token.starts_with("--") {
        let option = token.split([' ', '=']).next().unwrap_or_default();
        return (!commands.has_option(option))
            .then(|| format!("no command has the option {option}"));
    }
    if token.contains("cargo ") {
        return wrong_cargo(token, repository);
    }
    if let Some(name) = first_of_path(token) {
        return (!repository.has_file(name)).then(|| format!("there is no file {name}"));
    }
    if let Some((of, name)) = rust_path(token) {
        return wrong_path(of, name, repository);
    }
    if is_identifier(token) && !repository.has_word(token) {
        return Some(format!("no source has the word {token}"));
    }
    let is_event = token
        .split_once(':')
        .is_some_and(|(group, name)| is_word(group) && is_word(name));
    (is_event && !repository.has_text(token)).then(|| format!("no source has {token}"))
}

/// The packages and tests that a cargo command names.
fn wrong_cargo(command: &str, repository: &Repository) -> Option<String> {
    let words: Vec<&str> = command.split_whitespace().collect();
    words.windows(2).find_map(|pair| {
        let name = pair[1];
        match pair[0] {
            "-p" if !repository.has_package(name) => Some(format!("there is no package {name}")),
            "--test" | "--example" if !repository.has_target(name) => {
                Some(format!("there is no test or example {name}"))
            }
            _ => None,
        }
    })
}

/// The token as a path, if it looks like one that is meant to be in this repository.
fn first_of_path(token: &str) -> Option<&str> {
    let strange = |c: char| c.is_whitespace() || "<>${}[]()\"'|:=…\\,;".contains(c);
    // What lies below target/ cargo has made.
    let is_elsewhere = token.starts_with(['/', '~', '-']) || token.starts_with("target/");
    if token.contains(strange) || is_elsewhere {
        return None;
    }
    let (stem, ending) = token.rsplit_once('.').unwrap_or((token, ""));
    let has_ending = FILE_ENDINGS.contains(&ending) && !stem.is_empty();
    (has_ending || token.contains('/')).then_some(token)
}

/// `Type::method`, `file::test_name`: its last two parts.
fn rust_path(token: &str) -> Option<(&str, &str)> {
    let (before, name) = token.rsplit_once("::")?;
    let of = before.rsplit("::").next().unwrap_or(before);
    let is_name = |c: char| c.is_alphanumeric() || "_*…".contains(c);
    (is_identifier(of) && name.chars().all(is_name)).then_some((of, name))
}

fn wrong_path(of: &str, name: &str, repository: &Repository) -> Option<String> {
    if !repository.has_word(of) && !repository.has_target(of) {
        return Some(format!("no source has the word {of}"));
    }
    let found = match name.strip_suffix(['*', '…']) {
        Some(beginning) => repository.has_word_from(beginning),
        None => repository.has_word(name),
    };
    (!found).then(|| format!("no source has the word {name}"))
}

fn is_identifier(token: &str) -> bool {
    !token.starts_with(|c: char| c.is_ascii_digit())
        && !token.is_empty()
        && token.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
}

fn is_word(token: &str) -> bool {
    !token.is_empty() && token.chars().all(|c| c.is_ascii_lowercase())
}

#[test]
fn everything_between_backticks_exists() {
    let repository = Repository::read(ROOT);
    let commands = CommandLine::ask(env!("CARGO_BIN_EXE_taskmaster"));
    let mut found = Vec::new();
    let mut checked = 0;
    for document in documents(ROOT) {
        for (line, token) in document.tokens() {
            checked += 1;
            let is_expected = EXCEPTIONS.iter().any(|(name, _)| *name == token);
            if let Some(why) = wrong(&token, &repository, &commands).filter(|_| !is_expected) {
                found.push(format!("{}:{line}: `{token}`: {why}", document.name));
            }
        }
    }
    assert!(checked > 1_000, "only {checked} tokens were found");
    for (name, reason) in EXCEPTIONS {
        if wrong(name, &repository, &commands).is_none() {
            found.push(format!(
                "the exception `{name}` ({reason}) is not needed: take it out"
            ));
        }
    }
    assert!(found.is_empty(), "{}", found.join("\n"));
}

#[test]
fn every_link_leads_somewhere() {
    let all = documents(ROOT);
    let mut broken = Vec::new();
    for document in &all {
        for (line, target) in document.links() {
            if let Some(why) = wrong_link(document, &target, &all) {
                broken.push(format!("{}:{line}: {target}: {why}", document.name));
            }
        }
    }
    assert!(broken.is_empty(), "{}", broken.join("\n"));
}

fn wrong_link(from: &Document, target: &str, all: &[Document]) -> Option<String> {
    if target.contains("://") {
        return None;
    }
    let (file, heading) = target.split_once('#').unwrap_or((target, ""));
    let name = if file.is_empty() {
        from.name.clone()
    } else {
        from.beside(file)
    };
    if !Path::new(ROOT).join(&name).exists() {
        return Some(format!("there is no {name}"));
    }
    if heading.is_empty() {
        return None;
    }
    let to = all.iter().find(|document| document.name == name);
    let known = to.is_some_and(|document| document.anchors().contains(heading));
    (!known).then(|| format!("{name} has no such heading"))
}

#[test]
fn the_documents_that_everybody_reads_are_short() {
    for (name, bytes_max) in [
        ("README.md", README_BYTES_MAX),
        ("ARCHITECTURE.md", ARCHITECTURE_BYTES_MAX),
    ] {
        let bytes = read(name).len();
        assert!(
            bytes <= bytes_max,
            "{name} has {bytes} bytes, at most {bytes_max} are good: move something to docs/"
        );
    }
}

/// The lines of the diagram of states in a text, without what stands before them.
fn diagram(text: &str, before: &str) -> Vec<String> {
    text.lines()
        .map(|line| line.strip_prefix(before).unwrap_or(line))
        .skip_while(|line| *line != "```text")
        .skip(1)
        .take_while(|line| *line != "```")
        .map(|line| line.trim_end().to_owned())
        .collect()
}

#[test]
fn the_diagram_of_states_is_that_of_the_core() {
    let drawn = diagram(&read("ARCHITECTURE.md"), "");
    assert!(drawn.len() > 4, "ARCHITECTURE.md has no diagram of states");
    assert_eq!(drawn, diagram(&read("master/core/src/state.rs"), "//! "));
}

#[test]
fn the_table_of_the_task_document_has_every_field() {
    let schema: serde_json::Value = serde_json::from_str(&read("protocol/asyncapi.json")).unwrap();
    let document = &schema["components"]["schemas"]["TaskDocument"]["properties"];
    let text = read("docs/feeding.md");
    let (_, section) = text.split_once("## The task document").unwrap();
    let section = section.split("\n## ").next().unwrap();
    let fields = document.as_object().expect("the fields of TaskDocument");
    assert!(fields.len() > 10, "the schema has {} fields", fields.len());
    for field in fields.keys() {
        assert!(
            section.contains(&format!("`{field}`")),
            "docs/feeding.md does not tell of the field `{field}`"
        );
    }
}

#[test]
fn the_matrix_of_messages_has_every_message() {
    let text = read("protocol/README.md");
    let (_, section) = text.split_once("## Who may say what").unwrap();
    let section = section.split("\n## ").next().unwrap();
    for event in ToMaster::EVENTS.iter().chain(FromMaster::EVENTS) {
        assert!(
            section.contains(&format!("`{event}`")),
            "protocol/README.md does not tell who may say `{event}`"
        );
    }
}
