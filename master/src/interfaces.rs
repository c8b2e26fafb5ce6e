//! What the functions of components take, for those who check params before the engine sees them.
//!
//! The engine says which versions there are; what is in a version is read from its bytes, which
//! never change, when it is first wanted. So nothing of it is stored a second time.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use taskmaster_blobs::{Blobs, is_away};
use taskmaster_engine::components::Components;
use taskmaster_module::Inspection;
use taskmaster_protocol::{Hash, ModuleName, ModuleRef};
use tokio::sync::OnceCell;

/// Versions of which it is remembered what they are; each is some kilobytes.
const KEPT_MAX: usize = 1_024;

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
