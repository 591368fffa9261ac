//! One file an action: the story of a run, told in calls to the rooms below.

mod announce;
mod charges;
#[cfg(feature = "aws")]
mod dry_run;
mod job;
mod kept;
mod precheck;
mod preflight;
mod publish;
mod push_remote;
mod reporting;
#[cfg(feature = "aws")]
mod runner;
mod step;
#[cfg(feature = "aws")]
mod sweep;
mod train;

use crate::config::Config;
use crate::config::variables::Action;
use tokio_util::sync::CancellationToken;
use trainspot_base::error::{Error, Kind, Result};
use trainspot_bitbucket::{Client, Credential, StepVariables};
use trainspot_compute::RunId;

/// Does what `config` asks for, and returns the words for the last line. `shutdown` ends it early, in good
/// order.
pub(crate) async fn run(config: &Config, shutdown: &CancellationToken) -> Result<String> {
    match config.action {
        Action::Train => train::run(config, shutdown).await,
        #[cfg(feature = "aws")]
        Action::Runner => runner::run(config, shutdown).await,
        #[cfg(feature = "aws")]
        Action::Sweep => unless_stopped(shutdown, "sweeping", sweep::run(config)).await,
        #[cfg(not(feature = "aws"))]
        Action::Runner | Action::Sweep => Err(built_without_aws()),
        Action::Publish => unless_stopped(shutdown, "publishing", publish::run(config)).await,
    }
}

/// The refusal of whatever needs AWS, by a build that has nothing of AWS in it.
#[cfg(not(feature = "aws"))]
fn built_without_aws() -> Error {
    Error::new("this build of trainspot cannot rent from AWS: its feature 'aws' was left out")
        .kind(Kind::Configuration)
        .hint("use the published image, or build with Cargo's default features")
}

/// Lets the order to stop end work that leaves nothing behind when it is dropped.
async fn unless_stopped<T>(
    shutdown: &CancellationToken,
    what: &str,
    work: impl Future<Output = Result<T>>,
) -> Result<T> {
    tokio::select! {
        done = work => done,
        () = shutdown.cancelled() => Err(Error::new(format!("stopped while {what}")).kind(Kind::Stopped)),
    }
}

/// Repository, pipeline and step; outside Pipelines, the host and the clone's folder.
fn run_id(config: &Config) -> RunId {
    let pipeline = &config.pipeline;
    let part = |part: &Option<String>| part.clone().unwrap_or_default();
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let folder = std::fs::canonicalize(&config.clone_dir).unwrap_or_default();
    let parts = [
        part(&pipeline.workspace),
        part(&pipeline.repo_slug),
        part(&pipeline.pipeline_uuid),
        part(&pipeline.step_uuid),
        if pipeline.step_uuid.is_some() { String::new() } else { format!("{host} {}", folder.display()) },
    ];
    RunId::new(&parts.each_ref().map(String::as_str))
}

/// Bitbucket's API, where there is a credential for all of it: the proxy of Pipelines opens a part only.
fn bitbucket(config: &Config) -> Result<Option<Client>> {
    let StepVariables { workspace: Some(workspace), repo_slug: Some(slug), .. } = &config.pipeline else {
        return Ok(None);
    };
    match config.bitbucket.credential.clone() {
        None | Some(Credential::PipelinesProxy { .. }) => Ok(None),
        Some(credential) => Client::new(&config.bitbucket.api_url, workspace, slug, credential).map(Some),
    }
}
