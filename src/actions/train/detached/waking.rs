//! Who comes back for a run: the custom pipeline, which the machine has started.

use super::DetachedRun;
use super::request::RunRequest;
use crate::bitbucket_access::full_client;
use tracing::warn;
use trainspot_base::error::{Context as _, Error, Kind, Result};
use trainspot_protocol::{WakeBus, WakeSpec, WakeToken};

impl DetachedRun<'_> {
    /// What wakes the run; none where the machine has no way to do it.
    ///
    /// # Errors
    /// There is a way, but nobody tells which pipeline to start.
    pub(super) async fn wake_spec(&self, request: &RunRequest) -> Result<Option<WakeSpec>> {
        let (config, detach) = (self.training.config, self.detach);
        if detach.wake_token.is_none() && detach.wake_bus.is_none() {
            warn!(
                "nothing comes back for the run by itself, without WAKE_TOKEN: run the pipeline again with RUN {} when the training is over",
                self.id
            );
            return Ok(None);
        }
        let named = |part: &Option<String>| part.clone().unwrap_or_default();
        let access = &detach.store.access;
        Ok(Some(WakeSpec {
            workspace: named(&config.pipeline.workspace),
            repo_slug: named(&config.pipeline.repo_slug),
            pipeline: self.pipeline_to_wake().await?,
            commit: request.commit.clone(),
            branch: config.pipeline.branch.clone(),
            bitbucket: detach.wake_token.clone().map(|token| {
                let api_url = config.bitbucket.api_url.clone();
                WakeToken { api_url, token }
            }),
            bus: detach.wake_bus.clone().map(|bus| {
                let (region, endpoint) = (access.region.clone(), access.endpoint.clone());
                WakeBus { bus, region, endpoint }
            }),
        }))
    }

    /// The name of the custom pipeline that this pipe runs in.
    async fn pipeline_to_wake(&self) -> Result<String> {
        let (config, detach) = (self.training.config, self.detach);
        if let Some(name) = &detach.wake_pipeline {
            return Ok(name.clone());
        }
        let unknown = |why: &str| {
            Error::new(format!("nobody tells which pipeline is to come back for the run: {why}"))
                .kind(Kind::Configuration)
                .hint("name the custom pipeline in WAKE_PIPELINE")
        };
        let (Some(pipeline), Some(client)) = (&config.pipeline.pipeline_uuid, full_client(config)?) else {
            return Err(unknown("Bitbucket can be asked with BITBUCKET_ACCESS_TOKEN alone"));
        };
        let name = client.custom_pipeline_name(pipeline).await;
        let name = name.context("cannot find out which pipeline is to come back for the run");
        let name = name.map_err(|error| error.hint("name the custom pipeline in WAKE_PIPELINE"))?;
        name.ok_or_else(|| unknown("this pipeline is no custom one"))
    }
}
