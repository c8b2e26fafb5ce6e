//! What a guest may tell the master: a line of stderr such as `::progress 0.4 half way`, or the
//! same as a function.

use std::borrow::Cow;
use taskmaster_protocol::{Hash, Json, TaskDocument, TaskId, limits};

/// Something that a running task says to the master.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Directive {
    /// How far the task is.
    Progress(Json),
    /// A first part of the result.
    Partial(Json),
    /// Add this task, when this one is done.
    Add(Json),
    /// This task's result is to be that of this one, as which it goes on.
    Then(Json),
    /// For so many seconds the answer may be used again.
    Cache(u64),
}

impl Directive {
    /// `None`: an ordinary line. `Err`: meant as a directive, and wrong; the sentence says how.
    pub fn parse(line: &str) -> Option<Result<Directive, String>> {
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

    /// A fraction from 0 to 1, and what to say of it.
    pub fn progress(fraction: f64, note: &str) -> Result<Directive, String> {
        if !(0.0..=1.0).contains(&fraction) {
            return Err("`::progress`: expected a fraction between 0 and 1, then a note".into());
        }
        let data = match note.trim() {
            "" => serde_json::json!({ "fraction": fraction }),
            note => serde_json::json!({ "fraction": fraction, "note": note }),
        };
        Ok(Directive::Progress(Json::of(&data)))
    }

    /// JSON.
    pub fn partial(value: &str) -> Result<Directive, String> {
        json("partial", value).map(Directive::Partial)
    }

    /// A task document.
    pub fn add(task: &str) -> Result<Directive, String> {
        document("add", task).map(Directive::Add)
    }

    /// A task document.
    pub fn then(task: &str) -> Result<Directive, String> {
        document("then", task).map(Directive::Then)
    }

    /// A number of seconds.
    pub fn cache(seconds: &str) -> Result<Directive, String> {
        let wrong = |_| format!("`::cache {}`: expected a number of seconds", shown(seconds));
        seconds.trim().parse().map(Directive::Cache).map_err(wrong)
    }
}

/// The document of a task that `parent` adds as its `number`th, with an id that is the same in
/// every attempt.
pub(super) fn child(parent: &TaskId, number: usize, task: &Json) -> Result<(TaskId, Json), String> {
    let document =
        TaskDocument::parse(task.get()).map_err(|refusal| format!("`::add`: {refusal}"))?;
    if let Some(id) = document.id {
        return Ok((id, task.clone()));
    }
    let name = format!("{parent}.{number}");
    let short = || format!("{}.{number}", Hash::of(parent.as_str().as_bytes()));
    let name = if name.len() <= limits::NAME_BYTES_MAX {
        name
    } else {
        short()
    };
    let failed = |error: &dyn std::fmt::Display| format!("`::add`: {error}");
    let id = TaskId::new(&name).map_err(|error| failed(&error))?;
    // A document is an object with at least a module.
    let rest = task.get().trim_start().trim_start_matches('{');
    let with_id =
        Json::from_string(format!("{{\"id\":\"{id}\",{rest}")).map_err(|error| failed(&error))?;
    Ok((id, with_id))
}

fn json(word: &str, text: &str) -> Result<Json, String> {
    Json::parse(text).map_err(|error| format!("`::{word} {}`: not JSON: {error}", shown(text)))
}

fn document(word: &str, text: &str) -> Result<Json, String> {
    let json = json(word, text)?;
    TaskDocument::parse(json.get())
        .map_err(|refusal| format!("`::{word} {}`: {refusal}", shown(text)))?;
    Ok(json)
}

fn shown(text: &str) -> Cow<'_, str> {
    if text.len() <= 80 {
        text.into()
    } else {
        format!("{}…", &text[..text.floor_char_boundary(80)]).into()
    }
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
