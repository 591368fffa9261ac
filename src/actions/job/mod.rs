//! A training from its first machine to its last: got, watched, replaced when it is lost, and ended in every case.

mod bill;
mod checkpoints;
mod heart;
mod machines;
mod screen;
mod turn;

pub(super) use bill::Cost;
pub(super) use checkpoints::Checkpoints;

use crate::agent::protocol::{Exit, Spec};
use crate::compute::{Compute, Machine, Order};
use crate::error::{Error, Kind, Result, chain};
use crate::link::Agent;
use crate::log::progress::in_words;
use crate::transfer::Entry;
use bill::Bill;
use machines::{Reached, Successor};
use std::cell::{Cell, RefCell, RefMut};
use std::path::Path;
use std::time::Duration;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};
use turn::Turn;

/// All that it takes to train.
pub(super) struct Job<'a, C> {
    pub(super) compute: &'a C,
    pub(super) order: Order,
    /// By which this process is known to machines.
    pub(super) owner: String,
    pub(super) spec: Spec,
    /// The machines that carry the run's name already.
    pub(super) found: Vec<Machine>,
    /// The clone, and what of it goes along.
    pub(super) clone_dir: &'a Path,
    pub(super) workspace: Vec<Entry>,
    pub(super) checkpoints: Checkpoints,
    pub(super) max_restarts: u32,
    /// In dollars.
    pub(super) max_cost: Option<f64>,
    pub(super) shutdown: &'a CancellationToken,
    pub(super) state: State,
}

/// What a job remembers from one machine to the next.
#[derive(Default)]
pub(super) struct State {
    bill: RefCell<Bill>,
    clock: RefCell<Clock>,
    /// The run's machine is another process's: nothing of it is ours to end.
    theirs: Cell<bool>,
}

/// The time spent training.
#[derive(Default)]
struct Clock {
    /// On machines that are lost.
    before: Duration,
    /// Since when on this one.
    started: Option<Instant>,
    /// Until when what was trained is safe, while there is no machine that trains.
    safe_until: Option<Instant>,
    /// Between what was safe and the next start, over all interruptions.
    lost: Duration,
}

/// A training that came to its end.
pub(super) struct Trained {
    pub(super) exit: Exit,
    /// The last lines of its output.
    pub(super) tail: Vec<String>,
    pub(super) machine: Machine,
    pub(super) restarts: u32,
    /// How long it trained, on all machines.
    pub(super) took: Duration,
    /// How long the training stood still, or did again what was lost.
    pub(super) lost: Duration,
    /// Of all machines, if all prices are known.
    pub(super) cost: Option<Cost>,
    /// Something could not be ended: to be told when the outputs are safe.
    pub(super) leftover: Option<Error>,
}

/// A name for this process, which no other has.
pub(super) fn owner() -> String {
    format!("{}-{:016x}", std::process::id(), fastrand::u64(..))
}

