//! Whether the bytes that a batch of tasks names are here. They are kept for these tasks from then on: what is found
//! here is not removed before the engine knows who needs it.

use super::add::heavy;
use crate::blobs::Blobs;
use crate::prepare::Prepared;
use std::collections::HashMap;
use taskmaster_protocol::{Hash, InputRef, Listing, Refusal, RefusalCode};

type Parsed = Vec<Result<Box<Prepared>, Refusal>>;

/// Refuses the tasks of a batch whose inputs are not here.
pub(super) async fn find(blobs: &Blobs, mut parsed: Parsed) -> Result<Parsed, Refusal> {
    if parsed.iter().flatten().all(|task| task.document.inputs.is_empty()) {
        return Ok(parsed);
    }
    let blobs = blobs.clone();
    // Every one is looked for on the disk.
    heavy(usize::MAX, move || {
        let mut found = HashMap::new();
        for task in &mut parsed {
            let refusal = task.as_ref().ok().and_then(|task| refusal(&blobs, task, &mut found));
            if let Some(refusal) = refusal {
                *task = Err(refusal);
            }
        }
        parsed
    })
    .await
}

/// Why a task's inputs cannot be had, if so. `found` has what this batch has looked for already.
fn refusal(blobs: &Blobs, task: &Prepared, found: &mut HashMap<InputRef, Option<String>>) -> Option<Refusal> {
    task.document.inputs.iter().find_map(|(path, input)| {
        let why = found.entry(*input).or_insert_with(|| why_not(blobs, input)).as_ref()?;
        let field = format!("inputs.{path}");
        Some(Refusal::new(RefusalCode::UnknownBlob, format!("field `{field}`: {why}")).at(field))
    })
}

fn why_not(blobs: &Blobs, input: &InputRef) -> Option<String> {
    match input {
        InputRef::File { sha256 } => missing(blobs, sha256),
        InputRef::Folder { folder } => missing(blobs, folder).or_else(|| missing_below(blobs, folder)),
    }
}

fn missing(blobs: &Blobs, hash: &Hash) -> Option<String> {
    match blobs.renew(hash) {
        Ok(true) => None,
        Ok(false) => Some(format!("no blob {hash} is kept here; put its bytes at /blobs/{hash} first")),
        Err(error) => Some(format!("blob {hash} cannot be read: {error}")),
    }
}

/// Looks for every file of a folder: some 5 ms for a thousand, once in a batch.
fn missing_below(blobs: &Blobs, folder: &Hash) -> Option<String> {
    let listing = match blobs.get(folder).map_err(|error| error.to_string()) {
        Ok(bytes) => Listing::decode(&bytes).map_err(|error| error.to_string()),
        Err(error) => Err(error),
    };
    match listing {
        Err(why) => Some(format!("blob {folder}: {why}")),
        Ok(listing) => listing.files.iter().find_map(|(path, file)| {
            missing(blobs, &file.sha256).map(|why| format!("of the folder's file `{path}` {why}"))
        }),
    }
}
