//! Parts a stream of bytes into task documents while it is still coming: JSON lines, or the
//! elements of one JSON array.
//!
//! Pure: bytes in, pieces out. Which of the two it is, the first byte that is not blank decides.
//! Whether a piece is JSON is not decided here.

use taskmaster_protocol::{Refusal, RefusalCode};

/// One document, or why there is none at that place.
#[derive(Debug, PartialEq, Eq)]
pub struct Piece {
    /// The line on which it begins, from 1.
    pub line: u64,
    /// The text without blanks around it.
    pub text: Result<String, Refusal>,
}

/// See the module's text.
pub struct Splitter {
    mode: Mode,
    /// The longest document, bytes; what is longer is passed over without being kept.
    max: usize,
    /// The line that the next byte is on.
    line: u64,
    /// What has come of the present document, and the line on which it began.
    part: Vec<u8>,
    part_line: u64,
    too_long: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mode {
    /// Only blanks so far.
    Start,
    Lines,
    Array {
        depth: usize,
        string: bool,
        escaped: bool,
        elements: u64,
    },
    /// Behind the array's end; `true` once something there was complained about.
    End(bool),
}

impl Splitter {
    /// For documents of at most `max` bytes.
    pub fn new(max: usize) -> Splitter {
        Splitter {
            mode: Mode::Start,
            max,
            line: 1,
            part: Vec::new(),
            part_line: 1,
            too_long: false,
        }
    }

    /// Takes what has come and gives what is complete.
    pub fn push(&mut self, mut bytes: &[u8], out: &mut Vec<Piece>) {
        if self.mode == Mode::Start {
            bytes = self.start(bytes);
        }
        match self.mode {
            Mode::Start => {}
            Mode::Lines => self.lines(bytes, out),
            Mode::Array { .. } | Mode::End(_) => {
                bytes.iter().for_each(|byte| self.element_byte(*byte, out))
            }
        }
    }

    /// The input has ended: gives what was not complete.
    pub fn finish(&mut self, out: &mut Vec<Piece>) {
        match self.mode {
            Mode::Lines => self.end_piece(out),
            Mode::Array { .. } => {
                let refusal = Refusal::new(
                    RefusalCode::MalformedJson,
                    "not JSON: the input ends inside an array, `]` is missing",
                );
                let line = if self.part.is_empty() {
                    self.line
                } else {
                    self.part_line
                };
                out.push(Piece {
                    line,
                    text: Err(refusal),
                });
            }
            Mode::Start | Mode::End(_) => {}
        }
    }

