//! A machine for the run: found again or launched, replaced when it is lost, and ended in every case.

use super::watch::{self, Heart};
use crate::agent::protocol::{Exit, Spec, State, Wish};
use crate::compute::{Compute, Machine, Order};
use crate::error::{Context as _, Error, Kind, Result, chain};
use crate::link::{Agent, AskError};
use crate::log::progress::in_words;
use crate::retry::{Attempt, Policy, retry};
use crate::transfer::{Entry, find};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use tokio_util::sync::CancellationToken;
use tracing::{debug, error, info, warn};

/// A machine that was just found may still be held by the pipe that was killed. Its hold lasts 20 s.
const HOLD: Duration = Duration::from_secs(30);

/// The model exists on the machine only, which is ended after this: a stream that broke off is opened again.
const HARVEST: Policy = Policy {
    attempts: 3,
    first_wait: Duration::from_secs(1),
    longest_wait: Duration::from_secs(5),
    total: Duration::from_hours(24),
};

/// All that it takes to train.
pub(super) struct Job<'a, C> {
    pub(super) compute: &'a C,
    pub(super) order: Order,
    pub(super) spec: Spec,
    /// The clone, and what of it goes along.
    pub(super) clone_dir: &'a Path,
    pub(super) workspace: Vec<Entry>,
    /// Where checkpoints are kept.
    pub(super) checkpoints: &'a Path,
    pub(super) max_restarts: u32,
    pub(super) shutdown: &'a CancellationToken,
}

/// A training that came to its end, on a machine that is still there.
pub(super) struct Trained {
    pub(super) exit: Exit,
    /// The last lines of its output.
    pub(super) tail: Vec<String>,
    pub(super) machine: Machine,
    pub(super) restarts: u32,
    /// The machine could not be ended: to be told when the outputs are safe.
    pub(super) leftover: Option<Error>,
}

/// How one machine's part in the run ended.
enum Turn<T> {
    Done(Trained, T),
    Failed(Error),
    Lost(Error),
    /// Another pipe took the machine over while this one was silent for long. It is not ours to end any more.
    Taken(String),
}

impl<T> From<AskError> for Turn<T> {
    fn from(error: AskError) -> Self {
        match error {
            AskError::Refused(why) => Self::Taken(why),
            AskError::Lost(error) => Self::Lost(error),
        }
    }
}

