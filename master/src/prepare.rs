//! A task document, read and checked as far as it can be without knowing anything else. Done by the gateway's
//! threads, so that the engine's loop does not parse.

use taskmaster_protocol::{Hash, Json, Refusal, RefusalCode, TaskDocument, TaskId, limits, splice};

/// A document that is sound on its own.
#[derive(Debug)]
pub struct Prepared {
    /// The document, but for its id.
    pub document: TaskDocument,
    /// Its id: the document's, or one made here where it has none.
    pub id: TaskId,
    /// The first half of the SHA-256 of its text as it was sent.
    pub hash: [u8; 16],
    /// Tasks whose results its params ask for.
    pub references: Vec<TaskId>,
    /// Why its module's function cannot take its params; the same document may have been taken when the module was
    /// another, so that the engine has the last word.
    pub unfit: Option<Refusal>,
    /// A task added it. It is taken also where feeders are refused: its parent cannot add it again.
    pub of_task: bool,
}

/// Reads one document.
pub fn prepare(text: &Json) -> Result<Prepared, Refusal> {
    let document = TaskDocument::parse(text.get())?;
    let references = document.params.as_ref().map_or(Ok(Vec::new()), |params| splice::references(params.get()))?;
    let wanted = document.dependencies.len() + references.len();
    if wanted > limits::DEPENDENCIES_MAX {
        let most = limits::DEPENDENCIES_MAX;
        let text =
            format!("the task depends on {wanted} others, `$result` in params included; at most {most} are allowed");
        return Err(Refusal::new(RefusalCode::TooLarge, text).at("dependencies"));
    }
    if let Some(id) = document.id.as_ref()
        && (references.contains(id) || document.dependencies.iter().any(|dependency| dependency.on == *id))
    {
        let refusal = Refusal::new(RefusalCode::DependencyCycle, format!("dependency cycle: {id} → {id}"));
        return Err(refusal.at("dependencies").about(vec![id.clone()]));
    }
    let id = match &document.id {
        Some(id) => id.clone(),
        None => TaskId::new(&uuid::Uuid::now_v7().to_string())
            .map_err(|error| Refusal::new(RefusalCode::Internal, error.to_string()))?,
    };
    let mut hash = [0; 16];
    hash.copy_from_slice(&Hash::of(text.get().as_bytes()).0[..16]);
    Ok(Prepared { document, id, hash, references, unfit: None, of_task: false })
}
