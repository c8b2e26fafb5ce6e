//! The inputs of one task on their way into its folder, and what has become of them when it ended.

use super::guard::give_up_override;
use super::{Inputs, Pinned};
use std::collections::BTreeSet;
use std::fs::{self, Metadata};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use taskmaster_protocol::{FilePath, Hash, Listing};
use taskmaster_transport::files::hash_file;

/// What lies at one path.
pub enum Part {
    /// A file.
    File(Hash),
    /// A folder with these files.
    Folder(Arc<Listing>),
}

impl Part {
    /// How many files it is.
    pub fn len(&self) -> usize {
        match self {
            Part::File(_) => 1,
            Part::Folder(listing) => listing.files.len(),
        }
    }

    /// Whether it is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// See the module's text. The files stay in the cache as long as this lives.
pub struct Placing {
    inputs: Arc<Inputs>,
    parts: Vec<(FilePath, Part)>,
    _pinned: Vec<Pinned>,
}

impl Placing {
    pub(super) fn new(
        inputs: Arc<Inputs>,
        parts: Vec<(FilePath, Part)>,
        pinned: Vec<Pinned>,
    ) -> Placing {
        Placing {
            inputs,
            parts,
            _pinned: pinned,
        }
    }

    /// Puts everything into `folder`, on the thread that will run the guest.
    pub fn place(&self, folder: &Path) -> io::Result<()> {
        let linking = self.inputs.links() && give_up_override();
        let mut made = BTreeSet::new();
        for (path, part) in &self.parts {
            let at = folder.join(path.as_str());
            match part {
                Part::File(hash) => self.put(hash, &at, &mut made, linking)?,
                Part::Folder(listing) => {
                    fs::create_dir_all(&at)?;
                    for (below, file) in &listing.files {
                        self.put(&file.sha256, &at.join(below.as_str()), &mut made, linking)?;
                    }
                }
            }
        }
        Ok(())
    }

    fn put(
        &self,
        hash: &Hash,
        at: &Path,
        made: &mut BTreeSet<PathBuf>,
        linking: bool,
    ) -> io::Result<()> {
        if let Some(parent) = at.parent()
            && !made.contains(parent)
        {
            fs::create_dir_all(parent)?;
            made.insert(parent.to_owned());
        }
        let from = self.inputs.path(hash);
        let linked = linking.then(|| fs::hard_link(&from, at));
        match linked {
            Some(Ok(())) => Ok(()),
            // Another disk, or more links than its file system counts. The copy is read-only, too.
            Some(Err(_)) | None => fs::copy(&from, at).map(drop),
        }
    }

    /// Whether the file at `path` of the task's folder is the input that was put there, unchanged.
    pub fn is_unchanged(&self, path: &str, file: &Path, about: &Metadata) -> bool {
        let Some(hash) = self.input_at(path) else {
            return false;
        };
        if let Ok(kept) = fs::metadata(self.inputs.path(&hash))
            && is_same(&kept, about)
        {
            return true;
        }
        // A copy, or other bytes; or the same ones, written anew.
        hash_file(file).is_ok_and(|(is, _)| is == hash)
    }

    fn input_at(&self, path: &str) -> Option<Hash> {
        self.parts.iter().find_map(|(outer, part)| match part {
            Part::File(hash) => (outer.as_str() == path).then_some(*hash),
            Part::Folder(listing) => {
                let below = path.strip_prefix(outer.as_str())?.strip_prefix('/')?;
                listing.files.get(below).map(|file| file.sha256)
            }
        })
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
