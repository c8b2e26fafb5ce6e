//! Tells when a file of a project may have changed, and what was typed.

use super::project::{Project, ProjectFiles};
use notify::{RecommendedWatcher, RecursiveMode, Watcher};
use std::io::BufRead;
use std::path::Path;
use std::time::Duration;
use taskmaster_console::long_lived;
use taskmaster_protocol::Json;
use tokio::sync::mpsc;

/// How often the files are looked at where the file system reports nothing: some cannot.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// How long a change is left alone, because an editor writes in several steps.
const DEBOUNCE: Duration = Duration::from_millis(50);

/// Lines that may wait to be taken.
const TYPED_LINES_MAX: usize = 16;

/// Why the loop goes on.
pub(super) enum WakeReason {
    /// A file may have changed.
    Look,
    /// A line was typed.
    Typed(String),
}

/// Watches a folder and stdin.
pub(super) struct ProjectWatcher {
    lines: mpsc::Receiver<String>,
    changes: mpsc::Receiver<()>,
    /// Params that were typed and not taken.
    typed: Option<Json>,
    /// Reports changes until it is dropped.
    _watcher: Option<RecommendedWatcher>,
}

impl ProjectWatcher {
    /// Begins to watch.
    pub(super) fn start(folder: &Path) -> ProjectWatcher {
        let (changed, changes) = mpsc::channel(1);
        ProjectWatcher {
            lines: typed_lines(),
            changes,
            typed: None,
            _watcher: watch_folder(folder, changed),
        }
    }

    /// Waits until there is something to look at, at most [`LOOK_EVERY`].
    pub(super) async fn next(&mut self) -> WakeReason {
        tokio::select! {
            Some(line) = self.lines.recv() => return WakeReason::Typed(line),
            Some(()) = self.changes.recv() => {}
            () = tokio::time::sleep(LOOK_EVERY) => {}
        }
        tokio::time::sleep(DEBOUNCE).await;
        WakeReason::Look
    }

    /// Waits until the project's files are other ones than `seen`.
    pub(super) async fn until_changed(&self, project: &Project, seen: &ProjectFiles) {
        loop {
            tokio::time::sleep(LOOK_EVERY).await;
            if project.files() != *seen {
                return;
            }
        }
    }

    /// Keeps params that were typed.
    pub(super) fn typed(&mut self, params: Json) {
        self.typed = Some(params);
    }

    /// Whether params were typed since the last time. They replace `params`.
    pub(super) fn take_typed(&mut self, params: &mut Option<Json>) -> bool {
        let typed = self.typed.take();
        let is_new = typed.is_some();
        if is_new {
            *params = typed;
        }
        is_new
    }
}

fn watch_folder(folder: &Path, changed: mpsc::Sender<()>) -> Option<RecommendedWatcher> {
    let report = move |_: notify::Result<notify::Event>| {
        // One report that waits is enough, because all files are looked at.
        let _ = changed.try_send(());
    };
    let mut watcher = notify::recommended_watcher(report).ok()?;
    watcher.watch(folder, RecursiveMode::Recursive).ok()?;
    Some(watcher)
}

fn typed_lines() -> mpsc::Receiver<String> {
    let (sender, receiver) = mpsc::channel(TYPED_LINES_MAX);
    // The thread ends with the process, because a read of stdin cannot be interrupted. Without the
    // thread nothing can be typed, and all else works.
    let _ = long_lived::spawn("stdin", move || {
        for line in std::io::stdin().lock().lines().map_while(Result::ok) {
            if sender.blocking_send(line).is_err() {
                return;
            }
        }
    });
    receiver
}
