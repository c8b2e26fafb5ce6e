//! Large params are kept as blobs, so that they are neither in the engine's memory nor in the
//! journal nor in a message to a runner.
//!
//! Large params that came in a document are put here. Params that a client has put itself are read
//! once, for the results that they ask for. The engine refuses a document whose blob is not there.
//! It first looks whether the task is known: a task that was acknowledged may be sent again even
//! when its blob has gone.

use super::{GatewayState, heavy};
use std::collections::BTreeMap;
use std::io::{self, ErrorKind, Read};
use taskmaster_blobs::{Blobs, is_unavailable};
use taskmaster_engine::prepare::{PreparedBatch, PreparedTask, waits_for};
use taskmaster_protocol::splice::{self, References};
use taskmaster_protocol::{Hash, Json, Refusal, RefusalCode, limits};

/// Batches with large params that are worked on at a time. Each takes up to twice
/// [`limits::PARAMS_BYTES_MAX`] of memory.
pub(super) const BATCHES_AT_A_TIME: usize = 2;

/// Puts the large params of a batch as blobs, and checks those that are blobs already.
pub(super) async fn store_large(
    state: &GatewayState,
    mut batch: PreparedBatch,
) -> Result<PreparedBatch, Refusal> {
    if !batch.iter().flatten().any(|task| is_large(task)) {
        return Ok(batch);
    }
    // The semaphore is never closed.
    let _permit = state.large_params.acquire().await.ok();
    let mut store = ParamsStore {
        blobs: state.blobs.clone(),
        is_disk_full: state.handle.room.disk().refusal().is_some(),
        references: BTreeMap::new(),
        last_read: None,
        references_count: 0,
    };
    heavy::run_blocking(move || {
        for task in batch.iter_mut().flatten().filter(|task| is_large(task)) {
            task.wrong = store.take(task).err();
        }
        batch
    })
    .await
}

fn is_large(task: &PreparedTask) -> bool {
    let is_long = |params: &Json| params.get().len() > limits::PARAMS_KEPT_BYTES_MAX;
    task.blob.is_some() || task.document.params.as_ref().is_some_and(is_long)
}

/// Puts and reads the large params of one batch.
struct ParamsStore {
    blobs: Blobs,
    /// Nothing is put, because the engine will refuse the task.
    is_disk_full: bool,
    /// The results that blobs ask for. Many tasks of a batch may name the same blob.
    references: BTreeMap<Hash, References>,
    /// The blob that was read last. A schema is checked just after the references were read.
    last_read: Option<(Hash, Json)>,
    /// Results that the tasks so far ask for.
    references_count: usize,
}

impl ParamsStore {
    fn take(&mut self, task: &mut PreparedTask) -> Result<(), Refusal> {
        if let Some(hash) = task.blob {
            return self.check(task, hash);
        }
        match &task.document.params {
            Some(params) if !self.is_disk_full => {
                let hash = self.put(params)?;
                task.document.params = Some(splice::of_blob(&hash));
                Ok(())
            }
            Some(_) | None => Ok(()),
        }
    }

    /// Checks params that a client has put itself.
    fn check(&mut self, task: &mut PreparedTask, hash: Hash) -> Result<(), Refusal> {
        task.document.params = Some(splice::of_blob(&hash));
        task.references = self.references(hash)?;
        if let Some(manifest) = &task.manifest {
            let params = self.read(hash)?;
            manifest.check(&task.document.module.name, Some(&params))?;
        }
        self.references_count += task.references.count();
        // A document of a hundred bytes may name a blob that asks for 10,000 results.
        let most = limits::BATCH_DEPENDENCIES_MAX;
        if self.references_count > most {
            let text = format!(
                "the params of this batch ask for more than {most} results: send it in parts"
            );
            return Err(Refusal::new(RefusalCode::TooLarge, text).at("params"));
        }
        waits_for(&task.document, &task.references)
    }

    fn put(&self, params: &Json) -> Result<Hash, Refusal> {
        self.blobs.put(params.get().as_bytes()).map_err(|error| {
            let text = format!("the params cannot be kept: {error}");
            Refusal::new(RefusalCode::Unavailable, text).at("params")
        })
    }

    fn references(&mut self, hash: Hash) -> Result<References, Refusal> {
        if let Some(known) = self.references.get(&hash) {
            return Ok(known.clone());
        }
        let references = splice::references(self.read(hash)?.get())?;
        self.references.insert(hash, references.clone());
        Ok(references)
    }

    /// The params in a blob.
    fn read(&mut self, hash: Hash) -> Result<Json, Refusal> {
        if let Some((last, json)) = &self.last_read
            && *last == hash
        {
            return Ok(json.clone());
        }
        // Let go first, so that two of them are never in memory together.
        self.last_read = None;
        let json = self.read_blob(&hash)?;
        self.last_read = Some((hash, json.clone()));
        Ok(json)
    }

    fn read_blob(&self, hash: &Hash) -> Result<Json, Refusal> {
        // From now on the blob is kept for the task that is about to name it.
        self.blobs
            .renew(hash)
            .map_err(|error| unreadable(hash, &error))?;
        let bytes = self.read_bytes(hash)?;
        let text = String::from_utf8(bytes).map_err(|error| not_json(hash, &error))?;
        Json::from_string(text).map_err(|error| not_json(hash, &error))
    }

    fn read_bytes(&self, hash: &Hash) -> Result<Vec<u8>, Refusal> {
        let unreadable = |error| unreadable(hash, &error);
        let mut file = self.blobs.file(hash).map_err(unreadable)?;
        let length = file.metadata().map_err(unreadable)?.len();
        let most = limits::PARAMS_BYTES_MAX;
        if length > most as u64 {
            let text = format!("blob {hash} has {length} bytes, params at most {most}");
            return Err(refuse(RefusalCode::TooLarge, text));
        }
        let mut bytes = Vec::with_capacity(usize::try_from(length).unwrap_or(0));
        file.read_to_end(&mut bytes).map_err(unreadable)?;
        Ok(bytes)
    }
}

fn refuse(code: RefusalCode, text: String) -> Refusal {
    Refusal::new(code, format!("field `params`: {text}")).at("params.$blob")
}

fn not_json(hash: &Hash, error: &dyn std::error::Error) -> Refusal {
    let text = format!("blob {hash} is not JSON: {error}");
    refuse(RefusalCode::MalformedJson, text)
}

fn unreadable(hash: &Hash, error: &io::Error) -> Refusal {
    if error.kind() == ErrorKind::NotFound {
        let text = format!("no blob {hash} is kept here; put it first: PUT /blobs/{hash}?for=task");
        return refuse(RefusalCode::UnknownBlob, text);
    }
    let code = if is_unavailable(error) {
        RefusalCode::Unavailable
    } else {
        RefusalCode::Internal
    };
    refuse(code, format!("blob {hash} cannot be read: {error}"))
}
