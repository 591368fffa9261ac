//! One machine's part in the run: the training on it, raced against the machine's loss and the order to stop.

use super::heart::{Heart, Loss};
use super::machines::{Reached, Successor};
use super::{Job, Trained, screen, stopped};
use crate::agent::protocol::{Exit, How, Notice, State, Wish};
use crate::compute::Compute;
use crate::error::{Error, Kind, Result, chain};
use crate::link::{Agent, AskError};
use crate::log::progress::in_words;
use crate::retry::{Attempt, Policy, retry};
use crate::transfer::find;
use std::time::{Duration, UNIX_EPOCH};
use tokio::sync::watch;
use tokio::time::Instant;
use tracing::{debug, info, warn};

/// The workspace and the model cross a link that may break: a stream that broke off is opened again.
const TRANSFER: Policy = Policy {
    attempts: 3,
    first_wait: Duration::from_secs(1),
    longest_wait: Duration::from_secs(5),
    total: Duration::from_hours(24),
};
/// How often the run's cost is added up.
const ACCOUNT: Duration = Duration::from_secs(5);

/// How one machine's part in the run ended.
pub(super) enum Turn<T> {
    Done(Box<Trained>, T),
    Failed(Error),
    Lost(Error),
    /// The machine is taken away by its provider; the last checkpoint that it made in time is here.
    Interrupted(String),
    /// Another pipe took the machine over while this one was silent for long. It is not ours to end any more.
    Taken(String),
}

impl<T> From<Loss> for Turn<T> {
    fn from(loss: Loss) -> Self {
        match loss {
            Loss::Gone(error) => Self::Lost(error),
            Loss::Reclaimed(why) => Self::Interrupted(why),
            Loss::Taken(why) => Self::Taken(why),
        }
    }
}

