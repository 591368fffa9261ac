//! An attempt: the work on one machine, raced against the loss of that machine, the run's limits and the
//! order to stop.

use super::heartbeat::{Heartbeat, Loss};
use super::machines::ConnectedMachine;
use super::successor::Successor;
use super::{Job, Workload, stopped};
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::Instant;
use tracing::{debug, info, warn};
use trainspot_base::clock::stated_instant;
use trainspot_base::error::{Error, Kind, Result, chain};
use trainspot_base::log::progress::in_words;
use trainspot_base::retry::{Attempted, RetryPolicy};
use trainspot_compute::Compute;
use trainspot_compute::link::{Agent, AskError, Link};
use trainspot_protocol::{AgentCommand, AgentStatus, Notice};

/// How often a transfer is tried. The workspace and the model cross a link that may break: a stream that
/// broke off is opened again.
pub(crate) const TRANSFER_RETRY: RetryPolicy = RetryPolicy {
    attempts: 3,
    first_wait: Duration::from_secs(1),
    longest_wait: Duration::from_secs(5),
    total: Duration::from_hours(24),
};
/// The wait before a question that the machine did not answer is asked again.
const ASK_RETRY_WAIT: Duration = Duration::from_secs(1);
/// How often the run's cost is added up.
const COST_CHECK_INTERVAL: Duration = Duration::from_secs(5);
/// How long after `MAX_COST` is reached the work may still end and be brought home. A training has a quarter
/// of a minute to end; the rest is for what it saves to come here, 180 GB at 100 MB/s. Only a machine that
/// does not heed the pipe, or holds it up, takes longer, and the machine must cost no more for that.
const LEAVING_LIMIT: Duration = Duration::from_mins(30);

/// How an attempt, the work on one machine, ended.
pub(crate) enum AttemptEnd<T> {
    /// The work is done.
    Done(T),
    /// The work is done, and the machine stays: the machine ends itself when nobody needs it any more.
    HandedOver(T),
    /// The work failed, or a limit of the run ended it.
    Failed(Error),
    /// The machine is gone, or does not answer.
    MachineLost(Error),
    /// The machine itself says that its provider takes it away; what the work saved in time is on this side.
    Interrupted(String),
    /// The provider says that it took the machine.
    Reclaimed(String),
    /// Another pipe took the machine over while this one was silent for long. It is not ours to end any more.
    TakenOver(String),
}

impl<T> From<Loss> for AttemptEnd<T> {
    fn from(loss: Loss) -> Self {
        match loss {
            Loss::Gone(error) => Self::MachineLost(error),
            Loss::Reclaimed(why) => Self::Reclaimed(why),
            Loss::TakenOver(why) => Self::TakenOver(why),
        }
    }
}

