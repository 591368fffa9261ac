//! Machines as EC2 describes them: found by tags, and their states.

use super::client::AwsClients;
use super::failure::{AwsError, ErrorClass, call};
use super::tags::{HOST_KEY_TAG, REPOSITORY_TAG, RUN_TAG, filter, tag_filter, value};
use aws_sdk_ec2::operation::describe_instances::DescribeInstancesOutput;
use aws_sdk_ec2::types::{
    Filter, Instance, InstanceLifecycleType, InstanceStateName, InstanceType, Reservation,
    SpotInstanceRequest, StateReason, Tag,
};
use futures_util::future::try_join_all;
use std::net::IpAddr;
use std::time::{Duration, SystemTime};
use trainspot_compute::{MachineStatus, Pool, RunId};

/// States in which a machine runs or will run.
pub(super) const ALIVE_STATES: [&str; 2] = ["pending", "running"];
/// States in which a machine, or its disk, still exists.
pub(super) const LEFTOVER_STATES: [&str; 5] = ["pending", "running", "shutting-down", "stopping", "stopped"];

/// How long EC2's other calls may not know a machine that was just launched. AWS's `ParallelCluster` waits as
/// long.
pub(super) const UNKNOWN_AFTER_LAUNCH: Duration = Duration::from_secs(90);
/// The waits before each look for a machine whose launch was not answered: [`UNKNOWN_AFTER_LAUNCH`] in all.
const UNTIL_LISTED_SECONDS: [u64; 7] = [0, 2, 5, 10, 18, 25, 30];
/// The wait before EC2 is asked again for a machine that it does not know.
const UNKNOWN_RETRY_WAIT: Duration = Duration::from_secs(2);

/// The state reason's code of a spot machine that AWS reclaimed.
const RECLAIMED_CODE: &str = "Server.SpotInstanceTermination";

/// The state of a machine's life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum MachineState {
    Pending,
    Running,
    /// The machine was told to end, and will.
    ShuttingDown,
    /// The machine is being stopped, or was, by somebody else: its disk is still paid for.
    Stopped,
    Terminated,
}

/// A machine as EC2 describes it.
#[derive(Clone, Debug)]
pub(super) struct Ec2Instance {
    pub(super) id: String,
    pub(super) region: String,
    pub(super) state: MachineState,
    pub(super) pool: Pool,
    pub(super) spot: bool,
    pub(super) private: Option<IpAddr>,
    pub(super) public: Option<IpAddr>,
    /// Why the machine is not running, beginning with EC2's code.
    pub(super) reason: Option<String>,
    /// Whether AWS reclaimed the machine: then it is not paid for, if it lived for less than an hour.
    is_reclaimed: bool,
    pub(super) launched: Option<SystemTime>,
    tags: Vec<Tag>,
}

impl Ec2Instance {
    fn new(region: &str, instance: &Instance) -> Option<Self> {
        let address = |text: Option<&str>| text.and_then(|text| text.parse().ok());
        Some(Self {
            id: instance.instance_id()?.to_owned(),
            region: region.to_owned(),
            state: state(instance.state()?.name()?),
            pool: Pool {
                zone: instance.placement()?.availability_zone()?.to_owned(),
                instance_type: instance.instance_type().map(InstanceType::as_str)?.to_owned(),
            },
            spot: instance.instance_lifecycle() == Some(&InstanceLifecycleType::Spot),
            private: address(instance.private_ip_address()),
            public: address(instance.public_ip_address()),
            reason: instance.state_reason().map(in_words),
            is_reclaimed: instance.state_reason().and_then(StateReason::code) == Some(RECLAIMED_CODE),
            launched: instance.launch_time().and_then(|time| SystemTime::try_from(*time).ok()),
            tags: instance.tags().to_vec(),
        })
    }

    pub(super) fn tag(&self, key: &str) -> Option<&str> {
        value(&self.tags, key)
    }

