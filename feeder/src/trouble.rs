//! What can go wrong for a client, and the exit code that tells a script which of it did.

use serde_json::json;
use std::fmt;
use taskmaster_protocol::{Refusal, RefusalCode, TaskState};

/// Exit codes of every client command.
pub mod exit {
    /// All is well.
    pub const OK: u8 = 0;
    /// An error; also lines of a feed that were refused.
    pub const ERROR: u8 = 1;
    /// The command line cannot be understood.
    pub const USAGE: u8 = 2;
    /// A task that was waited for failed or was skipped.
    pub const FAILED: u8 = 3;
    /// None failed, but some were cancelled.
    pub const CANCELLED: u8 = 4;
    /// `--wait-timeout` passed.
    pub const TIMEOUT: u8 = 5;
    /// Refused because no runner could ever qualify.
    pub const NO_RUNNER: u8 = 6;
    /// No master answers.
    pub const UNREACHABLE: u8 = 69;
}

/// Why a command did not do what it should.
#[derive(Debug, Clone)]
pub enum Trouble {
    /// No master could be reached; the sentence says where and how to start one.
    Unreachable(String),
    /// The link broke. Whatever can connect again does so; the others end with "unreachable".
    Lost(String),
    /// The master, or a check of ours that stands for it, said no.
    Refused(Box<Refusal>),
    /// The command line is wrong in a way that its parser cannot see.
    Usage(String),
    /// Something on this machine: a file, a pipe.
    Local(String),
    /// `--wait-timeout` passed.
    TimedOut(String),
    /// Whoever read stdout has gone: nothing to say, nothing left to do.
    PipeClosed,
}

impl Trouble {
    /// A refusal of our own.
    pub fn refused(code: RefusalCode, message: impl Into<String>) -> Trouble {
        Trouble::Refused(Box::new(Refusal::new(code, message)))
    }

    /// The exit code that stands for it.
    pub fn exit_code(&self) -> u8 {
        match self {
            Trouble::Unreachable(_) | Trouble::Lost(_) => exit::UNREACHABLE,
            Trouble::Refused(_) | Trouble::Local(_) => exit::ERROR,
            Trouble::Usage(_) => exit::USAGE,
            Trouble::TimedOut(_) => exit::TIMEOUT,
            Trouble::PipeClosed => exit::OK,
        }
    }

    /// The line that scripts read: `{"error":{code,message,field,line}}`.
    pub fn to_json(&self) -> String {
        let code = match self {
            Trouble::Refused(refusal) => return refusal_json(refusal),
            Trouble::Unreachable(_) | Trouble::Lost(_) => "unreachable",
            Trouble::Usage(_) => "usage",
            Trouble::Local(_) => "local",
            Trouble::TimedOut(_) => "wait_timeout",
            Trouble::PipeClosed => "pipe_closed",
        };
        json!({"error": {"code": code, "message": self.to_string(), "field": null, "line": null}})
            .to_string()
    }
}

/// A refusal as the line that scripts read; `field` and `line` are always there, `null` where there
/// is none.
pub fn refusal_json(refusal: &Refusal) -> String {
    let Refusal {
        code,
        message,
        field,
        line,
        ..
    } = refusal;
    json!({"error": {"code": code, "message": message, "field": field, "line": line}}).to_string()
}

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Trouble::Unreachable(text)
            | Trouble::Usage(text)
            | Trouble::Local(text)
            | Trouble::TimedOut(text) => f.write_str(text),
            Trouble::Lost(why) => write!(f, "the connection to the master broke: {why}"),
            Trouble::Refused(refusal) => write!(f, "{refusal}"),
            Trouble::PipeClosed => f.write_str("stdout was closed"),
        }
    }
}

impl std::error::Error for Trouble {}

impl From<Refusal> for Trouble {
    fn from(refusal: Refusal) -> Trouble {
        Trouble::Refused(Box::new(refusal))
    }
}

impl From<std::io::Error> for Trouble {
    fn from(error: std::io::Error) -> Trouble {
        match error.kind() {
            std::io::ErrorKind::BrokenPipe => Trouble::PipeClosed,
            _ => Trouble::Local(error.to_string()),
        }
    }
}

/// How waiting for tasks ended, as counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Endings {
    /// With a result.
    pub done: u64,
    /// Without one.
    pub failed: u64,
    /// Because a dependency ended otherwise.
    pub skipped: u64,
    /// Because somebody said so.
    pub cancelled: u64,
}

impl Endings {
    /// Counts one ended task; an open state counts nothing.
    pub fn count(&mut self, state: TaskState) {
        match state {
            TaskState::Done => self.done += 1,
            TaskState::Failed => self.failed += 1,
            TaskState::Skipped => self.skipped += 1,
            TaskState::Cancelled => self.cancelled += 1,
            _ => {}
        }
    }

    /// How many have ended.
    pub fn total(&self) -> u64 {
        self.done + self.failed + self.skipped + self.cancelled
    }

    /// 3 where any failed or was skipped, 4 where none did but some were cancelled, else 0.
    pub fn exit_code(&self) -> u8 {
        match self {
            Endings {
                failed: 0,
                skipped: 0,
                cancelled: 0,
                ..
            } => exit::OK,
            Endings {
                failed: 0,
                skipped: 0,
                ..
            } => exit::CANCELLED,
            _ => exit::FAILED,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endings_decide_the_exit_code() {
        for (states, code) in [
            (vec![], exit::OK),
            (vec![TaskState::Done], exit::OK),
            (vec![TaskState::Done, TaskState::Cancelled], exit::CANCELLED),
            (vec![TaskState::Cancelled, TaskState::Skipped], exit::FAILED),
            (vec![TaskState::Failed, TaskState::Cancelled], exit::FAILED),
            (vec![TaskState::Ready], exit::OK),
        ] {
            let mut endings = Endings::default();
            states.iter().for_each(|state| endings.count(*state));
            assert_eq!(endings.exit_code(), code, "{states:?}");
        }
    }

    #[test]
    fn an_error_for_scripts_is_one_line_with_all_four_fields() {
        let refusal = Refusal::new(RefusalCode::UnknownField, "unknown field `prams`").at("prams");
        let text = Trouble::from(Refusal {
            line: Some(3),
            ..refusal
        })
        .to_json();
        let value: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(value["error"]["code"], "unknown_field");
        assert_eq!(value["error"]["line"], 3);
        assert_eq!(value["error"]["field"], "prams");
        assert!(!text.contains('\n'));
        assert_eq!(Trouble::Usage("x".into()).exit_code(), exit::USAGE);
        assert_eq!(Trouble::Lost("x".into()).exit_code(), exit::UNREACHABLE);
    }
}
