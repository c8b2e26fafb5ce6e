//! Input files by hash: fetched once, kept on disk, shared by all tasks that name them.
//!
//! `<cache>/inputs/ab/abcdef…`, read-only. A task gets links to them in its folder: a shared folder
//! of a thousand files is fetched once and never copied. What keeps a guest from writing into what
//! others see stands in [`guard`]. The least recently used files go when all together are larger
//! than the cache may be; a task that has a link keeps its file all the same.

pub mod guard;
pub mod place;

use crate::sandbox::files::private_folder;
use place::{Part, Placing};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs::{self, File};
use std::future::Future;
use std::io;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;
use taskmaster_protocol::{FilePath, Hash, InputRef, Listing, limits};
use taskmaster_transport::files::hash_file;
use tokio::sync::{Semaphore, watch};

/// Files fetched at a time.
const FETCHES_MAX: usize = 8;

/// Listings of folders kept in memory: each has at most 4 MiB, most have a hundredth of that.
const LISTINGS_MAX: usize = 64;

/// Locked by the process that uses the folder.
const LOCK: &str = ".lock";

/// Size of the cache where nobody says, bytes.
pub const CACHE_BYTES_DEFAULT: u64 = 10 << 30;

/// Fetches the bytes of a hash into a new file; says in one sentence why not.
pub type FetchFile = Arc<
    dyn Fn(Hash, PathBuf) -> Pin<Box<dyn Future<Output = Result<u64, String>> + Send>>
        + Send
        + Sync,
>;

type Loading = watch::Receiver<Option<Result<(), String>>>;

/// A file of the cache.
struct Entry {
    bytes: u64,
    /// When it was used last, by the count of uses.
    used: u64,
    /// Attempts that need it now.
    pins: u32,
    /// Its hash was seen to be right by this process: what an earlier one left may have been spoilt
    /// by a power cut.
    sound: bool,
}

#[derive(Default)]
struct Table {
    entries: HashMap<Hash, Entry>,
    loading: HashMap<Hash, Loading>,
    listings: HashMap<Hash, (Arc<Listing>, u64)>,
    bytes: u64,
    uses: u64,
}

/// The input files of this runner.
pub struct Inputs {
    folder: PathBuf,
    bytes_max: u64,
    fetch: FetchFile,
    table: Mutex<Table>,
    fetching: Semaphore,
    /// Whether links are safe here; see [`guard`].
    links: bool,
    /// Held as long as this lives: nobody else removes what stands in the table.
    _lock: File,
}

/// Files that stay in the cache as long as this lives.
pub struct Pinned {
    inputs: Arc<Inputs>,
    hashes: Vec<Hash>,
}

impl Drop for Pinned {
    fn drop(&mut self) {
        let mut table = self.inputs.table();
        for hash in &self.hashes {
            if let Some(entry) = table.entries.get_mut(hash) {
                entry.pins = entry.pins.saturating_sub(1);
            }
        }
        self.inputs.make_room(&mut table);
    }
}

