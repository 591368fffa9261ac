//! A question to the machine of a runner that another pipe rented.

use crate::job;
use trainspot_base::error::{Error, Result};
use trainspot_compute::link::Agent;
use trainspot_ec2::AwsClients;
use trainspot_protocol::{AgentCommand, RunnerActivity};

/// What a machine's runner is doing, once `command` is granted. `public_ip_url` tells the pipe's own address.
///
/// # Errors
/// The machine cannot be reached, has no runner, or is held by a pipe.
pub(crate) async fn visit(
    cloud: &AwsClients,
    (region, id): (&str, &str),
    public_ip_url: &str,
    command: AgentCommand,
) -> Result<RunnerActivity> {
    let link = cloud.query(region, id, public_ip_url).await?;
    let status = Agent::new(link, &job::owner()).ask(command).await.map_err(Error::from)?;
    status.runner.ok_or_else(|| Error::new(format!("the machine {id} has no runner")))
}
