//! Values of options that clap has no type for. Their errors are sentences with an example.

use crate::output::moments::now;
use std::time::Duration;
use taskmaster_protocol::time::parse_duration_us;
use taskmaster_protocol::{TaskState, Wall, near};

/// A time span as people type it: `250ms`, `10s`, `1h30m`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TimeSpan {
    us: u64,
}

impl TimeSpan {
    /// The span in milliseconds, rounded up: `--task-timeout 1us` is not "no time at all".
    pub fn ms(self) -> u64 {
        self.us.div_ceil(1_000)
    }

    /// The span as the standard library has it.
    pub fn duration(self) -> Duration {
        Duration::from_micros(self.us)
    }
}

impl std::str::FromStr for TimeSpan {
    type Err = String;

    fn from_str(text: &str) -> Result<TimeSpan, String> {
        parse_duration_us(text).map(|us| TimeSpan { us })
    }
}

/// Reads `name=value`, parted at the first `=`.
pub fn pair(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
        _ => Err(format!("`{text}` is not name=value, such as REGION=eu")),
    }
}

/// Reads an RFC 3339 time.
pub fn time(text: &str) -> Result<Wall, String> {
    Wall::parse(text)
}

/// A time in the past: one that is named, or one that is so long ago.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PastTime {
    /// The time.
    At(Wall),
    /// How long ago it is.
    Ago(TimeSpan),
}

impl PastTime {
    /// The time, by the clock of this machine.
    pub fn wall(self) -> Wall {
        match self {
            PastTime::At(time) => time,
            PastTime::Ago(span) => {
                let us = i64::try_from(span.us).unwrap_or(i64::MAX);
                Wall(now().0.saturating_sub(us))
            }
        }
    }
}

/// Reads an RFC 3339 time, or a time span, which counts back from now.
pub fn past_time(text: &str) -> Result<PastTime, String> {
    if let Ok(span) = text.parse() {
        return Ok(PastTime::Ago(span));
    }
    Wall::parse(text).map(PastTime::At).map_err(|_| {
        format!(
            "`{text}` is no time: give one as 2026-12-01T09:30:00Z, or how long ago it is, as 2h"
        )
    })
}

/// Reads the state of a task. The error of an unknown one has the names that are near.
pub fn state(text: &str) -> Result<TaskState, String> {
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
