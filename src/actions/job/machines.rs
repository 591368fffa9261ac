//! Machines for a job: found again, launched, asked for ahead of time, and ended.

use super::heart::BEAT;
use super::{Job, Work};
use crate::agent::protocol::{Notice, Status, Wish};
use crate::compute::{Compute, Machine, Order, Pool};
use crate::error::{Context as _, Error, Kind, Result, chain};
use crate::link::{Agent, AskError};
use crate::log::progress::in_words;
use futures_util::future::join_all;
use std::convert::Infallible;
use std::pin::Pin;
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::Instant;
use tracing::{debug, error, info, warn};

/// A machine that was just found may still be held by the pipe that was killed. Its hold lasts 20 s.
const HOLD: Duration = Duration::from_secs(30);
/// Between two tries to reach it.
const AGAIN: Duration = Duration::from_secs(2);
/// A machine that does not come up is replaced, but not for ever: the cause may be the image or the network.
const BOOTS: u32 = 2;

/// A machine with an agent that answers.
pub(in crate::actions) struct Reached<C: Compute> {
    pub(in crate::actions) machine: Machine,
    pub(in crate::actions) agent: Agent<C::Link>,
}

impl<C: Compute> Job<'_, C> {
    /// The machine of this very run, if a pipe that was killed left it; else a new one.
    pub(super) async fn obtain<W: Work<C>>(&self, work: &W) -> Result<Reached<C>> {
        let mut usable = None;
        for machine in self.found.clone() {
            info!("found a machine that an earlier try of this step left: {}", machine.description);
            let agent = if usable.is_none() { self.usable(&machine, work).await? } else { None };
            match agent {
                Some(agent) => {
                    self.open_account(&machine);
                    usable = Some(Reached { machine, agent });
                }
                None => self.end(&machine).await?,
            }
        }
        match usable {
            Some(reached) => Ok(reached),
            None => self.fresh(Vec::new()).await,
        }
    }

    /// The agent on a machine that was found, if that does, or has done, the work that this step wants.
    ///
    /// # Errors
    /// It is another pipe's, or must not be ended.
    async fn usable<W: Work<C>>(&self, machine: &Machine, work: &W) -> Result<Option<Agent<C::Link>>> {
        let give_up = Instant::now() + HOLD;
        // Its checkpoints end with it: an error that may pass is not enough.
        let link = loop {
            match self.compute.connect(machine, &self.order).await {
                Ok(link) => break link,
                Err(error) if Instant::now() < give_up => {
                    debug!("it is not reached yet: {}", chain(&error));
                    tokio::time::sleep(AGAIN).await;
                }
                Err(error) => {
                    info!("it cannot be taken over: {}", chain(&error));
                    return self.unless_spared(work, None);
                }
            }
        };
        let agent = Agent::new(link, &self.owner);
        loop {
            match agent.ask(Wish::Beat).await {
                Ok(status) => {
                    self.state.theirs.set(false);
                    let same = status.fingerprint.as_deref() == Some(work.fingerprint());
                    info!(
                        "{}",
                        if same {
                            "taking it over"
                        } else {
                            "what it does is not what is wanted now; ending it"
                        }
                    );
                    return if same { Ok(Some(agent)) } else { self.unless_spared(work, Some(&status)) };
                }
                Err(AskError::Refused(_)) if Instant::now() < give_up => {
                    self.state.theirs.set(true);
                    tokio::time::sleep(AGAIN).await;
                }
                Err(AskError::Refused(why)) => {
                    return Err(Error::new(why)
                        .kind(Kind::Machine)
                        .hint("wait for the other run to end, or stop it"));
                }
                Err(AskError::Lost(_)) if Instant::now() < give_up => tokio::time::sleep(AGAIN).await,
                // What another pipe holds is not ours to end because it does not answer.
                Err(AskError::Lost(error)) if self.state.theirs.get() => {
                    return Err(error.kind(Kind::Machine));
                }
                Err(AskError::Lost(error)) => {
                    debug!("it does not answer: {}", error.render());
                    return self.unless_spared(work, None);
                }
            }
        }
    }

    /// No use of a machine that was found, which is to be ended then.
    fn unless_spared<W: Work<C>, T>(&self, work: &W, status: Option<&Status>) -> Result<Option<T>> {
        let Some(why) = work.spares(status) else { return Ok(None) };
        self.state.theirs.set(true);
        Err(why)
    }

    /// A new machine, not from the pools in `avoid` unless nowhere else. One that does not come up is ended and replaced.
    pub(super) async fn fresh(&self, avoid: Vec<Pool>) -> Result<Reached<C>> {
        let mut order = Order { avoid, ..self.order.clone() };
        let mut boots = 0;
        loop {
            let start = Instant::now();
            let machine = self.compute.launch(&order).await.map_err(|error| error.kind(Kind::Machine))?;
            self.open_account(&machine);
            boots += 1;
            match self.compute.connect(&machine, &order).await {
                Ok(link) => {
                    info!("machine ready: {} ({:.1} s)", machine.description, start.elapsed().as_secs_f64());
                    return Ok(Reached { machine, agent: Agent::new(link, &self.owner) });
                }
                Err(error) => {
                    let ended = self.end(&machine).await;
                    let error = Error::new(format!("the machine {} did not come up", machine.id))
                        .source(error)
                        .kind(Kind::Machine);
                    if boots == BOOTS || ended.is_err() {
                        return Err(error);
                    }
                    warn!("{}; trying another one", error.render());
                    order.avoid.extend(machine.pool);
                }
            }
        }
    }

    fn open_account(&self, machine: &Machine) {
        if self.max_cost.is_some() && machine.rate.is_none() {
            warn!("nobody tells what {} costs, so MAX_COST cannot end the run", machine.description);
        }
        let now = Instant::now();
        self.bill().open(machine, now.checked_sub(machine.age).unwrap_or(now));
    }

    /// Ends a machine and closes its account.
    pub(super) async fn end(&self, machine: &Machine) -> Result<()> {
        let ended = self.compute.terminate(machine).await;
        ended.with_context(|| format!("cannot end the machine {}", machine.id)).map_err(|error| {
            error.leaves(format!(
                "machine {}; it ends itself within {}",
                machine.id,
                in_words(self.order.orphan_grace)
            ))
        })?;
        if self.bill().close(machine, false) {
            info!("machine ended: {}", machine.id);
        }
        Ok(())
    }

    /// Ends the machines that are known, and those that were being launched when the story ended. What the next try of
    /// the step may have launched meanwhile is not ours.
    pub(super) async fn finish(&self, known: &[Machine]) -> Result<()> {
        if self.state.theirs.get() {
            return Ok(());
        }
        let mut errors = self.end_all(known).await;
        match self.compute.made(&self.order.run).await {
            Ok(mut made) => {
                made.retain(|made| known.iter().all(|known| known.id != made.id));
                errors.extend(self.end_all(&made).await);
            }
            Err(error) => errors.push(error),
        }
        Error::all("not everything could be ended", errors)
    }

    /// Removes what the machines shared, once they are ended: that costs nothing, so the outputs go first.
    pub(in crate::actions) async fn clean(&self) -> Result<()> {
        if self.state.theirs.get() { Ok(()) } else { self.compute.clean(&self.order.run).await }
    }

    /// Leaves a machine to itself, and ends the others.
    pub(super) async fn hand_over(&self, machine: &Machine, others: &[Machine]) -> Result<()> {
        // What it leaves costs nothing, and a later run's sweep finds it.
        if let Err(error) = self.compute.hand_over(machine, &self.order.run).await {
            warn!("{}", error.render());
        }
        self.finish(others).await
    }

    async fn end_all(&self, machines: &[Machine]) -> Vec<Error> {
        let ended = join_all(machines.iter().map(|machine| self.end(machine)));
        ended.await.into_iter().filter_map(Result::err).collect()
    }

    /// Ends and removes everything, where the run has failed: its own error is the one to end with.
    pub(super) async fn give_up(&self, known: &[Machine], agent: Option<&Agent<C::Link>>) {
        let ended = self.finish_with(agent, known).await;
        // Even after an error: what cannot be removed, as a machine still needs it, is named there.
        for error in [ended, self.clean().await].into_iter().filter_map(Result::err) {
            error!("{}", error.render());
        }
    }

    /// Finishes with a machine that is reached: it is asked to end itself where its provider does not end it.
    pub(super) async fn finish_with(&self, agent: Option<&Agent<C::Link>>, known: &[Machine]) -> Result<()> {
        let finished = self.finish(known).await;
        if finished.is_err()
            && let Some(agent) = agent
            && let Err(error) = agent.ask(Wish::End).await
        {
            debug!("the machine does not end itself at once: {}", chain(&Error::from(error)));
        }
        finished
    }
}

