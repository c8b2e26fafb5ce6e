//! How one state of a file is told from another, and since when a file has not changed.

use std::fs::Metadata;
use std::os::unix::fs::MetadataExt;
use std::time::{Duration, Instant, SystemTime};

/// A change of a list or of a manifest counts when nothing has changed for this long, because many
/// programs empty a file before they write it anew.
pub(super) const TEXT_QUIET_TIME: Duration = Duration::from_millis(150);

/// A text that was changed less than this before it was read is read again: a second change in the
/// same tick of the file system's clock leaves the stamp as it is.
const CLOCK_TICK: Duration = Duration::from_secs(1);

/// The state of a file, as far as a `stat` tells it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct WatchedFileStamp {
    bytes: u64,
    modified_secs: i64,
    modified_nanos: i64,
    /// When the kernel saw the last change. Programs can set the other time, as `cp -p` does, and a
    /// file of the same length would look as if nothing had happened.
    changed_secs: i64,
    changed_nanos: i64,
    device: u64,
    inode: u64,
}

impl WatchedFileStamp {
    pub(super) fn of(metadata: &Metadata) -> WatchedFileStamp {
        WatchedFileStamp {
            bytes: metadata.len(),
            modified_secs: metadata.mtime(),
            modified_nanos: metadata.mtime_nsec(),
            changed_secs: metadata.ctime(),
            changed_nanos: metadata.ctime_nsec(),
            device: metadata.dev(),
            inode: metadata.ino(),
        }
    }

    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// When the file was last written, by the wall clock.
    fn modified(&self) -> SystemTime {
        time(self.modified_secs, self.modified_nanos)
    }

    /// Whether the file was read so long after its last change that a further change would show in
    /// its stamp. A time in the future is of a clock that says nothing.
    pub(super) fn is_settled_at(&self, read: SystemTime) -> bool {
        let changed = time(self.changed_secs, self.changed_nanos);
        [changed, self.modified()]
            .into_iter()
            .all(|time| time > read || time + CLOCK_TICK <= read)
    }

    /// Whether the file was last written longer ago than `age`. A time in the future is not.
    pub(super) fn is_older_than(&self, age: Duration) -> bool {
        self.modified().elapsed().is_ok_and(|is| is > age)
    }

    /// Whether the file was last written within `age`. A time in the future is not.
    pub(super) fn is_younger_than(&self, age: Duration) -> bool {
        self.modified().elapsed().is_ok_and(|is| is < age)
    }
}

fn time(secs: i64, nanos: i64) -> SystemTime {
    let secs = u64::try_from(secs).unwrap_or(0);
    let nanos = u32::try_from(nanos).unwrap_or(0);
    SystemTime::UNIX_EPOCH + Duration::new(secs, nanos)
}

/// The state of a file, or that there is none, and since when it has been so.
#[derive(Debug, Clone, Copy)]
pub(super) struct Unchanged {
    stamp: Option<WatchedFileStamp>,
    since: Instant,
}

impl Unchanged {
    pub(super) fn new(stamp: Option<WatchedFileStamp>, since: Instant) -> Unchanged {
        Unchanged { stamp, since }
    }

    pub(super) fn stamp(&self) -> Option<WatchedFileStamp> {
        self.stamp
    }

    pub(super) fn since(&self) -> Instant {
        self.since
    }

    /// Notes the state that was seen now. True where it is another one than before.
    pub(super) fn see(&mut self, stamp: Option<WatchedFileStamp>, now: Instant) -> bool {
        let is_changed = self.stamp != stamp;
        if is_changed {
            *self = Unchanged::new(stamp, now);
        }
        is_changed
    }

    /// How long the file has been in its state.
    pub(super) fn time(&self, now: Instant) -> Duration {
        now.duration_since(self.since)
    }
}
