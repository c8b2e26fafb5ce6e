//! As much reading of formatted Rust as the rules of style need.

/// Whether a line is a comment from its beginning on.
pub fn is_comment(line: &str) -> bool {
    line.trim_start().starts_with("//")
}

/// Whether a line has code on it.
pub fn is_code(line: &str) -> bool {
    !line.trim().is_empty() && !is_comment(line)
}

/// The words of a comment's line, without its slashes.
pub fn comment(line: &str) -> &str {
    line.trim_start()
        .trim_start_matches('/')
        .trim_start_matches('!')
        .trim()
}

/// The text after `pub`, `pub(crate)` and the like.
fn after_visibility(text: &str) -> &str {
    let Some(rest) = text.strip_prefix("pub") else {
        return text;
    };
    match rest.strip_prefix('(') {
        Some(scope) => scope.split_once(')').map_or("", |(_, rest)| rest),
        None if rest.starts_with(' ') => rest,
        None => return text,
    }
    .trim_start()
}

fn name(text: &str) -> &str {
    let end = text.find(|c: char| !c.is_alphanumeric() && c != '_');
    &text[..end.unwrap_or(text.len())]
}

/// The name of the type that a line without indentation declares.
pub fn type_name(line: &str) -> Option<&str> {
    let item = after_visibility(line);
    ["struct ", "enum ", "trait ", "type "]
        .iter()
        .find_map(|keyword| item.strip_prefix(keyword))
        .map(name)
}

/// Whether a line begins a field with a name and a type.
pub fn is_field(line: &str) -> bool {
    let inside = line.trim_start();
    let field = after_visibility(inside);
    let name = name(field);
    let begins_small = name.starts_with(|c: char| c.is_lowercase() || c == '_');
    line.starts_with(' ') && begins_small && field[name.len()..].starts_with(": ")
}

/// The index of the last line of the function that begins at `index`; `None`: no function with a
/// body begins there. In formatted code its closing brace stands where it begins.
pub fn function_end(lines: &[&str], index: usize) -> Option<usize> {
    let line = lines[index];
    let indent = line.len() - line.trim_start().len();
    let mut item = after_visibility(line.trim_start());
    for word in ["default ", "const ", "async ", "unsafe ", "extern \"C\" "] {
        item = item.strip_prefix(word).unwrap_or(item);
    }
    item.strip_prefix("fn ")?;
    for (later, line) in lines.iter().enumerate().skip(index) {
        let stands_there = line.len() - line.trim_start().len() == indent;
        if !stands_there {
            continue;
        }
        if line.ends_with(';') {
            return None;
        }
        let one_line = later == index && line.ends_with('}');
        if one_line || line.trim() == "}" {
            return Some(later);
        }
    }
    None
}

/// Whether `text` begins with a binding of several names to a tuple of as many expressions.
pub fn is_packing(text: &str) -> bool {
    let Some(pattern) = text.strip_prefix("let (") else {
        return false;
    };
    let Some((inside, rest)) = closed(pattern) else {
        return false;
    };
    let value = rest.trim_start();
    let value = match value.strip_prefix(':') {
        Some(typed) => typed.split_once('=').map_or("", |(_, value)| value),
        None => value.strip_prefix('=').unwrap_or_default(),
    };
    let Some(tuple) = value.trim_start().strip_prefix('(') else {
        return false;
    };
    let ends = closed(tuple).is_some_and(|(_, rest)| rest.trim_start().starts_with(';'));
    ends && inside.contains(',')
}

/// What stands before the parenthesis that closes one opened before `text`, and what follows it.
fn closed(text: &str) -> Option<(&str, &str)> {
    let mut open = 1;
    for (at, c) in text.char_indices() {
        match c {
            '(' => open += 1,
            ')' => open -= 1,
            _ => {}
        }
        if open == 0 {
            return Some((&text[..at], &text[at + 1..]));
        }
    }
    None
}

#[test]
fn packings_are_told_from_what_looks_like_them() {
    assert!(is_packing("let (a, b) = (1, 2);"));
    assert!(is_packing("let (mut a, b): (u8, u8) = (f(x), (1, 2));"));
    assert!(is_packing(
        "let (\n    long,\n    longer,\n) = (\n    1,\n    2,\n);"
    ));
    assert!(!is_packing("let (a, b) = f(1, 2);"));
    assert!(!is_packing("let (a, b) = (x + y).split();"));
    assert!(!is_packing("let a = (1, 2);"));
}

#[test]
fn functions_end_where_they_begin() {
    let text = "fn one() {\n    if x {\n    }\n}\npub(crate) async fn two() {}\nfn three(\n    a: u8,\n) -> u8;\nlet x = 1;";
    let lines: Vec<&str> = text.lines().collect();
    let ends: Vec<_> = (0..lines.len())
        .map(|index| function_end(&lines, index))
        .collect();
    assert_eq!(
        ends,
        [Some(3), None, None, None, Some(4), None, None, None, None]
    );
}

#[test]
fn types_and_fields_have_names() {
    assert_eq!(type_name("pub(crate) struct Runner<'a> {"), Some("Runner"));
    assert_eq!(type_name("type Bytes = Vec<u8>;"), Some("Bytes"));
    assert_eq!(type_name("public struct Runner;"), None);
    assert!(is_field("    pub(super) slots: u32,"));
    assert!(is_field("    r_1: Option<u8>,"));
    assert!(!is_field("    Variant {"));
    assert!(!is_field("    path::to(x);"));
}
