//! Kept answers, as the view and the changes that it does not have yet tell of them together.

use crate::cache::index::entry_bytes;
use crate::cache::unfolded::AnswerChanges;
use crate::page::GrowingPage;
use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;
use taskmaster_protocol::message::{
    CacheOutcome, CacheReason, KeptAnswerFilter, KeptAnswerView, KeyPrefix, Page, ResultRef,
};
use taskmaster_protocol::{Hash, ModuleName, Refusal, RefusalCode, TaskId, Wall};
use taskmaster_store::cache::KeyParts;
use taskmaster_store::cache_entry::CacheEntry;
use taskmaster_store::kv::{KvStore, StoreError};
use taskmaster_store::view;

/// Answers read from the view at a time.
const READ_AT_ONCE: usize = 256;

/// Answers that one page of a list looks at.
const LOOKED_AT_MAX: usize = 20_000;

/// Answers among which the nearest one is looked for. Keys are hashes, so the first ones are a fair
/// sample of all.
const COMPARED_MAX: usize = 50_000;

/// A page of kept answers that is to be read.
#[derive(Debug)]
pub struct AnswersPageLookup {
    /// Which answers belong on it.
    pub filter: KeptAnswerFilter,
    /// The most rows.
    pub rows_max: usize,
    /// The key behind which it begins, see [`first_after`].
    pub after: Option<Hash>,
    /// Changes behind that key.
    pub changes: AnswerChanges,
    /// Answers that expire up to this time are too old.
    pub now: Wall,
}

/// One kept answer that is to be read.
#[derive(Debug)]
pub struct AnswerLookup {
    /// How its key begins.
    pub prefix: KeyPrefix,
    /// Changes from the prefix on.
    pub changes: AnswerChanges,
    /// Answers that expire up to this time are too old.
    pub now: Wall,
}

/// A task for which no answer was kept. What is kept is to be compared with it.
#[derive(Debug)]
pub struct MissLookup {
    /// The task.
    pub task: TaskId,
    /// Its module.
    pub module: ModuleName,
    /// Its key.
    pub key: Hash,
    /// The parts of its key.
    pub parts: KeyParts,
    /// About when an answer was looked for.
    pub looked_up: Wall,
    /// Until when the answer was kept whose place the task's own answer took, if it took one.
    pub former_expires: Option<Wall>,
    /// All changes, as far as one question takes them along.
    pub changes: AnswerChanges,
    /// The change of the key itself.
    pub own_change: AnswerChanges,
}

/// The key behind which the answers begin that a filter may mean.
pub fn first_after(filter: &KeptAnswerFilter, after: Option<Hash>) -> Option<Hash> {
    let before_prefix = filter.key.as_ref().and_then(|key| one_less(key.first()));
    after.max(before_prefix)
}

/// The key before another one; `None` for the first.
fn one_less(Hash(mut bytes): Hash) -> Option<Hash> {
    for byte in bytes.iter_mut().rev() {
        let (less, borrows) = byte.overflowing_sub(1);
        *byte = less;
        if !borrows {
            return Some(Hash(bytes));
        }
    }
    None
}

/// Kept answers in the order of their keys.
struct Answers<'a> {
    store: &'a dyn KvStore,
    changes: AnswerChanges,
    /// All answers up to this key were given.
    after: Option<Hash>,
    is_over: bool,
}

impl Answers<'_> {
    /// Some more answers; `None` behind the last, and where the changes are not told any further.
    fn next(&mut self) -> Result<Option<Vec<Arc<CacheEntry>>>, StoreError> {
        if self.is_over {
            return Ok(None);
        }
        let read = view::cache_entries_after(self.store, self.after.as_ref(), READ_AT_ONCE)?;
        let is_full = read.len() == READ_AT_ONCE;
        let last_read = read.last().map(|entry| entry.key).filter(|_| is_full);
        let bound = match (last_read, self.changes.until) {
            (Some(read), Some(until)) => Some(read.min(until)),
            (read, until) => read.or(until),
        };
        let is_inside = |key: &Hash| bound.is_none_or(|bound| *key <= bound);
        let mut merged: BTreeMap<Hash, Arc<CacheEntry>> = read
            .into_iter()
            .filter(|entry| is_inside(&entry.key))
            .map(|entry| (entry.key, Arc::new(entry)))
            .collect();
        let from = self.after.map_or(Bound::Unbounded, Bound::Excluded);
        let to = bound.map_or(Bound::Unbounded, Bound::Included);
        for (key, change) in self.changes.by_key.range((from, to)) {
            match change {
                Some(entry) => merged.insert(*key, entry.clone()),
                None => merged.remove(key),
            };
        }
        self.is_over = bound.is_none() || bound == self.changes.until;
        self.after = bound.or(self.after);
        Ok(Some(merged.into_values().collect()))
    }

    /// Where the next question goes on, after the last answers were given.
    fn goes_on_behind(&self) -> Option<Hash> {
        self.changes.until
    }
}

