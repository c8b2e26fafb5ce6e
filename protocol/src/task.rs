//! The task document, which describes a task. Only `module` is required; an unknown field is an
//! error.

mod bounds;
mod cache;
mod dependency;
mod requires;
mod retries;

pub use cache::{CacheMode, CachePolicy};
pub use dependency::{Dependency, When};
pub use requires::Requires;
pub use retries::Retries;

use crate::{
    FilePath, Glob, InputRef, JobName, Json, ModuleRef, Refusal, RefusalCode, TaskId, Wall, limits,
};
use bounds::{at_most, within};
use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize};
use std::collections::BTreeMap;

/// A task as a client describes it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TaskDocument {
    /// The id of the task. The client makes it before the first send; the master makes one where it
    /// is absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<TaskId>,
    /// The module to run.
    pub module: ModuleRef,
    /// Any JSON, which the module reads from stdin. Absent: stdin is empty. `$result` in it is
    /// replaced as [`crate::splice`] says; `{"$blob":"<sha256>"}` names params that were put as a
    /// blob.
    #[serde(
        default,
        skip_serializing_if = "Option::is_none",
        deserialize_with = "present"
    )]
    pub params: Option<Json>,
    /// The arguments of the program, without its name. At most 128 KiB together.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub args: Vec<String>,
    /// The environment variables of the program. At most 128 KiB together.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub env: BTreeMap<String, String>,
    /// Files and folders to put into the task's folder, by their path there. Their bytes must be
    /// put as blobs before the task is added. At most 1,000.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub inputs: BTreeMap<FilePath, InputRef>,
    /// The files of the task's folder to give back. Absent: every file that was created or changed.
    /// At most 100 patterns.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub outputs: Option<Vec<Glob>>,
    /// Ready tasks with a higher priority go first.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub priority: i32,
    /// Tasks that must have ended before this one runs. At most 10,000.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub dependencies: Vec<Dependency>,
    /// What a runner must offer to be sent the task.
    #[serde(default, skip_serializing_if = "Requires::is_empty")]
    pub requires: Requires,
    /// The longest run time of an attempt in milliseconds, counted from the start of guest code. At
    /// least 1, at most 366 days. Absent: the default of the master.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout_ms: Option<u64>,
    /// The largest linear memory of an attempt, in MiB, from 1 to 4,096. Absent: the default of the
    /// master.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory_mb: Option<u32>,
    /// When and how often a failed attempt is tried again: a number, or the whole policy. Absent: 3
    /// retries.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retries: Option<Retries>,
    /// The earliest start, in milliseconds after the task was added. At most 366 days.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub delay_ms: Option<u64>,
    /// The earliest start, as a time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub not_before: Option<Wall>,
    /// Whether the answer may be used again by equal tasks, and for how long: an object, or `false`.
    /// Absent: it is not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cache: Option<CachePolicy>,
    /// The job that the task belongs to. Absent: the job of the batch.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub job: Option<JobName>,
    /// Reserved: rates and concurrency by key. Refused today.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limits: Option<Json>,
}

/// Reads `null` as a value: serde would take it for an absent field.
fn present<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Json>, D::Error> {
    Json::deserialize(deserializer).map(Some)
}

fn is_zero(n: &i32) -> bool {
    *n == 0
}

impl TaskDocument {
    /// A document of which only the module is given.
    pub fn new(module: ModuleRef) -> TaskDocument {
        TaskDocument {
            id: None,
            module,
            params: None,
            args: Vec::new(),
            env: BTreeMap::new(),
            inputs: BTreeMap::new(),
            outputs: None,
            priority: 0,
            dependencies: Vec::new(),
            requires: Requires::default(),
            timeout_ms: None,
            memory_mb: None,
            retries: None,
            delay_ms: None,
            not_before: None,
            cache: None,
            job: None,
            limits: None,
        }
    }

    /// Reads a document and checks every bound that depends on nothing but the document. The
    /// refusal names the field.
    pub fn parse(text: &str) -> Result<TaskDocument, Refusal> {
        // serde would take an array for the fields in their order.
        if text.trim_start().starts_with('[') {
            let text = "a task document is an object, not an array";
            return Err(Refusal::new(RefusalCode::WrongType, text));
        }
        let document: TaskDocument = crate::refusal::read(text)?;
        document.check_supported()?;
        document.check_sizes()?;
        document.check_texts()?;
        document.check_files()?;
        document.check_numbers()?;
        document.requires.check()?;
        Ok(document)
    }

    /// Fields whose names are reserved for a later version.
    fn check_supported(&self) -> Result<(), Refusal> {
        if self.limits.is_some() {
            let field = "limits";
            let text =
                format!("field `{field}` is not supported by this version yet; leave it out");
            return Err(Refusal::new(RefusalCode::Unsupported, text).at(field));
        }
        Ok(())
    }

    fn check_sizes(&self) -> Result<(), Refusal> {
        let params = self.params.as_ref().map_or(0, |params| params.get().len());
        let args = self.args.iter().map(String::len).sum();
        let env = self
            .env
            .iter()
            .map(|(name, value)| name.len() + value.len());
        let dependencies = self.dependencies.len();
        at_most("params", params, limits::PARAMS_INLINE_BYTES_MAX, "bytes")?;
        at_most("args", args, limits::ARGS_BYTES_MAX, "bytes")?;
        at_most("env", env.sum(), limits::ARGS_BYTES_MAX, "bytes")?;
        at_most(
            "dependencies",
            dependencies,
            limits::DEPENDENCIES_MAX,
            "entries",
        )
    }

