//! Tasks packed into values of the store: a write for each task would cost several times the task's
//! own.
//!
//! A block is items in ascending order of their numbers: open tasks by `no`, ended ones by `seq`.
//! Its key is its prefix and a number not below any in it and below all of the next block. Items
//! may leave a block and come into it; the key stays.

use super::corrupt;
use crate::codec;
use crate::kv::{Batch, Reader, Shelf, StoreError, VALUE_BYTES_MAX, get_parts, part_key};
use serde::{Serialize, Serializer};
use std::collections::BTreeMap;

/// Numbers with what stands under them, ascending.
pub(super) type Items = Vec<(u64, Vec<u8>)>;

/// Bytes of items in a block: with its head, the value is one part. A larger item has a block of
/// its own.
const BLOCK_BYTES_MAX: usize = VALUE_BYTES_MAX - 20;

/// The greatest size of an item's number and length.
const ITEM_HEAD_BYTES: usize = 13;

/// Bytes that are written at once, not one by one.
pub(super) struct Bytes<'a>(pub &'a [u8]);

impl Serialize for Bytes<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(self.0)
    }
}

/// The key of the block that ends with `last`, without the part's number.
fn key(prefix: u8, last: u64) -> Vec<u8> {
    let mut key = vec![prefix];
    key.extend_from_slice(&last.to_be_bytes());
    key
}

fn last_of(key: &[u8]) -> u64 {
    key.get(1..9)
        .and_then(|bytes| bytes.try_into().ok())
        .map_or(0, u64::from_be_bytes)
}

fn unpack(prefix: u8, value: &[u8]) -> Result<Vec<(u64, &[u8])>, StoreError> {
    codec::decode(value)
        .map_err(|why| corrupt(&format!("a block of `{}`", char::from(prefix)), why))
}

/// The value of a block's key that a scan has met, with the parts that follow it.
fn whole(shelf: &dyn Shelf, (key, value): (Vec<u8>, Vec<u8>)) -> Result<Vec<u8>, StoreError> {
    if value.len() < VALUE_BYTES_MAX {
        return Ok(value);
    }
    Ok(get_parts(shelf, &key[..key.len() - 2])?.unwrap_or_default())
}

fn first_from(
    shelf: &dyn Shelf,
    prefix: u8,
    number: u64,
) -> Result<Option<(u64, Vec<u8>)>, StoreError> {
    let found = shelf.scan(&part_key(&key(prefix, number), 0), &[prefix + 1], false, 1)?;
    let Some(pair) = found.into_iter().next() else {
        return Ok(None);
    };
    Ok(Some((last_of(&pair.0), whole(shelf, pair)?)))
}

/// The item of a number.
pub(super) fn item(
    shelf: &dyn Shelf,
    prefix: u8,
    number: u64,
) -> Result<Option<Vec<u8>>, StoreError> {
    let Some((_, value)) = first_from(shelf, prefix, number)? else {
        return Ok(None);
    };
    let items = unpack(prefix, &value)?;
    Ok(items
        .iter()
        .find(|(at, _)| *at == number)
        .map(|(_, bytes)| bytes.to_vec()))
}

/// The block that holds `number` or else is the next one: its items.
pub(super) fn at_or_after(
    shelf: &dyn Shelf,
    prefix: u8,
    number: u64,
) -> Result<Option<Items>, StoreError> {
    let Some((_, value)) = first_from(shelf, prefix, number)? else {
        return Ok(None);
    };
    Ok(Some(owned(unpack(prefix, &value)?)))
}

/// The last block whose key is below `number`: its key's number and its items.
pub(super) fn before(
    shelf: &dyn Shelf,
    prefix: u8,
    number: u64,
) -> Result<Option<(u64, Items)>, StoreError> {
    let found = shelf.scan(&[prefix], &key(prefix, number), true, 1)?;
    let Some((last_part, _)) = found.into_iter().next() else {
        return Ok(None);
    };
    let last = last_of(&last_part);
    let Some(value) = get_parts(shelf, &key(prefix, last))? else {
        return Ok(None);
    };
    Ok(Some((last, owned(unpack(prefix, &value)?))))
}

fn owned(items: Vec<(u64, &[u8])>) -> Items {
    items
        .into_iter()
        .map(|(number, bytes)| (number, bytes.to_vec()))
        .collect()
}

/// Every item of a prefix, in order.
pub(super) fn each(
    shelf: &dyn Shelf,
    prefix: u8,
    meet: &mut impl FnMut(u64, &[u8]) -> Result<(), StoreError>,
) -> Result<(), StoreError> {
    super::each(shelf, prefix, &mut |_, value| {
        unpack(prefix, value)?
            .into_iter()
            .try_for_each(|(number, bytes)| meet(number, bytes))
    })
}

struct Block {
    items: Items,
    /// The number of its first item when it was read: it holds no smaller ones.
    first: u64,
    /// Parts of its value on disk.
    parts: usize,
    changed: bool,
}

/// The blocks of one prefix while they are changed: read once, written once.
pub(super) struct Blocks {
    prefix: u8,
    shelf: Reader,
    read: BTreeMap<u64, Block>,
}

impl Blocks {
    pub fn new(prefix: u8, shelf: Reader) -> Blocks {
        Blocks {
            prefix,
            shelf,
            read: BTreeMap::new(),
        }
    }

    /// How many blocks have been read.
    pub fn len(&self) -> usize {
        self.read.len()
    }

