//! Bytes by their hash, on this machine's disk: `<data>/blobs/ab/abcdef…`. A file is there whole
//! and synced, or not at all: it is written under a temporary name, synced, renamed, and its folder
//! is synced.
//!
//! Where they live in an object store (`--blobs`), the folder is where uploads arrive, and a cache:
//! a file has its name there only when the object store has it, too, and what is not there is
//! fetched. So whatever the folder says of a blob holds, and any file of it may go at any time.

pub mod address;
mod cache;
mod claims;
mod dial;
mod home;
pub mod memory;
mod place;
#[cfg(test)]
mod tests;
pub mod upload;

pub use address::Address;
pub use cache::CACHE_BYTES_DEFAULT;
use cache::Cache;
use claims::{Turns, Young};
use home::Home;
pub use home::is_away;
pub use place::OpenError;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicU64;
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard};
use std::time::{Duration, SystemTime};
use taskmaster_protocol::Hash;
pub use upload::{PutError, Upload};

/// A blob that was put, or asked for by who is about to name it, is not removed for so long: until
/// then the task that names it has been added, or never will be. A feed that holds lines back for
/// longer puts their inputs again.
pub const GRACE: Duration = Duration::from_secs(3_600);

/// A file that is read is said to have been read no more often than this.
const READ_NOTED: Duration = Duration::from_secs(60);

/// Tries to open a file that is removed from the cache as often as it has been fetched.
const FETCHES: u32 = 3;

/// The blobs of a data folder. Clones share them. Blocking: with an object store for as long as
/// that takes to answer.
#[derive(Debug, Clone)]
pub struct Blobs {
    root: Arc<Path>,
    /// Numbers the temporary files of this process.
    next: Arc<AtomicU64>,
    /// Taken alone to remove a blob, shared to say that one is needed: between "it is there" and
    /// "it is needed" nobody removes it.
    removing: Arc<RwLock<()>>,
    /// See [`GRACE`].
    grace: Duration,
    /// Where they live if not in the folder.
    far: Option<Arc<Far>>,
}

/// What belongs to blobs that live in an object store.
#[derive(Debug)]
struct Far {
    home: Home,
    turns: Turns,
    young: Young,
    cache: Cache,
}

impl Blobs {
    /// Opens `<data>/blobs`, makes it where it is missing, and sees to what a crash left
    /// unfinished.
    pub fn open(data: &Path) -> io::Result<Blobs> {
        let root = data.join("blobs");
        fs::create_dir_all(&root)?;
        sync_folder(data)?;
        let blobs = Blobs {
            root: root.into(),
            next: Arc::default(),
            removing: Arc::default(),
            grace: GRACE,
            far: None,
        };
        blobs.tidy_up()?;
        Ok(blobs)
    }

    /// The same blobs, living in `home`; of their files at most so many bytes stay here. What is
    /// here must be there.
    fn living_in(self, home: Home, cache_bytes: u64) -> io::Result<Blobs> {
        let cache = Cache::of(&self.root, cache_bytes)?;
        let far = Far {
            home,
            turns: Turns::default(),
            young: Young::new(),
            cache,
        };
        Ok(Blobs {
            far: Some(Arc::new(far)),
            ..self
        })
    }

    /// The same with another time than [`GRACE`].
    pub fn sparing(self, grace: Duration) -> Blobs {
        Blobs { grace, ..self }
    }

    /// See [`GRACE`].
    pub fn grace(&self) -> Duration {
        self.grace
    }

    /// The object store in which they live, as people know it.
    pub fn lives_in(&self) -> Option<&str> {
        self.far.as_ref().map(|far| far.home.name())
    }

    /// Whether a data folder holds blobs.
    pub fn any(data: &Path) -> bool {
        let is_folder =
            |entry: io::Result<fs::DirEntry>| entry.is_ok_and(|entry| entry.path().is_dir());
        fs::read_dir(data.join("blobs")).is_ok_and(|mut entries| entries.any(is_folder))
    }

    /// Where its file is, whether it exists or not.
    pub fn path(&self, hash: &Hash) -> PathBuf {
        let name = hash.to_string();
        self.root.join(name.get(..2).unwrap_or_default()).join(name)
    }

    /// Whether the blob is there. Where nobody can be asked it is taken for missing.
    pub fn exists(&self, hash: &Hash) -> bool {
        self.path(hash).is_file()
            || self
                .far
                .as_ref()
                .is_some_and(|far| far.home.has(hash).unwrap_or(false))
    }

