//! Which versions of modules are components, for those who check params before the engine sees them.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, RwLock};
use taskmaster_protocol::{Hash, ModuleKind, ModuleName, ModuleRef};
use taskmaster_store::record::ModuleRecord;

/// The versions of every component, as the engine has them. Clones share it.
#[derive(Debug, Clone, Default)]
pub struct Components(Arc<RwLock<BTreeMap<ModuleName, Versions>>>);

#[derive(Debug)]
struct Versions {
    current: Hash,
    all: Vec<Hash>,
}

impl Components {
    /// A module is now as `record` says, and this version of it is in use.
    pub fn changed(&self, name: &ModuleName, record: &ModuleRecord, in_use: Option<Hash>) {
        let of_current = record
            .versions
            .iter()
            .find(|version| Some(version.version) == in_use);
        let mut components = self.0.write().unwrap_or_else(PoisonError::into_inner);
        match of_current.filter(|version| version.kind == ModuleKind::Component) {
            Some(current) => {
                let all = record
                    .versions
                    .iter()
                    .map(|version| version.version)
                    .collect();
                components.insert(
                    name.clone(),
                    Versions {
                        current: current.version,
                        all,
                    },
                );
            }
            None => drop(components.remove(name)),
        }
    }

    /// The version that a task would run, where its module is a component.
    pub fn version(&self, wanted: &ModuleRef) -> Option<Hash> {
        let components = self.0.read().unwrap_or_else(PoisonError::into_inner);
        let versions = components.get(&wanted.name)?;
        match &wanted.pin {
            None => Some(versions.current),
            Some(pin) => versions
                .all
                .iter()
                .rev()
                .find(|version| version.to_string().starts_with(&**pin))
                .copied(),
        }
    }
}
