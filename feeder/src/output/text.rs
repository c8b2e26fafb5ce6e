//! Text as it may be shown: without line breaks where a line is promised, without control
//! characters where a terminal would obey them. Both come from modules and feeds, so from anybody.

use std::borrow::Cow;

/// JSON text on one line. A raw line break in JSON can only stand between tokens, where a blank
/// does as well.
pub fn one_line(json: &str) -> Cow<'_, str> {
    if json.bytes().any(|byte| byte == b'\n' || byte == b'\r') {
        Cow::Owned(json.replace(['\n', '\r'], " "))
    } else {
        Cow::Borrowed(json)
    }
}

/// Text without control characters other than line breaks and tabs.
pub fn plain(text: &str) -> Cow<'_, str> {
    let obeyed = |c: char| c.is_control() && c != '\n' && c != '\t';
    if text.contains(obeyed) {
        Cow::Owned(text.replace(obeyed, "\u{fffd}"))
    } else {
        Cow::Borrowed(text)
    }
}

/// Text for one cell of a table: one line, no control characters.
pub fn cell(text: &str) -> Cow<'_, str> {
    if text.contains(char::is_control) {
        Cow::Owned(text.replace(char::is_control, " "))
    } else {
        Cow::Borrowed(text)
    }
}

/// At most `width` characters, the last one `…` where something was cut.
pub fn clip(text: &str, width: usize) -> Cow<'_, str> {
    if text.chars().count() <= width {
        return Cow::Borrowed(text);
    }
    let mut short: String = text.chars().take(width.saturating_sub(1)).collect();
    short.push('…');
    Cow::Owned(short)
}

/// A number with its thousands parted: `1,234,567`.
pub fn thousands(n: u64) -> String {
    let digits = n.to_string();
    let mut out = String::with_capacity(digits.len() * 4 / 3);
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// A count of bytes for people.
pub fn bytes(n: u64) -> String {
    match n {
        0..1_024 => format!("{n} B"),
        1_024..1_048_576 => format!("{:.1} KiB", n as f64 / 1_024.0),
        _ => format!("{:.1} MiB", n as f64 / 1_048_576.0),
    }
}

/// A time span for people, from microseconds.
pub fn span(us: u64) -> String {
    match us {
        0..1_000 => format!("{us} µs"),
        1_000..1_000_000 => format!("{:.1} ms", us as f64 / 1e3),
        1_000_000..60_000_000 => format!("{:.1} s", us as f64 / 1e6),
        _ => format!("{}m{:02}s", us / 60_000_000, us / 1_000_000 % 60),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_that_a_terminal_obeys_comes_through() {
        assert_eq!(one_line("{\"a\":\n 1}\r\n"), "{\"a\":  1}  ");
        assert_eq!(plain("a\u{1b}[31mb\nc"), "a\u{fffd}[31mb\nc");
        assert_eq!(cell("a\tb\nc\u{7}"), "a b c ");
    }

    #[test]
    fn numbers_are_written_for_people() {
        assert_eq!(clip("abcdef", 4), "abc…");
        assert_eq!(clip("äöü", 3), "äöü");
        assert_eq!(
            [
                thousands(0),
                thousands(999),
                thousands(1_000),
                thousands(1_234_567)
            ],
            ["0", "999", "1,000", "1,234,567"]
        );
        assert_eq!(
            [bytes(12), bytes(2_048), bytes(3 << 20)],
            ["12 B", "2.0 KiB", "3.0 MiB"]
        );
        assert_eq!(
            [span(12), span(1_500), span(2_000_000), span(61_000_000)],
            ["12 µs", "1.5 ms", "2.0 s", "1m01s"]
        );
    }
}
