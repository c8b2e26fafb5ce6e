//! `store backup`: a copy of a data folder on which a master can start, also of a running master.
//!
//! The copy is made by whoever wants it: of a store that no master has open, from the store itself
//! ([`backup`]), and of a running master from a stream ([`stream`]). It gets its name only when all
//! of it is there and durable.

mod folder;
pub mod stream;

use super::UpkeepError;
use folder::BackupFolder;
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};
use taskmaster_blobs::Blobs;
use taskmaster_store::journal;
use taskmaster_store::kv::{KeyValue, KvStore, SharedStore};

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
/// must be empty or not exist. A master on the copy needs no bucket. Nobody may write meanwhile.
pub fn backup(store: &SharedStore, blobs: &Blobs, to: &Path) -> Result<BackupSummary, UpkeepError> {
    let mut folder = BackupFolder::begin(to)?;
    let commit = journal::last(store)?;
    each_pair(store.as_ref(), commit, &mut |pair| folder.pair(pair))?;
    for hash in blobs.all().map_err(UpkeepError::file(to))? {
        let mut file = blobs.file(&hash).map_err(UpkeepError::file(to))?;
        folder.blob(hash, &mut file)?;
    }
    folder.finish(commit)
}

/// Calls `visit` with every pair but those of commits after `commit`.
fn each_pair<E: From<taskmaster_store::kv::StoreError>>(
    from: &dyn KvStore,
    commit: u64,
    visit: &mut dyn FnMut(KeyValue) -> Result<(), E>,
) -> Result<(), E> {
    let mut next = Vec::new();
    loop {
        let pairs = from.scan(&next, &[0xff; 64], false, PAGE_PAIRS)?;
        let Some(last) = pairs.last() else {
            return Ok(());
        };
        next.clone_from(&last.key);
        next.push(0);
        for pair in pairs {
            if !journal::is_key_after(&pair.key, commit) {
                visit(pair)?;
            }
        }
    }
}
