//! The list of approved modules, `approved.sha256` in the task folder: lines as `sha256sum` writes
//! them. Hashes count, names are for people. It counts as it stands now; a file that is not there
//! approves nothing.

use std::collections::{BTreeSet, HashSet};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};
use taskmaster_engine::engine::LIST;
use taskmaster_protocol::Hash;

/// Bytes of the list: some hundred thousand lines.
const LIST_BYTES_MAX: u64 = 64 << 20;

/// A change counts when nothing has changed for this long: many programs empty a file before they
/// write it anew.
pub(super) const SETTLED: Duration = Duration::from_millis(150);

/// Tells one state of a file from another; `None`: it is not there.
type Stamp = Option<(u64, Option<SystemTime>, u64)>;

/// The file, and what of it was read.
pub(super) struct List {
    path: PathBuf,
    /// What was read.
    stamp: Stamp,
    /// What was seen last, and since when.
    seen: Option<(Stamp, Instant)>,
    /// When it was read: a file that was changed just before is read again, for it may have changed
    /// in the same tick.
    read: Option<SystemTime>,
    /// What was told last.
    told_list: Option<BTreeSet<Hash>>,
    /// Mistakes that were told.
    told: HashSet<String>,
}

impl List {
    pub(super) fn of(folder: &Path) -> List {
        List {
            path: folder.join(LIST),
            stamp: None,
            seen: None,
            read: None,
            told_list: None,
            told: HashSet::new(),
        }
    }

    /// What it says, where that has changed since it was last asked.
    pub(super) fn news(&mut self, now: Instant) -> Option<BTreeSet<Hash>> {
        let about = match fs::metadata(&self.path) {
            Ok(about) => Some(about),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => {
                self.warn(format!(
                    "it cannot be read, and what it said before counts: {error}"
                ));
                return None;
            }
        };
        let modified = about.as_ref().and_then(|about| about.modified().ok());
        let inode = |about: &fs::Metadata| std::os::unix::fs::MetadataExt::ino(about);
        let stamp = about
            .as_ref()
            .map(|about| (about.len(), modified, inode(about)));
        let tick = std::time::Duration::from_secs(1);
        let is_fresh = modified
            .zip(self.read)
            .is_some_and(|(modified, read)| modified + tick > read);
        if self.read.is_some() && self.stamp == stamp && !is_fresh {
            return None;
        }
        let since = self
            .seen
            .as_ref()
            .filter(|(seen, _)| *seen == stamp)
            .map_or(now, |(_, since)| *since);
        self.seen = Some((stamp, since));
        if self.read.is_some() && now.duration_since(since) < SETTLED {
            return None;
        }
        let text = match &about {
            None => {
                self.warn("it is not there: no module is approved".into());
                String::new()
            }
            Some(about) if about.len() > LIST_BYTES_MAX => {
                self.warn(format!(
                    "it has {} bytes, at most {LIST_BYTES_MAX} are read",
                    about.len()
                ));
                return None;
            }
            Some(_) => match fs::read_to_string(&self.path) {
                Ok(text) => text,
                Err(error) => {
                    self.warn(format!(
                        "it cannot be read, and what it said before counts: {error}"
                    ));
                    return None;
                }
            },
        };
        (self.stamp, self.read) = (stamp, Some(SystemTime::now()));
        let (hashes, mistakes) = parse(&text);
        mistakes.into_iter().for_each(|mistake| self.warn(mistake));
        let is_news = self.told_list.as_ref() != Some(&hashes);
        is_news.then(|| self.told_list.insert(hashes).clone())
    }

    /// Whether it should be asked again soon.
    pub(super) fn is_restless(&self) -> bool {
        self.seen
            .as_ref()
            .is_some_and(|(seen, _)| *seen != self.stamp)
    }

    fn warn(&mut self, text: String) {
        if self.told.insert(text.clone()) {
            tracing::warn!(file = %self.path.display(), "the list of approved modules: {text}");
        }
    }
}

/// The hashes, and what is wrong with other lines.
fn parse(text: &str) -> (BTreeSet<Hash>, Vec<String>) {
    let (mut hashes, mut mistakes) = (BTreeSet::new(), Vec::new());
    for (i, line) in text
        .lines()
        .enumerate()
        .map(|(i, line)| (i + 1, line.trim()))
    {
        // A backslash in front says that the name is escaped.
        let hash = line
            .trim_start_matches('\\')
            .split_whitespace()
            .next()
            .and_then(Hash::parse);
        match hash {
            Some(hash) => drop(hashes.insert(hash)),
            None if line.is_empty() || line.starts_with('#') => {}
            None => mistakes.push(format!(
                "line {i} does not begin with a SHA-256 of 64 hexadecimal digits"
            )),
        }
    }
    (hashes, mistakes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_read_as_sha256sum_writes_it_and_again_when_it_has_changed() {
        let scratch = tempfile::tempdir().unwrap();
        let mut list = List::of(scratch.path());
        let mut now = Instant::now();
        let mut news = |list: &mut List| {
            now += SETTLED;
            list.news(now)
        };
        let (a, b, c) = (Hash::of(b"a"), Hash::of(b"b"), Hash::of(b"c"));
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
            list.told.iter().any(|told| told.contains("line 6")),
            "{:?}",
            list.told
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
