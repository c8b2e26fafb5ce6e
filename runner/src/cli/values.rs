//! How values on the command line are read.

use std::time::Duration;
use taskmaster_protocol::time::parse_duration_us;

/// A duration such as `1h30m`.
pub fn duration(text: &str) -> Result<Duration, String> {
    parse_duration_us(text).map(Duration::from_micros)
}

/// `key=value`. The value may hold `=` and may be empty.
pub fn pair(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err(format!("`{text}` is not of the form key=value")),
    }
}
