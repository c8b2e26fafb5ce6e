//! Text as it may be shown: without line breaks where a line is promised, and numbers, spans and
//! times for people. `taskmaster_console::terminal` has what a terminal may not be given.

use std::borrow::Cow;
use unicode_width::{UnicodeWidthChar, UnicodeWidthStr};

/// JSON on one line. A raw line break in JSON stands only between tokens, where a blank does as
/// well.
pub fn one_line(json: &str) -> Cow<'_, str> {
    if json.bytes().any(|byte| byte == b'\n' || byte == b'\r') {
        Cow::Owned(json.replace(['\n', '\r'], " "))
    } else {
        Cow::Borrowed(json)
    }
}

/// The columns that a terminal needs for a text without control characters.
pub fn columns(text: &str) -> usize {
    text.width()
}

/// Text that fits into `columns`, with `…` at its end where something was cut.
pub fn clip(text: &str, columns: usize) -> Cow<'_, str> {
    if text.width() <= columns {
        return Cow::Borrowed(text);
    }
    let mut left = columns.saturating_sub(1);
    let mut short = String::new();
    for c in text.chars() {
        let width = c.width().unwrap_or(0);
        if width > left {
            break;
        }
        left -= width;
        short.push(c);
    }
    short.push('…');
    Cow::Owned(short)
}

/// A number with commas between its thousands: `1,234,567`.
pub fn thousands(number: u64) -> String {
    let digits = number.to_string();
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
pub fn bytes(count: u64) -> String {
    match count {
        0..1_024 => format!("{count} B"),
        1_024..1_048_576 => format!("{:.1} KiB", count as f64 / 1_024.0),
        _ => format!("{:.1} MiB", count as f64 / 1_048_576.0),
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
    fn json_comes_on_one_line() {
        assert_eq!(one_line("{\"a\":\n 1}\r\n"), "{\"a\":  1}  ");
    }

    #[test]
    fn text_is_cut_by_the_columns_that_it_takes() {
        assert_eq!(clip("abcdef", 4), "abc…");
        assert_eq!(clip("äöü", 3), "äöü");
        assert_eq!(clip("日本語", 6), "日本語");
        assert_eq!(clip("日本語", 5), "日本…");
        assert_eq!(clip("日本語", 4), "日…");
    }

    #[test]
    fn numbers_and_spans_are_written_for_people() {
        assert_eq!(
            [0, 999, 1_000, 1_234_567].map(thousands),
            ["0", "999", "1,000", "1,234,567"]
        );
        assert_eq!(
            [12, 2_048, 3 << 20].map(bytes),
            ["12 B", "2.0 KiB", "3.0 MiB"]
        );
        assert_eq!(
            [12, 1_500, 2_000_000, 61_000_000].map(span),
            ["12 µs", "1.5 ms", "2.0 s", "1m01s"]
        );
    }
}
