//! What is done to a store by its keeper: `taskmaster store check`, `export`, `import`, `backup`.

pub mod backup;
pub mod check;
pub mod export;
pub mod import;
pub mod pieces;

use crate::config::{self, ConfigError, DataLock};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use taskmaster_blobs::OpenError;
use taskmaster_store::kv::sled::{self, SledShelf};
use taskmaster_store::kv::{Reader, StoreError};

/// Why it was not done; a sentence with what to do.
#[derive(Debug, thiserror::Error)]
pub enum UpkeepError {
    /// The data folder is no such, or in use.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The blobs.
    #[error(transparent)]
    Blobs(#[from] OpenError),
    /// A file.
    #[error("{0}: {1}")]
    File(PathBuf, io::Error),
    /// There is nothing, or something where nothing should be.
    #[error("{0}")]
    Refused(String),
}

impl UpkeepError {
    pub(crate) fn file(path: &Path) -> impl FnOnce(io::Error) -> UpkeepError {
        let path = path.to_owned();
        move |error| UpkeepError::File(path, error)
    }
}

/// A store of which no master has hold.
pub struct Opened {
    /// Its data folder.
    pub data: PathBuf,
    /// Where it lies.
    pub folder: PathBuf,
    /// What it holds.
    pub shelf: Reader,
    lock: DataLock,
}

impl Opened {
    /// Opens the store in `data`, which must be there.
    pub fn open(data: &Path) -> Result<Opened, UpkeepError> {
        let folder = data.join("store");
        if !folder.join("db").is_file() {
            let text = format!(
                "there is no store in {}; name the master's data folder with --data",
                data.display()
            );
            return Err(UpkeepError::Refused(text));
        }
        let lock = config::lock_data(data)?;
        Ok(Opened {
            data: data.to_owned(),
            shelf: open_sled(&folder)?,
            folder,
            lock,
        })
    }
}

/// A store that is being made, under another name until all of it is there.
pub struct Making {
    /// As far as it is there.
    pub opened: Opened,
}

impl Making {
    /// Where it lies meanwhile.
    pub fn folder(data: &Path) -> PathBuf {
        data.join("store.unfinished")
    }

    /// Begins one in `data`, where there must be none.
    pub fn begin(data: &Path) -> Result<Making, UpkeepError> {
        if data.join("store").exists() {
            let text = format!(
                "{} holds a store already; name another folder with --data",
                data.display()
            );
            return Err(UpkeepError::Refused(text));
        }
        let lock = config::lock_data(data)?;
        let folder = Making::folder(data);
        if folder.exists() {
            // Of one that was ended in the middle.
            std::fs::remove_dir_all(&folder).map_err(UpkeepError::file(&folder))?;
        }
        Ok(Making {
            opened: Opened {
                data: data.to_owned(),
                shelf: open_sled(&folder)?,
                folder,
                lock,
            },
        })
    }

    /// Gives it its name.
    pub fn finish(self) -> Result<(), UpkeepError> {
        let Opened {
            data,
            folder,
            shelf,
            lock,
        } = self.opened;
        shelf.sync()?;
        drop(shelf);
        sled::let_go(&folder.join("db"))
            .and_then(|()| std::fs::rename(&folder, data.join("store")))
            .and_then(|()| std::fs::File::open(&data)?.sync_all())
            .map_err(UpkeepError::file(&folder))?;
        drop(lock);
        Ok(())
    }
}

/// Opens sled; where it panics over what it reads, that is told as damage.
pub fn open_sled(folder: &Path) -> Result<Reader, StoreError> {
    let opened = std::panic::catch_unwind(|| SledShelf::open(folder));
    let panicked = |_| StoreError::Corrupt {
        path: folder.display().to_string(),
        why: "the store's engine gave up over what it read; its message stands above".into(),
    };
    Ok(Arc::new(opened.map_err(panicked)??))
}

#[cfg(test)]
mod tests {
    use super::*;
    use taskmaster_protocol::Wall;
    use taskmaster_store::codec::{self, FORMAT};
    use taskmaster_store::journal::{Journal, ShelfJournal};
    use taskmaster_store::record::{Entry, Record};
    use taskmaster_store::view;

    fn entry(commit: u64) -> Vec<u8> {
        codec::encode(&Entry {
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
        Making::begin(scratch.path()).unwrap().finish().unwrap();
        let opened = Opened::open(scratch.path()).unwrap();
        let mut journal = ShelfJournal::open(opened.shelf.clone()).unwrap();
        journal.append(1, &entry(1)).unwrap();
        view::catch_up(&opened.shelf).unwrap();
        assert!(check::check(&opened).unwrap().ok);
        let mut newer = entry(2);
        newer[0] = FORMAT + 1;
        journal.append(2, &newer).unwrap();
        let refused = view::catch_up(&opened.shelf).unwrap_err().to_string();
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
            view::marks(opened.shelf.as_ref()).unwrap().folded,
            1,
            "nothing was changed"
        );
        assert!(
            Making::begin(scratch.path()).is_err()
                && Opened::open(&scratch.path().join("none")).is_err()
        );
    }
}
