//! The inputs of one task: how they are put into its folder, and whether the task has changed them.

use super::file_cache::{InputFileCache, PinnedFiles};
use super::guard::give_up_override;
use std::collections::BTreeSet;
use std::fs::{self, Metadata};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use taskmaster_protocol::{FilePath, Hash, Listing};
use taskmaster_transport::files::hash_file;

/// What is put at one path.
pub enum InputSource {
    /// A file.
    File(Hash),
    /// A folder with these files.
    Folder(Arc<Listing>),
}

impl InputSource {
    /// How many files this is.
    pub fn files(&self) -> usize {
        match self {
            InputSource::File(_) => 1,
            InputSource::Folder(listing) => listing.files.len(),
        }
    }
}

/// One input of a task.
pub struct PlacedInput {
    /// The path in the task's folder.
    pub path: FilePath,
    /// What is put there.
    pub source: InputSource,
}

/// All inputs of a task. The files stay in the cache as long as this lives.
pub struct InputPlacement {
    cache: Arc<InputFileCache>,
    inputs: Vec<PlacedInput>,
    _pinned: Vec<Arc<PinnedFiles>>,
}

impl InputPlacement {
    pub(super) fn new(
        cache: Arc<InputFileCache>,
        inputs: Vec<PlacedInput>,
        pinned: Vec<Arc<PinnedFiles>>,
    ) -> InputPlacement {
        InputPlacement {
            cache,
            inputs,
            _pinned: pinned,
        }
    }

    /// How many files this is.
    pub fn files(&self) -> usize {
        self.inputs.iter().map(|input| input.source.files()).sum()
    }

    /// Puts everything into `folder`. Must be called on the thread that will run the guest, because
    /// the thread gives up a right first.
    pub fn place_into(&self, folder: &Path) -> io::Result<()> {
        let placed = self.put_all(folder);
        if placed.is_err() {
            self.cache.forget_lost(self.hashes());
        }
        placed
    }

    fn hashes(&self) -> impl Iterator<Item = Hash> {
        self.inputs.iter().flat_map(|input| match &input.source {
            InputSource::File(hash) => vec![*hash],
            InputSource::Folder(listing) => {
                listing.files.values().map(|file| file.sha256).collect()
            }
        })
    }

    fn put_all(&self, folder: &Path) -> io::Result<()> {
        let mut placing = Placing {
            cache: &self.cache,
            linking: self.cache.links() && give_up_override(),
            made: BTreeSet::new(),
        };
        for input in &self.inputs {
            let at = folder.join(input.path.as_str());
            match &input.source {
                InputSource::File(hash) => placing.put(hash, &at)?,
                InputSource::Folder(listing) => {
                    fs::create_dir_all(&at)?;
                    for (below, file) in &listing.files {
                        placing.put(&file.sha256, &at.join(below.as_str()))?;
                    }
                }
            }
        }
        Ok(())
    }

    /// Whether the file at `path` of the task's folder is the input that was put there, unchanged.
    pub fn is_unchanged(&self, path: &str, file: &Path, metadata: &Metadata) -> bool {
        let Some(hash) = self.input_at(path) else {
            return false;
        };
        if let Ok(cached) = fs::metadata(self.cache.path(&hash))
            && is_same(&cached, metadata)
        {
            return true;
        }
        // The file is a copy, or the task wrote it. Bytes that are equal count as unchanged.
        hash_file(file).is_ok_and(|(found, _)| found == hash)
    }

    fn input_at(&self, path: &str) -> Option<Hash> {
        self.inputs.iter().find_map(|input| match &input.source {
            InputSource::File(hash) => (input.path.as_str() == path).then_some(*hash),
            InputSource::Folder(listing) => {
                let below = path.strip_prefix(input.path.as_str())?.strip_prefix('/')?;
                listing.files.get(below).map(|file| file.sha256)
            }
        })
    }
}

/// Puts files of the cache into the folder of one task.
struct Placing<'a> {
    cache: &'a InputFileCache,
    linking: bool,
    /// Folders that exist already.
    made: BTreeSet<PathBuf>,
}

impl Placing<'_> {
    fn put(&mut self, hash: &Hash, at: &Path) -> io::Result<()> {
        if let Some(parent) = at.parent()
            && !self.made.contains(parent)
        {
            fs::create_dir_all(parent)?;
            self.made.insert(parent.to_owned());
        }
        let from = self.cache.path(hash);
        if self.linking && fs::hard_link(&from, at).is_ok() {
            return Ok(());
        }
        // Links may be unsafe here, the folder may be on another disk, or the file may have as many
        // links as its file system counts. The copy is read-only, too.
        fs::copy(&from, at).map(drop)
    }
}

#[cfg(unix)]
fn is_same(a: &Metadata, b: &Metadata) -> bool {
    use std::os::unix::fs::MetadataExt;
    (a.dev(), a.ino()) == (b.dev(), b.ino())
}

#[cfg(not(unix))]
fn is_same(_: &Metadata, _: &Metadata) -> bool {
    false
}
