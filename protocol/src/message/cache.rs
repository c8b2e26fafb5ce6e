//! Questions about kept answers, and their answers.

use crate::{FilePath, Hash, Json, ModuleName, TaskId, Wall};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::borrow::Cow;
use std::collections::BTreeMap;

/// The beginning of a key of a kept answer: 1 to 64 hexadecimal digits, in lower case.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct KeyPrefix(String);

/// Why a text is no beginning of a key.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no beginning of a key: 1 to 64 hexadecimal digits are")]
pub struct BadKeyPrefix(String);

/// The digits of a whole key.
const KEY_DIGITS: usize = 64;

impl KeyPrefix {
    /// Reads digits of either case.
    pub fn new(text: &str) -> Result<KeyPrefix, BadKeyPrefix> {
        let is_right = (1..=KEY_DIGITS).contains(&text.len())
            && text.bytes().all(|byte| byte.is_ascii_hexdigit());
        if !is_right {
            return Err(BadKeyPrefix(text.chars().take(KEY_DIGITS + 1).collect()));
        }
        Ok(KeyPrefix(text.to_ascii_lowercase()))
    }

    /// The digits.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The first key that begins so.
    pub fn first(&self) -> Hash {
        Hash::parse(&format!("{:0<KEY_DIGITS$}", self.0)).unwrap_or(Hash([0; 32]))
    }

    /// The last key that begins so.
    pub fn last(&self) -> Hash {
        Hash::parse(&format!("{:f<KEY_DIGITS$}", self.0)).unwrap_or(Hash([0xff; 32]))
    }
}

impl std::str::FromStr for KeyPrefix {
    type Err = BadKeyPrefix;
    fn from_str(text: &str) -> Result<KeyPrefix, BadKeyPrefix> {
        KeyPrefix::new(text)
    }
}

impl TryFrom<String> for KeyPrefix {
    type Error = BadKeyPrefix;
    fn try_from(text: String) -> Result<KeyPrefix, BadKeyPrefix> {
        KeyPrefix::new(&text)
    }
}

impl From<KeyPrefix> for String {
    fn from(prefix: KeyPrefix) -> String {
        prefix.0
    }
}

impl JsonSchema for KeyPrefix {
    fn schema_name() -> Cow<'static, str> {
        "KeyPrefix".into()
    }
    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({ "type": "string", "pattern": "^[0-9a-fA-F]{1,64}$" })
    }
}

/// Which kept answers are meant: those that match all that is given.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct KeptAnswerFilter {
    /// Only answers of this module.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub module: Option<ModuleName>,
    /// Only answers whose keys begin so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<KeyPrefix>,
    /// Only answers that this runner has made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub runner: Option<String>,
    /// Only answers of runs that ended at this time or later.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<Wall>,
    /// Only answers of runs that ended before this time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<Wall>,
}

/// The question for a page of kept answers, in the order of their keys.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct KeptAnswersPageQuery {
    /// Which answers, in the fields beside `limit`.
    #[serde(flatten)]
    pub filter: KeptAnswerFilter,
    /// The most rows of the page, up to [`PAGE_ROWS_MAX`](crate::limits::PAGE_ROWS_MAX).
    pub limit: usize,
    /// The `next` of the page before. Absent: the first page.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<String>,
}

/// A kept answer, as `cache list` and `cache show` print it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct KeptAnswerView {
    /// The key. An equal task has the same.
    pub key: Hash,
    /// The task that ran.
    pub task: TaskId,
    /// The number of the attempt that made the answer.
    pub attempt: u32,
    /// The runner of that attempt.
    pub runner: Option<String>,
    /// The module.
    pub module: ModuleName,
    /// The version of the module that ran.
    pub version: Option<Hash>,
    /// The release of Taskmaster by which the answer was made.
    pub engine: String,
    /// How long the attempt could have run, in milliseconds.
    pub timeout_ms: u64,
    /// How much memory the attempt could have had, in MiB.
    pub memory_mb: u32,
    /// When the run ended.
    pub stored: Wall,
    /// The time from which on the answer is too old.
    pub expires: Wall,
    /// Seconds since the run ended.
    pub age_s: u64,
    /// Seconds for which the answer is still given.
    pub left_s: u64,
    /// Bytes that count against `--cache-mb`: the answer with its blobs.
    pub bytes: u64,
    /// The result, where it is short.
    pub result: Option<Json>,
    /// The blob of a long result.
    pub result_blob: Option<Hash>,
    /// Files that the task gave back, by their path in its folder.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub outputs: BTreeMap<FilePath, Hash>,
    /// The parts of the key by their names, each as a short hash.
    pub parts: BTreeMap<String, String>,
}

