//! Bitbucket Cloud's REST API 2.0: pull requests and their comments, build statuses, Code Insights reports,
//! pipelines with their steps and logs, self-hosted runners.
//!
//! Every call may be made again: what it creates it first looks for, so that a lost answer, a repeated step
//! or two runs at once do not leave two of it.

mod comments;
mod commits;
mod failure;
mod http;
mod pipelines;
mod pull_requests;
mod repository;
mod runners;
mod step_variables;

use secrecy::SecretString;
use std::fmt;
use std::time::Duration;
use trainspot_base::error::{Context as _, Error, Result};
use trainspot_base::retry::RetryPolicy;
use url::Url;

pub use commits::{BuildState, BuildStatus};
pub use failure::{CallFailure, is_refusal, status_of};
pub use pipelines::{
    DueRun, LogChunk, NewPipelineRun, PipelineOutcome, PipelineProgress, PipelineRun, PipelineStep,
    PipelineTarget, PipelineVariable,
};
pub use pull_requests::{NewPullRequest, PullRequest};
pub use repository::Repository;
pub use runners::{
    NewRegistration, NewRunner, OauthClient, Platform, RegistrationStatus, RunnerRegistration, label_fault,
};
pub use step_variables::StepVariables;

/// Who calls. App passwords are not among them: Bitbucket removed them in July 2026.
#[derive(Clone, Debug)]
pub enum Credential {
    /// A repository, project or workspace access token, or an OAuth consumer's token.
    AccessToken(SecretString),
    /// An Atlassian API token and the e-mail address of the account that it belongs to.
    ApiToken {
        /// The account's e-mail address.
        email: String,
        /// The token.
        token: SecretString,
    },
    /// None: the step's auth proxy adds its own, for Code Insights reports only.
    PipelinesProxy {
        /// The proxy's address.
        proxy_url: String,
    },
}

/// The owner of a runner or of a permission, as the variable `RUNNER_SCOPE` names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// The client's repository.
    Repository,
    /// The whole workspace of the client's repository.
    Workspace,
}

impl Scope {
    /// Both scopes.
    pub const ALL: [Self; 2] = [Self::Repository, Self::Workspace];

    /// Its name, as people give it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Repository => "repository",
            Self::Workspace => "workspace",
        }
    }
}

/// Bitbucket counts the calls of the last hour; ten minutes more for a clock that is late.
const RATE_LIMIT_WAIT: Duration = Duration::from_mins(70);

/// How long to wait for Bitbucket, and how often to try.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    /// The longest wait for one answer.
    pub request: Duration,
    /// The attempts at one call. Its `total` also bounds the call as a whole, but for waits for the rate
    /// limit.
    pub attempts: RetryPolicy,
    /// The longest wait for the rate limit, all waits of one call together.
    pub rate_limit: Duration,
}

impl Default for Patience {
    /// 30 s an answer: Bitbucket's own front end gives up at about that. Two minutes in all: long enough for
    /// a deployment on their side to pass, short beside the training whose report is at stake.
    fn default() -> Self {
        Self {
            request: Duration::from_secs(30),
            attempts: RetryPolicy {
                attempts: 6,
                first_wait: Duration::from_secs(1),
                longest_wait: Duration::from_secs(20),
                total: Duration::from_mins(2),
            },
            rate_limit: Duration::ZERO,
        }
    }
}

impl Patience {
    /// The patience for what is good to know, and no more.
    #[must_use]
    pub fn brief() -> Self {
        let attempts =
            RetryPolicy { attempts: 2, total: Duration::from_secs(10), ..Self::default().attempts };
        Self { attempts, ..Self::default() }
    }

    /// The patience of a run whose hours of work are to be told: it waits for the rate limit, but no longer
    /// than `most`.
    #[must_use]
    pub fn after_hours(most: Duration) -> Self {
        Self { rate_limit: most.min(RATE_LIMIT_WAIT), ..Self::default() }
    }
}

/// A client of one repository.
pub struct Client {
    http: reqwest::Client,
    /// The API's base, without a slash at its end.
    base: Url,
    workspace: String,
    repo_slug: String,
    credential: Credential,
    patience: Patience,
}

impl fmt::Debug for Client {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Client({}, {:?})", self.repository(), self.credential)
    }
}

