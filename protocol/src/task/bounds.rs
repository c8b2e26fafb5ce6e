//! Bounds of the fields of a task document, and the sentences about what is outside of them.

use crate::{Refusal, RefusalCode};

/// Refuses a field that has more than `max` of `unit`.
pub(super) fn at_most(field: &str, is: usize, max: usize, unit: &str) -> Result<(), Refusal> {
    if is <= max {
        return Ok(());
    }
    Err(Refusal::new(
        RefusalCode::TooLarge,
        format!("field `{field}` has {is} {unit}, at most {max} are allowed"),
    )
    .at(field))
}

/// Refuses a number that is outside of `min..=max`; an absent one is fine.
pub(super) fn within(field: &str, value: Option<u64>, min: u64, max: u64) -> Result<(), Refusal> {
    match value {
        Some(n) if n < min || n > max => {
            let text = format!("field `{field}` is {n}, it must be from {min} to {max}");
            Err(Refusal::new(RefusalCode::InvalidValue, text).at(field))
        }
        _ => Ok(()),
    }
}
