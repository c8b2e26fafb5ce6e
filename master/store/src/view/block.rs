//! Blocks pack many tasks into one value of the store, because a write for each task would cost
//! several times the size of the task.
//!
//! A block holds items in ascending order of their numbers. The number of an open task is its
//! ordinal, and the number of an ended task is the seq of its end. A block's key is its prefix and a
//! number that is not below any number in the block, and below all numbers of the next block. Items
//! are removed from a block and inserted into it while its key stays the same.

use super::{corrupt, for_each_value};
use crate::codec;
use crate::kv::{
    KeyValue, KvStore, SharedStore, StoreError, VALUE_BYTES_MAX, WriteBatch, get_parts, part_key,
};
use serde::{Deserialize, Serialize, Serializer};
use std::collections::BTreeMap;

/// An item of a block.
pub(super) struct Item {
    /// The ordinal of an open task, or the seq of a task's end.
    pub number: u64,
    /// The task, packed.
    pub bytes: Vec<u8>,
}

/// An item as it lies in the value of a block.
#[derive(Serialize, Deserialize)]
struct ItemRef<'a> {
    number: u64,
    #[serde(borrow)]
    bytes: ByteSlice<'a>,
}

/// Bytes that are written in one piece, where serde would write them one by one.
#[derive(Deserialize)]
pub(super) struct ByteSlice<'a>(pub &'a [u8]);

impl Serialize for ByteSlice<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(self.0)
    }
}

/// Bytes of all items in a block. A block of this size and its head fit into one part of a value.
/// An item that is larger has a block of its own.
const BLOCK_BYTES_MAX: usize = VALUE_BYTES_MAX - 20;

/// Bytes that the number and the length of an item take at most.
const ITEM_HEAD_BYTES: usize = 13;

/// The key of the block with the number `last` in its key, without the number of a part.
fn block_key(prefix: u8, last: u64) -> Vec<u8> {
    let mut key = vec![prefix];
    key.extend_from_slice(&last.to_be_bytes());
    key
}

/// The number in the key of a block.
fn last_of(key: &[u8]) -> u64 {
    key.get(1..9)
        .and_then(|bytes| bytes.try_into().ok())
        .map_or(0, u64::from_be_bytes)
}

/// Decodes the value of a block.
fn decode(prefix: u8, value: &[u8]) -> Result<Vec<ItemRef<'_>>, StoreError> {
    codec::decode(value)
        .map_err(|why| corrupt(&format!("a block of `{}`", char::from(prefix)), why))
}

/// Decodes the value of a block into items that own their bytes.
pub(super) fn decode_owned(prefix: u8, value: &[u8]) -> Result<Vec<Item>, StoreError> {
    let items = decode(prefix, value)?.into_iter().map(|item| Item {
        number: item.number,
        bytes: item.bytes.0.to_vec(),
    });
    Ok(items.collect())
}

/// A block as it lies in the store.
struct StoredBlock {
    /// The number in the block's key.
    last: u64,
    /// All parts of the value.
    value: Vec<u8>,
}

/// The block that a scan has found by its first part.
fn stored_block(store: &dyn KvStore, first_part: KeyValue) -> Result<StoredBlock, StoreError> {
    let last = last_of(&first_part.key);
    if first_part.value.len() < VALUE_BYTES_MAX {
        return Ok(StoredBlock {
            last,
            value: first_part.value,
        });
    }
    let key = &first_part.key[..first_part.key.len() - 2];
    let value = get_parts(store, key)?.unwrap_or_default();
    Ok(StoredBlock { last, value })
}

/// The block that would hold the item `number`: the first one whose key is not below it.
fn block_for(
    store: &dyn KvStore,
    prefix: u8,
    number: u64,
) -> Result<Option<StoredBlock>, StoreError> {
    let from = part_key(&block_key(prefix, number), 0);
    let found = store.scan(&from, &[prefix + 1], false, 1)?;
    found
        .into_iter()
        .next()
        .map(|first_part| stored_block(store, first_part))
        .transpose()
}

/// The bytes of one item; `None` where no block holds it.
pub(super) fn item(
    store: &dyn KvStore,
    prefix: u8,
    number: u64,
) -> Result<Option<Vec<u8>>, StoreError> {
    let Some(block) = block_for(store, prefix, number)? else {
        return Ok(None);
    };
    let items = decode(prefix, &block.value)?;
    Ok(items
        .iter()
        .find(|item| item.number == number)
        .map(|item| item.bytes.0.to_vec()))
}

