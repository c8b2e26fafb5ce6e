//! Reads a damaged store without sled, from sled's log file. sled gives up over a damaged page, or
//! takes the damaged place for the end of a segment and loses what lies behind. Here each message of
//! the log is read for itself, so that only the damaged ones are lost.
//!
//! A message says what a page of sled's tree is, or what is put into it or taken out of it. Messages
//! are replayed in the order of their log sequence numbers. Nothing is written.

mod message;

use super::{KeyValue, KvStore, StoreError, WriteBatch};
use message::{Change, Content, Place, SEGMENT_BYTES, Segment};
use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

/// Where the value of a key lies in the log.
#[derive(Debug, Clone, Copy)]
struct ValuePlace {
    /// The log sequence number of the message that has the value.
    lsn: u64,
    place: Place,
}

/// A leaf of sled's tree: values by the rest of their keys.
#[derive(Debug, Default)]
struct Leaf {
    /// What the keys of the page begin with.
    prefix: Vec<u8>,
    values: BTreeMap<Vec<u8>, ValuePlace>,
}

/// What can be read of a damaged store.
pub struct SalvagedStore {
    file: File,
    path: PathBuf,
    values: BTreeMap<Vec<u8>, ValuePlace>,
    /// Places of the file that are no sound message, where there should be one.
    pub damaged_places: u64,
}

impl SalvagedStore {
    /// Reads the log of the store in `folder`, as it was before sled opened it where that was kept.
    pub fn open(folder: &Path) -> Result<SalvagedStore, StoreError> {
        let kept = folder.join(KEPT);
        let path = if kept.is_file() {
            kept
        } else {
            folder.join("db")
        };
        let failed = |error: io::Error| StoreError::Failed(format!("{}: {error}", path.display()));
        let file = File::open(&path).map_err(failed)?;
        let mut replay = Replay::default();
        for segment in segments(&file).map_err(failed)? {
            let bytes = read_segment(&file, segment.offset).map_err(failed)?;
            replay.take_segment(&bytes, segment);
        }
        let damaged_places = replay.damaged_places;
        Ok(SalvagedStore {
            values: replay.finish(),
            damaged_places,
            file,
            path,
        })
    }

    fn read(&self, place: Place) -> Result<Vec<u8>, StoreError> {
        let mut bytes = vec![0; place.bytes];
        self.file
            .read_exact_at(&mut bytes, place.offset)
            .map_err(|error| StoreError::Failed(format!("{}: {error}", self.path.display())))?;
        Ok(bytes)
    }
}

/// The name of a copy of the log as it was before sled opened it.
const KEPT: &str = "db.before-opening";

/// Keeps a copy of the log in `folder`, where sled would change what is still sound in it. Where the
/// newest part of the log has a hole, sled takes the hole for the end of the log and overwrites what
/// lies behind. After a power cut that is right, because what lies behind was never synced; where a
/// disk has changed a byte, it is the loss of everything behind. Only the content tells which it was.
pub fn keep_before_opening(folder: &Path) -> io::Result<()> {
    let log = folder.join("db");
    let kept = folder.join(KEPT);
    if !log.is_file() || kept.exists() || !has_hole(folder, &File::open(&log)?)? {
        return Ok(());
    }
    let unfinished = folder.join("db.copying");
    std::fs::copy(&log, &unfinished)?;
    std::fs::rename(unfinished, kept)
}

/// Removes the copy, because the store turned out to be whole.
pub fn forget_kept(folder: &Path) {
    // There seldom is one.
    let _ = std::fs::remove_file(folder.join(KEPT));
}

/// Whether sound messages lie behind a damaged place, in the part of the log that sled reads when it
/// opens the store: that which is newer than its snapshot.
fn has_hole(folder: &Path, file: &File) -> io::Result<bool> {
    let mut first = 0;
    for entry in std::fs::read_dir(folder)? {
        let name = entry?.file_name();
        let lsn = name.to_str().and_then(|name| name.strip_prefix("snap."));
        let lsn = lsn.and_then(|lsn| u64::from_str_radix(lsn, 16).ok());
        first = first.max(lsn.unwrap_or(0) / SEGMENT_BYTES as u64);
    }
    for segment in segments(file)? {
        if segment.number < first {
            continue;
        }
        // sled does not see a segment without a sound head at all.
        let has_head = read_number(file, segment.offset)?.is_some();
        let bytes = read_segment(file, segment.offset)?;
        if !has_head || message::walk(&bytes, segment).damaged_places > 0 {
            return Ok(true);
        }
    }
    Ok(false)
}