impl AnswersPageLookup {
    /// Reads the page.
    pub(super) fn read(self, store: &dyn KvStore) -> Result<Page<KeptAnswerView>, StoreError> {
        let last = self.filter.key.as_ref().map(KeyPrefix::last);
        let mut answers = Answers {
            store,
            changes: self.changes,
            after: self.after,
            is_over: false,
        };
        let mut page = GrowingPage::new(self.rows_max);
        let mut looked_at = 0;
        while let Some(some) = answers.next()? {
            for entry in some {
                if last.is_some_and(|last| entry.key > last) {
                    return Ok(page.end(None));
                }
                looked_at += 1;
                if entry.expires > self.now && fits(&self.filter, &entry) {
                    let row = entry_view(&entry, self.now);
                    let bytes = row.json_bytes();
                    page.take(row, bytes);
                }
                if page.is_full() || looked_at >= LOOKED_AT_MAX {
                    return Ok(page.end(Some(entry.key.to_string())));
                }
            }
        }
        let next = answers.goes_on_behind();
        Ok(page.end(next.map(|key| key.to_string())))
    }
}

fn fits(filter: &KeptAnswerFilter, entry: &CacheEntry) -> bool {
    let KeptAnswerFilter {
        module,
        key,
        runner,
        since,
        until,
    } = filter;
    let is_key = |key: &KeyPrefix| (key.first()..=key.last()).contains(&entry.key);
    module.as_ref().is_none_or(|name| *name == entry.module)
        && key.as_ref().is_none_or(is_key)
        && (runner.is_none() || *runner == entry.runner)
        && since.is_none_or(|since| entry.stored >= since)
        && until.is_none_or(|until| entry.stored < until)
}

impl AnswerLookup {
    /// Reads the answer, or says why there is not exactly one.
    pub(super) fn read(
        self,
        store: &dyn KvStore,
    ) -> Result<Result<KeptAnswerView, Refusal>, StoreError> {
        let prefix = self.prefix.as_str().to_owned();
        let filter = KeptAnswerFilter {
            key: Some(self.prefix),
            ..KeptAnswerFilter::default()
        };
        let page = AnswersPageLookup {
            after: first_after(&filter, None),
            filter,
            rows_max: 2,
            changes: self.changes,
            now: self.now,
        };
        let mut rows = page.read(store)?.rows.into_iter();
        Ok(match (rows.next(), rows.next()) {
            (Some(row), None) => Ok(row),
            (Some(one), Some(other)) => Err(Refusal::new(
                RefusalCode::InvalidValue,
                format!(
                    "several kept answers have keys that begin with `{prefix}`, such as {} and {}: \
                     give more digits",
                    one.key.short(),
                    other.key.short()
                ),
            )
            .at("key")),
            (None, _) => Err(Refusal::new(
                RefusalCode::UnknownAnswer,
                format!("no answer is kept whose key begins with `{prefix}`"),
            )),
        })
    }
}

/// The kept answer whose key differs in the fewest parts.
struct Nearest {
    entry: Arc<CacheEntry>,
    differs: Vec<String>,
}

impl MissLookup {
    /// Compares the task with what is kept.
    pub(super) fn read(self, store: &dyn KvStore) -> Result<CacheReason, StoreError> {
        let same = match self.own_change.by_key.get(&self.key) {
            Some(change) => change.clone(),
            None => view::cache_entry(store, &self.key)?.map(Arc::new),
        };
        let of_another = same.filter(|entry| entry.task != self.task);
        if let Some(why) = self.why_not_the_same(of_another.as_deref()) {
            return Ok(self.reason(why, None));
        }
        let nearest = self.nearest(store)?;
        let why = match &nearest {
            None => format!("no answer of module `{}` was kept", self.module),
            Some(Nearest { entry, differs }) => format!(
                "no answer of its key was kept; the nearest one, of task `{}`, differs in {}",
                entry.task,
                listed(differs)
            ),
        };
        Ok(self.reason(why, nearest))
    }

    /// Why an answer of the same key was not given.
    fn why_not_the_same(&self, other: Option<&CacheEntry>) -> Option<String> {
        let too_old =
            |expires| format!("the answer of its key was too old: it was kept until {expires}");
        if let Some(expires) = self.former_expires.filter(|time| *time <= self.looked_up) {
            return Some(too_old(expires));
        }
        let CacheEntry {
            task,
            stored,
            expires,
            ..
        } = other?;
        Some(if *expires <= self.looked_up {
            too_old(*expires)
        } else if *stored > self.looked_up {
            format!("the answer of its key, of task `{task}`, was kept only later, at {stored}")
        } else {
            format!("the answer of its key, of task `{task}`, was not whole when it was looked for")
        })
    }

