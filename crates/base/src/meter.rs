//! How much of an exchange has moved, and whether the exchange has stalled.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::time::{Instant, sleep};

/// How often the count is compared with the one before.
const CHECK_INTERVAL: Duration = Duration::from_millis(500);

/// Counts what one exchange moves, in bytes or in pieces. Clones share the count.
#[derive(Clone, Debug, Default)]
pub struct Meter(Arc<AtomicU64>);

impl Meter {
    /// Counts so many bytes or pieces more.
    pub fn add(&self, moved: u64) {
        self.0.fetch_add(moved, Ordering::Relaxed);
    }

    /// The bytes or pieces that were counted so far.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    /// Ends when the count has stood still for a whole `limit`, and returns that limit. The limit is given
    /// the count: the first byte may be allowed more time than those that follow.
    pub async fn stalled(&self, limit: impl Fn(u64) -> Duration) -> Duration {
        let (mut seen, mut since) = (self.total(), Instant::now());
        loop {
            let limit = limit(seen);
            if since.elapsed() >= limit {
                return limit;
            }
            sleep(CHECK_INTERVAL).await;
            let total = self.total();
            if total != seen {
                (seen, since) = (total, Instant::now());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn silence_ends_an_exchange_and_movement_prolongs_it() {
        let (meter, start) = (Meter::default(), Instant::now());
        let (limit, pause) = (Duration::from_mins(2), Duration::from_secs(100));
        let (stalled, ()) = tokio::join!(meter.stalled(|_| limit), async {
            sleep(pause).await;
            meter.add(1);
        });
        assert_eq!(stalled, limit);
        let (least, took) = (pause + limit, start.elapsed());
        assert!(least <= took && took <= least + 2 * CHECK_INTERVAL, "{took:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn the_first_byte_may_take_longer() {
        let (meter, start) = (Meter::default(), Instant::now());
        let limit = |total| if total == 0 { Duration::from_mins(10) } else { Duration::from_mins(1) };
        let (stalled, ()) = tokio::join!(meter.stalled(limit), async {
            sleep(Duration::from_mins(9)).await;
            meter.add(7);
        });
        assert_eq!((stalled, meter.total()), (Duration::from_mins(1), 7));
        let (least, took) = (Duration::from_mins(10), start.elapsed());
        assert!(least <= took && took <= least + 2 * CHECK_INTERVAL, "{took:?}");
    }
}
