//! What can go wrong between a client and a master.

use taskmaster_protocol::Refusal;
use thiserror::Error;

/// Why the conversation with a master failed.
#[derive(Debug, Clone, Error)]
pub enum ClientError {
    /// None of the addresses is that of a master, or the token is none, by its form alone. Nothing
    /// was connected.
    #[error("{0}")]
    InvalidUrl(String),
    /// No master answered within the time that was given. A later try may help.
    #[error(
        "no master answers at {addresses} ({reason}): start one with `taskmaster up`, \
         or say with --url or TASKMASTER_URL where one is"
    )]
    Unreachable {
        /// All addresses that were tried, comma-separated.
        addresses: String,
        /// What the last try came to.
        reason: String,
    },
    /// The connection broke, or the master was silent for too long. [`Client::reconnect`] makes a
    /// new connection; what was sent and not answered must be sent again.
    ///
    /// [`Client::reconnect`]: super::Client::reconnect
    #[error("the connection to the master broke: {0}")]
    Lost(String),
    /// The master refuses the request, or the client as a whole (a wrong token, another version of
    /// the protocol). Trying again is of no use.
    #[error("{0}")]
    Refused(Box<Refusal>),
    /// Something answers at the address that is not a master.
    #[error("{0}")]
    NotAMaster(String),
    /// The master's answer is not of the form that this version of the client knows.
    #[error("the master's answer cannot be read: {0}")]
    Unreadable(String),
}

impl From<Refusal> for ClientError {
    fn from(refusal: Refusal) -> ClientError {
        ClientError::Refused(Box::new(refusal))
    }
}
