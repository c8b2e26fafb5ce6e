//! The task document: what a feeder sends. Only `module` is required; an unknown field is an error.

use crate::{
    ErrorKind, FilePath, Glob, InputRef, JobName, Json, ModuleRef, Refusal, RefusalCode, TaskId,
    Wall, limits, outcome::TaskError,
};
use schemars::JsonSchema;
use serde::de::{MapAccess, Visitor, value::MapAccessDeserializer};
use serde::{Deserialize, Deserializer, Serialize};
use std::collections::BTreeMap;
use std::fmt;

/// One unit of work as its feeder describes it. Times in the unit of their name.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TaskDocument {
    /// Made by the client before the first send; the master makes one where it is absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<TaskId>,
    /// What to run.
    pub module: ModuleRef,
    /// Any JSON, given to the module on stdin; absent: stdin is empty. See [`crate::splice`] for
    /// `$result`, and for `$blob`: params that were put as a blob.
    #[serde(
        default,
        skip_serializing_if = "Option::is_none",
        deserialize_with = "present"
    )]
    pub params: Option<Json>,
    /// argv after the module's name.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub args: Vec<String>,
    /// The module's environment.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub env: BTreeMap<String, String>,
    /// Files and folders to put into the task's folder, by their path there. Their bytes must have
    /// been put before.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub inputs: BTreeMap<FilePath, InputRef>,
    /// Globs of files to bring back; absent: everything in its folder that was created or changed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub outputs: Option<Vec<Glob>>,
    /// Higher first.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub priority: i32,
    /// What must have finished before this runs.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub dependencies: Vec<Dependency>,
    /// What the runner must offer.
    #[serde(default, skip_serializing_if = "Requires::is_empty")]
    pub requires: Requires,
    /// Limit of one attempt, from the start of guest code.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout_ms: Option<u64>,
    /// Limit of one attempt's linear memory, MiB.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory_mb: Option<u32>,
    /// When and how often to try again: a number, or the whole policy.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retries: Option<Retries>,
    /// Earliest start, counted from the add.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub delay_ms: Option<u64>,
    /// Earliest start, as a time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub not_before: Option<Wall>,
    /// How long the answer may be used again. Not supported yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cache: Option<Json>,
    /// The group that it belongs to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub job: Option<JobName>,
    /// Rates and concurrency by key. Not supported yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limits: Option<Json>,
}

/// serde takes `null` for an absent `Option`; for params `null` is a value like any other.
fn present<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Json>, D::Error> {
    Json::deserialize(deserializer).map(Some)
}

fn is_zero(n: &i32) -> bool {
    *n == 0
}

impl TaskDocument {
    /// A document with nothing but a module.
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

    /// Reads a document and checks every bound that does not depend on anything else.
    pub fn parse(text: &str) -> Result<TaskDocument, Refusal> {
        // serde would take an array for the fields in their order.
        if text.trim_start().starts_with('[') {
            return Err(Refusal::new(
                RefusalCode::WrongType,
                "a task document is an object, not an array",
            ));
        }
        let document: TaskDocument = crate::refusal::read(text)?;
        document.check()?;
        Ok(document)
    }

    fn check(&self) -> Result<(), Refusal> {
        self.check_supported()?;
        at_most(
            "params",
            self.params.as_ref().map_or(0, |p| p.get().len()),
            limits::PARAMS_INLINE_BYTES_MAX,
            "bytes",
        )?;
        at_most(
            "args",
            self.args.iter().map(String::len).sum(),
            limits::ARGS_BYTES_MAX,
            "bytes",
        )?;
        let env: usize = self
            .env
            .iter()
            .map(|(key, value)| key.len() + value.len())
            .sum();
        at_most("env", env, limits::ARGS_BYTES_MAX, "bytes")?;
        at_most(
            "dependencies",
            self.dependencies.len(),
            limits::DEPENDENCIES_MAX,
            "entries",
        )?;
        if let Some(arg) = self.args.iter().find(|arg| arg.contains('\0')) {
            return Err(Refusal::new(
                RefusalCode::InvalidValue,
                format!("field `args`: {arg:?} holds a zero byte"),
            )
            .at("args"));
        }
        if let Some(key) = self
            .env
            .iter()
            .find(|(k, v)| k.is_empty() || k.contains(['=', '\0']) || v.contains('\0'))
        {
            let text =
                format!("field `env`: {key:?} is not a variable: no `=` in its name, no zero byte");
            return Err(Refusal::new(RefusalCode::InvalidValue, text).at("env"));
        }
        self.check_files()?;
        within("timeout_ms", self.timeout_ms, 1, limits::DURATION_MS_MAX)?;
        within("delay_ms", self.delay_ms, 0, limits::DURATION_MS_MAX)?;
        within(
            "memory_mb",
            self.memory_mb.map(u64::from),
            1,
            u64::from(limits::MEMORY_MB_MAX),
        )?;
        if let Some(retries) = &self.retries {
            retries.check()?;
        }
        self.requires.check()
    }

