//! Kept answers in the view, by their keys.

use super::{CACHE, StoreError, behind, corrupt, for_each_value, values_from};
use crate::cache_entry::CacheEntry;
use crate::codec::{self, DecodeError};
use crate::kv::{KvStore, get_parts};
use taskmaster_protocol::Hash;

/// The key under which an answer lies.
pub(super) fn answer_key(key: &Hash) -> Vec<u8> {
    let mut bytes = vec![CACHE];
    bytes.extend_from_slice(&key.0);
    bytes
}

/// An answer as it is written: as JSON, so that later releases can add fields.
pub(super) fn written(entry: &CacheEntry) -> String {
    serde_json::to_string(entry).unwrap_or_default()
}

pub(super) fn read(key: &[u8], value: &[u8]) -> Result<CacheEntry, StoreError> {
    let damaged = |why| corrupt(&format!("the kept answer {}", hex(key)), why);
    let text: String = codec::decode(value).map_err(damaged)?;
    serde_json::from_str(&text).map_err(|error| damaged(DecodeError::Content(error.to_string())))
}

fn hex(key: &[u8]) -> String {
    key.iter()
        .skip(1)
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

/// The answer of this key; `None` where none is kept.
pub fn cache_entry(store: &dyn KvStore, key: &Hash) -> Result<Option<CacheEntry>, StoreError> {
    let key = answer_key(key);
    let value = get_parts(store, &key)?;
    value.map(|value| read(&key, &value)).transpose()
}

/// Calls `visit` with every kept answer, in the order of the keys.
pub fn cache_entries(
    store: &dyn KvStore,
    visit: &mut dyn FnMut(CacheEntry),
) -> Result<(), StoreError> {
    for_each_value(store, CACHE, &mut |key, value| {
        visit(read(key, value)?);
        Ok(())
    })
}

/// Kept answers in the order of their keys, from the one behind `after` on; at most `limit`. There
/// are fewer only where no more exist.
pub fn cache_entries_after(
    store: &dyn KvStore,
    after: Option<&Hash>,
    limit: usize,
) -> Result<Vec<CacheEntry>, StoreError> {
    let from = match after {
        Some(key) => behind(&answer_key(key)),
        None => vec![CACHE],
    };
    let values = values_from(store, from, CACHE, limit)?;
    values
        .iter()
        .map(|pair| read(&pair.key, &pair.value))
        .collect()
}
