//! The end of a detached run: its outputs brought from the store and published, or its failure reported.

use super::progress::{AttemptRecord, Outcome, ProgressFile};
use super::request::RunRequest;
use super::words::{MachineWords, lines_of};
use super::{DetachedRun, launch};
use crate::actions::train::collect::{self, CollectedOutputs};
use crate::actions::train::{published, repeat_last_lines, verdict};
use crate::actions::{charges, unless_stopped};
use crate::config::Cloud;
use crate::publication::{TrainingSummary, before_the_step_ends, unpublished};
use indicatif::HumanBytes;
use tokio::sync::Mutex;
use tracing::{info, warn};
use trainspot_base::error::{Context as _, Error, Kind, Result, chain};
use trainspot_base::log::count;
use trainspot_base::log::progress::in_words;
use trainspot_compute::Compute;
use trainspot_detached::{DvcWord, MachineExit, MachineFolder, fetch_files, read_log_end, read_manifest};
use trainspot_dvc::{StoreResult, StoredOutputs, salvage};
use trainspot_store::ObjectKey;
use trainspot_transfer::{BundleHeader, ReceivePolicy, TargetFolder};

/// How much of the training's log the pipe shows that collects the outputs: the rest is in the store.
const SHOWN_LOG_BYTES: usize = 1 << 20;
/// The most objects of a run that are listed to be removed.
const LISTED_OBJECTS_LIMIT: usize = 1_000_000;

/// Whether no later pipe could collect what this one could not: the training made what cannot be taken, or a
/// DVC remote did not take its outputs.
fn is_final(error: &Error) -> bool {
    matches!(error.exit_kind(), Kind::Training | Kind::Publication)
}

