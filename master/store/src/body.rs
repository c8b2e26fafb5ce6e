//! A task as its feeder described it, in the form in which memory, journal and view hold it.

use crate::cache::CacheRequest;
use crate::codec::as_json;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use taskmaster_protocol::{
    Dependency, FilePath, Glob, Hash, InputRef, JobName, Json, ModuleName, ModuleRef, Requires,
    Retries, TaskDocument, TaskId, Wall, splice,
};

/// A task as its feeder described it, without what has become of the task. Memory, journal and
/// messages share one body.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TaskBody {
    pub id: TaskId,
    /// The task's number in the order of adding. Numbers are dense, grow for ever and are never
    /// used again.
    pub ordinal: u64,
    /// Tells whether another document with this id has the text of the document that was added.
    pub fingerprint: Fingerprint,
    /// The module that runs the task.
    pub module: ModuleName,
    /// The first digits of the only version of the module that may run the task; `None` allows every
    /// version.
    pub pin: Option<Box<str>>,
    /// The job that the task belongs to.
    pub job: JobName,
    /// The priority in the document. Tasks with a higher number start first.
    pub priority: i32,
    /// When the master added the task.
    pub created: Wall,
    /// The params as they were sent, with references not replaced yet.
    pub params: Option<Json>,
    /// What a runner must offer to run the task; `None` asks for nothing. Tasks with equal
    /// requirements share one value.
    #[serde(with = "as_json")]
    pub requires: Option<Arc<Requires>>,
    /// The tasks that the task waits for, those that its params refer to included.
    #[serde(with = "as_pairs")]
    pub dependencies: Box<[Dependency]>,
    /// The parts that few documents have; `None` where the document has none of them.
    #[serde(with = "as_json", rename = "rare")]
    pub extras: Option<Box<BodyExtras>>,
}

/// The first half of the SHA-256 of a document's text as it was sent. A document with a known id and
/// a known fingerprint is the one that was added before, and is not added again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Fingerprint([u8; 16]);

impl Fingerprint {
    /// The fingerprint of a document's text.
    pub fn of(text: &str) -> Fingerprint {
        let mut half = [0; 16];
        half.copy_from_slice(&Hash::of(text.as_bytes()).0[..16]);
        Fingerprint(half)
    }
}

/// The parts that few task documents have. A body without any of them pays one pointer for all.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct BodyExtras {
    /// The guest's arguments after the module's name.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub args: Vec<String>,
    /// The guest's environment variables.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub env: BTreeMap<String, String>,
    /// Tasks whose results replace references in the params.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub references: Vec<TaskId>,
    /// Jobs whose results replace references in the params.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub job_results: Vec<JobRun>,
    /// Milliseconds that one attempt may take.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timeout_ms: Option<u64>,
    /// Mebibytes of memory that one attempt may use.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory_mb: Option<u32>,
    /// How often and after which errors the task is tried again.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retries: Option<Retries>,
    /// Milliseconds after the add before which the task does not start.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub delay_ms: Option<u64>,
    /// The time before which the task does not start.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub not_before: Option<Wall>,
    /// Files and folders that are put into the task's folder, by their path in it.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub inputs: BTreeMap<FilePath, InputRef>,
    /// Globs of the files that the task returns beside its result.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub outputs: Option<Vec<Glob>>,
    /// Whether the task goes on with another body than it was added with. Only such a task may
    /// depend on tasks that were added after it.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub continued: bool,
    /// Where the task comes from, if another task added it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lineage: Option<Lineage>,
    /// What the document says about kept answers; `None` where it says nothing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cache: Option<CacheRequest>,
    /// If the task was opened again while its job was being cancelled, the ordinal up to which that
    /// cancel goes: it does not concern the task, whose own ordinal is below.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reopened_under: Option<u64>,
}

/// A run of a job.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct JobRun {
    pub job: JobName,
    /// The number of the run, from 1 on.
    pub run: u32,
}

/// Where a task comes from that another task added.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lineage {
    /// The ordinal of the first task of the line, which a feeder added.
    pub root: u64,
    /// How many tasks are in the line behind the first one, this one included.
    pub depth: u32,
}

mod as_pairs {
    //! Writes dependencies as pairs, because their JSON has two spellings, which the compact form
    //! cannot read back.
    use serde::{Deserialize, Deserializer, Serializer};
    use taskmaster_protocol::{Dependency, TaskId, When};

