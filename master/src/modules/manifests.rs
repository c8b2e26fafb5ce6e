//! The manifests beside the modules, as they stand in the folder now: each is looked at when a task
//! names its module, so a change counts from the next add on. (One `stat` for each module of a
//! batch.)

use std::collections::HashMap;
use std::fs::{self, Metadata};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};
use taskmaster_module::manifest::{MANIFEST_BYTES_MAX, Manifest};
use taskmaster_protocol::{ModuleName, Refusal, RefusalCode};

/// A file that was changed so lately may be half written: until then the last good one counts.
const SETTLED: Duration = Duration::from_millis(500);

/// Tells one state of a file from another.
pub(super) type Stamp = (u64, Option<SystemTime>, u64);

/// What is known of a manifest.
struct Read {
    stamp: Stamp,
    now: Result<Arc<Manifest>, Refusal>,
    /// The last one that was sound.
    good: Option<Arc<Manifest>>,
}

/// The manifests of a folder.
#[derive(Default)]
pub(super) struct Manifests(Mutex<HashMap<ModuleName, Read>>);

/// The state of a module's manifest: which one, and whether it was written some time ago, by the
/// wall clock. `None`: there is none, or nothing can be told of it.
pub(super) fn state(folder: &Path, name: &ModuleName) -> Option<(Stamp, bool)> {
    let about = fs::metadata(folder.join(format!("{name}.toml"))).ok()?;
    let is_old = about
        .modified()
        .is_ok_and(|at| at.elapsed().is_ok_and(|age| age > 2 * SETTLED));
    Some((stamp(&about), is_old))
}

impl Manifests {
    fn lock(&self) -> MutexGuard<'_, HashMap<ModuleName, Read>> {
        // Nothing between lock and unlock leaves half of anything.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The manifest of a module; `None`: it has none. A refusal names the file and the field.
    pub(super) fn of(
        &self,
        folder: &Path,
        name: &ModuleName,
    ) -> Result<Option<Arc<Manifest>>, Refusal> {
        let path = folder.join(format!("{name}.toml"));
        let Some(about) = there(&path)? else {
            self.lock().remove(name);
            return Ok(None);
        };
        let stamp = stamp(&about);
        let mut known = self.lock();
        let read = match known.remove(name) {
            Some(read) if read.stamp == stamp => read,
            before => {
                let now = read(&path, &about).map(Arc::new);
                let good = now
                    .as_ref()
                    .ok()
                    .cloned()
                    .or_else(|| before.and_then(|before| before.good));
                Read { stamp, now, good }
            }
        };
        let is_new = about
            .modified()
            .is_ok_and(|at| at.elapsed().is_ok_and(|age| age < SETTLED));
        let answer = match (&read.now, &read.good) {
            (Err(_), Some(good)) if is_new => Ok(Some(good.clone())),
            (now, _) => now.clone().map(Some),
        };
        known.insert(name.clone(), read);
        answer
    }
}

fn unreadable(path: &Path, error: &io::Error) -> Refusal {
    let text = format!("the manifest {} cannot be read: {error}", path.display());
    Refusal::new(RefusalCode::UnknownModule, text).at("module")
}

fn there(path: &Path) -> Result<Option<Metadata>, Refusal> {
    match fs::metadata(path) {
        Ok(about) => Ok(Some(about)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(unreadable(path, &error)),
    }
}

#[cfg(unix)]
fn stamp(about: &Metadata) -> Stamp {
    (
        about.len(),
        about.modified().ok(),
        std::os::unix::fs::MetadataExt::ino(about),
    )
}

#[cfg(not(unix))]
fn stamp(about: &Metadata) -> Stamp {
    (about.len(), about.modified().ok(), 0)
}

fn read(path: &PathBuf, about: &Metadata) -> Result<Manifest, Refusal> {
    let shown = path
        .file_name()
        .unwrap_or_default()
        .to_string_lossy()
        .into_owned();
    if about.len() > MANIFEST_BYTES_MAX {
        let text = format!(
            "the manifest {shown} has {} bytes, at most {MANIFEST_BYTES_MAX} are allowed",
            about.len()
        );
        return Err(Refusal::new(RefusalCode::TooLarge, text).at("module"));
    }
    let text = fs::read_to_string(path).map_err(|error| unreadable(path, &error))?;
    Manifest::parse(&text).map_err(|refusal| {
        let message = format!("the manifest {shown}: {}", refusal.message);
        tracing::warn!("{message}; tasks of its module are refused");
        Refusal { message, ..refusal }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_manifest_counts_as_it_stands_and_a_half_written_one_spoils_nothing() {
        let scratch = tempfile::tempdir().unwrap();
        let (manifests, name) = (Manifests::default(), ModuleName::new("m").unwrap());
        let path = scratch.path().join("m.toml");
        let description = || {
            manifests
                .of(scratch.path(), &name)
                .map(|found| found.map(|m| m.description.clone()))
        };
        let settle = || {
            let earlier = SystemTime::now() - 2 * SETTLED;
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
        settle();
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
