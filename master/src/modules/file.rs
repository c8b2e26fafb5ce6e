//! One file of the task folder: whether it still changes, and what its bytes are.

use super::inspecting::{PendingInspection, Progress, ReadError, ReadFile};
use super::stamp::{Unchanged, WatchedFileStamp};
use std::fs::File;
use std::io::{self, Read};
use std::path::Path;
use std::time::{Duration, Instant};
use taskmaster_blobs::Blobs;
use taskmaster_engine::inbox::ModuleFile;
use taskmaster_protocol::{Hash, limits};

/// A file that nobody is known to have closed is read when it has not changed for this long. Some
/// file systems do not tell when a file is closed.
const QUIET_TIME: Duration = Duration::from_millis(100);

/// A file that is no module is called so when it has not changed for this long, because it may be
/// half written.
pub(super) const FINAL_AFTER: Duration = Duration::from_millis(300);

/// A file that was last written longer ago than this is not being written now. The times of some
/// file systems are whole seconds.
const OLD_AFTER: Duration = Duration::from_millis(1_300);

/// What is known of a file.
#[derive(Debug)]
pub(super) struct WatchedFile {
    /// The state that the last sweep saw.
    state: Unchanged,
    /// When the file was first seen, or last read.
    tried_at: Instant,
    last_read: Option<ReadFile>,
    /// The bytes that were read are being looked into.
    inspecting: Option<PendingInspection>,
    /// Reading the file again would find nothing new.
    is_final: bool,
    /// The file is missing since this time.
    missing_since: Option<Instant>,
    /// Why it could not be read or kept. An error is logged once.
    last_error: Option<String>,
}

impl WatchedFile {
    pub(super) fn new(stamp: WatchedFileStamp, now: Instant) -> WatchedFile {
        WatchedFile {
            state: Unchanged::new(Some(stamp), now),
            tried_at: now,
            last_read: None,
            inspecting: None,
            is_final: false,
            missing_since: None,
            last_error: None,
        }
    }

    /// Notes that a sweep saw the file.
    pub(super) fn see(&mut self, stamp: WatchedFileStamp, now: Instant) {
        self.missing_since = None;
        if self.state.see(Some(stamp), now) {
            self.is_final = false;
        }
    }

    /// Notes that a sweep did not see the file. True where it has been missing so long that it is
    /// gone: many programs replace a file by removing it first.
    pub(super) fn miss(&mut self, now: Instant) -> bool {
        let since = *self.missing_since.get_or_insert(now);
        now.duration_since(since) >= QUIET_TIME
    }

    /// Whether a sweep must come again soon.
    pub(super) fn is_restless(&self) -> bool {
        !self.is_final || self.missing_since.is_some()
    }

    /// Whether what was read is being looked into.
    pub(super) fn is_being_inspected(&self) -> bool {
        self.inspecting.is_some()
    }

    /// Whether the file should be read now. `is_wanted` says that whoever wrote it has closed it,
    /// or that somebody waits for it.
    pub(super) fn is_due(&self, now: Instant, is_wanted: bool) -> bool {
        if self.missing_since.is_some() {
            return false;
        }
        if is_wanted {
            return true;
        }
        if self.is_final {
            return false;
        }
        let unchanged = self.unchanged_for(now);
        let untried = now.duration_since(self.tried_at);
        let is_read = self.is_read();
        // The last read happens even with the stamp of the read before: a second write within one
        // tick of the file system's clock leaves the stamp as it is.
        if unchanged >= FINAL_AFTER && (is_read || untried >= QUIET_TIME) {
            return true;
        }
        let is_quiet = unchanged >= QUIET_TIME && untried >= QUIET_TIME;
        // A file that is rewritten all the time is never quiet and is read all the same.
        !is_read && (is_quiet || untried >= FINAL_AFTER || self.is_old_at_first_sight())
    }

    /// Whether the state that the last sweep saw was read.
    pub(super) fn is_read(&self) -> bool {
        self.last_read
            .as_ref()
            .is_some_and(|read| self.is_as_seen(read))
    }

    fn is_as_seen(&self, read: &ReadFile) -> bool {
        self.state.stamp() == Some(read.stamp)
    }

    fn is_old_at_first_sight(&self) -> bool {
        let is_old = |stamp: WatchedFileStamp| stamp.is_older_than(OLD_AFTER);
        self.last_read.is_none()
            && self.state.since() == self.tried_at
            && self.state.stamp().is_some_and(is_old)
    }

    /// Reads the file, if nobody writes meanwhile, and has the bytes looked into.
    pub(super) fn read(&mut self, path: &Path, stem: &str, blobs: &Blobs, now: Instant) {
        self.tried_at = now;
        let was_quiet = self.unchanged_for(now) >= FINAL_AFTER;
        match self.read_now(path, stem, blobs, was_quiet) {
            Ok(()) => self.look_at_inspection(path, true),
            Err(error) => self.note_error(path, &error),
        }
    }

