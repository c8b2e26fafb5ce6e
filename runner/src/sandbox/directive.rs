//! What a guest may tell the master: a line of stderr such as `::progress 0.4 half way`, or a call
//! of a function that means the same.

use std::borrow::Cow;
use taskmaster_protocol::{Hash, Json, TaskDocument, TaskId, limits};

/// Bytes of what comes with one directive: as much as all added tasks may have together. It is read
/// within some hundredths of a second.
const TEXT_BYTES_MAX: usize = limits::ADDS_BYTES_MAX;

/// The words of the directives.
const WORDS: [&str; 5] = ["progress", "partial", "add", "then", "cache"];

/// Characters of a wrong directive that its warning repeats.
const SHOWN_BYTES_MAX: usize = 80;

/// Something that a running task tells the master.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Directive {
    /// How far the task is.
    Progress(Json),
    /// A first part of the result.
    Partial(Json),
    /// Add this task when the running one is done.
    Add(Json),
    /// Go on as this task: its result will be that of the running one.
    Then(Json),
    /// For this number of seconds the result may be used again.
    Cache(u64),
}

/// Why a directive is not obeyed. The guest reads the sentence, in its log or as the error of the
/// function that it called.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DirectiveError {
    /// The fraction of a progress is out of its bounds.
    #[error("`::progress`: expected a fraction between 0 and 1, then a note")]
    Fraction,
    /// What should be JSON is not.
    #[error("`::{word} {shown}`: not JSON: {why}")]
    NotJson {
        /// The directive.
        word: &'static str,
        /// The beginning of what was given.
        shown: String,
        /// What the parser said.
        why: String,
    },
    /// The text is longer than any use of it. Nothing of it is read, because a guest cannot be
    /// stopped while it is.
    #[error("`::{word}`: {bytes} bytes, at most {max} are allowed")]
    TooLong {
        /// The directive.
        word: &'static str,
        /// The length of what was given.
        bytes: usize,
        /// The most that is read.
        max: usize,
    },
    /// What should be a task document is wrong.
    #[error("`::{word} {shown}`: {why}")]
    Document {
        /// The directive.
        word: &'static str,
        /// The beginning of what was given.
        shown: String,
        /// What is wrong with the document.
        why: String,
    },
    /// The added task cannot be given an id.
    #[error("`::add`: {0}")]
    Child(String),
    /// What should be a number of seconds is not.
    #[error("`::cache {0}`: expected a number of seconds")]
    Seconds(String),
    /// The attempt has asked for more tasks than it may.
    #[error("{0}")]
    TooManyTasks(String),
}

impl Directive {
    /// Reads a line of stderr. `None`: the line is no directive. `Err`: the line is meant as a
    /// directive, and wrong.
    pub fn parse(line: &str) -> Option<Result<Directive, DirectiveError>> {
        let rest = line.strip_prefix("::")?;
        let (word, rest) = rest.split_once(' ').unwrap_or((rest, ""));
        let rest = rest.trim();
        Some(match word {
            "progress" => {
                let (number, note) = rest.split_once(' ').unwrap_or((rest, ""));
                Directive::progress(number.parse().unwrap_or(f64::NAN), note)
            }
            "partial" => Directive::partial(rest),
            "add" => Directive::add(rest),
            "then" => Directive::then(rest),
            "cache" => Directive::cache(rest),
            // Programs print `::` for reasons of their own.
            _ => return None,
        })
    }

