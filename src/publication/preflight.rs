//! What Bitbucket's API tells before the training: whether the credential holds, and what the repository
//! still takes.

use super::publisher::Publisher;
use crate::bitbucket_access::BitbucketAccess;
use crate::config::PublishMode;
use indicatif::HumanBytes;
use tracing::{debug, info, warn};
use trainspot_base::error::{Error, Kind, Result, chain};
use trainspot_bitbucket::{Client, Credential, Repository, status_of};

/// From this size on, in bytes, Bitbucket itself warns: "2 GB".
const LARGE_REPOSITORY_BYTES: u64 = 2_000_000_000;
/// A repository of this size, in bytes, is over Bitbucket's limit of "4 GB" by every reading of that.
const FULL_REPOSITORY_BYTES: u64 = 4 << 30;
/// The ways to merge after which a commit of the branch, with its message, is the target's newest.
const KEEPS_THE_MESSAGE: [&str; 2] = ["fast_forward", "rebase_fast_forward"];

impl Publisher<'_> {
    /// Asks Bitbucket, where there is a credential for its API. `target` is the branch that the outputs are
    /// for, if it is known. Bitbucket's own trouble is no reason to refuse: it may pass while the training
    /// runs.
    ///
    /// # Errors
    /// What Bitbucket would refuse after the training.
    pub(crate) async fn check_bitbucket(&self, target: Option<&str>) -> Result<()> {
        match BitbucketAccess::of(self.config) {
            Some(bitbucket) if bitbucket.is_full => self.check_repository(&bitbucket.client, target).await,
            Some(bitbucket) => {
                bitbucket.say_what_is_missing(self.config.publish.mode);
                Ok(())
            }
            None if self.config.bitbucket.credential.is_some() => {
                warn!(
                    "without BITBUCKET_WORKSPACE and BITBUCKET_REPO_SLUG the branch is pushed, nothing else"
                );
                Ok(())
            }
            None => {
                info!("outside Pipelines and without a credential: the branch is pushed, nothing else");
                Ok(())
            }
        }
    }

    async fn check_repository(&self, client: &Client, target: Option<&str>) -> Result<()> {
        let repository = match client.look_up().await {
            Ok(repository) => repository,
            Err(error) => return self.unless_transient(error),
        };
        if self.config.publish.mode == PublishMode::PullRequest {
            match repository.lets_open_pull_requests() {
                Some(true) => {}
                Some(false) => return Err(self.missing_scope(&repository)),
                None => {
                    if let Err(error) = client.check_pull_requests().await {
                        self.unless_transient(error)?;
                    }
                }
            }
            self.warn_of_merge_strategy(client, target.or(repository.main_branch.as_deref())).await;
        }
        self.check_size(&repository)
    }

    /// An error that the same request would meet after the training as well.
    fn unless_transient(&self, error: Error) -> Result<()> {
        match (status_of(&error), &self.config.bitbucket.credential) {
        // Git has taken the token, for which it asks no e-mail.
        (Some(401), Some(Credential::ApiToken { .. })) => Err(error.kind(Kind::Configuration).hint(
            "check ATLASSIAN_ACCOUNT_EMAIL: git takes ATLASSIAN_API_TOKEN, so the address is not that of its account",
        )),
        (Some(401 | 403 | 404), _) => Err(error.kind(Kind::Configuration)),
        _ => {
            warn!("what the token may do at Bitbucket's API is not known: {}", chain(&error));
            Ok(())
        }
    }
    }

    fn missing_scope(&self, repository: &Repository) -> Error {
        let (variable, scope) = match self.config.bitbucket.credential {
            Some(Credential::ApiToken { .. }) => ("ATLASSIAN_API_TOKEN", "write:pullrequest:bitbucket"),
            _ => ("BITBUCKET_ACCESS_TOKEN", "pullrequest:write"),
        };
        let scopes = repository.scopes.as_ref().map_or_else(String::new, |scopes| scopes.join(", "));
        Error::new(format!("the token in {variable} may not open a pull request; its scopes are {scopes}"))
            .kind(Kind::Configuration)
            .hint(format!(
                "make a token that has the scope {scope} as well, or set PUBLISH to 'push' or 'none'"
            ))
    }

    /// A commit that must start no pipeline keeps the target's own from running where it becomes the target's
    /// newest.
    async fn warn_of_merge_strategy(&self, client: &Client, target: Option<&str>) {
        let Some(target) = target.filter(|_| self.config.publish.skip_ci) else { return };
        match client.merge_strategy(target).await {
            Ok(Some(strategy)) if KEEPS_THE_MESSAGE.contains(&strategy.as_str()) => warn!(
                "pull requests into {target} are merged by {strategy} unless somebody chooses otherwise: the commit and its [skip ci] are then the newest of {target}, whose pipeline does not run; choose a merge commit, or set SKIP_CI to 'false'"
            ),
            Ok(_) => {}
            Err(error) => debug!("how {target} is merged is not known: {}", chain(&error)),
        }
    }

    fn check_size(&self, repository: &Repository) -> Result<()> {
        let Some(size) = repository.size.filter(|_| self.config.publish.size_limits) else { return Ok(()) };
        let said =
            format!("the repository has {}, and Bitbucket takes no push beyond 4 GB", HumanBytes(size));
        if size >= FULL_REPOSITORY_BYTES {
            return Err(Error::new(said).kind(Kind::Configuration).hint(
            "make it smaller (Bitbucket's documents say how: 'Reduce repository size'), and let DVC keep the models (DVC_OUTPUTS); or set SIZE_LIMITS to 'false' if yours may be larger",
        ));
        }
        if size >= LARGE_REPOSITORY_BYTES {
            warn!("{said}; let DVC keep the models (DVC_OUTPUTS) before that");
        }
        Ok(())
    }
}