    /// The blob's file, at its beginning; fetched first where it is not here.
    pub fn file(&self, hash: &Hash) -> io::Result<File> {
        let path = self.path(hash);
        let mut fetches = 0;
        loop {
            match (File::open(&path), &self.far) {
                (Err(error), Some(far))
                    if error.kind() == io::ErrorKind::NotFound && fetches < FETCHES =>
                {
                    self.fetch(far, hash, &path)?;
                    fetches += 1;
                }
                (Ok(file), Some(_)) => {
                    let read_at = file.metadata()?.modified()?;
                    if read_at.elapsed().is_ok_and(|age| age > READ_NOTED) {
                        file.set_modified(SystemTime::now())?;
                    }
                    return Ok(file);
                }
                (opened, _) => return opened,
            }
        }
    }

    /// The whole blob.
    pub fn get(&self, hash: &Hash) -> io::Result<Vec<u8>> {
        let mut file = self.file(hash)?;
        let mut bytes = Vec::with_capacity(usize::try_from(file.metadata()?.len()).unwrap_or(0));
        io::Read::read_to_end(&mut file, &mut bytes)?;
        Ok(bytes)
    }

    /// One thread fetches a blob, all who want it wait.
    fn fetch(&self, far: &Far, hash: &Hash, path: &Path) -> io::Result<()> {
        let _turn = far.turns.take(*hash);
        if path.is_file() {
            return Ok(());
        }
        let unfinished = self.temporary("");
        let fetched = far.home.fetch(hash, &unfinished).and_then(|bytes| {
            self.name(&unfinished, hash)?;
            Ok(bytes)
        });
        match fetched {
            Ok(bytes) => far.cache.grew(bytes, &self.root, path),
            Err(error) => {
                // It may not even have been begun.
                let _ = fs::remove_file(&unfinished);
                return Err(error);
            }
        }
        Ok(())
    }

    /// Keeps `bytes` durably under their hash. Nothing is written where they are there already.
    pub fn put(&self, bytes: &[u8]) -> io::Result<Hash> {
        let hash = Hash::of(bytes);
        self.put_hashed(hash, bytes)?;
        Ok(hash)
    }

    /// Like [`Blobs::put`], for bytes that the caller has hashed: a large module is hashed once.
    pub fn put_hashed(&self, hash: Hash, bytes: &[u8]) -> io::Result<()> {
        if self.is_here(&hash)? {
            return Ok(());
        }
        let mut upload = self.begin()?;
        upload.append(bytes)?;
        upload.keep(hash)
    }

    fn stand(&self) -> RwLockReadGuard<'_, ()> {
        self.removing.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Gives a whole, synced file its name, durably.
    fn name(&self, unfinished: &Path, hash: &Hash) -> io::Result<()> {
        let path = self.path(hash);
        let folder = path.parent().unwrap_or(&self.root);
        if !folder.is_dir() {
            fs::create_dir_all(folder)?;
            sync_folder(&self.root)?;
        }
        {
            let _standing = self.stand();
            fs::rename(unfinished, &path)?;
            self.note([*hash]);
        }
        sync_folder(folder)
    }

    fn note(&self, hashes: impl IntoIterator<Item = Hash>) {
        if let Some(far) = &self.far {
            far.young.note(hashes);
        }
    }

    /// Whether the blob is there; if so, it is not removed within half of [`GRACE`], so that it can
    /// be named.
    pub fn renew(&self, hash: &Hash) -> io::Result<bool> {
        Ok(self.renew_all(&[*hash])?.first().copied().unwrap_or(false))
    }

    /// The same for many: an object store is asked for all of them together.
    pub fn renew_all(&self, hashes: &[Hash]) -> io::Result<Vec<bool>> {
        let mut there = hashes
            .iter()
            .map(|hash| self.is_here(hash))
            .collect::<io::Result<Vec<bool>>>()?;
        let Some(far) = &self.far else {
            return Ok(there);
        };
        let missed: Vec<usize> = (0..hashes.len()).filter(|at| !there[*at]).collect();
        if missed.is_empty() {
            return Ok(there);
        }
        let asked: Vec<Hash> = missed.iter().map(|at| hashes[*at]).collect();
        // Noted before they are asked for: a removal that has not begun then leaves them, and of
        // one that has begun the answer comes when it is over.
        {
            let _standing = self.stand();
            self.note(asked.iter().copied());
        }
        asked.iter().for_each(|hash| drop(far.turns.take(*hash)));
        for (at, is) in missed.into_iter().zip(far.home.has_all(&asked)?) {
            there[at] = is;
        }
        Ok(there)
    }

    /// Whether its file is here; if so, it is young from now on.
    fn is_here(&self, hash: &Hash) -> io::Result<bool> {
        let _standing = self.stand();
        let path = self.path(hash);
        let modified = match fs::metadata(&path) {
            Ok(about) => about.modified()?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
            Err(error) => return Err(error),
        };
        self.note([*hash]);
        // Half of it, so that what many tasks share is not touched for each of them.
        if modified.elapsed().is_ok_and(|age| age > self.grace / 2) {
            match File::open(&path) {
                Ok(file) => file.set_modified(SystemTime::now())?,
                // The cache has let go of it; its home has it.
                Err(error) if error.kind() == io::ErrorKind::NotFound && self.far.is_some() => {}
                Err(error) => return Err(error),
            }
        }
        Ok(true)
    }

