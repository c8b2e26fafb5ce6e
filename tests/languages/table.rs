//! The table of languages in docs/tasks.md: written from a run with `UPDATE=1`, else compared. Times
//! differ from machine to machine and are not compared. The rows, what a module may reach and its
//! size must be as they stand there.

use crate::expected::LANGUAGES;
use std::fmt::Write;
use std::path::Path;

/// A module of a language.
pub struct Row {
    pub language: &'static str,
    pub does: &'static str,
    pub kind: String,
    pub bytes: usize,
    pub build_s: f64,
    pub compile_ms: f64,
    pub warm_ms: f64,
    pub first_s: f64,
    pub reach: String,
}

/// Where the table stands.
const DOCUMENT: &str = "docs/tasks.md";

const BEGIN: &str = "<!-- languages: begin -->\n";
const END: &str = "<!-- languages: end -->\n";

/// How much a size may differ from what is written: compilers are replaced.
const SIZE_TOLERANCE: f64 = 0.25;

fn text(rows: &[Row]) -> String {
    let load = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let load = load.split('.').next().unwrap_or_default();
    let mut text = format!("Two languages at a time, on a machine with a load of {load}:\n\n");
    text.push_str(
        "| language | what its template does | kind | KiB | build, s | compile, ms | warm, ms | first result, s | may reach |\n|---|---|---|---|---|---|---|---|---|\n",
    );
    for row in rows {
        let Row {
            language,
            does,
            kind,
            bytes,
            build_s,
            compile_ms,
            warm_ms,
            first_s,
            reach,
        } = row;
        let kib = (bytes + 512) / 1024;
        let _ = writeln!(
            text,
            "| {language} | {does} | {kind} | {kib} | {build_s:.1} | {compile_ms:.0} | {warm_ms:.1} | {first_s:.1} | {reach} |"
        );
    }
    text
}

/// Compares the table with the one in [`DOCUMENT`], or writes it.
/// `played`: the languages of this run.
pub fn table(rows: &[Row], played: &[&str]) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(DOCUMENT);
    let document = std::fs::read_to_string(&path).unwrap();
    let (before, rest) = document
        .split_once(BEGIN)
        .expect("the mark where the table begins");
    let (stands, after) = rest.split_once(END).expect("the mark where the table ends");
    let new = text(rows);
    println!("{new}");
    if std::env::var("UPDATE").as_deref() == Ok("1") {
        assert_eq!(
            played.len(),
            LANGUAGES.len(),
            "the table is written from a run of all languages"
        );
        std::fs::write(&path, format!("{before}{BEGIN}{new}{END}{after}")).unwrap();
        return;
    }
    let cells = |line: &str| {
        line.split('|')
            .map(|cell| cell.trim().to_owned())
            .collect::<Vec<_>>()
    };
    let rows = |text: &str| {
        text.lines()
            .filter(|line| line.starts_with('|'))
            .map(cells)
            .collect::<Vec<_>>()
    };
    let new = rows(&new);
    // A run with some of the toolchains is compared with their languages only.
    let mut old = rows(stands);
    old.retain(|row| {
        let language = row[1].as_str();
        let is_head = language == "language" || language.starts_with('-');
        is_head || played.contains(&language)
    });
    assert_eq!(
        old.len(),
        new.len(),
        "{DOCUMENT} has another number of rows: UPDATE=1 writes the table anew"
    );
    for (old, new) in old.iter().zip(&new).skip(2) {
        for column in [1, 2, 3, 9] {
            assert_eq!(
                old[column], new[column],
                "{DOCUMENT} differs: UPDATE=1 writes the table anew"
            );
        }
        let (was, is) = (
            old[4].parse::<f64>().unwrap(),
            new[4].parse::<f64>().unwrap(),
        );
        assert!(
            (was - is).abs() <= was.max(4.0) * SIZE_TOLERANCE,
            "{}: {is} KiB, {DOCUMENT} says {was}",
            new[1]
        );
    }
}