    fn nearest(&self, store: &dyn KvStore) -> Result<Option<Nearest>, StoreError> {
        let mut answers = Answers {
            store,
            changes: AnswerChanges {
                by_key: self.changes.by_key.clone(),
                until: self.changes.until,
            },
            after: None,
            is_over: false,
        };
        let mut nearest: Option<Nearest> = None;
        let mut looked_at = 0;
        while looked_at < COMPARED_MAX
            && let Some(some) = answers.next()?
        {
            looked_at += some.len();
            for entry in some {
                let is_meant = entry.module == self.module
                    && entry.key != self.key
                    && entry.task != self.task
                    && entry.stored <= self.looked_up;
                if !is_meant {
                    continue;
                }
                let differs = differing(&self.parts, &entry.parts);
                let is_nearer = nearest.as_ref().is_none_or(|nearest| {
                    let newer = entry.stored > nearest.entry.stored;
                    differs.len() < nearest.differs.len()
                        || (differs.len() == nearest.differs.len() && newer)
                });
                if is_nearer {
                    nearest = Some(Nearest { entry, differs });
                }
            }
        }
        Ok(nearest)
    }

    fn reason(&self, why: String, nearest: Option<Nearest>) -> CacheReason {
        let (nearest, differs) = nearest
            .map(|nearest| (nearest.entry.task.clone(), nearest.differs))
            .unzip();
        CacheReason {
            task: self.task.clone(),
            outcome: CacheOutcome::Miss,
            why,
            key: Some(self.key),
            nearest,
            differs: differs.unwrap_or_default(),
        }
    }
}

/// The names of the parts that are not the same.
fn differing(one: &KeyParts, other: &KeyParts) -> Vec<String> {
    let mut names: Vec<&String> = one.keys().chain(other.keys()).collect();
    names.sort();
    names.dedup();
    let differ = |name: &&String| one.get(*name) != other.get(*name);
    names.into_iter().filter(differ).cloned().collect()
}

/// `a`, `b` and `c`.
fn listed(names: &[String]) -> String {
    let quoted: Vec<String> = names.iter().map(|name| format!("`{name}`")).collect();
    match quoted.split_last() {
        None => "the form of the key".into(),
        Some((last, [])) => last.clone(),
        Some((last, others)) => format!("{} and {last}", others.join(", ")),
    }
}

/// A kept answer as people and scripts see it.
fn entry_view(entry: &CacheEntry, now: Wall) -> KeptAnswerView {
    let (result, result_blob) = match entry.result.result() {
        ResultRef::Json(json) => (Some(json), None),
        ResultRef::Blob(hash) => (None, Some(hash)),
    };
    KeptAnswerView {
        key: entry.key,
        task: entry.task.clone(),
        attempt: entry.attempt,
        runner: entry.runner.clone(),
        module: entry.module.clone(),
        version: entry.version,
        engine: entry.engine.clone(),
        timeout_ms: entry.timeout_ms,
        memory_mb: entry.memory_mb,
        stored: entry.stored,
        expires: entry.expires,
        age_s: now.since_us(entry.stored) / 1_000_000,
        left_s: entry.expires.since_us(now).div_ceil(1_000_000),
        bytes: entry_bytes(entry),
        result,
        result_blob,
        outputs: entry.result.outputs().cloned().unwrap_or_default(),
        parts: entry.parts.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_key_before_another_one_is_found() {
        let of = |text: &str| Hash::parse(text).unwrap();
        assert_eq!(one_less(Hash([0; 32])), None);
        assert_eq!(
            one_less(of(&format!("ab{}", "0".repeat(62)))),
            Some(of(&format!("aa{}", "f".repeat(62))))
        );
        assert_eq!(
            one_less(Hash([0xff; 32])).map(|hash| hash.0[31]),
            Some(0xfe)
        );
    }

    #[test]
    fn parts_differ_by_their_names() {
        let parts = |pairs: &[(&str, &str)]| -> KeyParts {
            let own = |(name, part): &(&str, &str)| ((*name).to_owned(), (*part).to_owned());
            pairs.iter().map(own).collect()
        };
        let one = parts(&[("args", "1"), ("env", "1"), ("params", "1")]);
        let other = parts(&[("args", "1"), ("params", "2"), ("salt", "1")]);
        let differs = differing(&one, &other);
        assert_eq!(differs, ["env", "params", "salt"]);
        assert_eq!(listed(&differs), "`env`, `params` and `salt`");
        assert_eq!(listed(&differs[..1]), "`env`");
    }
}
