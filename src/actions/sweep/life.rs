//! Whether a run may still need what it made.

use super::Sweep;
use crate::actions::job;
use crate::agent::protocol::Wish;
use crate::agent::runner_log::Phase;
use crate::bitbucket::{Progress, RunnerStatus};
use crate::compute::ec2::{Left, Leftover};
use crate::error::{Error, Result, chain};
use crate::link::Agent;
use std::time::Duration;

/// A step may be on its way to a runner that was just told to take none.
const SETTLING: Duration = Duration::from_secs(5);

/// Whether a run may still need what it made.
pub(super) enum Life {
    Over,
    Alive,
    /// Its runner is at work, or waits for it: it ends itself, and its machine.
    Serving(&'static str),
    /// It is left alone: a machine ends itself, and what else there is costs nothing.
    Unknown(String),
}

impl Life {
    pub(super) fn in_words(&self) -> String {
        match self {
            Self::Over => "its step is over".to_owned(),
            Self::Alive => "left alone, its step is running".to_owned(),
            Self::Serving(how) => format!("left alone, its runner {how}"),
            Self::Unknown(why) => format!("left alone, as it is not known whether its run is over: {why}"),
        }
    }
}

impl Sweep<'_> {
    /// Of the run that all of these things are of.
    pub(super) async fn life(&self, things: &[&Leftover]) -> Life {
        let life = self.life_of_step(things[0].step.as_ref()).await;
        let machine = things.iter().find(|thing| thing.what == Left::Machine);
        match (life, machine) {
            (Life::Over, Some(machine)) if machine.runner.is_some() && !machine.followed => {
                self.life_of_runner(machine).await
            }
            (life, _) => life,
        }
    }

    async fn life_of_step(&self, step: Option<&(String, String)>) -> Life {
        let Some((pipeline, step)) = step else {
            return Life::Unknown("Pipelines did not run it".to_owned());
        };
        if self.owner.step() == Some(step.as_str()) {
            return Life::Alive;
        }
        let Some(bitbucket) = self.bitbucket else {
            return Life::Unknown("Bitbucket cannot be asked without BITBUCKET_ACCESS_TOKEN".to_owned());
        };
        match bitbucket.step_is_over(pipeline, step).await {
            Ok(Some(true)) => Life::Over,
            Ok(Some(false)) => Life::Alive,
            Ok(None) => Life::Unknown(
                "Bitbucket does not know its step, or does not show it to this credential".to_owned(),
            ),
            Err(error) => Life::Unknown(chain(&error)),
        }
    }

    /// Of a machine that was left to itself as a runner.
    async fn life_of_runner(&self, machine: &Leftover) -> Life {
        let registered = self.runners.iter().find(|own| Some(&own.runner.name) == machine.runner.as_ref());
        match registered.map(|own| &own.runner.status) {
            None | Some(RunnerStatus::Offline | RunnerStatus::Unregistered) => Life::Over,
            Some(RunnerStatus::Online) => match self.is_last_step_of(machine).await {
                Ok(true) => self.retire(machine).await,
                Ok(false) => Life::Serving("is online; it goes when it has been idle for long enough"),
                Err(error) => Life::Unknown(chain(&error)),
            },
            // It takes no further step, but may have one.
            Some(_) => Life::Serving("is about to go"),
        }
    }

    /// Whether this is the last step of the pipeline that rented the machine, such as its `final` one.
    async fn is_last_step_of(&self, machine: &Leftover) -> Result<bool> {
        let (Some(own), Some((pipeline, _)), Some(bitbucket)) =
            (self.owner.pipeline(), machine.step.as_ref(), self.bitbucket)
        else {
            return Ok(false);
        };
        if own != pipeline {
            return Ok(false);
        }
        let steps = bitbucket.steps(&format!("{{{own}}}")).await?;
        let ours = |uuid: &str| Some(uuid.trim_matches(['{', '}'])) == self.owner.step();
        Ok(steps.iter().all(|step| ours(&step.uuid) || matches!(step.progress, Progress::Over(_))))
    }

    /// Tells the machine that its runner is not needed any more. It knows whether that has a step.
    async fn retire(&self, machine: &Leftover) -> Life {
        if self.dry_run {
            return Life::Over;
        }
        match self.has_a_step(machine).await {
            Ok(false) => Life::Over,
            Ok(true) => Life::Serving("has a step; it goes after it"),
            Err(error) => {
                tracing::warn!("{}", chain(&error));
                Life::Serving(
                    "is online, and its machine cannot be asked; it goes when it has been idle for long enough",
                )
            }
        }
    }

    async fn has_a_step(&self, machine: &Leftover) -> Result<bool> {
        let link = self.cloud.visit(&machine.region, &machine.id, self.public_ip_url).await?;
        let agent = Agent::new(link, &job::owner());
        let mut busy = is_busy(&agent, Wish::Retire).await?;
        if !busy {
            tokio::time::sleep(SETTLING).await;
            // One that is gone meanwhile had none.
            busy = is_busy(&agent, Wish::Beat).await.unwrap_or(false);
        }
        Ok(busy)
    }
}

async fn is_busy<L: crate::link::Link>(agent: &Agent<L>, wish: Wish) -> Result<bool> {
    let status = agent.ask(wish).await.map_err(Error::from)?;
    Ok(status.runner.is_some_and(|runner| matches!(runner.phase, Phase::Busy(_))))
}
