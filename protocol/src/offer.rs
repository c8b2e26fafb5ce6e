//! What a runner offers to the tasks that it takes.

use crate::{Capabilities, ModuleName};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

/// What a runner offers.
#[derive(
    Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Default, Serialize, Deserialize, JsonSchema,
)]
pub struct Offer {
    /// Its name, the same as long as its process lives; `up` uses the same name at every start.
    pub name: String,
    /// Room for this many one-slot tasks at a time.
    pub slots: u32,
    /// `--label k=v`.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    /// Names that it was started to offer (`--env NAME`).
    #[serde(default)]
    pub env: Vec<String>,
    /// As Rust names it.
    #[serde(default)]
    pub os: String,
    /// As Rust names it.
    #[serde(default)]
    pub arch: String,
    /// Memory of the machine, MiB.
    #[serde(default)]
    pub memory_mb: u64,
    /// The only modules that it takes; empty: all.
    #[serde(default)]
    pub modules: Vec<ModuleName>,
    /// What it gives to modules that may have it; HTTP is given by every runner that has this
    /// field. Absent: nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub capabilities: Option<Capabilities>,
}

impl Offer {
    /// What of `wanted` it does not offer.
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