    /// The word of the directive that a line begins with, if it begins with one.
    pub fn word_of(line: &[u8]) -> Option<&'static str> {
        let rest = line.strip_prefix(b"::")?;
        let begins = |word: &&str| {
            rest.strip_prefix(word.as_bytes())
                .is_some_and(|rest| rest.starts_with(b" "))
        };
        WORDS.into_iter().find(begins)
    }

    /// `fraction` is from 0 to 1; `note` is for people and may be empty.
    pub fn progress(fraction: f64, note: &str) -> Result<Directive, DirectiveError> {
        if !(0.0..=1.0).contains(&fraction) {
            return Err(DirectiveError::Fraction);
        }
        check_length("progress", note, TEXT_BYTES_MAX)?;
        let data = match note.trim() {
            "" => serde_json::json!({ "fraction": fraction }),
            note => serde_json::json!({ "fraction": fraction, "note": note }),
        };
        Ok(Directive::Progress(Json::of(&data)))
    }

    /// `value` is JSON.
    pub fn partial(value: &str) -> Result<Directive, DirectiveError> {
        json("partial", value, limits::PARTIAL_BYTES_MAX).map(Directive::Partial)
    }

    /// `task` is a task document.
    pub fn add(task: &str) -> Result<Directive, DirectiveError> {
        document("add", task).map(Directive::Add)
    }

    /// `task` is a task document.
    pub fn then(task: &str) -> Result<Directive, DirectiveError> {
        document("then", task).map(Directive::Then)
    }

    /// `seconds` is a whole number.
    pub fn cache(seconds: &str) -> Result<Directive, DirectiveError> {
        let parsed = seconds.trim().parse();
        parsed
            .map(Directive::Cache)
            .map_err(|_| DirectiveError::Seconds(shown(seconds).into_owned()))
    }
}

/// The id and the document of the task that `parent` adds as its `number`th. The id is the same in
/// every attempt of `parent`.
pub(super) fn child(
    parent: &TaskId,
    number: usize,
    task: &Json,
) -> Result<(TaskId, Json), DirectiveError> {
    let failed = |error: &dyn std::fmt::Display| DirectiveError::Child(error.to_string());
    let document = TaskDocument::parse(task.get()).map_err(|refusal| failed(&refusal))?;
    if let Some(id) = document.id {
        return Ok((id, task.clone()));
    }

    let mut name = format!("{parent}.{number}");
    if name.len() > limits::NAME_BYTES_MAX {
        name = format!("{}.{number}", Hash::of(parent.as_str().as_bytes()));
    }
    let id = TaskId::new(&name).map_err(|error| failed(&error))?;

    // A document is an object that has at least the field `module`, so a comma is right.
    let rest = task.get().trim_start().trim_start_matches('{');
    let with_id = Json::from_string(format!("{{\"id\":\"{id}\",{rest}"));
    Ok((id, with_id.map_err(|error| failed(&error))?))
}

fn check_length(word: &'static str, text: &str, max: usize) -> Result<(), DirectiveError> {
    let bytes = text.len();
    if bytes > max {
        return Err(DirectiveError::TooLong { word, bytes, max });
    }
    Ok(())
}

fn json(word: &'static str, text: &str, max: usize) -> Result<Json, DirectiveError> {
    check_length(word, text, max)?;
    Json::parse(text).map_err(|error| DirectiveError::NotJson {
        word,
        shown: shown(text).into_owned(),
        why: error.to_string(),
    })
}

fn document(word: &'static str, text: &str) -> Result<Json, DirectiveError> {
    let json = json(word, text, TEXT_BYTES_MAX)?;
    match TaskDocument::parse(json.get()) {
        Ok(_) => Ok(json),
        Err(refusal) => Err(DirectiveError::Document {
            word,
            shown: shown(text).into_owned(),
            why: refusal.to_string(),
        }),
    }
}

fn shown(text: &str) -> Cow<'_, str> {
    if text.len() <= SHOWN_BYTES_MAX {
        return text.into();
    }
    format!("{}…", &text[..text.floor_char_boundary(SHOWN_BYTES_MAX)]).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_child_has_an_id_made_of_its_parents_unless_it_brings_one() {
        let parent = TaskId::new("p").unwrap();
        let json = |text: &str| Json::parse(text).unwrap();
        let (id, task) = child(
            &parent,
            3,
            &json(r#"{ "module" : "echo", "params": 1.50 }"#),
        )
        .unwrap();
        assert_eq!(
            (id.as_str(), task.get()),
            ("p.3", r#"{"id":"p.3", "module" : "echo", "params": 1.50 }"#)
        );
        let own = json(r#"{"module":"echo","id":"mine"}"#);
        assert_eq!(
            child(&parent, 3, &own),
            Ok((TaskId::new("mine").unwrap(), own))
        );
        let long = TaskId::new(&"x".repeat(limits::NAME_BYTES_MAX)).unwrap();
        let (id, _) = child(&long, 12, &json(r#"{"module":"echo"}"#)).unwrap();
        assert!(id.as_str().ends_with(".12"), "{id}");
    }
}
