//! Whether the answer of a task may be used again, and for how long.

use crate::{Refusal, RefusalCode, limits};
use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::borrow::Cow;

/// What becomes of answers: `{"ttl_s":300,"mode":"use"}`, or `false`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CachePolicy {
    /// Whether a kept answer is looked up, and the run joined or kept.
    pub mode: CacheMode,
    /// How long the answer is kept, in seconds from the end of the run. 0 where the task sets the
    /// time itself while it runs, and where the answer is not kept.
    pub ttl_s: u64,
}

/// How a task and the kept answers go together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum CacheMode {
    /// A kept answer is used. Without one, the task joins an equal task that is at work or is the
    /// one that runs, and its answer is kept.
    #[default]
    Use,
    /// The task runs. Equal tasks that come later may join it, and its answer takes the place of a
    /// kept one.
    Refresh,
    /// The task is neither looked up nor joined, and its answer is not kept.
    Off,
}

impl CachePolicy {
    /// The policy of a task that has nothing to do with kept answers.
    pub const OFF: CachePolicy = CachePolicy {
        mode: CacheMode::Off,
        ttl_s: 0,
    };

    /// Refuses a time that is too long, and a time for an answer that is not kept.
    pub(super) fn check(&self) -> Result<(), Refusal> {
        let field = "cache.ttl_s";
        let most = limits::CACHE_TTL_S_MAX;
        if self.ttl_s > most {
            let text = format!(
                "field `{field}` is {}, it must be from 1 to {most} (366 days)",
                self.ttl_s
            );
            return Err(Refusal::new(RefusalCode::InvalidValue, text).at(field));
        }
        Ok(())
    }
}

/// A policy as it is written.
#[derive(Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct WrittenPolicy {
    /// How long the answer is kept, in seconds from the end of the run. Absent: the task sets the
    /// time while it runs, and otherwise the answer is not kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    ttl_s: Option<u64>,
    /// How the task and the kept answers go together. Absent: `use`.
    #[serde(default)]
    mode: CacheMode,
}

impl Serialize for CachePolicy {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if self.mode == CacheMode::Off {
            return false.serialize(serializer);
        }
        let written = WrittenPolicy {
            ttl_s: (self.ttl_s > 0).then_some(self.ttl_s),
            mode: self.mode,
        };
        written.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for CachePolicy {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<CachePolicy, D::Error> {
        deserializer.deserialize_any(PolicyVisitor)
    }
}

/// Reads `false` or an object, and says of anything else what would be right.
struct PolicyVisitor;

impl<'de> serde::de::Visitor<'de> for PolicyVisitor {
    type Value = CachePolicy;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("`false` or an object such as {\"ttl_s\":300}")
    }

    fn visit_bool<E: serde::de::Error>(self, is_on: bool) -> Result<CachePolicy, E> {
        if is_on {
            let unexpected = serde::de::Unexpected::Bool(true);
            return Err(E::invalid_value(unexpected, &self));
        }
        Ok(CachePolicy::OFF)
    }

    fn visit_map<A: serde::de::MapAccess<'de>>(self, fields: A) -> Result<CachePolicy, A::Error> {
        let reader = serde::de::value::MapAccessDeserializer::new(fields);
        let WrittenPolicy { ttl_s, mode } = WrittenPolicy::deserialize(reader)?;
        if ttl_s == Some(0) {
            let unexpected = serde::de::Unexpected::Unsigned(0);
            let expected = &"a `ttl_s` of at least 1, or no `ttl_s`";
            return Err(serde::de::Error::invalid_value(unexpected, expected));
        }
        Ok(CachePolicy {
            mode,
            ttl_s: ttl_s.filter(|_| mode != CacheMode::Off).unwrap_or(0),
        })
    }
}

impl JsonSchema for CachePolicy {
    fn schema_name() -> Cow<'static, str> {
        "CachePolicy".into()
    }

    fn json_schema(generator: &mut schemars::SchemaGenerator) -> schemars::Schema {
        let written = generator.subschema_for::<WrittenPolicy>();
        schemars::json_schema!({ "anyOf": [{ "const": false }, written] })
    }
}

#[cfg(test)]
mod tests {
    use crate::TaskDocument;
    use crate::task::{CacheMode, CachePolicy};

    fn policy(cache: &str) -> Result<CachePolicy, String> {
        let text = format!(r#"{{"module":"m","cache":{cache}}}"#);
        let document = TaskDocument::parse(&text).map_err(|refusal| refusal.message)?;
        Ok(document.cache.unwrap())
    }

    #[test]
    fn a_policy_is_false_or_an_object() {
        let of = |mode, ttl_s| Ok(CachePolicy { mode, ttl_s });
        assert_eq!(policy("false"), of(CacheMode::Off, 0));
        assert_eq!(policy("{}"), of(CacheMode::Use, 0));
        assert_eq!(policy(r#"{"ttl_s":300}"#), of(CacheMode::Use, 300));
        assert_eq!(
            policy(r#"{"ttl_s":9,"mode":"refresh"}"#),
            of(CacheMode::Refresh, 9)
        );
        assert_eq!(policy(r#"{"ttl_s":9,"mode":"off"}"#), of(CacheMode::Off, 0));
    }

    #[test]
    fn a_wrong_policy_is_named() {
        for (cache, words) in [
            ("true", "`false` or an object"),
            ("300", "`false` or an object"),
            (r#"{"ttl":300}"#, "unknown field `cache.ttl`"),
            (r#"{"ttl_s":0}"#, "at least 1"),
            (r#"{"ttl_s":-1}"#, "integer `-1`"),
            (r#"{"ttl_s":99999999999}"#, "366 days"),
            (r#"{"mode":"on"}"#, "unknown variant `on`"),
        ] {
            let message = policy(cache).unwrap_err();
            assert!(message.contains(words), "{cache}: {message}");
            assert!(message.contains("cache"), "{cache}: {message}");
        }
    }
}
