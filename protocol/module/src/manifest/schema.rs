//! A part of JSON Schema, enough for params: types, `enum`, `const`, objects, arrays, lengths,
//! ranges, `allOf`, `anyOf`, `oneOf`, `not`. A keyword that is not among them is an error, so that
//! no schema means less than it says; those that only describe are let through. (A whole
//! implementation brings some thirty crates.)

use serde::de::{MapAccess, Visitor, value::MapAccessDeserializer};
use serde::{Deserialize, Deserializer};
use serde_json::Value;
use std::collections::BTreeMap;
use std::fmt;
use taskmaster_protocol::near;

/// Why a value is not what the schema says: where, and a clause.
pub type Violation = (String, String);

/// What a value must be.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
pub struct Schema {
    #[serde(rename = "type", deserialize_with = "one_or_more")]
    types: Vec<Type>,
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
    // For people, and for other programs: these hold nothing.
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

/// The types of JSON.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Type {
    Null,
    Boolean,
    Integer,
    Number,
    String,
    Array,
    Object,
}

impl Type {
    fn fits(self, value: &Value) -> bool {
        match self {
            Type::Null => value.is_null(),
            Type::Boolean => value.is_boolean(),
            Type::Integer => value.as_f64().is_some_and(|number| number.fract() == 0.0),
            Type::Number => value.is_number(),
            Type::String => value.is_string(),
            Type::Array => value.is_array(),
            Type::Object => value.is_object(),
        }
    }

    fn name(self) -> &'static str {
        match self {
            Type::Null => "null",
            Type::Boolean => "a boolean",
            Type::Integer => "an integer",
            Type::Number => "a number",
            Type::String => "a string",
            Type::Array => "an array",
            Type::Object => "an object",
        }
    }
}

/// What a value is, for people.
fn name_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "an array",
        Value::Object(_) => "an object",
    }
}

/// Members that `properties` does not name.
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

fn one_or_more<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<Type>, D::Error> {
    match Value::deserialize(deserializer)? {
        Value::Array(types) => types
            .into_iter()
            .map(|one| Type::deserialize(one).map_err(serde::de::Error::custom))
            .collect(),
        one => Type::deserialize(one)
            .map(|one| vec![one])
            .map_err(serde::de::Error::custom),
    }
}

/// The value that is meant: what stands for a result is not known yet (`None`), and a literal is
/// what it holds.
fn meant(value: &Value) -> Option<&Value> {
    let Some((key, inner)) = value
        .as_object()
        .filter(|object| object.len() == 1)
        .and_then(|object| object.iter().next())
    else {
        return Some(value);
    };
    match key.as_str() {
        "$result" | "$results" => None,
        "$literal" => Some(inner),
        _ => Some(value),
    }
}

impl Schema {
    /// Whether `value`, which stands at `path`, is what the schema says.
    pub fn check(&self, value: &Value, path: &str) -> Result<(), Violation> {
        let Some(value) = meant(value) else {
            return Ok(());
        };
        let wrong = |why: String| Err((path.to_owned(), why));
        if !self.types.is_empty() && !self.types.iter().any(|one| one.fits(value)) {
            let wanted: Vec<&str> = self.types.iter().map(|one| one.name()).collect();
            return wrong(format!(
                "it is {}, not {}",
                name_of(value),
                wanted.join(" or ")
            ));
        }
        if let Some(choices) = self
            .choices
            .as_ref()
            .filter(|choices| !choices.contains(value))
        {
            let all: Vec<String> = choices.iter().map(Value::to_string).collect();
            return wrong(format!("{} is none of {}", shown(value), all.join(", ")));
        }
        if let Some(constant) = self.constant.as_ref().filter(|constant| *constant != value) {
            return wrong(format!("{} is not {constant}", shown(value)));
        }
        match value {
            Value::Number(number) => self
                .check_number(number.as_f64().unwrap_or_default())
                .or_else(wrong),
            Value::String(text) => within(
                text.chars().count(),
                self.min_length,
                self.max_length,
                "characters",
            )
            .or_else(wrong),
            Value::Array(items) => self.check_items(items, path),
            Value::Object(members) => self.check_members(members, path),
            _ => Ok(()),
        }?;
        self.check_others(value, path)
    }

    fn check_number(&self, number: f64) -> Result<(), String> {
        let bounds = [
            (
                self.minimum.is_some_and(|min| number < min),
                "less than",
                self.minimum,
            ),
            (
                self.maximum.is_some_and(|max| number > max),
                "more than",
                self.maximum,
            ),
            (
                self.exclusive_minimum.is_some_and(|min| number <= min),
                "not more than",
                self.exclusive_minimum,
            ),
            (
                self.exclusive_maximum.is_some_and(|max| number >= max),
                "not less than",
                self.exclusive_maximum,
            ),
        ];
        match bounds.into_iter().find(|(broken, ..)| *broken) {
            Some((_, how, bound)) => {
                Err(format!("{number} is {how} {}", bound.unwrap_or_default()))
            }
            None => Ok(()),
        }
    }

    fn check_items(&self, items: &[Value], path: &str) -> Result<(), Violation> {
        within(items.len(), self.min_items, self.max_items, "items")
            .map_err(|why| (path.to_owned(), why))?;
        let Some(schema) = &self.items else {
            return Ok(());
        };
        items
            .iter()
            .enumerate()
            .try_for_each(|(index, item)| schema.check(item, &format!("{path}[{index}]")))
    }

