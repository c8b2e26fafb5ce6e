//! The watching thread. It is woken by the file system, by the clock, or by somebody who wants a
//! module.

use super::Wake;
use super::contents::FolderContents;
use notify::event::{AccessKind, AccessMode, ModifyKind, RenameMode};
use notify::{Event, EventKind, RecommendedWatcher, RecursiveMode, Watcher};
use std::collections::BTreeSet;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender};
use std::time::{Duration, Instant};

/// Time between sweeps while nothing happens.
const CALM_INTERVAL: Duration = Duration::from_millis(250);

/// Time between sweeps while a file is not certain yet or somebody waits.
const RESTLESS_INTERVAL: Duration = Duration::from_millis(20);

/// Files with other extensions are of no interest.
const EXTENSIONS: [&str; 4] = ["wasm", "wat", "toml", "sha256"];

pub(super) fn run(mut contents: FolderContents, wakes: &Receiver<Wake>, waker: Sender<Wake>) {
    let mut notifier = FolderNotifier::new(waker);
    let mut closed = BTreeSet::new();
    loop {
        notifier.attach(&contents);
        contents.sweep(&closed, Instant::now());
        closed.clear();
        let interval = if contents.is_restless() {
            RESTLESS_INTERVAL
        } else {
            CALM_INTERVAL
        };
        let mut wake = match wakes.recv_timeout(interval) {
            Ok(wake) => Some(wake),
            Err(RecvTimeoutError::Timeout) => None,
            Err(RecvTimeoutError::Disconnected) => return,
        };
        while let Some(next) = wake {
            match next {
                Wake::Changed(paths) => closed.extend(paths),
                Wake::Look(request) => contents.look(request, Instant::now()),
                Wake::Stop => return,
            }
            wake = wakes.try_recv().ok();
        }
    }
}

/// Tells the thread of changes in the folder. Where the file system does not tell (no inotify, a
/// network file system), the sweeps are enough.
struct FolderNotifier {
    waker: Sender<Wake>,
    watcher: Option<RecommendedWatcher>,
    /// Device and inode of the folder that is watched. The folder may be replaced by another one of
    /// the same name.
    folder: Option<(u64, u64)>,
    has_warned: bool,
}

impl FolderNotifier {
    fn new(waker: Sender<Wake>) -> FolderNotifier {
        FolderNotifier {
            waker,
            watcher: None,
            folder: None,
            has_warned: false,
        }
    }

    fn attach(&mut self, contents: &FolderContents) {
        let Ok(metadata) = std::fs::metadata(contents.folder()) else {
            return;
        };
        let folder = Some((metadata.dev(), metadata.ino()));
        if self.folder == folder {
            return;
        }
        self.folder = folder;
        self.watcher = match self.watch(contents) {
            Ok(watcher) => Some(watcher),
            Err(error) => {
                if !self.has_warned {
                    tracing::warn!(
                        "the task folder does not tell of changes ({error}); it is looked through \
                         four times a second"
                    );
                }
                self.has_warned = true;
                None
            }
        };
    }

    fn watch(&self, contents: &FolderContents) -> notify::Result<RecommendedWatcher> {
        let waker = self.waker.clone();
        let hear = move |event: notify::Result<Event>| {
            // An error (a queue that ran over) means that something was missed, so sweep.
            if let Some(paths) = event.map_or_else(|_| Some(Vec::new()), whole_files) {
                let _ = waker.send(Wake::Changed(paths));
            }
        };
        let mut watcher = notify::recommended_watcher(hear)?;
        watcher.watch(contents.folder(), RecursiveMode::NonRecursive)?;
        Ok(watcher)
    }
}

/// The files that are whole after an event, or `None` where the event is not worth a sweep: our own
/// reading makes events too, and so does every single write of a large file.
fn whole_files(event: Event) -> Option<Vec<PathBuf>> {
    let is_of_interest = |path: &PathBuf| {
        let extension = path.extension();
        extension.is_some_and(|extension| EXTENSIONS.iter().any(|known| extension == *known))
    };
    if !event.paths.is_empty() && !event.paths.iter().any(is_of_interest) {
        return None;
    }
    match event.kind {
        EventKind::Access(AccessKind::Close(AccessMode::Write)) => Some(event.paths),
        EventKind::Modify(ModifyKind::Name(RenameMode::From)) | EventKind::Remove(_) => {
            Some(Vec::new())
        }
        EventKind::Modify(ModifyKind::Name(_)) => Some(event.paths),
        // A file that was just made is about to be written. The sweep finds a new link whole.
        EventKind::Create(_) => Some(Vec::new()),
        EventKind::Access(_) | EventKind::Modify(_) => event.need_rescan().then(Vec::new),
        EventKind::Any | EventKind::Other => Some(Vec::new()),
    }
}
