//! What a runner offers to tasks.

use crate::{Capabilities, ModuleName};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

/// What a runner offers. Tasks and modules that need more are not sent to it.
#[derive(
    Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Default, Serialize, Deserialize, JsonSchema,
)]
pub struct Offer {
    /// The name of the runner, which it keeps as long as its process lives. `taskmaster up` uses
    /// the same name at every start.
    pub name: String,
    /// How many tasks of one slot the runner executes at the same time.
    pub slots: u32,
    /// Labels and their values, from `--label k=v`.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    /// Names from `--env NAME` that tasks may require.
    #[serde(default)]
    pub env: Vec<String>,
    /// As Rust names it, such as `linux` or `x86_64`.
    #[serde(default)]
    pub os: String,
    /// As Rust names it, such as `linux` or `x86_64`.
    #[serde(default)]
    pub arch: String,
    /// The memory of the machine, in MiB.
    #[serde(default)]
    pub memory_mb: u64,
    /// The only modules that the runner takes. Empty: all.
    #[serde(default)]
    pub modules: Vec<ModuleName>,
    /// What the runner gives to modules that may have it. Every runner with this field gives HTTP,
    /// whatever stands in `http`. Absent: the runner gives nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub capabilities: Option<Capabilities>,
}

impl Offer {
    /// The part of `wanted` that the runner does not offer.
    pub fn lacks(&self, wanted: &Capabilities) -> Capabilities {
        match &self.capabilities {
            None => wanted.clone(),
            Some(offered) => Capabilities {
                http: BTreeSet::new(),
                ..wanted.beyond(offered)
            },
        }
    }
}
