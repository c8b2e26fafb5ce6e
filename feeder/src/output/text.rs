//! Text as it may be shown: without line breaks where a line is promised, and without control
//! characters where a terminal would obey them. Such characters come from modules and feeds, so
//! from anybody.

use std::borrow::Cow;
use taskmaster_protocol::Wall;
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

/// Text without control characters other than line breaks and tabs.
pub fn plain(text: &str) -> Cow<'_, str> {
    let is_obeyed = |c: char| c.is_control() && c != '\n' && c != '\t';
    if text.contains(is_obeyed) {
        Cow::Owned(text.replace(is_obeyed, "\u{fffd}"))
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

/// A time for people: UTC, to the second. Empty where there is none.
pub fn moment(time: Option<Wall>) -> String {
    let Some(time) = time else {
        return String::new();
    };
    let shown = time.to_string().replace('T', " ");
    shown.chars().take("2026-01-31 12:00:00".len()).collect()
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
    fn text_is_cut_by_the_columns_that_it_takes() {
        assert_eq!(clip("abcdef", 4), "abc…");
        assert_eq!(clip("äöü", 3), "äöü");
        assert_eq!(clip("日本語", 6), "日本語");
        assert_eq!(clip("日本語", 5), "日本…");
        assert_eq!(clip("日本語", 4), "日…");
    }

    #[test]
    fn numbers_and_times_are_written_for_people() {
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
        assert_eq!(moment(Some(Wall(0))), "1970-01-01 00:00:00");
        assert_eq!(moment(None), "");
    }
}
