//! What the functions of components take, for those who check params before the engine sees them.
//!
//! The engine says which versions there are; what is in a version is read from its bytes, which
//! never change, when it is first wanted. So nothing of it is stored a second time.

use crate::blobs::{Blobs, is_away};
use crate::record::ModuleRecord;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use taskmaster_module::Inspection;
use taskmaster_protocol::{Hash, ModuleKind, ModuleName, ModuleRef};
use tokio::sync::OnceCell;

/// Versions of which it is remembered what they are; each is some kilobytes.
const KEPT_MAX: usize = 1_024;

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
    fn version(&self, wanted: &ModuleRef) -> Option<Hash> {
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

/// What is in a version; empty while it is being read.
type Read = Arc<OnceCell<Option<Arc<Inspection>>>>;

/// What modules are, by version. Clones share it.
#[derive(Clone)]
pub struct Interfaces {
    components: Components,
    blobs: Blobs,
    read: Arc<Mutex<BTreeMap<Hash, Read>>>,
}

impl Interfaces {
    /// Of these components, whose bytes are in `blobs`.
    pub fn new(components: Components, blobs: Blobs) -> Interfaces {
        Interfaces {
            components,
            blobs,
            read: Arc::default(),
        }
    }

    /// Where the bytes are.
    pub fn blobs(&self) -> Blobs {
        self.blobs.clone()
    }

    /// What a task of this module would run, where it is a component.
    pub async fn of(&self, wanted: &ModuleRef) -> Option<Arc<Inspection>> {
        let version = self.components.version(wanted)?;
        self.inspection(&wanted.name, version).await
    }

    /// What is in a version of a module. `None` where its bytes are not here.
    pub async fn inspection(&self, name: &ModuleName, version: Hash) -> Option<Arc<Inspection>> {
        let read = {
            let mut all = self.read.lock().unwrap_or_else(PoisonError::into_inner);
            if all.len() >= KEPT_MAX && !all.contains_key(&version) {
                all.pop_first();
            }
            all.entry(version).or_default().clone()
        };
        let (blobs, name) = (self.blobs.clone(), name.clone());
        let inspect = move || match blobs.get(&version) {
            Ok(bytes) => Ok(Some(Arc::new(taskmaster_module::inspect(
                name.as_str(),
                &bytes,
            )))),
            // Read when it is wanted again.
            Err(error) if is_away(&error) => Err(error),
            Err(_) => Ok(None),
        };
        // A panic would be a bug of the validator's: the version is then taken for one of which
        // nothing is known.
        let inspected = async || {
            tokio::task::spawn_blocking(inspect)
                .await
                .unwrap_or(Ok(None))
        };
        read.get_or_try_init(inspected).await.ok()?.clone()
    }
}