    fn load(&mut self, last: u64, value: &[u8]) -> Result<(), StoreError> {
        if self.read.contains_key(&last) {
            return Ok(());
        }
        let items = owned(unpack(self.prefix, value)?);
        let first = items.first().map_or(last, |(number, _)| *number);
        let parts = value.len().div_ceil(VALUE_BYTES_MAX);
        self.read.insert(
            last,
            Block {
                items,
                first,
                parts,
                changed: false,
            },
        );
        Ok(())
    }

    /// The block to which `number` belongs: the one with the smallest key that is not below it.
    fn of(&mut self, number: u64) -> Result<Option<&mut Block>, StoreError> {
        let near = self
            .read
            .range(number..)
            .next()
            .filter(|(_, block)| block.first <= number)
            .map(|(last, _)| *last);
        let last = match near {
            Some(last) => last,
            None => {
                let Some((last, value)) = first_from(self.shelf.as_ref(), self.prefix, number)?
                else {
                    return Ok(None);
                };
                self.load(last, &value)?;
                last
            }
        };
        Ok(self.read.get_mut(&last))
    }

    /// The item of a number.
    pub fn get(&mut self, number: u64) -> Result<Option<&[u8]>, StoreError> {
        let Some(block) = self.of(number)? else {
            return Ok(None);
        };
        Ok(block
            .items
            .iter()
            .find(|(at, _)| *at == number)
            .map(|(_, bytes)| bytes.as_slice()))
    }

    /// Takes an item out.
    pub fn remove(&mut self, number: u64) -> Result<Option<Vec<u8>>, StoreError> {
        let Some(block) = self.of(number)? else {
            return Ok(None);
        };
        let Some(index) = block.items.iter().position(|(at, _)| *at == number) else {
            return Ok(None);
        };
        block.changed = true;
        Ok(Some(block.items.remove(index).1))
    }

    /// Puts an item in its place, instead of the one that is there.
    pub fn put(&mut self, number: u64, bytes: Vec<u8>) -> Result<(), StoreError> {
        let Some(block) = self.of(number)? else {
            let block = Block {
                items: vec![(number, bytes)],
                first: number,
                parts: 0,
                changed: true,
            };
            self.read.insert(number, block);
            return Ok(());
        };
        block.changed = true;
        block.first = block.first.min(number);
        match block.items.binary_search_by_key(&number, |(at, _)| *at) {
            Ok(index) => block.items[index].1 = bytes,
            Err(index) => block.items.insert(index, (number, bytes)),
        }
        Ok(())
    }

    /// Puts items behind all that are there. A last block that is less than half full is filled
    /// first, so that many small folds do not leave many small blocks.
    pub fn append(&mut self, mut items: Items) -> Result<(), StoreError> {
        if items.is_empty() {
            return Ok(());
        }
        let found = self
            .shelf
            .scan(&[self.prefix], &[self.prefix + 1], true, 1)?
            .into_iter()
            .next();
        if let Some((last_part, value)) =
            found.filter(|(_, value)| value.len() < BLOCK_BYTES_MAX / 2)
            && last_part.ends_with(&[0, 0])
            && self.read.range(last_of(&last_part) + 1..).next().is_none()
        {
            let last = last_of(&last_part);
            self.load(last, &value)?;
            if let Some(block) = self.read.get_mut(&last) {
                block.changed = true;
                let mut all = std::mem::take(&mut block.items);
                all.append(&mut items);
                items = all;
            }
        }
        let last = items.last().map_or(0, |(number, _)| *number);
        let first = items.first().map_or(0, |(number, _)| *number);
        // Numbers grow for ever: no block has had this key.
        self.read.insert(
            last,
            Block {
                items,
                first,
                parts: 0,
                changed: true,
            },
        );
        Ok(())
    }

    /// Writes what has changed.
    pub fn write(self, batch: &mut Batch) {
        for (last, block) in self.read.into_iter().filter(|(_, block)| block.changed) {
            let mut parts = 0;
            let pieces = cut(&block.items);
            for (n, piece) in pieces.iter().enumerate() {
                // The last piece keeps the key.
                let end = if n + 1 == pieces.len() {
                    last
                } else {
                    piece.last().map_or(0, |(number, _)| *number)
                };
                let items: Vec<(u64, Bytes)> = piece
                    .iter()
                    .map(|(number, bytes)| (*number, Bytes(bytes)))
                    .collect();
                let value = codec::encode(&items);
                batch.put_parts(&key(self.prefix, end), &value);
                if end == last {
                    parts = value.len().div_ceil(VALUE_BYTES_MAX);
                }
            }
            for part in parts..block.parts {
                batch.remove(part_key(&key(self.prefix, last), part));
            }
        }
    }
}

fn cut(items: &[(u64, Vec<u8>)]) -> Vec<&[(u64, Vec<u8>)]> {
    let mut pieces = Vec::new();
    let (mut from, mut bytes) = (0, 0);
    for (n, (_, item)) in items.iter().enumerate() {
        bytes += item.len() + ITEM_HEAD_BYTES;
        if bytes > BLOCK_BYTES_MAX && n > from {
            pieces.push(&items[from..n]);
            (from, bytes) = (n, item.len() + ITEM_HEAD_BYTES);
        }
    }
    if from < items.len() {
        pieces.push(&items[from..]);
    }
    pieces
}
