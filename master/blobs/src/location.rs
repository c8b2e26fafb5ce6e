//! Where the blobs of a data folder live: in the folder, or in the bucket that `<data>/blob-store`
//! names. That is decided once. Blobs that are in the folder at that time are moved to the bucket
//! before the master accepts anything.

use crate::bucket::BucketStore;
use crate::cache::{self, BlobFile, CACHE_BYTES_DEFAULT};
use crate::errors::{ClaimError, OpenError};
use crate::{Blobs, BucketAddress, sync_folder};
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::Path;
use taskmaster_protocol::Hash;

/// Blobs that are moved to a bucket at a time.
const MOVE_BATCH: usize = 1_000;

/// What `<data>/blob-store` says, in three lines.
#[derive(Debug, Clone, PartialEq, Eq)]
struct BlobLocation {
    /// The bucket's address.
    address: String,
    /// The name by which the bucket knows this data folder.
    id: String,
    /// Whether all blobs of the folder are in the bucket.
    moved: bool,
}

impl BlobLocation {
    fn read(data: &Path) -> io::Result<Option<BlobLocation>> {
        let path = data.join("blob-store");
        let text = match fs::read_to_string(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            read => read?,
        };
        let mut lines = text.lines().map(str::to_owned);
        match (lines.next(), lines.next(), lines.next().as_deref()) {
            (Some(address), Some(id), Some(state @ ("moving" | "moved"))) => {
                Ok(Some(BlobLocation {
                    address,
                    id,
                    moved: state == "moved",
                }))
            }
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

    /// The bucket of this data folder, once all blobs are in it.
    fn moved_to(known: Option<&BlobLocation>) -> Option<&str> {
        known
            .filter(|location| location.moved)
            .map(|location| location.address.as_str())
    }
}

impl Blobs {
    /// The blobs of `data` for a master: in the bucket at `wanted`, or in the folder. Blobs of the
    /// folder are moved to the bucket where they have not been yet. Of a bucket's blobs at most
    /// `cache_bytes` stay in the folder.
    pub fn open_for_master(
        data: &Path,
        wanted: Option<&BucketAddress>,
        cache_bytes: u64,
    ) -> Result<Blobs, OpenError> {
        let blobs = Blobs::open(data)?;
        let known = BlobLocation::read(data)?;
        let moved_to = BlobLocation::moved_to(known.as_ref());
        match (wanted, moved_to) {
            // A move that did not end is given up: all blobs are still in the folder.
            (None, None) => Ok(blobs),
            (None, Some(is)) => Err(OpenError::InBucket(is.to_owned())),
            (Some(wanted), Some(is)) if wanted.to_string() != is => Err(OpenError::InOtherBucket {
                is: is.to_owned(),
                wanted: wanted.to_string(),
            }),
            (Some(wanted), _) => {
                let store = BucketStore::at(wanted)?;
                blobs.open_in_bucket(store, data, known, cache_bytes)
            }
        }
    }

    fn open_in_bucket(
        self,
        store: BucketStore,
        data: &Path,
        known: Option<BlobLocation>,
        cache_bytes: u64,
    ) -> Result<Blobs, OpenError> {
        let known = known.filter(|known| known.moved || known.address == store.name());
        let is_new = known.is_none();
        let mut location = known.unwrap_or_else(|| BlobLocation {
            address: store.name().to_owned(),
            id: uuid::Uuid::now_v7().to_string(),
            moved: false,
        });

        match store.claim(&location.id, location.moved) {
            Ok(()) => {}
            Err(ClaimError::Unavailable(_)) if location.moved => {
                tracing::warn!(
                    store = store.name(),
                    "the object store does not answer; blobs are refused until it does"
                );
            }
            Err(error) => return Err(error.into()),
        }
        if !location.moved {
            if is_new {
                location.write(data)?;
            }
            self.move_to(&store)?;
            location.moved = true;
            location.write(data)?;
        }
        Ok(self.with_bucket(store, cache_bytes)?)
    }

    /// The blobs of `data` for a command that works on a store while no master runs.
    pub fn open_for_upkeep(data: &Path) -> Result<Blobs, OpenError> {
        let blobs = Blobs::open(data)?;
        let known = BlobLocation::read(data)?;
        let Some(address) = BlobLocation::moved_to(known.as_ref()) else {
            return Ok(blobs);
        };
        let store = BucketStore::at(&BucketAddress::parse(address)?)?;
        Ok(blobs.with_bucket(store, CACHE_BYTES_DEFAULT)?)
    }

    fn move_to(&self, store: &BucketStore) -> io::Result<()> {
        let files = cache::blob_files(&self.root)?;
        if files.is_empty() {
            return Ok(());
        }
        tracing::info!(
            blobs = files.len(),
            store = store.name(),
            "the blobs of the data folder move"
        );
        for batch in files.chunks(MOVE_BATCH) {
            move_batch(batch, store)?;
        }
        Ok(())
    }
}

fn move_batch(files: &[BlobFile], store: &BucketStore) -> io::Result<()> {
    let blobs: Vec<(Hash, &BlobFile)> = files
        .iter()
        .filter_map(|file| Some((file.hash()?, file)))
        .collect();
    let hashes: Vec<Hash> = blobs.iter().map(|(hash, _)| *hash).collect();
    let is_there = store.has_all(&hashes)?;
    for ((hash, file), is_there) in blobs.into_iter().zip(is_there) {
        if !is_there {
            store.put(&hash, &file.path, file.metadata.len())?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use object_store::memory::InMemory;
    use object_store::path::Path as Key;
    use std::sync::Arc;

    fn bucket(store: &Arc<InMemory>, name: &str) -> BucketStore {
        BucketStore::with_client(store.clone(), Key::from("p"), name.into()).unwrap()
    }

    fn opened(data: &Path, store: &Arc<InMemory>) -> Result<Blobs, OpenError> {
        Blobs::open(data).unwrap().open_in_bucket(
            bucket(store, "s3://b/p"),
            data,
            BlobLocation::read(data).unwrap(),
            1 << 30,
        )
    }

    #[test]
    fn what_is_in_the_folder_moves_and_the_folder_may_be_lost() {
        let scratch = tempfile::tempdir().unwrap();
        let store = Arc::new(InMemory::new());
        let local = Blobs::open(scratch.path()).unwrap();
        let small = local.put(b"small").unwrap();
        let large = local.put(&vec![7; (20 << 20) + 1]).unwrap();
        let blobs = opened(scratch.path(), &store).unwrap();
        assert!(BlobLocation::read(scratch.path()).unwrap().unwrap().moved);
        drop(blobs);
        fs::remove_dir_all(scratch.path().join("blobs")).unwrap();
        let blobs = opened(scratch.path(), &store).unwrap();
        assert_eq!(blobs.get(&small).unwrap(), b"small");
        assert!(blobs.get(&large).unwrap() == vec![7; (20 << 20) + 1]);
    }

    #[test]
    fn a_move_that_was_cut_off_goes_on_and_one_that_is_over_is_not_undone_by_mistake() {
        let scratch = tempfile::tempdir().unwrap();
        let store = Arc::new(InMemory::new());
        let hash = Blobs::open(scratch.path()).unwrap().put(b"abc").unwrap();
        let location = BlobLocation {
            address: "s3://b/p".into(),
            id: "me".into(),
            moved: false,
        };
        location.write(scratch.path()).unwrap();
        bucket(&store, "s3://b/p").claim("me", false).unwrap();
        let in_folder = Blobs::open_for_master(scratch.path(), None, 0).unwrap();
        assert_eq!(in_folder.bucket_name(), None, "it may stay where it is");
        let blobs = opened(scratch.path(), &store).unwrap();
        assert!(blobs.renew(&hash).unwrap());
        assert_eq!(
            BlobLocation::read(scratch.path()).unwrap().unwrap(),
            BlobLocation {
                moved: true,
                ..location
            }
        );
        let told = Blobs::open_for_master(scratch.path(), None, 0)
            .unwrap_err()
            .to_string();
        assert!(
            told.contains("--blobs s3://b/p") && told.contains("store backup"),
            "{told}"
        );
        let other = BucketAddress::parse("s3://other").unwrap();
        let told = Blobs::open_for_master(scratch.path(), Some(&other), 0)
            .unwrap_err()
            .to_string();
        assert!(
            told.contains("kept in s3://b/p, not in s3://other"),
            "{told}"
        );
    }

    #[test]
    fn two_data_folders_do_not_share_a_bucket() {
        let one = tempfile::tempdir().unwrap();
        let two = tempfile::tempdir().unwrap();
        let store = Arc::new(InMemory::new());
        opened(one.path(), &store).unwrap();
        let told = opened(two.path(), &store).unwrap_err().to_string();
        assert!(
            told.contains("another data folder") && told.contains("`owner`"),
            "{told}"
        );
        opened(one.path(), &store).unwrap();
    }

    #[test]
    fn a_spoilt_location_is_told() {
        let scratch = tempfile::tempdir().unwrap();
        fs::write(scratch.path().join("blob-store"), "s3://b\n").unwrap();
        assert!(
            BlobLocation::read(scratch.path())
                .unwrap_err()
                .to_string()
                .contains("is spoilt")
        );
    }
}
