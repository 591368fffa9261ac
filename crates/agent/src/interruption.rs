//! How the time between the notice of a machine's end and that end is spent.
//!
//! The training goes on until the last safe moment. What is then left is for it to end, and for its last
//! checkpoint.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use trainspot_protocol::Notice;

/// Kept back for the training's end, and for what nobody foresees.
const EXIT_RESERVE: Duration = Duration::from_secs(30);
/// A checkpoint is copied, read again, and sent: each takes about as long as the copy.
const CHECKPOINT_PASSES: u32 = 3;
/// The time that EC2 gives between notice and end.
const USUAL_NOTICE: Duration = Duration::from_mins(2);
/// A notice of longer than this comes from a clock that is wrong.
const NOTICE_LIMIT: Duration = Duration::from_hours(1);

/// An interruption that was announced, and how long the training may still run.
#[derive(Debug)]
pub struct Interruption {
    notice: Notice,
    /// When the training must have ended and be saved; none for at once.
    at: Option<Instant>,
    /// The same by the clock on the wall, for the training.
    time: SystemTime,
    /// When the machine is gone; none when nobody can tell.
    gone: Option<Instant>,
    /// The most time that is kept back for the training's end and its last checkpoint.
    max_reserve: Duration,
}

impl Interruption {
    /// A notice that comes `now`, which is `time` on the wall.
    #[must_use]
    pub fn new(notice: Notice, now: Instant, time: SystemTime) -> Self {
        let left = notice.at.and_then(|at| left(at, time));
        let at = left.map(|left| now + left);
        let most = left.unwrap_or_default();
        Self { notice, at, time: time + most, gone: at, max_reserve: most / 2 }
    }

    /// Takes in another notice. Tells whether it is the earlier one, and so counts from now on.
    pub(super) fn merge(&mut self, other: Self) -> bool {
        let gone = [self.gone, other.gone].into_iter().flatten().min();
        let earlier = other.at < self.at;
        if earlier {
            *self = other;
        }
        // A pipe that is in a hurry does not make the machine stay longer.
        self.gone = gone;
        earlier
    }

    /// The notice that counts.
    pub(super) fn notice(&self) -> &Notice {
        &self.notice
    }

    /// The notice as the training reads it, in the words of EC2's metadata.
    pub(super) fn for_training(&self) -> String {
        let time = humantime::format_rfc3339_seconds(self.time).to_string();
        serde_json::json!({ "action": "terminate", "time": time }).to_string()
    }

    /// Whether the training must end now, when its longest checkpoint so far took `longest`.
    #[must_use]
    pub fn is_last_moment(&self, now: Instant, longest: Duration) -> bool {
        let reserve =
            EXIT_RESERVE.saturating_add(longest.saturating_mul(CHECKPOINT_PASSES)).min(self.max_reserve);
        self.at.is_none_or(|at| now + reserve >= at)
    }

    /// How long the training may take to end, if it may take `most`: the other half of the time is its
    /// checkpoint's.
    pub(super) fn time_to_exit(&self, now: Instant, most: Duration) -> Duration {
        self.gone.map_or(most, |gone| most.min(gone.saturating_duration_since(now) / 2))
    }

    /// Whether the machine's time is over.
    pub(super) fn is_over(&self, now: Instant) -> bool {
        self.gone.is_some_and(|gone| now >= gone)
    }
}

