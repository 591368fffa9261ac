//! The report of a run: what was measured, made and paid, as Markdown and as Code Insights.
//!
//! Nothing here reads a file or the network: a [`Report`] comes in, text and data go out.

mod compare;
mod fit;
#[cfg(any(test, fuzzing))]
pub mod fuzzing;
mod insights;
mod markdown;
pub mod metrics;
mod numbers;
mod render;

pub use insights::{Cell, Datum, Insights, insights};
pub use numbers::bytes;
pub use render::{COMMENT_LIMIT_CHARS, render};

use metrics::Metrics;
use std::time::Duration;

/// A run as its report tells it. Empty parts are not shown.
#[derive(Clone, Debug)]
pub struct Report {
    /// What was trained or published; part of the title.
    pub name: String,
    /// The line by which the comment is found again: a link definition that nothing refers to, so that
    /// Bitbucket shows nothing of it.
    pub marker: String,
    /// How it ended.
    pub outcome: ReportedOutcome,
    /// What the repository itself wrote about the run, as Markdown.
    pub own_markdown: Option<String>,
    /// The metrics files, each with a table of its own.
    pub metrics: Vec<MetricsFile>,
    /// The pictures that were committed.
    pub plots: Vec<Plot>,
    /// The outputs that were committed.
    pub outputs: Vec<OutputFile>,
    /// What it ran on, how long, and for how much; none when no machine was had.
    pub machine: Option<MachineSummary>,
    /// The commit, the pipeline and whatever else is worth a click.
    pub links: Vec<ReportLink>,
    /// Sentences that the reader should know, as what was left out and why.
    pub notes: Vec<String>,
}

/// How a run succeeded: it decides the word at the end of the report's title.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RunSuccess {
    /// The run trained, and published the outputs where that was asked for.
    Trained,
    /// The run published outputs that were there already.
    Published,
    /// The run published nothing: the branch has the same outputs, or nothing was to be published.
    Checked,
}

impl RunSuccess {
    /// The word.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Trained => "trained",
            Self::Published => "published",
            Self::Checked => "checked, nothing to publish",
        }
    }
}

/// How far a failed run came: it decides the words at the end of the report's title.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RunFailure {
    /// There is no trained model.
    Failed,
    /// The run trained, but the outputs could not be published.
    TrainedNotPublished,
    /// The outputs that were there already could not be published.
    NotPublished,
    /// The run was told to stop.
    Stopped,
}

impl RunFailure {
    /// The words.
    #[must_use]
    pub fn words(self) -> &'static str {
        match self {
            Self::Failed => "failed",
            Self::TrainedNotPublished => "trained, but not published",
            Self::NotPublished => "not published",
            Self::Stopped => "stopped",
        }
    }
}

/// How a run ended.
#[derive(Clone, Debug)]
pub enum ReportedOutcome {
    /// The outputs are there, and where they belong.
    Succeeded(RunSuccess),
    /// Anything else.
    Failed {
        /// How far it came.
        failure: RunFailure,
        /// The reason in a sentence or two, the exit code or the signal in it.
        why: String,
        /// The last lines of the log; the newest are kept if they do not all fit.
        log_tail: Vec<String>,
    },
}

/// One metrics file, now and on the branch that it is compared to.
#[derive(Clone, Debug)]
pub struct MetricsFile {
    /// The file's path in the repository.
    pub path: String,
    /// What this run wrote.
    pub now: Option<Metrics>,
    /// What the target branch has.
    pub before: Option<Metrics>,
    /// Why one of the two could not be read.
    pub problem: Option<String>,
}

/// A picture in the pushed commit.
#[derive(Clone, Debug)]
pub struct Plot {
    /// The picture's path in the repository.
    pub path: String,
    /// The picture's page on Bitbucket (`…/src/<sha>/<path>`): always works for who may see the repository.
    pub page: Option<String>,
    /// The picture's bytes (`…/raw/<sha>/<path>`), to be shown in place where Bitbucket allows it.
    pub image: Option<String>,
}

/// One output of the training.
#[derive(Clone, Debug)]
pub struct OutputFile {
    /// The file's path in the repository.
    pub path: String,
    /// The file's size in bytes.
    pub bytes: u64,
    /// The file's page on Bitbucket.
    pub url: Option<String>,
}

/// The machine of a run: what it was, how long it was used, and what it cost.
#[derive(Clone, Debug)]
pub struct MachineSummary {
    /// The machine's description, as "m5.2xlarge, spot, eu-west-1a".
    pub description: String,
    /// How long the command ran.
    pub trained: Duration,
    /// How long the machine was held.
    pub total: Duration,
    /// The cost of the machine, as "about $0.08".
    pub cost: Option<String>,
}

/// A text that may lead somewhere.
#[derive(Clone, Debug)]
pub struct ReportLink {
    /// The text that is read.
    pub label: String,
    /// The address that the text leads to, if any.
    pub url: Option<String>,
}
