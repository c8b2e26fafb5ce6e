//! How far the journal was durable, told beside the store. The store alone cannot know: to sled, a
//! log whose end was damaged or cut off is one that ends earlier, and it opens as if what followed
//! had never been.

use crate::kv::StoreError;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

/// In the store's folder, so that whoever copies that copies both.
const NAME: &str = "synced";

/// The number of a commit, in decimal digits as people read them, and its checksum. Small enough
/// that a disk writes it as a whole.
const BYTES: usize = 20 + 1 + 8 + 1;

/// The mark of a store. Written after each sync and not synced itself: after a power cut it may be
/// old, but it is never ahead of what is durable.
#[derive(Debug)]
pub struct SyncedMark {
    path: PathBuf,
    file: File,
    /// A write failed; it was said.
    failing: bool,
}

impl SyncedMark {
    /// Compares the mark in `folder` with the last commit that is there, `end`, and goes on from
    /// it. A store without a mark is one of an earlier release, or somebody has removed it to go on
    /// with what is left.
    pub fn open(folder: &Path, end: u64) -> Result<SyncedMark, StoreError> {
        let path = folder.join(NAME);
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
        // What it was: the journal's present end need not be durable yet. With this write the file
        // has its size, and no later one needs room on the disk.
        mark.write(synced)
            .and_then(|()| mark.file.sync_all())
            .map_err(failed)?;
        File::open(folder)
            .and_then(|folder| folder.sync_all())
            .map_err(failed)?;
        Ok(mark)
    }

    /// Every commit up to this one is durable.
    pub fn set(&mut self, commit: u64) {
        // An old mark harms nobody: it notices less.
        let written = self.write(commit);
        if let (Err(error), false) = (&written, self.failing) {
            tracing::warn!(path = %self.path.display(), %error, "how far the store is durable cannot be noted");
        }
        self.failing = written.is_err();
    }

    fn write(&self, commit: u64) -> io::Result<()> {
        self.file.write_all_at(&text(commit), 0)
    }
}

fn text(commit: u64) -> Vec<u8> {
    let digits = format!("{commit:020}");
    format!("{digits} {:08x}\n", crc32fast::hash(digits.as_bytes())).into_bytes()
}

/// 0 where there is none, or none that can be trusted: that is told, and keeps nobody from
/// starting.
fn read(file: &File) -> io::Result<u64> {
    let mut bytes = [0; BYTES];
    match file.read_exact_at(&mut bytes, 0) {
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(0),
        read => read?,
    }
    let commit = std::str::from_utf8(&bytes[..20])
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
        let said = refused.to_string();
        for word in [
            "999",
            "1000",
            "Restore a copy",
            "synced",
            folder.path().to_str().unwrap(),
        ] {
            assert!(said.contains(word), "`{word}` is not in: {said}");
        }
        // It is refused again, and a journal that has all of it is taken.
        assert_eq!(SyncedMark::open(folder.path(), 999).unwrap_err(), refused);
        drop(SyncedMark::open(folder.path(), 1_000).unwrap());
        std::fs::remove_file(folder.path().join(NAME)).unwrap();
        SyncedMark::open(folder.path(), 5).unwrap().set(5);
        assert!(SyncedMark::open(folder.path(), 4).is_err());
    }

    #[test]
    fn a_journal_that_is_longer_than_its_mark_does_not_move_it() {
        let folder = tempfile::tempdir().unwrap();
        SyncedMark::open(folder.path(), 3).unwrap().set(3);
        // Commits 4 to 9 are there and may not be durable: a power cut may take them yet.
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
            std::fs::write(folder.path().join(NAME), text).unwrap();
            SyncedMark::open(folder.path(), 2).unwrap().set(2);
            assert!(
                SyncedMark::open(folder.path(), 1).is_err(),
                "{text:?} was not written anew"
            );
        }
    }
}
