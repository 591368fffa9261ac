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
    /// The access of a run; none outside Pipelines without a credential, nor where the client cannot be made.
    pub(crate) fn of(config: &Config) -> Option<Self> {
        open(config).unwrap_or_else(|error| {
            warn!("Bitbucket's API cannot be used: {}", chain(&error));
            None
        })
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
    if let None | Some(Credential::PipelinesProxy { .. }) = config.bitbucket.credential {
        return Ok(None);
    }
    Ok(open(config)?.map(|access| access.client))
}

fn open(config: &Config) -> Result<Option<BitbucketAccess>> {
    let StepVariables { workspace: Some(workspace), repo_slug: Some(slug), .. } = &config.pipeline else {
        return Ok(None);
    };
    let Some(credential) = config.bitbucket.credential.clone() else { return Ok(None) };
    let is_full = !matches!(credential, Credential::PipelinesProxy { .. });
    let client = Client::new(&config.bitbucket.api_url, workspace, slug, credential)?;
    Ok(Some(BitbucketAccess { client, is_full }))
}
