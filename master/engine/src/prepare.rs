//! Reads a task document, and checks everything that can be checked without the engine's state. The
//! gateway's threads do this, so that the engine does not spend time on parsing.

use crate::cache::key;
use serde::Deserializer;
use serde::de::{IgnoredAny, MapAccess, Visitor};
use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;
use taskmaster_module::manifest::Manifest;
use taskmaster_protocol::splice::{self, References};
use taskmaster_protocol::{
    CacheMode, CachePolicy, Hash, JobName, Json, ModuleName, ModuleRef, Refusal, RefusalCode,
    TaskDocument, TaskId, limits,
};
use taskmaster_store::body::{Fingerprint, Lineage};
use taskmaster_store::cache::CacheRequest;

/// A document that is valid on its own.
#[derive(Debug)]
pub struct PreparedTask {
    /// The document as it was read.
    pub document: TaskDocument,
    /// The task's id: the one of the document, or else a new one.
    pub id: TaskId,
    /// Fingerprint of the document's text as it was sent.
    pub fingerprint: Fingerprint,
    /// Tasks and jobs whose results the params ask for.
    pub references: References,
    /// The blob that holds the params. Its bytes have not been read yet.
    pub blob: Option<Hash>,
    /// The manifest against which the params in that blob must be checked.
    pub manifest: Option<Arc<Manifest>>,
    /// Why the task cannot be added. The engine decides, because it may have accepted the same
    /// document earlier, when the module had another version.
    pub wrong: Option<Refusal>,
    /// The task's job if neither the document nor the batch names one.
    pub default_job: Option<JobName>,
    /// Where the task comes from, if an attempt of another task adds it. The engine has checked then
    /// that the attempt may add tasks.
    pub lineage: Option<Lineage>,
    /// What the document says about kept answers, with its part of their key.
    pub cache: Option<CacheRequest>,
}

/// The documents of one batch, in order, with a refusal in the place of each invalid one.
pub type PreparedBatch = Vec<Result<Box<PreparedTask>, Refusal>>;

/// Reads one document.
pub fn prepare(text: &Json) -> Result<PreparedTask, Refusal> {
    read(text, TaskDocument::parse(text.get())?)
}

/// Reads one document of a module that has a manifest. The manifest's defaults complete the
/// document, and its schema checks the params. Params in a blob are checked when the blob is read.
pub fn prepare_by(manifest: &Arc<Manifest>, text: &Json) -> Result<PreparedTask, Refusal> {
    let mut document = TaskDocument::parse(&manifest.complete(text.get()))?;
    // A job that the batch names for all its tasks counts before the manifest's job.
    let default_job = document.job.take_if(|_| !names_job(text));
    let prepared = PreparedTask {
        default_job,
        ..read(text, document)?
    };
    if prepared.blob.is_some() {
        return Ok(PreparedTask {
            manifest: Some(manifest.clone()),
            ..prepared
        });
    }
    manifest.check(
        &prepared.document.module.name,
        prepared.document.params.as_ref(),
    )?;
    Ok(prepared)
}

/// The module that a document names, read without the rest of the document, because the module's
/// manifest is needed to read the rest. `None` if the document names no valid module; [`prepare`]
/// then says what is wrong.
pub fn module_of(text: &Json) -> Option<ModuleName> {
    let mut module = None;
    // The visitor stops after the module, which serde reports as an error.
    let _ = serde_json::Deserializer::from_str(text.get()).deserialize_map(FindModule(&mut module));
    module
}

/// Finds the field `module` of an object.
struct FindModule<'a>(&'a mut Option<ModuleName>);

impl<'de> Visitor<'de> for FindModule<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a task document")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut fields: A) -> Result<(), A::Error> {
        while let Some(field) = fields.next_key::<Cow<'de, str>>()? {
            if field == "module" {
                let module: ModuleRef = fields.next_value()?;
                *self.0 = Some(module.name);
                return Ok(());
            }
            fields.next_value::<IgnoredAny>()?;
        }
        Ok(())
    }
}

