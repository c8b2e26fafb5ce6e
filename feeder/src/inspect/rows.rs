//! Lists as the master gives them.

use crate::client::{Client, ClientError, read_answer};
use crate::output::ListRows;
use serde::de::DeserializeOwned;
use taskmaster_protocol::Json;
use taskmaster_protocol::message::Query;

/// Asks for a list, with all of its pages.
pub(super) async fn ask_rows<T: DeserializeOwned>(
    client: &mut Client,
    query: Query,
) -> Result<ListRows<T>, ClientError> {
    read_rows(client.ask_list(query).await?)
}

/// Reads each row of a list.
pub(super) fn read_rows<T: DeserializeOwned>(raw: Vec<Json>) -> Result<ListRows<T>, ClientError> {
    let typed = raw.iter().map(read_answer).collect::<Result<_, _>>()?;
    Ok(ListRows { raw, typed })
}
