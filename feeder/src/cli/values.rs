//! Values of options that clap has no type for. Their errors are sentences with an example.

use std::time::Duration;
use taskmaster_protocol::time::parse_duration_us;

/// A time span as people type it: `250ms`, `10s`, `1h30m`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Span(u64);

impl Span {
    /// In milliseconds, rounded up: `--task-timeout 1us` is not "no time at all".
    pub fn ms(self) -> u64 {
        self.0.div_ceil(1_000)
    }

    /// As tokio takes it.
    pub fn duration(self) -> Duration {
        Duration::from_micros(self.0)
    }
}

impl std::str::FromStr for Span {
    type Err = String;
    fn from_str(text: &str) -> Result<Span, String> {
        parse_duration_us(text).map(Span)
    }
}

/// `name=value`, parted at the first `=`.
pub fn pair(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
        _ => Err(format!("`{text}` is not name=value, such as REGION=eu")),
    }
}

/// An RFC 3339 time.
pub fn time(text: &str) -> Result<taskmaster_protocol::Wall, String> {
    taskmaster_protocol::Wall::parse(text)
}

/// A state of a task; an unknown one is answered with the near ones.
pub fn state(text: &str) -> Result<taskmaster_protocol::TaskState, String> {
    use taskmaster_protocol::{TaskState, near};
    let known = TaskState::ALL.map(TaskState::as_str);
    TaskState::ALL
        .into_iter()
        .find(|state| state.as_str() == text)
        .ok_or_else(|| {
            let hint = near::hint(text, known);
            format!(
                "`{text}` is no state of a task{hint}; the states are {}",
                known.join(", ")
            )
        })
}
