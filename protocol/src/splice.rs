//! Results inside params: `{"$result":"id"}`, `{"$results":["id",…]}`, `{"$literal":value}`; and
//! params that are kept as a blob, `{"$blob":"sha256"}`.
//!
//! Everything else keeps its bytes: numbers are not rounded, keys not re-ordered. Params come from
//! outside and may have megabytes: they are gone through once, without recursion, and nothing is
//! held but the places that were found.

use crate::{Hash, Json, Refusal, RefusalCode, TaskId, limits};
use serde::Deserialize;
use serde_json::value::RawValue;
use std::collections::BTreeSet;
use std::ops::Range;

/// Whether `params` may hold a reference at all: a cheap test that spares nearly every task the
/// walk.
pub fn may_refer(params: &str) -> bool {
    params.contains("\"$") || params.contains("\"\\u0024")
}

/// The ids whose results `params` asks for, in order, each once.
pub fn references(params: &str) -> Result<Vec<TaskId>, Refusal> {
    let (mut found, mut seen) = (Vec::new(), BTreeSet::new());
    for form in forms(params)? {
        for id in form.ids(params)? {
            if seen.insert(id.clone()) {
                found.push(id);
            }
        }
        if found.len() > limits::DEPENDENCIES_MAX {
            let most = limits::DEPENDENCIES_MAX;
            let text = format!("field `params`: it asks for the results of more than {most} tasks");
            return Err(Refusal::new(RefusalCode::TooLarge, text).at("params"));
        }
    }
    Ok(found)
}

/// `params` with every reference replaced by what `result_of` gives for it (JSON text); at most
/// `bytes_max` long, since a short text may ask for a long result many times.
pub fn splice<'r>(
    params: &str,
    bytes_max: usize,
    result_of: impl Fn(&TaskId) -> Result<&'r str, Refusal>,
) -> Result<String, Refusal> {
    let mut out = String::with_capacity(params.len());
    let mut push = |text: &str| {
        if out.len() + text.len() > bytes_max {
            let text = format!(
                "params with all results in their places are longer than {bytes_max} bytes"
            );
            return Err(Refusal::new(RefusalCode::TooLarge, text).at("params"));
        }
        out.push_str(text);
        Ok(())
    };
    let mut copied = 0;
    for form in forms(params)? {
        push(&params[copied..form.place.start])?;
        copied = form.place.end;
        match form.kind {
            Kind::Literal => push(params[form.value.clone()].trim())?,
            Kind::Result => form
                .ids(params)?
                .iter()
                .try_for_each(|id| push(result_of(id)?))?,
            Kind::Results => {
                push("[")?;
                for (i, id) in form.ids(params)?.iter().enumerate() {
                    push(if i == 0 { "" } else { "," })?;
                    push(result_of(id)?)?;
                }
                push("]")?;
            }
        }
    }
    push(&params[copied..])?;
    Ok(out)
}

/// Params that stand for the bytes of `hash`.
pub fn of_blob(hash: &Hash) -> Json {
    Json::of(&serde_json::json!({ "$blob": hash }))
}

/// The blob that `params` stand for, if they do: all of them, not a part. References in it are
/// references of the task.
pub fn blob(params: &str) -> Result<Option<Hash>, Refusal> {
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Named<'a> {
        #[serde(rename = "$blob", borrow)]
        hash: &'a RawValue,
    }
    if !params.starts_with('{') || !may_refer(params) {
        return Ok(None);
    }
    let Ok(Named { hash }) = serde_json::from_str::<Named<'_>>(params) else {
        return Ok(None);
    };
    let text: String = parse_field(hash.get(), "params.$blob")?;
    let wrong = || {
        let shown: String = text.chars().take(80).collect();
        let text = format!(
            "field `params.$blob`: `{shown}` names no blob: a blob's name is its SHA-256, 64 hexadecimal digits"
        );
        Refusal::new(RefusalCode::InvalidValue, text).at("params.$blob")
    };
    Hash::parse(&text).map(Some).ok_or_else(wrong)
}

/// What an object with one key stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// Its value, whatever it looks like.
    Literal,
    /// A task's result.
    Result,
    /// An array of tasks' results.
    Results,
}

impl Kind {
    /// By the key as it stands in the text, quotes included.
    fn of(key: &str) -> Option<Kind> {
        let kind = |key: &str| match key {
            "$literal" => Some(Kind::Literal),
            "$result" => Some(Kind::Result),
            "$results" => Some(Kind::Results),
            _ => None,
        };
        if key.contains('\\') {
            return may_refer(key)
                .then(|| serde_json::from_str::<String>(key).ok())?
                .and_then(|key| kind(&key));
        }
        kind(key.trim_matches('"'))
    }
}