impl<C: Compute> Job<'_, C> {
    /// Trains, replacing lost machines, then lets `harvest` bring the outputs home while the machine is kept alive.
    /// No machine is left, whatever the result.
    pub(super) async fn run<T>(
        &self,
        harvest: impl AsyncFn(&Agent<C::Link>, &Trained) -> Result<T>,
    ) -> Result<(Trained, T)> {
        let owner = format!("{}-{:016x}", std::process::id(), fastrand::u64(..));
        let mut restarts = 0;
        loop {
            let machine = tokio::select! {
                machine = self.obtain(&owner) => machine?,
                () = self.shutdown.cancelled() => return Err(self.stopped_early().await),
            };
            match self.turn(&machine, &owner, restarts, &harvest).await {
                Turn::Done(trained, harvested) => {
                    let leftover = self.end_or_tell(&machine).await;
                    return Ok((Trained { leftover, ..trained }, harvested));
                }
                Turn::Failed(error) => {
                    self.end_or_tell(&machine).await;
                    return Err(error);
                }
                Turn::Taken(why) => {
                    let hint = "the other run of this step goes on with the training";
                    return Err(Error::new(why).kind(Kind::Machine).hint(hint));
                }
                Turn::Lost(why) => {
                    self.end_or_tell(&machine).await;
                    if restarts == self.max_restarts {
                        return Err(lost_for_good(restarts, why));
                    }
                    restarts += 1;
                    warn!("the machine was lost: {}", chain(&why));
                    info!(
                        "starting again on another one (restart {restarts} of at most {})",
                        self.max_restarts
                    );
                }
            }
        }
    }

    /// The machine of this very run, if a pipe that was killed left it; else a new one.
    async fn obtain(&self, owner: &str) -> Result<Machine> {
        if let Some(machine) = self.compute.find(&self.order.run).await? {
            info!("found the machine that an earlier try of this step left: {}", machine.id);
            if self.usable(&machine, owner).await? {
                return Ok(machine);
            }
            self.end(&machine).await?;
        }
        let start = Instant::now();
        let machine = self.compute.launch(&self.order).await.map_err(|error| error.kind(Kind::Machine))?;
        info!("machine ready: {} ({:.1} s)", machine.description, start.elapsed().as_secs_f64());
        Ok(machine)
    }

    /// Whether a machine that was found runs, or has run, the training that this step wants.
    async fn usable(&self, machine: &Machine, owner: &str) -> Result<bool> {
        let agent = match self.compute.connect(machine).await {
            Ok(link) => Agent::new(link, owner),
            Err(error) => {
                debug!("it cannot be used: {}", error.render());
                return Ok(false);
            }
        };
        let give_up = Instant::now() + HOLD;
        loop {
            match agent.ask(Wish::Beat).await {
                Ok(status) => {
                    let same = status.fingerprint.as_ref() == Some(&self.spec.fingerprint);
                    let verdict =
                        if same { "taking it over" } else { "its training is another one; ending it" };
                    info!("{verdict}");
                    return Ok(same);
                }
                Err(AskError::Refused(_)) if Instant::now() < give_up => {
                    tokio::time::sleep(Duration::from_secs(2)).await;
                }
                Err(AskError::Refused(why)) => {
                    return Err(Error::new(why)
                        .kind(Kind::Machine)
                        .hint("wait for the other run to end, or stop it"));
                }
                Err(AskError::Lost(error)) => {
                    debug!("it does not answer: {}", error.render());
                    return Ok(false);
                }
            }
        }
    }

    /// One machine's part: the story races against the machine's loss and the order to stop.
    async fn turn<T>(
        &self,
        machine: &Machine,
        owner: &str,
        restarts: u32,
        harvest: &impl AsyncFn(&Agent<C::Link>, &Trained) -> Result<T>,
    ) -> Turn<T> {
        let link = match self.compute.connect(machine).await {
            Ok(link) => link,
            Err(error) => return Turn::Lost(error),
        };
        let agent = Agent::new(link, owner);
        let heart = Heart::new(&agent, self.order.orphan_grace, self.checkpoints);
        let story = async {
            self.start(&agent).await?;
            let (exit, tail) = watch::until_the_end(&agent, self.spec.max_runtime).await?;
            let trained = Trained { exit, tail, machine: machine.clone(), restarts, leftover: None };
            let harvested = retry(HARVEST, async |number| match harvest(&agent, &trained).await {
                // One that has a kind says something of the outputs, not of the way here.
                Err(error) if error.exit_kind() == Kind::Unexpected => {
                    if number < HARVEST.attempts {
                        warn!("{}; trying again", chain(&error));
                    }
                    Attempt::Passing(error, None)
                }
                done => Attempt::Final(done),
            });
            let harvested = harvested.await?;
            Ok((trained, harvested))
        };
        tokio::select! {
            ended = heart.beat() => ended.into(),
            done = story => match done {
                Ok((trained, harvested)) => Turn::Done(trained, harvested),
                // An error while the machine does not answer is the machine's loss, not the story's end.
                Err(error) => match agent.ask(Wish::Beat).await {
                    Ok(_) => Turn::Failed(error),
                    Err(AskError::Lost(lost)) => Turn::Lost(lost.source(error)),
                    Err(refused) => refused.into(),
                },
            },
            () = self.shutdown.cancelled() => Turn::Failed(stopped()),
        }
    }

    /// Sends the workspace and the newest checkpoint, and starts the training, unless it was started before.
    async fn start(&self, agent: &Agent<C::Link>) -> Result<()> {
        let status = agent.ask(Wish::Beat).await?;
        if status.state != State::Idle {
            return Ok(());
        }
        info!("sending {} files of the workspace", self.workspace.len());
        let start = Instant::now();
        agent.send(self.clone_dir, self.workspace.clone(), "sending the workspace").await?;
        debug!("sent {} files ({:.1} s)", self.workspace.len(), start.elapsed().as_secs_f64());
        let mut spec = self.spec.clone();
        if let Some(folder) = watch::newest_checkpoint(self.checkpoints) {
            let entries = find(&folder, &["**".to_owned()])?.files;
            agent.send(&folder, entries, "restoring the checkpoint").await?;
            spec.resume = true;
            info!("restored the newest checkpoint; the training goes on with TRAINSPOT_RESUME=1");
        }
        agent.ask(Wish::Start(Box::new(spec))).await?;
        info!("training started");
        Ok(())
    }

    async fn end(&self, machine: &Machine) -> Result<()> {
        let ended = self.compute.terminate(machine).await;
        ended.with_context(|| format!("cannot end the machine {}", machine.id)).map_err(|error| {
            error.leaves(format!(
                "machine {}; it ends itself within {}",
                machine.id,
                in_words(self.order.orphan_grace)
            ))
        })?;
        info!("machine ended: {}", machine.id);
        Ok(())
    }

    /// Ends a machine that the run's result does not depend on any more.
    async fn end_or_tell(&self, machine: &Machine) -> Option<Error> {
        self.end(machine).await.inspect_err(|error| error!("{}", error.render())).err()
    }

    /// The order to stop came while a machine was being had: what there is of it is found by the run's name.
    async fn stopped_early(&self) -> Error {
        match self.compute.find(&self.order.run).await {
            Ok(Some(machine)) => match self.end(&machine).await {
                Ok(()) => stopped(),
                Err(error) => stopped().source(error),
            },
            Ok(None) => stopped(),
            Err(error) => stopped().source(error),
        }
    }
}

fn lost_for_good(restarts: u32, why: Error) -> Error {
    Error::new(format!("the machine was lost, after {restarts} restarts"))
        .source(why)
        .kind(Kind::Machine)
        .hint("raise MAX_RESTARTS, or set CHECKPOINTS so that a restart goes on where it was")
}

fn stopped() -> Error {
    Error::new("stopped before the training's outputs were safe").kind(Kind::Stopped)
}

/// A folder for one run's short-lived files, removed when it is dropped.
pub(super) fn scratch(parent: &Path, run: &crate::compute::RunId) -> Result<Scratch> {
    let folder = parent.join(format!("trainspot-pipe-{run}"));
    std::fs::remove_dir_all(&folder).ok();
    // Checkpoints are restored from here, and loading one may run code: nobody else must write to it.
    let made = std::fs::DirBuilder::new().recursive(true).mode(0o700).create(&folder);
    made.with_context(|| format!("cannot make the folder {}", folder.display())).map_err(|error| {
        error.kind(Kind::Machine).hint("set TMPDIR to a folder that can be written to and has room")
    })?;
    Ok(Scratch(folder))
}

/// See [`scratch`].
pub(super) struct Scratch(PathBuf);

impl Scratch {
    pub(super) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        std::fs::remove_dir_all(&self.0).ok();
    }
}

#[cfg(test)]
mod tests;
