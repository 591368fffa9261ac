//! The end of machines, confirmed, and of what was made for their run.

use super::client::Cloud;
use super::failure::{Class, Failure, call};
use super::machines::{self, LEFT, Seen, State, UNKNOWN_AFTER_LAUNCH};
use super::pools::Mode;
use super::tags::{HOST_KEY, RUN, tagged};
use super::{group, template};
use futures_util::future::join_all;
use std::time::Duration;
use tokio::time::{Instant, sleep};
use tracing::debug;
use trainspot_base::error::{Error, Kind, Result};
use trainspot_compute::RunId;

/// How long to go on until a machine is gone: it ends itself, too, and its outputs wait to be published
/// meanwhile.
const PATIENCE: Duration = Duration::from_mins(2);
/// Between two looks.
const LOOK: Duration = Duration::from_secs(1);
const LONGEST_LOOK: Duration = Duration::from_secs(10);
/// The codes with which a partition without `SkipOsShutdown` may refuse it.
const NO_SUCH_PARAMETER: &[&str] = &[
    "UnknownParameter",
    "InvalidParameter",
    "InvalidParameterCombination",
    "InvalidParameterValue",
    "UnsupportedOperation",
];
/// A group is in use until the interface of the last machine is gone.
const IN_USE: &[&str] = &["DependencyViolation", "InvalidGroup.InUse"];

/// Ends a machine, and returns when it is gone, or surely going: what shuts down does not come back and is
/// not paid for any more, but large machines take minutes until they are gone.
pub(super) async fn terminate(cloud: &Cloud, region: &str, id: &str) -> Result<()> {
    let start = Instant::now();
    let (mut told, mut known) = (false, false);
    let mut look = LOOK;
    loop {
        let step = async {
            // Told anew until it is seen to be going: an order that was lost looks like one that is slow.
            if !told {
                known |= tell(cloud, region, id).await?;
                told = true;
            }
            machines::describe(cloud, region, id).await
        };
        let answer = step.await;
        known |= matches!(answer, Ok(Some(_)));
        let last: Option<Failure> = match answer {
            // It may be gone for long, or so new that EC2 does not know it yet.
            Ok(None) if known || start.elapsed() > UNKNOWN_AFTER_LAUNCH => return Ok(()),
            Ok(None) => {
                told = false;
                None
            }
            Ok(Some(seen)) => match seen.state {
                State::Terminated | State::ShuttingDown => return Ok(()),
                State::Pending | State::Running | State::Stopped => {
                    told = false;
                    None
                }
            },
            Err(failure) if failure.class() == Class::Transient => Some(failure),
            Err(failure) => return Err(still_there(Error::from(failure), region, id)),
        };
        if start.elapsed() > PATIENCE {
            let error = Error::new(format!("the machine {id} did not end within {} s", PATIENCE.as_secs()));
            let error = error.kind(Kind::Machine);
            return Err(still_there(last.map_or(error, Error::from), region, id));
        }
        if let Some(failure) = last {
            debug!("the machine {id} is not known to end yet: {failure}");
        }
        sleep(look).await;
        look = (look * 2).min(LONGEST_LOOK);
    }
}

/// Orders a machine's end. Whether EC2 knows the machine: whether it is gone or too new otherwise, its
/// description tells.
async fn tell(cloud: &Cloud, region: &str, id: &str) -> Result<bool, Failure> {
    let client = cloud.ec2(region);
    let what = format!("cannot end the machine {id}");
    let tell = async |skip_os_shutdown: bool| {
        call("ec2:TerminateInstances", &what, async || {
            let request = client.terminate_instances().instance_ids(id);
            // Left out where it is not wanted: a partition that does not know the parameter may refuse it.
            let skip = skip_os_shutdown.then_some(true);
            request.set_skip_os_shutdown(skip).send().await?;
            Ok(())
        })
        .await
    };
    // Nothing on the machine is to be kept any more. Its shutdown would take seconds at best, and EC2 waits
    // minutes for one that hangs, with the security group in use all that time.
    let told = match tell(true).await {
        Err(failure) if failure.is(NO_SUCH_PARAMETER) => tell(false).await,
        told => told,
    };
    match told {
        Err(failure) if failure.class() == Class::Gone => Ok(false),
        told => told.map(|()| true),
    }
}

fn still_there(error: Error, region: &str, id: &str) -> Error {
    error.leaves(format!(
        "machine {id}; end it by: aws ec2 terminate-instances --region {region} --instance-ids {id}"
    ))
}

/// Whose machines to end.
#[derive(Clone, Copy, Debug)]
pub(super) enum Whose<'a> {
    /// All of the run's.
    Anyones,
    /// Those that carry this host key: who launched others uses what they share.
    Ours(&'a str),
}

/// Removes what was made for a run, once its machines are gone. A machine that is still there was launched by
/// a call whose answer was lost: it is ended too.
pub(super) async fn clean(cloud: &Cloud, run: &RunId, whose: Whose<'_>) -> Result<()> {
    let cleaned = join_all(cloud.regions().map(|region| clean_region(cloud, region, run, whose))).await;
    let errors: Vec<Error> = cleaned.into_iter().flatten().collect();
    Error::all("cannot remove all that was made for the run", errors)
        .map_err(|error| error.kind(Kind::Machine))
}