    /// Takes what an inspection has found that was begun before, if it has ended.
    pub(super) fn look_again(&mut self, path: &Path) {
        self.look_at_inspection(path, false);
    }

    fn look_at_inspection(&mut self, path: &Path, is_new: bool) {
        let Some(pending) = self.inspecting.take() else {
            return;
        };
        let was_quiet = pending.was_quiet;
        match pending.progress(is_new) {
            Progress::Pending(pending) => self.inspecting = Some(pending),
            Progress::Ended(Ok(read)) => self.take(read, was_quiet),
            Progress::Ended(Err(error)) => self.note_error(path, &error),
        }
    }

    fn take(&mut self, read: ReadFile, was_quiet: bool) {
        // A file that has changed after the last sweep has not been quiet.
        self.is_final = was_quiet && self.is_as_seen(&read);
        self.last_read = Some(read);
        self.last_error = None;
    }

    fn note_error(&mut self, path: &Path, error: &ReadError) {
        if matches!(error, ReadError::Changing) {
            return;
        }
        let text = error.to_string();
        if self.last_error.as_ref() != Some(&text) {
            tracing::warn!(file = %path.display(), "{text}");
        }
        self.last_error = Some(text);
    }

    fn read_now(
        &mut self,
        path: &Path,
        stem: &str,
        blobs: &Blobs,
        was_quiet: bool,
    ) -> Result<(), ReadError> {
        let WholeFile { stamp, bytes } = read_whole(path)?;
        let Some(bytes) = bytes else {
            let hash = Hash::of(b"");
            let seen = too_large(stamp.bytes());
            self.take(ReadFile { stamp, hash, seen }, was_quiet);
            return Ok(());
        };
        if let Some(last) = &self.last_read
            && Hash::of(&bytes) == last.hash
            && is_still_kept(last, blobs)
        {
            let hash = last.hash;
            let seen = last.seen.clone();
            self.take(ReadFile { stamp, hash, seen }, was_quiet);
            return Ok(());
        }
        let pending = PendingInspection::begin(stem, stamp, bytes, blobs, was_quiet)?;
        self.inspecting = Some(pending);
        Ok(())
    }

    /// What the file is, as far as that is certain. A sound module is certain at once, and anything
    /// else when the file is final.
    pub(super) fn verdict(&self) -> Option<&ModuleFile> {
        let seen = &self.last_read.as_ref()?.seen;
        let is_sound = matches!(seen, ModuleFile::Sound { .. });
        (self.is_final || is_sound).then_some(seen)
    }

    /// How long the file has been as it is.
    pub(super) fn unchanged_for(&self, now: Instant) -> Duration {
        self.state.time(now)
    }
}

fn is_still_kept(read: &ReadFile, blobs: &Blobs) -> bool {
    match read.seen {
        ModuleFile::Sound { .. } => blobs.exists(&read.hash),
        ModuleFile::Unsound { .. } | ModuleFile::Gone => true,
    }
}

fn too_large(bytes: u64) -> ModuleFile {
    let most = limits::MODULE_BYTES_MAX;
    ModuleFile::Unsound {
        error: format!("the file has {bytes} bytes; a module may have at most {most}"),
    }
}

/// A file as it was at one moment.
struct WholeFile {
    stamp: WatchedFileStamp,
    /// `None` where the file is too large.
    bytes: Option<Vec<u8>>,
}

/// Reads a file. It must be the same before and after that.
fn read_whole(path: &Path) -> Result<WholeFile, ReadError> {
    let read_error = |error: io::Error| match error.kind() {
        io::ErrorKind::NotFound => ReadError::Changing,
        _ => ReadError::Unreadable(error),
    };
    let mut file = File::open(path).map_err(read_error)?;
    let metadata = file.metadata().map_err(read_error)?;
    let before = WatchedFileStamp::of(&metadata);
    if !metadata.is_file() {
        return Err(ReadError::Changing);
    }
    if before.bytes() > limits::MODULE_BYTES_MAX {
        return Ok(WholeFile {
            stamp: before,
            bytes: None,
        });
    }

    let mut bytes = Vec::with_capacity(usize::try_from(before.bytes()).unwrap_or(0));
    (&mut file)
        .take(limits::MODULE_BYTES_MAX + 1)
        .read_to_end(&mut bytes)
        .map_err(read_error)?;
    let after = WatchedFileStamp::of(&file.metadata().map_err(read_error)?);
    if before != after || bytes.len() as u64 != after.bytes() {
        return Err(ReadError::Changing);
    }
    Ok(WholeFile {
        stamp: after,
        bytes: Some(bytes),
    })
}
