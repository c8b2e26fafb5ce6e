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
        .end
        .outputs()
        .into_iter()
        .flat_map(|outputs| outputs.values());
    ended
        .end
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

/// Everything that a record names. A new kind of record has to say here what it names: a blob that
/// is not named is removed.
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
        | Record::Rights { .. } => Vec::new(),
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
                ended: 1,
                was: TaskState::Failed,
                because: None,
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
