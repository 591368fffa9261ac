//! The one way of trying again: bounded in attempts and time, with jittered backoff.

use std::time::Duration;
use tokio::time::Instant;

/// How often and how long to try.
#[derive(Clone, Copy, Debug)]
pub struct Policy {
    /// Attempts in all, the first included.
    pub attempts: u32,
    /// The wait before the second attempt; doubled for each further one, and jittered by half either way.
    pub first_wait: Duration,
    /// No wait is longer, unless the service asked for it.
    pub longest_wait: Duration,
    /// No attempt starts after this much time.
    pub total: Duration,
}

/// What an attempt says of itself.
pub enum Attempt<T, E> {
    /// It ended: with a value, or with an error that trying again cannot mend.
    Final(Result<T, E>),
    /// It failed in a way that may pass; the service may have said when to come back.
    Passing(E, Option<Duration>),
}

/// Runs `operation` until it ends or the policy is used up, and returns its last word.
///
/// `operation` receives the attempt's number, from 1.
pub async fn retry<T, E>(
    policy: Policy,
    mut operation: impl AsyncFnMut(u32) -> Attempt<T, E>,
) -> Result<T, E> {
    let mut tries = Tries::new(policy);
    loop {
        let (error, asked) = match operation(tries.attempt).await {
            Attempt::Final(result) => return result,
            Attempt::Passing(error, asked) => (error, asked),
        };
        if !tries.again(asked).await {
            return Err(error);
        }
    }
}

/// The attempts of a policy, for a loop whose future must be `Send`: the compiler cannot see that of
/// [`retry`]'s.
pub struct Tries {
    policy: Policy,
    attempt: u32,
    give_up: Instant,
}

impl Tries {
    /// Begins with the first attempt.
    #[must_use]
    pub fn new(policy: Policy) -> Self {
        Self { policy, attempt: 1, give_up: Instant::now() + policy.total }
    }

    /// Waits for the next attempt, as long as the service asked for if it did; false when the policy is used
    /// up.
    pub async fn again(&mut self, asked: Option<Duration>) -> bool {
        let wait = asked.unwrap_or_else(|| backoff(self.policy, self.attempt));
        // Compared as durations: a wait that a server asks for may be too long to be added to any clock.
        let left = self.give_up.saturating_duration_since(Instant::now());
        if self.attempt >= self.policy.attempts || wait > left {
            return false;
        }
        tokio::time::sleep(wait).await;
        self.attempt += 1;
        true
    }
}

fn backoff(policy: Policy, attempt: u32) -> Duration {
    let doubled = policy.first_wait.saturating_mul(1 << (attempt - 1).min(16));
    doubled.min(policy.longest_wait).mul_f64(0.5 + fastrand::f64())
}

#[cfg(test)]
mod tests {
    use super::*;

    const POLICY: Policy = Policy {
        attempts: 4,
        first_wait: Duration::from_secs(1),
        longest_wait: Duration::from_secs(3),
        total: Duration::from_mins(1),
    };

    async fn failing(policy: Policy, asked: Option<Duration>) -> (u32, Duration) {
        let (start, mut tries) = (Instant::now(), 0);
        let result: Result<(), ()> = retry(policy, async |attempt| {
            tries = attempt;
            Attempt::Passing((), asked)
        })
        .await;
        assert!(result.is_err());
        (tries, start.elapsed())
    }

    #[tokio::test(start_paused = true)]
    async fn stops_after_its_attempts_with_growing_waits() {
        let (tries, took) = failing(POLICY, None).await;
        assert_eq!(tries, 4);
        // Waits of 1, 2 and 3 s, each between half and one and a half times as long.
        assert!((3.0..=9.0).contains(&took.as_secs_f64()), "{took:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn waits_as_long_as_the_service_asks_but_not_past_the_total() {
        assert_eq!(failing(POLICY, Some(Duration::from_secs(10))).await, (4, Duration::from_secs(30)));
        assert_eq!(failing(POLICY, Some(Duration::from_secs(25))).await, (3, Duration::from_secs(50)));
        for too_long in
            [Duration::from_secs(61), Duration::from_secs(i64::MAX.cast_unsigned()), Duration::MAX]
        {
            assert_eq!(failing(POLICY, Some(too_long)).await.0, 1);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_final_error_is_not_tried_again() {
        let mut tries = 0;
        let result: Result<(), &str> = retry(POLICY, async |_| {
            tries += 1;
            Attempt::Final(Err("no"))
        })
        .await;
        assert_eq!((result, tries), (Err("no"), 1));
    }
}
