//! The rounds of a search: which capacity types and regions are asked for in which order, and for how long.

use super::pools::attempts;
pub use super::pools::{CapacityType, PoolHistory};
use std::time::Duration;
use tokio::time::{Instant, sleep};
use tracing::info;
use trainspot_base::log::progress::in_words;
use trainspot_compute::aws::Purchase;

/// The wait after a round in which nothing was to be had; doubled for each further one. Capacity comes back
/// in minutes.
const FIRST_ROUND_WAIT: Duration = Duration::from_secs(10);
const LONGEST_ROUND_WAIT: Duration = Duration::from_mins(2);

/// The rules of a search.
#[derive(Clone, Copy, Debug)]
pub struct Rounds {
    /// The ways to pay that may be tried.
    pub purchase: Purchase,
    /// How many regions there are to ask in.
    pub regions: usize,
    /// With [`Purchase::SpotThenOnDemand`]: how long spot alone is asked for.
    pub spot_wait: Duration,
    /// How long the search lasts in all.
    pub capacity_wait: Duration,
}

/// A market in which machines are asked for: EC2, or in tests a record of its capacity.
pub trait Market: Send {
    /// What an attempt yields.
    type Machine: Send;

    /// A round begins.
    fn begin_round(&mut self);

    /// Whether this round has asked for anything. If it has not, no later round will.
    fn has_asked(&self) -> bool;

    /// One attempt at a machine.
    fn attempt(
        &mut self,
        history: PoolHistory,
        capacity: CapacityType,
        region: usize,
    ) -> impl Future<Output = Option<Self::Machine>> + Send;
}

/// Why a search ended without a machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoMachine {
    /// Nothing is left to ask for: waiting is of no use.
    Hopeless,
    /// `CAPACITY_WAIT` is over.
    TimeIsOver,
}

