//! What the view does not know yet of the kept answers. Whoever reads them from the view puts these
//! changes over what is read.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Bound;
use std::sync::Arc;
use taskmaster_protocol::Hash;
use taskmaster_store::cache_entry::CacheEntry;

/// Changes that one question takes along, so that no turn is long.
const PASSED_ON_MAX: usize = 2_000;

/// What has become of a key.
#[derive(Debug)]
struct Change {
    /// The view has the change when it has the event of this seq.
    since: u64,
    /// The answer that was kept; `None` where the answer was dropped.
    entry: Option<Arc<CacheEntry>>,
}

/// A key, and the seq of its change.
#[derive(Debug)]
struct ChangedKey {
    key: Hash,
    since: u64,
}

/// Answers that were kept, and keys whose answers were dropped, since the last fold. There are never
/// more than answers were kept before.
#[derive(Debug, Default)]
pub(crate) struct UnfoldedAnswers {
    changes: BTreeMap<Hash, Change>,
    /// All changes in the order in which they were made. A key that has changed again stands here
    /// twice.
    order: VecDeque<ChangedKey>,
    /// The seq of the answer that was kept last.
    last_kept: u64,
}

/// Changes of kept answers that the view does not have yet.
#[derive(Debug, Default)]
pub struct AnswerChanges {
    /// The answer of each key; `None` where it was dropped.
    pub by_key: BTreeMap<Hash, Option<Arc<CacheEntry>>>,
    /// Behind this key there are changes that are not told here. `None`: all are told.
    pub until: Option<Hash>,
}

impl UnfoldedAnswers {
    /// An answer is kept.
    pub fn kept(&mut self, entry: Arc<CacheEntry>) {
        self.last_kept = entry.seq;
        self.changed(entry.key, entry.seq, Some(entry));
    }

    /// Answers are dropped. The view knows it when it has the event of the seq `since`.
    pub fn dropped(&mut self, keys: &[Hash], since: u64) {
        for key in keys {
            self.changed(*key, since, None);
        }
    }

    fn changed(&mut self, key: Hash, since: u64, entry: Option<Arc<CacheEntry>>) {
        self.order.push_back(ChangedKey { key, since });
        self.changes.insert(key, Change { since, entry });
    }

    /// The view has all events up to `seq`.
    pub fn view_has(&mut self, seq: u64) {
        while let Some(changed) = self.order.pop_front_if(|changed| changed.since <= seq) {
            let is_folded = |change: &Change| change.since <= seq;
            if self.changes.get(&changed.key).is_some_and(is_folded) {
                self.changes.remove(&changed.key);
            }
        }
    }

    /// The seq of the answer that was kept last.
    pub fn last_kept(&self) -> u64 {
        self.last_kept
    }

    /// The changes of the keys behind `after`, in the order of the keys, as many as one question may
    /// take along.
    pub fn behind(&self, after: Option<Hash>) -> AnswerChanges {
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        let mut rest = self.changes.range((from, Bound::Unbounded));
        let by_key: BTreeMap<_, _> = rest
            .by_ref()
            .take(PASSED_ON_MAX)
            .map(|(key, change)| (*key, change.entry.clone()))
            .collect();
        let until = rest.next().and(by_key.keys().next_back().copied());
        AnswerChanges { by_key, until }
    }

    /// The change of one key, if the view does not have it yet.
    pub fn of(&self, key: &Hash) -> AnswerChanges {
        let change = self.changes.get(key);
        AnswerChanges {
            by_key: change
                .map(|change| (*key, change.entry.clone()))
                .into_iter()
                .collect(),
            until: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(n: u32) -> Hash {
        let mut bytes = [0; 32];
        bytes[..4].copy_from_slice(&n.to_be_bytes());
        Hash(bytes)
    }

    #[test]
    fn a_change_is_told_until_the_view_has_the_last_one_of_its_key() {
        let mut unfolded = UnfoldedAnswers::default();
        unfolded.dropped(&[key(1), key(2)], 5);
        unfolded.dropped(&[key(1)], 7);
        let keys = |unfolded: &UnfoldedAnswers, after| -> Vec<Hash> {
            unfolded.behind(after).by_key.into_keys().collect()
        };
        assert_eq!(keys(&unfolded, None), [key(1), key(2)]);
        assert_eq!(keys(&unfolded, Some(key(1))), [key(2)]);
        unfolded.view_has(4);
        assert_eq!(keys(&unfolded, None), [key(1), key(2)]);
        unfolded.view_has(6);
        assert_eq!(keys(&unfolded, None), [key(1)]);
        unfolded.view_has(7);
        assert_eq!(keys(&unfolded, None), []);
        assert!(unfolded.order.is_empty());
    }

    #[test]
    fn a_question_takes_a_part_along_and_knows_where_it_ends() {
        let mut unfolded = UnfoldedAnswers::default();
        let all: Vec<Hash> = (1..=PASSED_ON_MAX as u32 + 1).map(key).collect();
        unfolded.dropped(&all, 1);
        let first = unfolded.behind(None);
        assert_eq!(first.by_key.len(), PASSED_ON_MAX);
        assert_eq!(first.until, Some(key(PASSED_ON_MAX as u32)));
        let rest = unfolded.behind(first.until);
        assert_eq!((rest.by_key.len(), rest.until), (1, None));
    }
}
