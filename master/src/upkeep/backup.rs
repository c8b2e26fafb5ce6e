//! `store backup`: a copy of a data folder on which a master can start; of a running master too.
//!
//! While it is made nothing is folded, so the view stands still; of the journal, what was durable
//! at the beginning is copied. Adds and results go on meanwhile.

use super::{UpkeepError, open_sled};
use serde::{Deserialize, Serialize};
use std::fs;
use std::path::{Path, PathBuf};
use taskmaster_blobs::Blobs;
use taskmaster_store::journal::{self, SyncedMark};
use taskmaster_store::kv::{Batch, Reader, Shelf};

/// Pairs copied at a time.
const PAGE: usize = 1_000;

/// What was copied.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Copied {
    /// Where the copy is.
    pub to: PathBuf,
    /// It holds everything up to this commit.
    pub commit: u64,
    /// Records copied.
    pub records: u64,
    /// Large results and modules copied.
    pub blobs: u64,
}

/// Copies the store on `shelf` and the `blobs`, wherever they live, into `to`, which must not exist
/// or be empty: what is there then needs no object store. Nobody may fold meanwhile.
pub fn backup(shelf: &Reader, blobs: &Blobs, to: &Path) -> Result<Copied, UpkeepError> {
    let fail = UpkeepError::file(to);
    match fs::read_dir(to).map(|mut entries| entries.next().is_some()) {
        Ok(false) => {}
        Ok(true) => {
            return Err(UpkeepError::Refused(format!(
                "{} is not empty; name a folder that is not there",
                to.display()
            )));
        }
        Err(_) => fs::create_dir_all(to).map_err(fail)?,
    }
    let copied = copy(shelf, blobs, to);
    if copied.is_err() {
        // Half a copy must not be taken for one.
        let _ = fs::remove_dir_all(to);
    }
    copied
}

fn copy(shelf: &Reader, blobs: &Blobs, to: &Path) -> Result<Copied, UpkeepError> {
    let commit = journal::last(shelf)?;
    let copy = open_sled(&to.join("store"))?;
    let records = copy_pairs(shelf.as_ref(), copy.as_ref(), commit)?;
    // Blobs after records: what a record names is there before the record is.
    let blobs = blobs.copy_all(to).map_err(UpkeepError::file(to))?;
    copy.sync()?;
    // Of what is durable here, and so of the copy.
    SyncedMark::open(&to.join("store"), commit)?.set(commit);
    fs::File::open(to)
        .and_then(|folder| folder.sync_all())
        .map_err(UpkeepError::file(to))?;
    Ok(Copied {
        to: to.to_owned(),
        commit,
        records,
        blobs,
    })
}

fn copy_pairs(from: &dyn Shelf, to: &dyn Shelf, commit: u64) -> Result<u64, UpkeepError> {
    let (mut next, mut records) = (Vec::new(), 0);
    loop {
        let pairs = from.scan(&next, &[0xff; 64], false, PAGE)?;
        let Some((last, _)) = pairs.last() else {
            return Ok(records);
        };
        next = last.clone();
        next.push(0);
        let mut batch = Batch::default();
        for (key, value) in pairs {
            if !journal::is_after(&key, commit) {
                records += 1;
                batch.put(key, value);
            }
        }
        to.write(batch)?;
    }
}
