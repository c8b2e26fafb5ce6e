//! Where in params a mistake is. serde knows the line and the column at which it gave up; which
//! field that is can be read from the text before it. (A deserializer that keeps the path along
//! would double the code of every type.)

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

/// The path of the value that ended last, or that is being read, at the end of `json`.
fn path(json: &[u8]) -> String {
    // One part for each array or object that is open: `[1]`, `.width`; empty until its first name.
    let mut parts: Vec<String> = Vec::new();
    let mut indices: Vec<Option<usize>> = Vec::new();
    let mut names = false;
    let mut at = 0;
    while let Some(&byte) = json.get(at) {
        at += 1;
        match byte {
            b'{' => {
                names = true;
                (parts.push(String::new()), indices.push(None));
            }
            b'[' => {
                names = false;
                (parts.push("[0]".to_owned()), indices.push(Some(0)));
            }
            b'}' | b']' => {
                names = false;
                (parts.pop(), indices.pop());
            }
            b',' => match indices.last_mut() {
                Some(Some(index)) => {
                    *index += 1;
                    let part = format!("[{index}]");
                    parts.pop();
                    parts.push(part);
                }
                _ => names = true,
            },
            b'"' => {
                let from = at;
                while json.get(at).is_some_and(|byte| *byte != b'"') {
                    at += if json.get(at) == Some(&b'\\') { 2 } else { 1 };
                }
                if names {
                    let name = json.get(from..at.min(json.len())).unwrap_or_default();
                    parts.pop();
                    parts.push(format!(".{}", String::from_utf8_lossy(name)));
                    names = false;
                }
                at += 1;
            }
            _ => {}
        }
    }
    parts.concat()
}
