//! The training as the workload of machines: started on each, watched, and brought to the next with its
//! newest checkpoint.

use super::checkpoints::Checkpoints;
use super::training_clock::TrainingClock;
use super::training_log;
use crate::job::{AttemptEnd, ConnectedMachine, Cost, Job, TRANSFER_RETRY, Workload, judge_transfer};
use crate::publication::Losses;
use std::cell::{Cell, RefCell, RefMut};
use std::path::Path;
use std::time::Duration;
use tokio::time::Instant;
use tracing::{info, warn};
use trainspot_base::error::{Error, Result, chain};
use trainspot_base::log::count;
use trainspot_base::log::progress::in_words;
use trainspot_base::retry::retry;
use trainspot_compute::link::Agent;
use trainspot_compute::{Compute, Machine};
use trainspot_git::Snapshot;
use trainspot_protocol::{AgentCommand, AgentStatus, CommandExit, CommandSpec, CommandState, ExitReason};
use trainspot_transfer::{BundleEntry, everything};

/// A training as a workload. `fetch_outputs` brings its outputs from the machine where it ended.
pub(crate) struct TrainingWorkload<'a, F> {
    pub(crate) spec: CommandSpec,
    /// The clone, and the files of it that go along.
    pub(crate) clone_dir: &'a Path,
    pub(crate) workspace: Vec<BundleEntry>,
    /// The commit of the clone: DVC and others want a git repository around the workspace.
    pub(crate) commit: Snapshot,
    pub(crate) checkpoints: Checkpoints,
    /// The checkpoint that an earlier step left in the clone: what there is to go on from until there is a
    /// newer one.
    pub(crate) resumed: Vec<BundleEntry>,
    /// How long the slowest checkpoint took to be fetched.
    pub(crate) slowest_transfer: Cell<Duration>,
    /// Gets the agent, how the training ended, and how long it took on all machines.
    pub(crate) fetch_outputs: F,
    pub(crate) clock: RefCell<TrainingClock>,
}

/// A training that came to its end.
pub(crate) struct Trained<T> {
    pub(crate) exit: CommandExit,
    /// The last lines of its output.
    pub(crate) tail: Vec<String>,
    /// How long the training took on all machines.
    pub(crate) took: Duration,
    /// What the loss of machines cost the training.
    pub(crate) losses: Losses,
    /// The outputs that were fetched.
    pub(crate) outputs: T,
}

impl<C, T, F> Workload<C> for TrainingWorkload<'_, F>
where
    C: Compute,
    F: AsyncFn(&Agent<C::Link>, &CommandExit, Duration) -> Result<T>,
{
    type Done = Trained<T>;

    const STOPPED_MESSAGE: &'static str = "stopped before the training's outputs were safe";
    const PROGRESS_WORDS: &'static str = " in a row without a newer checkpoint";
    const RESTART_HINT: &'static str = ", or set CHECKPOINTS so that a restart goes on where it was";

    fn fingerprint(&self) -> &str {
        &self.spec.fingerprint
    }

    fn must_not_terminate(&self, _: Option<&AgentStatus>) -> Option<Error> {
        None
    }

    async fn run_on(
        &self,
        job: &Job<'_, C>,
        reached: &ConnectedMachine<C>,
    ) -> Result<AttemptEnd<Trained<T>>> {
        let agent = &reached.agent;
        self.start(agent).await?;
        let (exit, tail) = training_log::until_the_end(agent, self.spec.max_runtime).await?;
        if exit.reason == ExitReason::Interrupted {
            return self.interrupted(job, reached, &exit).await;
        }
        let took = self.clock().before() + exit.duration();
        let losses = self.clock().losses();
        let fetch = async |number| judge_transfer((self.fetch_outputs)(agent, &exit, took).await, number);
        let outputs = retry(TRANSFER_RETRY, fetch).await?;
        Ok(AttemptEnd::Done(Trained { exit, tail, took, losses, outputs }))
    }

    async fn fetch_checkpoint(&self, agent: &Agent<C::Link>, machine: &Machine, number: u64) -> Result<bool> {
        let start = Instant::now();
        let kept = self.checkpoints.fetch(agent, &machine.id, number).await?;
        if kept {
            self.slowest_transfer.set(self.slowest_transfer.get().max(start.elapsed()));
        }
        Ok(kept)
    }

    fn transfer_time(&self) -> Duration {
        self.slowest_transfer.get()
    }

    fn on_machine_lost(&self, cost: Option<Cost>) {
        let saved = self.checkpoints.saved();
        let Some((trained, again)) = self.clock().lose(saved) else { return };
        if saved.is_none() {
            let cost = cost.map_or_else(String::new, |cost| format!(", {}", cost.in_words()));
            let trained = in_words(trained);
            let (from, newer) =
                if self.resumed.is_empty() { ("zero", "") } else { ("the clone's", "newer ") };
            warn!(
                "{trained} of training is lost{cost}: it starts from {from}, as there is no {newer}checkpoint"
            );
        } else if again.is_zero() {
            info!(
                "the newest checkpoint was taken when the training had ended: nothing has to be trained again"
            );
        } else {
            info!("the newest checkpoint is {} old: so much has to be trained again", in_words(again));
        }
    }

    fn progress(&self) -> u64 {
        self.checkpoints.newest_number()
    }

    fn time_left(&self) -> Duration {
        self.spec.max_runtime.saturating_sub(self.clock().before())
    }

    /// Puts the newest checkpoint where the step's artifacts can keep it.
    fn salvage(&self, error: Error) -> Error {
        match self.checkpoints.salvage_into(self.clone_dir) {
            Ok(0) => error,
            Ok(files) => error.leaves(format!(
                "the newest checkpoint ({}), in the clone; the step's artifacts can keep it for the next run",
                count(files, "file")
            )),
            Err(failed) => error.leaves(format!("no checkpoint: {}", chain(&failed))),
        }
    }
}

