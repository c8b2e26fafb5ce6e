//! Parts a stream of bytes into task documents while it is still coming: JSON lines, or the
//! elements of one JSON array.
//!
//! Pure: bytes in, documents out. The first byte that is not blank decides which of the two it is.
//! Whether a document is JSON is not decided here. What other systems write instead of a feed is
//! known by its form and refused once, and not line by line: UTF-16, and objects over several lines.

use taskmaster_protocol::{Refusal, RefusalCode};

/// One document, or why there is none in its place.
#[derive(Debug, PartialEq, Eq)]
pub struct FeedDocument {
    /// The line on which the document begins, from 1.
    pub line: u64,
    /// The text without blanks around it.
    pub text: Result<String, Refusal>,
}

/// Parts bytes into documents.
pub struct Splitter {
    mode: SplitMode,
    /// Bytes of the longest document. A longer one is passed over without being kept.
    document_bytes_max: usize,
    /// The line that the next byte is on.
    line: u64,
    /// What has come of the present document.
    part: Vec<u8>,
    /// The line on which the present document began.
    part_line: u64,
    /// Whether the present document is longer than the longest.
    is_too_long: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum SplitMode {
    /// Only blanks have come.
    Start,
    Lines,
    /// Within an object over several lines, which is refused. It has this many open brackets and
    /// braces.
    Spread {
        depth: usize,
    },
    /// What is no text in UTF-8 is passed over.
    Foreign,
    Array(ArrayState),
    /// Behind the array's end. What stands there is complained about once.
    AfterArray {
        has_complained: bool,
    },
}

/// Where the next byte of an array stands.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct ArrayState {
    /// Open brackets and braces within the present element.
    depth: usize,
    in_string: bool,
    /// Whether the byte before is a backslash that escapes the next one.
    is_escaped: bool,
    /// Elements that have ended.
    elements: u64,
}

impl Splitter {
    /// For documents of at most `document_bytes_max` bytes.
    pub fn new(document_bytes_max: usize) -> Splitter {
        Splitter {
            mode: SplitMode::Start,
            document_bytes_max,
            line: 1,
            part: Vec::new(),
            part_line: 1,
            is_too_long: false,
        }
    }

    /// Takes bytes that have come, and adds the documents that they complete to `out`.
    pub fn push(&mut self, mut bytes: &[u8], out: &mut Vec<FeedDocument>) {
        if self.mode == SplitMode::Start {
            bytes = self.start(bytes, out);
        }
        match self.mode {
            SplitMode::Start | SplitMode::Foreign => {}
            SplitMode::Lines | SplitMode::Spread { .. } => self.take_lines(bytes, out),
            SplitMode::Array(_) | SplitMode::AfterArray { .. } => {
                for byte in bytes {
                    self.take_array_byte(*byte, out);
                }
            }
        }
    }

    /// The input has ended: adds what it leaves incomplete to `out`.
    pub fn finish(&mut self, out: &mut Vec<FeedDocument>) {
        match self.mode {
            SplitMode::Lines | SplitMode::Spread { .. } => self.end_line(out),
            SplitMode::Array(_) => {
                let line = if self.part.is_empty() {
                    self.line
                } else {
                    self.part_line
                };
                out.push(malformed(
                    line,
                    "not JSON: the input ends inside an array, `]` is missing".into(),
                ));
            }
            SplitMode::Start | SplitMode::Foreign | SplitMode::AfterArray { .. } => {}
        }
    }

