//! A backup on its way from a running master to whoever asked for it.
//!
//! The stream is a line with its format, and then frames: a letter and what the letter says.
//!
//! - `C`, eight bytes: the last commit that the copy has. It is the first frame.
//! - `P`, two and four bytes with lengths, a key, a value: a pair of the store.
//! - `B`, a hash, eight bytes with a length, bytes: a blob.
//! - `E`, eight bytes each: the numbers of pairs and of blobs. Without it the stream is cut off.
//!
//! Numbers are big-endian.

use super::folder::BackupFolder;
use super::{BackupSummary, each_pair};
use crate::upkeep::UpkeepError;
use std::io::{self, BufRead, BufReader, BufWriter, Read, Seek, Write};
use std::path::Path;
use taskmaster_blobs::Blobs;
use taskmaster_protocol::Hash;
use taskmaster_store::journal;
use taskmaster_store::kv::{KeyValue, SharedStore, StoreError};

/// The first line.
const FORMAT_LINE: &[u8] = b"taskmaster backup 1\n";

/// The largest value that is taken, bytes. Values of the store are far below.
const VALUE_BYTES_MAX: usize = 1 << 20;

/// Why a backup cannot be sent.
#[derive(Debug, thiserror::Error)]
pub enum SendError {
    /// The store cannot be read.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The stream or a file cannot be written, or a blob cannot be read.
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// The pairs of a store, set aside so that the store need not stand still while they are sent.
pub struct SetAside {
    file: std::fs::File,
    pairs: u64,
}

/// Writes the pairs of the store into a file without a name. Nobody may fold meanwhile, so that the
/// view does not change; commits go on. `is_too_full` ends it where the disk gets full.
pub fn set_aside(
    store: &SharedStore,
    blobs: &Blobs,
    is_too_full: &dyn Fn() -> bool,
) -> Result<SetAside, SendError> {
    let commit = journal::last(store)?;
    let file = blobs.scratch_file()?;
    let mut out = BufWriter::new(&file);
    out.write_all(FORMAT_LINE)?;
    out.write_all(b"C")?;
    out.write_all(&commit.to_be_bytes())?;
    let mut pairs = 0;
    each_pair(store.as_ref(), commit, &mut |pair| {
        pairs += 1;
        if pairs % 1_000 == 0 && is_too_full() {
            let why = "there is too little room on the master's disk for a backup";
            return Err(SendError::Io(io::Error::other(why)));
        }
        Ok(write_pair(&mut out, &pair)?)
    })?;
    out.flush()?;
    drop(out);
    Ok(SetAside { file, pairs })
}

fn write_pair(out: &mut dyn Write, KeyValue { key, value }: &KeyValue) -> io::Result<()> {
    let too_long = |_| io::Error::other("a key or a value is too long for a backup");
    out.write_all(b"P")?;
    out.write_all(&u16::try_from(key.len()).map_err(too_long)?.to_be_bytes())?;
    out.write_all(&u32::try_from(value.len()).map_err(too_long)?.to_be_bytes())?;
    out.write_all(key)?;
    out.write_all(value)
}

/// Sends what was set aside, and all blobs. No blob may be removed meanwhile.
pub fn send(set_aside: SetAside, blobs: &Blobs, out: &mut dyn Write) -> Result<(), SendError> {
    let SetAside { mut file, pairs } = set_aside;
    file.rewind()?;
    io::copy(&mut file, out)?;
    let hashes = blobs.all()?;
    for hash in &hashes {
        let file = blobs.file(hash)?;
        let length = file.metadata()?.len();
        out.write_all(b"B")?;
        out.write_all(&hash.0)?;
        out.write_all(&length.to_be_bytes())?;
        if io::copy(&mut file.take(length), out)? != length {
            return Err(io::Error::other(format!("blob {hash} is shorter than it was")).into());
        }
    }
    out.write_all(b"E")?;
    out.write_all(&pairs.to_be_bytes())?;
    out.write_all(&(hashes.len() as u64).to_be_bytes())?;
    Ok(out.flush()?)
}

/// Writes the backup that a stream brings into the folder `to`, which must be empty or not exist.
pub fn receive(from: &mut dyn Read, to: &Path) -> Result<BackupSummary, UpkeepError> {
    let mut folder = BackupFolder::begin(to)?;
    let mut from = BufReader::new(from);
    let mut first = [0; FORMAT_LINE.len()];
    read(&mut from, &mut first)?;
    if first != FORMAT_LINE {
        return Err(UpkeepError::Stream(
            "it is no backup that this program can read; both sides should have one version".into(),
        ));
    }
    let mut commit = None;
    let mut counted = Counted::default();
    loop {
        let mut kind = [0];
        read(&mut from, &mut kind)?;
        match (kind[0], commit) {
            (b'C', None) => commit = Some(u64::from_be_bytes(array(&mut from)?)),
            (b'P', Some(_)) => {
                folder.pair(read_pair(&mut from)?)?;
                counted.pairs += 1;
            }
            (b'B', Some(_)) => {
                let hash = Hash(array(&mut from)?);
                let length = u64::from_be_bytes(array(&mut from)?);
                let mut bytes = (&mut from).take(length);
                let kept = folder.blob(hash, &mut bytes);
                let is_short = bytes.limit() > 0;
                if is_short && from.fill_buf().is_ok_and(<[u8]>::is_empty) {
                    return Err(cut_off());
                }
                kept?;
                counted.blobs += 1;
            }
            (b'E', Some(commit)) => {
                let pairs = u64::from_be_bytes(array(&mut from)?);
                let blobs = u64::from_be_bytes(array(&mut from)?);
                if counted != (Counted { pairs, blobs }) {
                    return Err(UpkeepError::Stream("parts of it are missing".into()));
                }
                return folder.finish(commit);
            }
            _ => return Err(UpkeepError::Stream("it is garbled".into())),
        }
    }
}

/// What has come so far.
#[derive(Default, PartialEq, Eq)]
struct Counted {
    pairs: u64,
    blobs: u64,
}

fn cut_off() -> UpkeepError {
    UpkeepError::Stream("it was cut off".into())
}

fn read(from: &mut dyn Read, bytes: &mut [u8]) -> Result<(), UpkeepError> {
    from.read_exact(bytes).map_err(|error| match error.kind() {
        io::ErrorKind::UnexpectedEof => cut_off(),
        _ => UpkeepError::Stream(error.to_string()),
    })
}

fn array<const N: usize>(from: &mut dyn Read) -> Result<[u8; N], UpkeepError> {
    let mut bytes = [0; N];
    read(from, &mut bytes)?;
    Ok(bytes)
}

fn read_pair(from: &mut dyn Read) -> Result<KeyValue, UpkeepError> {
    let key_bytes = usize::from(u16::from_be_bytes(array(from)?));
    let value_bytes = u32::from_be_bytes(array(from)?) as usize;
    if value_bytes > VALUE_BYTES_MAX {
        return Err(UpkeepError::Stream("it is garbled".into()));
    }
    let mut key = vec![0; key_bytes];
    read(from, &mut key)?;
    let mut value = vec![0; value_bytes];
    read(from, &mut value)?;
    Ok(KeyValue { key, value })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::upkeep::{NewStore, OpenStore};
    use std::os::unix::fs::PermissionsExt;
    use taskmaster_store::kv::WriteBatch;

    /// The stream of a small store with two blobs.
    fn stream(scratch: &Path) -> Vec<u8> {
        let data = scratch.join("data");
        NewStore::begin(&data).unwrap().finish().unwrap();
        let opened = OpenStore::open(&data).unwrap();
        let mut batch = WriteBatch::default();
        for n in 0..300u16 {
            batch.put(n.to_be_bytes().to_vec(), vec![7; usize::from(n) * 10]);
        }
        opened.store.write(batch).unwrap();
        let blobs = Blobs::open(&data).unwrap();
        blobs.put(b"").unwrap();
        blobs.put(&vec![9; 700_000]).unwrap();
        let aside = set_aside(&opened.store, &blobs, &|| false).unwrap();
        let mut sent = Vec::new();
        send(aside, &blobs, &mut sent).unwrap();
        assert!(
            set_aside(&opened.store, &blobs, &|| true).is_ok(),
            "too few pairs to look"
        );
        sent
    }

    #[test]
    fn a_stream_becomes_a_private_folder_with_everything() {
        let scratch = tempfile::tempdir().unwrap();
        let sent = stream(scratch.path());
        let to = scratch.path().join("copies/monday");
        let summary = receive(&mut sent.as_slice(), &to).unwrap();
        assert_eq!(
            (summary.records, summary.blobs, summary.commit),
            (300, 2, 0)
        );
        let mode = to.metadata().unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o700);
        assert!(!scratch.path().join("copies/monday.unfinished").exists());
        let copy = OpenStore::open(&to).unwrap();
        assert_eq!(
            copy.store
                .get(&299u16.to_be_bytes())
                .unwrap()
                .unwrap()
                .len(),
            2_990
        );
        let blobs = Blobs::open(&to).unwrap();
        assert_eq!(
            blobs.get(&Hash::of(&vec![9; 700_000])).unwrap().len(),
            700_000
        );
        let again = receive(&mut sent.as_slice(), &to).unwrap_err().to_string();
        assert!(again.contains("is not empty"), "{again}");
    }

    #[test]
    fn half_a_stream_or_a_spoilt_one_leaves_nothing() {
        let scratch = tempfile::tempdir().unwrap();
        let sent = stream(scratch.path());
        let to = scratch.path().join("copy");
        std::fs::create_dir(&to).unwrap();
        let blob = sent.len() - 700_000;
        let refused = |bytes: &[u8], word: &str| {
            let told = receive(&mut &*bytes, &to).unwrap_err().to_string();
            assert!(told.contains(word), "{word}: {told}");
            assert!(to.read_dir().unwrap().next().is_none(), "{word}");
            assert!(!scratch.path().join("copy.unfinished").exists(), "{word}");
        };
        for cut in [0, 5, 25, 1_000, blob, sent.len() - 1] {
            refused(&sent[..cut], "cut off");
        }
        let spoilt = |at: usize, word: &str| {
            let mut bytes = sent.clone();
            bytes[at] ^= 1;
            refused(&bytes, word);
        };
        spoilt(3, "no backup");
        spoilt(FORMAT_LINE.len(), "garbled");
        spoilt(blob + 5, "blob");
        spoilt(sent.len() - 1, "missing");
    }
}
