//! Why a request from outside was not done: a stable code for programs, a sentence for people.

use crate::excerpt::{excerpt, sentence};
use serde::{Deserialize, Serialize};
use std::borrow::Cow;
use std::fmt;

/// The kind of mistake. Programs decide by it, never by the text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum RefusalCode {
    /// The text is not JSON.
    MalformedJson,
    /// A field is not known.
    UnknownField,
    /// A field has another type than it must have.
    WrongType,
    /// A field is missing.
    MissingField,
    /// A value is outside its bounds.
    InvalidValue,
    /// The event is not known.
    UnknownEvent,
    /// The task folder has no module of this name.
    UnknownModule,
    /// A dependency names a task that nobody has added.
    UnknownDependency,
    /// Tasks wait for each other in a circle.
    DependencyCycle,
    /// Another document was added under the same id.
    IdConflict,
    /// A message, batch, document or value is above its limit.
    TooLarge,
    /// The field is reserved for a later version.
    Unsupported,
    /// The token is missing or wrong.
    Unauthorized,
    /// The peer speaks another version of the protocol.
    ProtocolVersion,
    /// The master has no bytes of this hash.
    UnknownBlob,
    /// The master knows no task of this id.
    UnknownTask,
    /// The master knows no job of this name.
    UnknownJob,
    /// The master knows no runner of this name.
    UnknownRunner,
    /// No kept answer has this key.
    UnknownAnswer,
    /// The task, job, module or runner is in a state in which this cannot be done.
    WrongState,
    /// The master cannot do it now (its disk is full, or its start not finished). Nothing was done,
    /// and trying again may help.
    Unavailable,
    /// The peer's role does not allow it.
    NotAllowed,
    /// The master made a mistake; its log has more.
    Internal,
}

/// A refusal, as it travels and as `-o json` prints it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct Refusal {
    /// The kind of mistake.
    pub code: RefusalCode,
    /// One sentence: what was wrong, with its value, and what would be right.
    pub message: String,
    /// The path of the field that is at fault (`retries.max`), if any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub field: Option<String>,
    /// The line of the feed that is at fault, from 1, if any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub line: Option<u64>,
    /// The tasks concerned: the unknown dependencies, or the members of a cycle.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ids: Vec<crate::TaskId>,
}

impl Refusal {
    /// A refusal that names no field, line or task.
    pub fn new(code: RefusalCode, message: impl Into<String>) -> Refusal {
        Refusal {
            code,
            message: sentence(message.into()),
            field: None,
            line: None,
            ids: Vec::new(),
        }
    }

    /// Names the field that is at fault.
    pub fn at(mut self, field: impl Into<String>) -> Refusal {
        let field = field.into();
        self.field = Some(match excerpt(&field) {
            Cow::Borrowed(_) => field,
            Cow::Owned(beginning) => beginning,
        });
        self
    }

    /// Names the tasks concerned.
    pub fn about(mut self, ids: Vec<crate::TaskId>) -> Refusal {
        self.ids = ids;
        self
    }

    /// Turns an error of serde into a refusal. `path` is where the error happened; `.` or nothing
    /// stands for the whole document.
    pub fn from_serde(error: &serde_json::Error, path: &str) -> Refusal {
        let text = error.to_string();
        let message = text.split(" at line ").next().unwrap_or(&text);
        let path = path.trim_matches('.');
        if message.starts_with("unknown field") {
            return unknown_field(message, path);
        }
        if message.starts_with("missing field") {
            let field = field_inside(path, first_quoted(message));
            let text = format!("the field `{}` is missing", excerpt(&field));
            return Refusal::new(RefusalCode::MissingField, text).at(field);
        }
        if !error.is_data() {
            return Refusal::new(RefusalCode::MalformedJson, format!("not JSON: {text}"));
        }
        let code = if message.starts_with("invalid type") {
            RefusalCode::WrongType
        } else {
            RefusalCode::InvalidValue
        };
        match path {
            "" => Refusal::new(code, message),
            field => {
                let text = format!("field `{}`: {message}", excerpt(field));
                Refusal::new(code, text).at(field)
            }
        }
    }
}

/// serde's message is ``unknown field `a`, expected one of `b`, `c` ``.
fn unknown_field(message: &str, path: &str) -> Refusal {
    let name = first_quoted(message);
    let known: Vec<&str> = message.split('`').skip(3).step_by(2).collect();
    let hint = crate::near::hint(name, known.iter().copied());
    let help = if hint.is_empty() {
        format!("; the fields are {}", known.join(", "))
    } else {
        hint
    };
    let field = field_inside(path, name);
    let text = format!("unknown field `{}`{help}", excerpt(&field));
    Refusal::new(RefusalCode::UnknownField, text).at(field)
}

fn first_quoted(message: &str) -> &str {
    message.split('`').nth(1).unwrap_or_default()
}

/// The path of the field `name`; the path of the error may end with it already.
fn field_inside(path: &str, name: &str) -> String {
    if path.is_empty() || path == name || path.ends_with(&format!(".{name}")) {
        return if path.is_empty() { name } else { path }.to_owned();
    }
    format!("{path}.{name}")
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            Some(line) => write!(f, "line {line}: {}", self.message),
            None => f.write_str(&self.message),
        }
    }
}

impl std::error::Error for Refusal {}