    pub(super) fn tags(&self) -> &[Tag] {
        &self.tags
    }

    pub(super) fn is_alive(&self) -> bool {
        matches!(self.state, MachineState::Pending | MachineState::Running)
    }
}

fn state(name: &InstanceStateName) -> MachineState {
    match name {
        InstanceStateName::Running => MachineState::Running,
        InstanceStateName::ShuttingDown => MachineState::ShuttingDown,
        InstanceStateName::Stopping | InstanceStateName::Stopped => MachineState::Stopped,
        InstanceStateName::Terminated => MachineState::Terminated,
        // Also a state that is not known yet: it must not be taken for an end.
        _ => MachineState::Pending,
    }
}

/// The message says it all where EC2 gives one: it begins with the code.
fn in_words(reason: &StateReason) -> String {
    reason.message().or(reason.code()).unwrap_or("no reason was given").to_owned()
}

/// The status of a machine, from its description and its spot request's status.
pub(super) fn machine_status(instance: Option<&Ec2Instance>, status: Option<&SpotStatus>) -> MachineStatus {
    let Some(instance) = instance else { return MachineStatus::Gone("EC2 knows it no more".to_owned()) };
    if instance.is_alive() {
        return match status {
            Some(status) if status.is_leaving() => MachineStatus::InterruptionNotice(status.to_string()),
            _ => MachineStatus::Running,
        };
    }
    let taken = instance.is_reclaimed || status.is_some_and(SpotStatus::is_by_aws);
    let told = status.filter(|status| status.is_leaving()).map(ToString::to_string);
    let why = instance.reason.clone().or(told).unwrap_or_else(|| format!("it is {:?}", instance.state));
    if taken { MachineStatus::Reclaimed(why) } else { MachineStatus::Gone(why) }
}

/// The status of a machine's spot request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct SpotStatus {
    pub(super) code: String,
    pub(super) message: String,
}

impl SpotStatus {
    /// Whether the status announces the machine's end. It does so from the notice on, two minutes before the
    /// end.
    ///
    /// Source: docs.aws.amazon.com/AWSEC2/latest/UserGuide/spot-request-status.html.
    fn is_leaving(&self) -> bool {
        self.code.starts_with("marked-for-") || self.code.starts_with("instance-terminated-")
    }

    /// Whether AWS has ended the machine, rather than its user.
    fn is_by_aws(&self) -> bool {
        self.code.starts_with("instance-terminated-") && self.code != "instance-terminated-by-user"
    }
}

impl std::fmt::Display for SpotStatus {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.message.as_str() {
            "" => formatter.write_str(&self.code),
            message => write!(formatter, "{}: {message}", self.code),
        }
    }
}

/// The machines of a run in one region that are in one of these states.
pub(super) async fn find_by_run(
    clients: &AwsClients,
    region: &str,
    run: &RunId,
    states: &[&str],
) -> Result<Vec<Ec2Instance>, AwsError> {
    find_by_tag(clients, region, tag_filter(RUN_TAG, &run.to_string()), states).await
}

/// The repository's machines with this tag, in all of the account's regions, that are in one of these states.
pub(super) async fn find_in_all_regions(
    clients: &AwsClients,
    tag: &Filter,
    states: &[&str],
) -> Result<Vec<Ec2Instance>, AwsError> {
    let find = async |region| {
        clients.empty_if_inaccessible(region, find_by_tag(clients, region, tag.clone(), states).await)
    };
    Ok(try_join_all(clients.regions().map(find)).await?.concat())
}

