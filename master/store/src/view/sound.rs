//! What is sound in a damaged view, value by value. Whoever reads it hears of each value that is not.

use super::block::{self, Item};
use super::{
    ENDED, EndedTask, JOBS, MODULES, NamedRecord, OPEN, OpenTask, RIGHTS, WrittenEnd, corrupt,
};
use crate::codec;
use crate::kv::{KeyValue, KvStore, StoreError, VALUE_BYTES_MAX, get_parts};
use crate::record::{JobRecord, ModuleRecord, Rights};
use serde::Deserialize;
use taskmaster_protocol::{JobName, ModuleName};

/// Pairs that are read at once.
const PAIRS_OF_A_SCAN: usize = 512;

/// The outcome of reading one thing of a damaged view.
pub type Sound<T> = Result<T, StoreError>;

/// Calls `visit` with each ended task that can be read, in the order of ending, and with an error for
/// each block or task that cannot.
pub fn each_ended<E>(
    store: &dyn KvStore,
    visit: &mut dyn FnMut(Sound<EndedTask>) -> Result<(), E>,
) -> Result<(), E> {
    each_item(store, ENDED, &mut |item| {
        visit(item.and_then(|item| WrittenEnd::unpack(item.number, &item.bytes)))
    })
}

/// Calls `visit` with each open task that can be read, in the order of adding, and with an error for
/// each block or task that cannot.
pub fn each_open<E>(
    store: &dyn KvStore,
    visit: &mut dyn FnMut(Sound<OpenTask>) -> Result<(), E>,
) -> Result<(), E> {
    each_item(store, OPEN, &mut |item| {
        visit(item.and_then(|item| OpenTask::unpack(&item.bytes)))
    })
}

/// The jobs that can be read, and an error for each that cannot.
pub fn jobs(store: &dyn KvStore) -> Vec<Sound<(JobName, JobRecord)>> {
    each_record(store, JOBS, |named: NamedRecord<JobName, JobRecord>| {
        Some((named.name, named.record))
    })
}

/// The modules that can be read, and an error for each that cannot.
pub fn modules(store: &dyn KvStore) -> Vec<Sound<(ModuleName, ModuleRecord)>> {
    each_record(
        store,
        MODULES,
        |named: NamedRecord<ModuleName, ModuleRecord>| Some((named.name, named.record)),
    )
}

/// The rights of modules that can be read, and an error for each that cannot.
pub fn rights(store: &dyn KvStore) -> Vec<Sound<(ModuleName, Rights)>> {
    each_record(store, RIGHTS, |named: NamedRecord<ModuleName, String>| {
        let rights: Option<Rights> = serde_json::from_str(&named.record).ok()?;
        Some((named.name, rights?))
    })
}

/// Hears of a key, without the number of a part, and of its whole value.
type VisitValue<'a, E> = dyn FnMut(&[u8], Sound<Vec<u8>>) -> Result<(), E> + 'a;

fn each_record<R: for<'a> Deserialize<'a>, T>(
    store: &dyn KvStore,
    prefix: u8,
    take: impl Fn(R) -> Option<T>,
) -> Vec<Sound<T>> {
    let mut found = Vec::new();
    let _: Result<(), std::convert::Infallible> = each_value(store, prefix, &mut |key, value| {
        let damaged = |why| corrupt(&String::from_utf8_lossy(key), why);
        let record = value.and_then(|value| codec::decode(&value).map_err(damaged));
        match record {
            Ok(record) => found.extend(take(record).map(Ok)),
            Err(error) => found.push(Err(error)),
        }
        Ok(())
    });
    found
}

fn each_item<E>(
    store: &dyn KvStore,
    prefix: u8,
    visit: &mut dyn FnMut(Sound<Item>) -> Result<(), E>,
) -> Result<(), E> {
    each_value(store, prefix, &mut |_, value| match value
        .and_then(|value| block::decode_owned(prefix, &value))
    {
        Ok(items) => items.into_iter().try_for_each(|item| visit(Ok(item))),
        Err(error) => visit(Err(error)),
    })
}

/// Calls `visit` with each key under a prefix and its whole value.
fn each_value<E>(store: &dyn KvStore, prefix: u8, visit: &mut VisitValue<'_, E>) -> Result<(), E> {
    let mut from = vec![prefix];
    loop {
        let pairs = match store.scan(&from, &[prefix + 1], false, PAIRS_OF_A_SCAN) {
            Ok(pairs) => pairs,
            Err(error) => return visit(&from, Err(error)),
        };
        let Some(last) = pairs.last() else {
            return Ok(());
        };
        from.clone_from(&last.key);
        from.push(0);
        for KeyValue { key, value } in pairs {
            let Some((key, [0, 0])) = key.split_last_chunk() else {
                continue;
            };
            if value.len() < VALUE_BYTES_MAX {
                visit(key, Ok(value))?;
            } else {
                visit(key, get_parts(store, key).map(Option::unwrap_or_default))?;
            }
        }
    }
}
