//! Which blobs the records of a store name: what must not be removed, and what goes with an export.

use crate::body::TaskBody;
use crate::record::{Ended, ModuleRecord, Record};
use taskmaster_protocol::Hash;

/// A blob that something names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Reference {
    /// Its hash.
    pub hash: Hash,
    /// Whether it is the listing of a folder, and so names others.
    pub is_listing: bool,
}

fn blob(hash: Hash) -> Reference {
    Reference {
        hash,
        is_listing: false,
    }
}

/// What a task finds in its folder, and its params where they are large.
pub fn of_body(body: &TaskBody) -> impl Iterator<Item = Reference> {
    let inputs = body.inputs().map(|(_, input)| Reference {
        hash: input.blob(),
        is_listing: input.listing().is_some(),
    });
    body.blob().map(blob).into_iter().chain(inputs)
}

/// What a task gave back.
pub fn of_ended(ended: &Ended) -> impl Iterator<Item = Reference> {
    let files = ended
        .outputs()
        .into_iter()
        .flat_map(|outputs| outputs.values());
    ended
        .result_parts()
        .1
        .into_iter()
        .chain(files.copied())
        .map(blob)
}

/// The versions of a module.
pub fn of_module(record: &ModuleRecord) -> impl Iterator<Item = Reference> {
    record.versions.iter().map(|version| blob(version.version))
}

/// Everything that a record names.
pub fn of_record(record: &Record) -> Vec<Reference> {
    match record {
        Record::Added(body) | Record::Reopened { body, .. } => of_body(body).collect(),
        Record::Ended(ended) => of_ended(ended).collect(),
        Record::Module { record, .. } => of_module(record).collect(),
        _ => Vec::new(),
    }
}