/// Reads `T` from JSON text. The refusal of a wrong text names the field; its path is sought only
/// then, so that reading is fast.
pub fn read<'a, T: Deserialize<'a>>(text: &'a str) -> Result<T, Refusal> {
    serde_json::from_str(text).map_err(|first| {
        let mut reader = serde_json::Deserializer::from_str(text);
        let mut refusal = match serde_path_to_error::deserialize::<_, T>(&mut reader) {
            Err(error) => Refusal::from_serde(error.inner(), &error.path().to_string()),
            Ok(_) => Refusal::from_serde(&first, ""),
        };
        if let Some(word) = foreign_word(text, &first).filter(|_| !first.is_data()) {
            refusal.message.push_str(&format!("; JSON has no `{word}`"));
        }
        refusal
    })
}

/// The word at which a text stops being JSON, where it is one that other notations have.
pub fn foreign_word<'a>(text: &'a str, error: &serde_json::Error) -> Option<&'a str> {
    const FOREIGN: [&str; 10] = [
        "NaN",
        "nan",
        "Infinity",
        "inf",
        "Inf",
        "None",
        "True",
        "False",
        "undefined",
        "nil",
    ];
    let line = text.lines().nth(error.line().checked_sub(1)?)?;
    let is_of_word = |c: &u8| c.is_ascii_alphabetic();
    // The column counts bytes, and is that of the word's first or second byte.
    let at = error.column().saturating_sub(1).min(line.len());
    let bytes = line.as_bytes();
    let before = bytes[..at]
        .iter()
        .rev()
        .take_while(|c| is_of_word(c))
        .count();
    let after = bytes[at..].iter().take_while(|c| is_of_word(c)).count();
    let word = line.get(at - before..at + after)?;
    FOREIGN.contains(&word).then_some(word)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::TaskDocument;

    #[test]
    fn what_is_said_of_megabytes_is_short_and_says_what_would_be_right() {
        let long = "y".repeat(8 << 20);
        for (document, words) in [
            (
                format!(r#"{{"module":"echo","{long}":1}}"#),
                "the fields are",
            ),
            (
                format!(r#"{{"module":"echo","retries":{{"{long}":1}}}}"#),
                "the fields are",
            ),
            (
                format!(r#"{{"module":"echo","priority":"{long}"}}"#),
                "expected i32",
            ),
            (format!(r#"{{"module":"echo","id":"{long}"}}"#), "128"),
            (format!(r#"{{"module":"{long}"}}"#), "128"),
            (
                format!(r#"{{"module":"echo","not_before":"{long}"}}"#),
                "yyy",
            ),
        ] {
            let refusal = TaskDocument::parse(&document).unwrap_err();
            let field = refusal.field.clone().unwrap_or_default();
            assert!(
                refusal.message.len() < 5_000 && field.len() < 500,
                "{}",
                &document[..40]
            );
            assert!(refusal.message.contains(words), "{refusal}");
        }
        let event = crate::ToMaster::decode(&format!(r#"{{"event":"{long}"}}"#)).unwrap_err();
        assert!(event.message.len() < 200, "{event}");
    }

    #[test]
    fn words_of_other_notations_are_named() {
        for (text, word) in [
            (r#"{"module":"echo","params":NaN}"#, "NaN"),
            (r#"{"module":"echo","params":[1,nan]}"#, "nan"),
            (r#"{"module":"echo","params":-Infinity}"#, "Infinity"),
            (r#"{"module":"echo","params":{"a": True}}"#, "True"),
            (r#"{"module":"echo","params":None}"#, "None"),
            (
                r#"{"module":"echo","args":["größe"],"params":undefined}"#,
                "undefined",
            ),
        ] {
            let refusal = TaskDocument::parse(text).unwrap_err();
            assert_eq!(refusal.code, RefusalCode::MalformedJson, "{refusal}");
            let words = format!("JSON has no `{word}`");
            assert!(refusal.message.ends_with(&words), "{text}: {refusal}");
        }
        let other = TaskDocument::parse(r#"{"module":echo}"#).unwrap_err();
        assert!(!other.message.contains("JSON has no"), "{other}");
    }

    #[test]
    fn a_mistake_names_field_value_and_what_would_be_right() {
        for (document, code, field, words) in [
            (
                r#"{"module":"echo","prams":1}"#,
                RefusalCode::UnknownField,
                Some("prams"),
                "did you mean `params`",
            ),
            (
                r#"{"params":1}"#,
                RefusalCode::MissingField,
                Some("module"),
                "is missing",
            ),
            (
                r#"{"module":"echo","priority":"high"}"#,
                RefusalCode::WrongType,
                Some("priority"),
                "\"high\", expected i32",
            ),
            (
                r#"{"module":"echo","retries":{"maxx":1}}"#,
                RefusalCode::UnknownField,
                Some("retries.maxx"),
                "`max`",
            ),
            (
                r#"{"module":"echo","retries":{"max":"x"}}"#,
                RefusalCode::WrongType,
                Some("retries.max"),
                "\"x\"",
            ),
            (
                r#"{"module":"echo","id":"a b"}"#,
                RefusalCode::InvalidValue,
                Some("id"),
                "`a b`",
            ),
            (
                r#"{"module":"#,
                RefusalCode::MalformedJson,
                None,
                "line 1 column 10",
            ),
            (
                r#"["echo","echo"]"#,
                RefusalCode::WrongType,
                None,
                "an object",
            ),
        ] {
            let refusal = TaskDocument::parse(document).unwrap_err();
            assert_eq!(refusal.code, code, "{document}: {refusal}");
            assert_eq!(refusal.field.as_deref(), field, "{document}: {refusal}");
            assert!(refusal.message.contains(words), "{document}: {refusal}");
        }
    }
}
