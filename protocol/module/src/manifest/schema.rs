//! A part of JSON Schema, enough for params: types, `enum`, `const`, objects, arrays, lengths,
//! ranges, `allOf`, `anyOf`, `oneOf` and `not`. Another keyword is an error, so that no schema
//! means less than it says; keywords that only describe are let through. (A whole implementation of
//! JSON Schema brings some thirty crates.)

use crate::path::ParamPath;
use crate::shallow;
use serde::de::{MapAccess, Visitor, value::MapAccessDeserializer};
use serde::{Deserialize, Deserializer};
use serde_json::Value;
use serde_json::value::RawValue;
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use taskmaster_protocol::near;
use taskmaster_protocol::placeholder::{Placeholder, Placeholders};

/// Characters of a wrong value that stand in the sentence about it.
const SHOWN_MAX: usize = 40;

/// Why a value is not what the schema says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Violation {
    /// Where the value stands: `params.sizes[2].width`.
    pub(super) path: String,
    /// What is wrong there, as a clause: `it is missing`.
    pub(super) reason: String,
}

/// What a value must be.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
pub struct Schema {
    #[serde(rename = "type", deserialize_with = "one_or_more")]
    types: Vec<JsonType>,
    #[serde(rename = "enum")]
    choices: Option<Vec<Value>>,
    #[serde(rename = "const")]
    constant: Option<Value>,
    properties: BTreeMap<String, Schema>,
    required: Vec<String>,
    additional_properties: Additional,
    items: Option<Box<Schema>>,
    min_items: Option<usize>,
    max_items: Option<usize>,
    min_length: Option<usize>,
    max_length: Option<usize>,
    minimum: Option<f64>,
    maximum: Option<f64>,
    exclusive_minimum: Option<f64>,
    exclusive_maximum: Option<f64>,
    all_of: Vec<Schema>,
    any_of: Vec<Schema>,
    one_of: Vec<Schema>,
    not: Option<Box<Schema>>,
    // Keywords for people and for other programs, which check nothing.
    #[serde(rename = "$schema")]
    _schema: Option<Value>,
    #[serde(rename = "$id")]
    _id: Option<Value>,
    #[serde(rename = "$comment")]
    _comment: Option<Value>,
    #[serde(rename = "title")]
    _title: Option<Value>,
    #[serde(rename = "description")]
    _description: Option<Value>,
    #[serde(rename = "default")]
    _default: Option<Value>,
    #[serde(rename = "examples")]
    _examples: Option<Value>,
}

/// The types of JSON, as a schema names them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum JsonType {
    Null,
    Boolean,
    Integer,
    Number,
    String,
    Array,
    Object,
}

impl JsonType {
    /// The type of a value; every number is a `Number`.
    fn of(value: &RawValue) -> JsonType {
        match value.get().as_bytes().first() {
            Some(b'n') => JsonType::Null,
            Some(b't' | b'f') => JsonType::Boolean,
            Some(b'"') => JsonType::String,
            Some(b'[') => JsonType::Array,
            Some(b'{') => JsonType::Object,
            _ => JsonType::Number,
        }
    }

    fn fits(self, value: &RawValue) -> bool {
        let is = JsonType::of(value);
        match self {
            JsonType::Integer => is == JsonType::Number && number_of(value).fract() == 0.0,
            _ => self == is,
        }
    }

    /// The type's name with its article, for a sentence.
    fn name(self) -> &'static str {
        match self {
            JsonType::Null => "null",
            JsonType::Boolean => "a boolean",
            JsonType::Integer => "an integer",
            JsonType::Number => "a number",
            JsonType::String => "a string",
            JsonType::Array => "an array",
            JsonType::Object => "an object",
        }
    }
}

/// What members may be that `properties` does not name.
#[derive(Debug, Clone, Default, PartialEq)]
enum Additional {
    #[default]
    Any,
    None,
    Like(Box<Schema>),
}

impl<'de> Deserialize<'de> for Additional {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Additional, D::Error> {
        struct Either;
        impl<'de> Visitor<'de> for Either {
            type Value = Additional;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("true, false, or a schema")
            }
            fn visit_bool<E>(self, any: bool) -> Result<Additional, E> {
                Ok(if any {
                    Additional::Any
                } else {
                    Additional::None
                })
            }
            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Additional, A::Error> {
                Schema::deserialize(MapAccessDeserializer::new(map))
                    .map(|schema| Additional::Like(Box::new(schema)))
            }
        }
        deserializer.deserialize_any(Either)
    }
}

