//! What a runner must offer.

use super::bounds::{at_most, within};
use crate::{Refusal, limits};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// What a runner must offer to be sent the task. At most [`limits::REQUIRES_MAX`] names and labels
/// each; a name or value has at most [`limits::NAME_BYTES_MAX`] bytes.
#[derive(
    Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize, JsonSchema,
)]
#[serde(deny_unknown_fields)]
pub struct Requires {
    /// Names that the runner was started with (`--env NAME`).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub env: Vec<String>,
    /// Labels that the runner was started with, and their values (`--label k=v`).
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// The operating system of the runner, as Rust names it: `linux`, `macos`, `windows`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub os: Option<String>,
    /// The processor of the runner, as Rust names it: `x86_64`, `aarch64`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub arch: Option<String>,
    /// The least memory of the runner's machine, in MiB.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory_mb: Option<u64>,
    /// Slots that the task occupies while it runs. Absent: 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub slots: Option<u32>,
}

impl Requires {
    /// Whether any runner will do.
    pub fn is_empty(&self) -> bool {
        *self == Requires::default()
    }

    /// Slots that the task occupies while it runs.
    pub fn slots(&self) -> u32 {
        self.slots.unwrap_or(1)
    }

    /// Checks the bounds of every field.
    pub(super) fn check(&self) -> Result<(), Refusal> {
        at_most(
            "requires.labels",
            self.labels.len(),
            limits::REQUIRES_MAX,
            "entries",
        )?;
        at_most(
            "requires.env",
            self.env.len(),
            limits::REQUIRES_MAX,
            "entries",
        )?;
        let long = |text: &&String| text.len() > limits::NAME_BYTES_MAX;
        let texts = self
            .labels
            .iter()
            .flat_map(|(k, v)| [k, v])
            .chain(&self.env)
            .chain(&self.os)
            .chain(&self.arch);
        if let Some(text) = texts.into_iter().find(long) {
            at_most(
                "requires",
                text.len(),
                limits::NAME_BYTES_MAX,
                "bytes in one name or value",
            )?;
        }
        within(
            "requires.slots",
            self.slots.map(u64::from),
            1,
            u64::from(limits::SLOTS_MAX),
        )
    }
}
