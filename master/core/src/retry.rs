//! Whether a failed attempt is tried again, and after which wait.

use taskmaster_protocol::{Retries, TaskError};

/// Microseconds until try `tries + 1`, or `None` where there is none: the error is final, or
/// `tries` failures (this one included) are more than the policy allows. `chance` is a random
/// number for the jitter.
///
/// Exponential back-off: `backoff · factor^(tries-1)`, at most `max_backoff`; with jitter, drawn
/// evenly from the upper half of that.
pub(crate) fn wait_us(policy: &Retries, error: &TaskError, tries: u32, chance: u32) -> Option<u64> {
    if tries > policy.max || !policy.wants(error) {
        return None;
    }
    let grown = policy.backoff_ms as f64
        * policy
            .factor
            .powi(i32::try_from(tries - 1).unwrap_or(i32::MAX));
    // 0 · ∞ is not a number, and stands for no wait.
    let grown = if grown.is_nan() { 0.0 } else { grown };
    let whole = grown.min(policy.max_backoff_ms as f64) * 1_000.0;
    let part = if policy.jitter {
        0.5 + 0.5 * f64::from(chance) / f64::from(u32::MAX)
    } else {
        1.0
    };
    Some((whole * part) as u64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use taskmaster_protocol::ErrorKind;

    #[test]
    fn waits_grow_up_to_their_limit_and_end() {
        let policy = Retries {
            max: 4,
            backoff_ms: 100,
            factor: 3.0,
            max_backoff_ms: 1_000,
            jitter: false,
            on: None,
        };
        let error = TaskError {
            code: Some(1),
            ..TaskError::new(ErrorKind::Exit, "")
        };
        let waits: Vec<_> = (1..=5)
            .map(|tries| wait_us(&policy, &error, tries, 0))
            .collect();
        assert_eq!(
            waits,
            [
                Some(100_000),
                Some(300_000),
                Some(900_000),
                Some(1_000_000),
                None
            ]
        );
        let jittered = Retries {
            jitter: true,
            ..policy
        };
        assert_eq!(wait_us(&jittered, &error, 1, 0), Some(50_000));
        assert_eq!(wait_us(&jittered, &error, 1, u32::MAX), Some(100_000));
        assert_eq!(
            wait_us(&jittered, &TaskError::new(ErrorKind::Trap, ""), 1, 0),
            None
        );
    }
}
