//! From the files that a run made to their commit, pull request and report.

mod announce;
mod commit;
mod dvc_pointers;
mod outcome;
mod precheck;
mod preflight;
mod publisher;
mod push_remote;
mod reporting;

pub(crate) use dvc_pointers::{OutputLocation, unpublished};
pub(crate) use outcome::{Losses, RunOutcome, TrainingSummary};
pub(crate) use publisher::Publisher;

use crate::config::PublishMode;
use crate::step::Deadline;
use announce::{PushedCommit, show_in_log};
use commit::check_name;
use reporting::ReportInput;
use std::collections::BTreeMap;
use std::time::Duration;
use tracing::{debug, info, warn};
use trainspot_base::error::{Error, Kind, Result, chain};
use trainspot_base::log::count;
use trainspot_base::log::progress::while_waiting;
use trainspot_git::{Branches, Destination, Published};
use trainspot_transfer::{BundleEntry, Pattern};

/// Publishes, if the step lives long enough: the outputs are in the clone, which its artifacts can keep.
pub(crate) async fn before_the_step_ends(
    deadline: Option<Deadline>,
    published: impl Future<Output = Result<String>>,
) -> Result<String> {
    let Some(deadline) = deadline else { return published.await };
    deadline.before_exit(published).await.unwrap_or_else(|| {
        Err(Error::new("the outputs were not published in time, and Pipelines is about to kill the step")
            .kind(Kind::Publication)
            .leaves("the outputs, in the clone; perhaps their commit is at Bitbucket as well")
            .hint("keep the outputs with the step's artifacts, and publish them in the next step (ACTION: publish); or raise max-time"))
    })
}

impl Publisher<'_> {
    /// Tells how many files a glob of `OUTPUTS` takes although git ignores them: it may take more than was
    /// meant.
    pub(crate) fn report_ignored(&self, outputs: &[BundleEntry]) {
        let patterns = self.config.outputs.iter().filter_map(|pattern| Pattern::parse(pattern).ok());
        let named: Vec<_> = patterns.filter(|pattern| !pattern.is_glob()).collect();
        let paths = outputs.iter().map(|entry| entry.path.to_path());
        let by_glob: Vec<_> =
            paths.filter(|path| !named.iter().any(|pattern| pattern.matches(path))).collect();
        match self.checkout.ignored(&by_glob).as_deref() {
            Ok([]) => {}
            Ok(ignored @ [first, ..]) => {
                let (files, first) = (count(ignored.len(), "file"), first.display());
                info!("the globs of OUTPUTS match {files} that git ignores, among them {first}");
            }
            Err(error) => debug!("{}", chain(error)),
        }
    }

    /// Commits and announces what was made, or announces that this failed. The answer is the run's last line.
    /// `seen` is what the remote had when the run began.
    pub(crate) async fn publish(&self, seen: Branches, outcome: RunOutcome) -> Result<String> {
        let (total, deadline) = (outcome.total, outcome.deadline);
        let done = self.commit_and_announce(seen, outcome).await;
        if let Err(error) = &done {
            self.report_failure(error, &[], total, deadline).await;
        }
        done
    }

    async fn commit_and_announce(&self, seen: Branches, outcome: RunOutcome) -> Result<String> {
        let input = ReportInput::gather(self, &outcome)?;
        if self.config.publish.mode == PublishMode::None {
            let done = done(&outcome, false);
            let report = self.success_report(&input, &outcome, done, None, &BTreeMap::new());
            show_in_log(&report);
            return Ok("done; PUBLISH is 'none', so nothing was committed".to_owned());
        }
        let publication = self.publication(seen, &outcome, &input)?;
        let remote = self.push_remote()?;
        info!("committing {}", count(outcome.outputs.len(), "file"));
        let published = while_waiting("pushing", self.checkout.publish(&remote, &publication)).await?;
        let title = self.first_line(&outcome);
        let (pushed, baseline) = match published {
            Published::Pushed { branch, target, commit, baseline, .. } => {
                (Some(PushedCommit { branch, target, commit, title, done: done(&outcome, true) }), baseline)
            }
            Published::Unchanged { target, tip, baseline } => {
                (earlier(&publication.destination, target, tip, title, done(&outcome, true)), baseline)
            }
        };
        let commit = pushed.as_ref().map(|pushed| pushed.commit.as_str());
        let done = done(&outcome, pushed.is_some());
        let report = self.success_report(&input, &outcome, done, commit, &baseline);
        if let Some(pushed) = pushed {
            return while_waiting(
                "telling Bitbucket",
                self.announce_success(&report, &pushed, outcome.deadline),
            )
            .await;
        }
        show_in_log(&report);
        Ok("the outputs are the same as those in the repository; nothing was committed".to_owned())
    }

    /// Tells of a run that failed, as far as that can be done. What goes wrong here does not hide the failure
    /// itself.
    pub(crate) async fn report_failure(
        &self,
        error: &Error,
        tail: &[String],
        took: Duration,
        deadline: Option<Deadline>,
    ) {
        let report = self.failure_report(self.checkout.commit(), error, tail, took);
        let told = self.announce_failure(self.checkout.commit(), &report, error, deadline);
        let Some(deadline) = deadline else { return told.await };
        if deadline.before_exit(told).await.is_none() {
            warn!("Bitbucket is not told all of the failure: Pipelines is about to kill the step");
        }
    }

    /// Refuses a remote that will not take the push, before anything is rented. The answer is what branches
    /// it has.
    pub(crate) async fn check_access(&self) -> Result<Branches> {
        if self.config.publish.mode == PublishMode::None {
            return Ok(Branches::default());
        }
        let destination = self.destination()?;
        let remote = self.push_remote()?;
        let branches = remote.check().await?;
        check_name(&destination, &branches)?;
        self.check_bitbucket(self.target_branch().as_deref()).await?;
        Ok(branches)
    }
}

/// Adds files to commit, each once.
pub(crate) fn add_outputs(outputs: &mut Vec<BundleEntry>, more: Vec<BundleEntry>) {
    let known = |entry: &BundleEntry| more.iter().any(|other| other.path == entry.path);
    outputs.retain(|entry| !known(entry));
    outputs.extend(more);
}

/// What the run did, for people: it may not have trained, nor published.
fn done(outcome: &RunOutcome, published: bool) -> trainspot_report::RunSuccess {
    match outcome.training {
        Some(_) => trainspot_report::RunSuccess::Trained,
        None if published => trainspot_report::RunSuccess::Published,
        None => trainspot_report::RunSuccess::Checked,
    }
}

/// What an earlier run of this step pushed: it may have ended between its push and its pull request.
fn earlier(
    destination: &Destination,
    target: String,
    tip: Option<String>,
    title: String,
    done: trainspot_report::RunSuccess,
) -> Option<PushedCommit> {
    match (destination, tip) {
        (Destination::PullRequest { branch, .. }, Some(commit)) => {
            Some(PushedCommit { branch: branch.clone(), target, commit, title, done })
        }
        _ => None,
    }
}
