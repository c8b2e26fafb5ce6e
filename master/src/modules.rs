//! The task folder: a module that is dropped there is live without a restart.
//!
//! One thread watches the folder. `notify` tells it of changes at once, and a sweep four times a
//! second finds what `notify` does not tell (on network file systems, or when the target of a link
//! changes). A file is read once, into memory; those bytes are hashed, validated beside the thread
//! and kept as a blob before the engine hears of them. So nobody ever runs half a file, and what happens to the file
//! afterwards harms nobody.

mod approved;
mod contents;
mod file;
mod inspecting;
mod looks;
mod manifests;
#[cfg(test)]
pub(crate) mod scratch;
mod stamp;
mod sweeps;
#[cfg(test)]
mod tests;
mod wants;
mod watch;

use crate::handle::MasterHandle;
use approved::ApprovedList;
use contents::FolderContents;
use manifests::Manifests;
use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock, mpsc};
use std::thread::JoinHandle;
use sweeps::Sweeps;
use taskmaster_blobs::Blobs;
use taskmaster_console::long_lived;
use taskmaster_module::manifest::Manifest;
use taskmaster_protocol::{Hash, ModuleName, Refusal};
use tokio::sync::oneshot;

/// What a task folder is watched with.
pub struct FolderConfig<'a> {
    /// The folder. It is made where it is missing.
    pub path: &'a Path,
    /// Where the bytes of modules are kept.
    pub blobs: Blobs,
    /// Tells the engine.
    pub handle: MasterHandle,
    /// The modules that the engine knows. It is told of those whose files are gone.
    pub known: Vec<ModuleName>,
    /// The list in the folder says which modules may be used.
    pub require_approved: bool,
}

/// Why the task folder cannot be watched; a sentence with what to do.
#[derive(Debug, thiserror::Error)]
pub enum FolderError {
    /// It is not there and cannot be made.
    #[error("the task folder {0} cannot be made: {1}; choose another with --tasks")]
    Make(PathBuf, io::Error),
    /// It cannot be read.
    #[error("the task folder {0} cannot be read: {1}")]
    Read(PathBuf, io::Error),
    /// The operating system gives no thread.
    #[error("no thread for the task folder: {0}")]
    Thread(io::Error),
}

/// Names under which tasks can be added, as far as is known, for those who ask without waiting.
/// Clones share them.
#[derive(Clone)]
struct KnownNames(Arc<RwLock<BTreeSet<ModuleName>>>);

impl KnownNames {
    fn new(names: &[ModuleName]) -> KnownNames {
        KnownNames(Arc::new(RwLock::new(names.iter().cloned().collect())))
    }

    fn contains(&self, name: &ModuleName) -> bool {
        let names = self.0.read().unwrap_or_else(PoisonError::into_inner);
        names.contains(name)
    }

    fn all(&self) -> Vec<ModuleName> {
        let names = self.0.read().unwrap_or_else(PoisonError::into_inner);
        names.iter().cloned().collect()
    }

    fn insert(&self, name: ModuleName) {
        let mut names = self.0.write().unwrap_or_else(PoisonError::into_inner);
        names.insert(name);
    }

    fn remove(&self, name: &ModuleName) {
        let mut names = self.0.write().unwrap_or_else(PoisonError::into_inner);
        names.remove(name);
    }
}

/// What wakes the watching thread.
enum Wake {
    /// Something happened in the folder. The files with these paths are whole.
    Changed(Vec<PathBuf>),
    /// Somebody wants a module.
    Look(LookRequest),
    /// Nobody holds a [`ModuleFolder`] any more.
    Stop,
}

/// A wish for a module of a name.
struct LookRequest {
    name: ModuleName,
    /// Only this version will do.
    version: Option<Hash>,
    reply: oneshot::Sender<LookAnswer>,
}

/// The answer to a look.
enum LookAnswer {
    /// There is no sound module of that name.
    NotFound,
    /// There is one. Where a receiver comes with it, the engine has not heard of the module yet,
    /// and the receiver tells when it has.
    Found(Option<oneshot::Receiver<()>>),
}

/// The task folder, for those who want a module. Clones share it. The thread ends with the last
/// one.
#[derive(Clone)]
pub struct ModuleFolder {
    path: Arc<Path>,
    known: KnownNames,
    manifests: Arc<Manifests>,
    sweeps: Sweeps,
    thread: Arc<JoinHandle<()>>,
    waker: Arc<Waker>,
}

