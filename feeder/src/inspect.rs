//! Commands that ask and change: `tasks`, `jobs`, `modules`, `runners`. One file each; a question,
//! an answer, a table.

pub mod jobs;
pub mod modules;
pub mod runners;
pub mod tasks;

use crate::client::Client;
use crate::trouble::Trouble;
use serde::de::DeserializeOwned;
use taskmaster_protocol::message::Query;
use taskmaster_protocol::{Json, Wall};

/// The rows of a list as the master wrote them, and as we read them.
async fn rows<T: DeserializeOwned>(
    client: &mut Client,
    query: Query,
) -> Result<(Vec<Json>, Vec<T>), Trouble> {
    let answer = client.ask_raw(query).await?;
    let raw: Vec<Json> = read(&answer)?;
    let typed = raw.iter().map(read).collect::<Result<_, _>>()?;
    Ok((raw, typed))
}

/// Reads an answer of the master.
fn read<T: DeserializeOwned>(answer: &Json) -> Result<T, Trouble> {
    serde_json::from_str(answer.get())
        .map_err(|error| Trouble::Local(format!("the master's answer cannot be read: {error}")))
}

/// A time for people: to the second, UTC.
fn moment(time: Option<Wall>) -> String {
    time.map_or(String::new(), |time| {
        time.to_string()
            .replace('T', " ")
            .chars()
            .take(19)
            .collect()
    })
}