    fn check_files(&self) -> Result<(), Refusal> {
        at_most("inputs", self.inputs.len(), limits::INPUTS_MAX, "entries")?;
        at_most(
            "outputs",
            self.outputs.as_ref().map_or(0, Vec::len),
            limits::OUTPUT_GLOBS_MAX,
            "globs",
        )?;
        let refuse = |text: String| Err(Refusal::new(RefusalCode::InvalidValue, text).at("inputs"));
        if let Some(path) = self.inputs.keys().find(|path| path.is_tmp()) {
            return refuse(format!(
                "field `inputs`: `{path}` lies in the task's /tmp, which is empty when it starts"
            ));
        }
        crate::files::can_coexist(self.inputs.keys())
            .or_else(|error| refuse(format!("field `inputs`: {error}")))
    }

    fn check_supported(&self) -> Result<(), Refusal> {
        let later = [
            ("cache", self.cache.is_some()),
            ("limits", self.limits.is_some()),
        ];
        match later.iter().find(|(_, used)| *used) {
            Some((field, _)) => {
                let text =
                    format!("field `{field}` is not supported by this version yet; leave it out");
                Err(Refusal::new(RefusalCode::Unsupported, text).at(*field))
            }
            None => Ok(()),
        }
    }
}

fn at_most(field: &str, is: usize, max: usize, unit: &str) -> Result<(), Refusal> {
    if is <= max {
        return Ok(());
    }
    Err(Refusal::new(
        RefusalCode::TooLarge,
        format!("field `{field}` has {is} {unit}, at most {max} are allowed"),
    )
    .at(field))
}

fn within(field: &str, value: Option<u64>, min: u64, max: u64) -> Result<(), Refusal> {
    match value {
        Some(n) if n < min || n > max => {
            let text = format!("field `{field}` is {n}, it must be from {min} to {max}");
            Err(Refusal::new(RefusalCode::InvalidValue, text).at(field))
        }
        _ => Ok(()),
    }
}

/// How a dependency must have ended for the dependent to run; where it ends otherwise, the
/// dependent is skipped.
#[derive(
    Debug,
    Clone,
    Copy,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    Default,
    Serialize,
    Deserialize,
    JsonSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum When {
    /// It is done.
    #[default]
    Done,
    /// It failed (a task that cleans up).
    Failed,
    /// It ended, however.
    Settled,
}

/// One dependency: written as an id, or as `{"on":"id","when":"failed"}`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, JsonSchema)]
#[schemars(with = "DependencyText")]
pub struct Dependency {
    /// The task waited for.
    pub on: TaskId,
    /// How it must have ended.
    #[serde(default)]
    pub when: When,
}

/// The two spellings of a dependency, for the published schema.
#[derive(JsonSchema)]
#[serde(untagged)]
#[allow(dead_code, reason = "read by the schema's generator only")]
enum DependencyText {
    Id(TaskId),
    Full {
        on: TaskId,
        #[serde(default)]
        when: When,
    },
}

