//! Tells when something of a project may have changed, and what was typed.

use super::project::{Project, Sources};
use notify::{RecommendedWatcher, RecursiveMode, Watcher};
use std::io::BufRead;
use std::path::Path;
use std::time::Duration;
use taskmaster_protocol::Json;
use tokio::sync::mpsc;

/// Between looks where the file system says nothing: it may not be able to.
const CALM: Duration = Duration::from_millis(500);

/// How long a change is left alone: an editor writes in several steps.
const SETTLING: Duration = Duration::from_millis(50);

/// What woke the loop.
pub(super) enum Change {
    /// It may be worth a look.
    Look,
    /// A line was typed.
    Typed(String),
}

/// Ears on a folder and on stdin.
pub(super) struct Watching {
    lines: mpsc::Receiver<String>,
    looks: mpsc::Receiver<()>,
    typed: Option<Json>,
    _watcher: Option<RecommendedWatcher>,
}

impl Watching {
    /// Begins to listen.
    pub(super) fn start(folder: &Path) -> Watching {
        let (look, looks) = mpsc::channel(1);
        let heard = move |_: notify::Result<notify::Event>| {
            // One that waits is enough: all is looked at.
            let _ = look.try_send(());
        };
        let watcher = notify::recommended_watcher(heard)
            .ok()
            .and_then(|mut watcher| {
                watcher.watch(folder, RecursiveMode::Recursive).ok()?;
                Some(watcher)
            });
        let (line, lines) = mpsc::channel(16);
        // A thread that waits for stdin ends with the process.
        let _ = std::thread::Builder::new()
            .name("stdin".into())
            .spawn(move || {
                for text in std::io::stdin().lock().lines().map_while(Result::ok) {
                    if line.blocking_send(text).is_err() {
                        return;
                    }
                }
            });
        Watching {
            lines,
            looks,
            typed: None,
            _watcher: watcher,
        }
    }

    /// Waits for something to look at, at most [`CALM`].
    pub(super) async fn next(&mut self) -> Change {
        tokio::select! {
            Some(line) = self.lines.recv() => return Change::Typed(line),
            Some(()) = self.looks.recv() => {}
            () = tokio::time::sleep(CALM) => {}
        }
        tokio::time::sleep(SETTLING).await;
        Change::Look
    }

    /// Waits until the project's files are other ones.
    pub(super) async fn until_changed(&mut self, project: &Project, seen: &Sources) {
        loop {
            tokio::time::sleep(CALM).await;
            if project.sources() != *seen {
                return;
            }
        }
    }

    /// New params were typed.
    pub(super) fn typed(&mut self, params: Json) {
        self.typed = Some(params);
    }

    /// Whether new params were typed since the last time; they are put into `params`.
    pub(super) fn take_typed(&mut self, params: &mut Option<Json>) -> bool {
        let typed = self.typed.take();
        let is_new = typed.is_some();
        if is_new {
            *params = typed;
        }
        is_new
    }
}
