//! When a failed attempt is followed by another.

use std::time::Duration;

use sha2::{Digest, Sha256};

use crate::program::{Jitter, RetryPolicy};
use crate::{ActivityFailure, ExecutionId, TaskId, errors};

/// Whether an attempt that failed like this may be tried again.
pub(super) fn is_retryable(failure: &ActivityFailure) -> bool {
    failure
        .retryable
        .unwrap_or_else(|| errors::is_retried(&failure.error))
}

/// Pause after attempt number `attempt` failed, in milliseconds.
///
/// The same attempt always gets the same pause, while tasks that failed
/// together are spread out.
pub(super) fn pause_ms(
    policy: &RetryPolicy,
    execution: ExecutionId,
    task: TaskId,
    attempt: u32,
) -> u64 {
    let full = backoff_ms(policy, attempt);
    let floor = match policy.jitter {
        Jitter::None => return full,
        Jitter::Full => 0,
        Jitter::Equal => full / 2,
    };
    // The upper half of a 128-bit product maps the hash evenly to the range.
    let range = u128::from(full - floor) + 1;
    let offset = (u128::from(hash(execution, task, attempt)) * range) >> 64;
    floor + u64::try_from(offset).unwrap_or(0)
}

/// `initial * multiplier ^ (attempt - 1)`, at most the longest pause.
fn backoff_ms(policy: &RetryPolicy, attempt: u32) -> u64 {
    let max = Duration::from_millis(policy.max_interval_ms).as_secs_f64();
    let mut pause = Duration::from_millis(policy.initial_interval_ms).as_secs_f64();
    // Multiplied step by step: `powi` may differ between platforms, and a
    // replay must not. A multiplier that is no number counts as 1.
    let multiplier = policy.multiplier.max(1.0);
    for _ in 1..attempt {
        if pause >= max || multiplier <= 1.0 {
            break;
        }
        pause *= multiplier;
    }
    Duration::try_from_secs_f64(pause.min(max))
        .ok()
        .and_then(|pause| u64::try_from(pause.as_millis()).ok())
        .unwrap_or(policy.max_interval_ms)
}

/// 64 bits of SHA-256, the same everywhere and for ever.
fn hash(execution: ExecutionId, task: TaskId, attempt: u32) -> u64 {
    let digest = Sha256::new()
        .chain_update(execution.0.as_bytes())
        .chain_update(task.0.to_be_bytes())
        .chain_update(attempt.to_be_bytes())
        .finalize();
    digest[..8]
        .iter()
        .fold(0, |hash, byte| (hash << 8) | u64::from(*byte))
}

#[cfg(test)]
mod tests {
    use super::*;
    use uuid::Uuid;

    const ID: ExecutionId = ExecutionId(Uuid::from_u128(7));

    fn policy(initial: u64, max: u64, multiplier: f64, jitter: Jitter) -> RetryPolicy {
        RetryPolicy {
            max_attempts: 100,
            initial_interval_ms: initial,
            max_interval_ms: max,
            multiplier,
            jitter,
        }
    }

    /// The design's example: 1 s, doubling, at most 60 s.
    #[test]
    fn pauses_grow_up_to_the_longest() {
        let check = |policy: &RetryPolicy, expected: &[u64]| {
            let pauses: Vec<_> = (1..)
                .take(expected.len())
                .map(|n| backoff_ms(policy, n))
                .collect();
            assert_eq!(pauses, expected, "{policy:?}");
        };
        let doubling = policy(1_000, 60_000, 2.0, Jitter::None);
        check(
            &doubling,
            &[1_000, 2_000, 4_000, 8_000, 16_000, 32_000, 60_000, 60_000],
        );
        check(
            &policy(100, 1_000, 1.5, Jitter::None),
            &[100, 150, 225, 337, 506],
        );
        check(&policy(500, 60_000, 1.0, Jitter::None), &[500, 500, 500]);
        check(&policy(500, 60_000, f64::NAN, Jitter::None), &[500, 500]);
        check(
            &policy(500, 60_000, f64::INFINITY, Jitter::None),
            &[500, 60_000],
        );
        check(&policy(5_000, 1_000, 2.0, Jitter::None), &[1_000, 1_000]);
        check(&policy(0, 1_000, 2.0, Jitter::None), &[0, 0]);
        let huge = policy(u64::MAX, u64::MAX, 10.0, Jitter::None);
        assert!(backoff_ms(&huge, u32::MAX) > u64::MAX / 2);
    }

    #[test]
    fn jitter_spreads_tasks_within_its_range_and_repeats() {
        for (jitter, low) in [(Jitter::Full, 0), (Jitter::Equal, 500)] {
            let policy = policy(1_000, 60_000, 2.0, jitter);
            let pauses: Vec<_> = (0..500)
                .map(|t| pause_ms(&policy, ID, TaskId(t), 1))
                .collect();
            let again: Vec<_> = (0..500)
                .map(|t| pause_ms(&policy, ID, TaskId(t), 1))
                .collect();
            assert_eq!(pauses, again);
            assert!(pauses.iter().all(|pause| (low..=1_000).contains(pause)));
            // 500 even draws leave a tenth of the range empty with a chance of 0.9^500.
            let width = (1_000 - low) / 10;
            assert!(pauses.iter().any(|pause| *pause < low + width));
            assert!(pauses.iter().any(|pause| *pause > 1_000 - width));
        }
    }

    #[test]
    fn the_activity_has_the_last_word_on_trying_again() {
        for (error, says, expected) in [
            ("PaymentDeclined", None, true),
            ("TimeoutError", None, true),
            ("ValidationError", None, false),
            ("AuthorizedError", None, false),
            ("AuthorizationError", None, false),
            ("NotFoundError", None, false),
            ("InvalidInput", None, false),
            ("ValidationError", Some(true), true),
            ("PaymentDeclined", Some(false), false),
        ] {
            let failure = ActivityFailure {
                error: error.to_owned(),
                message: String::new(),
                retryable: says,
                details: None,
            };
            assert_eq!(is_retryable(&failure), expected, "{error} {says:?}");
        }
    }
}
