//! How often lost machines are replaced: for as long as the work gets on.

use std::cell::Cell;

/// The restarts of a run. A total would end a long run that goes on well, and let one that gets nowhere cost
/// as much.
#[derive(Debug, Default)]
pub(super) struct Restarts {
    total: Cell<u32>,
    /// The restarts since the last one before which the work had got on.
    in_a_row: Cell<u32>,
    /// The last value of [`super::Workload::progress`].
    progress: Cell<u64>,
}

impl Restarts {
    /// Whether there may be another restart, when there may be `most` in a row while the work's progress
    /// stays the same.
    pub(super) fn may_follow(&self, most: u32, progress: u64) -> bool {
        if self.progress.replace(progress) != progress {
            self.in_a_row.set(0);
        }
        self.in_a_row.get() < most
    }

    /// Counts a restart.
    pub(super) fn count(&self) {
        self.total.set(self.total.get() + 1);
        self.in_a_row.set(self.in_a_row.get() + 1);
    }

    /// Counts a machine on which nothing had begun: no restart of the work, but no progress either.
    pub(super) fn count_unused(&self) {
        self.in_a_row.set(self.in_a_row.get() + 1);
    }

    pub(super) fn total(&self) -> u32 {
        self.total.get()
    }

    pub(super) fn in_a_row(&self) -> u32 {
        self.in_a_row.get()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn progress_begins_the_count_again_and_none_are_never_allowed() {
        let restarts = Restarts::default();
        for progress in [0, 0, 1, 1, 1, 5, 5, 5] {
            assert!(restarts.may_follow(3, progress));
            restarts.count();
        }
        assert!(!restarts.may_follow(3, 5));
        assert!(restarts.may_follow(3, 6));
        assert_eq!((restarts.total(), restarts.in_a_row()), (8, 0));
        assert!(!restarts.may_follow(0, 7));
    }
}
