//! Bytes by their hash, on this machine's disk: `<data>/blobs/ab/abcdef…`. A file is there whole and synced, or not
//! at all: it is written under a temporary name, synced, renamed, and its folder is synced.

pub mod upload;

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard};
use std::time::{Duration, SystemTime};
use taskmaster_protocol::Hash;
pub use upload::{PutError, Upload};

/// A blob that was put, or asked for by who is about to name it, is not removed for so long: until then the task that
/// names it has been added, or never will be. A feed that holds lines back for longer puts their inputs again.
pub const GRACE: Duration = Duration::from_secs(3_600);

/// The blob folder. Clones share it.
#[derive(Debug, Clone)]
pub struct Blobs {
    root: Arc<Path>,
    /// Numbers the temporary files of this process.
    next: Arc<AtomicU64>,
    /// Taken alone to remove a blob, shared to say that one is needed: between "it is there" and "it is needed" nobody
    /// removes it.
    removing: Arc<RwLock<()>>,
    /// See [`GRACE`].
    grace: Duration,
}

impl Blobs {
    /// Opens `<data>/blobs`, makes it where it is missing, and sees to what a crash left unfinished.
    pub fn open(data: &Path) -> io::Result<Blobs> {
        let root = data.join("blobs");
        fs::create_dir_all(&root)?;
        sync_folder(data)?;
        let blobs = Blobs { root: root.into(), next: Arc::default(), removing: Arc::default(), grace: GRACE };
        blobs.tidy_up()?;
        Ok(blobs)
    }

    /// The same with another time than [`GRACE`].
    pub fn sparing(self, grace: Duration) -> Blobs {
        Blobs { grace, ..self }
    }

    /// See [`GRACE`].
    pub fn grace(&self) -> Duration {
        self.grace
    }

    /// Whether a data folder holds blobs.
    pub fn any(data: &Path) -> bool {
        let is_folder = |entry: io::Result<fs::DirEntry>| entry.is_ok_and(|entry| entry.path().is_dir());
        fs::read_dir(data.join("blobs")).is_ok_and(|mut entries| entries.any(is_folder))
    }

    /// The data folder in which the blob folder is.
    pub fn data(&self) -> &Path {
        self.root.parent().unwrap_or(&self.root)
    }

    /// Where the blob is, whether it exists or not.
    pub fn path(&self, hash: &Hash) -> PathBuf {
        let name = hash.to_string();
        self.root.join(name.get(..2).unwrap_or_default()).join(name)
    }

    /// Whether the blob is there.
    pub fn exists(&self, hash: &Hash) -> bool {
        self.path(hash).is_file()
    }

    /// The whole blob.
    pub fn get(&self, hash: &Hash) -> io::Result<Vec<u8>> {
        fs::read(self.path(hash))
    }

    /// Keeps `bytes` durably under their hash. Nothing is written where they are there already.
    pub fn put(&self, bytes: &[u8]) -> io::Result<Hash> {
        let hash = Hash::of(bytes);
        self.put_hashed(hash, bytes)?;
        Ok(hash)
    }

    /// Like [`Blobs::put`], for bytes that the caller has hashed: a large module is hashed once.
    pub fn put_hashed(&self, hash: Hash, bytes: &[u8]) -> io::Result<()> {
        if self.renew(&hash)? {
            return Ok(());
        }
        let mut upload = self.begin()?;
        upload.append(bytes)?;
        upload.keep(hash)
    }

    fn stand(&self) -> RwLockReadGuard<'_, ()> {
        self.removing.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether the blob is there; if so, it is not removed within half of [`GRACE`], so that it can be named.
    pub fn renew(&self, hash: &Hash) -> io::Result<bool> {
        let _standing = self.stand();
        let path = self.path(hash);
        let modified = match fs::metadata(&path) {
            Ok(about) => about.modified()?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
            Err(error) => return Err(error),
        };
        // Half of it, so that what many tasks share is not touched for each of them.
        if modified.elapsed().is_ok_and(|age| age > self.grace / 2) {
            File::open(&path)?.set_modified(SystemTime::now())?;
        }
        Ok(true)
    }

    /// Blobs that nobody has put or asked for within [`GRACE`], in order.
    pub fn old(&self) -> io::Result<Vec<Hash>> {
        let mut old = Vec::new();
        for folder in fs::read_dir(&*self.root)? {
            let folder = folder?;
            if !folder.file_type()?.is_dir() {
                continue;
            }
            for entry in fs::read_dir(folder.path())? {
                let entry = entry?;
                if let Some(hash) = entry.file_name().to_str().and_then(Hash::parse)
                    && is_older(&entry.metadata()?, self.grace)
                {
                    old.push(hash);
                }
            }
        }
        old.sort_unstable();
        Ok(old)
    }

