//! A training that is started on a machine and then left to it.

use super::DetachedRun;
use super::progress::{AttemptRecord, ProgressFile};
use super::words::MachineWords;
use crate::job::{
    AttemptEnd, ConnectedMachine, Cost, Job, TRANSFER_RETRY, Workload, ask_until_answered, judge_transfer,
};
use std::path::Path;
use std::time::Duration;
use tokio::time::Instant;
use tracing::{info, warn};
use trainspot_base::error::{Error, Kind, Result};
use trainspot_base::log::count;
use trainspot_base::retry::retry;
use trainspot_compute::link::{Agent, Link};
use trainspot_compute::{Compute, Machine};
use trainspot_git::Snapshot;
use trainspot_protocol::{
    AgentCommand, AgentStatus, CommandSpec, CommandState, DetachedSpec, RestoreRequest, WakeSpec,
};
use trainspot_transfer::BundleEntry;

/// How long a machine may take to write its first state into the store once its training has started.
const PROOF_LIMIT: Duration = Duration::from_mins(1);
/// How often that state is looked for.
const PROOF_INTERVAL: Duration = Duration::from_millis(500);

/// What a machine gets of a detached run.
pub(super) struct DetachedTraining<'a> {
    pub(super) run: &'a DetachedRun<'a>,
    pub(super) file: &'a tokio::sync::Mutex<ProgressFile>,
    pub(super) spec: CommandSpec,
    /// The folder of the workspace's files, and the files.
    pub(super) workspace: (&'a Path, Vec<BundleEntry>),
    pub(super) commit: Snapshot,
    /// The checkpoint of the clone that the first machine goes on from.
    pub(super) resumed: Vec<BundleEntry>,
    pub(super) wake: Option<WakeSpec>,
}

impl<C: Compute> Workload<C> for DetachedTraining<'_> {
    /// The machine on which the training goes on.
    type Done = AttemptRecord;

    const STOPPED_MESSAGE: &'static str = "stopped before the training was left to its machine";
    const PROGRESS_WORDS: &'static str = "";
    const RESTART_HINT: &'static str = "";

    fn fingerprint(&self) -> &str {
        &self.spec.fingerprint
    }

    fn must_not_terminate(&self, _: Option<&AgentStatus>) -> Option<Error> {
        None
    }

    async fn run_on(
        &self,
        _: &Job<'_, C>,
        reached: &ConnectedMachine<C>,
    ) -> Result<AttemptEnd<AttemptRecord>> {
        let ConnectedMachine { machine, agent } = reached;
        let state = ask_until_answered(agent, AgentCommand::Heartbeat).await?.state;
        let attempt = self.record(machine, state == CommandState::Idle).await?;
        self.start(agent, machine, &attempt).await?;
        self.prove(agent, &attempt).await?;
        ask_until_answered(agent, AgentCommand::Release).await?;
        Ok(AttemptEnd::HandedOver(attempt))
    }

    async fn fetch_checkpoint(&self, _: &Agent<C::Link>, _: &Machine, _: u64) -> Result<bool> {
        Ok(false)
    }

    fn on_machine_lost(&self, _: Option<Cost>) {}

    fn progress(&self) -> u64 {
        0
    }

    fn time_left(&self) -> Duration {
        self.spec.max_runtime
    }

    fn salvage(&self, error: Error) -> Error {
        error
    }
}