    fn check_members(
        &self,
        members: &serde_json::Map<String, Value>,
        path: &str,
    ) -> Result<(), Violation> {
        if let Some(name) = self
            .required
            .iter()
            .find(|name| !members.contains_key(*name))
        {
            return Err((format!("{path}.{name}"), "it is missing".into()));
        }
        for (name, member) in members {
            let at = format!("{path}.{name}");
            match (self.properties.get(name), &self.additional_properties) {
                (Some(schema), _) => schema.check(member, &at)?,
                (None, Additional::Like(schema)) => schema.check(member, &at)?,
                (None, Additional::None) => {
                    let known = near::hint(name, self.properties.keys().map(String::as_str));
                    return Err((at, format!("there is no such field{known}")));
                }
                (None, Additional::Any) => {}
            }
        }
        Ok(())
    }

    fn check_others(&self, value: &Value, path: &str) -> Result<(), Violation> {
        self.all_of
            .iter()
            .try_for_each(|schema| schema.check(value, path))?;
        let wrong = |why: &str| Err((path.to_owned(), format!("{} {why}", shown(value))));
        let fitting = |schemas: &[Schema]| {
            schemas
                .iter()
                .filter(|schema| schema.check(value, path).is_ok())
                .count()
        };
        if !self.any_of.is_empty() && fitting(&self.any_of) == 0 {
            return wrong("is none of what is allowed (`anyOf`)");
        }
        if !self.one_of.is_empty() && fitting(&self.one_of) != 1 {
            return wrong("is not exactly one of what is allowed (`oneOf`)");
        }
        match &self.not {
            Some(schema) if schema.check(value, path).is_ok() => {
                wrong("is what is not allowed (`not`)")
            }
            _ => Ok(()),
        }
    }
}

fn within(is: usize, min: Option<usize>, max: Option<usize>, unit: &str) -> Result<(), String> {
    match (min, max) {
        (Some(min), _) if is < min => Err(format!("it has {is} {unit}, at least {min} are wanted")),
        (_, Some(max)) if is > max => Err(format!("it has {is} {unit}, at most {max} are allowed")),
        _ => Ok(()),
    }
}

fn shown(value: &Value) -> String {
    let text = value.to_string();
    if text.chars().count() <= 40 {
        text
    } else {
        format!("{}…", text.chars().take(40).collect::<String>())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test: a broken promise ends it")]

    use super::*;
    use serde_json::json;

    #[test]
    fn values_are_what_the_schema_says_or_it_is_told_where_they_are_not() {
        for (schema, good, bad, at, words) in [
            (json!({}), json!({"any": [1]}), None, "", ""),
            (
                json!({"type": ["string", "null"]}),
                json!(null),
                Some(json!(1)),
                "p",
                "a number, not a string or null",
            ),
            (
                json!({"type": "integer"}),
                json!(3.0),
                Some(json!(3.5)),
                "p",
                "not an integer",
            ),
            (
                json!({"enum": ["a", 2]}),
                json!(2),
                Some(json!("b")),
                "p",
                "none of \"a\", 2",
            ),
            (
                json!({"const": 1}),
                json!(1),
                Some(json!(2)),
                "p",
                "2 is not 1",
            ),
            (
                json!({"exclusiveMinimum": 0, "maximum": 5}),
                json!(5),
                Some(json!(0)),
                "p",
                "not more than 0",
            ),
            (
                json!({"items": {"type": "number"}, "maxItems": 2}),
                json!([1, 2]),
                Some(json!([1, "x"])),
                "p[1]",
                "a string",
            ),
            (
                json!({"minItems": 1}),
                json!([1]),
                Some(json!([])),
                "p",
                "at least 1",
            ),
            (
                json!({"minLength": 2}),
                json!("üü"),
                Some(json!("ü")),
                "p",
                "1 characters",
            ),
            (
                json!({"properties": {"a": {"properties": {"b": {"maximum": 1}}}}}),
                json!({"a": {"b": 1}, "c": 2}),
                Some(json!({"a": {"b": 2}})),
                "p.a.b",
                "more than 1",
            ),
            (
                json!({"additionalProperties": {"type": "null"}}),
                json!({"x": null}),
                Some(json!({"x": 1})),
                "p.x",
                "null",
            ),
            (
                json!({"anyOf": [{"const": 1}, {"const": 2}]}),
                json!(2),
                Some(json!(3)),
                "p",
                "anyOf",
            ),
            (
                json!({"oneOf": [{"type": "number"}, {"const": 2}]}),
                json!(3),
                Some(json!(2)),
                "p",
                "oneOf",
            ),
            (
                json!({"allOf": [{"minimum": 1}, {"maximum": 2}]}),
                json!(2),
                Some(json!(3)),
                "p",
                "more than 2",
            ),
            (
                json!({"not": {"type": "null"}, "title": "T"}),
                json!(1),
                Some(json!(null)),
                "p",
                "not allowed",
            ),
        ] {
            let read: Schema = serde_json::from_value(schema.clone()).unwrap();
            read.check(&good, "p").unwrap();
            let Some(bad) = bad else { continue };
            let (path, why) = read.check(&bad, "p").unwrap_err();
            assert!(path == at && why.contains(words), "{schema}: {path}: {why}");
        }
        let schema: Schema =
            serde_json::from_value(json!({"items": {"type": "number"}, "type": "array"})).unwrap();
        schema
            .check(&json!([{"$result": "a"}, {"$literal": 1}]), "p")
            .unwrap();
        assert!(schema.check(&json!([{"$literal": "x"}]), "p").is_err());
    }
}