/// A place in params that stands for something else.
#[derive(Debug)]
struct Form {
    kind: Kind,
    /// The object.
    place: Range<usize>,
    /// What is behind its key.
    value: Range<usize>,
}

impl Form {
    /// The tasks whose results it asks for.
    fn ids(&self, params: &str) -> Result<Vec<TaskId>, Refusal> {
        let value = params[self.value.clone()].trim();
        match self.kind {
            Kind::Literal => Ok(Vec::new()),
            Kind::Result => parse_field(value, "params.$result").map(|id| vec![id]),
            Kind::Results if value.starts_with('{') => {
                let text =
                    "`$results` of a whole job is not supported yet: name the ids in an array";
                Err(Refusal::new(RefusalCode::Unsupported, text).at("params.$results"))
            }
            Kind::Results => {
                // Before it is read: a short id takes more room as a value than in the text.
                let most = limits::DEPENDENCIES_MAX;
                if value.bytes().filter(|byte| *byte == b'"').count() / 2 > most {
                    let text = format!("field `params.$results`: it names more than {most} tasks");
                    return Err(Refusal::new(RefusalCode::TooLarge, text).at("params.$results"));
                }
                parse_field(value, "params.$results")
            }
        }
    }
}

/// An object whose end has not come.
#[derive(Default)]
struct Object {
    start: usize,
    /// Its first key, quotes included; empty: it has not come.
    key: Range<usize>,
    /// Where its first value begins.
    value: usize,
    keys: usize,
    /// Forms found before it.
    before: usize,
}

/// The outermost forms of a JSON text, in order. What is inside of one is its value, and no form.
fn forms(text: &str) -> Result<Vec<Form>, Refusal> {
    let mut found: Vec<Form> = Vec::new();
    if !may_refer(text) {
        return Ok(found);
    }
    let bytes = text.as_bytes();
    let mut open: Vec<Object> = Vec::new();
    let mut at = 0;
    while let Some(byte) = bytes.get(at) {
        match byte {
            b'"' => {
                let end = end_of_string(bytes, at);
                if let Some(object) = open.last_mut().filter(|object| object.key.is_empty()) {
                    object.key = at..end;
                }
                at = end;
                continue;
            }
            b':' => {
                if let Some(object) = open.last_mut() {
                    object.keys += 1;
                    if object.keys == 1 {
                        object.value = at + 1;
                    }
                }
            }
            b'{' if open.len() >= limits::PARAMS_DEPTH_MAX => {
                let most = limits::PARAMS_DEPTH_MAX;
                let text = format!(
                    "field `params`: more than {most} objects inside each other, and a key that begins with `$` in them"
                );
                return Err(Refusal::new(RefusalCode::TooLarge, text).at("params"));
            }
            b'{' => open.push(Object {
                start: at,
                before: found.len(),
                ..Object::default()
            }),
            b'}' => {
                if let Some(object) = open.pop()
                    && object.keys == 1
                    && let Some(kind) = Kind::of(&text[object.key])
                {
                    found.truncate(object.before);
                    found.push(Form {
                        kind,
                        place: object.start..at + 1,
                        value: object.value..at,
                    });
                }
            }
            _ => {}
        }
        at += 1;
    }
    Ok(found)
}

/// Behind the closing quote of the string that begins at `at`.
fn end_of_string(bytes: &[u8], at: usize) -> usize {
    let mut at = at + 1;
    while let Some(byte) = bytes.get(at) {
        match byte {
            b'"' => return at + 1,
            b'\\' => at += 2,
            _ => at += 1,
        }
    }
    bytes.len()
}

