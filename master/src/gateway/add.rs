//! `task:add`: documents are parsed here, in the session's own task, so that the engine's turns stay short.

use crate::inbox::{Input, SessionNo};
use crate::modules::Folder;
use crate::prepare::{Prepared, prepare};
use std::collections::BTreeMap;
use taskmaster_protocol::message::Add;
use taskmaster_protocol::{Json, ModuleName, Refusal, RefusalCode, limits, near};

type Parsed = Vec<Result<Box<Prepared>, Refusal>>;

/// More than this is parsed on a thread where it delays no other session (about a millisecond's work).
pub(super) const HEAVY_BYTES: usize = 256 << 10;

/// Reads a batch; what is wrong with single documents stands in their places.
pub(super) async fn read(folder: &Folder, session: SessionNo, add: Add) -> Result<Input, Refusal> {
    let Add { batch, job, hold, tasks } = add;
    if tasks.len() > limits::BATCH_TASKS_MAX {
        let (is, max) = (tasks.len(), limits::BATCH_TASKS_MAX);
        let text = format!("batch {batch} has {is} tasks, at most {max} are allowed in one; nothing of it was added");
        return Err(Refusal::new(RefusalCode::TooLarge, text).at("tasks"));
    }
    let bytes: usize = tasks.iter().map(|task| task.get().len()).sum();
    let mut parsed = heavy(bytes, move || parse(&tasks)).await?;
    find_modules(folder, &mut parsed).await;
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

fn parse(tasks: &[Json]) -> Parsed {
    tasks.iter().map(|task| prepare(task).map(Box::new)).collect()
}

/// Looks into the folder once for every name that is not known: its file may have been dropped a moment ago.
async fn find_modules(folder: &Folder, parsed: &mut Parsed) {
    let mut missing: BTreeMap<ModuleName, Option<Refusal>> = BTreeMap::new();
    for task in parsed.iter_mut() {
        let Ok(prepared) = task else { continue };
        let name = &prepared.document.module.name;
        if folder.knows(name) {
            continue;
        }
        if !missing.contains_key(name) {
            let refusal = if folder.look(name).await { None } else { Some(unknown(folder, name)) };
            missing.insert(name.clone(), refusal);
        }
        if let Some(Some(refusal)) = missing.get(name) {
            *task = Err(refusal.clone());
        }
    }
}

fn unknown(folder: &Folder, name: &ModuleName) -> Refusal {
    let text = match folder.trouble(name) {
        Some(error) => format!("the file of module `{name}` was rejected: {error}"),
        None => {
            let names = folder.names();
            let hint = near::hint(name.as_str(), names.iter().map(ModuleName::as_str));
            format!("unknown module `{name}`{hint} (looked in the task folder)")
        }
    };
    Refusal::new(RefusalCode::UnknownModule, text).at("module")
}