/// The segments of the file in the order in which they were written. A segment whose head is damaged
/// has the number that its messages name.
fn segments(file: &File) -> io::Result<Vec<Segment>> {
    let length = file.metadata()?.len();
    let mut found = Vec::new();
    for offset in (0..length).step_by(SEGMENT_BYTES) {
        let number = match read_number(file, offset)? {
            Some(number) => Some(number),
            None => message::number_in_messages(&read_segment(file, offset)?),
        };
        if let Some(number) = number {
            found.push(Segment { number, offset });
        }
    }
    found.sort_unstable_by_key(|segment| segment.number);
    Ok(found)
}

/// The number in the head of a segment; `None` where there is no sound head.
fn read_number(file: &File, offset: u64) -> io::Result<Option<u64>> {
    let mut head = [0; message::SEGMENT_HEAD_BYTES];
    let read = file.read_at(&mut head, offset)?;
    Ok(message::number_in_head(&head[..read]))
}

/// The bytes of a segment; fewer where the file ends within it.
fn read_segment(file: &File, offset: u64) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; SEGMENT_BYTES];
    let mut read = 0;
    while read < bytes.len() {
        match file.read_at(&mut bytes[read..], offset + read as u64)? {
            0 => break,
            count => read += count,
        }
    }
    bytes.truncate(read);
    Ok(bytes)
}

/// The pages of the tree while messages are replayed.
#[derive(Default)]
struct Replay {
    leaves: HashMap<u64, Leaf>,
    damaged_places: u64,
}

impl Replay {
    fn take_segment(&mut self, bytes: &[u8], segment: Segment) {
        let walk = message::walk(bytes, segment);
        self.damaged_places += walk.damaged_places;
        for message in walk.messages {
            let lsn = message.lsn;
            match message.change {
                Change::Page(Content::Leaf { prefix, values }) => {
                    let values = values
                        .into_iter()
                        .map(|(key, place)| (key, ValuePlace { lsn, place }));
                    let leaf = Leaf {
                        prefix,
                        values: values.collect(),
                    };
                    self.leaves.insert(message.page, leaf);
                }
                Change::Page(Content::Other) | Change::Freed => {
                    self.leaves.remove(&message.page);
                }
                // Where the page itself is lost, nobody knows what its keys begin with.
                Change::Set { key, place } => {
                    if let Some(leaf) = self.leaves.get_mut(&message.page) {
                        leaf.values.insert(key, ValuePlace { lsn, place });
                    }
                }
                Change::Removed { key } => {
                    if let Some(leaf) = self.leaves.get_mut(&message.page) {
                        leaf.values.remove(&key);
                    }
                }
                Change::Nothing => {}
            }
        }
    }

    /// All values by their whole keys. A page that was split or merged may still have an older value
    /// of a key, where the newer state of the page is lost.
    fn finish(self) -> BTreeMap<Vec<u8>, ValuePlace> {
        let mut all: BTreeMap<Vec<u8>, ValuePlace> = BTreeMap::new();
        for Leaf { prefix, values } in self.leaves.into_values() {
            for (rest, found) in values {
                let key = [prefix.as_slice(), rest.as_slice()].concat();
                let newest = all.entry(key).or_insert(found);
                if newest.lsn < found.lsn {
                    *newest = found;
                }
            }
        }
        all
    }
}

