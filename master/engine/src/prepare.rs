//! A task document, read and checked as far as it can be without knowing anything else. Done by the
//! gateway's threads, so that the engine's loop does not parse.

use std::sync::Arc;
use taskmaster_module::manifest::Manifest;
use taskmaster_protocol::{
    Hash, JobName, Json, Refusal, RefusalCode, TaskDocument, TaskId, limits, splice,
};
use taskmaster_store::body::Fingerprint;

/// A document that is sound on its own.
#[derive(Debug)]
pub struct Prepared {
    /// The document, but for its id.
    pub document: TaskDocument,
    /// Its id: the document's, or one made here where it has none.
    pub id: TaskId,
    /// Of its text as it was sent.
    pub fingerprint: Fingerprint,
    /// Tasks whose results its params ask for.
    pub references: Vec<TaskId>,
    /// The blob that its params stand for. Its bytes have not been looked at here.
    pub blob: Option<Hash>,
    /// What the params in that blob must be like.
    pub manifest: Option<Arc<Manifest>>,
    /// Why it cannot be added; the same document may have been taken when its module was another,
    /// so that the engine has the last word.
    pub wrong: Option<Refusal>,
    /// Its job where neither document nor batch names one.
    pub usual_job: Option<JobName>,
    /// A task added it. It is taken also where feeders are refused: its parent cannot add it again.
    pub of_task: bool,
}

/// Reads one document.
pub fn prepare(text: &Json) -> Result<Prepared, Refusal> {
    read(text, TaskDocument::parse(text.get())?)
}

/// Reads one document of a module that has a manifest: its defaults stand for what the document
/// leaves out, and params are what it says. Params that are a blob are looked at when that is read.
/// `has_job`: the document names one.
pub fn prepare_by(
    manifest: &Arc<Manifest>,
    text: &Json,
    has_job: bool,
) -> Result<Prepared, Refusal> {
    let mut document = TaskDocument::parse(&manifest.complete(text.get()))?;
    // A feed waits for the job that it says: its word counts before the manifest's.
    let usual_job = document.job.take_if(|_| !has_job);
    let prepared = Prepared {
        usual_job,
        ..read(text, document)?
    };
    if prepared.blob.is_some() {
        return Ok(Prepared {
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

fn read(text: &Json, document: TaskDocument) -> Result<Prepared, Refusal> {
    let params = document
        .params
        .as_ref()
        .map(Json::get)
        .filter(|params| splice::may_refer(params));
    let blob = params.map_or(Ok(None), splice::blob)?;
    let references = params.map_or(Ok(Vec::new()), splice::references)?;
    waits_for(&document, &references)?;
    let id = match &document.id {
        Some(id) => id.clone(),
        None => TaskId::new(&uuid::Uuid::now_v7().to_string())
            .map_err(|error| Refusal::new(RefusalCode::Internal, error.to_string()))?,
    };
    Ok(Prepared {
        document,
        id,
        fingerprint: Fingerprint::of(text.get()),
        references,
        blob,
        manifest: None,
        wrong: None,
        usual_job: None,
        of_task: false,
    })
}

/// Checks what the document waits for, `references` in its params included.
pub fn waits_for(document: &TaskDocument, references: &[TaskId]) -> Result<(), Refusal> {
    let wanted = document.dependencies.len() + references.len();
    if wanted > limits::DEPENDENCIES_MAX {
        let most = limits::DEPENDENCIES_MAX;
        let text = format!(
            "the task depends on {wanted} others, `$result` in params included; at most {most} are allowed"
        );
        return Err(Refusal::new(RefusalCode::TooLarge, text).at("dependencies"));
    }
    if let Some(id) = document.id.as_ref()
        && (references.contains(id)
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
