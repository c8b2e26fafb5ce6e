//! The digest of the view: one number for all of its values. Each fold carries the digest on, so that
//! a reader of the whole view notices what no checksum of a single value can show: values that are
//! missing, and values that are older than others. sled takes a damaged place in its log for the end
//! of a segment, skips the rest of the segment, and then has older pages there.

use super::{SKIPPED, WATERMARKS_KEY, corrupt, read_record};
use crate::codec;
use crate::kv::{KeyValue, KvStore, StoreError, VALUE_BYTES_MAX, WriteBatch, get_parts};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// The key of the digest.
const DIGEST_KEY: &[u8] = b"!digest";

/// Pairs that are read at once.
const PAIRS_OF_A_SCAN: usize = 512;

/// How many values the view has, and the sum of a number for each key with its value.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct ViewDigest {
    values: u64,
    sum: u64,
}

impl ViewDigest {
    /// The digest that the last fold has written. Where there is none, the view is counted: it is
    /// empty, or was written before there were digests.
    pub fn stored_or_counted(store: &dyn KvStore) -> Result<ViewDigest, StoreError> {
        match ViewDigest::stored(store)? {
            Some(digest) => Ok(digest),
            None => ViewDigest::counted(store),
        }
    }

    fn stored(store: &dyn KvStore) -> Result<Option<ViewDigest>, StoreError> {
        read_record(store, DIGEST_KEY, "its digest")
    }

    /// Counts the view, and checks the checksum of each value on the way.
    fn counted(store: &dyn KvStore) -> Result<ViewDigest, StoreError> {
        let mut digest = ViewDigest::default();
        for range in view_ranges() {
            count_range(store, range, &mut digest)?;
        }
        Ok(digest)
    }

    fn add(&mut self, value: &NumberedValue) {
        self.values = self.values.wrapping_add(1);
        self.sum = self.sum.wrapping_add(value.number);
    }

    fn remove(&mut self, value: &NumberedValue) {
        self.values = self.values.wrapping_sub(1);
        self.sum = self.sum.wrapping_sub(value.number);
    }

    /// Puts into the batch the digest that the view has after the batch. The batch must be the whole
    /// change, and the store as it is before.
    pub fn put_changed(
        mut self,
        store: &dyn KvStore,
        batch: &mut WriteBatch,
    ) -> Result<(), StoreError> {
        // Of two entries with one key, the later counts.
        let last: BTreeMap<&[u8], Option<&[u8]>> = batch
            .entries
            .iter()
            .map(|entry| (entry.key.as_slice(), entry.value.as_deref()))
            .filter(|(key, _)| is_counted(key))
            .collect();
        for (key, value) in last {
            let before = store.get(key)?;
            if let Some(before) = &before {
                self.remove(&NumberedValue::new(key, before)?);
            }
            if let Some(after) = value {
                self.add(&NumberedValue::new(key, after)?);
            }
        }
        batch.put_parts(DIGEST_KEY, &codec::encode(&self));
        Ok(())
    }
}

/// A number that nearly always differs where the key or the value differs.
struct NumberedValue {
    number: u64,
}

impl NumberedValue {
    /// `first_part` begins with the checksum of the whole value. The ids of skipped tasks have no
    /// value.
    fn new(key: &[u8], first_part: &[u8]) -> Result<NumberedValue, StoreError> {
        let head = if first_part.is_empty() && is_without_value(key) {
            0
        } else {
            codec::head_number(first_part)
                .ok_or_else(|| corrupt("a value", codec::DecodeError::Empty))?
        };
        // FNV-1a over the key, and the last step of splitmix64, so that sums do not cancel out.
        let hash = key.iter().fold(0xcbf2_9ce4_8422_2325, |hash: u64, byte| {
            (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
        });
        let mut number = hash ^ head.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        number = (number ^ (number >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        number = (number ^ (number >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        Ok(NumberedValue {
            number: number ^ (number >> 31),
        })
    }
}

fn is_without_value(key: &[u8]) -> bool {
    key.first() == Some(&SKIPPED)
}

/// Whether a key of the view stands for a value: the first part of a value does, later parts and the
/// digest itself do not.
fn is_counted(key: &[u8]) -> bool {
    let is_first_part = key.ends_with(&[0, 0]);
    (is_first_part || is_without_value(key)) && !key.starts_with(DIGEST_KEY)
}

/// A range of keys, from the first one to the one behind the last.
struct KeyRange {
    from: Vec<u8>,
    to: Vec<u8>,
}

/// All keys of the store but those of the journal.
fn view_ranges() -> [KeyRange; 2] {
    let journal = crate::journal::JOURNAL;
    [
        KeyRange {
            from: Vec::new(),
            to: vec![journal],
        },
        KeyRange {
            from: vec![journal + 1],
            to: vec![0xff],
        },
    ]
}

fn count_range(
    store: &dyn KvStore,
    KeyRange { mut from, to }: KeyRange,
    digest: &mut ViewDigest,
) -> Result<(), StoreError> {
    loop {
        let pairs = store.scan(&from, &to, false, PAIRS_OF_A_SCAN)?;
        let Some(last) = pairs.last() else {
            return Ok(());
        };
        from.clone_from(&last.key);
        from.push(0);
        for pair in pairs.iter().filter(|pair| is_counted(&pair.key)) {
            check_value(store, pair)?;
            digest.add(&NumberedValue::new(&pair.key, &pair.value)?);
        }
    }
}

/// Checks a value that a scan has found by its first part.
fn check_value(store: &dyn KvStore, first_part: &KeyValue) -> Result<(), StoreError> {
    let KeyValue { key, value } = first_part;
    if is_without_value(key) {
        return Ok(());
    }
    let is_sound = if value.len() < VALUE_BYTES_MAX {
        codec::check(value)
    } else {
        let whole = get_parts(store, &key[..key.len() - 2])?;
        codec::check(&whole.unwrap_or_default())
    };
    is_sound.map_err(|why| corrupt(&String::from_utf8_lossy(key), why))
}

/// Reads the whole view: every value must be there, as the last fold left it.
pub fn verify(store: &dyn KvStore) -> Result<(), StoreError> {
    let counted = ViewDigest::counted(store)?;
    let stored = ViewDigest::stored(store)?;
    let has_marks = get_parts(store, WATERMARKS_KEY)?.is_some();
    let lost = |why: String| {
        Err(StoreError::Corrupt {
            path: "the view".into(),
            why,
        })
    };
    if !has_marks && counted.values > 0 {
        return lost("its watermarks are missing".into());
    }
    match stored {
        // The store was written before there were digests, or nothing was folded yet.
        None => Ok(()),
        Some(stored) if stored == counted => Ok(()),
        Some(stored) if stored.values != counted.values => lost(format!(
            "it should have {} values and has {}",
            stored.values, counted.values
        )),
        Some(_) => lost("some of its values are older than others, or were exchanged".into()),
    }
}
