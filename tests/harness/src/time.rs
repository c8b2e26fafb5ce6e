//! Times as the binary prints them.

use serde_json::Value;

/// Microseconds since midnight of a time as it is printed, `2026-01-31T12:00:00.123456Z`; its form
/// is checked too.
#[track_caller]
pub fn micros(time: &Value) -> i64 {
    let text = time.as_str().unwrap_or_else(|| panic!("{time} is no time"));
    let form: String = text
        .chars()
        .map(|c| if c.is_ascii_digit() { '0' } else { c })
        .collect();
    assert_eq!(form, "0000-00-00T00:00:00.000000Z", "{text}");
    let number = |from: usize, to: usize| text[from..to].parse::<i64>().unwrap();
    ((number(11, 13) * 60 + number(14, 16)) * 60 + number(17, 19)) * 1_000_000 + number(20, 26)
}

/// Microseconds from one printed time to a later one, less than a day apart.
#[track_caller]
pub fn micros_between(from: &Value, to: &Value) -> i64 {
    (micros(to) - micros(from)).rem_euclid(86_400_000_000)
}