    /// What a system could not hand to a program.
    fn check_texts(&self) -> Result<(), Refusal> {
        if let Some(arg) = self.args.iter().find(|arg| arg.contains('\0')) {
            let text = format!("field `args`: {arg:?} holds a zero byte");
            return Err(Refusal::new(RefusalCode::InvalidValue, text).at("args"));
        }
        let is_wrong = |name: &str, value: &str| {
            name.is_empty() || name.contains(['=', '\0']) || value.contains('\0')
        };
        if let Some((name, _)) = self.env.iter().find(|(name, value)| is_wrong(name, value)) {
            let text = format!(
                "field `env`: {name:?} is not a variable: no `=` in its name, no zero byte"
            );
            return Err(Refusal::new(RefusalCode::InvalidValue, text).at("env"));
        }
        Ok(())
    }

    fn check_files(&self) -> Result<(), Refusal> {
        let globs = self.outputs.as_ref().map_or(0, Vec::len);
        at_most("inputs", self.inputs.len(), limits::INPUTS_MAX, "entries")?;
        at_most("outputs", globs, limits::OUTPUT_GLOBS_MAX, "globs")?;
        let wrong = |why: String| {
            let text = format!("field `inputs`: {why}");
            Refusal::new(RefusalCode::InvalidValue, text).at("inputs")
        };
        if let Some(path) = self.inputs.keys().find(|path| path.is_tmp()) {
            let why = format!("`{path}` lies in the task's /tmp, which is empty when it starts");
            return Err(wrong(why));
        }
        crate::files::can_coexist(self.inputs.keys()).map_err(|error| wrong(error.to_string()))
    }

    fn check_numbers(&self) -> Result<(), Refusal> {
        let memory_mb = self.memory_mb.map(u64::from);
        let memory_mb_max = u64::from(limits::MEMORY_MB_MAX);
        within("timeout_ms", self.timeout_ms, 1, limits::DURATION_MS_MAX)?;
        within("delay_ms", self.delay_ms, 0, limits::DURATION_MS_MAX)?;
        within("memory_mb", memory_mb, 1, memory_mb_max)?;
        self.cache.as_ref().map_or(Ok(()), CachePolicy::check)?;
        self.retries.as_ref().map_or(Ok(()), Retries::check)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ErrorKind;

    #[test]
    fn a_document_reads_both_spellings() {
        let text = r#"{"module":"echo","params":null,"retries":2,
            "dependencies":["a",{"on":"b","when":"settled"}]}"#;
        let document = TaskDocument::parse(text).unwrap();
        assert_eq!(document.params.unwrap().get(), "null");
        assert_eq!(
            document.retries.unwrap(),
            Retries {
                max: 2,
                ..Retries::default()
            }
        );
        assert_eq!(document.dependencies[0].when, When::Done);
        assert_eq!(document.dependencies[1].when, When::Settled);
        let text = r#"{"module":"echo","retries":{"backoff_ms":5,"on":["trap"]}}"#;
        let retries = TaskDocument::parse(text).unwrap().retries.unwrap();
        assert_eq!(
            (retries.max, retries.backoff_ms, retries.on),
            (3, 5, Some(vec![ErrorKind::Trap]))
        );
    }

    #[test]
    fn a_wrong_variable_is_named_without_its_value() {
        let refusal = TaskDocument::parse(r#"{"module":"m","env":{"KEY=":"secret"}}"#).unwrap_err();
        assert_eq!(
            refusal.message,
            r#"field `env`: "KEY=" is not a variable: no `=` in its name, no zero byte"#
        );
    }

    #[test]
    fn params_keep_their_bytes() {
        let document =
            TaskDocument::parse(r#"{"module":"echo","params":{"n":1.10,"a": 1e3}}"#).unwrap();
        assert_eq!(document.params.unwrap().get(), r#"{"n":1.10,"a": 1e3}"#);
    }

    #[test]
    fn a_field_stands_once_and_of_equal_names_in_a_map_the_last_counts() {
        for twice in [
            r#"{"module":"a","module":"b"}"#,
            r#"{"module":"a","params":1,"params":{"$result":"t"}}"#,
            r#"{"module":"a","dependencies":[{"on":"b","on":"c"}]}"#,
            r#"{"module":"a","retries":{"max":1,"max":2}}"#,
        ] {
            let refusal = TaskDocument::parse(twice).unwrap_err();
            assert!(refusal.message.contains("duplicate field"), "{refusal}");
        }
        let text = r#"{"module":"a","env":{"A":"1","A":"2"}}"#;
        assert_eq!(TaskDocument::parse(text).unwrap().env["A"], "2");
    }

    #[test]
    fn bounds_are_named() {
        for (field, text) in [
            ("timeout_ms", r#"{"module":"m","timeout_ms":0}"#),
            ("memory_mb", r#"{"module":"m","memory_mb":100000}"#),
            ("retries.factor", r#"{"module":"m","retries":{"factor":0}}"#),
            ("requires.slots", r#"{"module":"m","requires":{"slots":0}}"#),
            ("env", r#"{"module":"m","env":{"a=b":"c"}}"#),
            ("limits", r#"{"module":"m","limits":[{"key":"smtp"}]}"#),
            ("inputs.a", r#"{"module":"m","inputs":{"a":"b"}}"#),
            (
                "inputs",
                r#"{"module":"m","inputs":{"tmp/a":{"sha256":"HASH"}}}"#,
            ),
            (
                "inputs",
                r#"{"module":"m","inputs":{"a":{"sha256":"HASH"},"A":{"folder":"HASH"}}}"#,
            ),
            ("outputs[1]", r#"{"module":"m","outputs":["*","../*"]}"#),
        ] {
            let text = text.replace("HASH", &"0a".repeat(32));
            let refusal = TaskDocument::parse(&text).unwrap_err();
            assert_eq!(refusal.field.as_deref(), Some(field), "{refusal}");
            assert!(refusal.message.contains(field), "{refusal}");
        }
    }
}
