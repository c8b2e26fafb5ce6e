//! The first message of a connection, and its answer.

use crate::Offer;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What kind of peer says `hello`. It decides which events the peer may send.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// A peer that executes tasks.
    Runner,
    /// A peer that adds tasks, asks, watches or follows: every peer that is no runner.
    Client,
}

/// The first message of every connection, within
/// [`HELLO_MS_MAX`](crate::limits::HELLO_MS_MAX) milliseconds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Hello {
    /// What kind of peer the sender is.
    pub role: Role,
    /// The version of the protocol that the sender speaks.
    pub protocol: u32,
    /// The secret of the master. Absent where the master wants none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token: Option<String>,
    /// A name that the sender makes up and keeps across its reconnects, so that the master goes on
    /// with the same session. At most 128 bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session: Option<String>,
    /// What the sender offers. Present if and only if the role is `runner`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub runner: Option<Offer>,
}

/// The answer of the master to `hello`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Welcome {
    /// The version of the protocol that both sides will speak.
    pub protocol: u32,
    /// How many times a master has started on this journal, from 1.
    pub epoch: u32,
    /// The number of the last event that is durable. To follow from here on, give it as `since`.
    pub seq: u64,
    /// The largest message that the master accepts, in bytes.
    pub message_bytes_max: u64,
    /// The largest batch that the master accepts, in tasks.
    pub batch_tasks_max: u64,
    /// Reserved for the address of the master that leads. No master sends it today.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub leader: Option<String>,
}
