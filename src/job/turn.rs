//! One machine's part in the run: the work on it, raced against the machine's loss and the order to stop.

use super::heart::{Heart, Loss};
use super::machines::Reached;
use super::successor::Successor;
use super::{Job, Work, stopped};
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::Instant;
use tracing::{debug, info, warn};
use trainspot_base::clock::stated_instant;
use trainspot_base::error::{Error, Kind, Result, chain};
use trainspot_base::log::progress::in_words;
use trainspot_base::retry::{Attempt, Policy};
use trainspot_compute::Compute;
use trainspot_compute::link::{Agent, AskError, Link};
use trainspot_protocol::{Notice, Status, Wish};

/// The workspace and the model cross a link that may break: a stream that broke off is opened again.
pub(crate) const TRANSFER: Policy = Policy {
    attempts: 3,
    first_wait: Duration::from_secs(1),
    longest_wait: Duration::from_secs(5),
    total: Duration::from_hours(24),
};
/// Before a question that was not answered is asked again.
const AGAIN: Duration = Duration::from_secs(1);
/// How often the run's cost is added up.
const ACCOUNT: Duration = Duration::from_secs(5);
/// How long after `MAX_COST` is reached the work may still end and be brought home. A training has a quarter
/// of a minute to end; the rest is for what it saves to come here, 180 GB at 100 MB/s. Only a machine that
/// does not heed the pipe, or holds it up, takes longer, and the machine must cost no more for that.
const LEAVING_LIMIT: Duration = Duration::from_mins(30);

/// How one machine's part in the run ended.
pub(crate) enum Turn<T> {
    Done(T),
    /// It is done, and the machine stays: it ends itself when it is not needed any more.
    HandedOver(T),
    Failed(Error),
    Lost(Error),
    /// The machine is taken away by its provider, as the machine itself says; what it saved in time is here.
    Interrupted(String),
    /// The provider says that it took the machine.
    Reclaimed(String),
    /// Another pipe took the machine over while this one was silent for long. It is not ours to end any more.
    Taken(String),
}

impl<T> From<Loss> for Turn<T> {
    fn from(loss: Loss) -> Self {
        match loss {
            Loss::Gone(error) => Self::Lost(error),
            Loss::Reclaimed(why) => Self::Reclaimed(why),
            Loss::Taken(why) => Self::Taken(why),
        }
    }
}

impl<'a, C: Compute> Job<'a, C> {
    /// One machine's part. When the machine is about to be taken away, or costs more than another one that
    /// there is now, `successor` gets the next one meanwhile.
    pub(super) async fn turn<'s, W: Work<C>>(
        &'s self,
        work: &W,
        reached: &Reached<C>,
        successor: &mut Successor<'s, C>,
    ) -> Turn<W::Done>
    where
        'a: 's,
    {
        let Reached { machine, agent } = reached;
        let (notice, noticed) = watch::channel(None);
        let (kept, newly_kept) = watch::channel(0);
        let grace = self.order.orphan_grace;
        let heart = Heart { compute: self.compute, machine, agent, grace, work, notice, kept };
        let ask = |notice: &Notice| {
            tell(notice);
            // A limit of the run is told as a notice, too.
            let pool = machine.pool.clone().filter(|_| machine.spot && self.may_restart(work))?;
            info!("asking for the next machine");
            Some(Box::pin(self.fresh(vec![pool])) as _)
        };
        let succeed = async {
            if self.returns_to_spot && !machine.spot {
                successor.go_back_to_spot(newly_kept, agent, || Box::pin(self.spot_now())).await
            } else {
                successor.follow_notice(noticed, ask).await
            }
        };
        tokio::select! {
            loss = heart.beat() => loss.into(),
            never = succeed => match never {},
            error = self.mind_the_limits(work, agent) => Turn::Failed(error),
            done = work.part(self, reached) => match done {
                Ok(turn) => turn,
                // An error while the machine does not answer is the machine's loss, not the work's end.
                Err(error) => match agent.ask(Wish::Beat).await {
                    Ok(_) => Turn::Failed(error),
                    Err(AskError::Lost(lost)) => Turn::Lost(lost.source(error)),
                    Err(AskError::Refused(why)) => Turn::Taken(why),
                },
            },
            () = self.shutdown.cancelled() => Turn::Failed(stopped::<C, W>()),
        }
    }

    /// Lets the work end, with what can be saved, once the run has reached a limit. Returns when there is no
    /// more time even for that.
    async fn mind_the_limits<W: Work<C>>(&self, work: &W, agent: &Agent<C::Link>) -> Error {
        let watch = async {
            loop {
                tokio::time::sleep(ACCOUNT).await;
                if self.reached_limit(work.transfer()).is_some() {
                    self.tell_to_leave(agent).await;
                }
            }
        };
        let last_moment = async {
            let Some(deadline) = self.deadline else { return std::future::pending().await };
            loop {
                // Sooner, once a checkpoint comes that takes longer.
                let left = deadline.until_last_moment(work.transfer());
                if left.is_zero() {
                    return deadline.error();
                }
                tokio::time::sleep(left.min(ACCOUNT)).await;
            }
        };
        tokio::select! {
            never = watch => match never {},
            error = last_moment => error,
            error = self.has_left_too_late() => error,
        }
    }

    /// Waits until the run has been over `MAX_COST` for so long that its machine must be ended as it is.
    async fn has_left_too_late(&self) -> Error {
        let mut since: Option<Instant> = None;
        loop {
            tokio::time::sleep(ACCOUNT).await;
            // A machine that turns out to be free may bring the cost down again.
            since = self.is_too_dear().then(|| since.unwrap_or_else(Instant::now));
            if since.is_some_and(|since| since.elapsed() >= LEAVING_LIMIT) {
                let limit = in_words(LEAVING_LIMIT);
                return self.too_dear().source(format!("the work did not end within {limit} of that"));
            }
        }
    }

    async fn tell_to_leave(&self, agent: &Agent<C::Link>) {
        let why =
            if self.is_too_dear() { "MAX_COST is reached" } else { "the step's max-time is nearly over" };
        if let Err(error) = agent.ask(Wish::Leave(Notice { why: why.to_owned(), at: None })).await {
            debug!("the machine does not hear that {why}: {}", chain(&Error::from(error)));
        }
    }
}

/// An error that has a kind says something of the files, not of the way here: trying again cannot mend it.
pub(crate) fn again<T>(done: Result<T>, number: u32) -> Attempt<T, Error> {
    match done {
        Err(error) if error.exit_kind() == Kind::Unexpected => {
            if number < TRANSFER.attempts {
                warn!("{}; trying again", chain(&error));
            }
            Attempt::Passing(error, None)
        }
        done => Attempt::Final(done),
    }
}

/// Asks until the machine answers. One that does not for long is lost, which ends whoever waits for this.
pub(crate) async fn insist<L: Link>(agent: &Agent<L>, wish: Wish) -> Result<Status> {
    loop {
        match agent.ask(wish.clone()).await {
            Ok(status) => return Ok(status),
            Err(AskError::Refused(why)) => return Err(Error::new(why).kind(Kind::Machine)),
            Err(AskError::Lost(error)) => debug!("asking again: {}", chain(&error)),
        }
        tokio::time::sleep(AGAIN).await;
    }
}

fn tell(notice: &Notice) {
    let left = notice.at.and_then(|at| stated_instant(at).elapsed().err());
    let when = left.map_or_else(String::new, |left| format!(" in {}", in_words(left.duration())));
    warn!("the machine ends{when}: {}; the work goes on until then", notice.why);
}