/// Whether a document itself names a job.
fn names_job(text: &Json) -> bool {
    #[derive(serde::Deserialize)]
    struct JobField {
        job: Option<IgnoredAny>,
    }
    text.read::<JobField>()
        .is_ok_and(|document| document.job.is_some())
}

fn read(text: &Json, document: TaskDocument) -> Result<PreparedTask, Refusal> {
    let params = document
        .params
        .as_ref()
        .map(Json::get)
        .filter(|params| splice::may_refer(params));
    let blob = params.map_or(Ok(None), splice::blob)?;
    let references = params.map_or(Ok(References::default()), splice::references)?;
    waits_for(&document, &references)?;
    let id = match &document.id {
        Some(id) => id.clone(),
        None => TaskId::new(&uuid::Uuid::now_v7().to_string())
            .map_err(|error| Refusal::new(RefusalCode::Internal, error.to_string()))?,
    };
    let cache = document
        .cache
        .map(|policy| cache_request(policy, &document));
    Ok(PreparedTask {
        cache,
        document,
        id,
        fingerprint: Fingerprint::of(text.get()),
        references,
        blob,
        manifest: None,
        wrong: None,
        default_job: None,
        lineage: None,
    })
}

/// What a document says about kept answers, with the part of the key that it makes.
fn cache_request(policy: CachePolicy, document: &TaskDocument) -> CacheRequest {
    let key = match policy.mode {
        CacheMode::Off => Ok(None),
        CacheMode::Use | CacheMode::Refresh => key::of_document(document).map(Some),
    };
    CacheRequest {
        mode: policy.mode,
        ttl_s: policy.ttl_s,
        document: key.as_ref().ok().copied().flatten(),
        doubt: key.err(),
    }
}

/// Checks the dependencies of a document, with the `references` in its params.
pub fn waits_for(document: &TaskDocument, references: &References) -> Result<(), Refusal> {
    let wanted = document.dependencies.len() + references.count();
    if wanted > limits::DEPENDENCIES_MAX {
        let most = limits::DEPENDENCIES_MAX;
        let text = format!(
            "the task depends on {wanted} others, `$result` in params included; at most {most} are allowed"
        );
        return Err(Refusal::new(RefusalCode::TooLarge, text).at("dependencies"));
    }
    if let Some(id) = document.id.as_ref()
        && (references.tasks.contains(id)
            || document
                .dependencies
                .iter()
                .any(|dependency| dependency.on == *id))
    {
        let refusal = Refusal::new(
            RefusalCode::DependencyCycle,
            format!("dependency cycle: {id} → {id}"),
        );
        return Err(refusal.at("dependencies").about(vec![id.clone()]));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn json(text: &str) -> Json {
        Json::parse(text).unwrap()
    }

    #[test]
    fn the_module_is_found_wherever_it_stands() {
        for (text, module) in [
            (r#"{"module":"m"}"#, Some("m")),
            (
                r#"{"params":{"module":"x"},"mod\u0075le":"m","prams":1}"#,
                Some("m"),
            ),
            (r#"{"module":"m@sha256:0123456789"}"#, Some("m")),
            (r#"{"module":7}"#, None),
            (r#"{"params":1}"#, None),
            (r#"["m"]"#, None),
            (r#""m""#, None),
        ] {
            let found = module_of(&json(text));
            assert_eq!(found.as_ref().map(ModuleName::as_str), module, "{text}");
        }
    }

    #[test]
    fn a_job_of_the_manifest_is_the_usual_one_and_one_of_the_document_its_own() {
        let manifest = Manifest::parse("[defaults]\njob = 'usual'").unwrap();
        let manifest = Arc::new(manifest);
        let jobs = |text: &str| {
            let prepared = prepare_by(&manifest, &json(text)).unwrap();
            let name = |job: Option<JobName>| job.map(|job| job.to_string());
            (name(prepared.document.job), name(prepared.default_job))
        };
        assert_eq!(jobs(r#"{"module":"m"}"#), (None, Some("usual".into())));
        assert_eq!(
            jobs(r#"{"module":"m","job":"own"}"#),
            (Some("own".into()), None)
        );
        assert_eq!(jobs(r#"{"module":"m","job":null}"#), (None, None));
    }
}
