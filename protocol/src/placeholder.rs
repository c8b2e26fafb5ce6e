//! Placeholders in params: an object with exactly one key, `$result`, `$results` or `$literal`,
//! stands for something else.
//!
//! This is the only reader of placeholders. Splicing, the types of a component's function and the
//! schema of a manifest all ask it, so that they cannot disagree. An object in which `$result`
//! stands twice has two members and is no placeholder. A placeholder inside another one is part of
//! the outer one's value.
//!
//! Params come from outside and may have megabytes. They are read once and without recursion, and
//! nothing is remembered but the places that were found.

use crate::{JobName, Refusal, RefusalCode, TaskId, limits};
use serde::Deserialize;
use serde_json::value::RawValue;
use std::borrow::Cow;
use std::ops::Range;

/// Whether `params` may hold a placeholder at all. This cheap test spares nearly every task the
/// reading.
pub fn may_refer(params: &str) -> bool {
    params.contains("\"$") || params.contains("\"\\u0024")
}

/// What an object in params stands for.
#[derive(Debug, Clone, Copy)]
pub enum Placeholder<'a> {
    /// `{"$result":"id"}`: the result of a task.
    Result,
    /// `{"$results":["id",…]}` or `{"$results":{"job":"name"}}`: an array of the results of tasks.
    Results,
    /// `{"$literal":value}`: the value itself, in which nothing is a placeholder.
    Literal(&'a RawValue),
}

/// The outermost placeholders of a JSON text, in the order of the text.
#[derive(Debug)]
pub struct Placeholders<'a> {
    text: &'a str,
    found: Vec<Located>,
}

/// Which of the placeholders it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum PlaceholderKind {
    Literal,
    Result,
    Results,
}

/// Whose results a placeholder asks for.
#[derive(Debug)]
pub(crate) enum AskedFor {
    /// These tasks, in the order of the text.
    Tasks(Vec<TaskId>),
    /// All tasks of a run of this job, in the order of adding.
    Job(JobName),
}

/// One placeholder and its place in the text, in bytes.
#[derive(Debug)]
pub(crate) struct Located {
    pub(crate) kind: PlaceholderKind,
    /// The object, braces included.
    pub(crate) object: Range<usize>,
    /// The value behind the object's key, with the white space around it.
    pub(crate) value: Range<usize>,
}

impl<'a> Placeholders<'a> {
    /// Finds the placeholders of `text`, which is valid JSON. Refused where more than
    /// [`limits::PARAMS_DEPTH_MAX`] objects stand inside each other.
    pub fn find(text: &'a str) -> Result<Placeholders<'a>, Refusal> {
        let found = if may_refer(text) {
            locate(text)?
        } else {
            Vec::new()
        };
        Ok(Placeholders { text, found })
    }

    /// The placeholders of a text in which all of them have been replaced already: none, whatever
    /// the text looks like.
    pub fn none(text: &'a str) -> Placeholders<'a> {
        Placeholders {
            text,
            found: Vec::new(),
        }
    }

    /// What `value` stands for, if it is a placeholder. `value` is one whole JSON value that is
    /// borrowed from the text; any other string is no placeholder.
    pub fn at(&self, value: &str) -> Option<Placeholder<'a>> {
        let range = self.range_of(value)?;
        let index = self
            .found
            .binary_search_by_key(&range.start, |located| located.object.start)
            .ok()?;
        let located = self
            .found
            .get(index)
            .filter(|located| located.object.end == range.end)?;
        match located.kind {
            PlaceholderKind::Result => Some(Placeholder::Result),
            PlaceholderKind::Results => Some(Placeholder::Results),
            PlaceholderKind::Literal => {
                let value = self.text.get(located.value.clone())?;
                serde_json::from_str(value).ok().map(Placeholder::Literal)
            }
        }
    }

    /// Whether a result of a task stands in `value`, at any depth. `value` is borrowed from the
    /// text.
    pub fn has_result(&self, value: &str) -> bool {
        self.inside(value)
            .iter()
            .any(|located| located.kind != PlaceholderKind::Literal)
    }

    /// `value` with its literals in their places; `None` where a result of a task stands in it,
    /// because that is not known yet. `value` is borrowed from the text.
    pub fn resolved<'v>(&self, value: &'v str) -> Option<Cow<'v, str>> {
        if self.has_result(value) {
            return None;
        }
        let inside = self.inside(value);
        if inside.is_empty() {
            return Some(value.into());
        }
        let range = self.range_of(value)?;
        let mut resolved = String::with_capacity(value.len());
        let mut copied = range.start;
        for located in inside {
            resolved.push_str(self.text.get(copied..located.object.start)?);
            resolved.push_str(self.text.get(located.value.clone())?);
            copied = located.object.end;
        }
        resolved.push_str(self.text.get(copied..range.end)?);
        Some(resolved.into())
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Located> {
        self.found.iter()
    }

