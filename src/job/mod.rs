//! A piece of work from its first machine to its last: got, watched, replaced when it is lost, and ended in
//! every case.

mod bill;
mod departures;
mod heart;
mod machines;
mod restarts;
mod successor;
mod turn;

pub(crate) use bill::Cost;
pub(crate) use machines::Reached;
pub(crate) use turn::{TRANSFER, Turn, again, insist};

use crate::step::Deadline;
use bill::Bill;
use departures::Departures;
use futures_util::future::join_all;
use machines::THE_END;
use restarts::Restarts;
use std::cell::{Cell, RefCell, RefMut};
use std::time::Duration;
use successor::Successor;
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};
use trainspot_base::error::{Error, Kind, Result, chain};
use trainspot_base::log::count;
use trainspot_compute::link::Agent;
use trainspot_compute::{Compute, Machine, Order};
use trainspot_protocol::Status;

/// What machines are rented for.
pub(crate) trait Work<C: Compute> {
    /// What comes of it.
    type Done;

    /// What it is to be stopped before it is done.
    const STOPPED: &'static str;
    /// What ends a row of restarts, in words; nothing for work that is always done again from its beginning.
    const PROGRESS: &'static str;
    /// What to do about lost machines, after the advice to raise `MAX_RESTARTS`.
    const ADVICE: &'static str;

    /// How long it takes to bring home what the work would leave now.
    fn transfer(&self) -> Duration {
        Duration::ZERO
    }

    /// Tells whether what a machine does that was found is this work.
    fn fingerprint(&self) -> &str;

    /// Why a machine that was found, but does not do this work, must not be ended; `status` is none where it
    /// does not answer.
    fn spares(&self, status: Option<&Status>) -> Option<Error>;

    /// One machine's part in it, to its end. The next machine gets its own part, if this one is lost.
    async fn part(&self, job: &Job<'_, C>, reached: &Reached<C>) -> Result<Turn<Self::Done>>;

    /// Brings to this side what the machine has saved under this number, unless it is here. Tells whether it
    /// was brought.
    async fn keep(&self, agent: &Agent<C::Link>, machine: &Machine, number: u64) -> Result<bool>;

    /// Says what of the work was lost with a machine. `cost` is the run's until now, if it is known.
    fn lose(&self, cost: Option<Cost>);

    /// How far the work is: another number whenever there is something newer from which the next machine can
    /// go on.
    fn progress(&self) -> u64;

    /// What of `MAX_RUNTIME` the work has left: lost machines count.
    fn time_left(&self) -> Duration;

    /// Saves from a run that has failed what was paid for.
    fn rescue(&self, error: Error) -> Error;
}

/// How machines are had for a run, and who it is.
pub(crate) struct Job<'a, C> {
    pub(crate) compute: &'a C,
    pub(crate) order: Order,
    /// By which this process is known to machines.
    pub(crate) owner: String,
    /// The machines that carry the run's name already.
    pub(crate) found: Vec<Machine>,
    /// In a row, without progress of the work.
    pub(crate) max_restarts: u32,
    /// Whether a machine on demand is left for a spot one when there is one again. For work that saves what
    /// it has done.
    pub(crate) returns_to_spot: bool,
    /// In dollars.
    pub(crate) max_cost: Option<f64>,
    /// When Pipelines kills the step, if that is known and ends the work.
    pub(crate) deadline: Option<Deadline>,
    pub(crate) shutdown: &'a CancellationToken,
    pub(crate) state: State,
}

/// What a job remembers from one machine to the next.
#[derive(Default)]
pub(crate) struct State {
    bill: RefCell<Bill>,
    departures: Departures,
    restarts: Restarts,
    /// The run's machine is another process's: nothing of it is ours to end.
    theirs: Cell<bool>,
    /// The step is nearly over, and the work was told to end.
    out_of_time: Cell<bool>,
}

/// A piece of work that came to its end.
pub(crate) struct Finished<T> {
    pub(crate) done: T,
    /// The last machine.
    pub(crate) machine: Machine,
    pub(crate) restarts: u32,
    /// Of all machines, if all prices are known.
    pub(crate) cost: Option<Cost>,
    /// Something could not be ended: to be told when what was done is safe.
    pub(crate) leftover: Option<Error>,
}

/// A name for this process, which no other has.
pub(crate) fn owner() -> String {
    format!("{}-{:016x}", std::process::id(), fastrand::u64(..))
}

