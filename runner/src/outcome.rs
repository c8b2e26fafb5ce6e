//! From how guest code ended to what the master is told: a result, or a failure of a named kind.

use crate::outputs::MadeFiles;
use crate::sandbox::{End, Report};
use bytes::Bytes;
use std::collections::BTreeMap;
use std::time::Duration;
use taskmaster_protocol::message::{Attempt, Done, Failed, ResultRef};
use taskmaster_protocol::{ErrorKind, Hash, Json, TaskError, limits};
use taskmaster_runner_session::Ending;

/// Characters of the last line of stderr that stand in a failure's message.
const LAST_LINE_MAX: usize = 300;

/// Bytes of what a component says of its failure.
const MESSAGE_BYTES_MAX: usize = 4 << 10;

/// What a task gave back.
#[derive(Debug, Clone, PartialEq)]
pub enum Output {
    /// Small, and text: travels with the message.
    Inline(Json),
    /// Must be put under its hash before anything is said.
    Blob(Bytes),
}

/// What is to be told of an attempt.
#[derive(Debug)]
#[allow(
    clippy::large_enum_variant,
    reason = "nearly every attempt is ready: a box would be an allocation for each"
)]
pub enum Outcome {
    /// This can be told now.
    Ready(Ending),
    /// This can be told when its bytes have been put.
    Upload(Box<Upload>),
}

/// A success, and what must be put before it can be told.
#[derive(Debug)]
pub struct Upload {
    /// The success, as far as it is known.
    pub done: Done,
    /// The result, where it is a blob.
    pub result: Option<Bytes>,
    /// The files that it gives back.
    pub files: Option<MadeFiles>,
}

/// Reads stdout as a result: empty is `null`; JSON as it is, byte for byte; other text as a JSON
/// string without one final newline; what is no text, or large, is a blob.
pub fn output(stdout: Vec<u8>) -> Output {
    if stdout.len() > limits::RESULT_INLINE_BYTES_MAX {
        return Output::Blob(stdout.into());
    }
    match String::from_utf8(stdout) {
        Ok(text) => Output::Inline(text_result(text)),
        Err(error) => Output::Blob(error.into_bytes().into()),
    }
}

fn text_result(text: String) -> Json {
    let trimmed = text.trim_matches([' ', '\t', '\r', '\n']);
    if trimmed.is_empty() && !text.contains(|c: char| c != '\n' && c != '\r') {
        // Nothing, or nothing but line ends.
        return Json::null();
    }
    Json::parse(trimmed).unwrap_or_else(|_| Json::string(without_newline(&text)))
}

fn without_newline(text: &str) -> &str {
    let text = text.strip_suffix('\n').unwrap_or(text);
    text.strip_suffix('\r').unwrap_or(text)
}

/// What to tell of `attempt`, which ran as `report` says.
pub fn outcome(attempt: Attempt, timeout: Duration, report: Report) -> Outcome {
    let Attempt { id, attempt } = attempt;
    let Report {
        end,
        stdout,
        files,
        log,
        wishes,
        stats,
        started_us,
    } = report;
    let end = match (end, wishes.excess) {
        (End::Exit(0), Some(excess)) => End::Output(excess),
        (end, _) => end,
    };
    if end != End::Exit(0) {
        let last = last_words(&log.tail).or_else(|| last_words(&log.head));
        let error = failure(end, timeout, last.unwrap_or_default());
        return Outcome::Ready(Ending::Failed(Failed {
            id,
            attempt,
            error,
            started_us,
            stats,
            log,
        }));
    }
    let started_us = started_us.unwrap_or_default();
    let (result, bytes) = match output(stdout) {
        Output::Inline(json) => (ResultRef::Json(json), None),
        Output::Blob(bytes) => (ResultRef::Blob(Hash::of(&bytes)), Some(bytes)),
    };
    let (adds, then) = (wishes.adds, wishes.then);
    let done = Done {
        id,
        attempt,
        result,
        outputs: BTreeMap::new(),
        started_us,
        stats,
        log,
        adds,
        then,
    };
    match (bytes, files) {
        (None, None) => Outcome::Ready(Ending::Done(done)),
        (result, files) => Outcome::Upload(Box::new(Upload {
            done,
            result,
            files,
        })),
    }
}

/// The last line of a log; of a Rust program that panicked, the one before its advice to set a
/// variable.
fn last_words(log: &str) -> Option<&str> {
    log.lines()
        .rfind(|line| !line.starts_with("note: run with `RUST_BACKTRACE"))
}

