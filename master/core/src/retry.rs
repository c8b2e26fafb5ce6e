//! Whether a failed attempt is tried again, and after which wait.

use taskmaster_protocol::{Retries, TaskError};

/// Microseconds until the next try after `tries` failures, the last one included. `None` if there is
/// no next try, because the error is permanent or the policy allows fewer failures. `random` is a
/// random number for the jitter.
///
/// The back-off is exponential: `backoff · factor^(tries-1)`, at most `max_backoff`. With jitter it
/// is drawn evenly from the upper half of that.
pub(crate) fn wait_us(policy: &Retries, error: &TaskError, tries: u32, random: u32) -> Option<u64> {
    if tries > policy.max || !policy.wants(error) {
        return None;
    }
    let exponent = i32::try_from(tries - 1).unwrap_or(i32::MAX);
    let backoff_ms = policy.backoff_ms as f64 * policy.factor.powi(exponent);
    // 0 · ∞ is not a number, and stands for no wait.
    let backoff_ms = if backoff_ms.is_nan() { 0.0 } else { backoff_ms };
    let longest_us = backoff_ms.min(policy.max_backoff_ms as f64) * 1_000.0;
    let part = if policy.jitter {
        0.5 + 0.5 * f64::from(random) / f64::from(u32::MAX)
    } else {
        1.0
    };
    Some((longest_us * part) as u64)
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
