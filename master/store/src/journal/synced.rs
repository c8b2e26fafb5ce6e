//! A file beside the store that holds the number of the last durable commit. The store alone cannot
//! know this number: sled reads a log whose end was damaged or cut off as a log that ends earlier,
//! and opens it without complaint.

use crate::kv::StoreError;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

/// The file's name. The file lies in the store's folder, so that whoever copies the folder copies
/// both.
const FILE_NAME: &str = "synced";

/// Decimal digits of the commit's number.
const DIGITS: usize = 20;

/// Bytes of the file: the digits, a space, the checksum in eight hexadecimal digits, a line end.
/// They are few enough that a disk writes them as a whole.
const FILE_BYTES: usize = DIGITS + 1 + 8 + 1;

/// The open file with the number of the last durable commit. The number is written after each sync
/// of the journal, and the file itself is not synced. After a power cut the number may be too low,
/// but it is never above what is durable.
#[derive(Debug)]
pub struct SyncedMark {
    path: PathBuf,
    file: File,
    /// Whether the last write failed. A series of failures is logged once.
    failing: bool,
}

impl SyncedMark {
    /// Opens the mark of the store in `folder`, or creates it. `end` is the number of the last
    /// commit in the store. A mark above `end` is an error, because then durable commits are
    /// missing. There is no mark in a new store, and where somebody has removed the file to go on
    /// with the commits that are left.
    pub fn open(folder: &Path, end: u64) -> Result<SyncedMark, StoreError> {
        let path = folder.join(FILE_NAME);
        let failed = |error: io::Error| StoreError::Failed(format!("{}: {error}", path.display()));
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(&path)
            .map_err(failed)?;

        let synced = read(&file).map_err(failed)?;
        if synced > end {
            return Err(StoreError::Cut {
                path: folder.display().to_string(),
                mark: path,
                end,
                synced,
            });
        }

        let mark = SyncedMark {
            path: path.clone(),
            file,
            failing: false,
        };
        // The old number is written again, because the journal's present end need not be durable
        // yet. This write gives the file its size, so that no later write needs free space.
        mark.write(synced)
            .and_then(|()| mark.file.sync_all())
            .map_err(failed)?;
        File::open(folder)
            .and_then(|folder| folder.sync_all())
            .map_err(failed)?;
        Ok(mark)
    }

    /// Notes that every commit up to `commit` is durable. A failed write is only logged.
    pub fn set(&mut self, commit: u64) {
        // A mark that is too low does no harm. It only overlooks a loss of newer commits.
        let written = self.write(commit);
        if let Err(error) = &written
            && !self.failing
        {
            tracing::warn!(path = %self.path.display(), %error, "how far the store is durable cannot be noted");
        }
        self.failing = written.is_err();
    }

    fn write(&self, commit: u64) -> io::Result<()> {
        self.file.write_all_at(&text(commit), 0)
    }
}

fn text(commit: u64) -> Vec<u8> {
    let digits = format!("{commit:0DIGITS$}");
    format!("{digits} {:08x}\n", crc32fast::hash(digits.as_bytes())).into_bytes()
}

/// The number in the file; 0 where the file is new. A damaged number is logged and read as 0, because
/// it must not keep a master from starting.
fn read(file: &File) -> io::Result<u64> {
    let mut bytes = [0; FILE_BYTES];
    match file.read_exact_at(&mut bytes, 0) {
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(0),
        read => read?,
    }
    let commit = std::str::from_utf8(&bytes[..DIGITS])
        .ok()
        .and_then(|digits| digits.parse().ok());
    let sound = commit.filter(|commit| text(*commit) == bytes);
    if sound.is_none() {
        tracing::warn!("the note of how far the store is durable is damaged, and is written anew");
    }
    Ok(sound.unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_journal_that_ends_before_its_mark_is_refused_until_the_mark_is_removed() {
        let folder = tempfile::tempdir().unwrap();
        let mut mark = SyncedMark::open(folder.path(), 3).unwrap();
        mark.set(7);
        mark.set(1_000);
        drop(mark);
        let refused = SyncedMark::open(folder.path(), 999).unwrap_err();
        let text = refused.to_string();
        for word in [
            "999",
            "1000",
            "Restore a copy",
            "synced",
            folder.path().to_str().unwrap(),
        ] {
            assert!(text.contains(word), "`{word}` is not in: {text}");
        }
        // Opening again is refused again, and a journal with all commits is accepted.
        assert_eq!(SyncedMark::open(folder.path(), 999).unwrap_err(), refused);
        drop(SyncedMark::open(folder.path(), 1_000).unwrap());
        std::fs::remove_file(folder.path().join(FILE_NAME)).unwrap();
        SyncedMark::open(folder.path(), 5).unwrap().set(5);
        assert!(SyncedMark::open(folder.path(), 4).is_err());
    }

    #[test]
    fn a_journal_that_is_longer_than_its_mark_does_not_move_it() {
        let folder = tempfile::tempdir().unwrap();
        SyncedMark::open(folder.path(), 3).unwrap().set(3);
        // Commits 4 to 9 are there and may not be durable, so a power cut may still remove them.
        drop(SyncedMark::open(folder.path(), 9).unwrap());
        drop(SyncedMark::open(folder.path(), 3).unwrap());
    }

    #[test]
    fn a_damaged_mark_keeps_nobody_from_starting() {
        let folder = tempfile::tempdir().unwrap();
        for text in [
            "",
            "x",
            "00000000000000009999 00000000\n",
            "\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0",
        ] {
            std::fs::write(folder.path().join(FILE_NAME), text).unwrap();
            SyncedMark::open(folder.path(), 2).unwrap().set(2);
            assert!(
                SyncedMark::open(folder.path(), 1).is_err(),
                "{text:?} was not written anew"
            );
        }
    }
}