/// The failure that `end` is. `last` is the last line of the log: what a program that ended itself
/// said of it.
pub fn failure(end: End, timeout: Duration, last: &str) -> TaskError {
    let told = |what: String| match last.trim() {
        "" => what,
        last => format!(
            "{what}: {}",
            &last[..last.floor_char_boundary(LAST_LINE_MAX)]
        ),
    };
    match end {
        End::Exit(code) => {
            let message = told(format!("exit code {code}"));
            TaskError {
                code: Some(code),
                ..TaskError::new(ErrorKind::Exit, message)
            }
        }
        End::Trap(reason, backtrace) => TaskError {
            backtrace,
            ..TaskError::new(ErrorKind::Trap, told(reason))
        },
        End::Timeout => {
            let limit = timeout.as_millis();
            TaskError::new(
                ErrorKind::Timeout,
                format!("ran longer than its {limit} ms (`timeout_ms`)"),
            )
        }
        End::Memory(text) => TaskError::new(ErrorKind::Memory, text),
        End::Cancelled => TaskError::new(ErrorKind::Cancelled, "cancelled while it ran"),
        End::Module(text) => TaskError::new(ErrorKind::Module, text),
        End::Output(text) => TaskError::new(ErrorKind::Output, text),
        End::Input(text) => TaskError::new(ErrorKind::Input, text),
        // The same code as for a command that says that its input is wrong: no other try would find
        // it right.
        End::Params(text) => TaskError {
            code: Some(65),
            ..TaskError::new(ErrorKind::Input, text)
        },
        End::Failed(text, code) => {
            let text = if text.trim().is_empty() {
                "it failed and did not say why"
            } else {
                text.trim()
            };
            let message = &text[..text.floor_char_boundary(MESSAGE_BYTES_MAX)];
            TaskError {
                code: Some(code),
                ..TaskError::new(ErrorKind::Exit, message)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stdout_is_json_text_or_bytes() {
        for (stdout, expected) in [
            ("", "null"),
            ("\n", "null"),
            (" \t", "\" \\t\""),
            ("{\"b\":1.50,\"a\":1e400}\n", "{\"b\":1.50,\"a\":1e400}"),
            (" [1, 2] \r\n", "[1, 2]"),
            ("hello\n\n", "\"hello\\n\""),
            ("hello\r\n", "\"hello\""),
            ("1 2", "\"1 2\""),
            ("NaN", "\"NaN\""),
            ("\"text\"", "\"text\""),
            ("\u{feff}1", "\"\u{feff}1\""),
        ] {
            assert_eq!(
                output(stdout.into()),
                Output::Inline(Json::parse(expected).unwrap()),
                "{stdout:?}"
            );
        }
        assert_eq!(
            output(vec![0xff, 1]),
            Output::Blob(Bytes::from_static(&[0xff, 1]))
        );
        let large = vec![b'1'; limits::RESULT_INLINE_BYTES_MAX + 1];
        assert_eq!(output(large.clone()), Output::Blob(large.into()));
    }

    #[test]
    fn failures_have_kinds_and_sentences() {
        let second = Duration::from_secs(1);
        for (end, kind, words) in [
            (End::Exit(3), ErrorKind::Exit, "exit code 3: it went wrong"),
            (
                End::Trap("unreachable".into(), None),
                ErrorKind::Trap,
                "unreachable: it went wrong",
            ),
            (End::Timeout, ErrorKind::Timeout, "1000 ms"),
            (End::Cancelled, ErrorKind::Cancelled, "cancelled"),
            (
                End::Params("field `params`".into()),
                ErrorKind::Input,
                "params",
            ),
            (
                End::Failed(" ".into(), 1),
                ErrorKind::Exit,
                "did not say why",
            ),
        ] {
            let error = failure(end, second, "it went wrong");
            assert_eq!(error.kind, kind);
            assert!(error.message.contains(words), "{}", error.message);
        }
        let panicked = "thread 'main' panicked at src/main.rs:3:5:\nboom\nnote: run with `RUST_BACKTRACE=1` …\n";
        assert_eq!(last_words(panicked), Some("boom"));
        assert_eq!(failure(End::Exit(75), second, "").verdict(), Some(true));
        assert_eq!(
            failure(End::Failed("later".into(), 75), second, "").verdict(),
            Some(true)
        );
        assert_eq!(
            failure(End::Failed("never".into(), 65), second, "").verdict(),
            Some(false)
        );
        assert_eq!(
            failure(End::Params("no".into()), second, "").verdict(),
            Some(false)
        );
        assert_eq!(failure(End::Input("no".into()), second, "").verdict(), None);
    }
}