/// The new machine with this host key, whose launch was not answered, if EC2 lists it within
/// [`UNKNOWN_AFTER_LAUNCH`].
pub(super) async fn find_by_host_key(
    clients: &AwsClients,
    region: &str,
    run: &RunId,
    key: &str,
    is_new: impl Fn(&Ec2Instance) -> bool,
) -> Result<Option<Ec2Instance>, AwsError> {
    for seconds in UNTIL_LISTED_SECONDS {
        tokio::time::sleep(Duration::from_secs(seconds)).await;
        let found = match find_by_run(clients, region, run, &ALIVE_STATES).await {
            Err(failure) if failure.class() == ErrorClass::Transient => continue,
            found => found?,
        };
        if let Some(instance) =
            found.into_iter().find(|instance| instance.tag(HOST_KEY_TAG) == Some(key) && is_new(instance))
        {
            return Ok(Some(instance));
        }
    }
    Ok(None)
}

/// The machines of all the account's regions with this tag that are in one of these states, also those of
/// other repositories: to be read, not changed.
pub(super) async fn find_of_any_repository(
    clients: &AwsClients,
    tag: &Filter,
    states: &[&str],
) -> Result<Vec<Ec2Instance>, AwsError> {
    let find = async |region| {
        clients.empty_if_inaccessible(
            region,
            describe_filtered(clients, region, std::slice::from_ref(tag), states).await,
        )
    };
    Ok(try_join_all(clients.regions().map(find)).await?.concat())
}

/// The repository's machines in one region with this tag that are in one of these states.
pub(super) async fn find_by_tag(
    clients: &AwsClients,
    region: &str,
    tag: Filter,
    states: &[&str],
) -> Result<Vec<Ec2Instance>, AwsError> {
    describe_filtered(clients, region, &[tag, tag_filter(REPOSITORY_TAG, clients.repository())], states).await
}

async fn describe_filtered(
    clients: &AwsClients,
    region: &str,
    filters: &[Filter],
    states: &[&str],
) -> Result<Vec<Ec2Instance>, AwsError> {
    let client = clients.ec2(region);
    let what = format!("cannot look for machines in {region}");
    let states = filter("instance-state-name", states.iter().copied());
    call("ec2:DescribeInstances", &what, async || {
        let request = client.describe_instances().set_filters(Some(filters.to_vec())).filters(states.clone());
        let pages = request.into_paginator().send().try_collect().await?;
        let instances =
            pages.iter().flat_map(DescribeInstancesOutput::reservations).flat_map(Reservation::instances);
        Ok(instances.filter_map(|instance| Ec2Instance::new(region, instance)).collect())
    })
    .await
}

/// The types of all spot machines of the account in a region that count towards its quotas, whoever launched
/// them.
pub(super) async fn spot_types(clients: &AwsClients, region: &str) -> Result<Vec<String>, AwsError> {
    let found =
        describe_filtered(clients, region, &[filter("instance-lifecycle", ["spot"])], &LEFTOVER_STATES)
            .await?;
    Ok(found.into_iter().map(|instance| instance.pool.instance_type).collect())
}

/// The description of a machine; none where EC2 does not know it, as it was just launched or ended long ago.
pub(super) async fn describe(
    clients: &AwsClients,
    region: &str,
    id: &str,
) -> Result<Option<Ec2Instance>, AwsError> {
    let client = clients.ec2(region);
    let what = format!("cannot look at the machine {id}");
    let described = call("ec2:DescribeInstances", &what, async || {
        let answer = client.describe_instances().instance_ids(id).send().await?;
        let mut instances = answer.reservations().iter().flat_map(Reservation::instances);
        Ok(instances.find_map(|instance| Ec2Instance::new(region, instance)))
    });
    match described.await {
        Err(failure) if failure.class() == ErrorClass::NotFound => Ok(None),
        described => described,
    }
}

/// As [`describe`], but a machine is unknown only if EC2 says so twice: EC2's answers are eventually
/// consistent.
pub(super) async fn describe_twice(
    clients: &AwsClients,
    region: &str,
    id: &str,
) -> Result<Option<Ec2Instance>, AwsError> {
    if let Some(instance) = describe(clients, region, id).await? {
        return Ok(Some(instance));
    }
    tokio::time::sleep(UNKNOWN_RETRY_WAIT).await;
    describe(clients, region, id).await
}

