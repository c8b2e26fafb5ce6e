//! `store backup`: a copy of a data folder on which a master can start, also of a running master.
//!
//! Nothing is folded while the copy is made, so the view does not change. Of the journal, the copy
//! has what was durable at the beginning. Adds and results go on meanwhile.

use super::{UpkeepError, open_sled};
use serde::{Deserialize, Serialize};
use std::fs;
use std::path::{Path, PathBuf};
use taskmaster_blobs::Blobs;
use taskmaster_store::journal::{self, SyncedMark};
use taskmaster_store::kv::{KvStore, SharedStore, WriteBatch};

/// Pairs of the store that are copied at a time.
const PAGE_PAIRS: usize = 1_000;

/// What was copied.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BackupSummary {
    /// Where the copy is.
    pub to: PathBuf,
    /// The copy holds everything up to this commit.
    pub commit: u64,
    /// Records copied.
    pub records: u64,
    /// Large results and modules copied.
    pub blobs: u64,
}

/// Copies the store on `store` and the `blobs`, wherever they live, into the folder `to`, which
/// must be empty or not exist. A master on the copy needs no bucket. Nobody may fold meanwhile.
pub fn backup(store: &SharedStore, blobs: &Blobs, to: &Path) -> Result<BackupSummary, UpkeepError> {
    match fs::read_dir(to).map(|mut entries| entries.next().is_some()) {
        Ok(false) => {}
        Ok(true) => return Err(UpkeepError::NotEmpty(to.to_owned())),
        Err(_) => fs::create_dir_all(to).map_err(UpkeepError::file(to))?,
    }
    let copied = copy(store, blobs, to);
    if copied.is_err() {
        // Nobody must take half a copy for a whole one.
        let _ = fs::remove_dir_all(to);
    }
    copied
}

fn copy(store: &SharedStore, blobs: &Blobs, to: &Path) -> Result<BackupSummary, UpkeepError> {
    let commit = journal::last(store)?;
    let folder = to.join("store");
    let copy = open_sled(&folder)?;
    let records = copy_pairs(store.as_ref(), copy.as_ref(), commit)?;
    // Blobs are copied after the records, because a blob is there before a record names it.
    let blobs = blobs.copy_all(to).map_err(UpkeepError::file(to))?;
    copy.sync()?;
    // The commit is durable in the store, so it is durable in the copy, too.
    SyncedMark::open(&folder, commit)?.set(commit);
    fs::File::open(to)
        .and_then(|folder| folder.sync_all())
        .map_err(UpkeepError::file(to))?;
    Ok(BackupSummary {
        to: to.to_owned(),
        commit,
        records,
        blobs,
    })
}

/// Copies every pair but those of commits after `commit`. Returns the number of pairs.
fn copy_pairs(from: &dyn KvStore, to: &dyn KvStore, commit: u64) -> Result<u64, UpkeepError> {
    let mut next = Vec::new();
    let mut copied = 0;
    loop {
        let pairs = from.scan(&next, &[0xff; 64], false, PAGE_PAIRS)?;
        let Some(last) = pairs.last() else {
            return Ok(copied);
        };
        next.clone_from(&last.key);
        next.push(0);
        let mut batch = WriteBatch::default();
        for pair in pairs {
            if !journal::is_key_after(&pair.key, commit) {
                copied += 1;
                batch.put(pair.key, pair.value);
            }
        }
        to.write(batch)?;
    }
}
