//! `task:add`: documents are parsed here, in the session's own task, so that the engine's turns stay short.

use super::{Gate, inputs, params};
use crate::inbox::{Input, SessionNo};
use crate::modules::Folder;
use crate::prepare::{Prepared, prepare, prepare_by};
use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use taskmaster_module::manifest::Manifest;
use taskmaster_protocol::message::Add;
use taskmaster_protocol::{Json, ModuleName, Refusal, RefusalCode, limits};

pub(super) type Parsed = Vec<Result<Box<Prepared>, Refusal>>;

/// More than this is parsed on a thread where it delays no other session (about a millisecond's work).
pub(super) const HEAVY_BYTES: usize = 256 << 10;

/// Reads a batch; what is wrong with single documents stands in their places.
pub(super) async fn read(gate: &Gate, session: SessionNo, add: Add) -> Result<Input, Refusal> {
    let Add { batch, job, hold, tasks } = add;
    if tasks.len() > limits::BATCH_TASKS_MAX {
        let (is, max) = (tasks.len(), limits::BATCH_TASKS_MAX);
        let text = format!("batch {batch} has {is} tasks, at most {max} are allowed in one; nothing of it was added");
        return Err(Refusal::new(RefusalCode::TooLarge, text).at("tasks"));
    }
    let bytes: usize = tasks.iter().map(|task| task.get().len()).sum();
    let manifests = gate.folder.clone();
    let parsed = heavy(bytes, move || parse(&manifests, &tasks)).await?;
    let parsed = params::keep(gate, parsed).await?;
    let named = |task: &Prepared| task.document.dependencies.len() + task.references.len();
    let named: usize = parsed.iter().flatten().map(|task| named(task)).sum();
    if named > limits::BATCH_DEPENDENCIES_MAX {
        let max = limits::BATCH_DEPENDENCIES_MAX;
        let text = format!(
            "the tasks of batch {batch} name {named} dependencies, at most {max} are allowed in one; nothing of it was added"
        );
        return Err(Refusal::new(RefusalCode::TooLarge, text).at("tasks"));
    }
    find_modules(&gate.folder, &parsed).await;
    let parsed = inputs::find(&gate.blobs, parsed).await?;
    Ok(Input::Add { session, batch, job, hold, tasks: parsed })
}

/// Runs `work` here where it is little, else on a thread for such work.
pub(super) async fn heavy<T: Send + 'static>(
    bytes: usize,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, Refusal> {
    if bytes < HEAVY_BYTES {
        return Ok(work());
    }
    let failed = |_| Refusal::new(RefusalCode::Internal, "reading the message failed; the master's log has more");
    tokio::task::spawn_blocking(work).await.map_err(failed)
}

fn parse(folder: &Folder, tasks: &[Json]) -> Parsed {
    let mut manifests: HashMap<ModuleName, Result<Option<Arc<Manifest>>, Refusal>> = HashMap::new();
    let mut with_manifest = |task: &Json| {
        let prepared = prepare(task)?;
        let name = &prepared.document.module.name;
        if !manifests.contains_key(name) {
            manifests.insert(name.clone(), folder.manifest(name));
        }
        match manifests.get(name) {
            Some(Ok(Some(manifest))) => prepare_by(manifest, task),
            Some(Err(refusal)) => Err(refusal.clone()),
            _ => Ok(prepared),
        }
    };
    tasks.iter().map(|task| with_manifest(task).map(Box::new)).collect()
}

/// Looks into the folder once for every name that is not known: its file may have been dropped a moment ago. Names that
/// stay unknown are refused by the engine, which first looks whether the task itself is known: a resend of what was
/// acknowledged is fine even when its module has gone.
async fn find_modules(folder: &Folder, parsed: &Parsed) {
    let mut missing: BTreeSet<&ModuleName> = BTreeSet::new();
    for prepared in parsed.iter().flatten() {
        let name = &prepared.document.module.name;
        if !folder.knows(name) && missing.insert(name) {
            folder.look(name).await;
        }
    }
}