impl<'de> Deserialize<'de> for Dependency {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Dependency, D::Error> {
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Full {
            on: TaskId,
            #[serde(default)]
            when: When,
        }
        struct Either;
        impl<'de> Visitor<'de> for Either {
            type Value = Dependency;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(
                    "a task's id, or {\"on\": id, \"when\": \"done\" | \"failed\" | \"settled\"}",
                )
            }
            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Dependency, E> {
                TaskId::new(text)
                    .map(|on| Dependency {
                        on,
                        when: When::Done,
                    })
                    .map_err(E::custom)
            }
            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Dependency, A::Error> {
                let Full { on, when } = Full::deserialize(MapAccessDeserializer::new(map))?;
                Ok(Dependency { on, when })
            }
        }
        deserializer.deserialize_any(Either)
    }
}

/// What a runner must offer to be sent the task.
#[derive(
    Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize, JsonSchema,
)]
#[serde(deny_unknown_fields)]
pub struct Requires {
    /// Names that the runner was started to offer (`--env NAME`).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub env: Vec<String>,
    /// Labels and their values (`--label k=v`).
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// The runner's operating system, as Rust names it: `linux`, `macos`, `windows`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub os: Option<String>,
    /// The runner's processor, as Rust names it: `x86_64`, `aarch64`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub arch: Option<String>,
    /// Memory that the runner must have, MiB.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory_mb: Option<u64>,
    /// Slots that the task takes while it runs; absent: 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub slots: Option<u32>,
}

impl Requires {
    /// Whether nothing is asked for.
    pub fn is_empty(&self) -> bool {
        *self == Requires::default()
    }

    /// Slots that the task takes while it runs.
    pub fn slots(&self) -> u32 {
        self.slots.unwrap_or(1)
    }

    fn check(&self) -> Result<(), Refusal> {
        at_most(
            "requires.labels",
            self.labels.len(),
            limits::REQUIRES_MAX,
            "entries",
        )?;
        at_most(
            "requires.env",
            self.env.len(),
            limits::REQUIRES_MAX,
            "entries",
        )?;
        let long = |text: &&String| text.len() > limits::NAME_BYTES_MAX;
        let texts = self
            .labels
            .iter()
            .flat_map(|(k, v)| [k, v])
            .chain(&self.env)
            .chain(&self.os)
            .chain(&self.arch);
        if let Some(text) = texts.into_iter().find(long) {
            at_most(
                "requires",
                text.len(),
                limits::NAME_BYTES_MAX,
                "bytes in one name or value",
            )?;
        }
        within(
            "requires.slots",
            self.slots.map(u64::from),
            1,
            u64::from(limits::SLOTS_MAX),
        )
    }
}

/// When and how often a failed attempt is tried again.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
#[schemars(with = "RetriesText")]
pub struct Retries {
    /// Tries after the first; 0: never.
    pub max: u32,
    /// Wait before the first retry.
    pub backoff_ms: u64,
    /// By which each wait is longer than the last.
    pub factor: f64,
    /// The longest wait.
    pub max_backoff_ms: u64,
    /// Whether a wait is drawn from its upper half, so that many tasks do not come back at once.
    pub jitter: bool,
    /// The kinds of failure that are tried again. Absent: exit codes other than 64 and 65, lost
    /// inputs and outputs, and modules that could not be fetched; traps, memory limits and timeouts
    /// would most likely end the same again.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub on: Option<Vec<ErrorKind>>,
}

impl Default for Retries {
    fn default() -> Retries {
        Retries {
            max: 3,
            backoff_ms: 1_000,
            factor: 2.0,
            max_backoff_ms: 60_000,
            jitter: true,
            on: None,
        }
    }
}

impl Retries {
    /// Whether a failure of this kind is worth another try, if any are left.
    pub fn wants(&self, error: &TaskError) -> bool {
        if let Some(again) = error.verdict() {
            return again;
        }
        match &self.on {
            Some(kinds) => kinds.contains(&error.kind),
            None => matches!(
                error.kind,
                ErrorKind::Exit | ErrorKind::Input | ErrorKind::Output | ErrorKind::Module
            ),
        }
    }

