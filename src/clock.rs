//! The clock of this machine, which must be after 1970: ids and times count from there.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// What is wrong with a clock that says `now`; `None` where nothing is.
pub fn wrong(now: SystemTime) -> Option<String> {
    let before = UNIX_EPOCH
        .duration_since(now)
        .ok()
        .filter(|before| *before > Duration::ZERO)?;
    let days = before.as_secs() / 86_400;
    Some(format!(
        "the clock of this machine is {days} days and {} s before 1970, so it was never set; set it, \
         and start again. Nothing was changed",
        before.as_secs() % 86_400
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_before_1970_is_named_and_every_other_is_taken() {
        assert_eq!(wrong(UNIX_EPOCH), None);
        assert_eq!(wrong(SystemTime::now()), None);
        let told = wrong(UNIX_EPOCH - Duration::from_secs(2 * 86_400 + 5)).unwrap();
        assert!(
            told.contains("2 days and 5 s before 1970") && told.contains("set it"),
            "{told}"
        );
    }
}