    /// Passes over blanks and a byte order mark; decides what the input is.
    fn start<'a>(&mut self, bytes: &'a [u8]) -> &'a [u8] {
        for (i, byte) in bytes.iter().enumerate() {
            match byte {
                b'\n' => self.line += 1,
                b' ' | b'\t' | b'\r' | 0xEF | 0xBB | 0xBF => {}
                b'[' => {
                    self.mode = Mode::Array {
                        depth: 0,
                        string: false,
                        escaped: false,
                        elements: 0,
                    };
                    return &bytes[i + 1..];
                }
                _ => {
                    self.mode = Mode::Lines;
                    self.part_line = self.line;
                    return &bytes[i..];
                }
            }
        }
        &[]
    }

    fn lines(&mut self, bytes: &[u8], out: &mut Vec<Piece>) {
        let mut rest = bytes;
        while let Some(end) = rest.iter().position(|byte| *byte == b'\n') {
            self.keep(&rest[..end]);
            self.end_piece(out);
            self.line += 1;
            self.part_line = self.line;
            rest = &rest[end + 1..];
        }
        self.keep(rest);
    }

    fn keep(&mut self, bytes: &[u8]) {
        self.too_long |= self.part.len() + bytes.len() > self.max;
        if self.too_long {
            self.part.clear();
        } else {
            self.part.extend_from_slice(bytes);
        }
    }

    /// Gives the present document, unless it is blank, and begins the next.
    fn end_piece(&mut self, out: &mut Vec<Piece>) {
        let text = if std::mem::take(&mut self.too_long) {
            let text = format!(
                "the document is longer than {} bytes; large input belongs in a file",
                self.max
            );
            Err(Refusal::new(RefusalCode::TooLarge, text))
        } else {
            match std::str::from_utf8(&self.part) {
                Ok(text) if text.trim().is_empty() => {
                    self.part.clear();
                    return;
                }
                Ok(text) => Ok(text.trim().to_owned()),
                Err(error) => {
                    let text = format!(
                        "not JSON: byte {} of it is not UTF-8",
                        error.valid_up_to() + 1
                    );
                    Err(Refusal::new(RefusalCode::MalformedJson, text))
                }
            }
        };
        self.part.clear();
        out.push(Piece {
            line: self.part_line,
            text,
        });
    }

    fn element_byte(&mut self, byte: u8, out: &mut Vec<Piece>) {
        let line = self.line;
        self.line += u64::from(byte == b'\n');
        let blank = matches!(byte, b' ' | b'\t' | b'\r' | b'\n');
        let Mode::Array {
            mut depth,
            mut string,
            mut escaped,
            elements,
        } = self.mode
        else {
            if self.mode == Mode::End(false) && !blank {
                self.mode = Mode::End(true);
                let refusal = Refusal::new(
                    RefusalCode::MalformedJson,
                    "not JSON: there is more behind the end of the array",
                );
                out.push(Piece {
                    line,
                    text: Err(refusal),
                });
            }
            return;
        };
        if !string && depth == 0 && matches!(byte, b',' | b']') {
            return self.end_element(byte, elements, line, out);
        }
        if self.part.is_empty() && !self.too_long {
            if blank {
                return;
            }
            self.part_line = line;
        }
        match byte {
            _ if escaped => escaped = false,
            b'\\' if string => escaped = true,
            b'"' => string = !string,
            b'{' | b'[' if !string => depth += 1,
            b'}' | b']' if !string => depth = depth.saturating_sub(1),
            _ => {}
        }
        self.mode = Mode::Array {
            depth,
            string,
            escaped,
            elements,
        };
        self.keep(&[byte]);
    }

    fn end_element(&mut self, byte: u8, elements: u64, line: u64, out: &mut Vec<Piece>) {
        if self.part.is_empty() && !self.too_long {
            if byte == b',' || elements > 0 {
                let refusal = Refusal::new(
                    RefusalCode::MalformedJson,
                    format!("not JSON: nothing stands before `{}`", byte as char),
                );
                out.push(Piece {
                    line,
                    text: Err(refusal),
                });
            }
        } else {
            self.end_piece(out);
        }
        self.mode = match byte {
            b',' => Mode::Array {
                depth: 0,
                string: false,
                escaped: false,
                elements: elements + 1,
            },
            _ => Mode::End(false),
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Each input is pushed whole and byte by byte: the pieces must be the same.
    fn check(input: &[u8], expected: &[(u64, &str)]) {
        for step in [input.len().max(1), 1, 3] {
            let (mut splitter, mut out) = (Splitter::new(64), Vec::new());
            input
                .chunks(step)
                .for_each(|chunk| splitter.push(chunk, &mut out));
            splitter.finish(&mut out);
            let shown: Vec<(u64, String)> = out
                .into_iter()
                .map(|piece| {
                    (
                        piece.line,
                        piece.text.unwrap_or_else(|r| format!("!{}", r.message)),
                    )
                })
                .collect();
            let shown: Vec<(u64, &str)> = shown
                .iter()
                .map(|(line, text)| (*line, text.as_str()))
                .collect();
            let input = String::from_utf8_lossy(input);
            assert_eq!(
                shown.len(),
                expected.len(),
                "{input:?} by {step}: {shown:?}"
            );
            for (is, should) in shown.iter().zip(expected) {
                assert!(
                    is.0 == should.0
                        && (is.1 == should.1
                            || is.1.starts_with('!')
                                && should.1.starts_with('!')
                                && is.1.contains(&should.1[1..])),
                    "{input:?} by {step}: {is:?}, not {should:?}"
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