impl<C: Compute> Job<'_, C> {
    /// Trains, replacing lost machines, then lets `harvest` bring the outputs home while the machine is kept alive.
    /// No machine is left, whatever the result; after a success, what they shared is left to [`Self::clean`].
    pub(super) async fn run<T>(
        &self,
        harvest: impl AsyncFn(&Agent<C::Link>, &Trained) -> Result<T>,
    ) -> Result<(Trained, T)> {
        let mut restarts = 0;
        let mut taken = self.found.clone();
        let mut next = self.unless_stopped(self.obtain()).await;
        loop {
            let reached = match next {
                Ok(reached) => reached,
                Err(error) => {
                    self.give_up(&taken, None).await;
                    return Err(self.rescue(error));
                }
            };
            if !taken.contains(&reached.machine) {
                taken.push(reached.machine.clone());
            }
            let mut successor = Successor::none();
            let turn = Box::pin(self.turn(&reached, &mut successor, restarts, &harvest)).await;
            let Reached { machine, agent } = reached;
            let (why, interrupted) = match turn {
                Turn::Done(trained, harvested) => {
                    drop(successor);
                    let leftover = self.finish_with(Some(&agent), &taken).await;
                    let leftover = leftover.inspect_err(|error| error!("{}", error.render())).err();
                    let (cost, lost) = (self.bill().cost(), self.clock().lost);
                    return Ok((Trained { lost, cost, leftover, ..*trained }, harvested));
                }
                Turn::Taken(why) => {
                    // The other pipe does not know of the machine that was asked for ahead of time.
                    if let Some(next) = successor.had()
                        && let Err(error) = self.end(&next.machine).await
                    {
                        warn!("{}", error.render());
                    }
                    return Err(taken_over(why));
                }
                Turn::Failed(error) => {
                    drop(successor);
                    self.give_up(&taken, Some(&agent)).await;
                    return Err(self.rescue(error));
                }
                Turn::Interrupted(why) => (Error::new(why), true),
                Turn::Lost(why) => (why, false),
            };
            warn!("the machine was {}: {}", if interrupted { "interrupted" } else { "lost" }, chain(&why));
            self.account_for(&machine, interrupted);
            if let Err(error) = self.may_go_on(restarts, why) {
                drop(successor);
                self.give_up(&taken, None).await;
                return Err(self.rescue(error));
            }
            restarts += 1;
            info!("starting again on another one (restart {restarts} of at most {})", self.max_restarts);
            next = self.unless_stopped(self.replace(&machine, interrupted, successor)).await;
        }
    }

    /// The next machine. The lost one is ended meanwhile, unless its provider is about to do that, at its own cost.
    async fn replace(
        &self,
        machine: &Machine,
        interrupted: bool,
        successor: Successor<'_, C>,
    ) -> Result<Reached<C>> {
        let end = async {
            if !interrupted && let Err(error) = self.end(machine).await {
                warn!("{}", error.render());
            }
        };
        let Some(pool) = machine.pool.clone() else {
            // Such a provider has one machine for a run.
            end.await;
            return self.fresh(Vec::new()).await;
        };
        let next = async {
            match successor.arrive().await {
                Some(Ok(had)) => return Ok(had),
                // A quota may have been in the way of two machines at a time; now there is room for one.
                Some(Err(error)) => {
                    warn!(
                        "the machine that was asked for ahead of time was not to be had: {}",
                        chain(&error)
                    );
                }
                None => {}
            }
            self.fresh(vec![pool]).await
        };
        tokio::join!(end, next).1
    }

    async fn unless_stopped(&self, machine: impl Future<Output = Result<Reached<C>>>) -> Result<Reached<C>> {
        tokio::select! {
            machine = machine => machine,
            () = self.shutdown.cancelled() => Err(stopped()),
        }
    }

    /// Books a machine's end, and says what of the training is lost with it.
    fn account_for(&self, machine: &Machine, interrupted: bool) {
        if interrupted {
            self.bill().close(machine, true);
        }
        let Some(started) = self.clock().started.take() else { return };
        let arrived = self.checkpoints.arrived();
        let safe_until = arrived.map_or(started, |arrived| arrived.max(started));
        {
            let mut clock = self.clock();
            clock.before += started.elapsed();
            clock.safe_until = Some(safe_until);
        }
        if arrived.is_some() {
            let again = safe_until.elapsed();
            info!("the newest checkpoint is {} old: so much has to be trained again", in_words(again));
        } else {
            let cost = self.bill().cost().map_or_else(String::new, |cost| format!(", {}", cost.in_words()));
            let trained = in_words(started.elapsed());
            warn!("{trained} of training is lost{cost}: it starts from zero, as there is no checkpoint");
        }
    }

    fn may_go_on(&self, restarts: u32, why: Error) -> Result<()> {
        if restarts == self.max_restarts {
            return Err(Error::new(format!("the machine was lost, after {restarts} restarts"))
                .source(why)
                .kind(Kind::Machine)
                .hint("raise MAX_RESTARTS, or set CHECKPOINTS so that a restart goes on where it was"));
        }
        if self.time_left() < Duration::from_secs(1) {
            return Err(Error::new("the machine was lost, and MAX_RUNTIME is used up")
                .source(why)
                .kind(Kind::Training)
                .hint("raise MAX_RUNTIME, or set CHECKPOINTS so that a restart goes on where it was"));
        }
        if self.is_too_dear() { Err(self.too_dear()) } else { Ok(()) }
    }

    /// What of `MAX_RUNTIME` the training has left: lost machines count.
    fn time_left(&self) -> Duration {
        self.spec.max_runtime.saturating_sub(self.clock().before)
    }

    fn is_too_dear(&self) -> bool {
        let cost = self.bill().cost();
        self.max_cost.zip(cost).is_some_and(|(most, cost)| cost.total() >= most)
    }

    fn too_dear(&self) -> Error {
        let cost = self.bill().cost().map_or_else(String::new, |cost| cost.in_words());
        Error::new(format!("the run was ended because it reached MAX_COST: {cost}"))
            .kind(Kind::Training)
            .hint("raise MAX_COST, and go on from the checkpoint")
    }

    /// Puts the newest checkpoint where the step's artifacts can keep it: what was paid for must not be lost.
    pub(super) fn rescue(&self, error: Error) -> Error {
        match self.checkpoints.rescue(self.clone_dir) {
            Ok(0) => error,
            Ok(count) => error.leaves(format!(
                "the newest checkpoint ({count} files), in the clone; the step's artifacts can keep it for the next run"
            )),
            Err(failed) => error.leaves(format!("no checkpoint: {}", chain(&failed))),
        }
    }

    fn bill(&self) -> RefMut<'_, Bill> {
        self.state.bill.borrow_mut()
    }

    fn clock(&self) -> RefMut<'_, Clock> {
        self.state.clock.borrow_mut()
    }
}

fn taken_over(why: String) -> Error {
    Error::new(why).kind(Kind::Machine).hint("the other run of this step goes on with the training")
}

fn stopped() -> Error {
    Error::new("stopped before the training's outputs were safe").kind(Kind::Stopped)
}

#[cfg(test)]
mod tests;