type Asking<'a, C> = Pin<Box<dyn Future<Output = Result<Reached<C>>> + 'a>>;

/// The next machine, asked for as soon as the present one is about to be taken away.
pub(super) struct Successor<'a, C: Compute> {
    asking: Option<Asking<'a, C>>,
    had: Option<Result<Reached<C>>>,
}

impl<'a, C: Compute> Successor<'a, C> {
    pub(super) fn none() -> Self {
        Self { asking: None, had: None }
    }

    /// Waits for the notice, then gets the machine. Never returns; what is reached so far is kept when it is dropped.
    pub(super) async fn drive(
        &mut self,
        mut notice: watch::Receiver<Option<Notice>>,
        ask: impl FnOnce(&Notice) -> Option<Asking<'a, C>>,
    ) -> Infallible {
        if let Ok(notice) = notice.wait_for(Option::is_some).await
            && let Some(notice) = notice.as_ref()
        {
            self.asking = ask(notice);
        }
        if let Some(asking) = &mut self.asking {
            self.had = Some(asking.await);
            self.asking = None;
        }
        let Some(Ok(next)) = &self.had else { std::future::pending().await };
        // It waits for the present one's end, which may take longer than its grace without a word.
        loop {
            if let Err(error) = next.agent.ask(Wish::Beat).await {
                debug!("the next machine does not answer: {}", chain(&Error::from(error)));
            }
            tokio::time::sleep(BEAT).await;
        }
    }

    /// The machine, if it is there already.
    pub(super) fn had(self) -> Option<Reached<C>> {
        self.had?.ok()
    }

    /// The machine, once it is there; none if it was never asked for.
    pub(super) async fn arrive(self) -> Option<Result<Reached<C>>> {
        match (self.had, self.asking) {
            (Some(had), _) => Some(had),
            (None, Some(asking)) => Some(asking.await),
            (None, None) => None,
        }
    }
}
