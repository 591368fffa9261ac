//! Bitbucket's API, as far as the run's credential opens it.

use crate::config::{Config, PublishMode};
use tracing::warn;
use trainspot_base::error::{Result, chain};
use trainspot_bitbucket::{Client, Credential, StepVariables};

/// Bitbucket's API, as far as this run may use it.
pub(crate) struct BitbucketAccess {
    pub(crate) client: Client,
    /// Whether the run has a credential; without one the proxy of Pipelines opens Code Insights alone.
    pub(crate) is_full: bool,
}

impl BitbucketAccess {
    /// The access of a run; none outside Pipelines without a credential.
    pub(crate) fn of(config: &Config) -> Option<Self> {
        let (workspace, slug) = (config.pipeline.workspace.as_ref()?, config.pipeline.repo_slug.as_ref()?);
        let credential = config.bitbucket.credential.clone()?;
        let is_full = !matches!(credential, Credential::PipelinesProxy { .. });
        match Client::new(&config.bitbucket.api_url, workspace, slug, credential) {
            Ok(client) => Some(Self { client, is_full }),
            Err(error) => {
                warn!("Bitbucket's API cannot be used: {}", chain(&error));
                None
            }
        }
    }

    /// Warns of what the run cannot do without a credential.
    pub(crate) fn say_what_is_missing(&self, mode: PublishMode) {
        if !self.is_full && mode == PublishMode::PullRequest {
            warn!(
                "without BITBUCKET_ACCESS_TOKEN the branch is pushed and the report goes to Code Insights, but no pull request is opened and nothing is commented"
            );
        }
    }
}

/// A client for all of Bitbucket's API; none without a credential, as the proxy of Pipelines opens a part
/// only.
pub(crate) fn full_client(config: &Config) -> Result<Option<Client>> {
    let StepVariables { workspace: Some(workspace), repo_slug: Some(slug), .. } = &config.pipeline else {
        return Ok(None);
    };
    match config.bitbucket.credential.clone() {
        None | Some(Credential::PipelinesProxy { .. }) => Ok(None),
        Some(credential) => Client::new(&config.bitbucket.api_url, workspace, slug, credential).map(Some),
    }
}
