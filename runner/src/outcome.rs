//! Turns the end of guest code into what the master is told: a result, or a failure of a named
//! kind.

use crate::fault::MachineFault;
use crate::sandbox::{GuestEnd, OutputFiles, RunReport};
use bytes::Bytes;
use std::collections::BTreeMap;
use std::time::Duration;
use taskmaster_protocol::message::{Attempt, Done, Failed, ResultRef};
use taskmaster_protocol::{ErrorKind, Hash, Json, TaskError, limits};
use taskmaster_runner_session::Ending;

/// Bytes of the last line of stderr that stand in a failure's message.
const LAST_LINE_BYTES_MAX: usize = 300;

/// Bytes of a component's own failure message that are told.
const MESSAGE_BYTES_MAX: usize = 4 << 10;

/// The exit code of a command that refuses its params: another try would fail again.
const BAD_PARAMS_CODE: i32 = 65;

/// A task's result.
#[derive(Debug, Clone, PartialEq)]
pub enum ResultValue {
    /// Text that is short enough to travel in the message.
    Inline(Json),
    /// Bytes that must be uploaded before the master is told.
    Blob(Bytes),
}

/// What the master is to be told of an attempt.
#[derive(Debug)]
#[allow(
    clippy::large_enum_variant,
    reason = "nearly every attempt is ready, and a box would be an allocation for each"
)]
pub enum Outcome {
    /// The ending can be told now.
    Ready(Ending),
    /// The success can be told when its bytes have been uploaded.
    Upload(Box<PendingUpload>),
    /// This machine has failed the attempt.
    Fault(Attempt, MachineFault),
}

/// A success, and what must be uploaded before the master is told.
#[derive(Debug)]
pub struct PendingUpload {
    /// The success, without its output files.
    pub done: Done,
    /// The result, where it is a blob.
    pub result: Option<Bytes>,
    /// The files that the task gives back.
    pub files: Option<OutputFiles>,
}

/// Reads stdout as a result. Empty stdout is `null`. JSON stays as it is, byte for byte. Other text
/// is a JSON string without one final newline. What is no text, or long, is a blob.
pub fn read_result(stdout: Vec<u8>) -> ResultValue {
    if stdout.len() > limits::RESULT_INLINE_BYTES_MAX {
        return ResultValue::Blob(stdout.into());
    }
    match String::from_utf8(stdout) {
        Ok(text) => ResultValue::Inline(text_result(&text)),
        Err(error) => ResultValue::Blob(error.into_bytes().into()),
    }
}

fn text_result(text: &str) -> Json {
    if text.chars().all(|c| c == '\n' || c == '\r') {
        return Json::null();
    }
    let trimmed = text.trim_matches([' ', '\t', '\r', '\n']);
    Json::parse(trimmed).unwrap_or_else(|_| Json::string(without_newline(text)))
}

fn without_newline(text: &str) -> &str {
    let text = text.strip_suffix('\n').unwrap_or(text);
    text.strip_suffix('\r').unwrap_or(text)
}

/// What to tell of `attempt`, which ran as `report` says.
pub fn outcome(attempt: Attempt, timeout: Duration, report: RunReport) -> Outcome {
    let follow_ups = report.follow_ups;
    let end = match (report.end, follow_ups.excess) {
        (GuestEnd::Exit(0), Some(excess)) => GuestEnd::Output(excess),
        (end, _) => end,
    };
    if let GuestEnd::Machine(fault) = end {
        return Outcome::Fault(attempt, fault);
    }
    if end != GuestEnd::Exit(0) {
        let last = last_words(&report.log.tail).or_else(|| last_words(&report.log.head));
        let error = failure(end, timeout, last.unwrap_or_default());
        return Outcome::Ready(Ending::Failed(Failed {
            id: attempt.id,
            attempt: attempt.attempt,
            error,
            started_us: report.started_us,
            stats: report.stats,
            log: report.log,
        }));
    }

    let (result, bytes) = match read_result(report.stdout) {
        ResultValue::Inline(json) => (ResultRef::Json(json), None),
        ResultValue::Blob(bytes) => (ResultRef::Blob(Hash::of(&bytes)), Some(bytes)),
    };
    let done = Done {
        id: attempt.id,
        attempt: attempt.attempt,
        result,
        outputs: BTreeMap::new(),
        started_us: report.started_us.unwrap_or_default(),
        stats: report.stats,
        cache_s: follow_ups.cache_s,
        log: report.log,
        adds: follow_ups.adds,
        then: follow_ups.then,
    };
    if bytes.is_none() && report.files.is_none() {
        return Outcome::Ready(Ending::Done(done));
    }
    Outcome::Upload(Box::new(PendingUpload {
        done,
        result: bytes,
        files: report.files,
    }))
}