impl<'a, C: Compute> Job<'a, C> {
    /// One machine's part. When the machine is about to be taken away, `successor` gets the next one meanwhile.
    pub(super) async fn turn<'s, T>(
        &'s self,
        reached: &Reached<C>,
        successor: &mut Successor<'s, C>,
        restarts: u32,
        harvest: &impl AsyncFn(&Agent<C::Link>, &Trained) -> Result<T>,
    ) -> Turn<T>
    where
        'a: 's,
    {
        let Reached { machine, agent } = reached;
        let (notice, noticed) = watch::channel(None);
        let heart = Heart {
            compute: self.compute,
            machine,
            agent,
            grace: self.order.orphan_grace,
            checkpoints: &self.checkpoints,
            notice,
        };
        let ask = |notice: &Notice| {
            tell(notice);
            // MAX_COST is told as a notice, too.
            let pool = machine
                .pool
                .clone()
                .filter(|_| machine.spot && restarts < self.max_restarts && !self.is_too_dear())?;
            info!("asking for the next machine");
            Some(Box::pin(self.fresh(vec![pool])) as _)
        };
        tokio::select! {
            loss = heart.beat() => loss.into(),
            never = successor.drive(noticed.clone(), ask) => match never {},
            never = self.mind_the_cost(agent) => match never {},
            done = self.story(reached, restarts, harvest) => match done {
                Ok(turn) => turn,
                // An error while the machine does not answer is the machine's loss, not the story's end.
                Err(error) => match agent.ask(Wish::Beat).await {
                    Ok(_) => Turn::Failed(error),
                    Err(AskError::Lost(lost)) => Turn::Lost(lost.source(error)),
                    Err(AskError::Refused(why)) => Turn::Taken(why),
                },
            },
            () = self.shutdown.cancelled() => Turn::Failed(stopped()),
        }
    }

    async fn story<T>(
        &self,
        reached: &Reached<C>,
        restarts: u32,
        harvest: &impl AsyncFn(&Agent<C::Link>, &Trained) -> Result<T>,
    ) -> Result<Turn<T>> {
        let Reached { machine, agent } = reached;
        self.start(agent).await?;
        let (exit, tail) = screen::until_the_end(agent, self.spec.max_runtime).await?;
        if exit.how == How::Interrupted {
            return self.interrupted(reached, &exit).await;
        }
        let took = self.clock().before + Duration::from_secs_f64(exit.seconds);
        let trained = Trained {
            exit,
            tail,
            machine: machine.clone(),
            restarts,
            took,
            lost: Duration::ZERO,
            cost: None,
            leftover: None,
        };
        let harvested = retry(TRANSFER, async |number| again(harvest(agent, &trained).await, number)).await?;
        Ok(Turn::Done(Box::new(trained), harvested))
    }

    /// Brings the last checkpoint home, which the machine made after the training.
    async fn interrupted<T>(&self, reached: &Reached<C>, exit: &Exit) -> Result<Turn<T>> {
        let Reached { machine, agent } = reached;
        let status = agent.ask(Wish::Beat).await?;
        if let Some(number) = status.checkpoint {
            let keep =
                async |attempt| again(self.checkpoints.keep(agent, &machine.id, number).await, attempt);
            // An earlier one is there, perhaps, and so is the next machine.
            if let Err(error) = retry(TRANSFER, keep).await {
                warn!("the last checkpoint could not be brought home: {}", chain(&error));
            }
        }
        if self.is_too_dear() {
            return Ok(Turn::Failed(self.too_dear()));
        }
        let why = status.notice.map_or_else(|| "its provider takes it away".to_owned(), |notice| notice.why);
        Ok(Turn::Interrupted(format!(
            "{why}, after {} of training",
            in_words(Duration::from_secs_f64(exit.seconds))
        )))
    }

    /// Sends the workspace and the newest checkpoint, and starts the training, unless it was started before.
    async fn start(&self, agent: &Agent<C::Link>) -> Result<()> {
        retry(TRANSFER, async |number| again(self.start_once(agent).await, number)).await
    }

    async fn start_once(&self, agent: &Agent<C::Link>) -> Result<()> {
        if agent.ask(Wish::Beat).await?.state != State::Idle {
            self.clock().started.get_or_insert_with(Instant::now);
            return Ok(());
        }
        let start = Instant::now();
        agent.send(self.clone_dir, self.workspace.clone(), "sending the workspace").await?;
        let seconds = start.elapsed().as_secs_f64();
        info!("sent the workspace: {} files ({seconds:.1} s)", self.workspace.len());
        let mut spec = self.spec.clone();
        if let Some(folder) = self.checkpoints.newest() {
            let entries = find(&folder, &["**".to_owned()])?.files;
            agent.send(&folder, entries, "restoring the checkpoint").await?;
            spec.resume = true;
            info!("restored the newest checkpoint; the training goes on with TRAINSPOT_RESUME=1");
        }
        spec.max_runtime = self.time_left();
        agent.ask(Wish::Start(Box::new(spec))).await?;
        let mut clock = self.clock();
        clock.started = Some(Instant::now());
        if let Some(safe) = clock.safe_until.take() {
            clock.lost += safe.elapsed();
        }
        info!("training started");
        Ok(())
    }

    /// Lets the training end, with a last checkpoint, once the run has cost what it may. Never returns.
    async fn mind_the_cost(&self, agent: &Agent<C::Link>) -> std::convert::Infallible {
        loop {
            tokio::time::sleep(ACCOUNT).await;
            if self.is_too_dear() {
                let notice = Notice { why: "MAX_COST is reached".to_owned(), at: None };
                if let Err(error) = agent.ask(Wish::Leave(notice)).await {
                    debug!(
                        "the machine does not hear that MAX_COST is reached: {}",
                        chain(&Error::from(error))
                    );
                }
            }
        }
    }
}

/// An error that has a kind says something of the files, not of the way here: trying again cannot mend it.
fn again<T>(done: Result<T>, number: u32) -> Attempt<T, Error> {
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

fn tell(notice: &Notice) {
    let left = notice.at.and_then(|at| (UNIX_EPOCH + Duration::from_secs(at)).elapsed().err());
    let when = left.map_or_else(String::new, |left| format!(" in {}", in_words(left.duration())));
    warn!("the machine ends{when}: {}; the training goes on until then", notice.why);
}
