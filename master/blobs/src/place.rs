//! Where the blobs of a data folder live: in the folder, or in the object store that
//! `<data>/blob-store` names. That is decided once; what is in the folder then moves there before
//! the master takes anything.

use super::home::{Claim, Home};
use super::{Address, Blobs, cache, sync_folder};
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::Path;
use taskmaster_protocol::Hash;

/// Blobs looked for, and put where they are missing, at a time.
const MOVED_AT_A_TIME: usize = 1_000;

/// Why the blobs of a data folder cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The folder.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// The object store, or which it shall be; a sentence with what to do.
    #[error("{0}")]
    Store(String),
}

/// What `<data>/blob-store` says, in three lines.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Place {
    /// Where.
    address: String,
    /// By what name the object store knows this data folder.
    id: String,
    /// Whether all blobs of the folder have been put there.
    moved: bool,
}

impl Place {
    fn read(data: &Path) -> io::Result<Option<Place>> {
        let path = data.join("blob-store");
        let text = match fs::read_to_string(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            read => read?,
        };
        let mut lines = text.lines().map(str::to_owned);
        match (lines.next(), lines.next(), lines.next().as_deref()) {
            (Some(address), Some(id), Some(state @ ("moving" | "moved"))) => Ok(Some(Place {
                address,
                id,
                moved: state == "moved",
            })),
            _ => Err(io::Error::other(format!(
                "{} is spoilt: its lines are an address, an id, `moved`",
                path.display()
            ))),
        }
    }

    fn write(&self, data: &Path) -> io::Result<()> {
        let unfinished = data.join("blob-store.new");
        let mut file = File::create(&unfinished)?;
        let state = if self.moved { "moved" } else { "moving" };
        writeln!(file, "{}\n{}\n{state}", self.address, self.id)?;
        file.sync_all()?;
        fs::rename(unfinished, data.join("blob-store"))?;
        sync_folder(data)
    }
}

impl Blobs {
    /// The blobs of `data`, as a master wants them: in `wanted`, or in the folder. What is in the
    /// folder is moved where it has not been. Of an object store's at most `cache_bytes` stay in
    /// the folder.
    pub fn settle(
        data: &Path,
        wanted: Option<&Address>,
        cache_bytes: u64,
    ) -> Result<Blobs, OpenError> {
        let blobs = Blobs::open(data)?;
        let known = Place::read(data)?;
        let Some(address) = wanted else {
            return match known {
                Some(Place {
                    address,
                    moved: true,
                    ..
                }) => Err(OpenError::Store(format!(
                    "the blobs of this data folder are kept in {address}: start with --blobs {address}; to have them in a folder again, make a copy with `taskmaster store backup` and start on that"
                ))),
                // Nothing of what has been put there is wanted from there.
                _ => Ok(blobs),
            };
        };
        if let Some(Place {
            address: is,
            moved: true,
            ..
        }) = &known
            && *is != address.to_string()
        {
            return Err(OpenError::Store(format!(
                "the blobs of this data folder are kept in {is}, not in {address}; to have them there, make a copy with `taskmaster store backup` and start on that"
            )));
        }
        let home = Home::at(address).map_err(OpenError::Store)?;
        blobs.settle_in(home, data, known, cache_bytes)
    }

    fn settle_in(
        self,
        home: Home,
        data: &Path,
        known: Option<Place>,
        cache_bytes: u64,
    ) -> Result<Blobs, OpenError> {
        let here = known.filter(|place| place.moved || place.address == home.name());
        let is_new = here.is_none();
        let id = || uuid::Uuid::now_v7().to_string();
        let mut place = here.unwrap_or_else(|| Place {
            address: home.name().to_owned(),
            id: id(),
            moved: false,
        });
        match home.claim(&place.id, place.moved) {
            Ok(()) => {}
            Err(Claim::Away(_)) if place.moved => {
                tracing::warn!(
                    store = home.name(),
                    "the object store does not answer; blobs are refused until it does"
                );
            }
            Err(Claim::Away(why) | Claim::Refused(why)) => return Err(OpenError::Store(why)),
        }
        if !place.moved {
            if is_new {
                place.write(data)?;
            }
            self.move_into(&home)?;
            place.moved = true;
            place.write(data)?;
        }
        Ok(self.living_in(home, cache_bytes)?)
    }

    /// The blobs of `data`, for who looks at a store or changes it while no master runs.
    pub fn of(data: &Path) -> Result<Blobs, OpenError> {
        let blobs = Blobs::open(data)?;
        match Place::read(data)? {
            Some(Place {
                address,
                moved: true,
                ..
            }) => {
                let address = Address::parse(&address).map_err(OpenError::Store)?;
                let home = Home::at(&address).map_err(OpenError::Store)?;
                Ok(blobs.living_in(home, cache::CACHE_BYTES_DEFAULT)?)
            }
            _ => Ok(blobs),
        }
    }