impl<C: Compute> Job<'_, C> {
    /// Does the work, replacing lost machines. No machine is left, whatever the result, unless the work hands
    /// it over; after a success, what they shared is left to [`Self::clean`].
    pub(crate) async fn run<W: Work<C>>(&self, work: &W) -> Result<Finished<W::Done>> {
        tokio::select! {
            finished = Box::pin(self.run_to_the_end(work)) => finished,
            never = self.watch_departures() => match never {},
        }
    }

    async fn run_to_the_end<W: Work<C>>(&self, work: &W) -> Result<Finished<W::Done>> {
        let mut taken = self.found.clone();
        let mut next = self.unless_stopped::<W>(self.obtain(work)).await;
        loop {
            let reached = match next {
                Ok(reached) => reached,
                Err(error) => return Err(self.fail(work, error, &taken, None).await),
            };
            if !taken.contains(&reached.machine) {
                taken.push(reached.machine.clone());
            }
            let mut successor = Successor::none();
            let turn = Box::pin(self.turn(work, &reached, &mut successor)).await;
            let Reached { machine, agent } = reached;
            let (why, interrupted) = match turn {
                Turn::Done(done) => {
                    drop(successor);
                    let leftover = self.finish_with(Some(&agent), &taken).await;
                    return Ok(self.finished(done, machine, leftover));
                }
                Turn::HandedOver(done) => {
                    drop(successor);
                    taken.retain(|other| other.id != machine.id);
                    let leftover = self.hand_over(&machine, &taken).await;
                    return Ok(self.finished(done, machine, leftover));
                }
                Turn::Taken(why) => {
                    // The other pipe does not know of the machine that was asked for ahead of time.
                    let next = successor.had().map(|next| next.machine);
                    let others: Vec<_> = self.state.departures.machines().into_iter().chain(next).collect();
                    let ended = others.iter().map(|machine| self.in_time(THE_END, self.end(machine)));
                    for error in join_all(ended).await.into_iter().filter_map(Result::err) {
                        warn!("{}", error.render());
                    }
                    self.state.theirs.set(true);
                    return Err(taken_over(why));
                }
                Turn::Failed(error) => {
                    drop(successor);
                    return Err(self.fail(work, error, &taken, Some(&agent)).await);
                }
                Turn::Interrupted(why) => {
                    if machine.spot {
                        self.state.departures.expect(&machine);
                    }
                    (Error::new(why), true)
                }
                Turn::Reclaimed(why) => {
                    self.close_account(&machine, machine.spot);
                    (Error::new(why), true)
                }
                Turn::Lost(why) => (why, false),
            };
            let moves = interrupted && successor.is_cheaper();
            // One on demand is never taken away: it is ended as any other that is done with.
            let goes_by_itself = interrupted && machine.spot;
            self.tell_of_the_loss(work, &why, (interrupted, moves));
            let goes_on = if moves { self.has_room(work, why) } else { self.may_go_on(work, why) };
            if let Err(error) = goes_on {
                drop(successor);
                return Err(self.fail(work, error, &taken, None).await);
            }
            next = self.unless_stopped::<W>(self.replace(&machine, goes_by_itself, successor)).await;
        }
    }

    /// Saves what is on this side, then ends and removes everything: the provider may be slow, and the step
    /// may be killed meanwhile. Returns the error of the run.
    async fn fail<W: Work<C>>(
        &self,
        work: &W,
        error: Error,
        taken: &[Machine],
        agent: Option<&Agent<C::Link>>,
    ) -> Error {
        let error = work.rescue(error);
        self.give_up(taken, agent).await;
        error
    }

    /// Says that a machine is lost, or left for a cheaper one, and what of the work with it.
    fn tell_of_the_loss<W: Work<C>>(&self, work: &W, why: &Error, (interrupted, moves): (bool, bool)) {
        if moves {
            info!("the work moves to the spot machine: {}", chain(why));
        } else {
            warn!("the machine was {}: {}", if interrupted { "interrupted" } else { "lost" }, chain(why));
        }
        work.lose(self.bill().cost());
    }

    fn finished<T>(&self, done: T, machine: Machine, leftover: Result<()>) -> Finished<T> {
        let leftover = leftover.inspect_err(|error| error!("{}", error.render())).err();
        let restarts = self.state.restarts.total();
        Finished { done, machine, restarts, cost: self.bill().cost(), leftover }
    }

    /// The next machine. The lost one is ended meanwhile, unless it `goes_by_itself`: what its provider ends
    /// is not paid for.
    async fn replace(
        &self,
        machine: &Machine,
        goes_by_itself: bool,
        successor: Successor<'_, C>,
    ) -> Result<Reached<C>> {
        let end = async {
            if !goes_by_itself && let Err(error) = self.end(machine).await {
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

    async fn unless_stopped<W: Work<C>>(
        &self,
        machine: impl Future<Output = Result<Reached<C>>>,
    ) -> Result<Reached<C>> {
        tokio::select! {
            machine = machine => machine,
            () = self.shutdown.cancelled() => Err(stopped::<C, W>()),
            error = self.step_is_over() => Err(error),
        }
    }

    /// Waits for the moment at which no machine is of use any more, and says so.
    async fn step_is_over(&self) -> Error {
        let Some(deadline) = self.deadline else { return std::future::pending().await };
        tokio::time::sleep(deadline.room()).await;
        deadline.error()
    }

    /// Whether the work may be restarted after the loss of a machine, as far as its progress until now tells.
    pub(crate) fn may_restart<W: Work<C>>(&self, work: &W) -> bool {
        self.state.restarts.may_follow(self.max_restarts, work.progress())
            && self.reached_limit(work.transfer()).is_none()
    }

    /// Counts a restart, if there may be another one.
    fn may_go_on<W: Work<C>>(&self, work: &W, why: Error) -> Result<()> {
        let (restarts, most) = (&self.state.restarts, self.max_restarts);
        if !restarts.may_follow(most, work.progress()) {
            let times = count(restarts.in_a_row(), "restart");
            let what = format!("the machine was lost, after {times}{}", W::PROGRESS);
            let hint = format!("raise MAX_RESTARTS{}", W::ADVICE);
            return Err(Error::new(what).source(why).kind(Kind::Machine).hint(hint));
        }
        self.has_room(work, why)?;
        restarts.count();
        let row = format!("{} of at most {most}{}", restarts.in_a_row(), W::PROGRESS);
        info!("starting again on another one (restart {}; {row})", restarts.total());
        Ok(())
    }

    /// Whether the limits of the whole run leave anything for another machine.
    fn has_room<W: Work<C>>(&self, work: &W, why: Error) -> Result<()> {
        if work.time_left() < Duration::from_secs(1) {
            return Err(Error::new("the machine was lost, and MAX_RUNTIME is used up")
                .source(why)
                .kind(Kind::Training)
                .hint(format!("raise MAX_RUNTIME{}", W::ADVICE)));
        }
        self.reached_limit(work.transfer()).map_or(Ok(()), Err)
    }

    /// Why the run must end although its work could go on, if it must.
    /// `transfer` is how long it takes to bring home what the work would leave now.
    pub(crate) fn reached_limit(&self, transfer: Duration) -> Option<Error> {
        if self.is_too_dear() {
            return Some(self.too_dear());
        }
        let deadline = self.deadline.filter(|deadline| deadline.is_last_call(transfer));
        // A checkpoint that comes faster than the one before it does not take the word back.
        self.state.out_of_time.set(self.state.out_of_time.get() || deadline.is_some());
        self.deadline.filter(|_| self.state.out_of_time.get()).map(|deadline| deadline.error())
    }

    /// Whether another pipe has the run's machine: nothing of the run is ours to end.
    pub(crate) fn is_theirs(&self) -> bool {
        self.state.theirs.get()
    }

    pub(crate) fn is_too_dear(&self) -> bool {
        let cost = self.bill().cost();
        self.max_cost.zip(cost).is_some_and(|(most, cost)| cost.total() >= most)
    }

    pub(crate) fn too_dear(&self) -> Error {
        let cost = self.bill().cost().map_or_else(String::new, |cost| cost.in_words());
        Error::new(format!("the run was ended because it reached MAX_COST: {cost}"))
            .kind(Kind::Training)
            .hint("raise MAX_COST")
    }

    fn bill(&self) -> RefMut<'_, Bill> {
        self.state.bill.borrow_mut()
    }
}

fn taken_over(why: String) -> Error {
    Error::new(why).kind(Kind::Machine).hint("the other run of this step goes on with it")
}

fn stopped<C: Compute, W: Work<C>>() -> Error {
    Error::new(W::STOPPED).kind(Kind::Stopped)
}

// Beside the other tests, where it is looked for; in this module, whose decisions it replays.
#[cfg(test)]
#[cfg(feature = "aws")]
#[path = "../../test/bill/mod.rs"]
mod bill_replay;
#[cfg(test)]
mod tests;
