//! Variables that say how much is played.

use std::str::FromStr;

/// The value of a variable, where it is set. One that cannot be read ends the test: playing less
/// than was asked for would look like success.
pub fn setting<T: FromStr>(name: &str) -> Option<T> {
    let text = std::env::var(name).ok()?;
    let value = text.parse().ok();
    assert!(value.is_some(), "{name}={text} cannot be read");
    value
}
