//! Why something from outside was not done: a stable code for programs, a sentence for people.

use serde::{Deserialize, Serialize};
use std::fmt;

/// What kind of mistake it is; programs decide on this, never on the text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum RefusalCode {
    /// The text is not JSON.
    MalformedJson,
    /// A field that no document of this kind has.
    UnknownField,
    /// A field of another type than it must have.
    WrongType,
    /// A field that must be there is not.
    MissingField,
    /// A value outside its bounds.
    InvalidValue,
    /// An event that this side does not know.
    UnknownEvent,
    /// No such module in the task folder.
    UnknownModule,
    /// A dependency on a task that nobody has added.
    UnknownDependency,
    /// Tasks that wait for each other in a circle.
    DependencyCycle,
    /// The id is taken by another document.
    IdConflict,
    /// A message, batch, document or value above its limit.
    TooLarge,
    /// Meant to come, and not there yet.
    Unsupported,
    /// No token, or a wrong one.
    Unauthorized,
    /// The other side speaks another version of the protocol.
    ProtocolVersion,
    /// No bytes of this hash.
    UnknownBlob,
    /// No task of this id.
    UnknownTask,
    /// No job of this name.
    UnknownJob,
    /// No runner of this name.
    UnknownRunner,
    /// The thing is not in a state in which this can be done.
    WrongState,
    /// The master cannot take it now (a full disk, a start not finished); nothing was done; try
    /// again.
    Unavailable,
    /// A wish that this role may not have.
    NotAllowed,
    /// Something of ours went wrong; the log has more.
    Internal,
}

/// A refusal as it travels, and as `-o json` prints it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct Refusal {
    /// The kind of mistake.
    pub code: RefusalCode,
    /// One sentence: what was wrong, with its value, and what would be right.
    pub message: String,
    /// The field, as a path (`retries.max`), where one is at fault.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub field: Option<String>,
    /// The line of the feed, from 1, where one is at fault.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub line: Option<u64>,
    /// The ids concerned: the dependencies that are unknown, the members of a cycle.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ids: Vec<crate::TaskId>,
}

impl Refusal {
    /// A refusal without a field.
    pub fn new(code: RefusalCode, message: impl Into<String>) -> Refusal {
        Refusal {
            code,
            message: message.into(),
            field: None,
            line: None,
            ids: Vec::new(),
        }
    }

    /// The same, naming the field at fault.
    pub fn at(mut self, field: impl Into<String>) -> Refusal {
        self.field = Some(field.into());
        self
    }

    /// The same, naming the tasks concerned.
    pub fn about(mut self, ids: Vec<crate::TaskId>) -> Refusal {
        self.ids = ids;
        self
    }

    /// Turns serde's complaint about a document into ours. `path` is where it happened (`.` or
    /// empty: at the top).
    pub fn from_serde(error: &serde_json::Error, path: &str) -> Refusal {
        let text = error.to_string();
        let message = text.split(" at line ").next().unwrap_or(&text).to_owned();
        let quoted = message.split('`').nth(1).unwrap_or_default().to_owned();
        let inside = |name: &str| match path.trim_matches('.') {
            "" => name.to_owned(),
            outer if outer == name || outer.ends_with(&format!(".{name}")) => outer.to_owned(),
            outer => format!("{outer}.{name}"),
        };
        if message.starts_with("unknown field") {
            let known: Vec<&str> = message.split('`').skip(3).step_by(2).collect();
            let hint = crate::near::hint(&quoted, known.iter().copied());
            let all = if hint.is_empty() {
                format!("; the fields are {}", known.join(", "))
            } else {
                hint
            };
            let field = inside(&quoted);
            return Refusal::new(
                RefusalCode::UnknownField,
                format!("unknown field `{field}`{all}"),
            )
            .at(field);
        }
        if message.starts_with("missing field") {
            let field = inside(&quoted);
            return Refusal::new(
                RefusalCode::MissingField,
                format!("the field `{field}` is missing"),
            )
            .at(field);
        }
        if !error.is_data() {
            return Refusal::new(RefusalCode::MalformedJson, format!("not JSON: {text}"));
        }
        let typed = message.starts_with("invalid type");
        let code = if typed {
            RefusalCode::WrongType
        } else {
            RefusalCode::InvalidValue
        };
        match path.trim_matches('.') {
            "" => Refusal::new(code, message),
            field => Refusal::new(code, format!("field `{field}`: {message}")).at(field),
        }
    }
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

/// Reads `T` from JSON text; a mistake names its field. The path is sought only when reading fails.
pub fn read<'a, T: Deserialize<'a>>(text: &'a str) -> Result<T, Refusal> {
    serde_json::from_str(text).map_err(|first| {
        let mut reader = serde_json::Deserializer::from_str(text);
        match serde_path_to_error::deserialize::<_, T>(&mut reader) {
            Err(error) => Refusal::from_serde(error.inner(), &error.path().to_string()),
            Ok(_) => Refusal::from_serde(&first, ""),
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::TaskDocument;

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