impl KvStore for SalvagedStore {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        self.values
            .get(key)
            .map(|found| self.read(found.place))
            .transpose()
    }

    fn scan(
        &self,
        from: &[u8],
        to: &[u8],
        reversed: bool,
        limit: usize,
    ) -> Result<Vec<KeyValue>, StoreError> {
        if from >= to {
            return Ok(Vec::new());
        }
        let read = |(key, found): (&Vec<u8>, &ValuePlace)| {
            Ok(KeyValue {
                key: key.clone(),
                value: self.read(found.place)?,
            })
        };
        let range = self.values.range(from.to_vec()..to.to_vec());
        if reversed {
            range.rev().take(limit).map(read).collect()
        } else {
            range.take(limit).map(read).collect()
        }
    }

    fn write(&self, _batch: WriteBatch) -> Result<(), StoreError> {
        Err(read_only())
    }

    fn sync(&self) -> Result<(), StoreError> {
        Err(read_only())
    }
}

fn read_only() -> StoreError {
    StoreError::Failed("a damaged store is only read".into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kv::sled::{SledStore, wait_until_unlocked};

    /// A store with many small values, of which some were written again and some removed.
    fn written(folder: &Path) -> BTreeMap<Vec<u8>, Vec<u8>> {
        let store = SledStore::open(folder).unwrap();
        let mut wanted = BTreeMap::new();
        for round in 0..40u32 {
            let mut batch = WriteBatch::default();
            for n in 0..50u32 {
                let number = (round * 37 + n * 11) % 900;
                let key = format!("key-{number:05}").into_bytes();
                if (round + n) % 5 == 0 {
                    wanted.remove(&key);
                    batch.remove(key);
                } else {
                    let value = format!("{round} {n} ")
                        .repeat(1 + n as usize * 4)
                        .into_bytes();
                    wanted.insert(key.clone(), value.clone());
                    batch.put(key, value);
                }
            }
            store.write(batch).unwrap();
        }
        store.sync().unwrap();
        drop(store);
        wait_until_unlocked(&folder.join("db")).unwrap();
        wanted
    }

    fn all(store: &dyn KvStore) -> BTreeMap<Vec<u8>, Vec<u8>> {
        let pairs = store.scan(b"", &[0xff], false, usize::MAX).unwrap();
        pairs
            .into_iter()
            .map(|pair| (pair.key, pair.value))
            .collect()
    }

    #[test]
    fn a_sound_store_is_read_as_sled_reads_it() {
        let scratch = tempfile::tempdir().unwrap();
        let folder = scratch.path().join("store");
        let wanted = written(&folder);
        let salvaged = SalvagedStore::open(&folder).unwrap();
        assert!(all(&salvaged) == wanted, "{} values", wanted.len());
        assert_eq!(salvaged.damaged_places, 0);
        let some = salvaged.scan(b"key-001", b"key-002", true, 3).unwrap();
        let same: Vec<_> = wanted
            .range(b"key-001".to_vec()..b"key-002".to_vec())
            .rev()
            .take(3)
            .map(|(key, value)| KeyValue {
                key: key.clone(),
                value: value.clone(),
            })
            .collect();
        assert_eq!(some, same);
        assert!(salvaged.write(WriteBatch::default()).is_err());
    }

    #[test]
    fn a_flipped_bit_costs_no_more_than_the_values_of_a_page() {
        let scratch = tempfile::tempdir().unwrap();
        let folder = scratch.path().join("store");
        let wanted = written(&folder);
        let db = folder.join("db");
        let whole = std::fs::read(&db).unwrap();
        let used = whole.iter().rposition(|byte| *byte != 0).unwrap();
        for at in (0..used).step_by(used / 200) {
            let mut bytes = whole.clone();
            bytes[at] ^= 16;
            std::fs::write(&db, &bytes).unwrap();
            let left = all(&SalvagedStore::open(&folder).unwrap());
            let sound = wanted
                .iter()
                .filter(|(key, value)| left.get(*key) == Some(value));
            let sound = sound.count();
            assert!(
                sound * 10 > wanted.len() * 7,
                "at {at}: {sound} of {}",
                wanted.len()
            );
        }
        // Half of the file is gone.
        std::fs::write(&db, &whole[..used / 2]).unwrap();
        assert!(!all(&SalvagedStore::open(&folder).unwrap()).is_empty());
    }
}
