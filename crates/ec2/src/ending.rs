//! Ends machines, confirms their end, and removes the resources of their run.

use super::client::AwsClients;
use super::failure::{AwsError, ErrorClass, call};
use super::machines::{self, Ec2Instance, LEFTOVER_STATES, MachineState, UNKNOWN_AFTER_LAUNCH};
use super::pools::CapacityType;
use super::tags::{HOST_KEY_TAG, RUN_TAG, tag_filter};
use super::{group, template};
use futures_util::future::join_all;
use std::time::Duration;
use tokio::time::{Instant, sleep};
use tracing::debug;
use trainspot_base::error::{Error, Kind, Result};
use trainspot_compute::RunId;

/// How long to wait for a machine's end, while its outputs wait to be published: it ends itself, too.
const END_TIMEOUT: Duration = Duration::from_mins(2);
/// The first wait between two looks at a machine or a group that is ending; doubled each time.
const FIRST_POLL_WAIT: Duration = Duration::from_secs(1);
const LONGEST_POLL_WAIT: Duration = Duration::from_secs(10);
/// The codes with which a partition without `SkipOsShutdown` may refuse it.
const UNKNOWN_PARAMETER_CODES: &[&str] = &[
    "UnknownParameter",
    "InvalidParameter",
    "InvalidParameterCombination",
    "InvalidParameterValue",
    "UnsupportedOperation",
];
/// A group is in use until the interface of the last machine is gone.
const IN_USE_CODES: &[&str] = &["DependencyViolation", "InvalidGroup.InUse"];

/// Ends a machine, and returns once it shuts down: then it does not come back and is no longer paid for,
/// while a large machine takes minutes to be gone.
pub(super) async fn terminate(clients: &AwsClients, region: &str, id: &str) -> Result<()> {
    let start = Instant::now();
    let (mut ordered, mut known) = (false, false);
    let mut poll_wait = FIRST_POLL_WAIT;
    loop {
        let step = async {
            // Ordered anew until the machine shuts down: a lost order looks like a slow one.
            if !ordered {
                known |= order_end(clients, region, id).await?;
                ordered = true;
            }
            machines::describe(clients, region, id).await
        };
        let answer = step.await;
        known |= matches!(answer, Ok(Some(_)));
        let last: Option<AwsError> = match answer {
            // The machine ended long ago, or is so new that EC2 does not know it yet.
            Ok(None) if known || start.elapsed() > UNKNOWN_AFTER_LAUNCH => return Ok(()),
            Ok(None) => {
                ordered = false;
                None
            }
            Ok(Some(instance)) => match instance.state {
                MachineState::Terminated | MachineState::ShuttingDown => return Ok(()),
                MachineState::Pending | MachineState::Running | MachineState::Stopped => {
                    ordered = false;
                    None
                }
            },
            Err(failure) if failure.class() == ErrorClass::Transient => Some(failure),
            Err(failure) => return Err(with_leftover_machine(Error::from(failure), region, id)),
        };
        if start.elapsed() > END_TIMEOUT {
            let error =
                Error::new(format!("the machine {id} did not end within {} s", END_TIMEOUT.as_secs()));
            let error = error.kind(Kind::Machine);
            return Err(with_leftover_machine(last.map_or(error, Error::from), region, id));
        }
        if let Some(failure) = last {
            debug!("the machine {id} is not known to end yet: {failure}");
        }
        sleep(poll_wait).await;
        poll_wait = (poll_wait * 2).min(LONGEST_POLL_WAIT);
    }
}

/// Orders a machine's end, and returns whether EC2 knows the machine. Of an unknown one, later descriptions
/// tell whether it is gone or too new.
async fn order_end(clients: &AwsClients, region: &str, id: &str) -> Result<bool, AwsError> {
    let client = clients.ec2(region);
    let what = format!("cannot end the machine {id}");
    let order_end = async |skip_os_shutdown: bool| {
        call("ec2:TerminateInstances", &what, async || {
            let request = client.terminate_instances().instance_ids(id);
            // `false` is not sent: a partition that does not know the parameter may refuse it.
            let skip = skip_os_shutdown.then_some(true);
            request.set_skip_os_shutdown(skip).send().await?;
            Ok(())
        })
        .await
    };
    // Nothing on the machine is needed any more. A clean shutdown would take seconds at best, and EC2 waits
    // minutes for one that hangs, with the security group in use all that time.
    let ordered = match order_end(true).await {
        Err(failure) if failure.is(UNKNOWN_PARAMETER_CODES) => order_end(false).await,
        ordered => ordered,
    };
    match ordered {
        Err(failure) if failure.class() == ErrorClass::NotFound => Ok(false),
        ordered => ordered.map(|()| true),
    }
}

fn with_leftover_machine(error: Error, region: &str, id: &str) -> Error {
    error.leaves(format!(
        "machine {id}; end it by: aws ec2 terminate-instances --region {region} --instance-ids {id}"
    ))
}

/// Which of a run's machines a cleanup ends.
#[derive(Clone, Copy, Debug)]
pub(super) enum CleanupScope<'a> {
    /// All machines of the run.
    WholeRun,
    /// The machines that carry this host key. If others remain, the resources that they share are left.
    ThisProcess(&'a str),
}

