//! `task:add`: documents are parsed in the session's own task, so that the engine's turns stay
//! short.

use super::{GatewayState, heavy, inputs, params};
use crate::modules::ModuleFolder;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use taskmaster_engine::prepare::{PreparedBatch, PreparedTask, module_of, prepare, prepare_by};
use taskmaster_module::manifest::Manifest;
use taskmaster_module::{EntryPoint, Inspection, ParamsStage, Signature};
use taskmaster_protocol::message::Add;
use taskmaster_protocol::{
    JobName, Json, ModuleName, ModuleRef, Refusal, RefusalCode, limits, splice,
};

/// A `task:add` whose documents are parsed.
pub(super) struct ParsedAdd {
    /// The feeder's number of the batch.
    pub(super) number: u64,
    /// The job of tasks that name none.
    pub(super) job: Option<JobName>,
    /// Whether the session holds that job.
    pub(super) hold: bool,
    /// Whether a kept answer is enough.
    pub(super) answers: bool,
    pub(super) tasks: PreparedBatch,
}

/// Parses a batch. A document that is wrong is refused in its place.
pub(super) async fn read(state: &GatewayState, add: Add) -> Result<ParsedAdd, Refusal> {
    let Add {
        batch,
        job,
        hold,
        answers,
        tasks,
    } = add;
    if tasks.len() > limits::BATCH_TASKS_MAX {
        let count = tasks.len();
        let most = limits::BATCH_TASKS_MAX;
        let text = format!(
            "batch {batch} has {count} tasks, at most {most} are allowed in one; nothing of it was \
             added"
        );
        return Err(Refusal::new(RefusalCode::TooLarge, text).at("tasks"));
    }
    Ok(ParsedAdd {
        number: batch,
        job,
        hold,
        answers,
        tasks: parse_all(state, tasks).await?,
    })
}

/// Parses documents and checks all that can be known of them before the engine has them.
pub(super) async fn parse_all(
    state: &GatewayState,
    tasks: Vec<Json>,
) -> Result<PreparedBatch, Refusal> {
    let bytes: usize = tasks.iter().map(|task| task.get().len()).sum();
    let folder = state.folder.clone();
    let batch = heavy::run(bytes, move || parse(&folder, &tasks)).await?;
    let batch = params::store_large(state, batch).await?;
    check_dependencies(&batch)?;
    look_for_modules(&state.folder, &batch).await;
    let batch = compare_types(state, batch, bytes).await?;
    inputs::refuse_missing(&state.blobs, batch).await
}

fn parse(folder: &ModuleFolder, tasks: &[Json]) -> PreparedBatch {
    let mut manifests = BatchManifests {
        folder,
        known: HashMap::new(),
    };
    tasks
        .iter()
        .map(|task| manifests.prepare(task).map(Box::new))
        .collect()
}

/// The manifests that one batch has asked for.
struct BatchManifests<'a> {
    folder: &'a ModuleFolder,
    known: HashMap<ModuleName, Result<Option<Arc<Manifest>>, Refusal>>,
}

impl BatchManifests<'_> {
    fn prepare(&mut self, task: &Json) -> Result<PreparedTask, Refusal> {
        let Some(name) = module_of(task) else {
            return prepare(task);
        };
        let manifest = self
            .known
            .entry(name)
            .or_insert_with_key(|name| self.folder.manifest(name));
        match manifest {
            Ok(Some(manifest)) => prepare_by(manifest, task),
            Ok(None) => prepare(task),
            // What is wrong with the document itself is told first.
            Err(refusal) => prepare(task).and(Err(refusal.clone())),
        }
    }
}

fn check_dependencies(batch: &PreparedBatch) -> Result<(), Refusal> {
    let dependencies: usize = batch
        .iter()
        .flatten()
        .map(|task| task.document.dependencies.len() + task.references.count())
        .sum();
    let most = limits::BATCH_DEPENDENCIES_MAX;
    if dependencies <= most {
        return Ok(());
    }
    let text = format!(
        "the tasks of one batch name {dependencies} dependencies, at most {most} are allowed; \
         nothing of it was added"
    );
    Err(Refusal::new(RefusalCode::TooLarge, text).at("tasks"))
}

/// Looks into the folder once for each module that is not known, because its file may have been
/// dropped a moment ago. The engine refuses modules that stay unknown. It first looks whether the
/// task itself is known: a task that was acknowledged may be sent again even when its module has
/// gone.
async fn look_for_modules(folder: &ModuleFolder, batch: &PreparedBatch) {
    let mut looked_for: BTreeSet<&ModuleName> = BTreeSet::new();
    for task in batch.iter().flatten() {
        let name = &task.document.module.name;
        if !folder.knows(name) && looked_for.insert(name) {
            folder.look(name).await;
        }
    }
}

/// Compares params with what the functions of components take. What does not fit is noted in
/// [`PreparedTask::wrong`] and not refused here.
async fn compare_types(
    state: &GatewayState,
    mut batch: PreparedBatch,
    bytes: usize,
) -> Result<PreparedBatch, Refusal> {
    let mut inspections: BTreeMap<ModuleRef, Arc<Inspection>> = BTreeMap::new();
    let modules: BTreeSet<&ModuleRef> = batch
        .iter()
        .flatten()
        .map(|task| &task.document.module)
        .collect();
    for module in modules {
        if let Some(inspection) = state.interfaces.of(module).await
            && signature(&inspection).is_some()
        {
            inspections.insert(module.clone(), inspection);
        }
    }
    if inspections.is_empty() {
        return Ok(batch);
    }

    heavy::run(bytes, move || {
        for task in batch.iter_mut().flatten() {
            let inspection = inspections.get(&task.document.module);
            if let Some(signature) = inspection.and_then(|inspection| signature(inspection)) {
                compare_params(task, signature);
            }
        }
        batch
    })
    .await
}

fn compare_params(task: &mut PreparedTask, signature: &Signature) {
    let params = task.document.params.as_ref().map(Json::get);
    // The runner compares params that are a blob, because only the runner reads them whole.
    let are_blob = params.is_some_and(|params| matches!(splice::blob(params), Ok(Some(_))));
    if task.wrong.is_none() && !are_blob {
        task.wrong = signature.arguments(params, ParamsStage::Open).err();
    }
}

fn signature(inspection: &Inspection) -> Option<&Signature> {
    inspection.entry.as_ref().and_then(EntryPoint::signature)
}