    /// Blobs that nobody has put or asked for within [`GRACE`], in order. An object store's are
    /// listed on a thread of its own: that of a million takes minutes.
    pub fn look_for_old(&self) -> Receiver<io::Result<Vec<Hash>>> {
        let (sender, old) = channel();
        let blobs = self.clone();
        let look = move || drop(sender.send(blobs.old()));
        if self.far.is_none() {
            look();
        } else if let Err(error) = std::thread::Builder::new()
            .name("old blobs".into())
            .spawn(look)
        {
            tracing::warn!("blobs are not looked for: {error}");
        }
        old
    }

    /// See [`Blobs::look_for_old`].
    pub fn old(&self) -> io::Result<Vec<Hash>> {
        let mut old: Vec<Hash> = match &self.far {
            None => {
                let files = cache::files(&self.root)?;
                files
                    .iter()
                    .filter(|(_, about)| is_older(about, self.grace))
                    .filter_map(|(path, _)| cache::hash_of(path))
                    .collect()
            }
            Some(far) if far.young.has_all(self.grace) => Vec::new(),
            Some(far) => far
                .home
                .list()?
                .into_iter()
                .filter(|hash| !far.young.has(hash, self.grace))
                .collect(),
        };
        old.sort_unstable();
        old.dedup();
        Ok(old)
    }

    /// Removes blobs, but those that somebody has put or asked for within [`GRACE`]; how many are
    /// gone.
    pub fn remove(&self, hashes: &[Hash]) -> io::Result<u64> {
        let Some(far) = &self.far else {
            return hashes.iter().try_fold(0, |gone, hash| {
                Ok(gone + u64::from(self.remove_file(hash)?))
            });
        };
        // Who has a turn at one needs it.
        let mut turns: Vec<_> = hashes
            .iter()
            .filter_map(|hash| far.turns.try_take(*hash))
            .collect();
        {
            let _alone = self
                .removing
                .write()
                .unwrap_or_else(PoisonError::into_inner);
            turns.retain(|turn| !far.young.has(&turn.hash(), self.grace));
            for turn in &turns {
                match fs::remove_file(self.path(&turn.hash())) {
                    Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                    _ => {}
                }
            }
        }
        // Not under the lock: nobody else has to wait for the object store. Who wants one of these
        // has to.
        let gone: Vec<Hash> = turns.iter().map(claims::Turn::hash).collect();
        far.home.remove(&gone)?;
        Ok(gone.len() as u64)
    }