    pub fn serialize<S: Serializer>(
        dependencies: &[Dependency],
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        let pairs = dependencies
            .iter()
            .map(|dependency| (&dependency.on, dependency.when));
        serializer.collect_seq(pairs)
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

/// A task document together with what the master decides when it adds the task.
#[derive(Debug, Clone)]
pub struct AddedTask {
    /// The document that the feeder sent.
    pub document: TaskDocument,
    /// The fingerprint of the document's text.
    pub fingerprint: Fingerprint,
    /// Tasks whose results replace references in the params.
    pub references: Vec<TaskId>,
    /// Jobs whose results replace references in the params.
    pub job_results: Vec<JobRun>,
    /// The task's id. The master makes one where the document has none.
    pub id: TaskId,
    /// The task's job. The master chooses one where the document has none.
    pub job: JobName,
    /// The task's number in the order of adding.
    pub ordinal: u64,
    /// When the master added the task.
    pub created: Wall,
    /// Where the task comes from, if another task added it.
    pub lineage: Option<Lineage>,
    /// What the document says about kept answers, with its part of their key.
    pub cache: Option<CacheRequest>,
}

impl TaskBody {
    /// The body of a task that is added.
    pub fn new(task: AddedTask) -> TaskBody {
        // Every field is named, so that the compiler asks what becomes of a new one.
        let TaskDocument {
            id: _,
            module: ModuleRef { name, pin },
            params,
            job: _,
            dependencies,
            requires,
            priority,
            timeout_ms,
            memory_mb,
            retries,
            delay_ms,
            not_before,
            args,
            env,
            inputs,
            outputs,
            cache: _,
            limits: _,
        } = task.document;
        let requires = (!requires.is_empty()).then(|| Arc::new(requires));
        let dependencies = with_implied(dependencies, &task.references);
        let extras = BodyExtras {
            args,
            env,
            references: task.references,
            job_results: task.job_results,
            timeout_ms,
            memory_mb,
            retries,
            delay_ms,
            not_before,
            inputs,
            outputs,
            continued: false,
            lineage: task.lineage,
            cache: task.cache,
            reopened_under: None,
        };

        TaskBody {
            id: task.id,
            ordinal: task.ordinal,
            fingerprint: task.fingerprint,
            module: name,
            pin,
            job: task.job,
            priority,
            created: task.created,
            params,
            requires,
            dependencies: dependencies.into(),
            extras: (extras != BodyExtras::default()).then(|| Box::new(extras)),
        }
    }

    /// Where the task comes from, if another task added it.
    pub fn lineage(&self) -> Option<Lineage> {
        self.extras.as_ref().and_then(|extras| extras.lineage)
    }

    /// Where a task comes from that this task adds.
    pub fn lineage_of_child(&self) -> Lineage {
        let first = Lineage {
            root: self.ordinal,
            depth: 0,
        };
        let own = self.lineage().unwrap_or(first);
        Lineage {
            depth: own.depth.saturating_add(1),
            ..own
        }
    }

    /// What the document says about kept answers.
    pub fn cache(&self) -> Option<&CacheRequest> {
        self.extras.as_ref()?.cache.as_ref()
    }

    /// The number of a runner's slots that an attempt occupies.
    pub fn slots(&self) -> u32 {
        self.requires
            .as_ref()
            .map_or(1, |requires| requires.slots())
    }

    /// Whether the task goes on with another body than it was added with, and so may depend on tasks
    /// that were added after it.
    pub fn is_continued(&self) -> bool {
        self.extras.as_ref().is_some_and(|extras| extras.continued)
    }

    /// The ordinal up to which the cancel of the job goes that was under way when the task was opened
    /// again.
    pub fn reopened_under(&self) -> Option<u64> {
        self.extras
            .as_ref()
            .and_then(|extras| extras.reopened_under)
    }

    /// The body of the task when it is opened again while its job is being cancelled up to an
    /// ordinal, or is not.
    pub fn reopened(self: &Arc<TaskBody>, under: Option<u64>) -> Arc<TaskBody> {
        if self.reopened_under() == under {
            return self.clone();
        }
        let extras = BodyExtras {
            reopened_under: under,
            ..self.extras.as_deref().cloned().unwrap_or_default()
        };
        Arc::new(TaskBody {
            extras: (extras != BodyExtras::default()).then(|| Box::new(extras)),
            ..TaskBody::clone(self)
        })
    }

    /// The tasks that the task waits for.
    pub fn dependencies(&self) -> &[Dependency] {
        &self.dependencies
    }

    /// The blob that holds the params; `None` where the params are inline.
    pub fn blob(&self) -> Option<Hash> {
        splice::blob(self.params.as_ref()?.get()).ok().flatten()
    }

    /// Files and folders that are put into the task's folder, with their path in it.
    pub fn inputs(&self) -> impl Iterator<Item = (&FilePath, &InputRef)> {
        self.extras.iter().flat_map(|extras| &extras.inputs)
    }

    /// Jobs whose results replace references in the params.
    pub fn job_results(&self) -> &[JobRun] {
        self.extras
            .as_ref()
            .map_or(&[], |extras| &extras.job_results)
    }

    /// Tasks whose results replace references in the params.
    pub fn references(&self) -> &[TaskId] {
        self.extras
            .as_ref()
            .map_or(&[], |extras| &extras.references)
    }
}

/// The dependencies of a document, and behind them one for each task whose result the params refer
/// to and which the document does not name as a dependency.
fn with_implied(mut dependencies: Vec<Dependency>, references: &[TaskId]) -> Vec<Dependency> {
    if references.is_empty() {
        return dependencies;
    }
    let named: BTreeSet<&TaskId> = dependencies
        .iter()
        .map(|dependency| &dependency.on)
        .collect();
    let implied: Vec<Dependency> = references
        .iter()
        .filter(|id| !named.contains(id))
        .map(|id| Dependency {
            on: id.clone(),
            when: Default::default(),
        })
        .collect();
    dependencies.extend(implied);
    dependencies
}
