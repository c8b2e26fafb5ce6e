//! The input files of tasks: fetched once, kept on disk, shared by all tasks that name them.
//!
//! A task gets links to cached files in its folder, so a shared folder of a thousand files is
//! fetched once and never copied. [`guard`] says what keeps a guest from writing into files that
//! others see.

pub mod cache_folder;
pub mod file_cache;
pub mod guard;
pub mod placement;

use crate::cache::{LoadAbandoned, SingleFlightCache};
use crate::fault::MachineFault;
use crate::fetch::FetchFile;
use file_cache::{FileCacheError, InputFileCache};
use placement::{InputPlacement, InputSource, PlacedInput};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use taskmaster_protocol::files::BadPath;
use taskmaster_protocol::{FilePath, Hash, InputRef, Listing, limits};

/// Listings of folders kept in memory. Each has at most 4 MiB, and most have a hundredth of that.
const LISTINGS_MAX: usize = 64;

/// Default size of the cache, bytes.
pub const CACHE_BYTES_DEFAULT: u64 = 10 << 30;

/// Why the inputs of a task are not there.
#[derive(Debug, thiserror::Error)]
pub enum InputError {
    /// A file could not be had.
    #[error(transparent)]
    File(#[from] FileCacheError),
    /// The listing of a folder could not be read.
    #[error("the input folder `{path}`: {why}")]
    Folder {
        /// The path of the folder in the task's folder.
        path: FilePath,
        /// What is wrong with the listing.
        why: ListingError,
    },
    /// One folder may not hold as many files.
    #[error(
        "its inputs are {0} files, at most {max} are allowed for one task",
        max = limits::FOLDER_FILES_MAX
    )]
    TooManyFiles(usize),
}

/// Why the listing of a folder could not be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ListingError {
    /// The file could not be read.
    #[error("{0}")]
    Unreadable(String),
    /// The file is no listing.
    #[error(transparent)]
    NoListing(#[from] BadPath),
    /// The runner is ending.
    #[error(transparent)]
    Abandoned(#[from] LoadAbandoned),
}

impl InputError {
    /// The fault of this machine, where the task is not to blame.
    pub fn fault(&self) -> Option<MachineFault> {
        match self {
            InputError::File(error) => error.fault(),
            InputError::Folder {
                path,
                why: ListingError::Unreadable(why),
            } => {
                let what = format!("the input folder `{path}` could not be read");
                Some(MachineFault::of_machine(what, why))
            }
            InputError::Folder {
                why: ListingError::NoListing(_) | ListingError::Abandoned(_),
                ..
            }
            | InputError::TooManyFiles(_) => None,
        }
    }
}

/// The inputs of all tasks of this runner.
pub struct TaskInputs {
    files: Arc<InputFileCache>,
    listings: Arc<SingleFlightCache<Hash, Arc<Listing>, ListingError>>,
}

impl TaskInputs {
    /// Keeps files in `folder`, or in a folder beside it if another process uses that one. The
    /// files have about `bytes_max` bytes together.
    pub fn open(folder: &Path, bytes_max: u64, fetch: FetchFile) -> io::Result<TaskInputs> {
        let files = InputFileCache::open(folder, bytes_max, fetch)?;
        Ok(TaskInputs {
            files: Arc::new(files),
            listings: SingleFlightCache::new(LISTINGS_MAX),
        })
    }

    /// Gets everything that a task names, ready to be put into its folder.
    pub async fn gather(
        &self,
        wanted: &BTreeMap<FilePath, InputRef>,
    ) -> Result<InputPlacement, InputError> {
        let listings: BTreeSet<Hash> = wanted.values().filter_map(InputRef::listing).collect();
        let mut pinned = self.files.pin(listings).await?;

        let mut inputs = Vec::with_capacity(wanted.len());
        let mut hashes = BTreeSet::new();
        for (path, input) in wanted {
            let source = match input {
                InputRef::File { sha256 } => {
                    hashes.insert(*sha256);
                    InputSource::File(*sha256)
                }
                InputRef::Folder { folder } => {
                    let listing =
                        self.listing(*folder)
                            .await
                            .map_err(|why| InputError::Folder {
                                path: path.clone(),
                                why,
                            })?;
                    hashes.extend(listing.files.values().map(|file| file.sha256));
                    InputSource::Folder(listing)
                }
            };
            inputs.push(PlacedInput {
                path: path.clone(),
                source,
            });
        }

        let files: usize = inputs.iter().map(|input| input.source.files()).sum();
        if files > limits::FOLDER_FILES_MAX {
            return Err(InputError::TooManyFiles(files));
        }
        pinned.extend(self.files.pin(hashes).await?);
        Ok(InputPlacement::new(self.files.clone(), inputs, pinned))
    }

    /// The listing of a folder, whose file is pinned.
    async fn listing(&self, folder: Hash) -> Result<Arc<Listing>, ListingError> {
        if let Some(listing) = self.listings.ready(&folder) {
            return Ok(listing);
        }
        let load = read_listing(self.files.path(&folder));
        let listing = self.listings.join_or_begin(folder, load).result().await;
        if matches!(listing, Err(ListingError::Unreadable(_))) {
            self.files.forget_lost([folder]);
        }
        listing
    }

    /// Where the files are kept.
    pub fn folder(&self) -> &Path {
        self.files.folder()
    }

    /// Makes the folder anew, if somebody has removed it.
    pub fn make_anew(&self) -> io::Result<()> {
        self.files.make_anew()
    }
}

async fn read_listing(path: PathBuf) -> Result<Arc<Listing>, ListingError> {
    let read = tokio::task::spawn_blocking(move || {
        let bytes = fs::read(path).map_err(|error| ListingError::Unreadable(error.to_string()))?;
        Ok(Arc::new(Listing::decode(&bytes)?))
    });
    read.await.unwrap_or(Err(LoadAbandoned.into()))
}

#[cfg(test)]
mod tests;