/// The last line of a log. Of a Rust program that panicked, it is the line before the advice to set
/// a variable.
fn last_words(log: &str) -> Option<&str> {
    log.lines()
        .rfind(|line| !line.starts_with("note: run with `RUST_BACKTRACE"))
}

/// The failure that `end` is. `last` is the last line of the log, in which a program that ended
/// itself often says why.
pub fn failure(end: GuestEnd, timeout: Duration, last: &str) -> TaskError {
    let with_last = |what: String| match last.trim() {
        "" => what,
        last => format!("{what}: {}", cut(last, LAST_LINE_BYTES_MAX)),
    };
    match end {
        GuestEnd::Exit(code) => {
            let message = with_last(format!("exit code {code}"));
            TaskError {
                code: Some(code),
                ..TaskError::new(ErrorKind::Exit, message)
            }
        }
        GuestEnd::Trap(reason, backtrace) => TaskError {
            backtrace,
            ..TaskError::new(ErrorKind::Trap, with_last(reason))
        },
        GuestEnd::Timeout => {
            let limit_ms = timeout.as_millis();
            TaskError::new(
                ErrorKind::Timeout,
                format!("ran longer than its {limit_ms} ms (`timeout_ms`)"),
            )
        }
        GuestEnd::Memory(text) => TaskError::new(ErrorKind::Memory, text),
        GuestEnd::Cancelled => TaskError::new(ErrorKind::Cancelled, "cancelled while it ran"),
        GuestEnd::Module(text) => TaskError::new(ErrorKind::Module, text),
        GuestEnd::Output(text) => TaskError::new(ErrorKind::Output, text),
        GuestEnd::Input(text) => TaskError::new(ErrorKind::Input, text),
        GuestEnd::Machine(fault) => TaskError::new(ErrorKind::RunnerLost, fault.why),
        GuestEnd::Params(text) => TaskError {
            code: Some(BAD_PARAMS_CODE),
            ..TaskError::new(ErrorKind::Input, text)
        },
        GuestEnd::Failed(text, code) => {
            let message = match text.trim() {
                "" => "it failed and did not say why",
                text => cut(text, MESSAGE_BYTES_MAX),
            };
            TaskError {
                code: Some(code),
                ..TaskError::new(ErrorKind::Exit, message)
            }
        }
    }
}

fn cut(text: &str, bytes_max: usize) -> &str {
    &text[..text.floor_char_boundary(bytes_max)]
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
                read_result(stdout.into()),
                ResultValue::Inline(Json::parse(expected).unwrap()),
                "{stdout:?}"
            );
        }
        assert_eq!(
            read_result(vec![0xff, 1]),
            ResultValue::Blob(Bytes::from_static(&[0xff, 1]))
        );
        let large = vec![b'1'; limits::RESULT_INLINE_BYTES_MAX + 1];
        assert_eq!(read_result(large.clone()), ResultValue::Blob(large.into()));
    }

    #[test]
    fn failures_have_kinds_and_sentences() {
        let second = Duration::from_secs(1);
        for (end, kind, words) in [
            (
                GuestEnd::Exit(3),
                ErrorKind::Exit,
                "exit code 3: it went wrong",
            ),
            (
                GuestEnd::Trap("unreachable".into(), None),
                ErrorKind::Trap,
                "unreachable: it went wrong",
            ),
            (GuestEnd::Timeout, ErrorKind::Timeout, "1000 ms"),
            (GuestEnd::Cancelled, ErrorKind::Cancelled, "cancelled"),
            (
                GuestEnd::Params("field `params`".into()),
                ErrorKind::Input,
                "params",
            ),
            (
                GuestEnd::Failed(" ".into(), 1),
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
        assert_eq!(
            failure(GuestEnd::Exit(75), second, "").verdict(),
            Some(true)
        );
        assert_eq!(
            failure(GuestEnd::Failed("later".into(), 75), second, "").verdict(),
            Some(true)
        );
        assert_eq!(
            failure(GuestEnd::Failed("never".into(), 65), second, "").verdict(),
            Some(false)
        );
        assert_eq!(
            failure(GuestEnd::Params("no".into()), second, "").verdict(),
            Some(false)
        );
        assert_eq!(
            failure(GuestEnd::Input("no".into()), second, "").verdict(),
            None
        );
    }
}
