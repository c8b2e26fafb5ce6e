//! What the manifests beside the modules ask for, as far as that is certain: a manifest may be half
//! written.

use super::manifests::{self, Manifests};
use super::stamp::{TEXT_QUIET_TIME, Unchanged};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;
use taskmaster_engine::inbox::ModuleFile;
use taskmaster_protocol::{Capabilities, ModuleName};

/// What the engine is told of a manifest.
struct ManifestTerms {
    /// What it asks for; `None` where that is not known.
    wants: Option<Arc<Capabilities>>,
    /// What stands in for the hash of the module where answers are kept.
    cache_version: Option<Arc<str>>,
}

/// What the modules of a folder ask for.
pub(super) struct WantedCapabilities {
    folder: Arc<Path>,
    manifests: Arc<Manifests>,
    /// The state of each module's manifest.
    states: BTreeMap<ModuleName, Unchanged>,
    /// Modules whose manifest changed a moment ago.
    uncertain: BTreeSet<ModuleName>,
}

impl WantedCapabilities {
    pub(super) fn new(folder: Arc<Path>, manifests: Arc<Manifests>) -> WantedCapabilities {
        WantedCapabilities {
            folder,
            manifests,
            states: BTreeMap::new(),
            uncertain: BTreeSet::new(),
        }
    }

    /// Completes a sound module with what its manifest asks for. `told` is what the engine was told
    /// of the module before. It counts while the manifest is uncertain. A module of which nothing
    /// was told waits until then, and this returns `None`.
    pub(super) fn complete(
        &mut self,
        name: &ModuleName,
        seen: ModuleFile,
        told: Option<&ModuleFile>,
        now: Instant,
    ) -> Option<ModuleFile> {
        let ModuleFile::Sound {
            version,
            kind,
            bytes,
            wants: _,
            cache_version: _,
        } = seen
        else {
            self.uncertain.remove(name);
            return Some(seen);
        };
        let told = match told {
            Some(ModuleFile::Sound {
                wants,
                cache_version,
                ..
            }) => Some(ManifestTerms {
                wants: wants.clone(),
                cache_version: cache_version.clone(),
            }),
            Some(ModuleFile::Unsound { .. } | ModuleFile::Gone) | None => None,
        };
        let terms = if self.is_certain(name, now) {
            self.uncertain.remove(name);
            // Answers of a module whose manifest cannot be read are kept by its hash.
            self.read(name).unwrap_or_else(|| ManifestTerms {
                wants: told.and_then(|told| told.wants),
                cache_version: None,
            })
        } else {
            self.uncertain.insert(name.clone());
            told?
        };
        Some(ModuleFile::Sound {
            version,
            kind,
            bytes,
            wants: terms.wants,
            cache_version: terms.cache_version,
        })
    }

    /// What the manifest says. `None` where it cannot be read.
    fn read(&self, name: &ModuleName) -> Option<ManifestTerms> {
        let manifest = self.manifests.of(&self.folder, name).ok()?;
        let manifest = manifest.as_ref();
        let capabilities = manifest.map(|manifest| manifest.capabilities.clone());
        let cache_version = manifest.and_then(|manifest| manifest.cache_version.as_deref());
        Some(ManifestTerms {
            wants: Some(Arc::new(capabilities.unwrap_or_default())),
            cache_version: cache_version.map(Arc::from),
        })
    }

    /// Whether a module's manifest, or that there is none, has been so for a while.
    fn is_certain(&mut self, name: &ModuleName, now: Instant) -> bool {
        let stamp = manifests::stamp_of(&self.folder, name);
        let is_whole = stamp.as_ref().is_some_and(manifests::is_whole);
        let Some(state) = self.states.get_mut(name) else {
            // At the first look, a module without a manifest need not wait for one.
            let is_certain = is_whole || stamp.is_none();
            let long_ago = now.checked_sub(TEXT_QUIET_TIME).unwrap_or(now);
            let since = if is_certain { long_ago } else { now };
            self.states
                .insert(name.clone(), Unchanged::new(stamp, since));
            return is_certain;
        };
        if state.see(stamp, now) {
            is_whole
        } else {
            state.time(now) >= TEXT_QUIET_TIME
        }
    }

    /// Forgets a module that is gone.
    pub(super) fn forget(&mut self, name: &ModuleName) {
        self.states.remove(name);
    }

    pub(super) fn is_uncertain(&self, name: &ModuleName) -> bool {
        self.uncertain.contains(name)
    }

    /// Whether the manifests should be looked at again soon.
    pub(super) fn is_restless(&self) -> bool {
        !self.uncertain.is_empty()
    }
}
