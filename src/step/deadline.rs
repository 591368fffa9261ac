//! The moment at which Pipelines kills the step, and those before it at which a run comes to its end by
//! itself.

use std::time::Duration;
use tokio::time::Instant;
use trainspot_base::error::{Error, Kind};
use trainspot_base::log::progress::in_words;

/// The time that is kept back for the training's end, the machine's end, and the report; a quarter of a short
/// step.
const END_RESERVE: Duration = Duration::from_mins(4);
/// A checkpoint is made, brought here, and put into the clone: each takes about as long as it takes to be
/// brought.
const CHECKPOINT_COPIES: u32 = 3;
/// The time that is kept back for what cannot wait: the newest checkpoint into the clone, the machine's end,
/// and the report; a tenth of a short step.
const LAST_RESERVE: Duration = Duration::from_secs(90);
/// The part of the last moments in which nothing is awaited any more, so that the process itself can end.
const EXIT_DIVISOR: u32 = 9;

/// When the step is killed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Deadline {
    at: Instant,
    max_time: Duration,
}

impl Deadline {
    /// That of a step that may take `max_time` and has taken `elapsed` of it.
    pub(crate) fn new(max_time: Duration, elapsed: Duration) -> Self {
        Self { at: Instant::now() + max_time.saturating_sub(elapsed), max_time }
    }

    /// Whether the work must end now so that all of it can be saved, if none of its checkpoints took longer
    /// than `transfer` to be brought. Not the newest one: it may have had little that was new, and the last
    /// one may have much.
    pub(crate) fn is_last_call(&self, transfer: Duration) -> bool {
        self.left() <= self.reserve(transfer)
    }

    /// How long work can go on whose checkpoints are small.
    pub(crate) fn room(&self) -> Duration {
        self.left().saturating_sub(self.reserve(Duration::ZERO))
    }

    /// The time until whatever is not on this side must be given up, if the newest checkpoint took `transfer`
    /// to be brought: to be put into the clone it takes about as long.
    pub(crate) fn until_last_moment(&self, transfer: Duration) -> Duration {
        let reserve = self.last().saturating_add(transfer).min(self.max_time / 4);
        self.left().saturating_sub(reserve)
    }

    /// The time until nothing may be awaited any more.
    pub(crate) fn until_exit(&self) -> Duration {
        self.left().saturating_sub(self.last() / EXIT_DIVISOR)
    }

    /// Waits for the last part of the run, such as its report, until the process must end. None if it took
    /// longer.
    pub(crate) async fn before_exit<T>(self, part: impl Future<Output = T>) -> Option<T> {
        tokio::time::timeout(self.until_exit(), part).await.ok()
    }

    /// Waits for one part of the run's ending, such as the machine's end, for half of the time that is left:
    /// the parts after it need time, too, however slow its servers are. None if it took longer.
    pub(crate) async fn in_half_the_time<T>(self, part: impl Future<Output = T>) -> Option<T> {
        tokio::time::timeout(self.until_exit() / 2, part).await.ok()
    }

    /// The end of a run at this deadline.
    pub(crate) fn error(&self) -> Error {
        let max_time = in_words(self.max_time);
        Error::new(format!("the run ended itself because Pipelines is about to kill the step: its max-time is {max_time}"))
            .kind(Kind::Training)
            .hint(
                "keep the files of CHECKPOINTS with the step's artifacts and go on from them with RESUME: 'true', or raise max-time in bitbucket-pipelines.yml (720 minutes at most)",
            )
    }

    fn last(&self) -> Duration {
        LAST_RESERVE.min(self.max_time / 10)
    }

    fn left(&self) -> Duration {
        self.at.saturating_duration_since(Instant::now())
    }

    fn reserve(&self, transfer: Duration) -> Duration {
        let usual = END_RESERVE.min(self.max_time / 4);
        usual.saturating_add(transfer.saturating_mul(CHECKPOINT_COPIES)).min(self.max_time / 2)
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
        let seconds = Duration::from_secs;
        let step = |max_time, elapsed| Deadline::new(MINUTE * max_time, MINUTE * elapsed);
        let last = |max_time, elapsed| step(max_time, elapsed).until_last_moment(Duration::ZERO);
        assert_eq!(last(120, 0), seconds(118 * 60 + 30));
        assert_eq!(last(2, 1), seconds(48));
        assert_eq!([last(2, 2), last(2, 5)], [Duration::ZERO; 2]);
        // What takes long to be put into the clone is given up earlier.
        assert_eq!(step(120, 0).until_last_moment(MINUTE), seconds(117 * 60 + 30));
        assert_eq!(step(2, 1).until_last_moment(Duration::MAX), seconds(30));
        assert_eq!(
            [step(120, 119), step(2, 1), step(2, 2)].map(|step| step.until_exit().as_secs()),
            [50, 58, 0]
        );
    }

    #[tokio::test(start_paused = true)]
    async fn the_parts_of_an_ending_end_before_the_step_however_many_hang() {
        let (start, step) = (Instant::now(), Deadline::new(MINUTE * 120, MINUTE * 118));
        assert_eq!(step.in_half_the_time(async { 1 }).await, Some(1));
        for left in [55, 28, 14, 7] {
            assert_eq!(step.in_half_the_time(std::future::pending::<()>()).await, None);
            let seconds = step.until_exit().as_secs_f64();
            assert!((seconds - f64::from(left)).abs() < 1.0, "{seconds} s are left");
        }
        assert_eq!(step.before_exit(tokio::time::sleep(Duration::from_secs(5))).await, Some(()));
        assert_eq!(step.before_exit(std::future::pending::<()>()).await, None);
        assert_eq!(start.elapsed().as_secs(), 110);
        // Past that moment, only what need not be awaited.
        assert_eq!(step.in_half_the_time(std::future::pending::<()>()).await, None);
        assert_eq!(start.elapsed().as_secs(), 110);
    }
}
