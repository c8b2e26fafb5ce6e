//! Whether the bytes that a batch of tasks names are here. They are kept for these tasks from then
//! on: what is found here is not removed before the engine knows who needs it.

use super::add::heavy;
use std::collections::HashMap;
use taskmaster_blobs::{Blobs, is_away};
use taskmaster_engine::prepare::Prepared;
use taskmaster_protocol::{Hash, InputRef, Listing, Refusal, RefusalCode};

type Parsed = Vec<Result<Box<Prepared>, Refusal>>;

/// Refuses the tasks of a batch whose inputs are not here.
pub(super) async fn find(blobs: &Blobs, mut parsed: Parsed) -> Result<Parsed, Refusal> {
    if parsed
        .iter()
        .flatten()
        .all(|task| task.document.inputs.is_empty())
    {
        return Ok(parsed);
    }
    let blobs = blobs.clone();
    // Every one is looked for on the disk.
    heavy(usize::MAX, move || {
        let mut found = Found::new();
        for task in &mut parsed {
            let refusal = task
                .as_ref()
                .ok()
                .and_then(|task| refusal(&blobs, task, &mut found));
            if let Some(refusal) = refusal {
                *task = Err(refusal);
            }
        }
        parsed
    })
    .await
}

/// Why an input cannot be had, and whether it may be had later.
type Missed = Option<(RefusalCode, String)>;

/// What a batch has looked for already.
type Found = HashMap<InputRef, Missed>;

/// Why a task's inputs cannot be had, if so.
fn refusal(blobs: &Blobs, task: &Prepared, found: &mut Found) -> Option<Refusal> {
    task.document.inputs.iter().find_map(|(path, input)| {
        let (code, why) = found
            .entry(*input)
            .or_insert_with(|| why_not(blobs, input))
            .as_ref()?;
        let field = format!("inputs.{path}");
        Some(Refusal::new(*code, format!("field `{field}`: {why}")).at(field))
    })
}

fn why_not(blobs: &Blobs, input: &InputRef) -> Missed {
    match input {
        InputRef::File { sha256 } => missing(blobs, sha256),
        InputRef::Folder { folder } => {
            missing(blobs, folder).or_else(|| missing_below(blobs, folder))
        }
    }
}

fn missing(blobs: &Blobs, hash: &Hash) -> Missed {
    match blobs.renew(hash) {
        Ok(true) => None,
        Ok(false) => Some((RefusalCode::UnknownBlob, not_here(hash))),
        Err(error) => Some(unread(hash, &error)),
    }
}

fn not_here(hash: &Hash) -> String {
    format!("no blob {hash} is kept here; put its bytes at /blobs/{hash} first")
}

fn unread(hash: &Hash, error: &std::io::Error) -> (RefusalCode, String) {
    let code = if is_away(error) {
        RefusalCode::Unavailable
    } else {
        RefusalCode::UnknownBlob
    };
    (code, format!("blob {hash} cannot be read: {error}"))
}

/// Looks for every file of a folder: some 5 ms for a thousand, once in a batch.
fn missing_below(blobs: &Blobs, folder: &Hash) -> Missed {
    let listing = match blobs.get(folder) {
        Ok(bytes) => Listing::decode(&bytes),
        Err(error) => return Some(unread(folder, &error)),
    };
    let listing = match listing {
        Ok(listing) => listing,
        Err(why) => return Some((RefusalCode::UnknownBlob, format!("blob {folder}: {why}"))),
    };
    let hashes: Vec<Hash> = listing.files.values().map(|file| file.sha256).collect();
    let there = match blobs.renew_all(&hashes) {
        Ok(there) => there,
        Err(error) => return Some(unread(folder, &error)),
    };
    let ((path, file), _) = listing.files.iter().zip(there).find(|(_, there)| !there)?;
    let why = format!("of the folder's file `{path}` {}", not_here(&file.sha256));
    Some((RefusalCode::UnknownBlob, why))
}
