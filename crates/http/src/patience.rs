//! How long, and how often, a service that keeps objects is asked.

use std::time::Duration;
use trainspot_base::retry::RetryPolicy;

/// How often and how long a request is tried again: a service may be down for half a minute, as for SDKs.
pub const REQUEST_RETRY: RetryPolicy = RetryPolicy {
    attempts: 6,
    first_wait: Duration::from_millis(500),
    longest_wait: Duration::from_secs(15),
    total: Duration::from_mins(2),
};
/// A link slower than this runs into the timeout of a request.
const SLOWEST_BYTES_PER_SECOND: u64 = 32 << 10;

/// How long a request may take that moves so many bytes, of a server that may be silent for
/// `answer_timeout`.
#[must_use]
pub fn transfer_timeout(answer_timeout: Duration, bytes: u64) -> Duration {
    answer_timeout + Duration::from_secs(bytes / SLOWEST_BYTES_PER_SECOND)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_has_a_second_for_each_32_kib_beside_the_servers_own_time() {
        for (bytes, seconds) in [(0, 60), ((32 << 10) - 1, 60), (32 << 10, 61), (320 << 10, 70)] {
            let timeout = transfer_timeout(Duration::from_mins(1), bytes);
            assert_eq!(timeout, Duration::from_secs(seconds), "{bytes}");
        }
    }
}
