//! Times that a server, a machine or a file states. A stated time may be any number, and Rust's clocks panic
//! where a sum overflows: so a stated time becomes a `Duration` or an instant here alone, where it is
//! bounded.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// The longest stated time that is believed: a million hours, some hundred years. Whoever waits has a
/// deadline of its own.
pub const LONGEST_STATED: Duration = Duration::from_hours(1_000_000);

/// A duration that somebody outside states in whole seconds, cut at [`LONGEST_STATED`].
#[must_use]
pub fn stated_seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds).min(LONGEST_STATED)
}

/// A duration that somebody outside states as a fraction of seconds, cut at [`LONGEST_STATED`]. A number that
/// is no duration, such as a negative one, counts as zero.
#[must_use]
pub fn stated_fraction(seconds: f64) -> Duration {
    Duration::try_from_secs_f64(seconds).unwrap_or_default().min(LONGEST_STATED)
}

/// An instant that somebody outside states in seconds since 1970, cut [`LONGEST_STATED`] after that.
#[must_use]
pub fn stated_instant(seconds_since_epoch: u64) -> SystemTime {
    UNIX_EPOCH + stated_seconds(seconds_since_epoch)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Instant;

    #[test]
    fn any_number_is_a_time_that_can_be_added() {
        let (now, today) = (Instant::now(), SystemTime::now());
        for seconds in [0, 7, 1 << 40, i64::MAX.cast_unsigned(), u64::MAX] {
            assert!(now + stated_seconds(seconds) >= now);
            assert!(today + stated_seconds(seconds) >= today);
            assert!(stated_instant(seconds) >= UNIX_EPOCH);
        }
        for seconds in [-1.0, f64::NAN, f64::INFINITY, f64::MAX, 1e18] {
            assert!(now + stated_fraction(seconds) >= now, "{seconds}");
        }
        assert_eq!((stated_seconds(7), stated_seconds(u64::MAX)), (Duration::from_secs(7), LONGEST_STATED));
        assert_eq!(stated_fraction(1.5), Duration::from_millis(1500));
    }
}
