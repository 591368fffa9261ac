//! The report on its way to people: pull request, comment, build status, Code Insights, or the log alone.

use super::publisher::Publisher;
use super::reporting::{announce_key, marker};
use crate::bitbucket_access::BitbucketAccess;
use crate::step::Deadline;
use serde_json::Value;
use std::time::Duration;
use tracing::{info, warn};
use trainspot_base::error::{Error, Kind, Result, chain};
use trainspot_base::log::{fit_to_send, one_line};
use trainspot_bitbucket::{BuildState, BuildStatus, NewPullRequest, Patience};
use trainspot_report::{COMMENT_LIMIT_CHARS, Report, RunSuccess, insights, render};

/// What was pushed.
pub(super) struct PushedCommit {
    pub(super) branch: String,
    pub(super) target: String,
    pub(super) commit: String,
    /// The pull request's title, if one has to be opened.
    pub(super) title: String,
    /// What the run did.
    pub(super) done: RunSuccess,
}

impl Publisher<'_> {
    /// The access of a run that may have trained for hours: it waits for the rate limit, but not until
    /// Pipelines kills the step.
    fn bitbucket_after_hours(&self, deadline: Option<Deadline>) -> Option<BitbucketAccess> {
        let BitbucketAccess { client, is_full } = BitbucketAccess::of(self.config)?;
        let most = deadline.map_or(Duration::MAX, |deadline| deadline.until_exit());
        Some(BitbucketAccess { client: client.with_patience(Patience::after_hours(most)), is_full })
    }

    /// Announces a commit that was pushed. The answer is the run's last line.
    ///
    /// # Errors
    /// The pull request could not be opened. A comment or status that fails is a warning: the work is safe
    /// and visible.
    pub(super) async fn announce_success(
        &self,
        report: &Report,
        pushed: &PushedCommit,
        deadline: Option<Deadline>,
    ) -> Result<String> {
        let done = format!("done; the outputs are on the branch {}", pushed.branch);
        let Some(bitbucket) = self.bitbucket_after_hours(deadline) else {
            show_in_log(report);
            return Ok(done);
        };
        if !bitbucket.is_full {
            self.put_insights(&bitbucket, &pushed.commit, report).await;
            show_in_log(report);
            return Ok(done);
        }
        let page = match self.open_pull_request(&bitbucket, report, pushed).await {
            Ok(page) => page,
            Err(error) => {
                show_in_log(report);
                let left = format!("the commit {} on the branch {}", pushed.commit, pushed.branch);
                return Err(error.kind(Kind::Publication).leaves(left));
            }
        };
        let url = page
            .clone()
            .or_else(|| self.config.pipeline.url())
            .unwrap_or_else(|| "https://bitbucket.org".to_owned());
        self.set_build_status(
            &bitbucket,
            &pushed.commit,
            BuildState::Successful,
            pushed.done.word(),
            &url,
            Some(&pushed.branch),
        )
        .await;
        Ok(page.map_or(done, |page| format!("done; see {page}")))
    }

    /// Opens or finds the pull request, comments on it, and returns its page; none for a direct push.
    async fn open_pull_request(
        &self,
        bitbucket: &BitbucketAccess,
        report: &Report,
        pushed: &PushedCommit,
    ) -> Result<Option<String>> {
        if pushed.branch == pushed.target {
            show_in_log(report);
            return Ok(None);
        }
        let wanted = NewPullRequest {
            source: pushed.branch.clone(),
            destination: pushed.target.clone(),
            title: fit_to_send(&one_line(&pushed.title)),
            description: match pushed.done {
                RunSuccess::Trained => {
                    "The outputs of a training, committed by trainspot. The report is in the comments."
                }
                RunSuccess::Published | RunSuccess::Checked => {
                    "Outputs of an earlier step, committed by trainspot. The report is in the comments."
                }
            }
            .to_owned(),
            close_source_branch: true,
        };
        let request = bitbucket.client.find_or_open_pull_request(&wanted).await?;
        info!("{} pull request {}", if request.opened { "opened" } else { "found" }, request.url);
        self.comment_report(bitbucket, request.id, report).await;
        Ok(Some(request.url))
    }

    /// Announces that the training goes on without a step, as far as that can be done: the commit shows a
    /// build that runs.
    pub(crate) async fn announce_running(&self, description: &str, deadline: Option<Deadline>) {
        let Some(bitbucket) = self.bitbucket_after_hours(deadline) else { return };
        if !bitbucket.is_full {
            return;
        }
        let url = self.config.pipeline.url().unwrap_or_else(|| "https://bitbucket.org".to_owned());
        let (commit, branch) = (self.checkout.commit(), self.config.pipeline.branch.as_deref());
        self.set_build_status(&bitbucket, commit, BuildState::InProgress, description, &url, branch).await;
    }

    /// Announces a failure, as far as that can be done.
    pub(super) async fn announce_failure(
        &self,
        commit: &str,
        report: &Report,
        error: &Error,
        deadline: Option<Deadline>,
    ) {
        let Some(bitbucket) = self.bitbucket_after_hours(deadline) else { return };
        if !bitbucket.is_full {
            return self.put_insights(&bitbucket, commit, report).await;
        }
        let url = self.config.pipeline.url().unwrap_or_else(|| "https://bitbucket.org".to_owned());
        let state = if error.exit_kind() == Kind::Stopped { BuildState::Stopped } else { BuildState::Failed };
        let branch = self.config.pipeline.branch.as_deref();
        self.set_build_status(&bitbucket, commit, state, &error.render(), &url, branch).await;
        // A pipeline that runs for a pull request has a place for the whole story.
        if let Some(id) = self.config.pipeline.pr_id.as_ref().and_then(|id| id.parse().ok()) {
            self.comment_report(&bitbucket, id, report).await;
        }
    }

    async fn comment_report(&self, bitbucket: &BitbucketAccess, pull_request: u64, report: &Report) {
        let body = fit_to_send(&render(report, COMMENT_LIMIT_CHARS));
        let marker = fit_to_send(&marker(&self.config.publish.report_name));
        match bitbucket.client.upsert_comment(pull_request, &marker, &body).await {
            Ok(url) => info!("report: {url}"),
            Err(error) => {
                warn!("the report could not be posted: {}", error.render());
                show_in_log(report);
            }
        }
    }

    async fn set_build_status(
        &self,
        bitbucket: &BitbucketAccess,
        commit: &str,
        state: BuildState,
        description: &str,
        url: &str,
        branch: Option<&str>,
    ) {
        let status = BuildStatus {
            key: announce_key(&self.config.publish.report_name),
            state,
            name: format!("trainspot: {}", self.config.publish.report_name),
            description: fit_to_send(description),
            url: url.to_owned(),
            refname: branch.map(str::to_owned),
        };
        if let Err(error) = bitbucket.client.set_build_status(commit, &status).await {
            warn!("the build status could not be set: {}", chain(&error));
        }
    }

    async fn put_insights(&self, bitbucket: &BitbucketAccess, commit: &str, report: &Report) {
        let key = announce_key(&self.config.publish.report_name);
        let body = fit(serde_json::json!(insights(report)));
        match bitbucket.client.put_report(commit, &key, &body).await {
            Ok(()) => info!("report: in Code Insights of commit {commit}"),
            Err(error) => warn!("the report could not go to Code Insights: {}", chain(&error)),
        }
    }
}

/// Shows the report in the log.
pub(super) fn show_in_log(report: &Report) {
    info!("the report:");
    trainspot_base::log::quoted(&render(report, COMMENT_LIMIT_CHARS));
}

/// The same JSON, with its texts made fit to be sent.
fn fit(value: Value) -> Value {
    match value {
        Value::String(text) => Value::String(fit_to_send(&text)),
        Value::Array(items) => items.into_iter().map(fit).collect(),
        Value::Object(fields) => fields.into_iter().map(|(name, value)| (name, fit(value))).collect(),
        other => other,
    }
}
