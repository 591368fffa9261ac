//! `RUNNER_REUSE`: a runner that is there, in the place of a new one.

use super::visit::visit;
use crate::config::runner::Reuse;
use tracing::info;
use trainspot_base::error::{Result, chain};
use trainspot_bitbucket::{NewRunner, RegistrationStatus, RunnerRegistration};
use trainspot_ec2::{AwsClients, RunnerMachine};
use trainspot_protocol::AgentCommand;
use trainspot_protocol::runner_log::Phase;

/// The name of a runner that is online, has at least the labels of `new`, and may be used.
///
/// Bitbucket does not tell whether a runner has a step. The machine does, if it is one of ours.
pub(super) async fn find(
    reuse: Reuse,
    there: &[RunnerRegistration],
    new: &NewRunner,
    (cloud, public_ip_url): (&AwsClients, &str),
) -> Result<Option<String>> {
    if reuse == Reuse::Never {
        return Ok(None);
    }
    let fits = |runner: &&RunnerRegistration| {
        runner.status == RegistrationStatus::Online
            && new.labels().iter().all(|label| runner.labels.contains(label))
    };
    for runner in there.iter().filter(fits) {
        let machine = cloud.machine_of_runner(&runner.name).await?;
        // The pipe that follows a pipeline there ends it.
        let usable = match machine {
            Some(machine) if machine.followed => false,
            Some(machine) if reuse == Reuse::Idle => is_idle(cloud, &machine, public_ip_url).await,
            _ => reuse == Reuse::Any,
        };
        if usable {
            return Ok(Some(runner.name.clone()));
        }
        info!("the runner {} is online, but not known to be free", runner.name);
    }
    Ok(None)
}

async fn is_idle(cloud: &AwsClients, machine: &RunnerMachine, public_ip_url: &str) -> bool {
    let place = (machine.region.as_str(), machine.id.as_str());
    match visit(cloud, place, public_ip_url, AgentCommand::ResetIdleTimer).await {
        Ok(runner) => runner.phase == Phase::Idle && !runner.draining,
        Err(error) => {
            info!("{}", chain(&error));
            false
        }
    }
}