    fn check(&self) -> Result<(), Refusal> {
        within("retries.max", Some(u64::from(self.max)), 0, 1_000_000)?;
        within(
            "retries.backoff_ms",
            Some(self.backoff_ms),
            0,
            limits::DURATION_MS_MAX,
        )?;
        within(
            "retries.max_backoff_ms",
            Some(self.max_backoff_ms),
            0,
            limits::DURATION_MS_MAX,
        )?;
        if (1.0..=1_000.0).contains(&self.factor) {
            return Ok(());
        }
        let text = format!(
            "field `retries.factor` is {}, it must be from 1 to 1000",
            self.factor
        );
        Err(Refusal::new(RefusalCode::InvalidValue, text).at("retries.factor"))
    }
}

/// The two spellings of a retry policy, for the published schema.
#[derive(JsonSchema)]
#[serde(untagged)]
#[allow(dead_code, reason = "read by the schema's generator only")]
enum RetriesText {
    Max(u32),
    Full(RetriesFull),
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct RetriesFull {
    max: Option<u32>,
    backoff_ms: Option<u64>,
    factor: Option<f64>,
    max_backoff_ms: Option<u64>,
    jitter: Option<bool>,
    on: Option<Vec<ErrorKind>>,
}

impl<'de> Deserialize<'de> for Retries {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Retries, D::Error> {
        struct Either;
        impl<'de> Visitor<'de> for Either {
            type Value = Retries;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(
                    "a number of retries, or an object such as {\"max\": 3, \"backoff_ms\": 1000}",
                )
            }
            fn visit_u64<E: serde::de::Error>(self, max: u64) -> Result<Retries, E> {
                let max = u32::try_from(max)
                    .map_err(|_| E::custom(format!("{max} retries are too many")))?;
                Ok(Retries {
                    max,
                    ..Retries::default()
                })
            }
            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Retries, A::Error> {
                let full = RetriesFull::deserialize(MapAccessDeserializer::new(map))?;
                let usual = Retries::default();
                Ok(Retries {
                    max: full.max.unwrap_or(usual.max),
                    backoff_ms: full.backoff_ms.unwrap_or(usual.backoff_ms),
                    factor: full.factor.unwrap_or(usual.factor),
                    max_backoff_ms: full.max_backoff_ms.unwrap_or(usual.max_backoff_ms),
                    jitter: full.jitter.unwrap_or(usual.jitter),
                    on: full.on,
                })
            }
        }
        deserializer.deserialize_any(Either)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_document_reads_both_spellings() {
        let text = r#"{"module":"echo","params":null,"retries":2,"dependencies":["a",{"on":"b","when":"settled"}]}"#;
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
    fn params_keep_their_bytes() {
        let document =
            TaskDocument::parse(r#"{"module":"echo","params":{"n":1.10,"a": 1e3}}"#).unwrap();
        assert_eq!(document.params.unwrap().get(), r#"{"n":1.10,"a": 1e3}"#);
    }

    #[test]
    fn bounds_are_named() {
        for (field, text) in [
            ("timeout_ms", r#"{"module":"m","timeout_ms":0}"#),
            ("memory_mb", r#"{"module":"m","memory_mb":100000}"#),
            ("retries.factor", r#"{"module":"m","retries":{"factor":0}}"#),
            ("requires.slots", r#"{"module":"m","requires":{"slots":0}}"#),
            ("env", r#"{"module":"m","env":{"a=b":"c"}}"#),
            ("cache", r#"{"module":"m","cache":{"ttl_s":1}}"#),
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

    #[test]
    fn a_program_may_decide_on_its_retry() {
        let exit = |code| TaskError {
            code: Some(code),
            ..TaskError::new(ErrorKind::Exit, "")
        };
        let usual = Retries::default();
        assert!(usual.wants(&exit(1)) && usual.wants(&exit(75)));
        assert!(!usual.wants(&exit(64)) && !usual.wants(&exit(65)));
        assert!(!usual.wants(&TaskError::new(ErrorKind::Trap, "")));
        let traps = Retries {
            on: Some(vec![ErrorKind::Trap]),
            ..Retries::default()
        };
        assert!(
            traps.wants(&TaskError::new(ErrorKind::Trap, ""))
                && !traps.wants(&exit(1))
                && traps.wants(&exit(75))
        );
    }
}