/// All items of the block that would hold the item `number`. `None` where no block has a key that
/// high.
pub(super) fn at_or_after(
    store: &dyn KvStore,
    prefix: u8,
    number: u64,
) -> Result<Option<Vec<Item>>, StoreError> {
    block_for(store, prefix, number)?
        .map(|block| decode_owned(prefix, &block.value))
        .transpose()
}

/// The number in a block's key, and the block's items.
pub(super) struct BlockItems {
    /// The number in the block's key.
    pub last: u64,
    /// All items of the block, in ascending order.
    pub items: Vec<Item>,
}

/// The last block whose key is below `number`.
pub(super) fn before(
    store: &dyn KvStore,
    prefix: u8,
    number: u64,
) -> Result<Option<BlockItems>, StoreError> {
    let found = store.scan(&[prefix], &block_key(prefix, number), true, 1)?;
    let Some(last_part) = found.into_iter().next() else {
        return Ok(None);
    };

    let last = last_of(&last_part.key);
    let Some(value) = get_parts(store, &block_key(prefix, last))? else {
        let what = format!("a block of `{}`", char::from(prefix));
        return Err(corrupt(&what, codec::DecodeError::Empty));
    };
    let items = decode_owned(prefix, &value)?;
    Ok(Some(BlockItems { last, items }))
}

/// Calls `visit` with the number and the bytes of every item under a prefix, in ascending order.
pub(super) fn for_each_item(
    store: &dyn KvStore,
    prefix: u8,
    visit: &mut impl FnMut(u64, &[u8]) -> Result<(), StoreError>,
) -> Result<(), StoreError> {
    for_each_value(store, prefix, &mut |_, value| {
        decode(prefix, value)?
            .into_iter()
            .try_for_each(|item| visit(item.number, item.bytes.0))
    })
}

/// A block in memory while it is changed.
struct Block {
    items: Vec<Item>,
    /// A number below which the block holds no item: the lowest one when the block was loaded, or
    /// the lowest one that was put since.
    first: u64,
    /// The number of parts of the block's value on disk; 0 for a new block.
    parts_on_disk: usize,
    /// Whether the block must be written.
    changed: bool,
}

/// The blocks of one prefix while a fold changes them. Each block is read once and written once.
pub(super) struct Blocks {
    prefix: u8,
    store: SharedStore,
    /// Blocks by the number in their key.
    loaded: BTreeMap<u64, Block>,
}

impl Blocks {
    pub fn new(prefix: u8, store: SharedStore) -> Blocks {
        Blocks {
            prefix,
            store,
            loaded: BTreeMap::new(),
        }
    }

    /// The number of blocks in memory.
    pub fn len(&self) -> usize {
        self.loaded.len()
    }

    fn load(&mut self, last: u64, value: &[u8]) -> Result<(), StoreError> {
        if self.loaded.contains_key(&last) {
            return Ok(());
        }
        let items = decode_owned(self.prefix, value)?;
        let block = Block {
            first: items.first().map_or(last, |item| item.number),
            parts_on_disk: value.len().div_ceil(VALUE_BYTES_MAX),
            changed: false,
            items,
        };
        self.loaded.insert(last, block);
        Ok(())
    }

    /// The block that holds or would hold the item `number`: the one with the smallest key that is
    /// not below it. `None` where no block has a key that high.
    fn block_of(&mut self, number: u64) -> Result<Option<&mut Block>, StoreError> {
        let in_memory = self
            .loaded
            .range(number..)
            .next()
            .filter(|(_, block)| block.first <= number)
            .map(|(last, _)| *last);
        let last = match in_memory {
            Some(last) => last,
            None => {
                let Some(found) = block_for(self.store.as_ref(), self.prefix, number)? else {
                    return Ok(None);
                };
                self.load(found.last, &found.value)?;
                found.last
            }
        };
        Ok(self.loaded.get_mut(&last))
    }

    /// The bytes of one item; `None` where no block holds it.
    pub fn get(&mut self, number: u64) -> Result<Option<&[u8]>, StoreError> {
        let Some(block) = self.block_of(number)? else {
            return Ok(None);
        };
        Ok(block
            .items
            .iter()
            .find(|item| item.number == number)
            .map(|item| item.bytes.as_slice()))
    }

    /// Removes an item. Where no block holds it, nothing changes.
    pub fn remove(&mut self, number: u64) -> Result<(), StoreError> {
        let Some(block) = self.block_of(number)? else {
            return Ok(());
        };
        let Some(index) = block.items.iter().position(|item| item.number == number) else {
            return Ok(());
        };
        block.changed = true;
        block.items.remove(index);
        Ok(())
    }

