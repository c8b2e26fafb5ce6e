//! The task folder: what is dropped there is live, without a restart.
//!
//! One thread watches it: `notify` tells at once, a sweep four times a second finds what it does
//! not tell (network file systems, a link's target). A file is read once, into memory; those bytes
//! are hashed, validated and kept as a blob before the engine hears of them. So nobody ever runs
//! half a file, and what happens to the file afterwards harms nobody.

mod file;
mod list;
mod manifests;
#[cfg(test)]
pub(crate) mod scratch;
mod shelf;
#[cfg(test)]
mod tests;
mod watch;

use crate::handle::MasterHandle;
use list::List;
use manifests::Manifests;
use shelf::Shelf;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock, mpsc};
use taskmaster_blobs::Blobs;
use taskmaster_module::manifest::Manifest;
use taskmaster_protocol::{Hash, ModuleName, Refusal};
use tokio::sync::oneshot;

/// Names under which tasks can be added, as far as is known: for those who ask without waiting.
type Known = BTreeSet<ModuleName>;

/// What the watching thread is woken by.
enum Wake {
    /// Something happened in the folder; the files of these paths are whole.
    Disk(Vec<PathBuf>),
    /// Somebody wants a module of this name, or this version of it.
    Look(ModuleName, Option<Hash>, oneshot::Sender<Found>),
    /// Nobody holds a [`Folder`] any more.
    Stop,
}

/// The answer to a look.
enum Found {
    /// No sound module of that name.
    No,
    /// There is one; wait for the engine to have heard of it where a receiver comes with it.
    Yes(Option<oneshot::Receiver<()>>),
}

/// The task folder, for those who want a module. Clones share it; the thread ends with the last.
#[derive(Clone)]
pub struct Folder {
    path: Arc<Path>,
    known: Arc<RwLock<Known>>,
    manifests: Arc<Manifests>,
    waker: Arc<Waker>,
}

struct Waker(mpsc::Sender<Wake>);

impl Drop for Waker {
    fn drop(&mut self) {
        let _ = self.0.send(Wake::Stop);
    }
}

/// Watches `folder` from now on; makes it where it is missing. With `require_approved` the list in
/// it says which modules may be used. `known` are the names that the engine has: those whose files
/// are gone are told so.
pub fn start(
    folder: &Path,
    blobs: Blobs,
    handle: MasterHandle,
    known: Vec<ModuleName>,
    require_approved: bool,
) -> Result<Folder, String> {
    let shown = folder.display();
    std::fs::create_dir_all(folder).map_err(|error| {
        format!("the task folder {shown} cannot be made: {error}; choose another with --tasks")
    })?;
    std::fs::read_dir(folder)
        .map_err(|error| format!("the task folder {shown} cannot be read: {error}"))?;
    let path: Arc<Path> = folder
        .canonicalize()
        .map_err(|error| format!("the task folder {shown} cannot be read: {error}"))?
        .into();
    let (sender, wakes) = mpsc::channel();
    // The engine keeps versions of what it knows: a task of that name can be taken before the first
    // look is over.
    let listed = Arc::new(RwLock::new(known.iter().cloned().collect::<Known>()));
    let manifests = Arc::<Manifests>::default();
    let list = require_approved.then(|| List::of(&path));
    let shelf = Shelf::new(
        path.clone(),
        blobs,
        handle,
        listed.clone(),
        (known, manifests.clone(), list),
    );
    let waker = sender.clone();
    std::thread::Builder::new()
        .name("task folder".into())
        .spawn(move || watch::run(shelf, &wakes, waker))
        .map_err(|error| format!("no thread for the task folder: {error}"))?;
    Ok(Folder {
        path,
        known: listed,
        manifests,
        waker: Arc::new(Waker(sender)),
    })
}

impl Folder {
    /// Looks for a module of this name now, and waits until the engine knows it. A file that is
    /// being written is given a moment. False where there is no sound module of that name.
    pub async fn look(&self, name: &ModuleName) -> bool {
        self.seek(name, None).await
    }

    /// The same for one version of it, whose file was just written.
    pub async fn look_for(&self, name: &ModuleName, version: Hash) -> bool {
        self.seek(name, Some(version)).await
    }

    async fn seek(&self, name: &ModuleName, version: Option<Hash>) -> bool {
        let (reply, found) = oneshot::channel();
        if self
            .waker
            .0
            .send(Wake::Look(name.clone(), version, reply))
            .is_err()
        {
            return false;
        }
        match found.await {
            Ok(Found::Yes(None)) => true,
            Ok(Found::Yes(Some(known))) => {
                // An engine that is stopping answers nobody; its refusal of the add says so.
                let _ = known.await;
                true
            }
            Ok(Found::No) | Err(_) => false,
        }
    }

    /// Every name under which a task can be added.
    pub fn names(&self) -> Vec<ModuleName> {
        self.known
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .iter()
            .cloned()
            .collect()
    }

    /// Whether a task of this name can be added without a look.
    pub fn knows(&self, name: &ModuleName) -> bool {
        self.known
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .contains(name)
    }

    /// The manifest beside a module, as it stands now; `None`: there is none. Reads the disk, a
    /// little.
    pub fn manifest(&self, name: &ModuleName) -> Result<Option<Arc<Manifest>>, Refusal> {
        self.manifests.of(&self.path, name)
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }
}