/// Removes what was made for a run in a region. What could not be removed, each with its reason.
pub(super) async fn clean_region(cloud: &Cloud, region: &str, run: &RunId, whose: Whose<'_>) -> Vec<Error> {
    let mut errors = match machines::of_run(cloud, region, run, &LEFT).await {
        // Where the account may not even look, it has not launched anything.
        Err(failure) if failure.is_closed() && !cloud.is_first(region) => return Vec::new(),
        Err(failure) => {
            let list = format!(
                "perhaps machines in {region}: aws ec2 describe-instances --region {region} --filters Name=tag:{RUN},Values={run}"
            );
            vec![Error::from(failure).leaves(list)]
        }
        Ok(seen) => {
            let going = |seen: &&Seen| seen.state != State::ShuttingDown;
            let (ours, others): (Vec<&Seen>, Vec<&Seen>) =
                seen.iter().filter(going).partition(|seen| whose.has(seen));
            let ended = join_all(ours.iter().map(|seen| terminate(cloud, region, &seen.id))).await;
            let errors = ended.into_iter().filter_map(Result::err).collect();
            if others.is_empty() { errors } else { return errors }
        }
    };
    // What a machine uses that cannot be ended stays in use.
    let patience = if errors.is_empty() { PATIENCE } else { Duration::ZERO };
    let groups = remove_groups(cloud, region, run, patience);
    let (groups, templates) = tokio::join!(groups, remove_templates(cloud, region, run));
    errors.extend(groups.into_iter().chain(templates));
    errors
}

impl Whose<'_> {
    fn has(self, seen: &Seen) -> bool {
        match self {
            Self::Anyones => true,
            Self::Ours(key) => seen.tag(HOST_KEY) == Some(key),
        }
    }
}

/// Removes a run's launch templates in every region: a machine that is there does not need its own.
pub(super) async fn remove_all_templates(cloud: &Cloud, run: &RunId) -> Result<()> {
    let removed = join_all(cloud.regions().map(|region| remove_templates(cloud, region, run))).await;
    Error::all("cannot remove the run's launch templates", removed.into_iter().flatten().collect())
        .map_err(|error| error.kind(Kind::Machine))
}

async fn remove_templates(cloud: &Cloud, region: &str, run: &RunId) -> Vec<Error> {
    let way = |how: &str| format!("aws ec2 delete-launch-template --region {region} --launch-template-{how}");
    let found = match template::tagged_with(cloud, region, tagged(RUN, &run.to_string())).await {
        Ok(found) => found,
        Err(failure) => {
            let names = [Mode::Spot, Mode::OnDemand].map(|mode| template::name(run, mode));
            let perhaps = names
                .map(|name| format!("perhaps the launch template {name}: {}", way(&format!("name {name}"))));
            return vec![perhaps.into_iter().fold(Error::from(failure), Error::leaves)];
        }
    };
    let removed = found.iter().filter_map(|template| template.launch_template_id()).map(async |id| {
        let left = || format!("launch template {id}: {}", way(&format!("id {id}")));
        template::remove(cloud, region, id).await.map_err(|failure| Error::from(failure).leaves(left()))
    });
    join_all(removed).await.into_iter().filter_map(Result::err).collect()
}

async fn remove_groups(cloud: &Cloud, region: &str, run: &RunId, patience: Duration) -> Vec<Error> {
    let found = match group::tagged_with(cloud, region, tagged(RUN, &run.to_string())).await {
        Ok(found) => found,
        Err(failure) => {
            let name = group::name(run);
            let perhaps = format!(
                "perhaps the security group {name}: aws ec2 delete-security-group --region {region} --group-name {name}"
            );
            return vec![Error::from(failure).leaves(perhaps)];
        }
    };
    let ids = found.iter().filter_map(|group| group.group_id());
    join_all(ids.map(|id| remove_group(cloud, region, id, patience)))
        .await
        .into_iter()
        .filter_map(Result::err)
        .collect()
}

async fn remove_group(cloud: &Cloud, region: &str, id: &str, patience: Duration) -> Result<()> {
    let (client, start) = (cloud.ec2(region), Instant::now());
    let what = format!("cannot remove the security group {id}");
    loop {
        let removed = call("ec2:DeleteSecurityGroup", &what, async || {
            client.delete_security_group().group_id(id).send().await?;
            Ok(())
        });
        match removed.await {
            Err(failure) if failure.class() == Class::Gone => return Ok(()),
            Err(failure) if failure.is(IN_USE) && start.elapsed() < patience => sleep(LONGEST_LOOK / 2).await,
            Err(failure) => {
                return Err(Error::from(failure).leaves(format!(
                    "security group {id}: aws ec2 delete-security-group --region {region} --group-id {id}"
                )));
            }
            Ok(()) => return Ok(()),
        }
    }
}
