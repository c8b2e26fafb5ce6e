//! The form of sled 0.34's log: segments of half a MiB, and in each a row of messages with a checksum.

use std::ops::Range;

/// Bytes of a segment.
pub(super) const SEGMENT_BYTES: usize = 512 * 1024;

/// Bytes of a segment's head: a checksum, and two log sequence numbers of eight bytes.
pub(super) const SEGMENT_HEAD_BYTES: usize = 20;

/// Bytes that the head of a message takes at most. Nearer to its end, a segment has no message.
const MESSAGE_HEAD_BYTES_MAX: usize = 32;

/// Bytes of a message's checksum and kind, before the numbers of variable length.
const FIXED_HEAD_BYTES: usize = 5;

/// What the file inverts of a log sequence number.
const LSN_MASK: u64 = 0x7fff_ffff_ffff_ffff;

/// A segment of the file.
#[derive(Debug, Clone, Copy)]
pub(super) struct Segment {
    /// The segment's number in the order of writing.
    pub number: u64,
    /// Where it begins in the file.
    pub offset: u64,
}

/// A piece of the file.
#[derive(Debug, Clone, Copy)]
pub(super) struct Place {
    pub offset: u64,
    pub bytes: usize,
}

/// What a page is, as far as values are concerned.
#[derive(Debug)]
pub(super) enum Content {
    /// A leaf with its values.
    Leaf {
        /// What all keys of the page begin with.
        prefix: Vec<u8>,
        /// The rests of the keys, and where their values are.
        values: Vec<(Vec<u8>, Place)>,
    },
    /// A page without values: an index, or a page whose content cannot be decoded.
    Other,
}

/// What a message says of its page.
#[derive(Debug)]
pub(super) enum Change {
    Page(Content),
    Set { key: Vec<u8>, place: Place },
    Removed { key: Vec<u8> },
    Freed,
    Nothing,
}

/// A sound message.
#[derive(Debug)]
pub(super) struct Message {
    /// The log sequence number: the segment's number and the place within it.
    pub lsn: u64,
    pub page: u64,
    pub change: Change,
}

/// What was found in a segment.
#[derive(Debug, Default)]
pub(super) struct Walk {
    pub messages: Vec<Message>,
    /// Runs of bytes that are no sound message of this segment, with a sound one behind them.
    pub damaged_places: u64,
}

/// The bytes that are left to read, as sled's own decoder takes them.
struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    fn byte(&mut self) -> Option<u8> {
        let byte = *self.bytes.get(self.at)?;
        self.at += 1;
        Some(byte)
    }

    fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let taken = self.bytes.get(self.at..self.at.checked_add(count)?)?;
        self.at += count;
        Some(taken)
    }

    /// A number of one to nine bytes.
    fn number(&mut self) -> Option<u64> {
        let first = self.byte()?;
        Some(match first {
            0..=240 => u64::from(first),
            241..=248 => 240 + 256 * (u64::from(first) - 241) + u64::from(self.byte()?),
            249 => 2288 + 256 * u64::from(self.byte()?) + u64::from(self.byte()?),
            250..=255 => {
                let mut wide = [0; 8];
                let bytes = self.take(usize::from(first) - 247)?;
                wide[..bytes.len()].copy_from_slice(bytes);
                u64::from_le_bytes(wide)
            }
        })
    }

    /// Bytes behind their number. Returns where they are.
    fn string(&mut self) -> Option<Range<usize>> {
        let count = usize::try_from(self.number()?).ok()?;
        let from = self.at;
        self.take(count)?;
        Some(from..self.at)
    }
}

/// The head and the content of a message whose checksum is right.
struct RawMessage {
    kind: u8,
    segment: u64,
    page: u64,
    /// The content in the segment's bytes.
    content: Range<usize>,
}

/// The message that begins at `at` in the bytes of a segment; `None` where none does, or a damaged one.
fn sound_message(bytes: &[u8], at: usize) -> Option<RawMessage> {
    let checksum = u32::from_le_bytes(*bytes.get(at..)?.first_chunk()?);
    let mut reader = Reader { bytes, at: at + 4 };
    let kind = reader.byte()?;
    if !(1..=11).contains(&kind) {
        return None;
    }
    let count = usize::try_from(reader.number()?).ok()?;
    let segment = reader.number()?;
    let page = reader.number()?;
    let head_end = reader.at;
    let content = head_end..head_end.checked_add(count)?;
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(bytes.get(content.clone())?);
    hasher.update(&bytes[at + 4..head_end]);
    (hasher.finalize() ^ u32::MAX == checksum).then_some(RawMessage {
        kind,
        segment,
        page,
        content,
    })
}