impl DetachedTraining<'_> {
    /// Writes down which machine it is before anything starts there, unless an earlier pipe did. `is_idle`
    /// tells whether no training was started on the machine.
    ///
    /// # Errors
    /// The machine before it, which is ended, has said meanwhile how its training ended: none is needed.
    async fn record(&self, machine: &Machine, is_idle: bool) -> Result<AttemptRecord> {
        let mut file = self.file.lock().await;
        if let Some(before) = file.progress.attempts.last_mut().filter(|attempt| attempt.end.is_none()) {
            let folder = self.run.folder.machine(&before.folder)?;
            let words = MachineWords::read(&self.run.store, &folder).await?;
            // A local machine has the same id again, and a folder of its own.
            if before.machine == machine.id && !(is_idle && words.state.is_some()) {
                return Ok(before.clone());
            }
            if words.exit.is_some() {
                return Err(Error::new("the training has ended meanwhile, on the machine before this one")
                    .kind(Kind::Machine)
                    .hint("run the pipeline again with RUN, to collect it"));
            }
            before.close("it did not answer any more", Some(&words));
        }
        let attempt = AttemptRecord::new(machine, file.progress.attempts.len() + 1);
        file.progress.attempts.push(attempt.clone());
        file.save().await?;
        Ok(attempt)
    }

    async fn start<L: Link>(
        &self,
        agent: &Agent<L>,
        machine: &Machine,
        attempt: &AttemptRecord,
    ) -> Result<()> {
        let once = async |number| judge_transfer(self.start_once(agent, machine, attempt).await, number);
        retry(TRANSFER_RETRY, once).await
    }

    /// Sends the workspace, has the newest checkpoint restored, and starts the training, unless an earlier
    /// pipe did.
    async fn start_once<L: Link>(
        &self,
        agent: &Agent<L>,
        machine: &Machine,
        attempt: &AttemptRecord,
    ) -> Result<()> {
        if agent.ask(AgentCommand::Heartbeat).await?.state != CommandState::Idle {
            return Ok(());
        }
        let (folder, entries) = &self.workspace;
        agent.send_in_use(folder, entries.clone(), "sending the workspace").await?;
        agent.send_commit(&self.commit).await?;
        info!("sent the workspace: {}", count(entries.len(), "file"));
        let mut spec = self.spec.clone();
        spec.resume = self.restore(agent).await?;
        spec.detached = Some(Box::new(self.detached(machine, attempt).await?));
        agent.ask(AgentCommand::Start(Box::new(spec))).await?;
        info!("training started");
        Ok(())
    }

    /// Has the newest checkpoint restored. Tells whether there is one.
    async fn restore<L: Link>(&self, agent: &Agent<L>) -> Result<bool> {
        let newest = self.file.lock().await.progress.newest_checkpoint().map(|(attempt, number)| {
            Ok::<_, Error>((self.run.folder.machine(&attempt.folder)?.root().to_string(), number))
        });
        if let Some((folder, number)) = newest.transpose()? {
            let (store, patterns) = (self.run.access(), self.spec.checkpoints.clone());
            agent.restore(&RestoreRequest { store, folder, number, patterns }).await?;
            info!("restored checkpoint {number}; the training goes on with TRAINSPOT_RESUME=1");
            return Ok(true);
        }
        if !self.resumed.is_empty() {
            let clone = &self.run.training.config.clone_dir;
            agent.send_in_use(clone, self.resumed.clone(), "sending the clone's checkpoint").await?;
            info!("sent the clone's checkpoint; the training goes on with TRAINSPOT_RESUME=1");
        }
        Ok(!self.resumed.is_empty())
    }

    async fn detached(&self, machine: &Machine, attempt: &AttemptRecord) -> Result<DetachedSpec> {
        let cost = self.file.lock().await.progress.cost();
        let left = self.run.max_cost.map(|most| most - cost.map_or(0.0, |cost| cost.total()));
        let rate = machine.rate.map(|rate| rate.machine + rate.extras);
        let cost_limit = left.zip(rate).map(|(left, rate)| {
            Duration::try_from_secs_f64(left.max(0.0) / rate * 3600.0).unwrap_or(Duration::MAX)
        });
        if self.run.max_cost.is_some() && cost_limit.is_none() {
            warn!("nobody tells what {} costs, so MAX_COST cannot end the run", machine.description);
        }
        Ok(DetachedSpec {
            run: self.run.id.to_string(),
            store: self.run.access(),
            folder: self.run.folder.machine(&attempt.folder)?.root().to_string(),
            outputs: self.run.outputs(),
            dvc: self.run.store_request()?,
            cost_limit,
            wake: self.wake.clone(),
        })
    }

    /// Waits until the machine has shown that it can write to the store: nobody else could tell of it.
    async fn prove<L: Link>(&self, agent: &Agent<L>, attempt: &AttemptRecord) -> Result<()> {
        let (start, machine) = (Instant::now(), self.run.folder.machine(&attempt.folder)?);
        loop {
            let words = MachineWords::read(&self.run.store, &machine).await?;
            if words.state.is_some() || words.exit.is_some() {
                info!("the machine writes to the store ({:.1} s)", start.elapsed().as_secs_f64());
                return Ok(());
            }
            if start.elapsed() > PROOF_LIMIT {
                let why = agent.ask(AgentCommand::Heartbeat).await?.checkpoint_error;
                let why = why.unwrap_or_else(|| "it does not say why".to_owned());
                return Err(Error::new("the machine does not write to the store")
                    .source(why)
                    .kind(Kind::Machine)
                    .hint("see whether the machine can reach STORE, and may write there"));
            }
            tokio::time::sleep(PROOF_INTERVAL).await;
        }
    }
}
