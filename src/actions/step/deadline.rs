//! The moment at which Pipelines kills the step, and those before it at which a run comes to its end by itself.

use crate::error::{Error, Kind};
use crate::log::progress::in_words;
use std::time::Duration;
use tokio::time::Instant;

/// Kept back for the training's end, the machine's end, and the report; a quarter of a short step.
const RESERVE: Duration = Duration::from_mins(4);
/// A checkpoint is made, brought here, and put into the clone: each takes about as long as it takes to be brought.
const COPIES: u32 = 3;
/// Kept back for what cannot wait: the newest checkpoint into the clone, and the order to end the machine; a tenth of a
/// short step.
const LAST: Duration = Duration::from_secs(90);

/// When the step is killed.
#[derive(Clone, Copy, Debug)]
pub(in crate::actions) struct Deadline {
    at: Instant,
    max_time: Duration,
}

impl Deadline {
    /// That of a step that may take `max_time` and has taken `elapsed` of it.
    pub(in crate::actions) fn new(max_time: Duration, elapsed: Duration) -> Self {
        Self { at: Instant::now() + max_time.saturating_sub(elapsed), max_time }
    }

    /// Whether the work must end now so that all of it can be saved, if none of its checkpoints took longer than `transfer`
    /// to be brought. Not the newest one: it may have had little that was new, and the last one may have much.
    pub(in crate::actions) fn is_last_call(&self, transfer: Duration) -> bool {
        self.left() <= self.reserve(transfer)
    }

    /// How long work can go on whose checkpoints are small.
    pub(in crate::actions) fn room(&self) -> Duration {
        self.left().saturating_sub(self.reserve(Duration::ZERO))
    }

    /// The time until whatever is not saved must be given up.
    pub(in crate::actions) fn until_last_moment(&self) -> Duration {
        self.left().saturating_sub(LAST.min(self.max_time / 10))
    }

    /// The end of a run at this deadline.
    pub(in crate::actions) fn error(&self) -> Error {
        let max_time = in_words(self.max_time);
        Error::new(format!("the run ended itself because Pipelines is about to kill the step: its max-time is {max_time}"))
            .kind(Kind::Training)
            .hint(
                "keep the files of CHECKPOINTS with the step's artifacts and go on from them with RESUME: 'true', or raise max-time in bitbucket-pipelines.yml (720 minutes at most)",
            )
    }

    fn left(&self) -> Duration {
        self.at.saturating_duration_since(Instant::now())
    }

    fn reserve(&self, transfer: Duration) -> Duration {
        let usual = RESERVE.min(self.max_time / 4);
        usual.saturating_add(transfer.saturating_mul(COPIES)).min(self.max_time / 2)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: Duration = Duration::from_mins(1);

    #[tokio::test(start_paused = true)]
    async fn the_larger_the_checkpoint_the_earlier_the_end() {
        // After how many seconds of a step that has just begun.
        let last_call = async |max_time: u32, transfer: u64| {
            let (start, deadline) = (Instant::now(), Deadline::new(MINUTE * max_time, Duration::ZERO));
            while !deadline.is_last_call(Duration::from_secs(transfer)) {
                tokio::time::advance(Duration::from_secs(1)).await;
            }
            start.elapsed().as_secs()
        };
        for (max_time, transfer, expected) in [
            (120, 0, 116 * 60),
            (120, 60, 113 * 60),
            (120, 100_000, 60 * 60),
            (2, 0, 90),
            (2, 5, 75),
            (2, 60, 60),
        ] {
            assert_eq!(
                last_call(max_time, transfer).await,
                expected,
                "{max_time} min, transfers of {transfer} s"
            );
        }
        assert_eq!(Deadline::new(MINUTE * 120, MINUTE * 100).room(), MINUTE * 16);
    }

    #[tokio::test(start_paused = true)]
    async fn nothing_is_awaited_in_the_last_moments() {
        let last = |max_time, elapsed| Deadline::new(MINUTE * max_time, MINUTE * elapsed).until_last_moment();
        assert_eq!(last(120, 0), Duration::from_secs(118 * 60 + 30));
        assert_eq!(last(2, 1), Duration::from_secs(48));
        assert_eq!([last(2, 2), last(2, 5)], [Duration::ZERO; 2]);
    }
}