/// The number of a segment as its first sound message names it; `None` where there is none.
pub(super) fn number_in_messages(bytes: &[u8]) -> Option<u64> {
    let places = SEGMENT_HEAD_BYTES..bytes.len().saturating_sub(MESSAGE_HEAD_BYTES_MAX);
    places
        .into_iter()
        .find_map(|at| sound_message(bytes, at))
        .map(|message| message.segment)
}

/// The number in the head of a segment; `None` where the head is not sound.
pub(super) fn number_in_head(bytes: &[u8]) -> Option<u64> {
    let head = bytes.first_chunk::<SEGMENT_HEAD_BYTES>()?;
    let checksum = u32::from_le_bytes(*head.first_chunk()?);
    if crc32fast::hash(&head[4..]) ^ u32::MAX != checksum {
        return None;
    }
    let lsn = u64::from_le_bytes(*head[4..].first_chunk()?) ^ LSN_MASK;
    Some(lsn / SEGMENT_BYTES as u64)
}

/// Reads the messages of a segment. Behind a damaged place, the next sound message of the same
/// segment is looked for. What is left of an earlier use of the segment has another number.
pub(super) fn walk(bytes: &[u8], segment: Segment) -> Walk {
    let mut walk = Walk::default();
    let mut at = SEGMENT_HEAD_BYTES;
    let mut is_damaged = false;
    while at + FIXED_HEAD_BYTES < bytes.len() {
        let found = sound_message(bytes, at).filter(|message| message.segment == segment.number);
        let Some(message) = found else {
            is_damaged = true;
            at += 1;
            continue;
        };
        walk.damaged_places += u64::from(std::mem::take(&mut is_damaged));
        let is_cap = message.kind == 2;
        walk.messages.push(Message {
            lsn: segment.number * SEGMENT_BYTES as u64 + at as u64,
            page: message.page,
            change: change(bytes, &message, segment.offset).unwrap_or(Change::Nothing),
        });
        at = message.content.end;
        // Nothing of this segment is behind its cap.
        if is_cap {
            break;
        }
    }
    walk
}

fn change(bytes: &[u8], message: &RawMessage, offset: u64) -> Option<Change> {
    let mut reader = Reader {
        bytes: &bytes[..message.content.end],
        at: message.content.start,
    };
    Some(match message.kind {
        4 => Change::Freed,
        8 => Change::Page(node(&mut reader, offset).unwrap_or(Content::Other)),
        10 => link(&mut reader, offset)?,
        // Whole pages in files of their own, which no value of this store needs.
        9 => Change::Page(Content::Other),
        _ => Change::Nothing,
    })
}

fn place(range: &Range<usize>, offset: u64) -> Place {
    Place {
        offset: offset + range.start as u64,
        bytes: range.len(),
    }
}

fn link(reader: &mut Reader, offset: u64) -> Option<Change> {
    match reader.byte()? {
        0 => {
            let key = reader.string()?;
            let value = reader.string()?;
            Some(Change::Set {
                key: reader.bytes[key].to_vec(),
                place: place(&value, offset),
            })
        }
        1 => {
            let key = reader.string()?;
            Some(Change::Removed {
                key: reader.bytes[key].to_vec(),
            })
        }
        _ => None,
    }
}

fn node(reader: &mut Reader, offset: u64) -> Option<Content> {
    let _next = reader.number()?;
    let _merging_child = reader.number()?;
    let _is_merging = reader.byte()?;
    let prefix_bytes = usize::from(reader.byte()?);
    let low = reader.string()?;
    let _high = reader.string()?;
    let prefix = reader.bytes[low].get(..prefix_bytes)?.to_vec();
    if reader.byte()? != 0 {
        return Some(Content::Other);
    }
    let count = usize::try_from(reader.number()?).ok()?;
    let keys: Option<Vec<_>> = (0..count).map(|_| reader.string()).collect();
    let mut values = Vec::new();
    for key in keys? {
        let value = reader.string()?;
        values.push((reader.bytes[key].to_vec(), place(&value, offset)));
    }
    Some(Content::Leaf { prefix, values })
}