    fn move_into(&self, home: &Home) -> Result<(), OpenError> {
        let files = cache::files(&self.root)?;
        if files.is_empty() {
            return Ok(());
        }
        tracing::info!(
            blobs = files.len(),
            store = home.name(),
            "the blobs of the data folder move"
        );
        for some in files.chunks(MOVED_AT_A_TIME) {
            let named = |(path, about): &(std::path::PathBuf, fs::Metadata)| {
                let hash = cache::hash_of(path)?;
                Some((hash, path.clone(), about.len()))
            };
            let some: Vec<_> = some.iter().filter_map(named).collect();
            let hashes: Vec<Hash> = some.iter().map(|(hash, ..)| *hash).collect();
            for ((hash, path, bytes), there) in some.into_iter().zip(home.has_all(&hashes)?) {
                if !there {
                    home.put(&hash, &path, bytes)?;
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use object_store::memory::InMemory;
    use object_store::path::Path as Key;
    use std::sync::Arc;

    fn home(store: &Arc<InMemory>, name: &str) -> Home {
        Home::over(store.clone(), Key::from("p"), name.into()).unwrap()
    }

    fn settled(data: &Path, store: &Arc<InMemory>) -> Result<Blobs, OpenError> {
        Blobs::open(data).unwrap().settle_in(
            home(store, "s3://b/p"),
            data,
            Place::read(data).unwrap(),
            1 << 30,
        )
    }

    #[test]
    fn what_is_in_the_folder_moves_and_the_folder_may_be_lost() {
        let (scratch, store) = (tempfile::tempdir().unwrap(), Arc::new(InMemory::new()));
        let local = Blobs::open(scratch.path()).unwrap();
        let (small, large) = (
            local.put(b"small").unwrap(),
            local.put(&vec![7; (20 << 20) + 1]).unwrap(),
        );
        let blobs = settled(scratch.path(), &store).unwrap();
        assert!(Place::read(scratch.path()).unwrap().unwrap().moved);
        drop(blobs);
        fs::remove_dir_all(scratch.path().join("blobs")).unwrap();
        let blobs = settled(scratch.path(), &store).unwrap();
        assert_eq!(blobs.get(&small).unwrap(), b"small");
        assert!(blobs.get(&large).unwrap() == vec![7; (20 << 20) + 1]);
    }

    #[test]
    fn a_move_that_was_cut_off_goes_on_and_one_that_is_over_is_not_undone_by_mistake() {
        let (scratch, store) = (tempfile::tempdir().unwrap(), Arc::new(InMemory::new()));
        let hash = Blobs::open(scratch.path()).unwrap().put(b"abc").unwrap();
        let place = Place {
            address: "s3://b/p".into(),
            id: "me".into(),
            moved: false,
        };
        place.write(scratch.path()).unwrap();
        home(&store, "s3://b/p").claim("me", false).unwrap();
        assert_eq!(
            Blobs::settle(scratch.path(), None, 0).unwrap().lives_in(),
            None,
            "it may stay where it is"
        );
        let blobs = settled(scratch.path(), &store).unwrap();
        assert!(blobs.renew(&hash).unwrap());
        assert_eq!(
            Place::read(scratch.path()).unwrap().unwrap(),
            Place {
                moved: true,
                ..place
            }
        );
        let told = Blobs::settle(scratch.path(), None, 0)
            .unwrap_err()
            .to_string();
        assert!(
            told.contains("--blobs s3://b/p") && told.contains("store backup"),
            "{told}"
        );
        let other = Address::parse("s3://other").unwrap();
        let told = Blobs::settle(scratch.path(), Some(&other), 0)
            .unwrap_err()
            .to_string();
        assert!(
            told.contains("kept in s3://b/p, not in s3://other"),
            "{told}"
        );
    }

    #[test]
    fn two_data_folders_do_not_share_a_place() {
        let (one, two, store) = (
            tempfile::tempdir().unwrap(),
            tempfile::tempdir().unwrap(),
            Arc::new(InMemory::new()),
        );
        settled(one.path(), &store).unwrap();
        let told = settled(two.path(), &store).unwrap_err().to_string();
        assert!(
            told.contains("another data folder") && told.contains("`owner`"),
            "{told}"
        );
        settled(one.path(), &store).unwrap();
    }

    #[test]
    fn a_spoilt_note_is_told() {
        let scratch = tempfile::tempdir().unwrap();
        fs::write(scratch.path().join("blob-store"), "s3://b\n").unwrap();
        assert!(
            Place::read(scratch.path())
                .unwrap_err()
                .to_string()
                .contains("is spoilt")
        );
    }
}
