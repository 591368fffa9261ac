//! Machines for a job: found again, launched, asked for ahead of time, and ended.

use super::{Job, Workload};
use futures_util::future::join_all;
use std::time::Duration;
use tokio::time::Instant;
use tracing::{debug, error, info, warn};
use trainspot_base::error::{Context as _, Error, Kind, Result, chain};
use trainspot_base::log::progress::in_words;
use trainspot_compute::link::{Agent, AskError};
use trainspot_compute::{Compute, LaunchRequest, Machine, MachineStatus, Pool};
use trainspot_protocol::{AgentCommand, AgentStatus};

/// How long a machine that was just found may still be held by the pipe that was killed, whose hold lasts 20
/// s.
const OTHER_PIPES_HOLD: Duration = Duration::from_secs(30);
/// The wait between two tries to reach a machine that was found.
const CONNECT_RETRY_WAIT: Duration = Duration::from_secs(2);
/// How many machines in all may fail to come up: the cause may be the image or the network.
const BOOT_ATTEMPTS: u32 = 2;

/// The end of the machines, as errors name it.
pub(super) const THE_END: &str = "the end of the run's machines";
/// The removal of what the machines shared, as errors name it.
const THE_REMOVAL: &str = "the removal of what the machines shared";

/// A machine with an agent that answers.
pub(crate) struct ConnectedMachine<C: Compute> {
    pub(crate) machine: Machine,
    pub(crate) agent: Agent<C::Link>,
}

/// What became of a machine that was launched.
enum Boot<C: Compute> {
    /// The machine is up.
    Up(ConnectedMachine<C>),
    /// The provider took the machine back before it was up, for this reason.
    Reclaimed(Machine, String),
    /// The machine did not come up, and is ended.
    Failed(Machine, Error),
}

