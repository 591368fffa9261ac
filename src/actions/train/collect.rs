//! What a training made, brought to safety while its machine is still there.

use crate::config::Config;
use crate::publication::{Publisher, unpublished};
use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;
use tracing::info;
use trainspot_base::error::{Error, Kind, Result};
use trainspot_base::log::count;
use trainspot_base::log::progress::{in_words, while_waiting};
use trainspot_compute::link::{Agent, Link};
use trainspot_dvc::{StorePlan, StoredOutputs};
use trainspot_protocol::{CommandExit, ExitReason, FileSelection};
use trainspot_transfer::{BundleEntry, BundleHeader};

/// The outputs of a training that are safe on this side or in a DVC remote; nothing of a training that
/// failed.
#[derive(Default)]
pub(super) struct CollectedOutputs {
    /// The files that were fetched.
    pub(super) header: BundleHeader,
    /// What DVC keeps.
    pub(super) kept: StoredOutputs,
}

impl CollectedOutputs {
    /// The files to commit: what `OUTPUTS` matched, without what came only for the report.
    pub(super) fn for_git(&self, config: &Config) -> Result<Vec<BundleEntry>> {
        let matched = trainspot_transfer::find(&config.clone_dir, &config.outputs)?;
        let arrived: BTreeSet<&Path> = self.header.entries.iter().map(|entry| entry.path.as_path()).collect();
        Ok(matched.files.into_iter().filter(|entry| arrived.contains(entry.path.as_path())).collect())
    }
}

/// Collects what a training made, unless it failed. `took` is how long it trained.
pub(super) async fn collect<L: Link>(
    agent: &Agent<L>,
    (exit, took): (&CommandExit, Duration),
    publisher: &Publisher<'_>,
    store_plan: Option<&StorePlan>,
) -> Result<CollectedOutputs> {
    if exit.reason != ExitReason::Exited(0) {
        return Ok(CollectedOutputs::default());
    }
    info!("training done ({})", in_words(took));
    // First what is small, and surely comes.
    let salvage = async |error| publisher.salvage_dvc_outputs(agent, store_plan, error).await;
    let header = or_salvage(fetch_outputs(agent, publisher.config).await, salvage).await?;
    let Some(store_plan) = store_plan else {
        return Ok(CollectedOutputs { header, kept: StoredOutputs::default() });
    };
    let stored = while_waiting("sending to DVC's remote", agent.store(store_plan.request())).await;
    // The pointers are made while the machine is there: what came from it may have DVC refuse them.
    let kept = stored.and_then(|outcome| store_plan.accept(&outcome).map_err(unpublished));
    Ok(CollectedOutputs { header, kept: or_salvage(kept, salvage).await? })
}

/// Has `salvage` take what it can of a machine from which nothing more will be fetched: after an error that
/// no further attempt can mend, the machine ends.
async fn or_salvage<T>(collected: Result<T>, salvage: impl AsyncFn(Error) -> Error) -> Result<T> {
    match collected {
        Err(error) if !error.is_transient() => Err(salvage(error).await),
        collected => collected,
    }
}

/// The files that are wanted of a training that ended well.
pub(super) fn wanted(config: &Config) -> FileSelection {
    let optional = config.publish.metrics.iter().chain(&config.publish.report).cloned().collect();
    FileSelection { required: config.outputs.clone(), optional, without: config.dvc.outputs.clone() }
}

/// The error about patterns of `OUTPUTS` that match nothing, where `saved` is what the others matched.
pub(super) fn nothing_matches(unmatched: &[String], saved: &BundleHeader) -> Error {
    let unmatched = unmatched.join("', '");
    Error::new(format!("the training ended well, but wrote nothing that matches '{unmatched}' of OUTPUTS"))
        .kind(Kind::Training)
        .leaves(format!(
            "{}, in the clone; nothing was committed",
            count(saved.entries.len(), "other output")
        ))
        .hint("correct OUTPUTS, or let the training write the files there")
}

/// Brings the outputs into the clone, each at the place where the training wrote it.
async fn fetch_outputs<L: Link>(agent: &Agent<L>, config: &Config) -> Result<BundleHeader> {
    let wanted = wanted(config);
    let what = "fetching the outputs";
    let header = agent.fetch(&wanted, &config.clone_dir, what).await?;
    if header.unmatched.is_empty() {
        let files = count(header.entries.len(), "file");
        info!("fetched {files} ({})", indicatif::HumanBytes(header.bytes()));
        return Ok(header);
    }
    // What there is must not be lost with the machine.
    let saved = agent.fetch(&wanted.all_optional(), &config.clone_dir, what).await?;
    Err(nothing_matches(&header.unmatched, &saved))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn only_what_will_not_be_fetched_again_is_salvaged_whatever_the_kind() {
        let salvage = async |error: Error| error.leaves("what was salvaged");
        for kind in Kind::ALL {
            let failed = |error: Error| Err::<(), _>(error.kind(kind));
            let error = or_salvage(failed(Error::new("refused")), salvage).await.unwrap_err();
            assert_eq!(error.leftovers().count(), 1);
            let error = or_salvage(failed(Error::new("broke off").transient()), salvage).await.unwrap_err();
            assert_eq!(error.leftovers().count(), 0);
        }
        assert_eq!(or_salvage(Ok(1), salvage).await.unwrap(), 1);
    }
}