fn one_or_more<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<JsonType>, D::Error> {
    match Value::deserialize(deserializer)? {
        Value::Array(types) => types
            .into_iter()
            .map(|one| JsonType::deserialize(one).map_err(serde::de::Error::custom))
            .collect(),
        one => JsonType::deserialize(one)
            .map(|one| vec![one])
            .map_err(serde::de::Error::custom),
    }
}

impl Schema {
    /// Whether `value`, which stands at `path`, is what the schema says. `value` is borrowed from
    /// the text in which `placeholders` were found. A result of another task is not known yet, so
    /// that it fits everything, and what depends on it is let through.
    pub(super) fn check(
        &self,
        value: &RawValue,
        placeholders: &Placeholders<'_>,
        path: &ParamPath<'_>,
    ) -> Result<(), Violation> {
        let value = match placeholders.at(value.get()) {
            Some(Placeholder::Result | Placeholder::Results) => return Ok(()),
            // Placeholders do not lie inside each other, so that nothing in a literal is one.
            Some(Placeholder::Literal(inner)) => inner,
            None => value,
        };
        let checked = CheckedValue {
            value,
            placeholders,
            path,
        };
        checked.is_of_type(&self.types)?;
        checked.is_listed(self.choices.as_deref(), self.constant.as_ref())?;
        match JsonType::of(value) {
            JsonType::Integer | JsonType::Number => checked.is_in_range(self)?,
            JsonType::String => checked.has_length(self)?,
            JsonType::Array => checked.has_items(self)?,
            JsonType::Object => checked.has_members(self)?,
            JsonType::Null | JsonType::Boolean => {}
        }
        checked.meets_others(self)
    }
}

/// A value and where it stands, while it is compared with a schema.
struct CheckedValue<'a> {
    value: &'a RawValue,
    placeholders: &'a Placeholders<'a>,
    path: &'a ParamPath<'a>,
}

