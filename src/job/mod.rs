//! A job: a workload from its first machine to its last. Machines are acquired, watched, replaced when they
//! are lost, and ended in every case.

mod attempt;
mod cost_ledger;
mod departures;
mod heartbeat;
mod machines;
mod restarts;
mod successor;

pub(crate) use attempt::{AttemptEnd, TRANSFER_RETRY, ask_until_answered, judge_transfer};
pub(crate) use cost_ledger::{Cost, cost_of};
pub(crate) use machines::ConnectedMachine;

use crate::step::Deadline;
use cost_ledger::CostLedger;
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
use trainspot_compute::{Compute, LaunchRequest, Machine};
use trainspot_protocol::AgentStatus;

/// What machines are rented for.
pub(crate) trait Workload<C: Compute> {
    /// The result of the work.
    type Done;

    /// The error's message where the order to stop comes before the work is done.
    const STOPPED_MESSAGE: &'static str;
    /// What ends a row of restarts, in words; empty for work that is always done again from its beginning.
    const PROGRESS_WORDS: &'static str;
    /// What a user can do about lost machines, besides raising `MAX_RESTARTS`.
    const RESTART_HINT: &'static str;

    /// How long it takes to fetch what the work would leave now.
    fn transfer_time(&self) -> Duration {
        Duration::ZERO
    }

    /// Identifies this work: a machine that was found and has another fingerprint does something else.
    fn fingerprint(&self) -> &str;

    /// Why a machine that was found, but does not do this work, must not be ended; none if it may be ended.
    /// `status` is none where the machine does not answer.
    fn must_not_terminate(&self, status: Option<&AgentStatus>) -> Option<Error>;

    /// Does the work on one machine, to its end. If that machine is lost, this is called for the next one.
    async fn run_on(&self, job: &Job<'_, C>, reached: &ConnectedMachine<C>)
    -> Result<AttemptEnd<Self::Done>>;

    /// Fetches the checkpoint that the machine saved under this number, unless it is here. Returns whether it
    /// was fetched.
    async fn fetch_checkpoint(&self, agent: &Agent<C::Link>, machine: &Machine, number: u64) -> Result<bool>;

    /// Reports what of the work was lost with a machine. `cost` is the run's cost until now, if it is known.
    fn on_machine_lost(&self, cost: Option<Cost>);

    /// How far the work is: a number that changes whenever there is something newer from which the next
    /// machine can go on.
    fn progress(&self) -> u64;

    /// How much of `MAX_RUNTIME` the work has left. The time on lost machines counts.
    fn time_left(&self) -> Duration;

    /// Saves what there is of the work of a run that failed with `error`, and names it in that error.
    fn salvage(&self, error: Error) -> Error;
}

/// The terms on which machines are had for a run.
pub(crate) struct Job<'a, C> {
    pub(crate) compute: &'a C,
    pub(crate) launch_request: LaunchRequest,
    /// The name by which machines know this process.
    pub(crate) owner: String,
    /// The machines that carry the run's name already.
    pub(crate) found: Vec<Machine>,
    /// How often in a row a lost machine is replaced without progress of the work.
    pub(crate) max_restarts: u32,
    /// Whether a machine on demand is left for a spot machine once there is one again. For work that saves
    /// what it has done.
    pub(crate) returns_to_spot: bool,
    /// The limit of the run's cost, in dollars.
    pub(crate) max_cost: Option<f64>,
    /// When Pipelines kills the step, if that is known and ends the work.
    pub(crate) deadline: Option<Deadline>,
    pub(crate) shutdown: &'a CancellationToken,
    pub(crate) state: JobState,
}

/// What a job remembers from one machine to the next.
#[derive(Default)]
pub(crate) struct JobState {
    ledger: RefCell<CostLedger>,
    departures: Departures,
    restarts: Restarts,
    /// Whether another process has the run's machine: then nothing of the run is ours to end.
    taken_over: Cell<bool>,
    /// Whether the step is nearly over, and the work was told to end.
    out_of_time: Cell<bool>,
}

/// A job whose work came to its end.
pub(crate) struct FinishedJob<T> {
    pub(crate) done: T,
    /// The last machine.
    pub(crate) machine: Machine,
    pub(crate) restarts: u32,
    /// The cost of all machines, if all prices are known.
    pub(crate) cost: Option<Cost>,
    /// What could not be ended, to be reported once the work's result is safe.
    pub(crate) leftover: Option<Error>,
}

/// A name for this process, which no other has.
pub(crate) fn owner() -> String {
    format!("{}-{:016x}", std::process::id(), fastrand::u64(..))
}