impl Client {
    /// A client of `workspace/repo_slug` (names, or UUIDs in braces) at `api_url`, which ends in `/2.0`.
    ///
    /// Behind the Pipelines proxy it speaks plain HTTP whatever the URL says: the proxy cannot add its
    /// authorisation to what it cannot read.
    pub fn new(api_url: &str, workspace: &str, repo_slug: &str, credential: Credential) -> Result<Self> {
        let wrong = || format!("Bitbucket's API URL {api_url} is not one");
        let mut base = Url::parse(api_url).with_context(wrong)?;
        if let Credential::PipelinesProxy { .. } = credential {
            // The only failure is a URL that is not of the web, which the next check finds.
            let _ = base.set_scheme("http");
        }
        if !matches!(base.scheme(), "http" | "https") || base.host().is_none() {
            return Err(Error::new(wrong()));
        }
        let http = http::connector(&credential).context("cannot set up the connection to Bitbucket")?;
        Ok(Self {
            http,
            base,
            workspace: workspace.to_owned(),
            repo_slug: repo_slug.to_owned(),
            credential,
            patience: Patience::default(),
        })
    }

    /// This client with other deadlines.
    #[must_use]
    pub fn with_patience(mut self, patience: Patience) -> Self {
        self.patience = patience;
        self
    }

    /// `workspace/repo_slug`, as messages name it.
    fn repository(&self) -> String {
        format!("{}/{}", self.workspace, self.repo_slug)
    }

    /// What a call is about, as messages name it.
    fn place(&self, scope: Scope) -> String {
        match scope {
            Scope::Repository => self.repository(),
            Scope::Workspace => format!("the workspace {}", self.workspace),
        }
    }

    /// The URL below the repository's own, each segment percent-encoded.
    fn url(&self, segments: &[&str]) -> Url {
        self.url_of(Scope::Repository, segments)
    }

    /// The URL below the repository's or the workspace's own.
    fn url_of(&self, scope: Scope, segments: &[&str]) -> Url {
        let owner: &[&str] = match scope {
            Scope::Repository => &["repositories", &self.workspace, &self.repo_slug],
            Scope::Workspace => &["workspaces", &self.workspace],
        };
        let mut url = self.base.clone();
        if let Ok(mut path) = url.path_segments_mut() {
            path.pop_if_empty().extend(owner).extend(segments);
        }
        url
    }
}

/// The text itself if it fits, else as much of it as leaves room for a hash of the whole: two long ones that
/// start alike must stay apart. Lengths are in characters.
fn fitting(text: &str, most: usize) -> String {
    if text.chars().count() <= most {
        return text.to_owned();
    }
    let hash = blake3::hash(text.as_bytes()).to_hex();
    let start: String = text.chars().take(most - 9).collect();
    format!("{start}-{}", &hash[..8])
}

/// The first characters of a text, with an ellipsis where there are more.
fn cut(text: &str, most: usize) -> String {
    if text.chars().count() <= most {
        return text.to_owned();
    }
    text.chars().take(most - 1).chain(['…']).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_that_are_too_long_stay_apart() {
        let fits = "k".repeat(40);
        assert_eq!(fitting(&fits, 40), fits);
        let (one, other) = (fitting(&format!("{fits}1"), 40), fitting(&format!("{fits}2"), 40));
        assert_ne!(one, other);
        assert_eq!([one.len(), other.len()], [40, 40]);
        assert_eq!(fitting(&"é".repeat(50), 40).chars().count(), 40);
    }

    #[test]
    fn texts_are_cut_at_a_character() {
        assert_eq!(cut("short", 255), "short");
        let long = cut(&"é".repeat(300), 255);
        assert_eq!((long.chars().count(), long.chars().last()), (255, Some('…')));
    }

    fn client(credential: Credential) -> Client {
        Client::new("https://api.example.org/2.0/", "{a-b}", "c d/e", credential).unwrap()
    }

    #[test]
    fn names_are_encoded_in_urls() {
        let url = client(Credential::AccessToken("t".into())).url(&["commit", "0?#"]);
        let expected = "https://api.example.org/2.0/repositories/%7Ba-b%7D/c%20d%2Fe/commit/0%3F%23";
        assert_eq!(url.as_str(), expected);
    }

    #[test]
    fn behind_the_proxy_the_scheme_is_plain() {
        let credential = Credential::PipelinesProxy { proxy_url: "http://127.0.0.1:1".into() };
        assert_eq!(client(credential).url(&[]).scheme(), "http");
    }

    #[test]
    fn no_debug_output_shows_a_secret() {
        let access = Credential::AccessToken("s3cret".into());
        let api = Credential::ApiToken { email: "a@example.org".into(), token: "s3cret".into() };
        for credential in [access, api] {
            let shown = format!("{credential:?} {:?}", client(credential.clone()));
            assert!(!shown.contains("s3cret"), "{shown}");
        }
    }

    #[test]
    fn what_is_not_a_web_address_is_refused() {
        for url in ["api.bitbucket.org", "file:///2.0", "mailto:a@example.org"] {
            let token = Credential::AccessToken("t".into());
            assert!(Client::new(url, "a", "b", token).unwrap_err().render().contains(url));
        }
    }
}
