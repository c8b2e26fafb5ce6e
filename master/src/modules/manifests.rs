//! The manifests beside the modules, as they are in the folder now. A manifest is looked at when a
//! task names its module, so a change counts from the next add on. That costs one `stat` for each
//! module of a batch.

use super::stamp::WatchedFileStamp;
use std::collections::HashMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};
use taskmaster_module::manifest::{MANIFEST_BYTES_MAX, Manifest};
use taskmaster_protocol::{ModuleName, Refusal, RefusalCode};

/// A manifest that was changed within this time may be half written, and the last good one counts
/// until then.
const HALF_WRITTEN_TIME: Duration = Duration::from_millis(500);

/// What is known of a manifest.
struct KnownManifest {
    stamp: WatchedFileStamp,
    /// When the manifest was read.
    read_at: SystemTime,
    now: Result<Arc<Manifest>, Refusal>,
    last_good: Option<Arc<Manifest>>,
}

/// The manifests of a folder.
#[derive(Default)]
pub(super) struct Manifests(Mutex<HashMap<ModuleName, KnownManifest>>);

/// The state of a module's manifest. `None` where there is none, or nothing can be told of it.
pub(super) fn stamp_of(folder: &Path, name: &ModuleName) -> Option<WatchedFileStamp> {
    let metadata = fs::metadata(manifest_path(folder, name)).ok()?;
    Some(WatchedFileStamp::of(&metadata))
}

/// Whether a manifest was written so long ago that nobody is writing it now.
pub(super) fn is_whole(stamp: &WatchedFileStamp) -> bool {
    stamp.is_older_than(2 * HALF_WRITTEN_TIME)
}

fn manifest_path(folder: &Path, name: &ModuleName) -> PathBuf {
    folder.join(format!("{name}.toml"))
}

impl Manifests {
    fn lock(&self) -> MutexGuard<'_, HashMap<ModuleName, KnownManifest>> {
        // Nothing between lock and unlock leaves the map half changed.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The manifest of a module. `None` where it has none. A refusal names the file and the field.
    pub(super) fn of(
        &self,
        folder: &Path,
        name: &ModuleName,
    ) -> Result<Option<Arc<Manifest>>, Refusal> {
        let path = manifest_path(folder, name);
        let stamp = match fs::metadata(&path) {
            Ok(metadata) => WatchedFileStamp::of(&metadata),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                self.lock().remove(name);
                return Ok(None);
            }
            Err(error) => return Err(unreadable(&path, &error)),
        };
        let mut all = self.lock();
        let known = match all.remove(name) {
            Some(known) if known.stamp == stamp && stamp.is_settled_at(known.read_at) => known,
            before => {
                let read_at = SystemTime::now();
                let now = read(&path, stamp).map(Arc::new);
                let good = now.as_ref().ok().cloned();
                let last_good = good.or_else(|| before?.last_good);
                KnownManifest {
                    stamp,
                    read_at,
                    now,
                    last_good,
                }
            }
        };
        let manifest = match (&known.now, &known.last_good) {
            (Err(_), Some(good)) if stamp.is_younger_than(HALF_WRITTEN_TIME) => Ok(good.clone()),
            (now, _) => now.clone(),
        };
        all.insert(name.clone(), known);
        manifest.map(Some)
    }
}

fn unreadable(path: &Path, error: &io::Error) -> Refusal {
    let text = format!("the manifest {} cannot be read: {error}", path.display());
    Refusal::new(RefusalCode::UnknownModule, text).at("module")
}

fn read(path: &Path, stamp: WatchedFileStamp) -> Result<Manifest, Refusal> {
    let file = path.file_name().unwrap_or_default().to_string_lossy();
    let bytes = stamp.bytes();
    if bytes > MANIFEST_BYTES_MAX {
        let text = format!(
            "the manifest {file} has {bytes} bytes, at most {MANIFEST_BYTES_MAX} are allowed"
        );
        return Err(Refusal::new(RefusalCode::TooLarge, text).at("module"));
    }
    let text = fs::read_to_string(path).map_err(|error| unreadable(path, &error))?;
    Manifest::parse(&text).map_err(|refusal| {
        let message = format!("the manifest {file}: {}", refusal.message);
        tracing::warn!("{message}; tasks of its module are refused");
        Refusal { message, ..refusal }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_manifest_of_the_same_length_and_time_counts_at_once() {
        let scratch = tempfile::tempdir().unwrap();
        let manifests = Manifests::default();
        let name = ModuleName::new("m").unwrap();
        let long_ago = SystemTime::UNIX_EPOCH + Duration::from_secs(1);
        let path = scratch.path().join("m.toml");
        for word in ["aaaa", "bbbb", "cccc"] {
            // Written in place: even the file is the same one.
            fs::write(&path, format!("description = '{word}'")).unwrap();
            let file = fs::File::options().append(true).open(&path).unwrap();
            file.set_modified(long_ago).unwrap();
            let manifest = manifests.of(scratch.path(), &name).unwrap().unwrap();
            assert_eq!(manifest.description, word);
        }
    }

    #[test]
    fn a_manifest_counts_as_it_stands_and_a_half_written_one_spoils_nothing() {
        let scratch = tempfile::tempdir().unwrap();
        let manifests = Manifests::default();
        let name = ModuleName::new("m").unwrap();
        let path = scratch.path().join("m.toml");
        let description = || {
            manifests
                .of(scratch.path(), &name)
                .map(|found| found.map(|m| m.description.clone()))
        };
        let make_old = || {
            let earlier = SystemTime::now() - 2 * HALF_WRITTEN_TIME;
            fs::File::open(&path)
                .unwrap()
                .set_modified(earlier)
                .unwrap();
        };
        assert_eq!(description(), Ok(None));
        fs::write(&path, "description = 'one'").unwrap();
        assert_eq!(description(), Ok(Some("one".into())));
        fs::write(&path, "description = 'two, and').").unwrap();
        assert_eq!(
            description(),
            Ok(Some("one".into())),
            "it may be half written"
        );
        make_old();
        let refusal = description().unwrap_err();
        assert!(
            refusal
                .message
                .starts_with("the manifest m.toml: line 1: not TOML"),
            "{refusal}"
        );
        fs::write(&path, "description = 'two'").unwrap();
        assert_eq!(description(), Ok(Some("two".into())));
        fs::remove_file(&path).unwrap();
        assert_eq!(description(), Ok(None));
    }
}
