//! Opens the blobs and the store of a data folder.

use super::MasterError;
use crate::config::{ConfigError, MasterConfig, SettingError};
use crate::upkeep;
use std::io;
use std::path::Path;
use taskmaster_blobs::{Blobs, OpenError};
use taskmaster_store::journal::{self, SyncedMark};
use taskmaster_store::kv::{SharedStore, StoreError, salvage};
use taskmaster_store::view::RestoredView;
use taskmaster_store::{disk, view};

/// The largest file of a store that is read as a whole at a start. That takes about a second. Of a
/// larger store, damage is told when it is met.
const VERIFIED_BYTES_MAX: u64 = 512 << 20;

/// A store whose view has everything that is in the journal.
pub(super) struct OpenedStore {
    pub(super) store: SharedStore,
    pub(super) restored: RestoredView,
    /// Notes up to which commit the journal is durable.
    pub(super) synced: SyncedMark,
}

/// Opens the blobs, in the bucket or in the folder as the settings say. A bucket may take its time.
pub(super) async fn open_blobs(config: &MasterConfig) -> Result<Blobs, MasterError> {
    let data = config.data.clone();
    let address = config.blobs.clone();
    let cache_bytes = config.blob_cache_bytes;
    let blobs = run_blocking(config, move || {
        Blobs::open_for_master(&data, address.as_ref(), cache_bytes)
    })
    .await?;
    match blobs {
        Ok(blobs) => Ok(blobs.with_grace(config.blob_grace)),
        Err(OpenError::Io(error)) => Err(MasterError::Data(config.data.clone(), error)),
        Err(
            error @ (OpenError::Address(_)
            | OpenError::Client(_)
            | OpenError::Claim(_)
            | OpenError::InBucket(_)
            | OpenError::InOtherBucket { .. }),
        ) => Err(MasterError::Config(ConfigError::Setting {
            flag: "--blobs",
            why: SettingError::Blobs(error),
        })),
    }
}

/// Opens the store and brings the view up to the journal's end.
pub(super) async fn open_store(config: &MasterConfig) -> Result<OpenedStore, MasterError> {
    let data = config.data.clone();
    let store = run_blocking(config, move || open(&data)).await?;
    Ok(store?)
}

async fn run_blocking<T: Send + 'static>(
    config: &MasterConfig,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, MasterError> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|error| MasterError::Data(config.data.clone(), io::Error::other(error)))
}

/// Reads all of a store that is read quickly. sled notices damage where it reads, and takes some of it
/// for older pages, which nobody would notice later.
fn verify(store: &SharedStore, folder: &Path) -> Result<(), StoreError> {
    let bytes = std::fs::metadata(folder.join("db")).map_or(0, |db| db.len());
    if bytes > VERIFIED_BYTES_MAX {
        return Ok(());
    }
    journal::verify(store)?;
    view::verify(store.as_ref())
}

fn open(data: &Path) -> Result<OpenedStore, StoreError> {
    disk::check_space_to_start(data)?;
    let folder = data.join("store");
    if !folder.exists() && Blobs::has_any(data) {
        return Err(StoreError::Corrupt {
            path: folder.display().to_string(),
            why: "it is gone, and the blobs of its tasks and modules are still there beside it"
                .into(),
        });
    }
    let store = upkeep::open_sled(&folder)?;
    let synced = SyncedMark::open(&folder, journal::last(&store)?)?;
    verify(&store, &folder)?;
    view::catch_up(&store)?;
    let restored = view::restore(store.as_ref())?;
    salvage::forget_kept(&folder);
    Ok(OpenedStore {
        store,
        restored,
        synced,
    })
}
