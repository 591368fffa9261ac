//! Machines of a detached run: had, looked for, and ended.

use super::progress::{AttemptRecord, Progress, ProgressFile};
use super::request::RunRequest;
use super::workload::DetachedTraining;
use super::{DetachedRun, Step};
use crate::actions::train::{TrainingFiles, spec};
use crate::job::{self, Job};
use std::time::Duration;
use tokio::sync::Mutex;
use tracing::{info, warn};
use trainspot_base::error::{Context as _, Error, Kind, Result, chain};
use trainspot_base::log::progress::in_words;
use trainspot_compute::{Compute, LaunchRequest, MachineStatus};
use trainspot_protocol::CommandSpec;
use trainspot_transfer::everything;

/// The shortest time for which a training is begun again.
const SHORTEST_TRAINING: Duration = Duration::from_secs(1);

impl DetachedRun<'_> {
    /// Gets a machine, starts the training on it, and leaves it to itself. A machine that an earlier pipe of
    /// the run left is taken over if it answers, and ended if it does not.
    pub(super) async fn launch<C: Compute>(
        &self,
        compute: &C,
        request: &RunRequest,
        file: &Mutex<ProgressFile>,
        files: &TrainingFiles,
    ) -> Result<Step> {
        let progress = file.lock().await.progress.clone();
        if let Some(error) = self.reached_limit(&progress) {
            return self.fail(compute, file, error, Vec::new()).await.map(Step::Done);
        }
        let training = self.training;
        request.refuse_missing_secrets(training.config)?;
        compute.prepare().await?;
        let found = compute.find(&self.id).await?;
        let place = tempfile::tempdir_in(&training.train.scratch).context("cannot make a folder")?;
        self.fetch_workspace(place.path()).await?;
        let publish = &training.config.publish;
        let work = DetachedTraining {
            run: self,
            file,
            spec: self.spec(&progress),
            workspace: (place.path(), everything(place.path())?),
            commit: training.publisher.checkout.snapshot(&publish.user_name, &publish.user_email)?,
            resumed: files.resumed.clone(),
            wake: self.wake_spec(request).await?,
        };
        let job = Job {
            compute,
            found,
            launch_request: LaunchRequest {
                max_runtime: work.spec.max_runtime,
                avoid: progress.attempts.last().and_then(AttemptRecord::pool).into_iter().collect(),
                ..self.launch_request()
            },
            owner: job::owner(),
            max_restarts: training.train.max_restarts,
            returns_to_spot: false,
            max_cost: None,
            deadline: training.deadline,
            shutdown: training.shutdown,
            state: job::JobState::default(),
        };
        let finished = Box::pin(job.run(&work)).await?;
        if let Some(leftover) = finished.leftover {
            warn!("{}", leftover.render());
        }
        let attempt = finished.done;
        self.announce(&attempt).await;
        Ok(Step::Done(format!(
            "done; the training of run {} goes on without this step, on {}",
            self.id, attempt.description
        )))
    }

    /// What every machine of the run is launched and reached with.
    pub(super) fn launch_request(&self) -> LaunchRequest {
        LaunchRequest {
            run: self.id.clone(),
            orphan_grace: self.training.train.orphan_grace,
            max_runtime: self.training.train.max_runtime,
            avoid: Vec::new(),
            spot_now: false,
        }
    }

    /// The training as the next machine gets it.
    fn spec(&self, progress: &Progress) -> CommandSpec {
        let training = self.training;
        let mut spec = spec(training.config, training.train, training.publisher.checkout.commit());
        // A run is what its first pipe was told: a secret that has changed since makes it no other.
        spec.fingerprint = format!("detached-{}", self.id);
        spec.max_runtime = training.train.max_runtime.saturating_sub(progress.trained());
        spec
    }

    /// Why no other machine may follow, if so.
    fn reached_limit(&self, progress: &Progress) -> Option<Error> {
        let train = self.training.train;
        let lost = progress.losses_in_a_row();
        if lost > train.max_restarts as usize {
            let why = progress.attempts.last().and_then(|last| Some(last.end.as_ref()?.why.clone()));
            return Some(
                Error::new(format!("{lost} machines in a row were lost without a newer checkpoint"))
                    .source(why.unwrap_or_default())
                    .kind(Kind::Machine)
                    .hint("raise MAX_RESTARTS, or set CHECKPOINTS so that a restart goes on where it was"),
            );
        }
        if train.max_runtime.saturating_sub(progress.trained()) < SHORTEST_TRAINING {
            let limit = in_words(train.max_runtime);
            return Some(
                Error::new(format!("the machine was lost, and MAX_RUNTIME ({limit}) is used up"))
                    .kind(Kind::Training)
                    .hint("raise MAX_RUNTIME"),
            );
        }
        let cost = progress.cost().filter(|cost| self.max_cost.is_some_and(|most| cost.total() >= most))?;
        Some(
            Error::new(format!("the run was ended because it reached MAX_COST: {}", cost.in_words()))
                .kind(Kind::Training)
                .hint("raise MAX_COST"),
        )
    }
}

/// Whether the provider says that a machine is gone.
pub(super) async fn is_gone<C: Compute>(compute: &C, attempt: &AttemptRecord) -> bool {
    match compute.status(&attempt.machine()).await {
        Ok(MachineStatus::Gone(_) | MachineStatus::Reclaimed(_)) => true,
        Ok(MachineStatus::Running | MachineStatus::InterruptionNotice(_)) => false,
        Err(error) => {
            info!("the provider does not tell how {} is: {}", attempt.machine, chain(&error));
            false
        }
    }
}

/// Ends a machine for certain. Tells whether its provider had taken it.
pub(super) async fn end<C: Compute>(compute: &C, attempt: &AttemptRecord) -> Result<bool> {
    let machine = attempt.machine();
    let is_reclaimed = matches!(
        compute.status(&machine).await,
        Ok(MachineStatus::Reclaimed(_) | MachineStatus::InterruptionNotice(_))
    );
    compute
        .terminate(&machine)
        .await
        .with_context(|| format!("cannot end the machine {}", machine.id))
        .map_err(|error| error.kind(Kind::Machine).leaves(format!("machine {}", machine.id)))?;
    Ok(is_reclaimed)
}
