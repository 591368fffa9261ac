//! Whether a run may still need what it made.

use super::Sweep;
use super::runners::Registered;
use crate::actions::runner::visit;
use std::time::Duration;
use trainspot_base::error::{Result, chain};
use trainspot_bitbucket::RegistrationStatus;
use trainspot_ec2::{Leftover, LeftoverKind};
use trainspot_protocol::AgentCommand;
use trainspot_protocol::runner_log::Phase;

/// A step may be on its way to a runner that was just told to take none.
const LAST_STEP_GRACE: Duration = Duration::from_secs(10);

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
        let machine = things.iter().find(|thing| thing.what == LeftoverKind::Machine);
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
        let ours = &self.runners.ours;
        let registered = ours.iter().find(|own| Some(&own.runner.name) == machine.runner.as_ref());
        match registered {
            None if !self.runners.are_all(machine.scope.as_deref()) => {
                Life::Unknown("its runner is on a list that this credential may not read".to_owned())
            }
            Some(own) if own.runner.status == RegistrationStatus::Online => {
                match self.is_last_step_of(machine).await {
                    Ok(true) => self.retire(machine, Some(own)).await,
                    Ok(false) => Life::Serving("is online; it goes when it has been idle for long enough"),
                    Err(error) => Life::Unknown(chain(&error)),
                }
            }
            // Bitbucket may not have heard of it for a moment only.
            registered => self.retire(machine, registered).await,
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
        Ok(steps.iter().all(|step| ours(&step.uuid) || step.progress.is_over()))
    }

    /// Has a machine go that is not needed any more. It alone knows whether it has a step.
    async fn retire(&self, machine: &Leftover, own: Option<&Registered>) -> Life {
        let command = if self.dry_run { AgentCommand::Status } else { AgentCommand::Drain };
        if !self.dry_run
            && let Some(own) = own
            && let Err(error) = self.disable(own).await
        {
            tracing::warn!("{}", chain(&error));
        }
        let place = (machine.region.as_str(), machine.id.as_str());
        match visit(self.cloud, place, self.public_ip_url, command).await {
            Ok(runner) if matches!(runner.phase, Phase::Busy(_)) => {
                Life::Serving("has a step; it goes after it")
            }
            Ok(_) => Life::Over,
            Err(error) => {
                tracing::warn!("{}", chain(&error));
                Life::Serving(
                    "cannot be asked whether it has a step; it goes when it has been idle for long enough",
                )
            }
        }
    }

    /// Has Bitbucket give a runner no step any more, and waits until one that was on its way is there.
    async fn disable(&self, own: &Registered) -> Result<()> {
        let Some(bitbucket) = self.bitbucket else { return Ok(()) };
        let is_online = own.runner.status == RegistrationStatus::Online;
        if bitbucket.disable_runner(own.level, &own.runner).await? && is_online {
            tokio::time::sleep(LAST_STEP_GRACE).await;
        }
        Ok(())
    }
}
