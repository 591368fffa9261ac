//! The outputs that DVC keeps: settled before anything is rented, and their pointers taken into the clone.

use super::publisher::Publisher;
use indicatif::HumanBytes;
use std::path::Path;
use tracing::{info, warn};
use trainspot_base::error::{Context as _, Error, Kind, Result, chain};
use trainspot_base::log::count;
use trainspot_compute::link::{Agent, Link};
use trainspot_dvc::{DvcSettings, PathBase, Site, StorePlan, StoredOutputs, TargetBranch, write};
use trainspot_transfer::BundleEntry;

/// Where outputs are when DVC is to keep them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum OutputLocation {
    /// In the clone.
    Clone,
    /// On this machine, in a copy of the clone.
    Beside,
    /// On a rented machine.
    Rented,
}

impl Publisher<'_> {
    /// What DVC is to keep, settled as far as that can be done before there are outputs; none if it keeps
    /// nothing. The credentials of DVC's remotes are hidden in the log from now on.
    pub(crate) fn dvc_store_plan(&self, location: OutputLocation) -> Result<Option<StorePlan>> {
        if self.config.dvc.is_empty() {
            return Ok(None);
        }
        let mut settings = self.config.dvc.clone();
        if location == OutputLocation::Rented {
            // They are this machine's, where credentials may lie.
            settings.environment.retain(|name, _| !["HOME", "USER"].contains(&name.as_str()));
        }
        let settled = self.settled_store_plan(&settings, location);
        settled.map(Some).map_err(|error| error.or_kind(Kind::Configuration))
    }

    fn settled_store_plan(&self, settings: &DvcSettings, location: OutputLocation) -> Result<StorePlan> {
        let root = self.config.clone_dir.canonicalize().context("cannot look at the clone")?;
        let folders = match location {
            OutputLocation::Clone => PathBase::Own,
            OutputLocation::Beside => PathBase::OfClone(root.clone()),
            OutputLocation::Rented => PathBase::Rented,
        };
        let tracked = self.checkout.tracked(&settings.outputs)?;
        let in_git = tracked.iter().map(|path| path.to_string_lossy().into_owned()).collect();
        let store_plan = self.with_target_branch(|target| {
            StorePlan::read(settings, &Site { root: &root, folders, in_git, target })
        })?;
        trainspot_base::log::hide(store_plan.secrets().iter().cloned());
        let include = self.config.train.as_ref().map_or(&[][..], |train| &train.include);
        store_plan.settle(&|path| {
            Ok(self.checkout.workspace(include)?.iter().any(|sent| sent.path.to_path() == path))
        })
    }

    /// Does work with what the branch says that a pull request would go to; with none in any other pipeline.
    fn with_target_branch<T>(&self, work: impl FnOnce(Option<TargetBranch<'_>>) -> Result<T>) -> Result<T> {
        let pipeline = &self.config.pipeline;
        if pipeline.pr_id.is_none() {
            return work(None);
        }
        let branch = pipeline.pr_destination_branch.clone();
        let commit = self.checkout.target_of_pull_request(
            branch.as_deref().unwrap_or_default(),
            pipeline.pr_destination_commit.as_deref(),
        );
        let commit = commit.as_deref();
        let read = |path: &Path| {
            let Some(commit) = commit else { return Ok(None) };
            let text = self.checkout.read_at(commit, path)?;
            Ok(text.map(|bytes| String::from_utf8_lossy(&bytes).into_owned()))
        };
        let is_tracked =
            |path: &Path| Ok(!self.checkout.tracked(&[path.to_string_lossy().into_owned()])?.is_empty());
        let name = branch.unwrap_or_else(|| "the target branch".to_owned());
        work(Some(TargetBranch { name, read: commit.is_some().then_some(&read), is_tracked: &is_tracked }))
    }

    /// Brings home what DVC was to keep of a machine that is about to end, and says so in the error that ends
    /// it.
    pub(crate) async fn salvage_dvc_outputs<L: Link>(
        &self,
        agent: &Agent<L>,
        store_plan: Option<&StorePlan>,
        error: Error,
    ) -> Error {
        let Some(store_plan) = store_plan else { return error };
        match agent.rescue(store_plan.request(), &self.config.clone_dir).await {
            Ok(saved) => {
                let files = count(saved.entries.len(), "file");
                error.leaves(format!("{files} that DVC was to keep, in the clone; nothing was committed"))
            }
            Err(failed) => error.leaves(format!("nothing of what DVC was to keep: {}", chain(&failed))),
        }
    }

    /// Takes the pointers of what is safe in its remote into the clone, and returns them as files to commit.
    pub(crate) fn write_pointers(&self, kept: &StoredOutputs) -> Result<Vec<BundleEntry>> {
        log_kept(kept);
        write(&self.config.clone_dir, &kept.changes).map_err(unpublished)?;
        let paths = kept.changes.iter().map(|change| change.path.as_ref());
        paths
            .map(|path| BundleEntry::look(&self.config.clone_dir, path))
            .collect::<Result<_>>()
            .map_err(unpublished)
    }
}

/// Makes an error one of publishing.
pub(crate) fn unpublished(error: Error) -> Error {
    error.kind(Kind::Publication)
}

fn log_kept(kept: &StoredOutputs) {
    for (path, pointer) in &kept.pointers {
        let files = pointer.files.map_or_else(String::new, |files| format!("{}, ", count(files, "file")));
        info!("DVC keeps {path} ({files}{}) as {}", HumanBytes(pointer.size), pointer.oid);
    }
    for sent in &kept.sent {
        let (objects, bytes) = (count(sent.objects, "object"), HumanBytes(sent.bytes));
        info!("sent {objects} ({bytes}) to {}; {} were there", sent.remote, sent.there);
    }
    kept.warnings.iter().for_each(|warning| warn!("{warning}"));
}
