//! What is tried many times, at random instants: a short form by default, a long one where the environment
//! says so.

use futures_util::{StreamExt as _, stream};

/// Trials at the same time: more would only wait for each other's machines to boot.
const AT_ONCE: usize = 3;

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok().map(|number| number.parse().unwrap())
}

/// The seed of all chance in a test: that of `TRAINSPOT_SEED`, or a new one.
pub(crate) fn seed() -> u64 {
    number("TRAINSPOT_SEED").unwrap_or_else(|| fastrand::u64(..))
}

/// A number of trials, and the chance that decides when in each of them.
pub(crate) struct Campaign {
    trials: u32,
    seed: u64,
}

impl Campaign {
    /// As many trials as the variable says, or else a few.
    pub(crate) fn new(variable: &str, few: u32) -> Self {
        let trials = number(variable).map_or(few, |trials| u32::try_from(trials).unwrap());
        Self { trials, seed: seed() }
    }

    /// Runs them all, and gives what each of them gave. A trial gets its name, with all it takes to try it
    /// again, and its chance.
    pub(crate) async fn run<T>(&self, trial: impl AsyncFn(&str, &mut fastrand::Rng) -> T) -> Vec<T> {
        let each = |number: u32| {
            let trial = &trial;
            async move {
                let mut random = fastrand::Rng::with_seed(self.seed ^ u64::from(number));
                trial(&format!("TRAINSPOT_SEED={}, trial {number}", self.seed), &mut random).await
            }
        };
        stream::iter(0..self.trials).map(each).buffer_unordered(AT_ONCE).collect().await
    }
}
