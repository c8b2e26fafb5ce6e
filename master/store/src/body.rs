//! A task as its feeder described it, in the form in which memory, journal and view hold it.

use crate::codec::as_json;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use taskmaster_protocol::{
    Dependency, FilePath, Glob, Hash, InputRef, JobName, Json, ModuleName, ModuleRef, Requires,
    Retries, TaskDocument, TaskId, Wall, splice,
};

/// A task as its feeder described it, without what has become of it. Shared between memory, journal
/// and messages.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TaskBody {
    /// Its id.
    pub id: TaskId,
    /// Its place in the order of adding, dense and increasing for ever.
    pub ordinal: u64,
    /// Tells whether another document with the same id is the same one.
    pub fingerprint: Fingerprint,
    /// Its module.
    pub module: ModuleName,
    /// The beginning of the version that it pins.
    pub pin: Option<Box<str>>,
    /// Its job.
    pub job: JobName,
    /// Higher first.
    pub priority: i32,
    /// When it was added.
    pub created: Wall,
    /// Its params, references not replaced.
    pub params: Option<Json>,
    /// What its runner must offer; `None`: nothing. Tasks that ask for the same share it.
    #[serde(with = "as_json")]
    pub requires: Option<Arc<Requires>>,
    /// What it waits for, those that its params imply included.
    #[serde(with = "as_pairs")]
    pub dependencies: Box<[Dependency]>,
    /// What few documents have.
    #[serde(with = "as_json")]
    pub rare: Option<Box<Rare>>,
}

/// What tells documents apart: the first half of the SHA-256 of a document's text as it was sent.
/// The same id with the same text is added once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Fingerprint([u8; 16]);

impl Fingerprint {
    /// That of a document's text.
    pub fn of(text: &str) -> Fingerprint {
        let mut half = [0; 16];
        half.copy_from_slice(&Hash::of(text.as_bytes()).0[..16]);
        Fingerprint(half)
    }
}

/// The parts of a task document that few have: most tasks pay one pointer for all of them.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Rare {
    /// argv after the module's name.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub args: Vec<String>,
    /// The module's environment.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub env: BTreeMap<String, String>,
    /// Tasks whose results its params ask for.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub references: Vec<TaskId>,
    /// Limit of one attempt.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timeout_ms: Option<u64>,
    /// Limit of one attempt.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory_mb: Option<u32>,
    /// Its retry policy.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retries: Option<Retries>,
    /// Earliest start, counted from the add.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub delay_ms: Option<u64>,
    /// Earliest start, as a time.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub not_before: Option<Wall>,
    /// Files and folders that it finds in its folder.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub inputs: BTreeMap<FilePath, InputRef>,
    /// Globs of the files that it gives back.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub outputs: Option<Vec<Glob>>,
    /// It has gone on as what stands here: it may wait for tasks that came after it.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub continued: bool,
}

mod as_pairs {
    //! Dependencies, which as JSON have two spellings.
    use serde::{Deserialize, Deserializer, Serializer};
    use taskmaster_protocol::{Dependency, TaskId, When};

    pub fn serialize<S: Serializer>(of: &[Dependency], serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(
            of.iter()
                .map(|dependency| (&dependency.on, dependency.when)),
        )
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Box<[Dependency]>, D::Error> {
        let pairs = Vec::<(TaskId, When)>::deserialize(deserializer)?;
        Ok(pairs
            .into_iter()
            .map(|(on, when)| Dependency { on, when })
            .collect())
    }
}

/// A task document with what the master adds to it.
#[derive(Debug, Clone)]
pub struct AddedTask {
    /// What its feeder sent.
    pub document: TaskDocument,
    /// Of the document's text.
    pub fingerprint: Fingerprint,
    /// Tasks whose results its params ask for.
    pub references: Vec<TaskId>,
    /// Its id; the document may have none.
    pub id: TaskId,
    /// Its job; the document may have none.
    pub job: JobName,
    /// Its place in the order of adding.
    pub ordinal: u64,
    /// When it was added.
    pub created: Wall,
}

impl TaskBody {
    /// The body of a task that is added.
    pub fn new(task: AddedTask) -> TaskBody {
        let AddedTask {
            document,
            fingerprint,
            references,
            id,
            job,
            ordinal,
            created,
        } = task;
        let mut dependencies = document.dependencies;
        let requires = (!document.requires.is_empty()).then(|| Arc::new(document.requires));
        if !references.is_empty() {
            let named: BTreeSet<&TaskId> = dependencies
                .iter()
                .map(|dependency| &dependency.on)
                .collect();
            let implied = references.iter().filter(|id| !named.contains(id));
            let implied: Vec<_> = implied
                .map(|id| Dependency {
                    on: id.clone(),
                    when: Default::default(),
                })
                .collect();
            dependencies.extend(implied);
        }
        let ModuleRef { name, pin } = document.module;
        let rare = Rare {
            args: document.args,
            env: document.env,
            references,
            timeout_ms: document.timeout_ms,
            memory_mb: document.memory_mb,
            retries: document.retries,
            delay_ms: document.delay_ms,
            not_before: document.not_before,
            inputs: document.inputs,
            outputs: document.outputs,
            continued: false,
        };
        TaskBody {
            id,
            ordinal,
            fingerprint,
            module: name,
            pin,
            job,
            priority: document.priority,
            created,
            params: document.params,
            requires,
            dependencies: dependencies.into(),
            rare: (rare != Rare::default()).then(|| Box::new(rare)),
        }
    }

    /// Slots that it takes while it runs.
    pub fn slots(&self) -> u32 {
        self.requires
            .as_ref()
            .map_or(1, |requires| requires.slots())
    }

    /// Whether it may wait for tasks that came after it.
    pub fn is_continued(&self) -> bool {
        self.rare.as_ref().is_some_and(|rare| rare.continued)
    }

    /// What it waits for.
    pub fn dependencies(&self) -> &[Dependency] {
        &self.dependencies
    }

    /// The blob that its params stand for, where they are large.
    pub fn blob(&self) -> Option<Hash> {
        splice::blob(self.params.as_ref()?.get()).ok().flatten()
    }

    /// What it finds in its folder.
    pub fn inputs(&self) -> impl Iterator<Item = (&FilePath, &InputRef)> {
        self.rare.iter().flat_map(|rare| &rare.inputs)
    }

    /// Tasks whose results its params ask for.
    pub fn references(&self) -> &[TaskId] {
        self.rare.as_ref().map_or(&[], |rare| &rare.references)
    }
}