/// What is left until `at`; none for a moment that is past.
fn left(at: u64, time: SystemTime) -> Option<Duration> {
    let time = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    let left = Duration::from_secs(at).checked_sub(time)?;
    Some(if left > NOTICE_LIMIT { USUAL_NOTICE } else { left })
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    /// A notice at a moment on the wall, and that moment in both clocks.
    struct Scene {
        now: Instant,
        time: SystemTime,
    }

    impl Scene {
        fn new() -> Self {
            Self { now: Instant::now(), time: UNIX_EPOCH + Duration::from_hours(500_000) }
        }

        fn interruption(&self, at: Option<u64>) -> Interruption {
            let at = at.map(|seconds| 1_800_000_000 + seconds);
            Interruption::new(Notice { why: "spot".to_owned(), at }, self.now, self.time)
        }

        /// After how many seconds the training is ended.
        fn last_moment(&self, interruption: &Interruption, longest: Duration) -> u32 {
            let last = |second: &u32| interruption.is_last_moment(self.now + SECOND * *second, longest);
            (0..10_000).find(last).unwrap()
        }
    }

    #[test]
    fn the_training_goes_on_until_what_its_checkpoint_needs_is_left() {
        let scene = Scene::new();
        let cases =
            [(120, 0, 90), (120, 5, 75), (120, 10, 60), (120, 500, 60), (20, 0, 10), (1, 0, 1), (0, 9, 0)];
        for (left, longest, expected) in cases {
            let interruption = scene.interruption(Some(left));
            let longest = SECOND * longest;
            assert_eq!(
                scene.last_moment(&interruption, longest),
                expected,
                "{left} s, checkpoints of {longest:?}"
            );
        }
        assert_eq!(scene.last_moment(&scene.interruption(Some(120)), Duration::MAX), 60);
    }

    #[test]
    fn half_of_what_is_left_is_for_the_training_to_end_in() {
        let scene = Scene::new();
        let interruption = scene.interruption(Some(20));
        assert_eq!(interruption.time_to_exit(scene.now + SECOND * 10, SECOND * 15), SECOND * 5);
        assert_eq!(interruption.time_to_exit(scene.now + SECOND * 30, SECOND * 15), Duration::ZERO);
        assert_eq!(
            scene.interruption(Some(120)).time_to_exit(scene.now + SECOND * 60, SECOND * 15),
            SECOND * 15
        );
        assert!(
            !interruption.is_over(scene.now + SECOND * 19) && interruption.is_over(scene.now + SECOND * 20)
        );
    }

    #[test]
    fn a_notice_without_a_time_ends_the_training_at_once_and_leaves_all_time_for_its_checkpoint() {
        let scene = Scene::new();
        let interruption = scene.interruption(None);
        assert_eq!(scene.last_moment(&interruption, SECOND), 0);
        assert_eq!(interruption.time_to_exit(scene.now, SECOND * 15), SECOND * 15);
        assert!(!interruption.is_over(scene.now + SECOND * 1000));
    }

    #[test]
    fn nonsense_is_bounded() {
        let scene = Scene::new();
        for far in [3601, u64::MAX - 1_800_000_000] {
            assert_eq!(scene.last_moment(&scene.interruption(Some(far)), Duration::ZERO), 90);
        }
        assert_eq!(scene.last_moment(&scene.interruption(Some(3600)), Duration::ZERO), 3570);
        let past = Interruption::new(Notice { why: String::new(), at: Some(5) }, scene.now, scene.time);
        assert_eq!(scene.last_moment(&past, Duration::ZERO), 0);
        assert!(!past.is_over(scene.now + SECOND * 1000));
    }

    #[test]
    fn the_earlier_notice_counts() {
        let scene = Scene::new();
        let mut interruption = scene.interruption(Some(120));
        assert!(!interruption.merge(scene.interruption(Some(120))));
        assert!(!interruption.merge(scene.interruption(Some(130))));
        assert!(interruption.merge(scene.interruption(Some(100))));
        assert_eq!(scene.last_moment(&interruption, Duration::ZERO), 70);
        assert!(interruption.merge(scene.interruption(None)));
        assert!(!interruption.merge(scene.interruption(None)));
        assert_eq!(scene.last_moment(&interruption, Duration::ZERO), 0);
        // The machine goes all the same, and no later than it was said to.
        assert!(interruption.is_over(scene.now + SECOND * 100));
        assert!(!interruption.merge(scene.interruption(Some(50))));
        assert!(interruption.is_over(scene.now + SECOND * 50));
        assert_eq!(interruption.notice().at, None);
    }

    #[test]
    fn the_training_reads_what_counts() {
        let scene = Scene::new();
        let text = scene.interruption(Some(119)).for_training();
        assert_eq!(text, r#"{"action":"terminate","time":"2027-01-15T08:01:59Z"}"#);
        for (at, time) in [(None, "08:00:00"), (Some(9999), "08:02:00")] {
            let text = scene.interruption(at).for_training();
            assert!(text.contains(&format!("2027-01-15T{time}Z")), "{text}");
        }
    }
}
