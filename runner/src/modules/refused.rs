//! Versions that took more than a compilation may take, or on which the compiler failed. To find that
//! out takes a minute of a processor or gigabytes of memory. So it is remembered, also on disk, as
//! `<version>-<engine>.refused`: a runner that starts again does not try again what cannot suffice.

use super::disk::write_whole;
use crate::compile::limits_in_words;
use crate::sandbox::LoadError;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use taskmaster_confined::Excess;
use taskmaster_protocol::Hash;

/// Versions that are remembered, in memory and on disk.
const REFUSED_MAX: usize = 1_024;

/// The ending of the files.
const EXTENSION: &str = "refused";

/// What the system says where it lacks something, of which the compiler failed.
const SYSTEM_ERROR: &str = "os error";

/// What is known of a version, as it is written.
#[derive(Debug, Serialize, Deserialize)]
struct Verdict {
    /// MiB of memory that the compilation could have. With more it is tried again.
    memory_mb: u64,
    /// The other limits. With others it is tried again.
    limits: String,
    /// What was found, as a sentence.
    why: String,
}

/// The versions that are not compiled again.
pub(super) struct RefusedModules {
    folder: PathBuf,
    /// The engine's hash. Another compiler may succeed.
    engine: String,
    memory_mb: u64,
    known: Mutex<BTreeMap<Hash, LoadError>>,
}

impl RefusedModules {
    /// Those of a runner whose compilations may take `memory_mb` MiB. What earlier runners found is
    /// in `folder`.
    pub(super) fn new(folder: &Path, engine: String, memory_mb: u64) -> RefusedModules {
        RefusedModules {
            folder: folder.to_owned(),
            engine,
            memory_mb,
            known: Mutex::default(),
        }
    }

    fn known(&self) -> MutexGuard<'_, BTreeMap<Hash, LoadError>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn path(&self, version: &Hash) -> PathBuf {
        let name = format!("{version}-{}.{EXTENSION}", self.engine);
        self.folder.join(name)
    }

    /// Why a version is not compiled again, if so. Reads a file.
    pub(super) fn why(&self, version: &Hash) -> Option<LoadError> {
        if let Some(error) = self.known().get(version) {
            return Some(error.clone());
        }
        let path = self.path(version);
        let bytes = fs::read(&path).ok()?;
        let verdict: Option<Verdict> = serde_json::from_slice(&bytes).ok();
        let holds = |verdict: &Verdict| {
            verdict.memory_mb >= self.memory_mb && verdict.limits == limits_in_words()
        };
        let Some(verdict) = verdict.filter(holds) else {
            // A file that cannot be removed is written over.
            let _ = fs::remove_file(&path);
            return None;
        };
        let error = LoadError::Compile(verdict.why);
        self.keep(*version, &error);
        Some(error)
    }

    /// Remembers a version whose compilation is not worth another try.
    pub(super) fn remember(&self, version: Hash, error: &LoadError) {
        let is_of_the_module = match error {
            // A machine that was very busy may have time for it later.
            LoadError::TooCostly(excess) => !matches!(excess, Excess::Clock(_)),
            LoadError::CompilerFailed(why) => !why.contains(SYSTEM_ERROR),
            LoadError::Precompiled
            | LoadError::NotWasm(_)
            | LoadError::Compile(_)
            | LoadError::Link(_)
            | LoadError::UnknownImports(_)
            | LoadError::NoEntryPoint(_)
            | LoadError::EntryPointType(_)
            | LoadError::NoFunction(_)
            | LoadError::FunctionNotFound(_) => return,
        };
        self.keep(version, error);
        if !is_of_the_module {
            return;
        }
        let verdict = Verdict {
            memory_mb: self.memory_mb,
            limits: limits_in_words(),
            why: error.to_string(),
        };
        self.make_room();
        let written = serde_json::to_vec(&verdict)
            .map_err(std::io::Error::other)
            .and_then(|bytes| write_whole(&self.path(&version), &bytes));
        if let Err(error) = written {
            let version = version.short();
            tracing::warn!("that {version} cannot be compiled is not kept: {error}");
        }
    }

    fn keep(&self, version: Hash, error: &LoadError) {
        let mut known = self.known();
        if known.len() >= REFUSED_MAX {
            known.pop_first();
        }
        known.insert(version, error.clone());
    }

    /// Removes the oldest file where there are as many as may be.
    fn make_room(&self) {
        let files = fs::read_dir(&self.folder).into_iter().flatten().flatten();
        let refused = files
            .map(|entry| entry.path())
            .filter(|path| path.extension().is_some_and(|is| is == EXTENSION));
        let refused: Vec<PathBuf> = refused.collect();
        if refused.len() < REFUSED_MAX {
            return;
        }
        let written = |path: &&PathBuf| path.metadata().and_then(|file| file.modified()).ok();
        if let Some(oldest) = refused.iter().min_by_key(written) {
            let _ = fs::remove_file(oldest);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn modules(folder: &Path, memory_mb: u64) -> RefusedModules {
        RefusedModules::new(folder, "engine".into(), memory_mb)
    }

    #[test]
    fn what_does_not_suffice_is_not_tried_again_after_a_start_and_more_is() {
        let folder = tempfile::tempdir().unwrap();
        let version = Hash::of(b"bomb");
        let costly = LoadError::TooCostly(Excess::Memory(256 << 20));
        modules(folder.path(), 256).remember(version, &costly);
        for memory_mb in [256, 128] {
            let why = modules(folder.path(), memory_mb).why(&version).unwrap();
            assert_eq!(why.to_string(), costly.to_string());
        }
        assert_eq!(modules(folder.path(), 256).why(&Hash::of(b"other")), None);
        let other = RefusedModules::new(folder.path(), "newer".into(), 256);
        assert_eq!(other.why(&version), None, "another compiler may succeed");
        assert_eq!(modules(folder.path(), 257).why(&version), None);
    }

    #[test]
    fn only_what_is_the_modules_own_is_kept_on_disk() {
        let folder = tempfile::tempdir().unwrap();
        for (error, is_kept) in [
            (LoadError::TooCostly(Excess::Processor(60)), true),
            (LoadError::TooCostly(Excess::Stack), true),
            (LoadError::CompilerFailed("it panicked".into()), true),
            (LoadError::TooCostly(Excess::Clock(600)), false),
            (
                LoadError::CompilerFailed("no thread: os error 11".into()),
                false,
            ),
            (LoadError::Compile("it is no module".into()), false),
        ] {
            let version = Hash::of(error.to_string().as_bytes());
            modules(folder.path(), 1).remember(version, &error);
            let why = modules(folder.path(), 1).why(&version);
            assert_eq!(why.is_some(), is_kept, "{error}");
        }
    }

    #[test]
    fn a_spoilt_file_or_one_of_other_limits_is_no_verdict_and_there_are_not_too_many() {
        let folder = tempfile::tempdir().unwrap();
        let refused = modules(folder.path(), 1);
        let version = Hash::of(b"spoilt");
        for text in [
            r#"{"memory_mb":1,"limits":"others","why":"x"}"#,
            r#"{"memory_mb":1,"#,
            "",
        ] {
            fs::write(refused.path(&version), text).unwrap();
            assert_eq!(refused.why(&version), None);
            assert!(!refused.path(&version).exists());
        }
        for no in 0..REFUSED_MAX + 3 {
            let version = Hash::of(no.to_string().as_bytes());
            refused.remember(version, &LoadError::TooCostly(Excess::Stack));
        }
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), REFUSED_MAX);
        assert_eq!(refused.known().len(), REFUSED_MAX);
    }
}