/// Wakes the watching thread, and stops it when this is dropped.
struct Waker(mpsc::Sender<Wake>);

impl Drop for Waker {
    fn drop(&mut self) {
        let _ = self.0.send(Wake::Stop);
    }
}

/// Watches a folder from now on.
pub fn start(config: FolderConfig<'_>) -> Result<ModuleFolder, FolderError> {
    let path: Arc<Path> = open(config.path)?.into();
    let (sender, wakes) = mpsc::channel();
    // The engine keeps the versions of modules that it knows, so a task of such a name can be taken
    // before the first look is over.
    let known = KnownNames::new(&config.known);
    let manifests = Arc::<Manifests>::default();
    let sweeps = Sweeps::default();
    let approved = config.require_approved.then(|| ApprovedList::of(&path));
    let contents = FolderContents::new(contents::ContentsConfig {
        folder: path.clone(),
        blobs: config.blobs,
        handle: config.handle,
        known: known.clone(),
        expected: config.known,
        manifests: manifests.clone(),
        approved,
        sweeps: sweeps.clone(),
    });
    let waker = sender.clone();
    let thread = long_lived::spawn("task folder", move || watch::run(contents, &wakes, waker))
        .map_err(FolderError::Thread)?;
    Ok(ModuleFolder {
        path,
        known,
        manifests,
        sweeps,
        thread: Arc::new(thread),
        waker: Arc::new(Waker(sender)),
    })
}

/// Makes the folder where it is missing, and makes sure that it can be read. A path that is a link
/// stays one: it may be switched to another folder, which counts from then on.
fn open(path: &Path) -> Result<PathBuf, FolderError> {
    std::fs::create_dir_all(path).map_err(|error| FolderError::Make(path.to_owned(), error))?;
    std::fs::read_dir(path)
        .and_then(|_| std::path::absolute(path))
        .map_err(|error| FolderError::Read(path.to_owned(), error))
}

impl ModuleFolder {
    /// Looks for a module of this name now, and waits until the engine knows it. A file that is
    /// being written is given a moment. False where there is no sound module of that name.
    pub async fn look(&self, name: &ModuleName) -> bool {
        self.look_at(name, None).await
    }

    /// [`ModuleFolder::look`] for one version, whose file was just written.
    pub async fn look_for(&self, name: &ModuleName, version: Hash) -> bool {
        self.look_at(name, Some(version)).await
    }

    async fn look_at(&self, name: &ModuleName, version: Option<Hash>) -> bool {
        let (reply, answer) = oneshot::channel();
        let request = LookRequest {
            name: name.clone(),
            version,
            reply,
        };
        if self.waker.0.send(Wake::Look(request)).is_err() {
            return false;
        }
        match answer.await {
            Ok(LookAnswer::Found(None)) => true,
            Ok(LookAnswer::Found(Some(known))) => {
                // An engine that is stopping answers nobody. It refuses the add, which says so.
                let _ = known.await;
                true
            }
            Ok(LookAnswer::NotFound) | Err(_) => false,
        }
    }

    /// Every name under which a task can be added.
    pub fn names(&self) -> Vec<ModuleName> {
        self.known.all()
    }

    /// Whether a task of this name can be added without a look.
    pub fn knows(&self, name: &ModuleName) -> bool {
        self.known.contains(name)
    }

    /// The manifest beside a module, as it is now. `None` where there is none. Reads a little from
    /// the disk.
    pub fn manifest(&self, name: &ModuleName) -> Result<Option<Arc<Manifest>>, Refusal> {
        self.manifests.of(&self.path, name)
    }

    /// Why changes in the folder do not count at present, if so; a sentence.
    pub fn trouble(&self) -> Option<String> {
        let folder = self.path.display();
        if self.thread.is_finished() {
            return Some(format!(
                "nobody watches the task folder {folder} any more, so changes there do not count: \
                 start the master anew"
            ));
        }
        self.sweeps
            .trouble()
            .map(|why| format!("changes in the task folder {folder} do not count: {why}"))
    }

    /// Its path.
    pub fn path(&self) -> &Path {
        &self.path
    }
}
