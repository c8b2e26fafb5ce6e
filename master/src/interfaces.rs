//! What the functions of components take, for those who check params before the engine sees them.
//!
//! The engine says which versions there are. What is in a version is read from its bytes, which
//! never change, when it is first wanted. So nothing of it is stored a second time.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use taskmaster_blobs::{Blobs, is_unavailable};
use taskmaster_engine::components::Components;
use taskmaster_module::Inspection;
use taskmaster_protocol::{Hash, ModuleName, ModuleRef};
use tokio::sync::OnceCell;

/// Versions of which it is remembered what they are. Each takes some kilobytes.
const VERSIONS_MAX: usize = 1_024;

/// What is in a version: empty while it is being read, and `None` where its bytes are not here.
type InspectionCell = Arc<OnceCell<Option<Arc<Inspection>>>>;

/// What is in the modules, by version. Clones share it.
#[derive(Clone)]
pub struct Interfaces {
    components: Components,
    blobs: Blobs,
    versions: Arc<Mutex<BTreeMap<Hash, InspectionCell>>>,
}

impl Interfaces {
    /// The interfaces of these components, whose bytes are in `blobs`.
    pub fn new(components: Components, blobs: Blobs) -> Interfaces {
        Interfaces {
            components,
            blobs,
            versions: Arc::default(),
        }
    }

    /// The blobs that have the bytes.
    pub fn blobs(&self) -> Blobs {
        self.blobs.clone()
    }

    /// What a task of this module would run, where that is a component.
    pub async fn of(&self, wanted: &ModuleRef) -> Option<Arc<Inspection>> {
        let version = self.components.version(wanted)?;
        self.inspection(&wanted.name, version).await
    }

    /// What is in a version of a module. `None` where its bytes are not here.
    pub async fn inspection(&self, name: &ModuleName, version: Hash) -> Option<Arc<Inspection>> {
        let blobs = self.blobs.clone();
        let name = name.clone();
        let inspect = move || match blobs.get(&version) {
            Ok(bytes) => {
                let inspection = taskmaster_confined::inspect(name.as_str(), &bytes);
                inspection
                    .map(|inspection| Some(Arc::new(inspection)))
                    .map_err(std::io::Error::other)
            }
            // It is read when it is wanted again.
            Err(error) if is_unavailable(&error) => Err(error),
            Err(_) => Ok(None),
        };
        // A panic would be a bug of the validator's. Then nothing is known of the version.
        let inspect = async || {
            tokio::task::spawn_blocking(inspect)
                .await
                .unwrap_or(Ok(None))
        };
        let cell = self.cell(version);
        cell.get_or_try_init(inspect).await.ok()?.clone()
    }

    fn cell(&self, version: Hash) -> InspectionCell {
        let mut versions = self.versions.lock().unwrap_or_else(PoisonError::into_inner);
        if versions.len() >= VERSIONS_MAX && !versions.contains_key(&version) {
            versions.pop_first();
        }
        versions.entry(version).or_default().clone()
    }
}
