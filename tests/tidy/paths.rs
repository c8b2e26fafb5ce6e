//! The paths in a Rust source that begin in its own crate: `crate::a::b`, `super::{a, b::c}`.

/// A path, and the line on which it begins, from 0.
#[derive(Debug, PartialEq)]
pub struct OwnPath {
    pub line: usize,
    pub parts: Vec<String>,
}

/// Every path of `lines` that begins with `crate`, `super` or `self`. A group in braces gives a
/// path for each of its members. Comments are no code, and text in quotes has no such paths.
pub fn own_paths<'a>(lines: impl Iterator<Item = &'a str>) -> Vec<OwnPath> {
    let code: Vec<&str> = lines
        .map(|line| line.split("//").next().unwrap_or_default())
        .collect();
    let text = code.join("\n");
    let mut found = Vec::new();
    for (at, _) in text.match_indices("::") {
        let before = &text[..at];
        let start = before.len() - last_word(before).len();
        let is_first = !before[..start].ends_with("::");
        if !is_first || !matches!(&before[start..], "crate" | "super" | "self") {
            continue;
        }
        let line = before.matches('\n').count();
        let mut paths = Vec::new();
        read(&text[start..], &mut Vec::new(), &mut paths);
        found.extend(paths.into_iter().map(|parts| OwnPath { line, parts }));
    }
    found
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

fn last_word(text: &str) -> &str {
    let end = text.trim_end_matches(is_word).len();
    &text[end..]
}

/// Reads the path at the beginning of `text` below `parents`, and gives what follows it.
fn read<'a>(text: &'a str, parents: &mut Vec<String>, found: &mut Vec<Vec<String>>) -> &'a str {
    let depth = parents.len();
    let mut rest = text;
    loop {
        if let Some(group) = rest.strip_prefix('{') {
            rest = read_group(group, parents, found);
            break;
        }
        let end = rest.find(|c| !is_word(c)).unwrap_or(rest.len());
        parents.push(rest[..end].to_owned());
        rest = &rest[end..];
        let Some(next) = rest.strip_prefix("::") else {
            found.push(parents.clone());
            break;
        };
        rest = next;
    }
    parents.truncate(depth);
    rest
}

/// Reads the members of a group behind its opening brace, and gives what follows the closing one.
fn read_group<'a>(
    text: &'a str,
    parents: &mut Vec<String>,
    found: &mut Vec<Vec<String>>,
) -> &'a str {
    let mut rest = text;
    loop {
        rest = rest.trim_start_matches(|c: char| c.is_whitespace() || c == ',');
        if let Some(after) = rest.strip_prefix('}') {
            return after;
        }
        if rest.is_empty() {
            return rest;
        }
        rest = read(rest, parents, found);
        // What follows is `as NAME`, `*`, or the next member.
        let end = rest.find([',', '}']).unwrap_or(rest.len());
        rest = &rest[end..];
    }
}

#[test]
fn groups_are_parted_and_other_paths_are_left_alone() {
    let text = "use super::{\n    a::{B, c::D as E},\n    f::*,\n};\nlet x = crate::g::h(1); // crate::no\nstd::crate_::i; other::super::j;";
    let found: Vec<(usize, String)> = own_paths(text.lines())
        .into_iter()
        .map(|path| (path.line, path.parts.join("::")))
        .collect();
    let expected = [
        (0, "super::a::B"),
        (0, "super::a::c::D"),
        (0, "super::f::"),
        (4, "crate::g::h"),
    ];
    assert_eq!(found, expected.map(|(line, path)| (line, path.to_owned())));
}