impl Rounds {
    /// Asks until there is a machine. On demand is asked for once spot was looked for as long as it may be,
    /// or cannot be had at all.
    pub async fn run<M: Market>(&self, market: &mut M) -> Result<M::Machine, NoMachine> {
        let (start, mut wait) = (Instant::now(), FIRST_ROUND_WAIT);
        let mut spot_wait = match self.purchase {
            Purchase::SpotThenOnDemand => self.spot_wait.min(self.capacity_wait),
            Purchase::Spot | Purchase::OnDemand => Duration::ZERO,
        };
        loop {
            let spot_only = start.elapsed() < spot_wait;
            let purchase = if spot_only { Purchase::Spot } else { self.purchase };
            market.begin_round();
            for (history, capacity, region) in attempts(purchase, self.regions) {
                if let Some(machine) = market.attempt(history, capacity, region).await {
                    return Ok(machine);
                }
            }
            if !market.has_asked() {
                if !spot_only {
                    return Err(NoMachine::Hopeless);
                }
                spot_wait = Duration::ZERO;
                continue;
            }
            let limit = if spot_only { spot_wait } else { self.capacity_wait };
            let left = limit.saturating_sub(start.elapsed());
            if left.is_zero() {
                if !spot_only {
                    return Err(NoMachine::TimeIsOver);
                }
                continue;
            }
            let pause = wait.mul_f64(0.75 + fastrand::f64() / 2.0).min(left);
            let what = if spot_only { "spot alone for" } else { "for" };
            info!("asking again in {}, {what} {} more", in_words(pause), in_words(left));
            sleep(pause).await;
            wait = (wait * 2).min(LONGEST_ROUND_WAIT);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A market that has spot and on demand from these seconds on; none for never.
    struct Waiting {
        start: Instant,
        spot: Option<u64>,
        on_demand: Option<u64>,
        /// Ways to pay that are never asked for.
        closed: Vec<CapacityType>,
        asked: bool,
        log: Vec<(u64, PoolHistory, CapacityType)>,
    }

    impl Waiting {
        fn new(spot: Option<u64>, on_demand: Option<u64>) -> Self {
            let (closed, log) = (Vec::new(), Vec::new());
            Self { start: Instant::now(), spot, on_demand, closed, asked: false, log }
        }
    }

    impl Market for Waiting {
        type Machine = CapacityType;

        fn begin_round(&mut self) {
            self.asked = false;
        }

        fn has_asked(&self) -> bool {
            self.asked
        }

        async fn attempt(
            &mut self,
            history: PoolHistory,
            capacity: CapacityType,
            _: usize,
        ) -> Option<CapacityType> {
            if self.closed.contains(&capacity) {
                return None;
            }
            self.asked = true;
            let now = self.start.elapsed().as_secs();
            self.log.push((now, history, capacity));
            // A pool that was lost is all that there is of spot.
            let from = if capacity == CapacityType::Spot { self.spot } else { self.on_demand };
            let fits = capacity == CapacityType::OnDemand || history == PoolHistory::Lost;
            from.filter(|from| fits && now >= *from).map(|_| capacity)
        }
    }

    fn rounds(purchase: Purchase, spot_wait: u64, capacity_wait: u64) -> Rounds {
        let (spot_wait, capacity_wait) = (Duration::from_secs(spot_wait), Duration::from_secs(capacity_wait));
        Rounds { purchase, regions: 1, spot_wait, capacity_wait }
    }

    const BOTH_WAYS: Purchase = Purchase::SpotThenOnDemand;

    #[tokio::test(start_paused = true)]
    async fn the_pool_that_was_lost_comes_before_on_demand() {
        let mut market = Waiting::new(Some(0), Some(0));
        assert_eq!(rounds(BOTH_WAYS, 0, 900).run(&mut market).await, Ok(CapacityType::Spot));
        assert_eq!(
            market.log,
            [(0, PoolHistory::Fresh, CapacityType::Spot), (0, PoolHistory::Lost, CapacityType::Spot)]
        );
    }

    #[tokio::test(start_paused = true)]
    async fn on_demand_is_asked_for_once_spot_was_waited_for() {
        for (spot, spot_wait, capacity_wait, expected, least, most) in [
            (None, 600, 3600, CapacityType::OnDemand, 600, 601),
            (Some(300), 600, 3600, CapacityType::Spot, 300, 450),
            (None, 0, 3600, CapacityType::OnDemand, 0, 0),
            // The whole search is no longer than it may be, and has asked for everything.
            (None, 600, 60, CapacityType::OnDemand, 60, 61),
            (None, 600, 0, CapacityType::OnDemand, 0, 0),
        ] {
            let mut market = Waiting::new(spot, Some(0));
            let had = rounds(BOTH_WAYS, spot_wait, capacity_wait).run(&mut market).await;
            let took = market.start.elapsed().as_secs();
            assert_eq!(had, Ok(expected), "{spot:?} {spot_wait} {capacity_wait}");
            assert!((least..=most).contains(&took), "{spot:?} {spot_wait} {capacity_wait}: {took} s");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn spot_that_cannot_be_had_at_all_is_not_waited_for() {
        let mut market = Waiting::new(None, Some(0));
        market.closed = vec![CapacityType::Spot];
        assert_eq!(rounds(BOTH_WAYS, 600, 3600).run(&mut market).await, Ok(CapacityType::OnDemand));
        assert_eq!(market.start.elapsed(), Duration::ZERO);
        market.closed.push(CapacityType::OnDemand);
        assert_eq!(rounds(BOTH_WAYS, 600, 3600).run(&mut market).await, Err(NoMachine::Hopeless));
        assert_eq!(market.start.elapsed(), Duration::ZERO);
    }

    #[tokio::test(start_paused = true)]
    async fn a_search_ends_when_its_time_is_over() {
        let mut market = Waiting::new(None, Some(0));
        assert_eq!(rounds(Purchase::Spot, 600, 900).run(&mut market).await, Err(NoMachine::TimeIsOver));
        assert_eq!(market.start.elapsed().as_secs(), 900);
        assert!(market.log.iter().all(|(.., capacity)| *capacity == CapacityType::Spot));
        assert!((8..40).contains(&market.log.len()), "{} attempts", market.log.len());
    }
}