impl DetachedRun<'_> {
    /// Publishes a training that ended well. Done again, it finds what was published.
    pub(super) async fn publish<C: Compute>(
        &self,
        compute: &C,
        request: &RunRequest,
        file: &Mutex<ProgressFile>,
        (attempt, words): (&AttemptRecord, &MachineWords),
    ) -> Result<String> {
        let Some(exit) = &words.exit else { return Err(Error::new("the training has not ended")) };
        let machine = self.folder.machine(&attempt.folder)?;
        let tail = self.show_log(&machine).await;
        info!("training done ({} on the last machine)", in_words(exit.exit.duration()));
        let collected = match self.collect(&machine, exit).await {
            Ok(collected) => collected,
            Err(error) if is_final(&error) => return self.fail(compute, file, error, tail).await,
            // What is in the store stays there, and the next pipe may get it.
            Err(error) => return Err(error),
        };
        let ended = launch::end(compute, attempt).await;
        // Only a copy until it is published: a run whose machine is closed needs another one.
        let mut progress = file.lock().await.progress.clone();
        if let Some(open) = progress.attempts.last_mut() {
            open.close("the training was done", Some(words));
            if let Some(end) = &mut open.end {
                end.lost_seconds = 0.0;
            }
        }
        let training = self.training;
        let pipes = progress.pipe_time() + self.began.elapsed();
        let is_rented = matches!(training.train.cloud, Cloud::Aws(_));
        let charges = is_rented.then(|| charges::in_words(training.config, pipes, collected.header.bytes()));
        let summary = TrainingSummary {
            machine: attempt.description.clone(),
            took: progress.trained(),
            restarts: progress.restarts(),
            losses: progress.losses(),
            cost: progress.cost().map(|cost| cost.in_words()),
            charges: charges.flatten(),
        };
        let seen = request.seen.clone();
        let made = published(
            training.config,
            training.publisher,
            seen,
            &collected,
            summary,
            (progress.held(), training.deadline),
        );
        let made = before_the_step_ends(training.deadline, Box::pin(made));
        let words =
            unless_stopped(training.shutdown, "publishing; the outputs are in the clone", made).await?;
        file.lock().await.progress.attempts = progress.attempts;
        self.conclude(file, Outcome::Published(words.clone())).await?;
        ended?;
        self.clean_up(compute).await;
        Ok(words)
    }

    /// Reports a training that failed.
    pub(super) async fn report<C: Compute>(
        &self,
        compute: &C,
        file: &Mutex<ProgressFile>,
        (attempt, words): (&AttemptRecord, &MachineWords),
    ) -> Result<String> {
        let machine = self.folder.machine(&attempt.folder)?;
        let tail = self.show_log(&machine).await;
        let exit = words.exit.as_ref().map(|exit| exit.exit.clone());
        let failed = exit.map_or(Ok(()), |exit| verdict(&exit, self.training.train.max_runtime));
        let error =
            failed.err().unwrap_or_else(|| Error::new("the training was stopped").kind(Kind::Training));
        repeat_last_lines(&tail);
        self.close(compute, file, attempt, "the training failed").await?;
        self.fail(compute, file, error, tail).await
    }

    /// Ends the run with an error, after what can be saved is in the clone.
    pub(super) async fn fail<C: Compute>(
        &self,
        compute: &C,
        file: &Mutex<ProgressFile>,
        error: Error,
        tail: Vec<String>,
    ) -> Result<String> {
        let open = file.lock().await.progress.open_attempt().cloned();
        if let Some(open) = open {
            self.close(compute, file, &open, "the run has failed").await?;
        }
        let (error, is_saved) = self.salvage(file, error).await;
        let training = self.training;
        training.publisher.report_failure(&error, &tail, self.began.elapsed(), training.deadline).await;
        self.conclude(file, Outcome::Failed(error.render(), error.exit_kind().exit_code())).await?;
        // Outputs that were not published, and a checkpoint that did not come, stay in the store.
        if is_saved && error.exit_kind() != Kind::Publication {
            self.clean_up(compute).await;
        }
        Err(error)
    }

    pub(super) async fn conclude(&self, file: &Mutex<ProgressFile>, outcome: Outcome) -> Result<()> {
        let mut file = file.lock().await;
        file.progress.outcome = Some(outcome);
        file.save().await
    }

    /// Brings what the training made into the clone, proven.
    async fn collect(&self, machine: &MachineFolder, exit: &MachineExit) -> Result<CollectedOutputs> {
        let training = self.training;
        let policy = self.outputs().receive_policy()?;
        let header = self.fetch(machine, &machine.outputs()?, &policy, false).await?;
        if !exit.unmatched.is_empty() {
            return Err(collect::nothing_matches(&exit.unmatched, &header));
        }
        info!("fetched {} ({})", count(header.entries.len(), "file"), HumanBytes(header.bytes()));
        let (Some(plan), Some(word)) = (training.store_plan, &exit.dvc) else {
            return Ok(CollectedOutputs { header, kept: StoredOutputs::default() });
        };
        match word {
            DvcWord::Stored(answer) => {
                let result = StoreResult::parse(answer.as_bytes(), plan.request())?;
                let kept = plan.accept(&result).map_err(unpublished)?;
                Ok(CollectedOutputs { header, kept })
            }
            DvcWord::Failed(why) => {
                let error = Error::new("cannot keep the outputs in DVC's remote")
                    .source(trainspot_base::log::one_line(why))
                    .kind(Kind::Publication);
                let policy = salvage(&training.config.clone_dir, plan.request())?;
                Err(match self.fetch(machine, &machine.rescue()?, &policy, false).await {
                    Ok(saved) => {
                        let files = count(saved.entries.len(), "file");
                        error.leaves(format!(
                            "{files} that DVC was to keep, in the clone; nothing was committed"
                        ))
                    }
                    Err(failed) => {
                        error.leaves(format!("nothing of what DVC was to keep: {}", chain(&failed)))
                    }
                })
            }
        }
    }

    async fn fetch(
        &self,
        machine: &MachineFolder,
        key: &ObjectKey,
        policy: &ReceivePolicy,
        has_links: bool,
    ) -> Result<BundleHeader> {
        let clone = &self.training.config.clone_dir;
        let manifest = read_manifest(&self.store, key)
            .await?
            .ok_or_else(|| Error::new(format!("{key} is not in the store")).kind(Kind::Machine))?;
        let place = TargetFolder::open(clone)?;
        let place = if has_links { place.with_own_links() } else { place.without_links() };
        // On the clone's disk, but not in the clone.
        let scratch = tempfile::tempdir_in(&self.training.train.scratch).context("cannot make a folder")?;
        fetch_files(&self.store, machine, manifest, (&place, policy), scratch.path()).await
    }

    /// Puts the newest checkpoint where the step's artifacts can keep it, and names it in the error. Tells
    /// whether that was done, where there is one.
    pub(super) async fn salvage(&self, file: &Mutex<ProgressFile>, error: Error) -> (Error, bool) {
        let progress = file.lock().await.progress.clone();
        let Some((attempt, number)) = progress.newest_checkpoint() else { return (error, true) };
        let saved = async {
            let machine = self.folder.machine(&attempt.folder)?;
            let policy = ReceivePolicy::matching(&self.training.train.checkpoints)?;
            self.fetch(&machine, &machine.checkpoint(number)?, &policy, true).await
        };
        match saved.await {
            Ok(saved) => {
                let files = count(saved.entries.len(), "file");
                let left = format!(
                    "the newest checkpoint ({files}), in the clone; the step's artifacts can keep it for the next run"
                );
                (error.leaves(left), true)
            }
            Err(failed) => {
                let left =
                    format!("the newest checkpoint, in the store; it did not come: {}", chain(&failed));
                (error.leaves(left), false)
            }
        }
    }

    /// Shows the end of the training's log, and returns its last lines.
    async fn show_log(&self, machine: &MachineFolder) -> Vec<String> {
        let (log, is_cut) = match read_log_end(&self.store, machine, SHOWN_LOG_BYTES).await {
            Ok(log) => log,
            Err(error) => {
                warn!("the training's log cannot be read: {}", chain(&error));
                return Vec::new();
            }
        };
        if is_cut {
            info!("the end of the training's log; all of it is in the store");
        }
        lines_of(&log, &mut |line| trainspot_base::log::training(line))
    }

    /// Removes what nobody needs of a run that is over. What stays is its record, and the log.
    pub(super) async fn clean_up<C: Compute>(&self, compute: &C) {
        if let Err(error) = compute.delete_run_resources(&self.id).await {
            warn!("{}", error.render());
        }
        if let Err(error) = self.remove_files().await {
            warn!("the store still has files of the run, which nobody needs: {}", chain(&error));
        }
    }

    /// Removes a run of which nothing is needed any more, its record last.
    pub(super) async fn remove_everything(&self) -> Result<()> {
        self.store.end_unfinished(self.folder.root()).await?;
        let (lease, request) = (self.folder.lease()?, self.folder.request()?);
        for object in self.store.list(self.folder.root(), LISTED_OBJECTS_LIMIT).await? {
            if object.key != lease && object.key != request {
                self.store.delete(&object.key).await?;
            }
        }
        self.store.delete(&request).await
    }

    async fn remove_files(&self) -> Result<()> {
        self.store.end_unfinished(self.folder.root()).await?;
        let machines = format!("{}/", self.folder.machines()?);
        let workspace = self.folder.workspace()?;
        for object in self.store.list(self.folder.root(), LISTED_OBJECTS_LIMIT).await? {
            let key = object.key.as_str();
            let of_machine = key.strip_prefix(&machines).and_then(|rest| Some(rest.split_once('/')?.1));
            let is_kept = of_machine
                .is_some_and(|name| name.starts_with("log/") || ["state.json", "exit.json"].contains(&name));
            if (of_machine.is_some() && !is_kept) || object.key == workspace {
                self.store.delete(&object.key).await?;
            }
        }
        Ok(())
    }
}
