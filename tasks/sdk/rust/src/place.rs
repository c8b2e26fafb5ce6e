//! Where in params a mistake is. serde knows the line and the column at which it gave up; the field
//! is read from the text before that place. A deserializer that keeps the path along would double
//! the code of every type.

/// The mistake with its field: `params.rows[1].width: invalid type: string "8", expected u8`.
pub(crate) fn named(json: &str, error: &serde_json::Error) -> String {
    let text = error.to_string();
    let text = text
        .rsplit_once(" at line ")
        .map_or(text.as_str(), |(text, _)| text);
    let path = path(
        json.as_bytes()
            .get(..offset(json, error))
            .unwrap_or(json.as_bytes()),
    );
    format!("params{path}: {text}")
}

/// How many bytes serde had read. Columns are counted in bytes, from 1.
fn offset(json: &str, error: &serde_json::Error) -> usize {
    let before: usize = json
        .split_inclusive('\n')
        .take(error.line().saturating_sub(1))
        .map(str::len)
        .sum();
    (before + error.column()).min(json.len())
}

/// An array or object that is open.
enum Open {
    /// The index of the item that is being read, from 0.
    Array(usize),
    /// The name of the member that is being read as it stands in the text; empty before the first
    /// one.
    Object(String),
}

/// The path of the value that ended last, or that is being read, at the end of `json`.
fn path(json: &[u8]) -> String {
    let mut open: Vec<Open> = Vec::new();
    let mut at = 0;
    // Whether the next string is the name of a member.
    let mut name_comes = false;
    while let Some(&byte) = json.get(at) {
        at += 1;
        match byte {
            b'{' => {
                name_comes = true;
                open.push(Open::Object(String::new()));
            }
            b'[' => {
                name_comes = false;
                open.push(Open::Array(0));
            }
            b'}' | b']' => {
                name_comes = false;
                open.pop();
            }
            b',' => match open.last_mut() {
                Some(Open::Array(index)) => *index += 1,
                Some(Open::Object(_)) | None => name_comes = true,
            },
            b'"' => {
                let end = end_of_string(json, at);
                if name_comes {
                    let text = json.get(at..end).unwrap_or_default();
                    let name = String::from_utf8_lossy(text).into_owned();
                    open.pop();
                    open.push(Open::Object(name));
                    name_comes = false;
                }
                at = end + 1;
            }
            _ => {}
        }
    }
    let parts: Vec<String> = open
        .iter()
        .map(|open| match open {
            Open::Array(index) => format!("[{index}]"),
            Open::Object(name) if name.is_empty() => String::new(),
            Open::Object(name) => format!(".{name}"),
        })
        .collect();
    parts.concat()
}

/// The closing quote of the string whose first character is at `at`, or the end of the text.
fn end_of_string(json: &[u8], mut at: usize) -> usize {
    while json.get(at).is_some_and(|byte| *byte != b'"') {
        at += if json.get(at) == Some(&b'\\') { 2 } else { 1 };
    }
    at.min(json.len())
}
