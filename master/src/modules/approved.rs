//! The list of approved modules, `approved.sha256` in the task folder: lines as `sha256sum` writes
//! them. The hashes count, and the names are for people. The list counts as it is now. A list that
//! is not there approves nothing.

use super::stamp::{TEXT_QUIET_TIME, Unchanged, WatchedFileStamp};
use std::collections::{BTreeSet, HashSet};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Instant, SystemTime};
use taskmaster_engine::engine::LIST;
use taskmaster_protocol::Hash;

/// Bytes of the list: some hundred thousand lines.
const LIST_BYTES_MAX: u64 = 64 << 20;

/// The file, and what of it was read.
pub(super) struct ApprovedList {
    path: PathBuf,
    /// The state that a look at the file saw last.
    seen: Option<Unchanged>,
    /// The state in which it was read last, and when. `None` until it was read.
    last_read: Option<LastRead>,
    /// The list that was told last.
    told: Option<BTreeSet<Hash>>,
    /// Mistakes that were logged.
    logged: HashSet<String>,
}

/// The state of a file when it was read.
struct LastRead {
    stamp: Option<WatchedFileStamp>,
    at: SystemTime,
}

impl LastRead {
    /// Whether another read would find what this one has found.
    fn is_current(&self, stamp: Option<WatchedFileStamp>) -> bool {
        self.stamp == stamp && stamp.is_none_or(|stamp| stamp.is_settled_at(self.at))
    }
}

impl ApprovedList {
    pub(super) fn of(folder: &Path) -> ApprovedList {
        ApprovedList {
            path: folder.join(LIST),
            seen: None,
            last_read: None,
            told: None,
            logged: HashSet::new(),
        }
    }

    /// The list, where it has changed since it was last asked for.
    pub(super) fn news(&mut self, now: Instant) -> Option<BTreeSet<Hash>> {
        let stamp = match fs::metadata(&self.path) {
            Ok(metadata) => Some(WatchedFileStamp::of(&metadata)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => {
                self.warn_unreadable(&error);
                return None;
            }
        };
        let last_read = self.last_read.as_ref();
        if last_read.is_some_and(|read| read.is_current(stamp)) {
            return None;
        }
        let seen = self.seen.get_or_insert(Unchanged::new(stamp, now));
        seen.see(stamp, now);
        // At the start the list is read at once.
        if self.last_read.is_some() && seen.time(now) < TEXT_QUIET_TIME {
            return None;
        }

        let text = self.read(stamp)?;
        self.last_read = Some(LastRead {
            stamp,
            at: SystemTime::now(),
        });
        let hashes = self.parse(&text);
        let is_news = self.told.as_ref() != Some(&hashes);
        is_news.then(|| self.told.insert(hashes).clone())
    }

    /// Whether the list should be asked for again soon.
    pub(super) fn is_restless(&self) -> bool {
        let read_stamp = self.last_read.as_ref().and_then(|read| read.stamp);
        self.seen.is_some_and(|seen| seen.stamp() != read_stamp)
    }

    fn read(&mut self, stamp: Option<WatchedFileStamp>) -> Option<String> {
        let Some(stamp) = stamp else {
            self.warn("it is not there: no module is approved".into());
            return Some(String::new());
        };
        let bytes = stamp.bytes();
        if bytes > LIST_BYTES_MAX {
            self.warn(format!(
                "it has {bytes} bytes, at most {LIST_BYTES_MAX} are read"
            ));
            return None;
        }
        match fs::read_to_string(&self.path) {
            Ok(text) => Some(text),
            Err(error) => {
                self.warn_unreadable(&error);
                None
            }
        }
    }

    /// The hashes in the text. Logs lines that are none.
    fn parse(&mut self, text: &str) -> BTreeSet<Hash> {
        let mut hashes = BTreeSet::new();
        for (index, line) in text.lines().enumerate() {
            let line = line.trim();
            // A backslash in front says that the name is escaped.
            let unescaped = line.trim_start_matches('\\');
            let hash = unescaped.split_whitespace().next().and_then(Hash::parse);
            if let Some(hash) = hash {
                hashes.insert(hash);
            } else if !line.is_empty() && !line.starts_with('#') {
                self.warn(format!(
                    "line {} does not begin with a SHA-256 of 64 hexadecimal digits",
                    index + 1
                ));
            }
        }
        hashes
    }

    fn warn_unreadable(&mut self, error: &io::Error) {
        self.warn(format!(
            "it cannot be read, and what it said before counts: {error}"
        ));
    }

    /// Logs a mistake once.
    fn warn(&mut self, text: String) {
        if self.logged.insert(text.clone()) {
            tracing::warn!(file = %self.path.display(), "the list of approved modules: {text}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_read_as_sha256sum_writes_it_and_again_when_it_has_changed() {
        let scratch = tempfile::tempdir().unwrap();
        let mut list = ApprovedList::of(scratch.path());
        let mut now = Instant::now();
        let mut news = |list: &mut ApprovedList| {
            now += TEXT_QUIET_TIME;
            list.news(now)
        };
        let [a, b, c] = [b"a", b"b", b"c"].map(|bytes| Hash::of(bytes));
        assert_eq!(news(&mut list), Some(BTreeSet::new()));
        assert_eq!(news(&mut list), None);
        let text = format!("# ours\n{a}  x.wasm\n{b} *y.wasm\n\n\\{c}  z\\n.wasm\nnonsense\n");
        fs::write(scratch.path().join(LIST), text).unwrap();
        assert_eq!(
            (news(&mut list), list.is_restless()),
            (None, true),
            "it may be half written"
        );
        assert_eq!(news(&mut list), Some([a, b, c].into()));
        assert_eq!((news(&mut list), list.is_restless()), (None, false));
        assert!(
            list.logged.iter().any(|logged| logged.contains("line 6")),
            "{:?}",
            list.logged
        );
        fs::write(scratch.path().join(LIST), format!("{b}  y.wasm\n")).unwrap();
        assert_eq!((news(&mut list), news(&mut list)), (None, Some([b].into())));
        fs::remove_file(scratch.path().join(LIST)).unwrap();
        assert_eq!(
            (news(&mut list), news(&mut list)),
            (None, Some(BTreeSet::new()))
        );
    }
}
