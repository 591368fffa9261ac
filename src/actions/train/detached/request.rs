//! What a run was asked for: what its first pipe was told, and the files that its training gets.

use super::DetachedRun;
use super::progress::now;
use crate::config::{Config, RecordedEnvironment, SecretFingerprints};
use serde::{Deserialize, Serialize};
use std::path::Path;
use tracing::info;
use trainspot_base::error::{Context as _, Error, Kind, Result};
use trainspot_base::log::count;
use trainspot_detached::RunFolder;
use trainspot_git::Branches;
use trainspot_store::{Store, WriteCondition, WriteOutcome};
use trainspot_transfer::{
    BundleEntry, BundleHeader, BundleSender, FileStability, ReceivePolicy, TargetFolder, receive,
};

/// The longest request that is read: an environment is no longer, and a repository's branches may be many.
const REQUEST_LIMIT_BYTES: usize = 32 << 20;

/// What a run was asked for. There is no secret in it.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct RunRequest {
    /// The run's id.
    pub(super) run: String,
    /// The commit that the run is of.
    pub(super) commit: String,
    /// When the run began, in seconds since 1970.
    pub(super) since: u64,
    /// The page of the pipeline that began the run.
    pub(super) pipeline: Option<String>,
    /// What the remote had when the run began.
    pub(super) seen: Branches,
    /// What the first pipe was told.
    pub(super) environment: RecordedEnvironment,
    /// By what a later pipe can tell whether it has the same secrets.
    pub(super) secrets: SecretFingerprints,
}

impl RunRequest {
    /// The request of a run; none if there is no such run.
    ///
    /// # Errors
    /// The store cannot be read, or what is there is no request.
    pub(super) async fn read(store: &Store, folder: &RunFolder) -> Result<Option<Self>> {
        let Some(found) = store.read(&folder.request()?, REQUEST_LIMIT_BYTES).await? else { return Ok(None) };
        let request = serde_json::from_slice(&found.bytes)
            .context("what the run was asked for cannot be read in the store")
            .map_err(|error| error.kind(Kind::Configuration))?;
        Ok(Some(request))
    }

    /// Refuses to begin the training again without a secret that it began with.
    pub(super) fn refuse_missing_secrets(&self, config: &Config) -> Result<()> {
        let missing = self.secrets.compare(config).missing;
        if missing.is_empty() {
            return Ok(());
        }
        Err(Error::new(format!(
            "the run began with {}, which this pipeline does not have",
            missing.join(", ")
        ))
        .kind(Kind::Configuration)
        .hint("define the variable for the repository, and map it in the step"))
    }
}

impl DetachedRun<'_> {
    /// Writes down a new run: its workspace first, and then what it was asked for.
    pub(super) async fn write_down(&self, seen: Branches, workspace: &[BundleEntry]) -> Result<RunRequest> {
        let config = self.training.config;
        let bundle =
            tempfile::NamedTempFile::new_in(&self.training.train.scratch).context("cannot make a file")?;
        let (root, file) = (config.clone_dir.clone(), bundle.reopen().context("cannot make a file")?);
        let header = BundleHeader { entries: workspace.to_vec(), unmatched: Vec::new() };
        let packed = tokio::task::spawn_blocking(move || {
            let mut sender = BundleSender { root: &root, files: FileStability::InUse, progress: &mut |_| {} };
            sender.send(&header, file)
        });
        packed.await.context("cannot pack the workspace")??;
        self.store.send(&self.folder.workspace()?, bundle.path()).await?;
        info!("kept the workspace in the store: {}", count(workspace.len(), "file"));
        let request = RunRequest {
            run: self.id.to_string(),
            commit: self.training.publisher.checkout.commit().to_owned(),
            since: now(),
            pipeline: config.pipeline.url(),
            seen,
            environment: config.record.clone().unwrap_or_default(),
            secrets: SecretFingerprints::of(config),
        };
        let bytes = serde_json::to_vec(&request).context("cannot write down what the run was asked for")?;
        match self.store.write(&self.folder.request()?, bytes, WriteCondition::Absent).await? {
            WriteOutcome::Written(_) => Ok(request),
            WriteOutcome::ConditionFailed => {
                Err(Error::new("another pipe has begun this run at the same moment").kind(Kind::Machine))
            }
        }
    }

    /// Brings the run's workspace into an empty folder.
    pub(super) async fn fetch_workspace(&self, folder: &Path) -> Result<()> {
        let bundle =
            tempfile::NamedTempFile::new_in(&self.training.train.scratch).context("cannot make a file")?;
        let into = bundle.reopen().context("cannot make a file")?;
        if self.store.fetch(&self.folder.workspace()?, into, u64::MAX).await?.is_none() {
            return Err(Error::new("the store has the run's workspace no more").kind(Kind::Machine));
        }
        let (folder, file) = (folder.to_owned(), bundle.reopen().context("cannot read a file")?);
        let unpacked = tokio::task::spawn_blocking(move || {
            let (place, policy) = (TargetFolder::open(&folder)?, ReceivePolicy::accept_all());
            receive(file, &place, &policy, FileStability::InUse, |_| {}, |_| {})
        });
        unpacked.await.context("cannot unpack the workspace")?.map(drop)
    }
}