/// Removes the resources of a run, and ends its machines in `scope`, such as one whose launch was not
/// answered.
pub(super) async fn delete_run_resources(
    clients: &AwsClients,
    run: &RunId,
    scope: CleanupScope<'_>,
) -> Result<()> {
    let cleaned =
        join_all(clients.regions().map(|region| delete_in_region(clients, region, run, scope))).await;
    let errors: Vec<Error> = cleaned.into_iter().flatten().collect();
    Error::all("cannot remove all that was made for the run", errors)
        .map_err(|error| error.kind(Kind::Machine))
}

/// Removes the resources of a run in a region, and returns an error for each that could not be removed.
pub(super) async fn delete_in_region(
    clients: &AwsClients,
    region: &str,
    run: &RunId,
    scope: CleanupScope<'_>,
) -> Vec<Error> {
    let mut errors = match machines::find_by_run(clients, region, run, &LEFTOVER_STATES).await {
        // Where the account may not even list machines, it has not launched any.
        Err(failure) if failure.is_region_inaccessible() && !clients.is_first(region) => return Vec::new(),
        Err(failure) => {
            let list = format!(
                "perhaps machines in {region}: aws ec2 describe-instances --region {region} --filters Name=tag:{RUN_TAG},Values={run}"
            );
            vec![Error::from(failure).leaves(list)]
        }
        Ok(instances) => {
            let going = |instance: &&Ec2Instance| instance.state != MachineState::ShuttingDown;
            let (ours, others): (Vec<&Ec2Instance>, Vec<&Ec2Instance>) =
                instances.iter().filter(going).partition(|instance| scope.covers(instance));
            let ended = join_all(ours.iter().map(|instance| terminate(clients, region, &instance.id))).await;
            let errors = ended.into_iter().filter_map(Result::err).collect();
            if others.is_empty() { errors } else { return errors }
        }
    };
    // A group stays in use as long as a machine that cannot be ended.
    let patience = if errors.is_empty() { END_TIMEOUT } else { Duration::ZERO };
    let groups = remove_groups(clients, region, run, patience);
    let (groups, templates) = tokio::join!(groups, remove_templates(clients, region, run));
    errors.extend(groups.into_iter().chain(templates));
    errors
}

impl CleanupScope<'_> {
    fn covers(self, instance: &Ec2Instance) -> bool {
        match self {
            Self::WholeRun => true,
            Self::ThisProcess(key) => instance.tag(HOST_KEY_TAG) == Some(key),
        }
    }
}

/// Removes a run's launch templates in every region: a machine that is there does not need its own.
pub(super) async fn remove_all_templates(clients: &AwsClients, run: &RunId) -> Result<()> {
    let removed = join_all(clients.regions().map(|region| remove_templates(clients, region, run))).await;
    Error::all("cannot remove the run's launch templates", removed.into_iter().flatten().collect())
        .map_err(|error| error.kind(Kind::Machine))
}

async fn remove_templates(clients: &AwsClients, region: &str, run: &RunId) -> Vec<Error> {
    let way = |how: &str| format!("aws ec2 delete-launch-template --region {region} --launch-template-{how}");
    let found = match template::find_by_tag(clients, region, tag_filter(RUN_TAG, &run.to_string())).await {
        Ok(found) => found,
        Err(failure) => {
            let names =
                [CapacityType::Spot, CapacityType::OnDemand].map(|capacity| template::name(run, capacity));
            let perhaps = names
                .map(|name| format!("perhaps the launch template {name}: {}", way(&format!("name {name}"))));
            return vec![perhaps.into_iter().fold(Error::from(failure), Error::leaves)];
        }
    };
    let removed = found.iter().filter_map(|template| template.launch_template_id()).map(async |id| {
        let left = || format!("launch template {id}: {}", way(&format!("id {id}")));
        template::remove(clients, region, id).await.map_err(|failure| Error::from(failure).leaves(left()))
    });
    join_all(removed).await.into_iter().filter_map(Result::err).collect()
}

async fn remove_groups(clients: &AwsClients, region: &str, run: &RunId, patience: Duration) -> Vec<Error> {
    let found = match group::find_by_tag(clients, region, tag_filter(RUN_TAG, &run.to_string())).await {
        Ok(found) => found,
        Err(failure) => {
            let name = group::run_resource_name(run);
            let perhaps = format!(
                "perhaps the security group {name}: aws ec2 delete-security-group --region {region} --group-name {name}"
            );
            return vec![Error::from(failure).leaves(perhaps)];
        }
    };
    let ids = found.iter().filter_map(|group| group.group_id());
    join_all(ids.map(|id| remove_group(clients, region, id, patience)))
        .await
        .into_iter()
        .filter_map(Result::err)
        .collect()
}

async fn remove_group(clients: &AwsClients, region: &str, id: &str, patience: Duration) -> Result<()> {
    let (client, start) = (clients.ec2(region), Instant::now());
    let what = format!("cannot remove the security group {id}");
    loop {
        let removed = call("ec2:DeleteSecurityGroup", &what, async || {
            client.delete_security_group().group_id(id).send().await?;
            Ok(())
        });
        match removed.await {
            Err(failure) if failure.class() == ErrorClass::NotFound => return Ok(()),
            Err(failure) if failure.is(IN_USE_CODES) && start.elapsed() < patience => {
                sleep(LONGEST_POLL_WAIT / 2).await;
            }
            Err(failure) => {
                return Err(Error::from(failure).leaves(format!(
                    "security group {id}: aws ec2 delete-security-group --region {region} --group-id {id}"
                )));
            }
            Ok(()) => return Ok(()),
        }
    }
}