    /// Inserts an item, or replaces the one with this number.
    pub fn put(&mut self, number: u64, bytes: Vec<u8>) -> Result<(), StoreError> {
        let item = Item { number, bytes };
        let Some(block) = self.block_of(number)? else {
            self.insert_new(number, number, vec![item]);
            return Ok(());
        };

        block.changed = true;
        block.first = block.first.min(number);
        match block
            .items
            .binary_search_by_key(&number, |item| item.number)
        {
            Ok(index) => block.items[index] = item,
            Err(index) => block.items.insert(index, item),
        }
        Ok(())
    }

    fn insert_new(&mut self, first: u64, last: u64, items: Vec<Item>) {
        let block = Block {
            items,
            first,
            parts_on_disk: 0,
            changed: true,
        };
        self.loaded.insert(last, block);
    }

    /// Adds items whose numbers are above all others. Where the last block on disk is less than half
    /// full, its items move into the new block, so that many small folds do not leave many small
    /// blocks.
    pub fn append(&mut self, new: Vec<Item>) -> Result<(), StoreError> {
        if new.is_empty() {
            return Ok(());
        }
        let mut items = self.take_small_last_block()?;
        items.extend(new);

        let first = items.first().map_or(0, |item| item.number);
        let last = items.last().map_or(0, |item| item.number);
        // Numbers grow for ever, so no block on disk ever had this key.
        self.insert_new(first, last, items);
        Ok(())
    }

    /// Takes the items out of the last block on disk, where that block is less than half full and no
    /// block behind it is in memory.
    fn take_small_last_block(&mut self) -> Result<Vec<Item>, StoreError> {
        let found = self
            .store
            .scan(&[self.prefix], &[self.prefix + 1], true, 1)?
            .into_iter()
            .next();
        let Some(last_part) = found else {
            return Ok(Vec::new());
        };

        let is_small = last_part.value.len() < BLOCK_BYTES_MAX / 2;
        let is_whole_block = last_part.key.ends_with(&[0, 0]);
        let last = last_of(&last_part.key);
        if !is_small || !is_whole_block || self.loaded.range(last + 1..).next().is_some() {
            return Ok(Vec::new());
        }

        self.load(last, &last_part.value)?;
        let Some(block) = self.loaded.get_mut(&last) else {
            return Ok(Vec::new());
        };
        block.changed = true;
        Ok(std::mem::take(&mut block.items))
    }

    /// Puts the changed blocks into the batch. A block that has become too large is written as
    /// several blocks.
    pub fn write(self, batch: &mut WriteBatch) {
        let changed = self.loaded.into_iter().filter(|(_, block)| block.changed);
        for (last, block) in changed {
            write_block(self.prefix, last, &block, batch);
        }
    }
}

fn write_block(prefix: u8, last: u64, block: &Block, batch: &mut WriteBatch) {
    let mut parts_written = 0;
    let pieces = cut(&block.items);
    for (index, piece) in pieces.iter().enumerate() {
        // The last piece keeps the block's key.
        let piece_last = if index + 1 == pieces.len() {
            last
        } else {
            piece.last().map_or(0, |item| item.number)
        };
        let items: Vec<ItemRef> = piece
            .iter()
            .map(|item| ItemRef {
                number: item.number,
                bytes: ByteSlice(&item.bytes),
            })
            .collect();

        let value = codec::encode(&items);
        batch.put_parts(&block_key(prefix, piece_last), &value);
        if piece_last == last {
            parts_written = value.len().div_ceil(VALUE_BYTES_MAX);
        }
    }
    for part in parts_written..block.parts_on_disk {
        batch.remove(part_key(&block_key(prefix, last), part));
    }
}

/// Cuts the items of a block into pieces of at most [`BLOCK_BYTES_MAX`]. Only a piece of a single item
/// may be larger.
fn cut(items: &[Item]) -> Vec<&[Item]> {
    let mut pieces = Vec::new();
    let mut from = 0;
    let mut bytes = 0;
    for (index, item) in items.iter().enumerate() {
        let item_bytes = item.bytes.len() + ITEM_HEAD_BYTES;
        bytes += item_bytes;
        if bytes > BLOCK_BYTES_MAX && index > from {
            pieces.push(&items[from..index]);
            from = index;
            bytes = item_bytes;
        }
    }
    if from < items.len() {
        pieces.push(&items[from..]);
    }
    pieces
}
