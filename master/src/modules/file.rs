//! One file of the task folder: whether it has come to rest, and what its bytes are.

use std::fs::{File, Metadata};
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::{Duration, Instant, SystemTime};
use taskmaster_blobs::Blobs;
use taskmaster_engine::inbox::Seen;
use taskmaster_protocol::{Hash, limits};

/// A file that nobody closed (a file system that does not tell) is read when it has not changed for
/// this long.
const QUIET: Duration = Duration::from_millis(100);

/// A file that is no module is called so when it has not changed for this long: it may be half
/// written.
pub(super) const SETTLED: Duration = Duration::from_millis(300);

/// Tells one state of a file from another, by what a `stat` costs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Stamp {
    bytes: u64,
    modified: (i64, i64),
    inode: (u64, u64),
}

impl Stamp {
    pub(super) fn of(metadata: &Metadata) -> Stamp {
        Stamp {
            bytes: metadata.len(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            inode: (metadata.dev(), metadata.ino()),
        }
    }

    /// Whether it was last written some time ago, by the wall clock: nobody is at it now.
    fn is_old(&self) -> bool {
        let modified = u64::try_from(self.modified.0).unwrap_or(0);
        let since = SystemTime::now()
            .duration_since(SystemTime::UNIX_EPOCH)
            .unwrap_or_default();
        since > Duration::from_secs(modified.saturating_add(1)) + SETTLED
    }
}

/// What is known of a file.
#[derive(Debug)]
pub(super) struct Watched {
    stamp: Stamp,
    /// When this stamp was first seen.
    since: Instant,
    /// When the file was first seen, or last read.
    tried: Instant,
    /// What was read last: its hash and what it is.
    read: Option<(Stamp, Hash, Seen)>,
    /// Nothing is expected to be found by reading it again.
    settled: bool,
    /// When it was first missed.
    absent: Option<Instant>,
    /// Why it could not be read or kept; told once.
    trouble: Option<String>,
}

impl Watched {
    pub(super) fn new(stamp: Stamp, now: Instant) -> Watched {
        Watched {
            stamp,
            since: now,
            tried: now,
            read: None,
            settled: false,
            absent: None,
            trouble: None,
        }
    }

    /// A sweep saw it.
    pub(super) fn seen(&mut self, stamp: Stamp, now: Instant) {
        self.absent = None;
        if self.stamp != stamp {
            (self.stamp, self.since, self.settled) = (stamp, now, false);
        }
    }

    /// A sweep did not see it. True where it has been missing so long that it is gone: many
    /// programs replace a file by removing it first.
    pub(super) fn missed(&mut self, now: Instant) -> bool {
        let since = *self.absent.get_or_insert(now);
        now.duration_since(since) >= QUIET
    }

    /// Whether a sweep must come again soon.
    pub(super) fn is_restless(&self) -> bool {
        !self.settled || self.absent.is_some()
    }

    /// Whether it should be read now. `wanted`: it was closed by who wrote it, or somebody waits
    /// for it.
    pub(super) fn is_due(&self, now: Instant, wanted: bool) -> bool {
        if self.absent.is_some() {
            return false;
        }
        let (quiet, untried) = (
            now.duration_since(self.since),
            now.duration_since(self.tried),
        );
        let judged = self.is_judged();
        // Read once more when it has settled, even with the same stamp: a second write within one
        // tick of the file system's clock leaves the stamp as it is.
        let rest = !self.settled && quiet >= SETTLED && (judged || untried >= QUIET);
        // A file that is rewritten all the time is never quiet: read it all the same, now and then.
        wanted
            || rest
            || (!self.settled
                && !judged
                && (quiet >= QUIET && untried >= QUIET
                    || untried >= SETTLED
                    || self.is_fresh_and_old()))
    }

    /// Whether what the last sweep saw was read.
    pub(super) fn is_judged(&self) -> bool {
        self.read
            .as_ref()
            .is_some_and(|(stamp, ..)| *stamp == self.stamp)
    }

    fn is_fresh_and_old(&self) -> bool {
        self.read.is_none() && self.since == self.tried && self.stamp.is_old()
    }

