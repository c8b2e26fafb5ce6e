//! Questions of a session. The engine answers them; here the answer about a module is completed.

use super::GatewayState;
use taskmaster_engine::answer::QueryAnswer;
use taskmaster_protocol::message::{Answer, Query, Question, Refused};
use taskmaster_protocol::shape::ModuleView;
use taskmaster_protocol::{FromMaster, Json, Refusal};

/// The answer to a question, or why there is none.
pub(super) async fn answer(state: &GatewayState, ask: Question) -> FromMaster {
    let Question { reference, query } = ask;
    match ask_engine(state, query).await {
        Ok(data) => FromMaster::Answer(Answer { reference, data }),
        Err(error) => FromMaster::Refused(Refused {
            reference: Some(reference),
            error,
        }),
    }
}

async fn ask_engine(state: &GatewayState, query: Query) -> Result<Json, Refusal> {
    Ok(match state.handle.ask(query).await? {
        QueryAnswer::Module(view) => Json::of(&with_contents(state, *view).await),
        answer => Json::of(&answer),
    })
}

/// Adds what is in the module's version, and what its manifest says it is for.
async fn with_contents(state: &GatewayState, mut view: ModuleView) -> ModuleView {
    // A version that waits for approval is shown, so that whoever approves it sees what it is.
    let waiting = view.waiting.as_ref().map(|waiting| waiting.version);
    if let Some(version) = view.version.or(waiting) {
        let inspection = state.interfaces.inspection(&view.name, version).await;
        view.check = inspection.map(|inspection| inspection.check.clone());
    }
    if let Ok(Some(manifest)) = state.folder.manifest(&view.name) {
        let description = manifest.description.clone();
        view.description = Some(description).filter(|text| !text.is_empty());
    }
    view
}
