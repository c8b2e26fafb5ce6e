//! Patterns of paths, for `outputs`: `*` and `?` within a part, `[a-z]`, `**` for any number of
//! parts.

use crate::limits;
use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize};

/// A pattern of paths in a task's folder, such as `*.png` or `out/**`. It is compared with whole
/// paths, part by part, case and all.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, JsonSchema)]
#[serde(transparent)]
pub struct Glob(String);

impl Glob {
    /// Checks `text`; the sentence says why it can match nothing.
    pub fn new(text: &str) -> Result<Glob, String> {
        let bad = |why: &str| {
            let shown: String = text.chars().take(80).collect();
            Err(format!(
                "the glob `{shown}` {why}; write it like `*.png` or `out/**`, relative to the task's folder"
            ))
        };
        if text.is_empty() {
            return bad("is empty");
        }
        if text.len() > limits::PATH_BYTES_MAX {
            return bad(&format!(
                "has {} bytes, at most {} are allowed",
                text.len(),
                limits::PATH_BYTES_MAX
            ));
        }
        if text.starts_with('/') {
            return bad("is absolute");
        }
        if text.chars().any(char::is_control) {
            return bad("holds a control character");
        }
        for part in text.split('/') {
            match part {
                "" => return bad("has an empty part"),
                "." | ".." => return bad(&format!("has the part `{part}`")),
                part if part != "**" && part.contains("**") => {
                    return bad("has `**` beside other text in a part");
                }
                part if part.split('[').skip(1).any(|set| !set.contains(']')) => {
                    return bad("has a `[` without `]`");
                }
                _ => {}
            }
        }
        Ok(Glob(text.to_owned()))
    }

    /// The pattern's text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether `path`, written with `/`, is meant.
    pub fn matches(&self, path: &str) -> bool {
        let (pattern, path): (Vec<&str>, Vec<&str>) =
            (self.0.split('/').collect(), path.split('/').collect());
        // `reached[i]`: the first `i` parts of the path are matched by the pattern so far. No
        // backtracking, so that no pattern takes longer than pattern times path.
        let mut reached = vec![false; path.len() + 1];
        reached[0] = true;
        for part in pattern {
            let mut next = vec![false; path.len() + 1];
            for i in 0..=path.len() {
                next[i] = match part {
                    "**" => reached[i] || (i > 0 && next[i - 1]),
                    part => i > 0 && reached[i - 1] && part_matches(part, path[i - 1]),
                };
            }
            reached = next;
        }
        // `out/**` means what is in `out`, not `out` itself: only files are compared, and those
        // have a part there.
        reached.last().copied().unwrap_or(false)
    }
}

/// One part, by the same method over its characters.
fn part_matches(pattern: &str, text: &str) -> bool {
    let text: Vec<char> = text.chars().collect();
    let mut reached = vec![false; text.len() + 1];
    reached[0] = true;
    let mut pattern = pattern.chars();
    while let Some(c) = pattern.next() {
        let set = (c == '[').then(|| Set::read(&mut pattern));
        let mut next = vec![false; text.len() + 1];
        for i in 0..=text.len() {
            let one = |fits: bool| i > 0 && reached[i - 1] && fits;
            next[i] = match (c, &set) {
                ('*', _) => reached[i] || (i > 0 && next[i - 1]),
                ('?', _) => one(true),
                (_, Some(set)) => i > 0 && one(set.holds(text[i - 1])),
                (c, None) => i > 0 && one(text[i - 1] == c),
            };
        }
        reached = next;
    }
    reached.last().copied().unwrap_or(false)
}

/// `[abc]`, `[a-z]`, `[!a-z]`.
struct Set {
    negated: bool,
    ranges: Vec<(char, char)>,
}

impl Set {
    /// Reads up to and with the `]`.
    fn read(pattern: &mut std::str::Chars<'_>) -> Set {
        let mut members: Vec<char> = pattern.by_ref().take_while(|c| *c != ']').collect();
        let negated = members.first() == Some(&'!');
        if negated {
            members.remove(0);
        }
        let mut ranges = Vec::new();
        let mut at = 0;
        while let Some(&from) = members.get(at) {
            match (members.get(at + 1), members.get(at + 2)) {
                (Some('-'), Some(&to)) => {
                    ranges.push((from, to));
                    at += 3;
                }
                _ => {
                    ranges.push((from, from));
                    at += 1;
                }
            }
        }
        Set { negated, ranges }
    }

    fn holds(&self, c: char) -> bool {
        self.ranges
            .iter()
            .any(|(from, to)| (*from..=*to).contains(&c))
            != self.negated
    }
}

impl std::str::FromStr for Glob {
    type Err = String;
    fn from_str(text: &str) -> Result<Glob, String> {
        Glob::new(text)
    }
}

impl<'de> Deserialize<'de> for Glob {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Glob, D::Error> {
        Glob::new(&String::deserialize(deserializer)?).map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn globs_match_whole_paths() {
        for (glob, yes, no) in [
            (
                "*.png",
                &["a.png", ".png"][..],
                &["a/b.png", "a.PNG", "a.png.x"][..],
            ),
            ("**/*.png", &["a.png", "a/b.png", "a/b/c.png"], &["a/b.txt"]),
            ("out/**", &["out/a", "out/a/b"], &["outer/a", "a/out/b"]),
            ("**", &["a", "a/b"], &[]),
            ("a/**/z", &["a/z", "a/b/z", "a/b/c/z"], &["a/b", "z"]),
            ("?[0-9]x[!ab]", &["a1xc", "é9x!"], &["a1xa", "1x", "aaxc"]),
            ("a*b*c", &["abc", "aXbYc", "abcbc"], &["ab", "acb"]),
            ("exact/name.txt", &["exact/name.txt"], &["exact/name"]),
        ] {
            let pattern = Glob::new(glob).unwrap();
            yes.iter()
                .for_each(|path| assert!(pattern.matches(path), "{glob} and {path}"));
            no.iter()
                .for_each(|path| assert!(!pattern.matches(path), "{glob} and {path}"));
        }
    }

    #[test]
    fn a_glob_that_can_match_nothing_is_refused() {
        for (text, words) in [
            ("", "empty"),
            ("/out/*", "absolute"),
            ("../*", "the part `..`"),
            ("a//b", "an empty part"),
            ("a**", "beside other text"),
            ("[a", "without `]`"),
        ] {
            let error = Glob::new(text).unwrap_err();
            assert!(error.contains(words), "{text}: {error}");
        }
    }

    #[test]
    fn no_glob_takes_for_ever() {
        let glob = Glob::new(&("*a".repeat(250) + "b")).unwrap();
        assert!(!glob.matches(&"a".repeat(250)));
        let deep = Glob::new(&("**/a/".repeat(80) + "b")).unwrap();
        assert!(!deep.matches(&["a"; 200].join("/")));
    }
}