    /// Reads it, if nobody writes meanwhile; keeps the bytes of a sound module.
    pub(super) fn read(&mut self, path: &Path, stem: &str, blobs: &Blobs, now: Instant) {
        self.tried = now;
        let settled = now.duration_since(self.since) >= SETTLED;
        let known = self.read.as_ref().map(|(_, hash, seen)| (*hash, seen));
        match judge(path, stem, known, blobs) {
            Ok(Some(read)) => {
                // What changed after the last sweep has not been quiet.
                self.settled = settled && read.0 == self.stamp;
                self.read = Some(read);
                self.trouble = None;
            }
            Ok(None) => {}
            Err(error) => {
                if self.trouble.as_ref() != Some(&error) {
                    tracing::warn!(file = %path.display(), "{error}");
                }
                self.trouble = Some(error);
            }
        }
    }

    /// What it is, as far as that is certain. A sound module is one at once; the rest is certain
    /// when it has settled.
    pub(super) fn verdict(&self) -> Option<&Seen> {
        let (_, _, seen) = self.read.as_ref()?;
        (self.settled || matches!(seen, Seen::Sound { .. })).then_some(seen)
    }

    /// How long it has been as it is.
    pub(super) fn quiet(&self, now: Instant) -> Duration {
        now.duration_since(self.since)
    }
}

/// Reads and validates. `None`: somebody wrote meanwhile, or it is gone. An error: it cannot be
/// read, or not be kept.
fn judge(
    path: &Path,
    stem: &str,
    known: Option<(Hash, &Seen)>,
    blobs: &Blobs,
) -> Result<Option<(Stamp, Hash, Seen)>, String> {
    let (stamp, bytes) = match read_whole(path) {
        Ok(Whole::Read(stamp, bytes)) => (stamp, bytes),
        Ok(Whole::TooLarge(stamp)) => {
            return Ok(Some((stamp, Hash::of(b""), too_large(stamp.bytes))));
        }
        Ok(Whole::Changing) => return Ok(None),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(format!("the file cannot be read: {error}")),
    };
    if let Some((hash, seen)) = known
        && Hash::of(&bytes) == hash
        && !matches!(seen, Seen::Sound { .. } if !blobs.exists(&hash))
    {
        return Ok(Some((stamp, hash, seen.clone())));
    }
    // A panic would be a bug of the validator's; the folder must outlive it.
    let check = std::panic::catch_unwind(|| taskmaster_module::inspect(stem, &bytes)).ok();
    let (hash, seen) = match check {
        None => (
            Hash::of(&bytes),
            Seen::Unsound {
                error: "the validator failed on it; the log has more".into(),
            },
        ),
        Some(check) => {
            let check = check.check;
            let hash = check.version.unwrap_or_else(|| Hash::of(&bytes));
            match (check.kind, check.error) {
                (Some(kind), None) => (
                    hash,
                    Seen::Sound {
                        version: hash,
                        kind,
                        bytes: stamp.bytes,
                        wants: None,
                    },
                ),
                (_, error) => (
                    hash,
                    Seen::Unsound {
                        error: error.unwrap_or_else(|| "it cannot be run".into()),
                    },
                ),
            }
        }
    };
    if matches!(seen, Seen::Sound { .. }) {
        blobs
            .put_hashed(hash, &bytes)
            .map_err(|error| format!("the module cannot be kept: {error}"))?;
    }
    Ok(Some((stamp, hash, seen)))
}

fn too_large(bytes: u64) -> Seen {
    let max = limits::MODULE_BYTES_MAX;
    Seen::Unsound {
        error: format!("the file has {bytes} bytes; a module may have at most {max}"),
    }
}

enum Whole {
    Read(Stamp, Vec<u8>),
    TooLarge(Stamp),
    Changing,
}

/// The file as it was at one moment: the same before and after it was read.
fn read_whole(path: &Path) -> io::Result<Whole> {
    let mut file = File::open(path)?;
    let metadata = file.metadata()?;
    let before = Stamp::of(&metadata);
    if !metadata.is_file() {
        return Ok(Whole::Changing);
    }
    if before.bytes > limits::MODULE_BYTES_MAX {
        return Ok(Whole::TooLarge(before));
    }
    let mut bytes = Vec::with_capacity(usize::try_from(before.bytes).unwrap_or(0));
    (&mut file)
        .take(limits::MODULE_BYTES_MAX + 1)
        .read_to_end(&mut bytes)?;
    let after = Stamp::of(&file.metadata()?);
    Ok(if before == after && bytes.len() as u64 == after.bytes {
        Whole::Read(after, bytes)
    } else {
        Whole::Changing
    })
}