impl KeptAnswerView {
    /// About how many bytes the view has as JSON. Pages are cut by it.
    pub fn json_bytes(&self) -> usize {
        /// The other fields, with long names, and the parts of the key.
        const FIELDS: usize = 2 << 10;
        /// A hash and the signs around it.
        const HASH: usize = 70;
        let result = self.result.as_ref().map_or(0, |result| result.get().len());
        let paths = self.outputs.keys();
        let outputs: usize = paths.map(|path| path.as_str().len() + HASH).sum();
        FIELDS + result + outputs
    }
}

/// What is kept, and what has happened since the master started.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct CacheStats {
    /// Answers that are kept.
    pub entries: u64,
    /// Their bytes, with their blobs.
    pub bytes: u64,
    /// The most bytes that they may have together (`--cache-mb`).
    pub bytes_max: u64,
    /// Tasks that a kept answer ended, without a run.
    pub hits: u64,
    /// Tasks for which no answer was kept.
    pub misses: u64,
    /// Tasks that ended with the answer of an equal task that was at work.
    pub joined: u64,
    /// Answers that runs have left.
    pub kept: u64,
    /// Answers that were not kept because of a doubt. The log of each task says which.
    pub doubtful: u64,
    /// Answers that went because others needed their room, or because they were too old.
    pub evicted: u64,
}

/// How a task and the kept answers went together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum CacheOutcome {
    /// A kept answer ended the task.
    Hit,
    /// The task ended, or will end, with the answer of an equal task that is at work.
    Joined,
    /// No answer of its key was kept, so that it runs itself.
    Miss,
    /// No answer was looked for, or none yet.
    NotLookedUp,
}

/// Why a task was a hit or a miss, as `cache why` prints it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct CacheReason {
    /// The task.
    pub task: TaskId,
    /// How the task and the kept answers went together.
    pub outcome: CacheOutcome,
    /// The reason, as a sentence.
    pub why: String,
    /// The key of the task; `null` where it is in doubt or was not made.
    pub key: Option<Hash>,
    /// The task whose answer is kept and whose key differs in the fewest parts. Only for a miss.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nearest: Option<TaskId>,
    /// The names of the parts in which that key differs.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub differs: Vec<String>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ToMaster;

    #[test]
    fn a_prefix_is_hexadecimal_and_has_its_keys() {
        let prefix = KeyPrefix::new("AB0").unwrap();
        assert_eq!(prefix.as_str(), "ab0");
        assert_eq!(prefix.first().to_string(), format!("ab0{}", "0".repeat(61)));
        assert_eq!(prefix.last().to_string(), format!("ab0{}", "f".repeat(61)));
        let whole = "12".repeat(32);
        assert_eq!(
            KeyPrefix::new(&whole).unwrap().first(),
            KeyPrefix::new(&whole).unwrap().last()
        );
        for bad in ["", "xyz", "a b", "ü", &"a".repeat(65)] {
            let error = KeyPrefix::new(bad).unwrap_err().to_string();
            assert!(error.contains("1 to 64 hexadecimal digits"), "{error}");
        }
    }

    #[test]
    fn a_bad_prefix_is_refused_by_field() {
        let text =
            r#"{"event":"query","data":{"ref":1,"what":"kept_answers","key":"zz","limit":1}}"#;
        let refusal = ToMaster::decode(text).unwrap_err();
        assert!(
            refusal.message.contains("`zz` is no beginning of a key"),
            "{refusal}"
        );
    }
}
