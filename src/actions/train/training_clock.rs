//! The time that a training spends: on machines, again after a loss, and without a machine.

use crate::publication::Losses;
use std::time::Duration;
use tokio::time::Instant;

/// The times of a training over all its machines.
#[derive(Default)]
pub(crate) struct TrainingClock {
    /// Time trained on machines that are lost.
    before: Duration,
    /// When the training began on the present machine.
    started: Option<Instant>,
    /// When the training ended on the present machine, if the machine itself said so.
    ended: Option<Instant>,
    /// Whether the present machine's newest checkpoint was taken after that, and arrived.
    is_all_saved: bool,
    /// When the last machine that trained stopped to, until the next one begins.
    idle_since: Option<Instant>,
    losses: Losses,
}

impl TrainingClock {
    /// A machine trains from now on. Another call for the same machine changes nothing.
    pub(super) fn start(&mut self) {
        let now = *self.started.get_or_insert_with(Instant::now);
        if let Some(since) = self.idle_since.take() {
            self.losses.idle += now.duration_since(since);
        }
    }

    /// The training ended on the present machine, after this time by the machine's own word. The machine will
    /// be lost.
    pub(super) fn end(&mut self, after: Duration) {
        let now = Instant::now();
        self.ended = self.started.and_then(|started| started.checked_add(after)).map(|ended| ended.min(now));
    }

    /// The checkpoint that was taken after the training's end has arrived.
    pub(super) fn save_all(&mut self) {
        self.is_all_saved = self.ended.is_some();
    }

    /// The present machine is lost. `saved` is when its newest checkpoint was taken, none where there is
    /// none. Returns the time trained there, and how much of it is to be done again; none if nothing had
    /// begun there.
    pub(super) fn lose(&mut self, saved: Option<Instant>) -> Option<(Duration, Duration)> {
        let started = self.started.take()?;
        let ended = self.ended.take().unwrap_or_else(Instant::now);
        let saved = saved.map_or(started, |saved| saved.max(started));
        let saved = if std::mem::take(&mut self.is_all_saved) { ended } else { saved };
        let (trained, again) = (ended.duration_since(started), ended.saturating_duration_since(saved));
        self.before += trained;
        self.losses.repeated += again;
        self.idle_since = Some(ended);
        Some((trained, again))
    }

    /// Time trained on machines that are lost.
    pub(super) fn before(&self) -> Duration {
        self.before
    }

    /// What lost machines have cost so far.
    pub(super) fn losses(&self) -> Losses {
        self.losses
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[tokio::test(start_paused = true)]
    async fn training_that_is_repeated_and_time_without_a_machine_are_two_figures() {
        let mut clock = TrainingClock::default();
        clock.start();
        tokio::time::advance(100 * SECOND).await;
        let saved = Instant::now();
        tokio::time::advance(20 * SECOND).await;
        assert_eq!(clock.lose(Some(saved)), Some((120 * SECOND, 20 * SECOND)));
        tokio::time::advance(63 * SECOND).await;
        clock.start();
        assert_eq!(clock.losses(), Losses { repeated: 20 * SECOND, idle: 63 * SECOND });
        assert_eq!(clock.before(), 120 * SECOND);
    }

    #[tokio::test(start_paused = true)]
    async fn a_checkpoint_taken_after_the_training_ended_loses_nothing() {
        let mut clock = TrainingClock::default();
        clock.start();
        tokio::time::advance(10 * SECOND).await;
        // The checkpoint was announced before the end was.
        let saved = Instant::now();
        tokio::time::advance(SECOND).await;
        clock.end(10 * SECOND);
        clock.save_all();
        tokio::time::advance(2 * SECOND).await;
        assert_eq!(clock.lose(Some(saved)), Some((10 * SECOND, Duration::ZERO)));
        tokio::time::advance(7 * SECOND).await;
        clock.start();
        assert_eq!(clock.losses(), Losses { repeated: Duration::ZERO, idle: 10 * SECOND });
    }

    #[tokio::test(start_paused = true)]
    async fn without_a_checkpoint_of_this_machine_all_of_its_training_is_repeated() {
        let mut clock = TrainingClock::default();
        let earlier = Instant::now();
        tokio::time::advance(5 * SECOND).await;
        clock.start();
        tokio::time::advance(10 * SECOND).await;
        assert_eq!(clock.lose(Some(earlier)), Some((10 * SECOND, 10 * SECOND)));
        assert_eq!(clock.lose(None), None, "no training had begun");
    }
}