impl CheckedValue<'_> {
    fn wrong(&self, reason: String) -> Result<(), Violation> {
        let path = self.path.to_string();
        Err(Violation { path, reason })
    }

    fn shown(&self) -> String {
        shallow::shown(self.value, SHOWN_MAX)
    }

    fn is_of_type(&self, types: &[JsonType]) -> Result<(), Violation> {
        if types.is_empty() || types.iter().any(|one| one.fits(self.value)) {
            return Ok(());
        }
        let wanted: Vec<&str> = types.iter().map(|one| one.name()).collect();
        let is = JsonType::of(self.value).name();
        self.wrong(format!("it is {is}, not {}", wanted.join(" or ")))
    }

    /// `enum` and `const`.
    fn is_listed(
        &self,
        choices: Option<&[Value]>,
        constant: Option<&Value>,
    ) -> Result<(), Violation> {
        if choices.is_none() && constant.is_none() {
            return Ok(());
        }
        let Some(text) = self.placeholders.resolved(self.value.get()) else {
            return Ok(());
        };
        // What is nested too deeply to be read is nothing that a manifest can name.
        let value: Option<Value> = serde_json::from_str(&text).ok();
        let is = |wanted: &Value| value.as_ref() == Some(wanted);
        if let Some(choices) = choices.filter(|choices| !choices.iter().any(is)) {
            let all: Vec<String> = choices.iter().map(Value::to_string).collect();
            return self.wrong(format!("{} is none of {}", self.shown(), all.join(", ")));
        }
        match constant.filter(|constant| !is(constant)) {
            Some(constant) => self.wrong(format!("{} is not {constant}", self.shown())),
            None => Ok(()),
        }
    }

    fn is_in_range(&self, schema: &Schema) -> Result<(), Violation> {
        let number = number_of(self.value);
        let broken = [
            (schema.minimum.filter(|min| number < *min), "less than"),
            (schema.maximum.filter(|max| number > *max), "more than"),
            (
                schema.exclusive_minimum.filter(|min| number <= *min),
                "not more than",
            ),
            (
                schema.exclusive_maximum.filter(|max| number >= *max),
                "not less than",
            ),
        ];
        let first = broken
            .into_iter()
            .find_map(|(bound, how)| bound.map(|bound| format!("{number} is {how} {bound}")));
        first.map_or(Ok(()), |reason| self.wrong(reason))
    }

    fn has_length(&self, schema: &Schema) -> Result<(), Violation> {
        if schema.min_length.is_none() && schema.max_length.is_none() {
            return Ok(());
        }
        let text: Cow<'_, str> = serde_json::from_str(self.value.get()).unwrap_or_default();
        let count = text.chars().count();
        self.has_count(count, schema.min_length, schema.max_length, "characters")
    }

    fn has_items(&self, schema: &Schema) -> Result<(), Violation> {
        let items = shallow::array(self.value).unwrap_or_default();
        self.has_count(items.len(), schema.min_items, schema.max_items, "items")?;
        let Some(schema) = &schema.items else {
            return Ok(());
        };
        items.into_iter().enumerate().try_for_each(|(index, item)| {
            schema.check(item, self.placeholders, &ParamPath::Item(self.path, index))
        })
    }

    fn has_count(
        &self,
        is: usize,
        min: Option<usize>,
        max: Option<usize>,
        unit: &str,
    ) -> Result<(), Violation> {
        match (min, max) {
            (Some(min), _) if is < min => {
                self.wrong(format!("it has {is} {unit}, at least {min} are wanted"))
            }
            (_, Some(max)) if is > max => {
                self.wrong(format!("it has {is} {unit}, at most {max} are allowed"))
            }
            _ => Ok(()),
        }
    }

    fn has_members(&self, schema: &Schema) -> Result<(), Violation> {
        let members = shallow::members(self.value).unwrap_or_default();
        if let Some(name) = schema
            .required
            .iter()
            .find(|name| !members.contains_key(*name))
        {
            return Err(Violation {
                path: ParamPath::Field(self.path, name).to_string(),
                reason: "it is missing".into(),
            });
        }
        for (name, member) in &members {
            let at = ParamPath::Field(self.path, name);
            match (schema.properties.get(name), &schema.additional_properties) {
                (Some(schema), _) => schema.check(member, self.placeholders, &at)?,
                (None, Additional::Like(schema)) => schema.check(member, self.placeholders, &at)?,
                (None, Additional::None) => {
                    let known = schema.properties.keys().map(String::as_str);
                    let hint = near::hint(name, known);
                    return Err(Violation {
                        path: at.to_string(),
                        reason: format!("there is no such field{hint}"),
                    });
                }
                (None, Additional::Any) => {}
            }
        }
        Ok(())
    }

    /// `allOf`, `anyOf`, `oneOf` and `not`. Where a result of another task stands in the value,
    /// that a schema fits means only that it may fit, so that `oneOf` may have several that fit,
    /// and `not` is let through.
    fn meets_others(&self, schema: &Schema) -> Result<(), Violation> {
        let check = |schema: &Schema| schema.check(self.value, self.placeholders, self.path);
        let count = |schemas: &[Schema]| schemas.iter().filter(|one| check(one).is_ok()).count();
        let wrong = |why: &str| self.wrong(format!("{} {why}", self.shown()));
        let is_open = self.placeholders.has_result(self.value.get());

        schema.all_of.iter().try_for_each(check)?;
        if !schema.any_of.is_empty() && count(&schema.any_of) == 0 {
            return wrong("is none of what is allowed (`anyOf`)");
        }
        if !schema.one_of.is_empty() {
            let fitting = count(&schema.one_of);
            if fitting == 0 || (fitting > 1 && !is_open) {
                return wrong("is not exactly one of what is allowed (`oneOf`)");
            }
        }
        match &schema.not {
            Some(schema) if !is_open && check(schema).is_ok() => {
                wrong("is what is not allowed (`not`)")
            }
            _ => Ok(()),
        }
    }
}