impl<F> TrainingWorkload<'_, F> {
    /// Fetches the last checkpoint, which the machine made after the training.
    async fn interrupted<C: Compute, T>(
        &self,
        job: &Job<'_, C>,
        reached: &ConnectedMachine<C>,
        exit: &CommandExit,
    ) -> Result<AttemptEnd<Trained<T>>> {
        let ConnectedMachine { machine, agent } = reached;
        self.clock().end(exit.duration());
        let status = agent.ask(AgentCommand::Heartbeat).await?;
        if let Some(number) = status.checkpoint {
            let keep = async |attempt| {
                judge_transfer(self.checkpoints.fetch(agent, &machine.id, number).await, attempt)
            };
            // An earlier one is there, perhaps, and so is the next machine.
            match retry(TRANSFER_RETRY, keep).await {
                Ok(_) => self.clock().save_all(),
                Err(error) => warn!("the last checkpoint could not be brought home: {}", chain(&error)),
            }
        }
        if let Some(error) = job.reached_limit(self.slowest_transfer.get()) {
            return Ok(AttemptEnd::Failed(error));
        }
        let why = status.notice.map_or_else(|| "its provider takes it away".to_owned(), |notice| notice.why);
        Ok(AttemptEnd::Interrupted(format!("{why}, after {} of training", in_words(exit.duration()))))
    }

    /// Sends the workspace and the newest checkpoint, and starts the training, unless it was started before.
    async fn start<L: trainspot_compute::link::Link>(&self, agent: &Agent<L>) -> Result<()> {
        retry(TRANSFER_RETRY, async |number| judge_transfer(self.start_once(agent).await, number)).await
    }

    async fn start_once<L: trainspot_compute::link::Link>(&self, agent: &Agent<L>) -> Result<()> {
        if agent.ask(AgentCommand::Heartbeat).await?.state != CommandState::Idle {
            self.clock().start();
            return Ok(());
        }
        let start = Instant::now();
        agent.send_in_use(self.clone_dir, self.workspace.clone(), "sending the workspace").await?;
        agent.send_commit(&self.commit).await?;
        let seconds = start.elapsed().as_secs_f64();
        info!("sent the workspace: {} ({seconds:.1} s)", count(self.workspace.len(), "file"));
        let mut spec = self.spec.clone();
        if let Some(folder) = self.checkpoints.newest() {
            let entries = everything(&folder)?;
            agent.send(&folder, entries, "restoring the checkpoint").await?;
            spec.resume = true;
            info!("restored the newest checkpoint; the training goes on with TRAINSPOT_RESUME=1");
        } else if !self.resumed.is_empty() {
            agent.send_in_use(self.clone_dir, self.resumed.clone(), "sending the clone's checkpoint").await?;
            spec.resume = true;
            info!("sent the clone's checkpoint; the training goes on with TRAINSPOT_RESUME=1");
        }
        spec.max_runtime = self.spec.max_runtime.saturating_sub(self.clock().before());
        agent.ask(AgentCommand::Start(Box::new(spec))).await?;
        self.clock().start();
        info!("training started");
        Ok(())
    }

    fn clock(&self) -> RefMut<'_, TrainingClock> {
        self.clock.borrow_mut()
    }
}