    /// The placeholders that lie in `value`, itself included.
    fn inside(&self, value: &str) -> &[Located] {
        let Some(range) = self.range_of(value) else {
            return &[];
        };
        let first = self
            .found
            .partition_point(|located| located.object.start < range.start);
        let end = self
            .found
            .partition_point(|located| located.object.end <= range.end);
        self.found.get(first..end).unwrap_or(&[])
    }

    /// The place of `value` in the text, told by its address: a value that was read from the text
    /// without a copy lies in it. (`str::substr_range` is not stable yet.)
    fn range_of(&self, value: &str) -> Option<Range<usize>> {
        let start = value
            .as_ptr()
            .addr()
            .checked_sub(self.text.as_ptr().addr())?;
        let end = start.checked_add(value.len())?;
        (end <= self.text.len()).then_some(start..end)
    }
}

impl PlaceholderKind {
    /// The kind by its key as the key stands in the text, quotes included.
    fn of_key(key: &str) -> Option<PlaceholderKind> {
        if !may_refer(key) {
            return None;
        }
        let name: Cow<'_, str> = match key.strip_prefix('"').and_then(|key| key.strip_suffix('"')) {
            Some(plain) if !plain.contains('\\') => plain.into(),
            _ => serde_json::from_str::<String>(key).ok()?.into(),
        };
        match name.as_ref() {
            "$literal" => Some(PlaceholderKind::Literal),
            "$result" => Some(PlaceholderKind::Result),
            "$results" => Some(PlaceholderKind::Results),
            _ => None,
        }
    }
}

impl Located {
    /// Whose results the placeholder asks for.
    pub(crate) fn asked_for(&self, text: &str) -> Result<AskedFor, Refusal> {
        let value = text.get(self.value.clone()).unwrap_or_default().trim();
        match self.kind {
            PlaceholderKind::Literal => Ok(AskedFor::Tasks(Vec::new())),
            PlaceholderKind::Result => {
                read_field(value, "params.$result").map(|id| AskedFor::Tasks(vec![id]))
            }
            PlaceholderKind::Results if value.starts_with('{') => {
                let whole: WholeJob = read_field(value, "params.$results")?;
                Ok(AskedFor::Job(whole.job))
            }
            PlaceholderKind::Results => {
                // Counted before the ids are read, because an id in memory is longer than a short
                // id in the text.
                let max = limits::DEPENDENCIES_MAX;
                if value.bytes().filter(|byte| *byte == b'"').count() / 2 > max {
                    let text = format!("field `params.$results`: it names more than {max} tasks");
                    return Err(Refusal::new(RefusalCode::TooLarge, text).at("params.$results"));
                }
                read_field(value, "params.$results").map(AskedFor::Tasks)
            }
        }
    }
}

/// The value of a `$results` that asks for a whole job.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WholeJob {
    job: JobName,
}

fn read_field<'a, T: Deserialize<'a>>(value: &'a str, field: &str) -> Result<T, Refusal> {
    serde_json::from_str(value).map_err(|error| Refusal::from_serde(&error, field))
}

/// An object whose closing brace has not been read yet.
#[derive(Default)]
struct OpenObject {
    start: usize,
    /// The first key, quotes included; empty until it has been read.
    key: Range<usize>,
    /// Where the first value begins.
    value: usize,
    /// Members so far. A key that stands twice counts twice.
    members: usize,
    /// How many placeholders had been found before this object began.
    found_before: usize,
}

impl OpenObject {
    /// What the object stands for, now that its closing brace has been read at `end`.
    fn close(self, text: &str, end: usize) -> Option<Located> {
        if self.members != 1 {
            return None;
        }
        Some(Located {
            kind: PlaceholderKind::of_key(text.get(self.key)?)?,
            object: self.start..end + 1,
            value: self.value..end,
        })
    }
}

