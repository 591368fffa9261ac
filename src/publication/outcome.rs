//! What a run made, on its way to a commit and a report.

use crate::step::Deadline;
use std::path::PathBuf;
use std::time::Duration;
use trainspot_transfer::BundleEntry;

/// What there is to publish.
pub(crate) struct RunOutcome {
    /// The files, in the clone.
    pub(crate) outputs: Vec<BundleEntry>,
    /// What they were made on; none for `ACTION: publish`.
    pub(crate) training: Option<TrainingSummary>,
    /// How long the pipe has run.
    pub(crate) total: Duration,
    /// When Pipelines kills the step, if that is known.
    pub(crate) deadline: Option<Deadline>,
}

/// How the outputs were made.
pub(crate) struct TrainingSummary {
    pub(crate) machine: String,
    pub(crate) took: Duration,
    pub(crate) restarts: u32,
    /// What the loss of machines cost.
    pub(crate) losses: Losses,
    /// In words, if all prices are known.
    pub(crate) cost: Option<String>,
    /// What is paid for beside machines, in a sentence.
    pub(crate) charges: Option<String>,
}

/// What the loss of machines cost a training.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Losses {
    /// Training that was done again, since no checkpoint held it.
    pub(crate) repeated: Duration,
    /// Time in which no machine trained.
    pub(crate) idle: Duration,
}

/// The paths of the entries, for those who ask git for them.
pub(super) fn paths(entries: &[BundleEntry]) -> Vec<PathBuf> {
    entries.iter().map(|entry| entry.path.to_path()).collect()
}
