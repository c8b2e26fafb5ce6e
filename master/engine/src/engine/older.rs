//! What runners of the release before are sent, where they would misread what is new.

use super::Engine;
use crate::inbox::SessionNo;
use std::collections::BTreeMap;
use taskmaster_protocol::message::ResultRef;
use taskmaster_protocol::{Json, PARAMS_AS_BLOBS_SINCE, TaskId};
use taskmaster_store::body::TaskBody;

impl Engine {
    /// The task's params for this runner. One that does not know of files is sent what it must
    /// refuse, with a sentence. One that does not know of params as blobs takes such a blob as a
    /// result that stands for all of the params; it would not look for references in it, so then it
    /// is sent what it must refuse, too.
    pub(super) fn params_for(
        &self,
        session: SessionNo,
        body: &TaskBody,
        results: &mut BTreeMap<TaskId, ResultRef>,
    ) -> Option<Json> {
        let older = self
            .sessions
            .get(&session)
            .is_some_and(|session| session.protocol < PARAMS_AS_BLOBS_SINCE);
        if older && body.inputs().next().is_some() {
            let text = "this runner is too old for `inputs`: upgrade it";
            return Some(Json::of(&serde_json::json!({ "$result": text })));
        }
        let Some(hash) = older.then(|| body.blob()).flatten() else {
            return body.params.clone();
        };
        if !body.references().is_empty() {
            let text = "this runner is too old for large params with `$result` in them: upgrade it";
            return Some(Json::of(&serde_json::json!({ "$result": text })));
        }
        results.insert(body.id.clone(), ResultRef::Blob(hash));
        Some(Json::of(&serde_json::json!({ "$result": body.id })))
    }
}
