//! The program's one way to retry: bounded in attempts and in time, with jittered backoff. [`retry`] runs a
//! closure; [`Tries`] counts for a loop that `retry` cannot run.

use std::time::Duration;
use tokio::time::Instant;

/// How often and for how long an operation is tried.
#[derive(Clone, Copy, Debug)]
pub struct RetryPolicy {
    /// Attempts in all, the first included.
    pub attempts: u32,
    /// The wait before the second attempt; doubled for each further one, and jittered by half either way.
    pub first_wait: Duration,
    /// The longest wait between two attempts, unless the service asked for a longer one.
    pub longest_wait: Duration,
    /// The time after the first attempt's start after which no further attempt starts.
    pub total: Duration,
}

/// How an attempt ended, and whether another one may help.
pub enum Attempted<T, E> {
    /// The attempt's value, or an error that no further attempt can mend.
    Final(Result<T, E>),
    /// An error that may not come again, with the wait for which the service asked, if it asked for one.
    Transient(E, Option<Duration>),
}

/// Runs `operation` until an attempt is final or the policy is used up, and returns the last attempt's
/// result.
///
/// `operation` receives the attempt's number, from 1.
///
/// # Errors
/// The error of the last attempt.
pub async fn retry<T, E>(
    policy: RetryPolicy,
    mut operation: impl AsyncFnMut(u32) -> Attempted<T, E>,
) -> Result<T, E> {
    let mut tries = Tries::new(policy);
    loop {
        let (error, asked) = match operation(tries.attempt).await {
            Attempted::Final(result) => return result,
            Attempted::Transient(error, asked) => (error, asked),
        };
        if !tries.wait_for_next(asked).await {
            return Err(error);
        }
    }
}

/// The attempts of a policy, for a loop whose future must be `Send`: the compiler cannot prove that the
/// future of [`retry`] is.
pub struct Tries {
    policy: RetryPolicy,
    attempt: u32,
    deadline: Instant,
}

impl Tries {
    /// Begins with the first attempt, which waits for nothing.
    #[must_use]
    pub fn new(policy: RetryPolicy) -> Self {
        Self { policy, attempt: 1, deadline: Instant::now() + policy.total }
    }

    /// Waits until the next attempt is due: after `asked`, or else after the policy's backoff. Returns false,
    /// without waiting, when the policy allows no further attempt.
    pub async fn wait_for_next(&mut self, asked: Option<Duration>) -> bool {
        let wait = asked.unwrap_or_else(|| backoff(self.policy, self.attempt));
        // Compared as durations: a wait that a server asks for may be too long to be added to any clock.
        let left = self.deadline.saturating_duration_since(Instant::now());
        if self.attempt >= self.policy.attempts || wait > left {
            return false;
        }
        tokio::time::sleep(wait).await;
        self.attempt += 1;
        true
    }
}

fn backoff(policy: RetryPolicy, attempt: u32) -> Duration {
    let doubled = policy.first_wait.saturating_mul(1 << (attempt - 1).min(16));
    doubled.min(policy.longest_wait).mul_f64(0.5 + fastrand::f64())
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEST_POLICY: RetryPolicy = RetryPolicy {
        attempts: 4,
        first_wait: Duration::from_secs(1),
        longest_wait: Duration::from_secs(3),
        total: Duration::from_mins(1),
    };

    async fn failing(policy: RetryPolicy, asked: Option<Duration>) -> (u32, Duration) {
        let (start, mut tries) = (Instant::now(), 0);
        let result: Result<(), ()> = retry(policy, async |attempt| {
            tries = attempt;
            Attempted::Transient((), asked)
        })
        .await;
        assert!(result.is_err());
        (tries, start.elapsed())
    }

    #[tokio::test(start_paused = true)]
    async fn stops_after_its_attempts_with_growing_waits() {
        let (tries, took) = failing(TEST_POLICY, None).await;
        assert_eq!(tries, 4);
        // Waits of 1, 2 and 3 s, each between half and one and a half times as long.
        assert!((3.0..=9.0).contains(&took.as_secs_f64()), "{took:?}");
    }

    #[test]
    fn a_wait_is_doubled_up_to_the_longest_and_jittered_by_half() {
        for (attempt, seconds) in [(1, 1.0), (2, 2.0), (3, 3.0), (4, 3.0), (u32::MAX, 3.0)] {
            let waits: Vec<_> =
                (0..200).map(|_| backoff(TEST_POLICY, attempt).as_secs_f64() / seconds).collect();
            assert!(waits.iter().all(|wait| (0.5..=1.5).contains(wait)), "{attempt}: {waits:?}");
            assert!(
                waits.iter().any(|wait| *wait < 0.8) && waits.iter().any(|wait| *wait > 1.2),
                "{waits:?}"
            );
        }
    }

    #[tokio::test(start_paused = true)]
    async fn waits_as_long_as_the_service_asks_but_not_past_the_total() {
        assert_eq!(failing(TEST_POLICY, Some(Duration::from_secs(10))).await, (4, Duration::from_secs(30)));
        assert_eq!(failing(TEST_POLICY, Some(Duration::from_secs(20))).await, (4, Duration::from_mins(1)));
        assert_eq!(failing(TEST_POLICY, Some(Duration::from_secs(25))).await, (3, Duration::from_secs(50)));
        for too_long in
            [Duration::from_secs(61), Duration::from_secs(i64::MAX.cast_unsigned()), Duration::MAX]
        {
            assert_eq!(failing(TEST_POLICY, Some(too_long)).await.0, 1);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_final_error_is_not_tried_again() {
        let mut tries = 0;
        let result: Result<(), &str> = retry(TEST_POLICY, async |_| {
            tries += 1;
            Attempted::Final(Err("no"))
        })
        .await;
        assert_eq!((result, tries), (Err("no"), 1));
    }
}
