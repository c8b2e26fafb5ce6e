//! What a starting master reads from the view.

use super::{
    JOBS, NamedRecord, RIGHTS, RUNNERS, Watermarks, corrupt, for_each_record, for_each_value,
    modules, watermarks,
};
use crate::codec::{self, DecodeError};
use crate::kv::{KvStore, StoreError};
use crate::record::{JobRecord, ModuleRecord, Rights};
use taskmaster_protocol::{JobName, ModuleName};

/// What a starting master needs beside the open tasks.
#[derive(Debug, Default)]
pub struct RestoredView {
    /// How far the view is folded.
    pub watermarks: Watermarks,
    /// The jobs that are open or paused, with their names.
    pub jobs: Vec<(JobName, JobRecord)>,
    /// All modules with their names.
    pub modules: Vec<(ModuleName, ModuleRecord)>,
    /// The rights of the modules that have any, with the modules' names.
    pub rights: Vec<(ModuleName, Rights)>,
    /// Names of the runners that have joined and were not lost.
    pub roster: Vec<String>,
}

/// Reads the view. The journal must be folded to its end before.
pub fn restore(store: &dyn KvStore) -> Result<RestoredView, StoreError> {
    let mut restored = RestoredView {
        watermarks: watermarks(store)?,
        ..RestoredView::default()
    };
    for_each_record(
        store,
        JOBS,
        &mut |NamedRecord { name, record }: NamedRecord<JobName, JobRecord>| {
            if record.open || record.paused {
                restored.jobs.push((name, record));
            }
        },
    )?;
    restored.modules = modules(store)?;
    restored.rights = rights(store)?;
    for_each_record(store, RUNNERS, &mut |name: String| {
        restored.roster.push(name)
    })?;
    Ok(restored)
}

/// The rights of the modules that have any. They are kept as JSON.
fn rights(store: &dyn KvStore) -> Result<Vec<(ModuleName, Rights)>, StoreError> {
    let mut found = Vec::new();
    for_each_value(store, RIGHTS, &mut |key, value| {
        let named: NamedRecord<ModuleName, String> =
            codec::decode(value).map_err(|why| corrupt(&String::from_utf8_lossy(key), why))?;
        let rights: Option<Rights> = serde_json::from_str(&named.record).map_err(|error| {
            let why = DecodeError::Content(error.to_string());
            corrupt(named.name.as_str(), why)
        })?;
        found.extend(rights.map(|rights| (named.name, rights)));
        Ok(())
    })?;
    Ok(found)
}
