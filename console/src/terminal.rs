//! Text for a terminal. What a module, a feed or another machine wrote is anybody's, and a terminal
//! obeys what stands in it: it moves its cursor, renames its window, or shows letters in another
//! order than they stand in. Such text is kept back on a terminal, and goes raw into a pipe or a
//! file.

use std::borrow::Cow;
use std::fmt::Write;

/// Stands in the place of what is kept back.
const KEPT_BACK: char = '\u{fffd}';

/// Whether a terminal obeys this character, or orders the text around it by it: C0, DEL, C1, the
/// separators of lines and paragraphs, and the controls of direction.
pub fn is_obeyed(c: char) -> bool {
    c.is_control() || is_ordering(c)
}

/// Whether this character changes the order in which the text around it is shown.
fn is_ordering(c: char) -> bool {
    matches!(c,
        '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// Text of several lines as a terminal may have it: line breaks and tabs are as they were.
pub fn plain(text: &str) -> Cow<'_, str> {
    let is_kept_back = |c: char| is_obeyed(c) && c != '\n' && c != '\t';
    if !text.contains(is_kept_back) {
        return Cow::Borrowed(text);
    }
    // The line break of other systems is one, and no return to the beginning of the line.
    let text = text.replace("\r\n", "\n");
    Cow::Owned(text.replace(is_kept_back, KEPT_BACK.encode_utf8(&mut [0; 4])))
}

/// Bytes as a terminal may have them; what is no UTF-8 is kept back, too.
pub fn plain_bytes(bytes: &[u8]) -> Vec<u8> {
    let text = String::from_utf8_lossy(bytes);
    plain(&text).into_owned().into_bytes()
}

/// Text on one line, such as the cell of a table, wherever it goes.
pub fn one_line(text: &str) -> Cow<'_, str> {
    if text.contains(is_obeyed) {
        Cow::Owned(text.replace(is_obeyed, " "))
    } else {
        Cow::Borrowed(text)
    }
}

/// JSON on one line with the same value, in which nothing stands that a terminal obeys: such
/// characters stand in strings, where JSON has an escape for each.
pub fn json(json: &str) -> Cow<'_, str> {
    if !json.contains(is_obeyed) {
        return Cow::Borrowed(json);
    }
    let mut escaped = String::with_capacity(json.len());
    for c in json.chars() {
        match c {
            // Between tokens, where a blank does as well.
            '\n' | '\r' | '\t' => escaped.push(' '),
            // All of them have four digits at the most.
            c if is_obeyed(c) => drop(write!(escaped, "\\u{:04x}", u32::from(c))),
            c => escaped.push(c),
        }
    }
    Cow::Owned(escaped)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One of each kind that a terminal obeys.
    const OBEYED: [char; 9] = [
        '\u{1b}', '\u{7}', '\0', '\u{7f}', '\u{9b}', '\u{85}', '\u{202e}', '\u{2066}', '\u{2028}',
    ];

    #[test]
    fn nothing_that_a_terminal_obeys_comes_through() {
        for c in OBEYED {
            let text = format!("a{c}[31mb\n\tc");
            assert_eq!(plain(&text), "a\u{fffd}[31mb\n\tc", "{c:?}");
            assert_eq!(one_line(&text), "a [31mb  c", "{c:?}");
        }
        assert_eq!(plain("a\r\nb\rc\n"), "a\nb\u{fffd}c\n");
        assert_eq!(plain("größe 日本 👩‍👩‍👧"), "größe 日本 👩‍👩‍👧");
        assert_eq!(
            plain_bytes(b"a\xff\x9b1m"),
            "a\u{fffd}\u{fffd}1m".as_bytes()
        );
    }

    #[test]
    fn json_keeps_its_value() {
        for c in OBEYED.into_iter().filter(|c| u32::from(*c) >= 0x7f) {
            let text = format!("{{\"a\":\n \"x{c}y\"}}");
            let code = u32::from(c);
            assert_eq!(json(&text), format!("{{\"a\":  \"x\\u{code:04x}y\"}}"));
        }
        assert_eq!(json("{\"a\":1.50}"), "{\"a\":1.50}");
    }
}
