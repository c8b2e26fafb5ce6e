//! What a task waits for.

use crate::TaskId;
use schemars::JsonSchema;
use serde::de::{MapAccess, Visitor, value::MapAccessDeserializer};
use serde::{Deserialize, Deserializer, Serialize};
use std::fmt;

/// How a dependency must end for the waiting task to run. Where the dependency ends otherwise, the
/// waiting task is skipped.
#[derive(
    Debug,
    Clone,
    Copy,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    Default,
    Serialize,
    Deserialize,
    JsonSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum When {
    /// The dependency is done.
    #[default]
    Done,
    /// The dependency failed; for tasks that clean up.
    Failed,
    /// The dependency ended, in whatever state.
    Settled,
}

/// A dependency, written as an id or as `{"on":"id","when":"failed"}`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, JsonSchema)]
#[schemars(with = "DependencyText")]
pub struct Dependency {
    /// The task that is waited for.
    pub on: TaskId,
    /// How that task must end.
    #[serde(default)]
    pub when: When,
}

/// The two spellings of a dependency, for the published schema.
#[derive(JsonSchema)]
#[serde(untagged)]
#[allow(dead_code, reason = "read by the schema's generator only")]
enum DependencyText {
    Id(TaskId),
    Full {
        on: TaskId,
        #[serde(default)]
        when: When,
    },
}

impl<'de> Deserialize<'de> for Dependency {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Dependency, D::Error> {
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Full {
            on: TaskId,
            #[serde(default)]
            when: When,
        }
        struct Either;
        impl<'de> Visitor<'de> for Either {
            type Value = Dependency;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(
                    "a task's id, or {\"on\": id, \"when\": \"done\" | \"failed\" | \"settled\"}",
                )
            }
            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Dependency, E> {
                TaskId::new(text)
                    .map(|on| Dependency {
                        on,
                        when: When::Done,
                    })
                    .map_err(E::custom)
            }
            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Dependency, A::Error> {
                let Full { on, when } = Full::deserialize(MapAccessDeserializer::new(map))?;
                Ok(Dependency { on, when })
            }
        }
        deserializer.deserialize_any(Either)
    }
}