impl Inputs {
    /// Keeps files in `folder`, or in one beside it where another process has that; about
    /// `bytes_max` of them. Gets what is not there through `fetch`.
    pub fn open(folder: &Path, bytes_max: u64, fetch: FetchFile) -> io::Result<Inputs> {
        let (folder, lock) = claim(folder)?;
        let links = guard::holds(&folder);
        if !links {
            tracing::warn!(
                "read-only files can be written in {}: each task gets copies of its inputs, not links",
                folder.display()
            );
        }
        let mut table = Table::default();
        for (hash, bytes, _) in found(&folder)? {
            table.uses += 1;
            let used = table.uses;
            table.bytes += bytes;
            table.entries.insert(
                hash,
                Entry {
                    bytes,
                    used,
                    pins: 0,
                    sound: false,
                },
            );
        }
        let (table, fetching) = (Mutex::new(table), Semaphore::new(FETCHES_MAX));
        let inputs = Inputs {
            folder,
            bytes_max,
            fetch,
            table,
            fetching,
            links,
            _lock: lock,
        };
        inputs.make_room(&mut inputs.table());
        Ok(inputs)
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        // The table is whole between two statements; a panic elsewhere does not spoil it.
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Where a file is, if it is here.
    pub(crate) fn path(&self, hash: &Hash) -> PathBuf {
        let name = hash.to_string();
        self.folder
            .join(name.get(..2).unwrap_or_default())
            .join(name)
    }

    /// Whether tasks get links.
    pub(crate) fn links(&self) -> bool {
        self.links
    }

    /// Everything that a task names, here and ready to be put into its folder. The sentence says
    /// what is missing.
    pub async fn get(
        self: &Arc<Self>,
        wanted: &BTreeMap<FilePath, InputRef>,
    ) -> Result<Placing, String> {
        let listings: BTreeSet<Hash> = wanted.values().filter_map(InputRef::listing).collect();
        let mut pinned = vec![self.pin(listings.clone()).await?];
        let mut parts = Vec::with_capacity(wanted.len());
        let mut hashes = BTreeSet::new();
        for (path, input) in wanted {
            let part = match input {
                InputRef::File { sha256 } => {
                    hashes.insert(*sha256);
                    Part::File(*sha256)
                }
                InputRef::Folder { folder } => {
                    let listing = self
                        .listing(*folder)
                        .map_err(|why| format!("the input folder `{path}`: {why}"))?;
                    hashes.extend(listing.files.values().map(|file| file.sha256));
                    Part::Folder(listing)
                }
            };
            parts.push((path.clone(), part));
        }
        if let Some(text) = too_many(&parts) {
            return Err(text);
        }
        pinned.push(self.pin(hashes).await?);
        Ok(Placing::new(self.clone(), parts, pinned))
    }

    fn listing(&self, folder: Hash) -> Result<Arc<Listing>, String> {
        {
            let mut table = self.table();
            table.uses += 1;
            let now = table.uses;
            if let Some((listing, used)) = table.listings.get_mut(&folder) {
                *used = now;
                return Ok(listing.clone());
            }
        }
        let bytes = fs::read(self.path(&folder)).map_err(|error| error.to_string())?;
        let listing = Arc::new(Listing::decode(&bytes).map_err(|error| error.to_string())?);
        let mut table = self.table();
        let used = table.uses;
        table.listings.insert(folder, (listing.clone(), used));
        if table.listings.len() > LISTINGS_MAX {
            let oldest = table
                .listings
                .iter()
                .min_by_key(|(_, (_, used))| *used)
                .map(|(hash, _)| *hash);
            oldest.and_then(|hash| table.listings.remove(&hash));
        }
        Ok(listing)
    }

    /// Makes sure that files are here, and that they stay.
    async fn pin(self: &Arc<Self>, hashes: BTreeSet<Hash>) -> Result<Pinned, String> {
        let mut pinned = Pinned {
            inputs: self.clone(),
            hashes: Vec::with_capacity(hashes.len()),
        };
        let missing = self.pin_those_here(hashes, &mut pinned);
        // All are begun at once; the semaphore bounds how many are fetched at a time.
        let loading: Vec<(Hash, Loading)> = missing
            .into_iter()
            .map(|hash| (hash, self.join_or_begin(hash)))
            .collect();
        for (hash, mut loading) in loading {
            let gone = || "the runner is ending".to_owned();
            let result = loading
                .wait_for(Option::is_some)
                .await
                .map_err(|_| gone())?
                .clone();
            result.unwrap_or_else(|| Err(gone()))?;
            if !self.pin_those_here([hash].into(), &mut pinned).is_empty() {
                return Err(format!(
                    "the input {hash} does not fit into the cache of {} MiB",
                    self.bytes_max >> 20
                ));
            }
        }
        Ok(pinned)
    }

    /// Pins those that are here and sound; the others are left.
    fn pin_those_here(&self, hashes: BTreeSet<Hash>, pinned: &mut Pinned) -> Vec<Hash> {
        let mut table = self.table();
        table.uses += 1;
        let now = table.uses;
        let mut missing = Vec::new();
        for hash in hashes {
            match table.entries.get_mut(&hash) {
                Some(entry) if entry.sound => {
                    entry.used = now;
                    entry.pins += 1;
                    pinned.hashes.push(hash);
                }
                _ => missing.push(hash),
            }
        }
        missing
    }

    fn join_or_begin(self: &Arc<Self>, hash: Hash) -> Loading {
        let mut table = self.table();
        if let Some(loading) = table.loading.get(&hash) {
            return loading.clone();
        }
        let (tell, loading) = watch::channel(None);
        table.loading.insert(hash, loading.clone());
        drop(table);
        let inputs = self.clone();
        tokio::spawn(async move {
            // One more pin while those who wait have not taken theirs.
            let result = inputs.load(hash).await;
            inputs.table().loading.remove(&hash);
            let loaded = result.is_ok();
            tell.send_replace(Some(result));
            if loaded {
                // Until then it could go before anybody has it.
                tell.closed().await;
                drop(Pinned {
                    inputs: inputs.clone(),
                    hashes: vec![hash],
                });
            }
        });
        loading
    }

    /// Fetches a file, or looks whether what an earlier process left is sound. It comes with one
    /// pin.
    async fn load(self: &Arc<Self>, hash: Hash) -> Result<(), String> {
        let kept = self.table().entries.contains_key(&hash);
        if kept {
            let path = self.path(&hash);
            let is = tokio::task::spawn_blocking(move || hash_file(&path)).await;
            if let Ok(Ok((is, bytes))) = is
                && is == hash
            {
                // The next process knows that it was used by this one; it only goes a little early
                // where this fails.
                let _ = File::open(self.path(&hash))
                    .and_then(|file| file.set_modified(SystemTime::now()));
                return self.keep(hash, bytes);
            }
            let mut table = self.table();
            if let Some(entry) = table.entries.remove(&hash) {
                table.bytes -= entry.bytes;
            }
        }
        // The semaphore is never closed.
        let _turn = self.fetching.acquire().await.ok();
        let aside = self
            .folder
            .join(format!("{}.tmp", uuid::Uuid::now_v7().simple()));
        let fetched = (self.fetch)(hash, aside.clone()).await;
        let bytes =
            fetched.map_err(|why| format!("the input {hash} could not be fetched: {why}"))?;
        let path = self.path(&hash);
        let placed = tokio::task::spawn_blocking(move || place_in_cache(&aside, &path)).await;
        placed
            .map_err(|error| error.to_string())
            .and_then(|placed| placed.map_err(|error| error.to_string()))
            .map_err(|why| format!("the input {hash} could not be kept: {why}"))?;
        self.keep(hash, bytes)
    }

    fn keep(&self, hash: Hash, bytes: u64) -> Result<(), String> {
        let mut table = self.table();
        table.uses += 1;
        let used = table.uses;
        let entry = Entry {
            bytes,
            used,
            pins: 1,
            sound: true,
        };
        let before = table
            .entries
            .insert(hash, entry)
            .map_or(0, |before| before.bytes);
        table.bytes = table.bytes - before + bytes;
        self.make_room(&mut table);
        Ok(())
    }

    /// Removes what was not used for longest until the rest is small enough; never what an attempt
    /// needs now.
    fn make_room(&self, table: &mut Table) {
        while table.bytes > self.bytes_max {
            let free = table.entries.iter().filter(|(_, entry)| entry.pins == 0);
            let Some(oldest) = free
                .min_by_key(|(_, entry)| entry.used)
                .map(|(hash, _)| *hash)
            else {
                return;
            };
            let Some(entry) = table.entries.remove(&oldest) else {
                return;
            };
            table.bytes -= entry.bytes;
            if let Err(error) = fs::remove_file(self.path(&oldest)) {
                tracing::warn!("the input {oldest} cannot be removed from the cache: {error}");
            }
        }
    }
}

/// A folder of which no other process has hold: `folder`, `folder-2` and so on.
fn claim(folder: &Path) -> io::Result<(PathBuf, File)> {
    let (mut claimed, mut n) = (folder.to_owned(), 1);
    loop {
        private_folder(&claimed)?;
        let lock = File::create(claimed.join(LOCK))?;
        match lock.try_lock() {
            Ok(()) => return Ok((claimed, lock)),
            Err(fs::TryLockError::WouldBlock) => {}
            Err(fs::TryLockError::Error(error)) => return Err(error),
        }
        n += 1;
        let name = folder
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        claimed = folder.with_file_name(format!("{name}-{n}"));
    }
}

/// Read-only, under its name, whole.
fn place_in_cache(aside: &Path, path: &Path) -> io::Result<()> {
    let mut permissions = fs::metadata(aside)?.permissions();
    permissions.set_readonly(true);
    fs::set_permissions(aside, permissions)?;
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder)?;
    }
    fs::rename(aside, path)
}

/// What earlier processes left, the least recently used first. What they left unfinished is
/// removed.
fn found(folder: &Path) -> io::Result<Vec<(Hash, u64, SystemTime)>> {
    let mut found = Vec::new();
    for below in fs::read_dir(folder)? {
        let below = below?;
        if !below.file_type()?.is_dir() {
            if below.file_name() != LOCK {
                fs::remove_file(below.path())?;
            }
            continue;
        }
        for entry in fs::read_dir(below.path())? {
            let entry = entry?;
            if let Some(hash) = entry.file_name().to_str().and_then(Hash::parse) {
                let about = entry.metadata()?;
                found.push((hash, about.len(), about.modified()?));
            }
        }
    }
    found.sort_by_key(|(_, _, modified)| *modified);
    Ok(found)
}

/// Whether the inputs of a task are more than what one folder may have.
fn too_many(parts: &[(FilePath, Part)]) -> Option<String> {
    let files: usize = parts.iter().map(|(_, part)| part.len()).sum();
    let max = limits::FOLDER_FILES_MAX;
    (files > max)
        .then(|| format!("its inputs are {files} files, at most {max} are allowed for one task"))
}

#[cfg(test)]
mod tests;
