//! One level of a JSON value: the items of an array and the members of an object, themselves not
//! read yet. They are borrowed from the text, so that placeholders in them can be recognised.

use serde_json::value::RawValue;
use std::collections::BTreeMap;

/// The items of an array; `None` where `value` is something else.
pub(crate) fn array(value: &RawValue) -> Option<Vec<&RawValue>> {
    serde_json::from_str(value.get()).ok()
}

/// The members of an object by their names; `None` where `value` is something else. Of members
/// with the same name the last one counts, as for every common reader of JSON.
pub(crate) fn members(value: &RawValue) -> Option<BTreeMap<String, &RawValue>> {
    serde_json::from_str(value.get()).ok()
}

/// The only member of an object; `None` where `value` is something else.
pub(crate) fn only_member(value: &RawValue) -> Option<(String, &RawValue)> {
    let mut members = members(value)?;
    let member = members.pop_first()?;
    members.is_empty().then_some(member)
}

/// The beginning of a value for a sentence about it, at most `characters_max` long; `…` where it
/// was cut.
pub(crate) fn shown(value: &RawValue, characters_max: usize) -> String {
    let text = value.get();
    match text.char_indices().nth(characters_max) {
        Some((cut, _)) => format!("{}…", text.get(..cut).unwrap_or_default()),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test: a broken promise ends it")]

    use super::*;

    fn raw(text: &str) -> &RawValue {
        serde_json::from_str(text).unwrap()
    }

    #[test]
    fn of_members_with_the_same_name_the_last_counts() {
        let value = raw(r#"{"a":1,"b":2,"\u0061":3}"#);
        let members = members(value).unwrap();
        assert_eq!(members.len(), 2);
        assert_eq!(members["a"].get(), "3");
        let (name, only) = only_member(raw(r#"{"a":1,"a":2}"#)).unwrap();
        assert_eq!((name.as_str(), only.get()), ("a", "2"));
        assert!(only_member(value).is_none() && only_member(raw("{}")).is_none());
    }
}