impl<C: Compute> Job<'_, C> {
    /// The machine of this very run, if a pipe that was killed left it; else a new one.
    pub(super) async fn acquire<W: Workload<C>>(&self, work: &W) -> Result<ConnectedMachine<C>> {
        let mut adopted = None;
        for machine in self.found.clone() {
            info!("found a machine that an earlier try of this step left: {}", machine.description);
            let agent = if adopted.is_none() { self.try_adopt(&machine, work).await? } else { None };
            match agent {
                Some(agent) => {
                    self.open_account(&machine);
                    adopted = Some(ConnectedMachine { machine, agent });
                }
                None => self.end(&machine).await?,
            }
        }
        match adopted {
            Some(reached) => Ok(reached),
            None => self.launch_new(self.launch_request.avoid.clone()).await,
        }
    }

    /// The agent on a machine that was found, if that does, or has done, the work that this step wants.
    ///
    /// # Errors
    /// It is another pipe's, or must not be ended.
    async fn try_adopt<W: Workload<C>>(&self, machine: &Machine, work: &W) -> Result<Option<Agent<C::Link>>> {
        let give_up = Instant::now() + OTHER_PIPES_HOLD;
        // Its checkpoints end with it: an error that may pass is not enough.
        let link = loop {
            match self.compute.connect(machine, &self.launch_request).await {
                Ok(link) => break link,
                Err(error) if Instant::now() < give_up => {
                    debug!("it is not reached yet: {}", chain(&error));
                    tokio::time::sleep(CONNECT_RETRY_WAIT).await;
                }
                Err(error) => {
                    info!("it cannot be taken over: {}", chain(&error));
                    return self.refuse_to_terminate(work, None);
                }
            }
        };
        let agent = Agent::new(link, &self.owner);
        loop {
            match agent.ask(AgentCommand::Heartbeat).await {
                Ok(status) => {
                    self.state.taken_over.set(false);
                    let same = status.fingerprint.as_deref() == Some(work.fingerprint());
                    info!(
                        "{}",
                        if same {
                            "taking it over"
                        } else {
                            "what it does is not what is wanted now; ending it"
                        }
                    );
                    return if same {
                        Ok(Some(agent))
                    } else {
                        self.refuse_to_terminate(work, Some(&status))
                    };
                }
                Err(AskError::Refused(_)) if Instant::now() < give_up => {
                    self.state.taken_over.set(true);
                    tokio::time::sleep(CONNECT_RETRY_WAIT).await;
                }
                Err(AskError::Refused(why)) => {
                    return Err(Error::new(why)
                        .kind(Kind::Machine)
                        .hint("wait for the other run to end, or stop it"));
                }
                Err(AskError::NoAnswer(_)) if Instant::now() < give_up => {
                    tokio::time::sleep(CONNECT_RETRY_WAIT).await;
                }
                // What another pipe holds is not ours to end because it does not answer.
                Err(AskError::NoAnswer(error)) if self.state.taken_over.get() => {
                    return Err(error.kind(Kind::Machine));
                }
                Err(AskError::NoAnswer(error)) => {
                    debug!("it does not answer: {}", error.render());
                    return self.refuse_to_terminate(work, None);
                }
            }
        }
    }

    /// Refuses to end a machine that was found but is of no use, where the work says that it must not be
    /// ended.
    fn refuse_to_terminate<W: Workload<C>, T>(
        &self,
        work: &W,
        status: Option<&AgentStatus>,
    ) -> Result<Option<T>> {
        let Some(why) = work.must_not_terminate(status) else { return Ok(None) };
        self.state.taken_over.set(true);
        Err(why)
    }

    /// Launches a new machine, from a pool in `avoid` only where no other has one. A machine that does not
    /// come up is ended and replaced; a machine that is taken away while it boots is replaced as any
    /// interrupted one.
    pub(super) async fn launch_new(&self, avoid: Vec<Pool>) -> Result<ConnectedMachine<C>> {
        let mut request = LaunchRequest { avoid, ..self.launch_request.clone() };
        let (mut failed, restarts) = (0, &self.state.restarts);
        loop {
            match self.boot(&request).await? {
                Boot::Up(reached) => return Ok(reached),
                Boot::Reclaimed(machine, why) => {
                    let taken = format!("the machine {} was taken away while it booted", machine.id);
                    // No training is begun again by this: it is done as well where there may be no restarts.
                    if restarts.in_a_row() >= self.max_restarts.max(1) {
                        return Err(Error::new(taken)
                            .source(why)
                            .kind(Kind::Machine)
                            .hint("raise MAX_RESTARTS, or name more types and zones"));
                    }
                    restarts.count_unused();
                    warn!("{taken}: {why}; trying another one");
                    request.avoid.extend(machine.pool);
                }
                Boot::Failed(machine, error) => {
                    failed += 1;
                    if failed == BOOT_ATTEMPTS {
                        return Err(error);
                    }
                    warn!("{}; trying another one", error.render());
                    request.avoid.extend(machine.pool);
                }
            }
        }
    }

    /// Launches a spot machine, if there is one at once and it comes up.
    pub(super) async fn spot_now(&self) -> Result<ConnectedMachine<C>> {
        if self.is_over_max_cost() {
            return Err(self.max_cost_error());
        }
        match self.boot(&LaunchRequest { spot_now: true, ..self.launch_request.clone() }).await? {
            Boot::Up(reached) => Ok(reached),
            Boot::Reclaimed(machine, why) => {
                Err(Error::new(format!("the machine {} was taken away: {why}", machine.id)))
            }
            Boot::Failed(_, error) => Err(error),
        }
    }

    /// Launches a machine, and waits until it is up.
    async fn boot(&self, request: &LaunchRequest) -> Result<Boot<C>> {
        let start = Instant::now();
        let machine = self.compute.launch(request).await.map_err(|error| error.kind(Kind::Machine))?;
        self.open_account(&machine);
        let error = match self.compute.connect(&machine, request).await {
            Ok(link) => {
                info!("machine ready: {} ({:.1} s)", machine.description, start.elapsed().as_secs_f64());
                return Ok(Boot::Up(ConnectedMachine { machine, agent: Agent::new(link, &self.owner) }));
            }
            Err(error) => error,
        };
        if let Ok(MachineStatus::Reclaimed(why) | MachineStatus::InterruptionNotice(why)) =
            self.compute.status(&machine).await
        {
            // It is its provider's to end: what that takes within the hour is free.
            self.state.departures.add(&machine);
            return Ok(Boot::Reclaimed(machine, why));
        }
        let ended = self.end(&machine).await;
        let error = Error::new(format!("the machine {} did not come up", machine.id))
            .source(error)
            .kind(Kind::Machine);
        if ended.is_err() { Err(error) } else { Ok(Boot::Failed(machine, error)) }
    }

    fn open_account(&self, machine: &Machine) {
        if self.max_cost.is_some() && machine.rate.is_none() {
            warn!("nobody tells what {} costs, so MAX_COST cannot end the run", machine.description);
        }
        let now = Instant::now();
        self.ledger().open(machine, now.checked_sub(machine.age).unwrap_or(now));
    }

    /// Ends a machine and closes its account.
    pub(super) async fn end(&self, machine: &Machine) -> Result<()> {
        // Asked before: who ended a machine first is the one who counts.
        let reclaimed = self.is_reclaimed(machine).await;
        let ended = self.compute.terminate(machine).await;
        ended.with_context(|| format!("cannot end the machine {}", machine.id)).map_err(|error| {
            error.leaves(format!(
                "machine {}; it ends itself within {}",
                machine.id,
                in_words(self.launch_request.orphan_grace)
            ))
        })?;
        if self.close_account(machine, reclaimed) {
            info!("machine ended: {}", machine.id);
        }
        Ok(())
    }

    /// Ends the `known` machines, and those whose launch was under way when the work ended. Machines that the
    /// next try of the step may have launched meanwhile are not ours.
    pub(super) async fn end_known_and_launched(&self, known: &[Machine]) -> Result<()> {
        if self.state.taken_over.get() {
            return Ok(());
        }
        let mut errors = self.end_all(known).await;
        match self.compute.launched_by_this_process(&self.launch_request.run).await {
            Ok(mut made) => {
                made.retain(|made| known.iter().all(|known| known.id != made.id));
                errors.extend(self.end_all(&made).await);
            }
            Err(error) => errors.push(error),
        }
        Error::all("not everything could be ended", errors)
    }

    /// Removes what the run's machines shared, once they are ended. Those things cost nothing, so the outputs
    /// go first.
    pub(crate) async fn delete_run_resources(&self) -> Result<()> {
        if self.state.taken_over.get() {
            return Ok(());
        }
        self.in_time(THE_REMOVAL, self.compute.delete_run_resources(&self.launch_request.run)).await
    }

    /// Waits for `part`, which is called `what`, no longer than the step's deadline allows one part of the
    /// run's ending.
    pub(super) async fn in_time(&self, what: &str, part: impl Future<Output = Result<()>>) -> Result<()> {
        let Some(deadline) = self.deadline else { return part.await };
        deadline.in_half_the_time(part).await.unwrap_or_else(|| Err(self.unconfirmed(what)))
    }

    fn unconfirmed(&self, what: &str) -> Error {
        let grace = in_words(self.launch_request.orphan_grace);
        let error = Error::new(format!("{what} is not confirmed, and Pipelines is about to kill the step"))
            .kind(Kind::Machine)
            .hint("look whether anything is left: ACTION: sweep removes it once the step is over");
        let ledger = self.ledger();
        ledger.open_ids().fold(error, |error, id| {
            error.leaves(format!("perhaps the machine {id}; it ends itself within {grace}"))
        })
    }

    /// Leaves `machine` to itself, and ends the `others`.
    pub(super) async fn hand_over(&self, machine: &Machine, others: &[Machine]) -> Result<()> {
        // What it leaves costs nothing, and a later run's sweep finds it.
        if let Err(error) = self.compute.detach(machine, &self.launch_request.run).await {
            warn!("{}", error.render());
        }
        self.end_known_and_launched(others).await
    }

    async fn end_all(&self, machines: &[Machine]) -> Vec<Error> {
        let ended = join_all(machines.iter().map(|machine| self.end(machine)));
        ended.await.into_iter().filter_map(Result::err).collect()
    }

    /// Ends and removes everything of a run that has failed. What goes wrong here is only logged: the run
    /// ends with the error that it failed with.
    pub(super) async fn abort(&self, known: &[Machine], agent: Option<&Agent<C::Link>>) {
        let ended = self.end_all_and_verify(agent, known).await;
        // Even after an error: what cannot be removed, as a machine still needs it, is named there.
        for error in [ended, self.delete_run_resources().await].into_iter().filter_map(Result::err) {
            error!("{}", error.render());
        }
    }

    /// Ends the `known` machines. Where the provider does not confirm that in time, the machine behind
    /// `agent` is asked to end itself.
    pub(super) async fn end_all_and_verify(
        &self,
        agent: Option<&Agent<C::Link>>,
        known: &[Machine],
    ) -> Result<()> {
        let finished = self.in_time(THE_END, self.end_known_and_launched(known)).await;
        if finished.is_err()
            && let Some(agent) = agent
        {
            let told = async { agent.ask(AgentCommand::EndMachine).await.map(drop).map_err(Error::from) };
            if let Err(error) = self.in_time("the machine's own end", told).await {
                debug!("the machine does not end itself at once: {}", chain(&error));
            }
        }
        finished
    }
}
