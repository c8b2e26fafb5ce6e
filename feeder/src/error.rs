//! Why a client command did not do what it should: as a sentence for people, as a line of JSON for
//! scripts, and as an exit code.

use crate::client::ClientError;
use crate::exit;
use crate::fetch::OutputFetchError;
use serde_json::json;
use taskmaster_protocol::{Refusal, RefusalCode};
use taskmaster_transport::BlobError;
use thiserror::Error;

/// Why a command did not do what it should.
#[derive(Debug, Error)]
pub enum CommandError {
    /// The conversation with the master failed.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// A module or another blob could not be moved to or from the master.
    #[error(transparent)]
    Blob(#[from] BlobError),
    /// A file that a task gave back could not be brought to this machine.
    #[error(transparent)]
    Fetch(#[from] OutputFetchError),
    /// A check of the client's own found what the master would refuse, or found a wrong result.
    #[error("{0}")]
    Refused(Box<Refusal>),
    /// The command line is wrong in a way that its parser cannot see.
    #[error("{0}")]
    Usage(String),
    /// Something on this machine failed: a file, a pipe, a program.
    #[error("{0}")]
    Local(String),
    /// `--wait-timeout` passed. The task or job goes on.
    #[error("{0}")]
    TimedOut(String),
    /// A signal came while the command waited. What was waited for goes on.
    #[error("{text}")]
    Interrupted {
        /// The number of the signal.
        signal: u8,
        /// What goes on, and what to type.
        text: String,
    },
    /// The program that read stdout has ended, so nobody wants the rest.
    #[error("stdout was closed")]
    PipeClosed,
}

impl CommandError {
    /// A refusal of the client's own.
    pub(crate) fn refused(code: RefusalCode, message: impl Into<String>) -> CommandError {
        CommandError::from(Refusal::new(code, message))
    }

    /// The exit code that stands for this error; see [`exit`].
    pub fn exit_code(&self) -> u8 {
        match self {
            CommandError::Client(ClientError::Unreachable { .. } | ClientError::Lost(_)) => {
                exit::UNREACHABLE
            }
            CommandError::Client(ClientError::InvalidUrl(_)) | CommandError::Usage(_) => {
                exit::USAGE
            }
            CommandError::Client(
                ClientError::Refused(_) | ClientError::NotAMaster(_) | ClientError::Unreadable(_),
            )
            | CommandError::Blob(_)
            | CommandError::Fetch(_)
            | CommandError::Refused(_)
            | CommandError::Local(_) => exit::ERROR,
            CommandError::TimedOut(_) => exit::TIMEOUT,
            CommandError::Interrupted { signal, .. } => exit::SIGNALLED.saturating_add(*signal),
            CommandError::PipeClosed => exit::PIPE_CLOSED,
        }
    }

    /// The line that scripts read: `{"error":{code,message,field,line}}`.
    pub(crate) fn to_json(&self) -> String {
        let code = match self {
            CommandError::Refused(refusal)
            | CommandError::Client(ClientError::Refused(refusal)) => return refusal_json(refusal),
            CommandError::Client(ClientError::Unreachable { .. } | ClientError::Lost(_)) => {
                "unreachable"
            }
            CommandError::Client(ClientError::InvalidUrl(_)) | CommandError::Usage(_) => "usage",
            CommandError::Client(ClientError::NotAMaster(_) | ClientError::Unreadable(_))
            | CommandError::Blob(_)
            | CommandError::Fetch(_)
            | CommandError::Local(_) => "local",
            CommandError::TimedOut(_) => "wait_timeout",
            CommandError::Interrupted { .. } => "interrupted",
            CommandError::PipeClosed => "pipe_closed",
        };
        let message = self.to_string();
        json!({"error": {"code": code, "message": message, "field": null, "line": null}})
            .to_string()
    }
}

/// A refusal as the line that scripts read. `field` and `line` are always there, `null` where the
/// refusal names none.
pub(crate) fn refusal_json(refusal: &Refusal) -> String {
    let Refusal {
        code,
        message,
        field,
        line,
        ..
    } = refusal;
    json!({"error": {"code": code, "message": message, "field": field, "line": line}}).to_string()
}

impl From<Refusal> for CommandError {
    fn from(refusal: Refusal) -> CommandError {
        CommandError::Refused(Box::new(refusal))
    }
}

impl From<std::io::Error> for CommandError {
    fn from(error: std::io::Error) -> CommandError {
        match error.kind() {
            std::io::ErrorKind::BrokenPipe => CommandError::PipeClosed,
            _ => CommandError::Local(error.to_string()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_for_scripts_is_one_line_with_all_four_fields() {
        let refusal = Refusal {
            line: Some(3),
            ..Refusal::new(RefusalCode::UnknownField, "unknown field `prams`").at("prams")
        };
        for error in [
            CommandError::from(refusal.clone()),
            CommandError::from(ClientError::from(refusal)),
        ] {
            let text = error.to_json();
            let value: serde_json::Value = serde_json::from_str(&text).unwrap();
            assert_eq!(value["error"]["code"], "unknown_field");
            assert_eq!(value["error"]["line"], 3);
            assert_eq!(value["error"]["field"], "prams");
            assert!(!text.contains('\n'));
        }
        let usage = CommandError::Usage("x".into());
        assert_eq!(usage.exit_code(), exit::USAGE);
        let lost = CommandError::from(ClientError::Lost("x".into()));
        assert_eq!(lost.exit_code(), exit::UNREACHABLE);
    }
}