    /// Removes a blob, unless somebody has put it or asked for it within [`GRACE`]; whether it is gone.
    pub fn remove(&self, hash: &Hash) -> io::Result<bool> {
        let _alone = self.removing.write().unwrap_or_else(PoisonError::into_inner);
        let path = self.path(hash);
        match fs::metadata(&path) {
            Ok(about) if !is_older(&about, self.grace) => return Ok(false),
            Ok(_) => fs::remove_file(&path)?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
        Ok(true)
    }
}

/// A time in the future is of a clock that was set back: what has it is young.
fn is_older(about: &fs::Metadata, grace: Duration) -> bool {
    about.modified().is_ok_and(|modified| modified.elapsed().is_ok_and(|age| age >= grace))
}

/// A name in a folder is durable when the folder is synced.
fn sync_folder(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::modules::scratch::Scratch;

    #[test]
    fn bytes_are_found_under_their_hash_also_after_a_new_start() {
        let scratch = Scratch::new();
        let hash = Blobs::open(scratch.path()).unwrap().put(b"abc").unwrap();
        assert_eq!(hash, Hash::of(b"abc"));
        let blobs = Blobs::open(scratch.path()).unwrap();
        assert!(blobs.exists(&hash) && !blobs.exists(&Hash::of(b"x")));
        assert_eq!(blobs.get(&hash).unwrap(), b"abc");
        assert_eq!(blobs.put(b"abc").unwrap(), hash);
    }

    #[test]
    fn what_was_left_unfinished_is_removed() {
        let scratch = Scratch::new();
        let blobs = Blobs::open(scratch.path()).unwrap();
        let mut upload = blobs.begin().unwrap();
        upload.write(b"half").unwrap();
        std::mem::forget(upload);
        let files = || fs::read_dir(scratch.path().join("blobs")).unwrap().count();
        assert_eq!(files(), 1);
        drop(blobs.begin().unwrap());
        assert_eq!(files(), 1);
        Blobs::open(scratch.path()).unwrap();
        assert_eq!(files(), 0);
    }

    #[test]
    fn an_upload_that_breaks_off_goes_on_where_it_was_also_after_a_crash() {
        let scratch = Scratch::new();
        let hash = Hash::of(b"whole blob");
        let blobs = Blobs::open(scratch.path()).unwrap();
        let mut upload = blobs.begin_at(hash, 0).unwrap();
        upload.write(b"whole ").unwrap();
        drop(upload);
        assert_eq!(blobs.part_of(&hash), 6);
        for wrong in [3, 7] {
            assert!(matches!(blobs.begin_at(hash, wrong), Err(PutError::Offset(6))), "{wrong}");
        }
        let mut upload = blobs.begin_at(hash, 6).unwrap();
        upload.write(b"bl").unwrap();
        std::mem::forget(upload);
        let blobs = Blobs::open(scratch.path()).unwrap();
        assert_eq!(blobs.part_of(&hash), 8);
        let mut upload = blobs.begin_at(hash, 8).unwrap();
        upload.write(b"ob").unwrap();
        upload.finish(hash).unwrap();
        assert_eq!((blobs.get(&hash).unwrap(), blobs.part_of(&hash)), (b"whole blob".to_vec(), 0));
        assert!(matches!(blobs.begin_at(hash, 5), Err(PutError::Offset(0))), "no part is left");
    }

    #[test]
    fn what_goes_on_with_other_bytes_is_not_kept() {
        let scratch = Scratch::new();
        let blobs = Blobs::open(scratch.path()).unwrap();
        let hash = Hash::of(b"ab");
        let mut upload = blobs.begin_at(hash, 0).unwrap();
        upload.write(b"x").unwrap();
        drop(upload);
        let mut upload = blobs.begin_at(hash, 1).unwrap();
        upload.write(b"b").unwrap();
        assert!(matches!(upload.finish(hash), Err(PutError::WrongHash { .. })));
        assert_eq!((blobs.exists(&hash), blobs.part_of(&hash)), (false, 0));
    }

    #[test]
    fn what_is_needed_again_is_not_removed() {
        let scratch = Scratch::new();
        let blobs = Blobs::open(scratch.path()).unwrap();
        let (young, old, renewed) =
            (blobs.put(b"young").unwrap(), blobs.put(b"old").unwrap(), blobs.put(b"re").unwrap());
        for hash in [old, renewed] {
            File::open(blobs.path(&hash)).unwrap().set_modified(SystemTime::now() - 2 * GRACE).unwrap();
        }
        let mut expected = vec![old, renewed];
        expected.sort_unstable();
        assert_eq!(blobs.old().unwrap(), expected);
        assert!(blobs.renew(&renewed).unwrap() && !blobs.renew(&Hash::of(b"none")).unwrap());
        let removed = [young, old, renewed].map(|hash| blobs.remove(&hash).unwrap());
        assert_eq!(removed, [false, true, false]);
        assert_eq!([young, old, renewed].map(|hash| blobs.exists(&hash)), [true, false, true]);
    }

    #[test]
    fn a_wrong_hash_is_not_kept() {
        let scratch = Scratch::new();
        let blobs = Blobs::open(scratch.path()).unwrap();
        let named = Hash::of(b"other");
        let mut upload = blobs.begin().unwrap();
        upload.write(b"a").unwrap();
        upload.write(b"b").unwrap();
        assert!(matches!(upload.finish(named), Err(PutError::WrongHash { is, .. }) if is == Hash::of(b"ab")));
        assert!(!blobs.exists(&named) && !blobs.exists(&Hash::of(b"ab")));
    }
}