impl<'a, C: Compute> Job<'a, C> {
    /// Does the work on one machine. When that machine is about to be taken away, or costs more than another
    /// one that there is now, `successor` gets the next machine meanwhile.
    pub(super) async fn attempt<'s, W: Workload<C>>(
        &'s self,
        work: &W,
        reached: &ConnectedMachine<C>,
        successor: &mut Successor<'s, C>,
    ) -> AttemptEnd<W::Done>
    where
        'a: 's,
    {
        let ConnectedMachine { machine, agent } = reached;
        let (notice, noticed) = watch::channel(None);
        let (fetched, newly_fetched) = watch::channel(0);
        let grace = self.launch_request.orphan_grace;
        let heartbeat = Heartbeat { compute: self.compute, machine, agent, grace, work, notice, fetched };
        let ask = |notice: &Notice| {
            warn_of_notice(notice);
            // A limit of the run is told as a notice, too.
            let pool = machine.pool.clone().filter(|_| machine.spot && self.may_restart(work))?;
            info!("asking for the next machine");
            Some(Box::pin(self.launch_new(vec![pool])) as _)
        };
        let succeed = async {
            if self.returns_to_spot && !machine.spot {
                successor.go_back_to_spot(newly_fetched, agent, || Box::pin(self.spot_now())).await
            } else {
                successor.follow_notice(noticed, ask).await
            }
        };
        tokio::select! {
            loss = heartbeat.run() => loss.into(),
            never = succeed => match never {},
            error = self.enforce_limits(work, agent) => AttemptEnd::Failed(error),
            done = work.run_on(self, reached) => match done {
                Ok(turn) => turn,
                // An error while the machine does not answer is the machine's loss, not the work's end.
                Err(error) => match agent.ask(AgentCommand::Heartbeat).await {
                    Ok(_) => AttemptEnd::Failed(error),
                    Err(AskError::NoAnswer(lost)) => AttemptEnd::MachineLost(lost.source(error)),
                    Err(AskError::Refused(why)) => AttemptEnd::TakenOver(why),
                },
            },
            () = self.shutdown.cancelled() => AttemptEnd::Failed(stopped::<C, W>()),
        }
    }

    /// Lets the work end, with what can be saved, once the run has reached a limit. Returns when there is no
    /// more time even for that.
    async fn enforce_limits<W: Workload<C>>(&self, work: &W, agent: &Agent<C::Link>) -> Error {
        let watch = async {
            loop {
                tokio::time::sleep(COST_CHECK_INTERVAL).await;
                if self.reached_limit(work.transfer_time()).is_some() {
                    self.tell_to_end(agent).await;
                }
            }
        };
        let last_moment = async {
            let Some(deadline) = self.deadline else { return std::future::pending().await };
            loop {
                // Sooner, once a checkpoint comes that takes longer.
                let left = deadline.until_last_moment(work.transfer_time());
                if left.is_zero() {
                    return deadline.error();
                }
                tokio::time::sleep(left.min(COST_CHECK_INTERVAL)).await;
            }
        };
        tokio::select! {
            never = watch => match never {},
            error = last_moment => error,
            error = self.wait_beyond_max_cost() => error,
        }
    }

    /// Waits until the run has been over `MAX_COST` for so long that its machine must be ended as it is.
    async fn wait_beyond_max_cost(&self) -> Error {
        let mut since: Option<Instant> = None;
        loop {
            tokio::time::sleep(COST_CHECK_INTERVAL).await;
            // A machine that turns out to be free may bring the cost down again.
            since = self.is_over_max_cost().then(|| since.unwrap_or_else(Instant::now));
            if since.is_some_and(|since| since.elapsed() >= LEAVING_LIMIT) {
                let limit = in_words(LEAVING_LIMIT);
                return self.max_cost_error().source(format!("the work did not end within {limit} of that"));
            }
        }
    }

    async fn tell_to_end(&self, agent: &Agent<C::Link>) {
        let why = if self.is_over_max_cost() {
            "MAX_COST is reached"
        } else {
            "the step's max-time is nearly over"
        };
        if let Err(error) =
            agent.ask(AgentCommand::PrepareToEnd(Notice { why: why.to_owned(), at: None })).await
        {
            debug!("the machine does not hear that {why}: {}", chain(&Error::from(error)));
        }
    }
}

/// What the result of transfer `number` means for the next try: only a link that broke, or a machine that
/// could not do it this time, is worth one.
pub(crate) fn judge_transfer<T>(done: Result<T>, number: u32) -> Attempted<T, Error> {
    match done {
        Err(error) if error.is_transient() => {
            if number < TRANSFER_RETRY.attempts {
                warn!("{}; trying again", chain(&error));
            }
            Attempted::Transient(error, None)
        }
        done => Attempted::Final(done),
    }
}

/// Asks until the machine answers. A machine that does not answer for long is lost, which ends the attempt
/// and this wait with it.
pub(crate) async fn ask_until_answered<L: Link>(
    agent: &Agent<L>,
    command: AgentCommand,
) -> Result<AgentStatus> {
    loop {
        match agent.ask(command.clone()).await {
            Ok(status) => return Ok(status),
            Err(AskError::Refused(why)) => return Err(Error::new(why).kind(Kind::Machine)),
            Err(AskError::NoAnswer(error)) => debug!("asking again: {}", chain(&error)),
        }
        tokio::time::sleep(ASK_RETRY_WAIT).await;
    }
}

fn warn_of_notice(notice: &Notice) {
    let left = notice.at.and_then(|at| stated_instant(at).elapsed().err());
    let when = left.map_or_else(String::new, |left| format!(" in {}", in_words(left.duration())));
    warn!("the machine ends{when}: {}; the work goes on until then", notice.why);
}