/// The status of a machine's spot request; none for a machine without one.
pub(super) async fn spot_status(
    clients: &AwsClients,
    region: &str,
    id: &str,
) -> Result<Option<SpotStatus>, AwsError> {
    let client = clients.ec2(region);
    let what = format!("cannot look at the spot request of {id}");
    let requests = call("ec2:DescribeSpotInstanceRequests", &what, async || {
        let request = client.describe_spot_instance_requests().filters(filter("instance-id", [id]));
        Ok(request.send().await?)
    });
    let requests = requests.await?;
    Ok(requests.spot_instance_requests().first().and_then(SpotInstanceRequest::status).map(|status| {
        SpotStatus {
            code: status.code().unwrap_or_default().to_owned(),
            message: status.message().unwrap_or_default().to_owned(),
        }
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use aws_sdk_ec2::types::{InstanceState, Placement};

    fn instance(name: InstanceStateName, reason: Option<(&str, &str)>) -> Ec2Instance {
        let reason = reason.map(|(code, message)| StateReason::builder().code(code).message(message).build());
        let instance = Instance::builder()
            .instance_id("i-1")
            .instance_type(InstanceType::from("m5.large"))
            .instance_lifecycle(InstanceLifecycleType::Spot)
            .private_ip_address("10.0.0.4")
            .public_ip_address("")
            .placement(Placement::builder().availability_zone("eu-west-1b").build())
            .state(InstanceState::builder().name(name).build())
            .set_state_reason(reason)
            .tags(Tag::builder().key(RUN_TAG).value("abc").build());
        Ec2Instance::new("eu-west-1", &instance.build()).unwrap()
    }

    fn status(code: &str) -> SpotStatus {
        SpotStatus { code: code.to_owned(), message: "Your instance was marked.".to_owned() }
    }

    #[test]
    fn a_description_is_read() {
        let instance = instance(InstanceStateName::Running, None);
        assert_eq!(
            (instance.state, instance.spot, instance.tag(RUN_TAG)),
            (MachineState::Running, true, Some("abc"))
        );
        assert_eq!((instance.private, instance.public), (Some("10.0.0.4".parse().unwrap()), None));
        assert_eq!(
            instance.pool,
            Pool { zone: "eu-west-1b".to_owned(), instance_type: "m5.large".to_owned() }
        );
    }

    #[test]
    fn a_notice_is_told_from_an_end() {
        let running = instance(InstanceStateName::Running, None);
        assert_eq!(machine_status(Some(&running), None), MachineStatus::Running);
        assert_eq!(machine_status(Some(&running), Some(&status("fulfilled"))), MachineStatus::Running);
        for code in
            ["marked-for-termination", "instance-terminated-no-capacity", "instance-terminated-by-price"]
        {
            let leaving = MachineStatus::InterruptionNotice(format!("{code}: Your instance was marked."));
            assert_eq!(machine_status(Some(&running), Some(&status(code))), leaving);
        }
        let why = "Server.SpotInstanceTermination: Spot Instance termination";
        let ended = instance(InstanceStateName::ShuttingDown, Some(("Server.SpotInstanceTermination", why)));
        assert_eq!(machine_status(Some(&ended), None), MachineStatus::Reclaimed(why.to_owned()));
        let ended = instance(InstanceStateName::Terminated, None);
        let by = |code| machine_status(Some(&ended), Some(&status(code)));
        assert!(matches!(by("instance-terminated-by-price"), MachineStatus::Reclaimed(_)));
        assert!(matches!(by("instance-terminated-by-user"), MachineStatus::Gone(_)));
        let stopped = instance(InstanceStateName::Stopped, None);
        assert_eq!(machine_status(Some(&stopped), None), MachineStatus::Gone("it is Stopped".to_owned()));
        assert_eq!(machine_status(None, None), MachineStatus::Gone("EC2 knows it no more".to_owned()));
    }
}
