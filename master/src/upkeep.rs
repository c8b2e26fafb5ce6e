//! What is done to a store while no master runs on it: `taskmaster store check`, `export`, `import`
//! and `backup`.

pub mod backup;
pub mod check;
pub mod export;
pub mod import;
pub mod line;
mod pieces;
pub mod salvage;

use crate::config::{self, ConfigError, DataLock};
use export::{ExportError, ExportSummary};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use taskmaster_blobs::{Blobs, OpenError};
use taskmaster_protocol::Hash;
use taskmaster_store::journal::{self, SyncedMark};
use taskmaster_store::kv::salvage as kept;
use taskmaster_store::kv::sled::{self, SledStore};
use taskmaster_store::kv::{SharedStore, StoreError};
use taskmaster_store::view;

/// Why it was not done; a sentence with what to do.
#[derive(Debug, thiserror::Error)]
pub enum UpkeepError {
    /// The data folder cannot be used, or a master has it.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The store cannot be read or written.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The blobs cannot be opened.
    #[error(transparent)]
    Blobs(#[from] OpenError),
    /// A file cannot be read or written.
    #[error("{0}: {1}")]
    File(PathBuf, io::Error),
    /// The data folder has no store.
    #[error("there is no store in {0}; name the master's data folder with --data")]
    NoStore(PathBuf),
    /// The data folder has a store, and a new one was to be made there.
    #[error("{0} holds a store already; name another folder with --data")]
    HasStore(PathBuf),
    /// The folder for a backup has something in it.
    #[error("{0} is not empty; name a folder that is not there")]
    NotEmpty(PathBuf),
    /// A blob cannot be copied.
    #[error("blob {0}: {1}")]
    Blob(Hash, String),
    /// The backup that a running master sends is not whole.
    #[error("the backup that came is not whole, and nothing was kept: {0}")]
    Stream(String),
    /// The export that was to be imported is wrong.
    #[error(transparent)]
    Import(#[from] import::ImportError),
}

impl UpkeepError {
    pub(crate) fn file(path: &Path) -> impl FnOnce(io::Error) -> UpkeepError {
        let path = path.to_owned();
        move |error| UpkeepError::File(path, error)
    }
}

/// A store that no master has open.
pub struct OpenStore {
    /// Its data folder.
    pub data: PathBuf,
    /// The folder of the store in it.
    pub folder: PathBuf,
    /// What it holds.
    pub store: SharedStore,
    lock: DataLock,
}

impl OpenStore {
    /// Opens the store in `data`, which must be there.
    pub fn open(data: &Path) -> Result<OpenStore, UpkeepError> {
        OpenStore::open_locked(data, OpenStore::lock(data)?)
    }

    /// Takes the data folder of a store that is there.
    pub fn lock(data: &Path) -> Result<DataLock, UpkeepError> {
        if !data.join("store").join("db").is_file() {
            return Err(UpkeepError::NoStore(data.to_owned()));
        }
        Ok(config::lock_data(data)?)
    }

    /// Opens the store in `data`, which the caller has taken.
    pub fn open_locked(data: &Path, lock: DataLock) -> Result<OpenStore, UpkeepError> {
        let folder = data.join("store");
        Ok(OpenStore {
            data: data.to_owned(),
            store: open_sled(&folder)?,
            folder,
            lock,
        })
    }
}

/// Exports the store in `data`, which the caller has taken. Of a damaged store all is written that is
/// sound.
pub fn export(
    data: &Path,
    lock: DataLock,
    out: &mut dyn Write,
) -> Result<ExportSummary, ExportError> {
    let blobs = Blobs::open_for_upkeep(data)?;
    let folder = data.join("store");
    let whole = open_sled(&folder).and_then(|store| {
        verify(&folder, &store)?;
        view::catch_up(&store)?;
        kept::forget_kept(&folder);
        Ok(store)
    });
    let damage = match whole {
        Ok(store) => return export::export(store.as_ref(), &blobs, out),
        Err(error @ (StoreError::Corrupt { .. } | StoreError::Cut { .. })) => error,
        Err(error) => return Err(error.into()),
    };
    let written = salvage::export_sound(&folder, &blobs, out)?;
    drop(lock);
    Ok(written.with_damage(&damage))
}

/// Checks that a store has everything that was durable, and that all of it is as it was written.
pub fn verify(folder: &Path, store: &SharedStore) -> Result<(), StoreError> {
    SyncedMark::open(folder, journal::last(store)?)?;
    journal::verify(store)?;
    view::verify(store.as_ref())
}

/// A store that is being made. It gets its name only when all of it is there.
pub struct NewStore {
    /// What has been written so far.
    pub opened: OpenStore,
}

impl NewStore {
    /// The folder of a store that is being made in `data`.
    pub fn folder(data: &Path) -> PathBuf {
        data.join("store.unfinished")
    }

    /// Begins a store in `data`, where there must be none.
    pub fn begin(data: &Path) -> Result<NewStore, UpkeepError> {
        if data.join("store").exists() {
            return Err(UpkeepError::HasStore(data.to_owned()));
        }
        let lock = config::lock_data(data)?;
        let folder = NewStore::folder(data);
        if folder.exists() {
            // It was left by a command that was ended in the middle.
            std::fs::remove_dir_all(&folder).map_err(UpkeepError::file(&folder))?;
        }
        Ok(NewStore {
            opened: OpenStore {
                data: data.to_owned(),
                store: open_sled(&folder)?,
                folder,
                lock,
            },
        })
    }

    /// Gives the store its name.
    pub fn finish(self) -> Result<(), UpkeepError> {
        let OpenStore {
            data,
            folder,
            store,
            lock,
        } = self.opened;
        store.sync()?;
        drop(store);
        sled::wait_until_unlocked(&folder.join("db"))
            .and_then(|()| std::fs::rename(&folder, data.join("store")))
            .and_then(|()| std::fs::File::open(&data)?.sync_all())
            .map_err(UpkeepError::file(&folder))?;
        drop(lock);
        Ok(())
    }
}

/// Opens sled. Where sled panics over what it reads, that is told as damage.
pub fn open_sled(folder: &Path) -> Result<SharedStore, StoreError> {
    if let Err(error) = kept::keep_before_opening(folder) {
        tracing::warn!(%error, "the store has a hole, and no copy of it could be kept");
    }
    let opened = std::panic::catch_unwind(|| SledStore::open(folder));
    let panicked = |_| StoreError::Corrupt {
        path: folder.display().to_string(),
        why: sled::GAVE_UP.into(),
    };
    Ok(Arc::new(opened.map_err(panicked)??))
}

#[cfg(test)]
mod tests {
    use super::*;
    use taskmaster_protocol::Wall;
    use taskmaster_store::codec::{self, FORMAT};
    use taskmaster_store::journal::{Journal, KvJournal};
    use taskmaster_store::record::{JournalEntry, Record};

    fn entry(commit: u64) -> Vec<u8> {
        codec::encode(&JournalEntry {
            first_seq: 1,
            time: Wall(1),
            records: vec![Record::Started {
                epoch: commit as u32,
            }],
        })
    }

    #[test]
    fn what_a_newer_program_wrote_is_refused_with_its_format_and_damage_is_told() {
        let scratch = tempfile::tempdir().unwrap();
        NewStore::begin(scratch.path()).unwrap().finish().unwrap();
        let opened = OpenStore::open(scratch.path()).unwrap();
        let mut journal = KvJournal::open(opened.store.clone()).unwrap();
        journal.append(1, &entry(1)).unwrap();
        view::catch_up(&opened.store).unwrap();
        assert!(check::check(&opened).unwrap().ok);
        let mut newer = entry(2);
        newer[0] = FORMAT + 1;
        journal.append(2, &newer).unwrap();
        let refused = view::catch_up(&opened.store).unwrap_err().to_string();
        let told = format!(
            "commit 2: it is of format {}, this program reads format {FORMAT}",
            FORMAT + 1
        );
        assert!(refused.contains(&told), "{refused}");
        let mut spoilt = entry(3);
        spoilt[6] ^= 1;
        journal.append(3, &spoilt).unwrap();
        let report = check::check(&opened).unwrap();
        assert!(!report.ok && report.wrong.len() == 2, "{report:?}");
        assert!(
            report.wrong[0].contains(&told) && report.wrong[1].contains("commit 3: its checksum"),
            "{report:?}"
        );
        assert_eq!(
            view::watermarks(opened.store.as_ref()).unwrap().folded,
            1,
            "nothing was changed"
        );
        assert!(
            NewStore::begin(scratch.path()).is_err()
                && OpenStore::open(&scratch.path().join("none")).is_err()
        );
    }
}
