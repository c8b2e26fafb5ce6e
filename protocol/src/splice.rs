//! Results inside params: `{"$result":"id"}`, `{"$results":["id",…]}`, `{"$results":{"job":"name"}}`
//! and `{"$literal":value}` are replaced by what they stand for; and params that are kept as a blob,
//! `{"$blob":"sha256"}`.
//!
//! Everything else keeps its bytes: numbers are not rounded, keys are not re-ordered.

use crate::placeholder::{AskedFor, PlaceholderKind, Placeholders};
use crate::{Hash, JobName, Json, Refusal, RefusalCode, TaskId, limits};
use serde::Deserialize;
use serde_json::value::RawValue;
use std::collections::BTreeSet;

pub use crate::placeholder::may_refer;

/// Characters of a wrong blob's name that stand in the sentence about it.
const SHOWN_MAX: usize = 80;

/// Whose results params ask for, each once, in the order of the text.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct References {
    /// Single tasks. At most [`limits::DEPENDENCIES_MAX`].
    pub tasks: Vec<TaskId>,
    /// Whole jobs. At most [`limits::RESULT_JOBS_MAX`].
    pub jobs: Vec<JobName>,
}

impl References {
    /// How many dependencies the references imply.
    pub fn count(&self) -> usize {
        self.tasks.len() + self.jobs.len()
    }
}

/// Whose results `params` asks for.
pub fn references(params: &str) -> Result<References, Refusal> {
    let too_many = |max: usize, what: &str| {
        let text = format!("field `params`: it asks for the results of more than {max} {what}");
        Refusal::new(RefusalCode::TooLarge, text).at("params")
    };
    let mut references = References::default();
    let mut seen = BTreeSet::new();
    for located in Placeholders::find(params)?.iter() {
        let ids = match located.asked_for(params)? {
            AskedFor::Tasks(ids) => ids,
            AskedFor::Job(job) => {
                if !references.jobs.contains(&job) {
                    references.jobs.push(job);
                }
                if references.jobs.len() > limits::RESULT_JOBS_MAX {
                    return Err(too_many(limits::RESULT_JOBS_MAX, "jobs"));
                }
                continue;
            }
        };
        for id in ids {
            if seen.insert(id.clone()) {
                references.tasks.push(id);
            }
        }
        if references.tasks.len() > limits::DEPENDENCIES_MAX {
            return Err(too_many(limits::DEPENDENCIES_MAX, "tasks"));
        }
    }
    Ok(references)
}

/// `params` with every placeholder replaced; `result_of` gives the result of a task as JSON text, and
/// `tasks_of` the tasks of a job. Refused where the outcome is longer than `bytes_max` bytes, since a
/// short text may ask for a long result many times.
pub fn splice<'r>(
    params: &str,
    bytes_max: usize,
    result_of: impl Fn(&TaskId) -> Result<&'r str, Refusal>,
    tasks_of: impl Fn(&JobName) -> Result<&'r [TaskId], Refusal>,
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
        if located.kind == PlaceholderKind::Literal {
            push(params[located.value.clone()].trim())?;
            continue;
        }
        let asked_for = located.asked_for(params)?;
        let ids = match &asked_for {
            AskedFor::Tasks(ids) => ids.as_slice(),
            AskedFor::Job(job) => tasks_of(job)?,
        };
        let is_array = located.kind == PlaceholderKind::Results;
        push(if is_array { "[" } else { "" })?;
        for (index, id) in ids.iter().enumerate() {
            push(if index == 0 { "" } else { "," })?;
            push(result_of(id)?)?;
        }
        push(if is_array { "]" } else { "" })?;
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
        let tasks = [TaskId::new("b").unwrap(), TaskId::new("a").unwrap()];
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
            (r#"[{"$results":{"job":"j"}}]"#, "[[<b>,<a>]]"),
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
            let result_of = |id: &TaskId| Ok(if id.as_str() == "a" { "<a>" } else { "<b>" });
            let out = splice(params, 1_000, result_of, |_| Ok(&tasks)).unwrap();
            assert_eq!(out, expected, "{params}");
        }
    }

    #[test]
    fn whatever_its_shape_params_are_gone_through_once() {
        let deep = |open: &str, inner: &str, close: &str, n: usize| {
            format!("{}{inner}{}", open.repeat(n), close.repeat(n))
        };
        let arrays = deep("[", r#"{"$result":"a"}"#, "]", 2_000_000);
        assert_eq!(references(&arrays).unwrap().tasks.len(), 1);
        let objects = deep(r#"{"$result":"#, "1", "}", 1_000_000);
        assert_eq!(
            references(&objects).unwrap_err().code,
            RefusalCode::TooLarge
        );
        let wide = format!("[{}]", vec![r#"{"$result":"a"}"#; 200_000].join(","));
        assert_eq!(references(&wide).unwrap().count(), 1);
        let refused = splice(&wide, 1 << 20, |_| Ok("0123456789"), |_| Ok(&[])).unwrap_err();
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
        let found = references(
            r#"[{"$result":"b"},{"$results":["a","b"]},{"$literal":{"$result":"c"}},
                {"$results":{"job":"j"}},[{"$results":{"job":"i"}},{"$results":{"job":"j"}}]]"#,
        )
        .unwrap();
        let tasks: Vec<&str> = found.tasks.iter().map(TaskId::as_str).collect();
        let jobs: Vec<&str> = found.jobs.iter().map(JobName::as_str).collect();
        assert_eq!((tasks, jobs), (vec!["b", "a"], vec!["j", "i"]));
        assert_eq!(references(r#"{"a":1}"#).unwrap(), References::default());
    }

    #[test]
    fn a_wrong_reference_is_named() {
        for (params, field) in [
            (r#"{"$result":1}"#, "params.$result"),
            (r#"{"$results":"a"}"#, "params.$results"),
            (r#"{"$results":{"job":"no name"}}"#, "params.$results"),
            (r#"{"$results":{"jobs":"j"}}"#, "params.$results.jobs"),
            (r#"{"$results":{}}"#, "params.$results.job"),
        ] {
            assert_eq!(
                references(params).unwrap_err().field.as_deref(),
                Some(field),
                "{params}"
            );
        }
        let jobs: Vec<String> = (0..17)
            .map(|n| format!(r#"{{"$results":{{"job":"j{n}"}}}}"#))
            .collect();
        let refusal = references(&format!("[{}]", jobs.join(","))).unwrap_err();
        assert!(refusal.message.contains("more than 16 jobs"), "{refusal}");
    }
}
