//! Large params: kept as blobs, so that neither the engine's memory nor the journal nor a message
//! to a runner has them.
//!
//! What came inline is put here; what a client has put itself is read once, for the results that it
//! asks for. A document whose blob is not there is refused by the engine, which first looks whether
//! the task is known: a resend of what was acknowledged is fine even when its blob has gone.

use super::Gate;
use super::add::Parsed;
use std::collections::BTreeMap;
use std::io::{ErrorKind, Read};
use taskmaster_blobs::{Blobs, is_away};
use taskmaster_engine::prepare::{Prepared, waits_for};
use taskmaster_protocol::{Hash, Json, Refusal, RefusalCode, TaskId, limits, splice};

/// Batches with large params that are worked on at a time: each takes up to twice
/// [`limits::PARAMS_BYTES_MAX`].
pub(super) const AT_A_TIME: usize = 2;

/// Sees to it that no document of the batch has large params in it any more.
pub(super) async fn keep(gate: &Gate, mut parsed: Parsed) -> Result<Parsed, Refusal> {
    if !parsed.iter().flatten().any(|task| is_large(task)) {
        return Ok(parsed);
    }
    // The semaphore is never closed.
    let _turn = gate.large.acquire().await.ok();
    let gate = gate.clone();
    let work = move || {
        let mut keeper = Keeper {
            blobs: &gate.blobs,
            no_room: gate.handle.room.disk().refusal().is_some(),
            read: BTreeMap::new(),
            asked: 0,
        };
        for task in parsed.iter_mut().flatten().filter(|task| is_large(task)) {
            task.wrong = keeper.keep(task).err();
        }
        parsed
    };
    let failed = |_| {
        Refusal::new(
            RefusalCode::Internal,
            "reading the params failed; the master's log has more",
        )
    };
    tokio::task::spawn_blocking(work).await.map_err(failed)
}

fn is_large(task: &Prepared) -> bool {
    let long = |params: &Json| params.get().len() > limits::PARAMS_KEPT_BYTES_MAX;
    task.blob.is_some() || task.document.params.as_ref().is_some_and(long)
}

struct Keeper<'a> {
    blobs: &'a Blobs,
    /// Nothing is put: the engine will refuse the task.
    no_room: bool,
    /// What blobs ask for; many tasks of a batch may name the same one.
    read: BTreeMap<Hash, Vec<TaskId>>,
    /// Results asked for so far.
    asked: usize,
}

impl Keeper<'_> {
    fn keep(&mut self, task: &mut Prepared) -> Result<(), Refusal> {
        match (task.blob, &task.document.params) {
            (Some(hash), _) => {
                task.document.params = Some(splice::of_blob(&hash));
                task.references = self.references(hash)?;
                if let Some(manifest) = &task.manifest {
                    manifest.check(&task.document.module.name, Some(&self.json(hash)?))?;
                }
                self.asked += task.references.len();
                // A document of a hundred bytes may name a blob that asks for 10,000.
                let most = limits::BATCH_DEPENDENCIES_MAX;
                if self.asked > most {
                    let text = format!(
                        "the params of this batch ask for more than {most} results: send it in parts"
                    );
                    return Err(Refusal::new(RefusalCode::TooLarge, text).at("params"));
                }
                waits_for(&task.document, &task.references)
            }
            (None, Some(params)) if !self.no_room => {
                let hash = self.blobs.put(params.get().as_bytes()).map_err(|error| {
                    Refusal::new(
                        RefusalCode::Unavailable,
                        format!("the params cannot be kept: {error}"),
                    )
                    .at("params")
                })?;
                task.document.params = Some(splice::of_blob(&hash));
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn references(&mut self, hash: Hash) -> Result<Vec<TaskId>, Refusal> {
        if let Some(known) = self.read.get(&hash) {
            return Ok(known.clone());
        }
        let found = splice::references(self.json(hash)?.get())?;
        self.read.insert(hash, found.clone());
        Ok(found)
    }

    fn json(&self, hash: Hash) -> Result<Json, Refusal> {
        let wrong = |code, text: String| {
            Refusal::new(code, format!("field `params`: {text}")).at("params.$blob")
        };
        let unreadable = |error: std::io::Error| match error.kind() {
            ErrorKind::NotFound => wrong(
                RefusalCode::UnknownBlob,
                format!("no blob {hash} is kept here; put it first: PUT /blobs/{hash}?for=task"),
            ),
            _ if is_away(&error) => wrong(
                RefusalCode::Unavailable,
                format!("blob {hash} cannot be read: {error}"),
            ),
            _ => wrong(
                RefusalCode::Internal,
                format!("blob {hash} cannot be read: {error}"),
            ),
        };
        // From now on it is kept for the task that is about to name it.
        self.blobs.renew(&hash).map_err(unreadable)?;
        let mut file = self.blobs.file(&hash).map_err(unreadable)?;
        let bytes = file.metadata().map_err(unreadable)?.len();
        let most = limits::PARAMS_BYTES_MAX;
        if bytes > most as u64 {
            return Err(wrong(
                RefusalCode::TooLarge,
                format!("blob {hash} has {bytes} bytes, params at most {most}"),
            ));
        }
        let mut read = Vec::with_capacity(usize::try_from(bytes).unwrap_or(0));
        file.read_to_end(&mut read).map_err(unreadable)?;
        let text = String::from_utf8(read).map_err(|error| error.to_string());
        let json = text.and_then(|text| Json::from_string(text).map_err(|error| error.to_string()));
        json.map_err(|error| {
            wrong(
                RefusalCode::MalformedJson,
                format!("blob {hash} is not JSON: {error}"),
            )
        })
    }
}