/// Goes through the text once and keeps a stack of the objects that are open.
fn locate(text: &str) -> Result<Vec<Located>, Refusal> {
    let bytes = text.as_bytes();
    let mut found: Vec<Located> = Vec::new();
    let mut open: Vec<OpenObject> = Vec::new();
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
                    object.members += 1;
                    if object.members == 1 {
                        object.value = at + 1;
                    }
                }
            }
            b'{' if open.len() >= limits::PARAMS_DEPTH_MAX => return Err(too_deep()),
            b'{' => open.push(OpenObject {
                start: at,
                found_before: found.len(),
                ..OpenObject::default()
            }),
            b'}' => {
                if let Some(object) = open.pop() {
                    let found_before = object.found_before;
                    if let Some(located) = object.close(text, at) {
                        found.truncate(found_before);
                        found.push(located);
                    }
                }
            }
            _ => {}
        }
        at += 1;
    }
    Ok(found)
}

fn too_deep() -> Refusal {
    let max = limits::PARAMS_DEPTH_MAX;
    let text = format!(
        "field `params`: more than {max} objects inside each other, \
         and a key that begins with `$` in them"
    );
    Refusal::new(RefusalCode::TooLarge, text).at("params")
}

/// Behind the closing quote of the string that begins at `start`.
fn end_of_string(bytes: &[u8], start: usize) -> usize {
    let mut at = start + 1;
    while let Some(byte) = bytes.get(at) {
        match byte {
            b'"' => return at + 1,
            b'\\' => at += 2,
            _ => at += 1,
        }
    }
    bytes.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the value behind `before` stands for in `text`.
    fn kind_behind(text: &str, before: &str) -> Option<String> {
        let start = text.find(before).unwrap() + before.len();
        let value: &RawValue = serde_json::Deserializer::from_str(&text[start..])
            .into_iter()
            .next()
            .unwrap()
            .unwrap();
        let placeholders = Placeholders::find(text).unwrap();
        placeholders
            .at(value.get())
            .map(|placeholder| match placeholder {
                Placeholder::Result => "result".into(),
                Placeholder::Results => "results".into(),
                Placeholder::Literal(value) => value.get().into(),
            })
    }

    #[test]
    fn an_object_with_one_key_that_is_known_is_a_placeholder() {
        for (text, expected) in [
            (r#"[0,{"$result":"a"}]"#, Some("result")),
            (r#"[0,{ "$re\u0073ult" : "a" }]"#, Some("result")),
            (r#"[0,{"$results":["a"]}]"#, Some("results")),
            (
                r#"[0,{"$literal": {"$result":1} }]"#,
                Some(r#"{"$result":1}"#),
            ),
            (r#"[0,{"$result":1,"$result":2}]"#, None),
            (r#"[0,{"$literal":1,"$literal":2}]"#, None),
            (r#"[0,{"$result":"a","b":1}]"#, None),
            (r#"[0,{"$other":1}]"#, None),
            (r#"[0,{"a":{"$result":"a"}}]"#, None),
            (r#"[0,"$result"]"#, None),
            (r#"[0,{}]"#, None),
        ] {
            assert_eq!(kind_behind(text, "[0,").as_deref(), expected, "{text}");
        }
        let inside_of_a_literal = r#"{"$literal":[0,{"$result":"a"}]}"#;
        assert_eq!(kind_behind(inside_of_a_literal, "[0,"), None);
    }

    #[test]
    fn a_string_that_is_not_of_the_text_is_no_placeholder() {
        let text = r#"{"$result":"a"}"#.to_owned();
        let placeholders = Placeholders::find(&text).unwrap();
        assert!(placeholders.at(&text).is_some() && placeholders.has_result(&text));
        let copy = text.clone();
        assert!(placeholders.at(&copy).is_none() && !placeholders.has_result(&copy));
        assert!(placeholders.at(&text[..4]).is_none());
        assert!(Placeholders::none(&text).at(&text).is_none());
    }

    #[test]
    fn a_value_is_known_where_no_result_stands_in_it() {
        let text = r#"{"a":[{"$literal": 1 },2],"b":[{"$result":"x"}]}"#;
        let placeholders = Placeholders::find(text).unwrap();
        let known = &text[5..25];
        assert_eq!(placeholders.resolved(known).unwrap(), "[ 1 ,2]");
        assert_eq!(placeholders.resolved(text), None);
        assert!(!placeholders.has_result(known) && placeholders.has_result(text));
    }
}
