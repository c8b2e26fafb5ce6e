//! Results inside params: `{"$result":"id"}`, `{"$results":["id",…]}`, `{"$literal":value}`.
//!
//! Everything else keeps its bytes: numbers are not rounded, keys not re-ordered.

use crate::{Refusal, RefusalCode, TaskId};
use serde::Deserialize;
use serde::de::{MapAccess, Visitor};
use serde_json::value::RawValue;
use std::fmt;

/// Whether `params` may hold a reference at all: a cheap test that spares nearly every task the walk.
pub fn may_refer(params: &str) -> bool {
    params.contains("\"$") || params.contains("\"\\u0024")
}

/// The ids whose results `params` asks for, in order, each once.
pub fn references(params: &str) -> Result<Vec<TaskId>, Refusal> {
    let mut found = Vec::new();
    if may_refer(params) {
        walk(raw(params)?, &mut |part| {
            if let Part::Result(id) = part
                && !found.contains(&id)
            {
                found.push(id);
            }
            Ok(())
        })?;
    }
    Ok(found)
}

/// `params` with every reference replaced by what `result_of` gives for it (JSON text).
pub fn splice(params: &str, mut result_of: impl FnMut(&TaskId) -> Result<String, Refusal>) -> Result<String, Refusal> {
    if !may_refer(params) {
        return Ok(params.to_owned());
    }
    let mut out = String::with_capacity(params.len() * 2);
    walk(raw(params)?, &mut |part| {
        match part {
            Part::Text(text) => out.push_str(text),
            Part::Key(key) => out.push_str(&serde_json::to_string(key).unwrap_or_default()),
            Part::Result(id) => out.push_str(&result_of(&id)?),
        }
        Ok(())
    })?;
    Ok(out)
}

/// What the walk meets, in the order of the text that will come out.
enum Part<'a> {
    /// Text that stays as it is.
    Text(&'a str),
    /// An object's key.
    Key(&'a str),
    /// The place of a result.
    Result(TaskId),
}

type Meet<'m> = &'m mut dyn FnMut(Part<'_>) -> Result<(), Refusal>;

fn raw(text: &str) -> Result<&RawValue, Refusal> {
    serde_json::from_str(text).map_err(|error| Refusal::from_serde(&error, "params"))
}

fn walk(value: &RawValue, meet: Meet<'_>) -> Result<(), Refusal> {
    let text = value.get();
    match text.as_bytes().first() {
        Some(b'[') if may_refer(text) => walk_array(text, meet),
        Some(b'{') if may_refer(text) => walk_object(text, meet),
        _ => meet(Part::Text(text)),
    }
}

fn walk_array(text: &str, meet: Meet<'_>) -> Result<(), Refusal> {
    let items: Vec<&RawValue> = parse(text)?;
    for (i, item) in items.into_iter().enumerate() {
        meet(Part::Text(if i == 0 { "[" } else { "," }))?;
        walk(item, meet)?;
    }
    meet(Part::Text("]"))
}

fn walk_object(text: &str, meet: Meet<'_>) -> Result<(), Refusal> {
    let Members(members) = parse(text)?;
    if let [(key, value)] = members.as_slice() {
        match key.as_str() {
            "$literal" => return meet(Part::Text(value.get())),
            "$result" => return meet(Part::Result(parse_field(value, "params.$result")?)),
            "$results" => return walk_results(value, meet),
            _ => {}
        }
    }
    for (i, (key, value)) in members.iter().enumerate() {
        meet(Part::Text(if i == 0 { "{" } else { "," }))?;
        meet(Part::Key(key))?;
        meet(Part::Text(":"))?;
        walk(value, meet)?;
    }
    meet(Part::Text("}"))
}

fn walk_results(value: &RawValue, meet: Meet<'_>) -> Result<(), Refusal> {
    if value.get().starts_with('{') {
        let text = "`$results` of a whole job is not supported yet: name the ids in an array";
        return Err(Refusal::new(RefusalCode::Unsupported, text).at("params.$results"));
    }
    let ids: Vec<TaskId> = parse_field(value, "params.$results")?;
    meet(Part::Text("["))?;
    for (i, id) in ids.into_iter().enumerate() {
        if i > 0 {
            meet(Part::Text(","))?;
        }
        meet(Part::Result(id))?;
    }
    meet(Part::Text("]"))
}

fn parse<'a, T: Deserialize<'a>>(text: &'a str) -> Result<T, Refusal> {
    serde_json::from_str(text).map_err(|error| Refusal::from_serde(&error, "params"))
}

fn parse_field<'a, T: Deserialize<'a>>(value: &'a RawValue, field: &str) -> Result<T, Refusal> {
    serde_json::from_str(value.get()).map_err(|error| Refusal::from_serde(&error, field))
}

/// An object's members in the order of the text, repeated keys included.
struct Members<'a>(Vec<(String, &'a RawValue)>);

impl<'de: 'a, 'a> Deserialize<'de> for Members<'a> {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct InOrder;
        impl<'de> Visitor<'de> for InOrder {
            type Value = Members<'de>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Members<'de>, A::Error> {
                let mut members = Vec::new();
                while let Some(entry) = map.next_entry()? {
                    members.push(entry);
                }
                Ok(Members(members))
            }
        }
        deserializer.deserialize_map(InOrder)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_take_their_place_and_the_rest_keeps_its_bytes() {
        for (params, expected) in [
            (r#"{"$result":"a"}"#, "<a>"),
            (r#"[ {"$result":"a"}, 1.50, {"x" : {"$result":"b"}} ]"#, r#"[<a>,1.50,{"x":<b>}]"#),
            (r#"{"all":{"$results":["a","b"]},"n":1e400}"#, r#"{"all":[<a>,<b>],"n":1e400}"#),
            (r#"{"$results":[]}"#, "[]"),
            (r#"{"$literal":{"$result":"a"}}"#, r#"{"$result":"a"}"#),
            (r#"{"$result":"a","other":1}"#, r#"{"$result":"a","other":1}"#),
            (r#"{"\u0024result":"a"}"#, "<a>"),
            (r#"{"price":"$5"}"#, r#"{"price":"$5"}"#),
            (r#"{"b":1,"a":2}"#, r#"{"b":1,"a":2}"#),
        ] {
            let out = splice(params, |id| Ok(format!("<{id}>"))).unwrap();
            assert_eq!(out, expected, "{params}");
        }
    }

    #[test]
    fn references_are_found_once_each_in_order() {
        let ids = references(r#"[{"$result":"b"},{"$results":["a","b"]},{"$literal":{"$result":"c"}}]"#).unwrap();
        assert_eq!(ids.iter().map(TaskId::as_str).collect::<Vec<_>>(), ["b", "a"]);
        assert_eq!(references(r#"{"a":1}"#).unwrap(), []);
    }

    #[test]
    fn a_wrong_reference_is_named() {
        for (params, field) in [(r#"{"$result":1}"#, "params.$result"), (r#"{"$results":"a"}"#, "params.$results")] {
            assert_eq!(references(params).unwrap_err().field.as_deref(), Some(field), "{params}");
        }
        assert_eq!(references(r#"{"$results":{"job":"x"}}"#).unwrap_err().code, RefusalCode::Unsupported);
    }
}
