//! Questions of sessions, and over HTTP. The engine answers them; here the answers about a module and
//! about the master's state are completed.

use super::GatewayState;
use taskmaster_engine::answer::QueryAnswer;
use taskmaster_protocol::message::{Answer, Query, Question, Refused, Trouble, TroubleKind};
use taskmaster_protocol::shape::ModuleView;
use taskmaster_protocol::{FromMaster, Json, Refusal, RefusalCode, limits};

/// Bytes of an answer, less than a message may have. A longer one would end the session of whoever
/// asks, and end it again when the question is asked again.
const ANSWER_BYTES_MAX: usize = limits::MESSAGE_BYTES_MAX - (64 << 10);

fn too_long(bytes: usize) -> Refusal {
    let text = format!(
        "the answer has {bytes} bytes, and a message at most {ANSWER_BYTES_MAX}: ask for less at a \
         time"
    );
    Refusal::new(RefusalCode::TooLarge, text)
}

/// The answer to a question, or why there is none.
pub(super) async fn answer(state: &GatewayState, ask: Question) -> FromMaster {
    let Question { reference, query } = ask;
    match ask_master(state, query).await {
        Ok(data) if data.get().len() > ANSWER_BYTES_MAX => FromMaster::Refused(Refused {
            reference: Some(reference),
            error: too_long(data.get().len()),
        }),
        Ok(data) => FromMaster::Answer(Answer { reference, data }),
        Err(error) => FromMaster::Refused(Refused {
            reference: Some(reference),
            error,
        }),
    }
}

/// The engine's answer, with what the engine does not know.
pub(super) async fn ask_master(state: &GatewayState, query: Query) -> Result<Json, Refusal> {
    Ok(match state.handle.ask(query).await? {
        QueryAnswer::Module(view) => Json::of(&with_contents(state, *view).await),
        QueryAnswer::Status(mut status) => {
            status.troubles.extend(troubles_of_others(state));
            Json::of(&status)
        }
        answer => Json::of(&answer),
    })
}

/// What does not work of that which the engine does not know.
pub(super) fn troubles_of_others(state: &GatewayState) -> impl Iterator<Item = Trouble> {
    let folder = state.folder.trouble().map(|why| Trouble {
        kind: TroubleKind::TaskFolder,
        why,
    });
    let sick = match state.handle.sick_runners.count() {
        0 => None,
        1 => Some("1 runner is sick and takes no tasks".into()),
        count => Some(format!("{count} runners are sick and take no tasks")),
    };
    let sick = sick.map(|why| Trouble {
        kind: TroubleKind::SickRunners,
        why,
    });
    folder.into_iter().chain(sick)
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
