//! Events for watchers.

use crate::EventFilter;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// From a watcher: show me events.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Watch {
    /// Which.
    #[serde(default)]
    pub filter: EventFilter,
    /// Every durable event after this seq, then live ones; absent: from now on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<u64>,
}

/// To a watcher: events that it will not get.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Gap {
    /// How many durable or live events were passed over.
    pub missed: u64,
    /// The seq of the next durable event that will come: `watch` since one less to go on from
    /// there.
    pub resume: u64,
    /// `slow` (live events came faster than they were read) or `pruned` (durable ones are no longer
    /// kept).
    pub reason: String,
}