impl<C: Compute> Job<'_, C> {
    /// Does the work, replacing lost machines. No machine is left, whatever the result, unless the work hands
    /// it over; after a success, what they shared is left to [`Self::delete_run_resources`].
    pub(crate) async fn run<W: Workload<C>>(&self, work: &W) -> Result<FinishedJob<W::Done>> {
        tokio::select! {
            finished = Box::pin(self.run_to_the_end(work)) => finished,
            never = self.watch_departures() => match never {},
        }
    }

    async fn run_to_the_end<W: Workload<C>>(&self, work: &W) -> Result<FinishedJob<W::Done>> {
        let mut machines = self.found.clone();
        let mut next = self.unless_stopped::<W>(self.acquire(work)).await;
        loop {
            let reached = match next {
                Ok(reached) => reached,
                Err(error) => return Err(self.fail(work, error, &machines, None).await),
            };
            if !machines.contains(&reached.machine) {
                machines.push(reached.machine.clone());
            }
            let mut successor = Successor::none();
            let turn = Box::pin(self.attempt(work, &reached, &mut successor)).await;
            let ConnectedMachine { machine, agent } = reached;
            let (why, interrupted) = match turn {
                AttemptEnd::Done(done) => {
                    drop(successor);
                    let leftover = self.end_all_and_verify(Some(&agent), &machines).await;
                    return Ok(self.finished_job(done, machine, leftover));
                }
                AttemptEnd::HandedOver(done) => {
                    drop(successor);
                    machines.retain(|other| other.id != machine.id);
                    let leftover = self.hand_over(&machine, &machines).await;
                    return Ok(self.finished_job(done, machine, leftover));
                }
                AttemptEnd::TakenOver(why) => {
                    // The other pipe does not know of the machine that was asked for ahead of time.
                    let next = successor.into_arrived().map(|next| next.machine);
                    let others: Vec<_> = self.state.departures.machines().into_iter().chain(next).collect();
                    let ended = others.iter().map(|machine| self.in_time(THE_END, self.end(machine)));
                    for error in join_all(ended).await.into_iter().filter_map(Result::err) {
                        warn!("{}", error.render());
                    }
                    self.state.taken_over.set(true);
                    return Err(taken_over_error(why));
                }
                AttemptEnd::Failed(error) => {
                    drop(successor);
                    return Err(self.fail(work, error, &machines, Some(&agent)).await);
                }
                AttemptEnd::Interrupted(why) => {
                    if machine.spot {
                        self.state.departures.add(&machine);
                    }
                    (Error::new(why), true)
                }
                AttemptEnd::Reclaimed(why) => {
                    self.close_account(&machine, machine.spot);
                    (Error::new(why), true)
                }
                AttemptEnd::MachineLost(why) => (why, false),
            };
            let moves = interrupted && successor.is_cheaper();
            // One on demand is never taken away: it is ended as any other that is done with.
            let goes_by_itself = interrupted && machine.spot;
            self.report_loss(work, &why, (interrupted, moves));
            let goes_on = if moves { self.has_room(work, why) } else { self.may_go_on(work, why) };
            if let Err(error) = goes_on {
                drop(successor);
                return Err(self.fail(work, error, &machines, None).await);
            }
            next = self.unless_stopped::<W>(self.replace(&machine, goes_by_itself, successor)).await;
        }
    }

    /// Saves what is on this side, then ends and removes everything: the provider may be slow, and the step
    /// may be killed meanwhile. Returns the error of the run.
    async fn fail<W: Workload<C>>(
        &self,
        work: &W,
        error: Error,
        machines: &[Machine],
        agent: Option<&Agent<C::Link>>,
    ) -> Error {
        let error = work.salvage(error);
        self.abort(machines, agent).await;
        error
    }

    /// Reports that a machine is lost, or left for a cheaper one, and what of the work is lost with it.
    fn report_loss<W: Workload<C>>(&self, work: &W, why: &Error, (interrupted, moves): (bool, bool)) {
        if moves {
            info!("the work moves to the spot machine: {}", chain(why));
        } else {
            warn!("the machine was {}: {}", if interrupted { "interrupted" } else { "lost" }, chain(why));
        }
        work.on_machine_lost(self.ledger().cost());
    }

    fn finished_job<T>(&self, done: T, machine: Machine, leftover: Result<()>) -> FinishedJob<T> {
        let leftover = leftover.inspect_err(|error| error!("{}", error.render())).err();
        let restarts = self.state.restarts.total();
        FinishedJob { done, machine, restarts, cost: self.ledger().cost(), leftover }
    }

    /// Gets the next machine. The lost `machine` is ended meanwhile, unless it `goes_by_itself`: a machine
    /// that its provider ends is not paid for.
    async fn replace(
        &self,
        machine: &Machine,
        goes_by_itself: bool,
        successor: Successor<'_, C>,
    ) -> Result<ConnectedMachine<C>> {
        let end = async {
            if !goes_by_itself && let Err(error) = self.end(machine).await {
                warn!("{}", error.render());
            }
        };
        let Some(pool) = machine.pool.clone() else {
            // Such a provider has one machine for a run.
            end.await;
            return self.launch_new(Vec::new()).await;
        };
        let next = async {
            match successor.wait().await {
                Some(Ok(arrived)) => return Ok(arrived),
                // A quota may have been in the way of two machines at a time; now there is room for one.
                Some(Err(error)) => {
                    warn!(
                        "the machine that was asked for ahead of time was not to be had: {}",
                        chain(&error)
                    );
                }
                None => {}
            }
            self.launch_new(vec![pool]).await
        };
        tokio::join!(end, next).1
    }

    async fn unless_stopped<W: Workload<C>>(
        &self,
        machine: impl Future<Output = Result<ConnectedMachine<C>>>,
    ) -> Result<ConnectedMachine<C>> {
        tokio::select! {
            machine = machine => machine,
            () = self.shutdown.cancelled() => Err(stopped::<C, W>()),
            error = self.step_is_over() => Err(error),
        }
    }

    /// Waits for the moment at which no machine is of use any more, and returns the error that says so.
    async fn step_is_over(&self) -> Error {
        let Some(deadline) = self.deadline else { return std::future::pending().await };
        tokio::time::sleep(deadline.room()).await;
        deadline.error()
    }

    /// Whether the work may be restarted after the loss of a machine, as far as its progress until now tells.
    pub(crate) fn may_restart<W: Workload<C>>(&self, work: &W) -> bool {
        self.state.restarts.may_follow(self.max_restarts, work.progress())
            && self.reached_limit(work.transfer_time()).is_none()
    }

    /// Counts a restart, if there may be another one.
    fn may_go_on<W: Workload<C>>(&self, work: &W, why: Error) -> Result<()> {
        let (restarts, most) = (&self.state.restarts, self.max_restarts);
        if !restarts.may_follow(most, work.progress()) {
            let times = count(restarts.in_a_row(), "restart");
            let what = format!("the machine was lost, after {times}{}", W::PROGRESS_WORDS);
            let hint = format!("raise MAX_RESTARTS{}", W::RESTART_HINT);
            return Err(Error::new(what).source(why).kind(Kind::Machine).hint(hint));
        }
        self.has_room(work, why)?;
        restarts.count();
        let row = format!("{} of at most {most}{}", restarts.in_a_row(), W::PROGRESS_WORDS);
        info!("starting again on another one (restart {}; {row})", restarts.total());
        Ok(())
    }

    /// Whether the limits of the whole run leave anything for another machine.
    fn has_room<W: Workload<C>>(&self, work: &W, why: Error) -> Result<()> {
        if work.time_left() < Duration::from_secs(1) {
            return Err(Error::new("the machine was lost, and MAX_RUNTIME is used up")
                .source(why)
                .kind(Kind::Training)
                .hint(format!("raise MAX_RUNTIME{}", W::RESTART_HINT)));
        }
        self.reached_limit(work.transfer_time()).map_or(Ok(()), Err)
    }

    /// Why the run must end although its work could go on, if it must. `transfer` is how long it takes to
    /// fetch what the work would leave now.
    pub(crate) fn reached_limit(&self, transfer: Duration) -> Option<Error> {
        if self.is_over_max_cost() {
            return Some(self.max_cost_error());
        }
        let deadline = self.deadline.filter(|deadline| deadline.is_last_call(transfer));
        // A checkpoint that comes faster than the one before it does not take the word back.
        self.state.out_of_time.set(self.state.out_of_time.get() || deadline.is_some());
        self.deadline.filter(|_| self.state.out_of_time.get()).map(|deadline| deadline.error())
    }

    /// Whether another pipe has the run's machine: nothing of the run is ours to end.
    pub(crate) fn is_taken_over(&self) -> bool {
        self.state.taken_over.get()
    }

    pub(crate) fn is_over_max_cost(&self) -> bool {
        let cost = self.ledger().cost();
        self.max_cost.zip(cost).is_some_and(|(most, cost)| cost.total() >= most)
    }

    pub(crate) fn max_cost_error(&self) -> Error {
        let cost = self.ledger().cost().map_or_else(String::new, |cost| cost.in_words());
        Error::new(format!("the run was ended because it reached MAX_COST: {cost}"))
            .kind(Kind::Training)
            .hint("raise MAX_COST")
    }

    fn ledger(&self) -> RefMut<'_, CostLedger> {
        self.state.ledger.borrow_mut()
    }
}

fn taken_over_error(why: String) -> Error {
    Error::new(why).kind(Kind::Machine).hint("the other run of this step goes on with it")
}

fn stopped<C: Compute, W: Workload<C>>() -> Error {
    Error::new(W::STOPPED_MESSAGE).kind(Kind::Stopped)
}

// Beside the other tests, where it is looked for; in this module, whose decisions it replays.
#[cfg(test)]
#[cfg(feature = "aws")]
#[path = "../../test/bill/mod.rs"]
mod bill_replay;
#[cfg(test)]
mod tests;