/// A number of any size as a float; infinite where a float cannot hold it.
fn number_of(value: &RawValue) -> f64 {
    value.get().parse().unwrap_or(f64::NAN)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test: a broken promise ends it")]

    use super::*;
    use serde_json::json;

    fn check(schema: &Schema, params: &Value) -> Result<(), Violation> {
        check_text(schema, &params.to_string())
    }

    fn check_text(schema: &Schema, params: &str) -> Result<(), Violation> {
        let value: &RawValue = serde_json::from_str(params).unwrap();
        let placeholders = Placeholders::find(params).unwrap();
        schema.check(value, &placeholders, &ParamPath::Params)
    }

    #[test]
    fn values_are_what_the_schema_says_or_it_is_told_where_they_are_not() {
        for (schema, good, bad, at, words) in [
            (json!({}), json!({"any": [1]}), None, "", ""),
            (
                json!({"type": ["string", "null"]}),
                json!(null),
                Some(json!(1)),
                "params",
                "a number, not a string or null",
            ),
            (
                json!({"type": "integer"}),
                json!(3.0),
                Some(json!(3.5)),
                "params",
                "not an integer",
            ),
            (
                json!({"enum": ["a", 2]}),
                json!(2),
                Some(json!("b")),
                "params",
                "none of \"a\", 2",
            ),
            (
                json!({"const": 1}),
                json!(1),
                Some(json!(2)),
                "params",
                "2 is not 1",
            ),
            (
                json!({"exclusiveMinimum": 0, "maximum": 5}),
                json!(5),
                Some(json!(0)),
                "params",
                "not more than 0",
            ),
            (
                json!({"items": {"type": "number"}, "maxItems": 2}),
                json!([1, 2]),
                Some(json!([1, "x"])),
                "params[1]",
                "a string",
            ),
            (
                json!({"minItems": 1}),
                json!([1]),
                Some(json!([])),
                "params",
                "at least 1",
            ),
            (
                json!({"minLength": 2}),
                json!("üü"),
                Some(json!("ü")),
                "params",
                "1 characters",
            ),
            (
                json!({"properties": {"a": {"properties": {"b": {"maximum": 1}}}}}),
                json!({"a": {"b": 1}, "c": 2}),
                Some(json!({"a": {"b": 2}})),
                "params.a.b",
                "more than 1",
            ),
            (
                json!({"additionalProperties": {"type": "null"}}),
                json!({"x": null}),
                Some(json!({"x": 1})),
                "params.x",
                "null",
            ),
            (
                json!({"anyOf": [{"const": 1}, {"const": 2}]}),
                json!(2),
                Some(json!(3)),
                "params",
                "anyOf",
            ),
            (
                json!({"oneOf": [{"type": "number"}, {"const": 2}]}),
                json!(3),
                Some(json!(2)),
                "params",
                "oneOf",
            ),
            (
                json!({"allOf": [{"minimum": 1}, {"maximum": 2}]}),
                json!(2),
                Some(json!(3)),
                "params",
                "more than 2",
            ),
            (
                json!({"not": {"type": "null"}, "title": "T"}),
                json!(1),
                Some(json!(null)),
                "params",
                "not allowed",
            ),
        ] {
            let read: Schema = serde_json::from_value(schema.clone()).unwrap();
            check(&read, &good).unwrap();
            let Some(bad) = bad else { continue };
            let Violation { path, reason } = check(&read, &bad).unwrap_err();
            assert!(
                path == at && reason.contains(words),
                "{schema}: {path}: {reason}"
            );
        }
        let schema: Schema =
            serde_json::from_value(json!({"items": {"type": "number"}, "type": "array"})).unwrap();
        check(&schema, &json!([{"$result": "a"}, {"$literal": 1}])).unwrap();
        assert!(check(&schema, &json!([{"$literal": "x"}])).is_err());
    }

    #[test]
    fn what_depends_on_a_result_is_let_through() {
        for (schema, params) in [
            (
                json!({"oneOf": [
                    {"properties": {"kind": {"const": "a"}}},
                    {"properties": {"kind": {"const": "b"}}},
                ]}),
                r#"{"kind":{"$result":"t"}}"#,
            ),
            (
                json!({"not": {"properties": {"kind": {"const": "a"}}}}),
                r#"{"kind":{"$result":"t"}}"#,
            ),
            (json!({"enum": [[1], [2]]}), r#"[{"$result":"t"}]"#),
            (json!({"const": {"a": 1}}), r#"{"a":{"$results":["t"]}}"#),
            (json!({"const": {"a": [1]}}), r#"{"a":[{"$literal": 1}]}"#),
        ] {
            let schema: Schema = serde_json::from_value(schema).unwrap();
            check_text(&schema, params).unwrap();
        }
        let neither = json!({"oneOf": [{"type": "string"}, {"type": "null"}]});
        let schema: Schema = serde_json::from_value(neither).unwrap();
        check_text(&schema, r#"{"kind":{"$result":"t"}}"#).unwrap_err();
    }
}