fn parse_field<'a, T: Deserialize<'a>>(value: &'a str, field: &str) -> Result<T, Refusal> {
    serde_json::from_str(value).map_err(|error| Refusal::from_serde(&error, field))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_take_their_place_and_the_rest_keeps_its_bytes() {
        for (params, expected) in [
            (r#"{"$result":"a"}"#, "<a>"),
            (
                r#"[ {"$result":"a"}, 1.50, {"x" : {"$result":"b"}} ]"#,
                r#"[ <a>, 1.50, {"x" : <b>} ]"#,
            ),
            (
                r#"{"all":{"$results":["a","b"]},"n":1e400}"#,
                r#"{"all":[<a>,<b>],"n":1e400}"#,
            ),
            (r#"{"$results":[]}"#, "[]"),
            (r#"{"$literal":{"$result":"a"}}"#, r#"{"$result":"a"}"#),
            (
                r#"{"$result":"a","other":1}"#,
                r#"{"$result":"a","other":1}"#,
            ),
            (r#"{"\u0024result":"a"}"#, "<a>"),
            (r#"{"price":"$5"}"#, r#"{"price":"$5"}"#),
            (r#"{"b":1,"a":2}"#, r#"{"b":1,"a":2}"#),
            (
                r#"{"$result":"a","$result":"b"}"#,
                r#"{"$result":"a","$result":"b"}"#,
            ),
            (
                r#"{"$literal":[{"$result":"a"},{"$literal":1}]}"#,
                r#"[{"$result":"a"},{"$literal":1}]"#,
            ),
            (
                r#"["}\"{",{"$result":"a"},"\\",{"}":{"$result":"b"}}]"#,
                r#"["}\"{",<a>,"\\",{"}":<b>}]"#,
            ),
            (r#"{"$re\u0073ult":"a"}"#, "<a>"),
            (r#"[{"$results":[ ]},{"$literal": {} }]"#, "[[],{}]"),
        ] {
            let out = splice(params, 1_000, |id| {
                Ok(if id.as_str() == "a" { "<a>" } else { "<b>" })
            })
            .unwrap();
            assert_eq!(out, expected, "{params}");
        }
    }

    #[test]
    fn whatever_its_shape_params_are_gone_through_once() {
        let deep = |open: &str, inner: &str, close: &str, n: usize| {
            format!("{}{inner}{}", open.repeat(n), close.repeat(n))
        };
        let arrays = deep("[", r#"{"$result":"a"}"#, "]", 2_000_000);
        assert_eq!(references(&arrays).unwrap().len(), 1);
        let objects = deep(r#"{"$result":"#, "1", "}", 1_000_000);
        assert_eq!(
            references(&objects).unwrap_err().code,
            RefusalCode::TooLarge
        );
        let wide = format!("[{}]", vec![r#"{"$result":"a"}"#; 200_000].join(","));
        assert_eq!(references(&wide).unwrap().len(), 1);
        let refused = splice(&wide, 1 << 20, |_| Ok("0123456789")).unwrap_err();
        assert!(
            refused.code == RefusalCode::TooLarge && refused.message.contains("1048576"),
            "{refused}"
        );
        let different: Vec<String> = (0..200_000)
            .map(|n| format!(r#"{{"$result":"t{n}"}}"#))
            .collect();
        assert_eq!(
            references(&format!("[{}]", different.join(",")))
                .unwrap_err()
                .code,
            RefusalCode::TooLarge
        );
        let named = format!(r#"{{"$results":[{}]}}"#, vec![r#""a""#; 10_001].join(","));
        assert!(
            references(&named)
                .unwrap_err()
                .message
                .contains("more than 10000 tasks")
        );
    }

    #[test]
    fn a_blob_stands_for_all_of_the_params_or_is_data() {
        let hash = Hash::of(b"x");
        assert_eq!(blob(of_blob(&hash).get()).unwrap(), Some(hash));
        assert_eq!(
            blob(&format!(r#"{{ "\u0024blob" : "{hash}" }}"#)).unwrap(),
            Some(hash)
        );
        for data in [
            r#"{"$blob":"x","y":1}"#,
            r#"{"a":{"$blob":"x"}}"#,
            r#"["$blob"]"#,
            r#"{"$literal":{"$blob":"x"}}"#,
        ] {
            assert_eq!(blob(data).unwrap(), None, "{data}");
        }
        for wrong in [r#"{"$blob":"abc"}"#, r#"{"$blob":7}"#] {
            assert_eq!(
                blob(wrong).unwrap_err().field.as_deref(),
                Some("params.$blob"),
                "{wrong}"
            );
        }
    }

    #[test]
    fn references_are_found_once_each_in_order() {
        let ids =
            references(r#"[{"$result":"b"},{"$results":["a","b"]},{"$literal":{"$result":"c"}}]"#)
                .unwrap();
        assert_eq!(
            ids.iter().map(TaskId::as_str).collect::<Vec<_>>(),
            ["b", "a"]
        );
        assert_eq!(references(r#"{"a":1}"#).unwrap(), []);
    }

    #[test]
    fn a_wrong_reference_is_named() {
        for (params, field) in [
            (r#"{"$result":1}"#, "params.$result"),
            (r#"{"$results":"a"}"#, "params.$results"),
        ] {
            assert_eq!(
                references(params).unwrap_err().field.as_deref(),
                Some(field),
                "{params}"
            );
        }
        assert_eq!(
            references(r#"{"$results":{"job":"x"}}"#).unwrap_err().code,
            RefusalCode::Unsupported
        );
    }
}
