//! What a path in a task's folder and a pattern of such paths have in common.

use crate::limits;

/// Characters of a wrong path or pattern that stand in the sentence about it.
const SHOWN_MAX: usize = 80;

/// Checks that `text` is relative and leads nowhere upwards, and each of its parts by `check_part`.
/// The error is what is wrong, as the rest of a sentence: `is absolute`.
pub(crate) fn check(
    text: &str,
    check_part: impl Fn(&str) -> Result<(), String>,
) -> Result<(), String> {
    if text.is_empty() {
        return Err("is empty".into());
    }
    if text.len() > limits::PATH_BYTES_MAX {
        let is = text.len();
        let max = limits::PATH_BYTES_MAX;
        return Err(format!("has {is} bytes, at most {max} are allowed"));
    }
    if text.starts_with('/') {
        return Err("is absolute".into());
    }
    if text.chars().any(char::is_control) {
        return Err("holds a control character".into());
    }
    text.split('/').try_for_each(|part| match part {
        "" => Err("has an empty part".into()),
        "." | ".." => Err(format!("has the part `{part}`")),
        _ => check_part(part),
    })
}

/// The beginning of `text`, for a sentence about it.
pub(crate) fn shown(text: &str) -> String {
    text.chars().take(SHOWN_MAX).collect()
}
