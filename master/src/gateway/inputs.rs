//! Whether the blobs that a batch of tasks names as inputs are here. From then on they are kept for
//! these tasks: what is found here is not removed before the engine knows the tasks that need it.

use super::heavy;
use std::collections::HashMap;
use std::io;
use taskmaster_blobs::{Blobs, is_unavailable};
use taskmaster_engine::prepare::{PreparedBatch, PreparedTask};
use taskmaster_protocol::{Hash, InputRef, Listing, Refusal, RefusalCode};

/// Refuses the tasks of a batch whose inputs are not here.
pub(super) async fn refuse_missing(
    blobs: &Blobs,
    mut batch: PreparedBatch,
) -> Result<PreparedBatch, Refusal> {
    let has_inputs = |task: &PreparedTask| !task.document.inputs.is_empty();
    if !batch.iter().flatten().any(|task| has_inputs(task)) {
        return Ok(batch);
    }
    let mut lookup = InputLookup {
        blobs: blobs.clone(),
        known: HashMap::new(),
    };
    // Every input is looked for on the disk.
    heavy::run_blocking(move || {
        for task in &mut batch {
            if let Ok(prepared) = task
                && let Some(refusal) = lookup.refusal(prepared)
            {
                *task = Err(refusal);
            }
        }
        batch
    })
    .await
}

/// Why an input cannot be had. The code says whether it may be had later.
struct MissingInput {
    code: RefusalCode,
    why: String,
}

/// The inputs that one batch has looked for.
struct InputLookup {
    blobs: Blobs,
    known: HashMap<InputRef, Result<(), MissingInput>>,
}

impl InputLookup {
    /// Why a task's inputs cannot be had, if so.
    fn refusal(&mut self, task: &PreparedTask) -> Option<Refusal> {
        task.document.inputs.iter().find_map(|(path, input)| {
            let found = self
                .known
                .entry(*input)
                .or_insert_with(|| find(&self.blobs, input));
            let MissingInput { code, why } = found.as_ref().err()?;
            let field = format!("inputs.{path}");
            Some(Refusal::new(*code, format!("field `{field}`: {why}")).at(field))
        })
    }
}

fn find(blobs: &Blobs, input: &InputRef) -> Result<(), MissingInput> {
    match input {
        InputRef::File { sha256 } => find_blob(blobs, sha256),
        InputRef::Folder { folder } => {
            find_blob(blobs, folder)?;
            find_files_of(blobs, folder)
        }
    }
}

fn find_blob(blobs: &Blobs, hash: &Hash) -> Result<(), MissingInput> {
    match blobs.renew(hash) {
        Ok(true) => Ok(()),
        Ok(false) => Err(MissingInput {
            code: RefusalCode::UnknownBlob,
            why: not_here(hash),
        }),
        Err(error) => Err(unreadable(hash, &error)),
    }
}

/// Looks for every file of a folder. This takes some 5 ms for a thousand files, once in a batch.
fn find_files_of(blobs: &Blobs, folder: &Hash) -> Result<(), MissingInput> {
    let bytes = blobs
        .get(folder)
        .map_err(|error| unreadable(folder, &error))?;
    let listing = Listing::decode(&bytes).map_err(|why| MissingInput {
        code: RefusalCode::UnknownBlob,
        why: format!("blob {folder}: {why}"),
    })?;
    let hashes: Vec<Hash> = listing.files.values().map(|file| file.sha256).collect();
    let is_there = blobs
        .renew_all(&hashes)
        .map_err(|error| unreadable(folder, &error))?;
    for ((path, file), is_there) in listing.files.iter().zip(is_there) {
        if !is_there {
            return Err(MissingInput {
                code: RefusalCode::UnknownBlob,
                why: format!("of the folder's file `{path}` {}", not_here(&file.sha256)),
            });
        }
    }
    Ok(())
}

fn not_here(hash: &Hash) -> String {
    format!("no blob {hash} is kept here; put its bytes at /blobs/{hash} first")
}

fn unreadable(hash: &Hash, error: &io::Error) -> MissingInput {
    let code = if is_unavailable(error) {
        RefusalCode::Unavailable
    } else {
        RefusalCode::UnknownBlob
    };
    MissingInput {
        code,
        why: format!("blob {hash} cannot be read: {error}"),
    }
}