    fn remove_file(&self, hash: &Hash) -> io::Result<bool> {
        let _alone = self
            .removing
            .write()
            .unwrap_or_else(PoisonError::into_inner);
        let path = self.path(hash);
        match fs::metadata(&path) {
            Ok(about) if !is_older(&about, self.grace) => return Ok(false),
            Ok(_) => fs::remove_file(&path)?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
        Ok(true)
    }

    /// Which of these are where they live. Unlike what stands in the cache, that is what lasts.
    pub fn last(&self, hashes: &[Hash]) -> io::Result<Vec<bool>> {
        match &self.far {
            Some(far) => far.home.has_all(hashes),
            None => Ok(hashes
                .iter()
                .map(|hash| self.path(hash).is_file())
                .collect()),
        }
    }

    /// Copies every blob into the data folder `to`, wherever it lives; how many there are. Copies,
    /// not links: what spoils one must not spoil the other.
    pub fn copy_all(&self, to: &Path) -> io::Result<u64> {
        let copy = Blobs::open(to)?;
        let hashes: Vec<Hash> = match &self.far {
            Some(far) => far.home.list()?,
            None => {
                let files = cache::files(&self.root)?;
                files
                    .iter()
                    .filter_map(|(path, _)| cache::hash_of(path))
                    .collect()
            }
        };
        for hash in &hashes {
            let unfinished = copy.temporary("");
            match (fs::copy(self.path(hash), &unfinished), &self.far) {
                (Ok(_), _) => File::open(&unfinished)?.sync_all()?,
                (Err(error), Some(far)) if error.kind() == io::ErrorKind::NotFound => {
                    _ = far.home.fetch(hash, &unfinished)?;
                }
                (Err(error), _) => return Err(error),
            }
            copy.name(&unfinished, hash)?;
        }
        Ok(hashes.len() as u64)
    }
}

/// A time in the future is of a clock that was set back: what has it is young.
fn is_older(about: &fs::Metadata, grace: Duration) -> bool {
    about
        .modified()
        .is_ok_and(|modified| modified.elapsed().is_ok_and(|age| age >= grace))
}

/// A name in a folder is durable when the folder is synced.
fn sync_folder(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

#[cfg(test)]
mod folder_tests {
    use super::*;

    #[test]
    fn bytes_are_found_under_their_hash_also_after_a_new_start() {
        let scratch = tempfile::tempdir().unwrap();
        let hash = Blobs::open(scratch.path()).unwrap().put(b"abc").unwrap();
        assert_eq!(hash, Hash::of(b"abc"));
        let blobs = Blobs::open(scratch.path()).unwrap();
        assert!(blobs.exists(&hash) && !blobs.exists(&Hash::of(b"x")));
        assert_eq!(blobs.get(&hash).unwrap(), b"abc");
        assert_eq!(blobs.put(b"abc").unwrap(), hash);
    }

    #[test]
    fn what_was_left_unfinished_is_removed() {
        let scratch = tempfile::tempdir().unwrap();
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
        let scratch = tempfile::tempdir().unwrap();
        let hash = Hash::of(b"whole blob");
        let blobs = Blobs::open(scratch.path()).unwrap();
        let mut upload = blobs.begin_at(hash, 0).unwrap();
        upload.write(b"whole ").unwrap();
        drop(upload);
        assert_eq!(blobs.part_of(&hash), 6);
        for wrong in [3, 7] {
            assert!(
                matches!(blobs.begin_at(hash, wrong), Err(PutError::Offset(6))),
                "{wrong}"
            );
        }
        let mut upload = blobs.begin_at(hash, 6).unwrap();
        upload.write(b"bl").unwrap();
        std::mem::forget(upload);
        let blobs = Blobs::open(scratch.path()).unwrap();
        assert_eq!(blobs.part_of(&hash), 8);
        let mut upload = blobs.begin_at(hash, 8).unwrap();
        upload.write(b"ob").unwrap();
        upload.finish(hash).unwrap();
        assert_eq!(
            (blobs.get(&hash).unwrap(), blobs.part_of(&hash)),
            (b"whole blob".to_vec(), 0)
        );
        assert!(
            matches!(blobs.begin_at(hash, 5), Err(PutError::Offset(0))),
            "no part is left"
        );
    }

    #[test]
    fn what_goes_on_with_other_bytes_is_not_kept() {
        let scratch = tempfile::tempdir().unwrap();
        let blobs = Blobs::open(scratch.path()).unwrap();
        let hash = Hash::of(b"ab");
        let mut upload = blobs.begin_at(hash, 0).unwrap();
        upload.write(b"x").unwrap();
        drop(upload);
        let mut upload = blobs.begin_at(hash, 1).unwrap();
        upload.write(b"b").unwrap();
        assert!(matches!(
            upload.finish(hash),
            Err(PutError::WrongHash { .. })
        ));
        assert_eq!((blobs.exists(&hash), blobs.part_of(&hash)), (false, 0));
    }

    #[test]
    fn what_is_needed_again_is_not_removed() {
        let scratch = tempfile::tempdir().unwrap();
        let blobs = Blobs::open(scratch.path()).unwrap();
        let (young, old, renewed) = (
            blobs.put(b"young").unwrap(),
            blobs.put(b"old").unwrap(),
            blobs.put(b"re").unwrap(),
        );
        for hash in [old, renewed] {
            File::open(blobs.path(&hash))
                .unwrap()
                .set_modified(SystemTime::now() - 2 * GRACE)
                .unwrap();
        }
        let mut expected = vec![old, renewed];
        expected.sort_unstable();
        assert_eq!(blobs.old().unwrap(), expected);
        assert!(blobs.renew(&renewed).unwrap() && !blobs.renew(&Hash::of(b"none")).unwrap());
        let removed = [young, old, renewed].map(|hash| blobs.remove(&[hash]).unwrap());
        assert_eq!(removed, [0, 1, 0]);
        assert_eq!(
            [young, old, renewed].map(|hash| blobs.exists(&hash)),
            [true, false, true]
        );
    }

    #[test]
    fn a_wrong_hash_is_not_kept() {
        let scratch = tempfile::tempdir().unwrap();
        let blobs = Blobs::open(scratch.path()).unwrap();
        let named = Hash::of(b"other");
        let mut upload = blobs.begin().unwrap();
        upload.write(b"a").unwrap();
        upload.write(b"b").unwrap();
        assert!(
            matches!(upload.finish(named), Err(PutError::WrongHash { is, .. }) if is == Hash::of(b"ab"))
        );
        assert!(!blobs.exists(&named) && !blobs.exists(&Hash::of(b"ab")));
    }
}
