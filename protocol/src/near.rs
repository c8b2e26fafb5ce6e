//! Names near to a mistyped one, for errors that say what was probably meant.

/// At most three of `known` that are near to `word` (edit distance of at most a third of its
/// length, at least 1, at most 3; or one is the beginning of the other), nearest first.
pub fn near<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> Vec<&'a str> {
    let far = (word.chars().count() / 3).clamp(1, 3);
    let mut found: Vec<(usize, &str)> = known
        .into_iter()
        .filter_map(|name| {
            let d = distance(word, name);
            let prefix = word.len() >= 2
                && (name.starts_with(word) || (name.len() >= 2 && word.starts_with(name)));
            (d <= far || prefix).then_some((d, name))
        })
        .collect();
    found.sort();
    found.truncate(3);
    found.into_iter().map(|(_, name)| name).collect()
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

/// Edit distance with neighbours swapped counted once (optimal string alignment).
fn distance(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    let mut rows = vec![vec![0usize; b.len() + 1]; a.len() + 1];
    for (i, row) in rows.iter_mut().enumerate() {
        row[0] = i;
    }
    rows[0] = (0..=b.len()).collect();
    for i in 1..=a.len() {
        for j in 1..=b.len() {
            let change = rows[i - 1][j - 1] + usize::from(a[i - 1] != b[j - 1]);
            let mut best = change.min(rows[i - 1][j] + 1).min(rows[i][j - 1] + 1);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                best = best.min(rows[i - 2][j - 2] + 1);
            }
            rows[i][j] = best;
        }
    }
    rows[a.len()][b.len()]
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
        assert_eq!(hint("eco", ["echo"]), " (did you mean `echo`?)");
        assert_eq!(hint("xyz", ["echo"]), "");
    }
}
