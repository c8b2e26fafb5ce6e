//! Patterns of paths, for `outputs`: `*`, `?` and `[a-z]` within a part, `**` for any number of
//! parts.

use crate::relative;
use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize};

/// A pattern of paths in a task's folder, such as `*.png` or `out/**`. It is compared with whole
/// paths, part by part, and upper and lower case differ.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, JsonSchema)]
#[serde(transparent)]
pub struct Glob(String);

/// Why a pattern is refused: the sentence for people, without the field's name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct BadGlob(String);

impl Glob {
    /// Checks `text`, at most [`limits::PATH_BYTES_MAX`](crate::limits::PATH_BYTES_MAX) bytes.
    /// Refused where it could match no path of a task's folder.
    pub fn new(text: &str) -> Result<Glob, BadGlob> {
        relative::check(text, check_part).map_err(|why| {
            let shown = relative::shown(text);
            BadGlob(format!(
                "the glob `{shown}` {why}; \
                 write it like `*.png` or `out/**`, relative to the task's folder"
            ))
        })?;
        Ok(Glob(text.to_owned()))
    }

    /// The pattern's text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether `path`, written with `/`, is meant.
    ///
    /// There is no backtracking, so that no pattern takes longer than the product of the lengths of
    /// pattern and path. `out/**` means what is in `out` and not `out` itself: only files are
    /// compared, and the path of a file in `out` has a part behind it.
    pub fn matches(&self, path: &str) -> bool {
        let path: Vec<&str> = path.split('/').collect();
        let mut reached = Reached::none(path.len());
        for part in self.0.split('/') {
            reached = match part {
                "**" => reached.any_number(),
                part => reached.one_more(|index| part_matches(part, path[index])),
            };
        }
        reached.all()
    }
}

fn check_part(part: &str) -> Result<(), String> {
    if part != "**" && part.contains("**") {
        return Err("has `**` beside other text in a part".into());
    }
    if part.split('[').skip(1).any(|class| !class.contains(']')) {
        return Err("has a `[` without `]`".into());
    }
    Ok(())
}

/// Whether one part of a pattern matches one part of a path, character by character.
fn part_matches(pattern: &str, text: &str) -> bool {
    let text: Vec<char> = text.chars().collect();
    let mut reached = Reached::none(text.len());
    let mut pattern = pattern.chars();
    while let Some(c) = pattern.next() {
        reached = match c {
            '*' => reached.any_number(),
            '?' => reached.one_more(|_| true),
            '[' => {
                let class = CharacterClass::read(&mut pattern);
                reached.one_more(|index| class.holds(text[index]))
            }
            c => reached.one_more(|index| text[index] == c),
        };
    }
    reached.all()
}

/// Which beginnings of a sequence the pattern matches so far: `self.0[n]` is its first `n` items.
struct Reached(Vec<bool>);

impl Reached {
    /// Only the empty beginning of a sequence of this length.
    fn none(length: usize) -> Reached {
        let mut reached = vec![false; length + 1];
        reached[0] = true;
        Reached(reached)
    }

    /// The pattern goes on with one item for which `fits` holds at its index.
    fn one_more(self, fits: impl Fn(usize) -> bool) -> Reached {
        let mut next = vec![false; self.0.len()];
        for (index, reached) in self.0.iter().enumerate().take(self.0.len() - 1) {
            next[index + 1] = *reached && fits(index);
        }
        Reached(next)
    }

    /// The pattern goes on with any number of items, also none.
    fn any_number(mut self) -> Reached {
        let mut before = false;
        for reached in &mut self.0 {
            *reached |= before;
            before = *reached;
        }
        self
    }

    /// Whether the whole sequence is matched.
    fn all(&self) -> bool {
        self.0.last().copied().unwrap_or(false)
    }
}

/// One character of several: `[abc]`, `[a-z]`, `[!a-z]`.
struct CharacterClass {
    is_negated: bool,
    /// First and last character of each range, both included.
    ranges: Vec<(char, char)>,
}

impl CharacterClass {
    /// Reads up to and with the `]`.
    fn read(pattern: &mut std::str::Chars<'_>) -> CharacterClass {
        let members: Vec<char> = pattern.by_ref().take_while(|c| *c != ']').collect();
        let is_negated = members.first() == Some(&'!');
        let mut rest = &members[usize::from(is_negated)..];
        let mut ranges = Vec::new();
        loop {
            match *rest {
                [first, '-', last, ..] => {
                    ranges.push((first, last));
                    rest = &rest[3..];
                }
                [only, ..] => {
                    ranges.push((only, only));
                    rest = &rest[1..];
                }
                [] => return CharacterClass { is_negated, ranges },
            }
        }
    }

    fn holds(&self, c: char) -> bool {
        let is_listed = self
            .ranges
            .iter()
            .any(|(first, last)| (*first..=*last).contains(&c));
        is_listed != self.is_negated
    }
}

impl std::str::FromStr for Glob {
    type Err = BadGlob;
    fn from_str(text: &str) -> Result<Glob, BadGlob> {
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
            let error = Glob::new(text).unwrap_err().to_string();
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
