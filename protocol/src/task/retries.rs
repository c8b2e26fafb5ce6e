//! The policy of retries: when and how often a failed attempt is tried again.

use super::bounds::within;
use crate::{ErrorKind, Refusal, RefusalCode, TaskError, limits};
use schemars::JsonSchema;
use serde::de::{MapAccess, Visitor, value::MapAccessDeserializer};
use serde::{Deserialize, Deserializer, Serialize};
use std::fmt;

/// The policy of retries: when and how often a failed attempt is tried again.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
#[schemars(with = "RetriesText")]
pub struct Retries {
    /// How many attempts follow the first one. At most 1,000,000.
    pub max: u32,
    /// Milliseconds before the first retry.
    pub backoff_ms: u64,
    /// By which each wait is longer than the one before, from 1 to 1,000.
    pub factor: f64,
    /// The longest wait, in milliseconds.
    pub max_backoff_ms: u64,
    /// Whether each wait is random between half of it and all of it, so that many tasks do not come
    /// back at once.
    pub jitter: bool,
    /// The kinds of failure that are tried again. Absent: `exit` with codes other than 64 and 65,
    /// `input`, `output` and `module`. Traps, memory limits and timeouts would most likely happen
    /// again.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub on: Option<Vec<ErrorKind>>,
}

impl Default for Retries {
    fn default() -> Retries {
        Retries {
            max: 3,
            backoff_ms: 1_000,
            factor: 2.0,
            max_backoff_ms: 60_000,
            jitter: true,
            on: None,
        }
    }
}

impl Retries {
    /// Whether this failure is worth another attempt, if any are left.
    pub fn wants(&self, error: &TaskError) -> bool {
        if let Some(again) = error.verdict() {
            return again;
        }
        match &self.on {
            Some(kinds) => kinds.contains(&error.kind),
            None => matches!(
                error.kind,
                ErrorKind::Exit | ErrorKind::Input | ErrorKind::Output | ErrorKind::Module
            ),
        }
    }

    /// Checks the bounds of every field.
    pub(super) fn check(&self) -> Result<(), Refusal> {
        within("retries.max", Some(u64::from(self.max)), 0, 1_000_000)?;
        within(
            "retries.backoff_ms",
            Some(self.backoff_ms),
            0,
            limits::DURATION_MS_MAX,
        )?;
        within(
            "retries.max_backoff_ms",
            Some(self.max_backoff_ms),
            0,
            limits::DURATION_MS_MAX,
        )?;
        if (1.0..=1_000.0).contains(&self.factor) {
            return Ok(());
        }
        let text = format!(
            "field `retries.factor` is {}, it must be from 1 to 1000",
            self.factor
        );
        Err(Refusal::new(RefusalCode::InvalidValue, text).at("retries.factor"))
    }
}

/// The two spellings of the policy, for the published schema.
#[derive(JsonSchema)]
#[serde(untagged)]
#[allow(dead_code, reason = "read by the schema's generator only")]
enum RetriesText {
    Max(u32),
    Full(RetriesFull),
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct RetriesFull {
    max: Option<u32>,
    backoff_ms: Option<u64>,
    factor: Option<f64>,
    max_backoff_ms: Option<u64>,
    jitter: Option<bool>,
    on: Option<Vec<ErrorKind>>,
}

impl<'de> Deserialize<'de> for Retries {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Retries, D::Error> {
        struct Either;
        impl<'de> Visitor<'de> for Either {
            type Value = Retries;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(
                    "a number of retries, or an object such as {\"max\": 3, \"backoff_ms\": 1000}",
                )
            }
            fn visit_u64<E: serde::de::Error>(self, max: u64) -> Result<Retries, E> {
                let max = u32::try_from(max)
                    .map_err(|_| E::custom(format!("{max} retries are too many")))?;
                Ok(Retries {
                    max,
                    ..Retries::default()
                })
            }
            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Retries, A::Error> {
                let full = RetriesFull::deserialize(MapAccessDeserializer::new(map))?;
                let usual = Retries::default();
                Ok(Retries {
                    max: full.max.unwrap_or(usual.max),
                    backoff_ms: full.backoff_ms.unwrap_or(usual.backoff_ms),
                    factor: full.factor.unwrap_or(usual.factor),
                    max_backoff_ms: full.max_backoff_ms.unwrap_or(usual.max_backoff_ms),
                    jitter: full.jitter.unwrap_or(usual.jitter),
                    on: full.on,
                })
            }
        }
        deserializer.deserialize_any(Either)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_may_decide_on_its_retry() {
        let exit = |code| TaskError {
            code: Some(code),
            ..TaskError::new(ErrorKind::Exit, "")
        };
        let usual = Retries::default();
        assert!(usual.wants(&exit(1)) && usual.wants(&exit(75)));
        assert!(!usual.wants(&exit(64)) && !usual.wants(&exit(65)));
        assert!(!usual.wants(&TaskError::new(ErrorKind::Trap, "")));
        let traps = Retries {
            on: Some(vec![ErrorKind::Trap]),
            ..Retries::default()
        };
        assert!(
            traps.wants(&TaskError::new(ErrorKind::Trap, ""))
                && !traps.wants(&exit(1))
                && traps.wants(&exit(75))
        );
    }
}