    /// Passes over blanks and a byte order mark, and decides what the input is. Gives the bytes
    /// that follow.
    fn start<'a>(&mut self, bytes: &'a [u8], out: &mut Vec<FeedDocument>) -> &'a [u8] {
        for (i, byte) in bytes.iter().enumerate() {
            match byte {
                b'\n' => self.line += 1,
                b' ' | b'\t' | b'\r' | 0xEF | 0xBB | 0xBF => {}
                // A byte order mark of UTF-16, or its first byte of an ASCII character.
                0xFF | 0xFE | 0 => {
                    self.refuse_utf16(out);
                    return &[];
                }
                b'[' => {
                    self.mode = SplitMode::Array(ArrayState::default());
                    return &bytes[i + 1..];
                }
                _ => {
                    self.mode = SplitMode::Lines;
                    self.part_line = self.line;
                    return &bytes[i..];
                }
            }
        }
        &[]
    }

    fn take_lines(&mut self, bytes: &[u8], out: &mut Vec<FeedDocument>) {
        let mut rest = bytes;
        while let Some(end) = rest.iter().position(|byte| *byte == b'\n') {
            self.keep(&rest[..end]);
            self.end_line(out);
            if self.mode == SplitMode::Foreign {
                return;
            }
            self.line += 1;
            self.part_line = self.line;
            rest = &rest[end + 1..];
        }
        self.keep(rest);
    }

    /// A line has ended that may be a document, or a part of an object over several lines.
    fn end_line(&mut self, out: &mut Vec<FeedDocument>) {
        // The second byte of an ASCII character in UTF-16.
        if self.part_line == 1 && self.part.get(1) == Some(&0) {
            self.refuse_utf16(out);
            return;
        }
        // Whoever writes JSON with indents begins an object with a line of its own, and never
        // another one in the first column before that has ended.
        let begins_another = self.part.starts_with(b"{") && self.part.trim_ascii() != b"{";
        match self.mode {
            SplitMode::Spread { depth } if !begins_another => {
                self.mode = match depth_after(depth, &self.part) {
                    0 => SplitMode::Lines,
                    depth => SplitMode::Spread { depth },
                };
                self.part.clear();
                self.is_too_long = false;
            }
            _ if self.part.trim_ascii() == b"{" => {
                self.mode = SplitMode::Spread { depth: 1 };
                self.part.clear();
                let text = "an object over several lines: a feed has one object on each line, \
                            which `jq -c .` writes";
                out.push(malformed(self.part_line, format!("not JSON: {text}")));
            }
            _ => {
                self.mode = SplitMode::Lines;
                self.end_document(out);
            }
        }
    }

    /// Refuses the whole input.
    fn refuse_utf16(&mut self, out: &mut Vec<FeedDocument>) {
        self.part.clear();
        self.mode = SplitMode::Foreign;
        let text = "the input is UTF-16, and a feed is UTF-8: convert it with \
                    `iconv -f UTF-16 -t UTF-8`, or write it as UTF-8";
        out.push(malformed(self.line, text.into()));
    }

    fn take_array_byte(&mut self, byte: u8, out: &mut Vec<FeedDocument>) {
        let line = self.line;
        if byte == b'\n' {
            self.line += 1;
        }
        match self.mode {
            SplitMode::Array(state) => self.take_element_byte(byte, line, state, out),
            SplitMode::AfterArray {
                has_complained: false,
            } if !is_blank(byte) => {
                self.mode = SplitMode::AfterArray {
                    has_complained: true,
                };
                out.push(malformed(
                    line,
                    "not JSON: there is more behind the end of the array".into(),
                ));
            }
            SplitMode::Start
            | SplitMode::Lines
            | SplitMode::Spread { .. }
            | SplitMode::Foreign
            | SplitMode::AfterArray { .. } => {}
        }
    }

    fn take_element_byte(
        &mut self,
        byte: u8,
        line: u64,
        mut state: ArrayState,
        out: &mut Vec<FeedDocument>,
    ) {
        if !state.in_string && state.depth == 0 && matches!(byte, b',' | b']') {
            self.end_element(byte, line, state.elements, out);
            return;
        }
        if self.is_before_document() {
            if is_blank(byte) {
                return;
            }
            if byte == 0 && state.elements == 0 {
                self.refuse_utf16(out);
                return;
            }
            self.part_line = line;
        }
        match byte {
            _ if state.is_escaped => state.is_escaped = false,
            b'\\' if state.in_string => state.is_escaped = true,
            b'"' => state.in_string = !state.in_string,
            b'{' | b'[' if !state.in_string => state.depth += 1,
            b'}' | b']' if !state.in_string => state.depth = state.depth.saturating_sub(1),
            _ => {}
        }
        self.mode = SplitMode::Array(state);
        self.keep(&[byte]);
    }

    /// A comma or the closing bracket of the array has come.
    fn end_element(&mut self, byte: u8, line: u64, elements: u64, out: &mut Vec<FeedDocument>) {
        if !self.is_before_document() {
            self.end_document(out);
        } else if byte == b',' || elements > 0 {
            let text = format!("not JSON: nothing stands before `{}`", byte as char);
            out.push(malformed(line, text));
        }
        self.mode = if byte == b',' {
            SplitMode::Array(ArrayState {
                elements: elements + 1,
                ..ArrayState::default()
            })
        } else {
            SplitMode::AfterArray {
                has_complained: false,
            }
        };
    }

    fn is_before_document(&self) -> bool {
        self.part.is_empty() && !self.is_too_long
    }

    fn keep(&mut self, bytes: &[u8]) {
        self.is_too_long |= self.part.len() + bytes.len() > self.document_bytes_max;
        if self.is_too_long {
            self.part.clear();
        } else {
            self.part.extend_from_slice(bytes);
        }
    }

    /// Adds the present document to `out`, unless it is blank, and begins the next.
    fn end_document(&mut self, out: &mut Vec<FeedDocument>) {
        let text = if std::mem::take(&mut self.is_too_long) {
            let max = self.document_bytes_max;
            let text =
                format!("the document is longer than {max} bytes; large input belongs in a file");
            Some(Err(Refusal::new(RefusalCode::TooLarge, text)))
        } else {
            match std::str::from_utf8(&self.part).map(without_mark) {
                Ok("") => None,
                Ok(text) => Some(Ok(text.to_owned())),
                Err(error) => {
                    let byte = error.valid_up_to() + 1;
                    let text = format!("not JSON: byte {byte} of it is not UTF-8");
                    Some(Err(Refusal::new(RefusalCode::MalformedJson, text)))
                }
            }
        };
        self.part.clear();
        out.extend(text.map(|text| FeedDocument {
            line: self.part_line,
            text,
        }));
    }
}

