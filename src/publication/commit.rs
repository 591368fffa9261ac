//! What is committed, to which branch, and with which message.

use super::outcome::{RunOutcome, paths};
use super::publisher::Publisher;
use super::reporting::ReportInput;
use crate::config::PublishMode;
use crate::step::run_id;
use trainspot_base::error::{Error, Kind, Result};
use trainspot_base::log::one_line;
use trainspot_base::log::progress::in_words;
use trainspot_git::{Branches, Destination, Publication, StepIdentity};

impl Publisher<'_> {
    pub(super) fn publication(
        &self,
        seen: Branches,
        outcome: &RunOutcome,
        input: &ReportInput,
    ) -> Result<Publication> {
        let publish = &self.config.publish;
        let identity = self.identity();
        Ok(Publication {
            outputs: paths(&outcome.outputs),
            destination: self.destination()?,
            message: self.commit_message(self.checkout.commit(), outcome, input, &identity),
            author_name: publish.user_name.clone(),
            author_email: publish.user_email.clone(),
            baseline: input.metrics_files.clone(),
            identity,
            seen,
            size_limits: publish.size_limits,
        })
    }

    /// Where the commit goes.
    pub(super) fn destination(&self) -> Result<Destination> {
        let target = self.target_branch();
        if self.config.pipeline.merge_queue_pr_ids.is_some() && self.config.publish.target_branch.is_none() {
            return Err(Error::new("this pipeline is a merge queue's, whose branch is gone when it ends")
                .kind(Kind::Configuration)
                .hint(
                    "name the branch that the outputs are for in TARGET_BRANCH, or set PUBLISH to 'none'",
                ));
        }
        let branch = self.config.publish.branch.clone();
        let branch = branch.unwrap_or_else(|| self.default_branch(target.as_deref(), self.checkout.commit()));
        match (self.config.publish.mode, target) {
            (PublishMode::Push, Some(target)) => {
                Ok(Destination::Push { branch: target, fallback_branch: branch })
            }
            (PublishMode::Push, None) => {
                Err(Error::new("PUBLISH is 'push', but this pipeline runs for no branch")
                    .kind(Kind::Configuration)
                    .hint("name the branch to push to in TARGET_BRANCH"))
            }
            (_, Some(target)) if target == branch => Err(Error::new(format!(
                "BRANCH is {branch}, for which the outputs are; it cannot be merged into itself"
            ))
            .kind(Kind::Configuration)
            .hint("choose another BRANCH, or PUBLISH: push")),
            (_, target) => Ok(Destination::PullRequest { branch, target }),
        }
    }

    /// Who publishes, in terms of what is the same when the step is run again ([`StepIdentity`]).
    fn identity(&self) -> StepIdentity {
        let outputs = format!(
            "{:?} {:?} {}",
            self.config.outputs, self.config.dvc.outputs, self.config.publish.report_name
        );
        let folder = std::fs::canonicalize(&self.config.clone_dir).unwrap_or_default();
        let run = [run_id(self.config).as_str(), &folder.to_string_lossy(), &outputs].join("\0");
        let command = self.config.train.as_ref().map_or("", |train| train.command.as_str());
        let name = |text: &str| blake3::hash(text.as_bytes()).to_hex()[..16].to_owned();
        StepIdentity {
            run: name(&run),
            step: name(&[&outputs, command].join("\0")),
            pipeline: self.config.pipeline.url(),
        }
    }

    /// The branch that the outputs are for, as far as the step's environment tells.
    pub(super) fn target_branch(&self) -> Option<String> {
        self.config.publish.target_branch.clone().or_else(|| self.config.pipeline.branch.clone())
    }

    /// `trainspot/<target>-<short commit>`; for a tag's pipeline, the tag.
    fn default_branch(&self, target: Option<&str>, commit: &str) -> String {
        let what = target.or(self.config.pipeline.tag.as_deref()).unwrap_or("run");
        format!("trainspot/{what}-{}", &commit[..commit.len().min(7)])
    }

    pub(super) fn first_line(&self, outcome: &RunOutcome) -> String {
        self.config.publish.commit_message.clone().unwrap_or_else(|| {
            let names: Vec<String> = outcome.outputs.iter().map(|entry| entry.path.to_string()).collect();
            match names.as_slice() {
                [] => "Update nothing".to_owned(),
                [one] => format!("Update {one}"),
                [one, rest @ ..] => format!("Update {one} and {} more", rest.len()),
            }
        })
    }

    fn commit_message(
        &self,
        commit: &str,
        outcome: &RunOutcome,
        input: &ReportInput,
        identity: &StepIdentity,
    ) -> String {
        let skip = if self.config.publish.skip_ci { " [skip ci]" } else { "" };
        // Names of files and metrics are others' words: in a line of their own they would be trailers.
        let line = |text: &str| trainspot_base::log::fit_to_send(&one_line(text));
        let mut lines = vec![format!("{}{skip}", line(&self.first_line(outcome))), String::new()];
        let mut trailer = |name: &str, value: String| lines.push(line(&format!("Trainspot-{name}: {value}")));
        trailer("Commit", commit.to_owned());
        if let Some(training) = &outcome.training {
            trailer("Machine", training.machine.clone());
            trailer("Duration", in_words(training.took));
        }
        let metrics = input.headline();
        if !metrics.is_empty() {
            trailer("Metrics", metrics);
        }
        lines.extend(identity.trailers().iter().map(|trailer| line(trailer)));
        lines.join("\n") + "\n"
    }
}

/// Refuses a branch that the remote cannot make.
pub(super) fn check_name(destination: &Destination, branches: &Branches) -> Result<()> {
    let (branch, variable) = match destination {
        Destination::PullRequest { branch, .. } => (branch, "BRANCH"),
        Destination::Push { branch, .. } => (branch, "TARGET_BRANCH"),
    };
    match branches.obstacle(branch) {
        None => Ok(()),
        Some(other) => Err(Error::new(format!(
            "the branch {branch} cannot be made: the remote has a branch {other}, and git takes one's name for a folder of the other's"
        ))
        .kind(Kind::Configuration)
        .hint(format!("choose another {variable}, or delete or rename {other}"))),
    }
}
