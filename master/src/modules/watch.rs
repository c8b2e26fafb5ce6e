//! The thread: woken by the file system, by the clock, or by somebody who wants a module.

use super::Wake;
use super::shelf::Shelf;
use notify::event::{AccessKind, AccessMode, ModifyKind, RenameMode};
use notify::{Event, EventKind, RecommendedWatcher, RecursiveMode, Watcher};
use std::collections::BTreeSet;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender};
use std::time::{Duration, Instant};

/// Between sweeps, where nothing is going on.
const CALM: Duration = Duration::from_millis(250);

/// Between sweeps, while a file is not yet certain or somebody waits.
const RESTLESS: Duration = Duration::from_millis(20);

pub(super) fn run(mut shelf: Shelf, wakes: &Receiver<Wake>, waker: Sender<Wake>) {
    let mut ears = Ears::new(waker);
    let mut closed = BTreeSet::new();
    loop {
        ears.attach(&shelf);
        shelf.sweep(&closed, Instant::now());
        closed.clear();
        let wait = if shelf.is_restless() { RESTLESS } else { CALM };
        let mut wake = match wakes.recv_timeout(wait) {
            Ok(wake) => Some(wake),
            Err(RecvTimeoutError::Timeout) => None,
            Err(RecvTimeoutError::Disconnected) => return,
        };
        while let Some(next) = wake {
            match next {
                Wake::Disk(paths) => closed.extend(paths),
                Wake::Look(name, version, reply) => {
                    shelf.look(name, version, reply, Instant::now())
                }
                Wake::Stop => return,
            }
            wake = wakes.try_recv().ok();
        }
    }
}

/// The ears on the folder. Without them (no inotify, a network file system) the sweeps are enough.
struct Ears {
    waker: Sender<Wake>,
    watcher: Option<RecommendedWatcher>,
    /// Device and inode of the folder listened to: it may be replaced by another of the same name.
    folder: Option<(u64, u64)>,
    deaf: bool,
}

impl Ears {
    fn new(waker: Sender<Wake>) -> Ears {
        Ears {
            waker,
            watcher: None,
            folder: None,
            deaf: false,
        }
    }

    fn attach(&mut self, shelf: &Shelf) {
        let Ok(metadata) = std::fs::metadata(shelf.folder()) else {
            return;
        };
        let is = Some((metadata.dev(), metadata.ino()));
        if self.folder == is {
            return;
        }
        self.folder = is;
        let waker = self.waker.clone();
        let hear = move |event: notify::Result<Event>| {
            // An error (a queue that ran over) means that something was missed: sweep.
            if let Some(paths) = event.map_or_else(|_| Some(Vec::new()), whole) {
                let _ = waker.send(Wake::Disk(paths));
            }
        };
        let made = notify::recommended_watcher(hear).and_then(|mut watcher| {
            watcher.watch(shelf.folder(), RecursiveMode::NonRecursive)?;
            Ok(watcher)
        });
        if let (Err(error), false) = (&made, self.deaf) {
            self.deaf = true;
            tracing::warn!(
                "the task folder does not tell of changes ({error}); it is looked through four times a second"
            );
        }
        self.watcher = made.ok();
    }
}

/// What an event is worth: the files that are whole by it, or `None` where it is not worth a sweep.
/// Our own reading makes events too, and every single write of a large file does.
fn whole(event: Event) -> Option<Vec<PathBuf>> {
    let ours = |path: &PathBuf| {
        path.extension().is_some_and(|end| {
            ["wasm", "wat", "toml", "sha256"]
                .iter()
                .any(|known| end == *known)
        })
    };
    if !event.paths.is_empty() && !event.paths.iter().any(ours) {
        return None;
    }
    match event.kind {
        EventKind::Access(AccessKind::Close(AccessMode::Write)) => Some(event.paths),
        EventKind::Modify(ModifyKind::Name(RenameMode::From)) | EventKind::Remove(_) => {
            Some(Vec::new())
        }
        EventKind::Modify(ModifyKind::Name(_)) => Some(event.paths),
        // A file just made is about to be written; a link is found whole by the sweep.
        EventKind::Create(_) => Some(Vec::new()),
        EventKind::Access(_) | EventKind::Modify(_) => event.need_rescan().then(Vec::new),
        EventKind::Any | EventKind::Other => Some(Vec::new()),
    }
}
