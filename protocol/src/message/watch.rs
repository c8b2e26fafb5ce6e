//! Events for watchers.

use crate::EventFilter;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// From a client: asks to be shown events. It replaces an earlier `watch` of the same connection.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Watch {
    /// Which events to show.
    #[serde(default)]
    pub filter: EventFilter,
    /// Shows every durable event after this number first. Absent: only events from now on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<u64>,
}

/// To a client: events that it will not be shown.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Gap {
    /// How many events were passed over.
    pub missed: u64,
    /// The number of the next durable event that will be shown. `watch` since one less goes on from
    /// there.
    pub resume: u64,
    /// `slow`, where live events came faster than they were read, or `pruned`, where durable events
    /// are no longer kept.
    pub reason: String,
}
