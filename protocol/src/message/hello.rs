//! The first message of a connection, and its answer.

use crate::Offer;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What kind of peer says `hello`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// Executes tasks.
    Runner,
    /// Adds tasks, asks, watches, follows: every client that is no runner.
    Client,
}

/// The first message of every connection.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Hello {
    /// What the client is.
    pub role: Role,
    /// The version of the protocol that it speaks.
    pub protocol: u32,
    /// The token, where the master wants one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token: Option<String>,
    /// The session to go on with: a name that the client made, the same across its reconnects.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session: Option<String>,
    /// What a runner offers; runners only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub runner: Option<Offer>,
}

/// The master's answer to `hello`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Welcome {
    /// The version of the protocol that will be spoken.
    pub protocol: u32,
    /// How many times a master has started on this journal.
    pub epoch: u32,
    /// The seq of the last event that is durable: what to follow from.
    pub seq: u64,
    /// The largest message that the master takes, bytes.
    pub message_bytes_max: u64,
    /// The largest batch that the master takes, tasks.
    pub batch_tasks_max: u64,
    /// The address of the master that leads; this one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub leader: Option<String>,
}
