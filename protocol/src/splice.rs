//! Results inside params: `{"$result":"id"}`, `{"$results":["id",…]}` and `{"$literal":value}` are
//! replaced by what they stand for; and params that are kept as a blob, `{"$blob":"sha256"}`.
//!
//! Everything else keeps its bytes: numbers are not rounded, keys are not re-ordered.

use crate::placeholder::{PlaceholderKind, Placeholders};
use crate::{Hash, Json, Refusal, RefusalCode, TaskId, limits};
use serde::Deserialize;
use serde_json::value::RawValue;
use std::collections::BTreeSet;

pub use crate::placeholder::may_refer;

/// Characters of a wrong blob's name that stand in the sentence about it.
const SHOWN_MAX: usize = 80;

/// The ids of the tasks whose results `params` asks for, in the order of the text, each once. At
/// most [`limits::DEPENDENCIES_MAX`].
pub fn references(params: &str) -> Result<Vec<TaskId>, Refusal> {
    let mut ids = Vec::new();
    let mut seen = BTreeSet::new();
    for located in Placeholders::find(params)?.iter() {
        for id in located.ids(params)? {
            if seen.insert(id.clone()) {
                ids.push(id);
            }
        }
        if ids.len() > limits::DEPENDENCIES_MAX {
            let max = limits::DEPENDENCIES_MAX;
            let text = format!("field `params`: it asks for the results of more than {max} tasks");
            return Err(Refusal::new(RefusalCode::TooLarge, text).at("params"));
        }
    }
    Ok(ids)
}

/// `params` with every placeholder replaced; `result_of` gives the result of a task as JSON text.
/// Refused where the outcome is longer than `bytes_max` bytes, since a short text may ask for a
/// long result many times.
pub fn splice<'r>(
    params: &str,
    bytes_max: usize,
    result_of: impl Fn(&TaskId) -> Result<&'r str, Refusal>,
) -> Result<String, Refusal> {
    let mut spliced = String::with_capacity(params.len());
    let mut push = |text: &str| {
        if spliced.len() + text.len() > bytes_max {
            let text = format!(
                "params with all results in their places are longer than {bytes_max} bytes"
            );
            return Err(Refusal::new(RefusalCode::TooLarge, text).at("params"));
        }
        spliced.push_str(text);
        Ok(())
    };

    let mut copied = 0;
    for located in Placeholders::find(params)?.iter() {
        push(&params[copied..located.object.start])?;
        copied = located.object.end;
        match located.kind {
            PlaceholderKind::Literal => push(params[located.value.clone()].trim())?,
            PlaceholderKind::Result => {
                for id in located.ids(params)? {
                    push(result_of(&id)?)?;
                }
            }
            PlaceholderKind::Results => {
                push("[")?;
                for (index, id) in located.ids(params)?.iter().enumerate() {
                    push(if index == 0 { "" } else { "," })?;
                    push(result_of(id)?)?;
                }
                push("]")?;
            }
        }
    }
    push(&params[copied..])?;
    Ok(spliced)
}

/// Params that stand for the bytes of the blob `hash`.
pub fn of_blob(hash: &Hash) -> Json {
    Json::of(&serde_json::json!({ "$blob": hash }))
}

/// The blob that `params` stand for, if they do: `{"$blob":"sha256"}` and nothing else. A `$blob`
/// in a part of the params is data. Placeholders in the blob's text are placeholders of the task.
pub fn blob(params: &str) -> Result<Option<Hash>, Refusal> {
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct BlobParams<'a> {
        #[serde(rename = "$blob", borrow)]
        hash: &'a RawValue,
    }

    if !params.starts_with('{') || !may_refer(params) {
        return Ok(None);
    }
    let Ok(BlobParams { hash }) = serde_json::from_str::<BlobParams<'_>>(params) else {
        return Ok(None);
    };
    let field = "params.$blob";
    let text: String =
        serde_json::from_str(hash.get()).map_err(|error| Refusal::from_serde(&error, field))?;
    let wrong = || {
        let shown: String = text.chars().take(SHOWN_MAX).collect();
        let text = format!(
            "field `{field}`: `{shown}` names no blob: \
             a blob's name is its SHA-256, 64 hexadecimal digits"
        );
        Refusal::new(RefusalCode::InvalidValue, text).at(field)
    };
    Hash::parse(&text).map(Some).ok_or_else(wrong)
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