/// A document without the blanks around it, and without a byte order mark, which stands within a
/// feed where files with marks were joined.
fn without_mark(text: &str) -> &str {
    text.trim().trim_start_matches('\u{feff}').trim_start()
}

/// The open brackets and braces behind a line of an object over several lines. A string of JSON
/// never goes on over the end of a line.
fn depth_after(mut depth: usize, line: &[u8]) -> usize {
    let mut in_string = false;
    let mut is_escaped = false;
    for byte in line {
        match byte {
            _ if is_escaped => is_escaped = false,
            b'\\' if in_string => is_escaped = true,
            b'"' => in_string = !in_string,
            b'{' | b'[' if !in_string => depth += 1,
            b'}' | b']' if !in_string => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    depth
}

fn is_blank(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\r' | b'\n')
}

fn malformed(line: u64, text: String) -> FeedDocument {
    FeedDocument {
        line,
        text: Err(Refusal::new(RefusalCode::MalformedJson, text)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Bytes of the longest document in these tests.
    const MAX: usize = 64;

    fn split(input: &[u8], step: usize) -> Vec<FeedDocument> {
        let mut splitter = Splitter::new(MAX);
        let mut out = Vec::new();
        for chunk in input.chunks(step) {
            splitter.push(chunk, &mut out);
        }
        splitter.finish(&mut out);
        out
    }

    /// Pushes an input whole and in small steps: the documents must be these, by their lines. `!`
    /// begins words of a refusal.
    fn check(input: &[u8], expected: &[(u64, &str)]) {
        for step in [input.len().max(1), 1, 3] {
            let found = split(input, step);
            let shown = String::from_utf8_lossy(input);
            let count = expected.len();
            assert_eq!(found.len(), count, "{shown:?} by {step}: {found:?}");
            for (is, (line, text)) in found.iter().zip(expected) {
                let is_right = match (&is.text, text.strip_prefix('!')) {
                    (Ok(is), None) => is == text,
                    (Err(refusal), Some(words)) => refusal.message.contains(words),
                    (Ok(_), Some(_)) | (Err(_), None) => false,
                };
                let is_right = is_right && is.line == *line;
                assert!(
                    is_right,
                    "{shown:?} by {step}: {is:?}, not {text:?} on {line}"
                );
            }
        }
    }

    #[test]
    fn lines() {
        check(b"", &[]);
        check(b" \n\n", &[]);
        check(
            b"{\"a\":1}\n{\"b\":2}",
            &[(1, "{\"a\":1}"), (2, "{\"b\":2}")],
        );
        check(b"{}\r\n\r\n  {} \r\n", &[(1, "{}"), (3, "{}")]);
        check(b"\xEF\xBB\xBF{}\n", &[(1, "{}")]);
        check(
            b"nonsense\n{\"module\":",
            &[(1, "nonsense"), (2, "{\"module\":")],
        );
        check(
            b"{}\n\xff\xfe\n{}",
            &[(1, "{}"), (2, "!not UTF-8"), (3, "{}")],
        );
        check("{\"ü\":\"ß\"}\n".as_bytes(), &[(1, "{\"ü\":\"ß\"}")]);
    }

    #[test]
    fn an_object_over_several_lines_is_refused_once() {
        let spread = b"{\n  \"module\": \"echo\",\n  \"params\": {\n    \"a}\": [1]\n  }\n}\n";
        check(spread, &[(1, "!several lines")]);
        let two = [spread.as_slice(), b"{\"b\":2}\n", spread].concat();
        check(
            &two,
            &[
                (1, "!several lines"),
                (7, "{\"b\":2}"),
                (8, "!several lines"),
            ],
        );
        // One that is cut off takes no other document along.
        check(
            b"{\n  \"module\":\n{\"b\":2}\n",
            &[(1, "!several lines"), (3, "{\"b\":2}")],
        );
    }

    #[test]
    fn utf_16_is_refused_once_with_what_to_do() {
        let text = "{\"module\":\"echo\"}\n{\"module\":\"echo\"}\n";
        let array = "[{\"a\":1},\n{\"a\":2}]";
        for text in [text, array] {
            let units: Vec<u16> = text.encode_utf16().collect();
            let little: Vec<u8> = units.iter().flat_map(|unit| unit.to_le_bytes()).collect();
            let big: Vec<u8> = units.iter().flat_map(|unit| unit.to_be_bytes()).collect();
            for bytes in [little, big] {
                check(&bytes, &[(1, "!UTF-16")]);
            }
            let marked: Vec<u8> = [0xFEFF]
                .iter()
                .chain(&units)
                .flat_map(|unit| unit.to_le_bytes())
                .collect();
            check(&marked, &[(1, "!UTF-16")]);
        }
    }

    #[test]
    fn a_mark_within_the_input_is_passed_over() {
        check(
            b"\xEF\xBB\xBF{\"a\":1}\n\xEF\xBB\xBF{\"b\":2}\n",
            &[(1, "{\"a\":1}"), (2, "{\"b\":2}")],
        );
    }

    #[test]
    fn what_is_too_long_is_passed_over() {
        let long = format!("{{}}\n\"{}\"\n{{}}", "x".repeat(200));
        check(
            long.as_bytes(),
            &[(1, "{}"), (2, "!longer than 64"), (3, "{}")],
        );
        let long = format!("[{{}},\n\"{}\",{{}}]", "x".repeat(200));
        check(
            long.as_bytes(),
            &[(1, "{}"), (2, "!longer than 64"), (2, "{}")],
        );
    }

    #[test]
    fn arrays() {
        check(b"[]", &[]);
        check(b" \n[ ] \n", &[]);
        check(
            b"[{\"a\":[1,2]},{\"b\":\"],\\\"}\"}]",
            &[(1, "{\"a\":[1,2]}"), (1, "{\"b\":\"],\\\"}\"}")],
        );
        check(
            b"[\n {\"a\":\n  1},\n {}\n]\n",
            &[(2, "{\"a\":\n  1}"), (4, "{}")],
        );
        check(b"[1, \"x\"]", &[(1, "1"), (1, "\"x\"")]);
        check(b"[{},]", &[(1, "{}"), (1, "!nothing stands before `]`")]);
        check(b"[,{}]", &[(1, "!nothing stands before `,`"), (1, "{}")]);
        check(b"[{}\n,{\"a\":", &[(1, "{}"), (2, "!`]` is missing")]);
        check(b"[{}]\n{}{}", &[(1, "{}"), (2, "!behind the end")]);
        check(b"[", &[(1, "!`]` is missing")]);
    }
}
