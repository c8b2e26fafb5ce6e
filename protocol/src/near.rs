//! Names near to a mistyped one, for errors that say what was probably meant.

use crate::limits;

/// Longer names are near to nothing: comparing two names takes time in proportion to the product
/// of their lengths, and a name from outside may have megabytes.
const COMPARED_BYTES_MAX: usize = limits::NAME_BYTES_MAX;

/// Names that one error offers.
const OFFERED_MAX: usize = 3;

/// At most three of `known` that are near to `word`, nearest first. A name is near if its edit
/// distance (two swapped neighbours count once) is at most a third of the word's length, at least 1
/// and at most 3, or if one of the two is the beginning of the other.
pub fn near<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> Vec<&'a str> {
    if word.len() > COMPARED_BYTES_MAX {
        return Vec::new();
    }
    let distance_max = (word.chars().count() / 3).clamp(1, 3);
    let mut found: Vec<(usize, &str)> = known
        .into_iter()
        .filter(|name| name.len() <= COMPARED_BYTES_MAX)
        .filter_map(|name| {
            let distance = strsim::osa_distance(word, name);
            (distance <= distance_max || is_beginning(word, name)).then_some((distance, name))
        })
        .collect();
    found.sort();
    found.truncate(OFFERED_MAX);
    found.into_iter().map(|(_, name)| name).collect()
}

/// Whether one of the two is the beginning of the other; a single byte begins too many names.
fn is_beginning(word: &str, name: &str) -> bool {
    let begins = |long: &str, short: &str| short.len() >= 2 && long.starts_with(short);
    begins(name, word) || (word.len() >= 2 && begins(word, name))
}

/// ` (did you mean …?)`, or nothing where no name is near.
pub fn hint<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> String {
    let names = near(word, known);
    if names.is_empty() {
        String::new()
    } else {
        format!(" (did you mean `{}`?)", names.join("` or `"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn typos_are_near_and_other_words_are_not() {
        let known = ["params", "priority", "module", "requires", "retries"];
        assert_eq!(near("prams", known), ["params"]);
        assert_eq!(near("modul", known), ["module"]);
        assert_eq!(near("zebra", known), Vec::<&str>::new());
        assert_eq!(near("aprams", known), ["params"]);
        assert_eq!(near("req", known), ["requires"]);
        assert_eq!(hint("eco", ["echo"]), " (did you mean `echo`?)");
        assert_eq!(hint("xyz", ["echo"]), "");
    }

    #[test]
    fn names_of_megabytes_cost_nothing() {
        let long = "a".repeat(8 << 20);
        assert_eq!(near(&long, [long.as_str(), "aa"]), Vec::<&str>::new());
        assert_eq!(near("aa", [long.as_str(), "ab"]), ["ab"]);
    }
}
