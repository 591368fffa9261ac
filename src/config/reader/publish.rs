//! How to publish.

use super::super::{BitbucketSettings, Publish, PublishMode};
use super::ConfigReader;
use trainspot_bitbucket::{Credential, StepVariables};
use trainspot_http::is_loopback;
use url::{Host, Url};

impl ConfigReader {
    pub(super) fn publish(&mut self) -> Publish {
        let modes = [
            ("pull-request", PublishMode::PullRequest),
            ("push", PublishMode::Push),
            ("none", PublishMode::None),
        ];
        let mode = self.choice("PUBLISH", &modes, PublishMode::PullRequest);
        if mode == PublishMode::Push && self.values.contains_key("BRANCH") {
            self.problems.add(
                "BRANCH",
                "is given together with PUBLISH 'push', which commits to the target branch; leave it out, or use TARGET_BRANCH",
            );
        }
        if mode == PublishMode::PullRequest
            && self.some("BRANCH").is_some()
            && self.some("BRANCH") == self.some("TARGET_BRANCH")
        {
            self.problems.add("BRANCH", "is the same as TARGET_BRANCH; a pull request needs two branches");
        }
        Publish {
            mode,
            target_branch: self.some("TARGET_BRANCH"),
            branch: self.some("BRANCH"),
            user_name: self.text("GIT_USER_NAME"),
            user_email: self.text("GIT_USER_EMAIL"),
            commit_message: self.some("COMMIT_MESSAGE"),
            skip_ci: self.switch("SKIP_CI"),
            size_limits: self.switch("SIZE_LIMITS"),
            metrics: self.list("METRICS"),
            report: self.some("REPORT"),
            report_name: self.text("REPORT_NAME"),
        }
    }

    pub(super) fn bitbucket(&mut self, pipeline: &StepVariables) -> BitbucketSettings {
        let (token, email, api_token) = (
            self.secret("BITBUCKET_ACCESS_TOKEN"),
            self.some("ATLASSIAN_ACCOUNT_EMAIL"),
            self.secret("ATLASSIAN_API_TOKEN"),
        );
        let given = |name| self.environment.get(name).is_some();
        match (given("ATLASSIAN_ACCOUNT_EMAIL"), given("ATLASSIAN_API_TOKEN")) {
            (true, false) => self
                .problems
                .add("ATLASSIAN_API_TOKEN", "is missing: ATLASSIAN_ACCOUNT_EMAIL is of use only with it"),
            (false, true) => self
                .problems
                .add("ATLASSIAN_ACCOUNT_EMAIL", "is missing: ATLASSIAN_API_TOKEN is of use only with it"),
            _ => {}
        }
        let credential = match (token, email.zip(api_token)) {
            (Some(token), _) => Some(Credential::AccessToken(token)),
            (None, Some((email, token))) => Some(Credential::ApiToken { email, token }),
            (None, None) => None,
        };
        if credential.is_none() && self.environment.get("BITBUCKET_APP_PASSWORD").is_some() {
            self.problems.add(
                "BITBUCKET_APP_PASSWORD",
                "no longer works: Atlassian removed app passwords in July 2026; give BITBUCKET_ACCESS_TOKEN",
            );
        }
        let proxy = || {
            pipeline.git_http_origin.as_ref()?;
            Some(Credential::PipelinesProxy { proxy_url: self.text("PIPELINES_PROXY") })
        };
        let (credential, api_url) = (credential.or_else(proxy), self.text("BITBUCKET_API_URL"));
        let is_secret = matches!(credential, Some(Credential::AccessToken(_) | Credential::ApiToken { .. }));
        if is_secret && is_in_the_clear(&api_url, pipeline) {
            self.problems.add(
                "BITBUCKET_API_URL",
                format!("'{api_url}' is not https: a token would cross the network for everybody to read"),
            );
        }
        BitbucketSettings { credential, api_url }
    }
}

/// Whether a token would cross a network that others can read. A Bitbucket of one's own network may have no
/// TLS: then `BITBUCKET_GIT_HTTP_ORIGIN` names that very scheme, host and port, too.
fn is_in_the_clear(api_url: &str, pipeline: &StepVariables) -> bool {
    let Ok(url) = Url::parse(api_url) else { return false };
    let git = pipeline.git_http_origin.as_deref().and_then(|git| Url::parse(git).ok());
    let is_atlassians = matches!(url.host(), Some(Host::Domain(name)) if name.ends_with("bitbucket.org"));
    let is_named = !is_atlassians && git.is_some_and(|git| git.origin() == url.origin());
    url.scheme() != "https" && !is_loopback(&url) && !is_named
}
