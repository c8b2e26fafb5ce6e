//! The blobs that the records of a store refer to. Such a blob must not be removed, and it is part of
//! an export.

use crate::body::TaskBody;
use crate::cache_entry::CacheEntry;
use crate::record::{Ended, ModuleRecord, Record};
use taskmaster_protocol::Hash;
use taskmaster_protocol::message::ResultRef;

/// A blob that a record refers to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Reference {
    /// The blob's hash.
    pub hash: Hash,
    /// Whether the blob is the listing of a folder, which refers to more blobs.
    pub is_listing: bool,
}

fn to_blob(hash: Hash) -> Reference {
    Reference {
        hash,
        is_listing: false,
    }
}

/// The blobs with a task's large params and with the files and folders that it reads.
pub fn of_body(body: &TaskBody) -> impl Iterator<Item = Reference> {
    let inputs = body.inputs().map(|(_, input)| Reference {
        hash: input.blob(),
        is_listing: input.listing().is_some(),
    });
    body.blob().map(to_blob).into_iter().chain(inputs)
}

/// The blobs with a task's large result and with the files that it returned.
pub fn of_ended(ended: &Ended) -> impl Iterator<Item = Reference> {
    let (_, result) = ended.end.result_parts();
    let files = ended
        .end
        .outputs()
        .into_iter()
        .flat_map(|outputs| outputs.values());
    result.into_iter().chain(files.copied()).map(to_blob)
}

/// The blobs with a kept answer and with its files.
pub fn of_answer(entry: &CacheEntry) -> Vec<Reference> {
    let blob = match entry.result.result() {
        ResultRef::Blob(hash) => Some(hash),
        ResultRef::Json(_) => None,
    };
    let files = entry
        .result
        .outputs()
        .into_iter()
        .flat_map(|outputs| outputs.values());
    blob.into_iter()
        .chain(files.copied())
        .map(to_blob)
        .collect()
}

/// The blobs with the versions of a module.
pub fn of_module(record: &ModuleRecord) -> impl Iterator<Item = Reference> {
    record
        .versions
        .iter()
        .map(|version| to_blob(version.version))
}

/// All blobs that a record refers to. A new kind of record must be added here, because a blob that no
/// record refers to is removed.
pub fn of_record(record: &Record) -> Vec<Reference> {
    match record {
        Record::Added(body) | Record::Reopened { body, .. } | Record::Continued { body, .. } => {
            of_body(body).collect()
        }
        Record::Ended(ended) => of_ended(ended).collect(),
        Record::Module { record, .. } => of_module(record).collect(),
        Record::Started { .. }
        | Record::Retrying(_)
        | Record::Set { .. }
        | Record::JobOpened { .. }
        | Record::JobDone { .. }
        | Record::JobHeld { .. }
        | Record::JobPaused { .. }
        | Record::JobCancelled { .. }
        | Record::RunnerJoined { .. }
        | Record::RunnerLost { .. }
        | Record::Rights { .. }
        | Record::AnswersDropped { .. } => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::body::{AddedTask, Fingerprint};
    use std::sync::Arc;
    use taskmaster_protocol::{AttemptId, JobName, TaskDocument, TaskId, TaskState, Wall};

    #[test]
    fn every_record_with_a_body_names_the_blobs_of_the_body() {
        let input = "0a".repeat(32);
        let folder = "0b".repeat(32);
        let params = "0c".repeat(32);
        let text = format!(
            r#"{{"module":"m","params":{{"$blob":"{params}"}},
                "inputs":{{"a":{{"sha256":"{input}"}},"b":{{"folder":"{folder}"}}}}}}"#
        );
        let body = Arc::new(TaskBody::new(AddedTask {
            document: TaskDocument::parse(&text).unwrap(),
            fingerprint: Fingerprint::of(&text),
            references: Vec::new(),
            id: TaskId::new("t").unwrap(),
            job: JobName::new("j").unwrap(),
            ordinal: 1,
            created: Wall(0),
            job_results: Vec::new(),
            lineage: None,
            cache: None,
        }));
        let fence = AttemptId { epoch: 1, n: 1 };
        let records = [
            Record::Added(body.clone()),
            Record::Continued {
                body: body.clone(),
                fence,
            },
            Record::Reopened {
                body,
                fence,
                ended_seq: 1,
                former_state: TaskState::Failed,
                skipped_for: None,
            },
        ];
        for record in records {
            let named = of_record(&record);
            let names: Vec<String> = named.iter().map(|named| named.hash.to_string()).collect();
            assert_eq!(
                names,
                [params.clone(), input.clone(), folder.clone()],
                "{record:?}"
            );
            let listings: Vec<bool> = named.iter().map(|named| named.is_listing).collect();
            assert_eq!(listings, [false, false, true], "{record:?}");
        }
    }
}
