//! The versions of modules that are components. The gateway reads them to check the params of a task
//! before the engine sees the task.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, RwLock};
use taskmaster_protocol::{Hash, ModuleKind, ModuleName, ModuleRef};
use taskmaster_store::record::ModuleRecord;

/// The versions of every module that is a component, kept up to date by the engine. Clones share
/// the table.
#[derive(Debug, Clone, Default)]
pub struct Components(Arc<RwLock<BTreeMap<ModuleName, Versions>>>);

#[derive(Debug)]
struct Versions {
    /// The version in use.
    current: Hash,
    /// All versions that the engine remembers, the newest last.
    all: Vec<Hash>,
}

impl Components {
    /// Notes that a module has changed to `record`, and that its version `in_use` is in use.
    pub fn changed(&self, name: &ModuleName, record: &ModuleRecord, in_use: Option<Hash>) {
        let current = record
            .versions
            .iter()
            .find(|version| Some(version.version) == in_use);
        let mut components = self.0.write().unwrap_or_else(PoisonError::into_inner);
        match current.filter(|version| version.kind == ModuleKind::Component) {
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

    /// The version that a task of the module `wanted` would run; `None` if the module is no
    /// component.
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
