//! In what a document differs from the one that was added under its id.

use taskmaster_protocol::TaskDocument;
use taskmaster_store::body::{BodyExtras, TaskBody};

/// The first field in which `document` differs from the task that has its id. `None` where it says
/// the same in another spelling, and where the task has gone on as another document, so that the
/// first one is not known any more.
pub(super) fn different_field(body: &TaskBody, document: &TaskDocument) -> Option<&'static str> {
    if body.is_continued() {
        return None;
    }
    let none = BodyExtras::default();
    let extras = body.extras.as_deref().unwrap_or(&none);
    let module = &document.module;
    let requires = match &body.requires {
        Some(requires) => **requires == document.requires,
        None => document.requires.is_empty(),
    };
    // Behind the dependencies of the document stand those that its params imply.
    let dependencies = body.dependencies();
    let is_longer = dependencies.len() > document.dependencies.len();
    let same_dependencies = dependencies.starts_with(&document.dependencies)
        && (!is_longer || !extras.references.is_empty());
    let job = document.job.as_ref();
    [
        (
            "module",
            body.module == module.name && body.pin == module.pin,
        ),
        ("params", body.params == document.params),
        ("job", job.is_none_or(|job| *job == body.job)),
        ("dependencies", same_dependencies),
        ("priority", body.priority == document.priority),
        ("requires", requires),
        ("args", extras.args == document.args),
        ("env", extras.env == document.env),
        ("inputs", extras.inputs == document.inputs),
        ("outputs", extras.outputs == document.outputs),
        ("timeout_ms", extras.timeout_ms == document.timeout_ms),
        ("memory_mb", extras.memory_mb == document.memory_mb),
        ("retries", extras.retries == document.retries),
        ("delay_ms", extras.delay_ms == document.delay_ms),
        ("not_before", extras.not_before == document.not_before),
    ]
    .into_iter()
    .find_map(|(field, is_same)| (!is_same).then_some(field))
}

#[cfg(test)]
mod tests {
    use super::*;
    use taskmaster_protocol::{JobName, TaskId, Wall, splice};
    use taskmaster_store::body::{AddedTask, Fingerprint};

    fn document(text: &str) -> TaskDocument {
        TaskDocument::parse(text).unwrap()
    }

    fn body(text: &str) -> TaskBody {
        let document = document(text);
        let params = document
            .params
            .as_ref()
            .map_or("null", |params| params.get());
        TaskBody::new(AddedTask {
            references: splice::references(params).unwrap().tasks,
            document,
            fingerprint: Fingerprint::of(text),
            id: TaskId::new("t").unwrap(),
            job: JobName::new("j").unwrap(),
            ordinal: 1,
            created: Wall(0),
            job_results: Vec::new(),
            lineage: None,
            cache: None,
        })
    }

    #[test]
    fn the_first_field_that_differs_is_named() {
        let added = r#"{"module":"m","params":[1,{"$result":"r"}],"dependencies":["d"]}"#;
        let with = |field: &str| added.replace("\"module\"", &format!("{field},\"module\""));
        for (other, field) in [
            (added.to_owned(), None),
            (added.replace(":\"m\"", " : \"m\""), None),
            (added.replace(":\"m\"", ":\"n\""), Some("module")),
            (
                added.replace(":\"m\"", ":\"m@sha256:12345678\""),
                Some("module"),
            ),
            (added.replace("[1,", "[2,"), Some("params")),
            (added.replace("\"d\"", "\"e\""), Some("dependencies")),
            (with(r#""job":"k""#), Some("job")),
            (with(r#""job":"j""#), None),
            (with(r#""priority":3"#), Some("priority")),
            (with(r#""env":{"A":"b"}"#), Some("env")),
            (with(r#""timeout_ms":5"#), Some("timeout_ms")),
        ] {
            let differs_in = different_field(&body(added), &document(&other));
            assert_eq!(differs_in, field, "{other}");
        }
    }
}
