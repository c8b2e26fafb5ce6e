//! `task:add`: documents are parsed here, in the session's own task, so that the engine's turns
//! stay short.

use super::{Gate, inputs, params};
use crate::modules::Folder;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use taskmaster_engine::inbox::{Input, SessionNo};
use taskmaster_engine::prepare::{Prepared, prepare, prepare_by};
use taskmaster_module::manifest::Manifest;
use taskmaster_module::{EntryPoint, Inspection, ParamsStage, Signature};
use taskmaster_protocol::message::Add;
use taskmaster_protocol::{Json, ModuleName, Refusal, RefusalCode, limits, splice};

pub(super) type Parsed = Vec<Result<Box<Prepared>, Refusal>>;

/// More than this is parsed on a thread where it delays no other session (about a millisecond's
/// work).
pub(super) const HEAVY_BYTES: usize = 256 << 10;

/// Reads a batch; what is wrong with single documents stands in their places.
pub(super) async fn read(gate: &Gate, session: SessionNo, add: Add) -> Result<Input, Refusal> {
    let Add {
        batch,
        job,
        hold,
        tasks,
    } = add;
    if tasks.len() > limits::BATCH_TASKS_MAX {
        let (is, max) = (tasks.len(), limits::BATCH_TASKS_MAX);
        let text = format!(
            "batch {batch} has {is} tasks, at most {max} are allowed in one; nothing of it was added"
        );
        return Err(Refusal::new(RefusalCode::TooLarge, text).at("tasks"));
    }
    let bytes: usize = tasks.iter().map(|task| task.get().len()).sum();
    Ok(Input::Add {
        session,
        batch,
        job,
        hold,
        tasks: parsed(gate, tasks, bytes).await?,
        pass: None,
    })
}

/// Reads documents, and all that can be known of them before the engine has them.
pub(super) async fn parsed(gate: &Gate, tasks: Vec<Json>, bytes: usize) -> Result<Parsed, Refusal> {
    let manifests = gate.folder.clone();
    let parsed = heavy(bytes, move || parse(&manifests, &tasks)).await?;
    let mut parsed = params::keep(gate, parsed).await?;
    let named = |task: &Prepared| task.document.dependencies.len() + task.references.len();
    let named: usize = parsed.iter().flatten().map(|task| named(task)).sum();
    if named > limits::BATCH_DEPENDENCIES_MAX {
        let max = limits::BATCH_DEPENDENCIES_MAX;
        let text = format!(
            "the tasks of one batch name {named} dependencies, at most {max} are allowed; nothing of it was added"
        );
        return Err(Refusal::new(RefusalCode::TooLarge, text).at("tasks"));
    }
    find_modules(&gate.folder, &parsed).await;
    compare_types(gate, &mut parsed, bytes).await?;
    inputs::find(&gate.blobs, parsed).await
}

/// Runs `work` here where it is little, else on a thread for such work.
pub(super) async fn heavy<T: Send + 'static>(
    bytes: usize,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, Refusal> {
    if bytes < HEAVY_BYTES {
        return Ok(work());
    }
    let failed = |_| {
        Refusal::new(
            RefusalCode::Internal,
            "reading the message failed; the master's log has more",
        )
    };
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
            Some(Ok(Some(manifest))) => prepare_by(manifest, task, prepared.document.job.is_some()),
            Some(Err(refusal)) => Err(refusal.clone()),
            _ => Ok(prepared),
        }
    };
    tasks
        .iter()
        .map(|task| with_manifest(task).map(Box::new))
        .collect()
}

/// Looks into the folder once for every name that is not known: its file may have been dropped a
/// moment ago. Names that stay unknown are refused by the engine, which first looks whether the
/// task itself is known: a resend of what was acknowledged is fine even when its module has gone.
async fn find_modules(folder: &Folder, parsed: &Parsed) {
    let mut missing: BTreeSet<&ModuleName> = BTreeSet::new();
    for prepared in parsed.iter().flatten() {
        let name = &prepared.document.module.name;
        if !folder.knows(name) && missing.insert(name) {
            folder.look(name).await;
        }
    }
}

/// Compares params with what the functions of components take. What does not fit is noted, not
/// refused: see [`Prepared::wrong`].
async fn compare_types(gate: &Gate, parsed: &mut Parsed, bytes: usize) -> Result<(), Refusal> {
    let mut components = BTreeMap::new();
    for prepared in parsed.iter().flatten() {
        let module = &prepared.document.module;
        if !components.contains_key(module) {
            let inspection = gate.interfaces.of(module).await;
            components.insert(module.clone(), inspection);
        }
    }
    if !components
        .values()
        .flatten()
        .any(|inspection| signature(inspection).is_some())
    {
        return Ok(());
    }
    let mut tasks = std::mem::take(parsed);
    *parsed = heavy(bytes, move || {
        for prepared in tasks.iter_mut().flatten() {
            let inspection = components
                .get(&prepared.document.module)
                .and_then(Option::as_ref);
            let Some(signature) = inspection.and_then(|inspection| signature(inspection)) else {
                continue;
            };
            let params = prepared.document.params.as_ref().map(Json::get);
            // Params that are a blob are compared where they are read whole: by the runner.
            if prepared.wrong.is_none()
                && params.is_none_or(|params| !matches!(splice::blob(params), Ok(Some(_))))
            {
                prepared.wrong = signature.arguments(params, ParamsStage::Open).err();
            }
        }
        tasks
    })
    .await?;
    Ok(())
}

fn signature(inspection: &Inspection) -> Option<&Signature> {
    inspection.entry.as_ref().and_then(EntryPoint::signature)
}
