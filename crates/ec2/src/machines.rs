//! What EC2 says of machines.

use super::client::Cloud;
use super::failure::{Class, Failure, call};
use super::tags::{HOST_KEY, REPOSITORY, RUN, filter, tagged, value};
use aws_sdk_ec2::operation::describe_instances::DescribeInstancesOutput;
use aws_sdk_ec2::types::{
    Filter, Instance, InstanceLifecycleType, InstanceStateName, InstanceType, Reservation,
    SpotInstanceRequest, StateReason, Tag,
};
use futures_util::future::try_join_all;
use std::net::IpAddr;
use std::time::{Duration, SystemTime};
use trainspot_compute::{MachineStatus, Pool, RunId};

/// States in which a machine is, or will be, there.
pub(super) const ALIVE: [&str; 2] = ["pending", "running"];
/// States in which there is something of a machine.
pub(super) const LEFT: [&str; 5] = ["pending", "running", "shutting-down", "stopping", "stopped"];

/// How long a machine that was just launched may be unknown to EC2's other calls. AWS's `ParallelCluster`
/// waits as long.
pub(super) const UNKNOWN_AFTER_LAUNCH: Duration = Duration::from_secs(90);
/// The waits before each look for a machine whose launch was not answered: [`UNKNOWN_AFTER_LAUNCH`] in all.
const UNTIL_LISTED_SECONDS: [u64; 7] = [0, 2, 5, 10, 18, 25, 30];
/// Between two questions for a machine that EC2 says it does not know.
const AGAIN: Duration = Duration::from_secs(2);

/// Why AWS ends a spot machine that it wants back.
const RECLAIMED: &str = "Server.SpotInstanceTermination";

/// Where a machine is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    Pending,
    Running,
    /// It was told to end, and will.
    ShuttingDown,
    /// It is being stopped, or was, by somebody else: its disk is still paid for.
    Stopped,
    Terminated,
}

/// A machine as EC2 describes it.
#[derive(Clone, Debug)]
pub(super) struct Seen {
    pub(super) id: String,
    pub(super) region: String,
    pub(super) state: State,
    pub(super) pool: Pool,
    pub(super) spot: bool,
    pub(super) private: Option<IpAddr>,
    pub(super) public: Option<IpAddr>,
    /// Why it is not running, with EC2's own code.
    pub(super) reason: Option<String>,
    /// AWS took it back: that is not paid for, if it lived for less than an hour.
    is_reclaimed: bool,
    pub(super) launched: Option<SystemTime>,
    tags: Vec<Tag>,
}

impl Seen {
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
            is_reclaimed: instance.state_reason().and_then(StateReason::code) == Some(RECLAIMED),
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
        matches!(self.state, State::Pending | State::Running)
    }
}

fn state(name: &InstanceStateName) -> State {
    match name {
        InstanceStateName::Running => State::Running,
        InstanceStateName::ShuttingDown => State::ShuttingDown,
        InstanceStateName::Stopping | InstanceStateName::Stopped => State::Stopped,
        InstanceStateName::Terminated => State::Terminated,
        // Also a state that is not known yet: it must not be taken for an end.
        _ => State::Pending,
    }
}

/// The message says it all where EC2 gives one: it begins with the code.
fn in_words(reason: &StateReason) -> String {
    reason.message().or(reason.code()).unwrap_or("no reason was given").to_owned()
}

/// What the provider says of a machine, from its description and its spot request's status.
pub(super) fn sight(seen: Option<&Seen>, status: Option<&SpotStatus>) -> MachineStatus {
    let Some(seen) = seen else { return MachineStatus::Gone("EC2 knows it no more".to_owned()) };
    if seen.is_alive() {
        return match status {
            Some(status) if status.is_leaving() => MachineStatus::InterruptionNotice(status.to_string()),
            _ => MachineStatus::Running,
        };
    }
    let taken = seen.is_reclaimed || status.is_some_and(SpotStatus::is_by_aws);
    let told = status.filter(|status| status.is_leaving()).map(ToString::to_string);
    let why = seen.reason.clone().or(told).unwrap_or_else(|| format!("it is {:?}", seen.state));
    if taken { MachineStatus::Reclaimed(why) } else { MachineStatus::Gone(why) }
}

/// The status of a machine's spot request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct SpotStatus {
    pub(super) code: String,
    pub(super) message: String,
}

impl SpotStatus {
    /// The request turns so at the notice, two minutes before the machine's end.
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
pub(super) async fn of_run(
    cloud: &Cloud,
    region: &str,
    run: &RunId,
    states: &[&str],
) -> Result<Vec<Seen>, Failure> {
    tagged_with(cloud, region, tagged(RUN, &run.to_string()), states).await
}

/// The repository's machines with this tag, in all of the account's regions, that are in one of these states.
pub(super) async fn everywhere(cloud: &Cloud, tag: &Filter, states: &[&str]) -> Result<Vec<Seen>, Failure> {
    let find = async |region| cloud.found(region, tagged_with(cloud, region, tag.clone(), states).await);
    Ok(try_join_all(cloud.regions().map(find)).await?.concat())
}

/// A machine that this host key's process launched without an answer, if it shows itself within some seconds.
pub(super) async fn of_key(
    cloud: &Cloud,
    region: &str,
    run: &RunId,
    key: &str,
    is_new: impl Fn(&Seen) -> bool,
) -> Result<Option<Seen>, Failure> {
    for seconds in UNTIL_LISTED_SECONDS {
        tokio::time::sleep(Duration::from_secs(seconds)).await;
        let found = match of_run(cloud, region, run, &ALIVE).await {
            Err(failure) if failure.class() == Class::Transient => continue,
            found => found?,
        };
        if let Some(seen) = found.into_iter().find(|seen| seen.tag(HOST_KEY) == Some(key) && is_new(seen)) {
            return Ok(Some(seen));
        }
    }
    Ok(None)
}

/// The machines of all the account's regions with this tag that are in one of these states, other
/// repositories' too: to be looked at, not touched.
pub(super) async fn of_anyone(cloud: &Cloud, tag: &Filter, states: &[&str]) -> Result<Vec<Seen>, Failure> {
    let find =
        async |region| cloud.found(region, described(cloud, region, std::slice::from_ref(tag), states).await);
    Ok(try_join_all(cloud.regions().map(find)).await?.concat())
}

/// The repository's machines in one region with this tag that are in one of these states.
pub(super) async fn tagged_with(
    cloud: &Cloud,
    region: &str,
    tag: Filter,
    states: &[&str],
) -> Result<Vec<Seen>, Failure> {
    described(cloud, region, &[tag, tagged(REPOSITORY, cloud.repository())], states).await
}

async fn described(
    cloud: &Cloud,
    region: &str,
    filters: &[Filter],
    states: &[&str],
) -> Result<Vec<Seen>, Failure> {
    let client = cloud.ec2(region);
    let what = format!("cannot look for machines in {region}");
    let states = filter("instance-state-name", states.iter().copied());
    call("ec2:DescribeInstances", &what, async || {
        let request = client.describe_instances().set_filters(Some(filters.to_vec())).filters(states.clone());
        let pages = request.into_paginator().send().try_collect().await?;
        let instances =
            pages.iter().flat_map(DescribeInstancesOutput::reservations).flat_map(Reservation::instances);
        Ok(instances.filter_map(|instance| Seen::new(region, instance)).collect())
    })
    .await
}

/// The types of all spot machines of the account in a region that count towards its quotas, whoever launched
/// them.
pub(super) async fn spot_types(cloud: &Cloud, region: &str) -> Result<Vec<String>, Failure> {
    let found = described(cloud, region, &[filter("instance-lifecycle", ["spot"])], &LEFT).await?;
    Ok(found.into_iter().map(|seen| seen.pool.instance_type).collect())
}

/// One machine; none that EC2 does not know, as one that was just launched, or ended long ago.
pub(super) async fn describe(cloud: &Cloud, region: &str, id: &str) -> Result<Option<Seen>, Failure> {
    let client = cloud.ec2(region);
    let what = format!("cannot look at the machine {id}");
    let described = call("ec2:DescribeInstances", &what, async || {
        let answer = client.describe_instances().instance_ids(id).send().await?;
        let mut instances = answer.reservations().iter().flat_map(Reservation::instances);
        Ok(instances.find_map(|instance| Seen::new(region, instance)))
    });
    match described.await {
        Err(failure) if failure.class() == Class::Gone => Ok(None),
        described => described,
    }
}

/// The same, but a machine is unknown only if EC2 says so twice: its answers agree with each other only in
/// the end.
pub(super) async fn describe_surely(cloud: &Cloud, region: &str, id: &str) -> Result<Option<Seen>, Failure> {
    if let Some(seen) = describe(cloud, region, id).await? {
        return Ok(Some(seen));
    }
    tokio::time::sleep(AGAIN).await;
    describe(cloud, region, id).await
}

/// The status of a machine's spot request; none for a machine that has none.
pub(super) async fn spot_status(
    cloud: &Cloud,
    region: &str,
    id: &str,
) -> Result<Option<SpotStatus>, Failure> {
    let client = cloud.ec2(region);
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

    fn seen(name: InstanceStateName, reason: Option<(&str, &str)>) -> Seen {
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
            .tags(Tag::builder().key(RUN).value("abc").build());
        Seen::new("eu-west-1", &instance.build()).unwrap()
    }

    fn status(code: &str) -> SpotStatus {
        SpotStatus { code: code.to_owned(), message: "Your instance was marked.".to_owned() }
    }

    #[test]
    fn a_description_is_read() {
        let seen = seen(InstanceStateName::Running, None);
        assert_eq!((seen.state, seen.spot, seen.tag(RUN)), (State::Running, true, Some("abc")));
        assert_eq!((seen.private, seen.public), (Some("10.0.0.4".parse().unwrap()), None));
        assert_eq!(seen.pool, Pool { zone: "eu-west-1b".to_owned(), instance_type: "m5.large".to_owned() });
    }

    #[test]
    fn a_notice_is_told_from_an_end() {
        let running = seen(InstanceStateName::Running, None);
        assert_eq!(sight(Some(&running), None), MachineStatus::Running);
        assert_eq!(sight(Some(&running), Some(&status("fulfilled"))), MachineStatus::Running);
        for code in
            ["marked-for-termination", "instance-terminated-no-capacity", "instance-terminated-by-price"]
        {
            let leaving = MachineStatus::InterruptionNotice(format!("{code}: Your instance was marked."));
            assert_eq!(sight(Some(&running), Some(&status(code))), leaving);
        }
        let why = "Server.SpotInstanceTermination: Spot Instance termination";
        let ended = seen(InstanceStateName::ShuttingDown, Some(("Server.SpotInstanceTermination", why)));
        assert_eq!(sight(Some(&ended), None), MachineStatus::Reclaimed(why.to_owned()));
        let ended = seen(InstanceStateName::Terminated, None);
        let by = |code| sight(Some(&ended), Some(&status(code)));
        assert!(matches!(by("instance-terminated-by-price"), MachineStatus::Reclaimed(_)));
        assert!(matches!(by("instance-terminated-by-user"), MachineStatus::Gone(_)));
        let stopped = seen(InstanceStateName::Stopped, None);
        assert_eq!(sight(Some(&stopped), None), MachineStatus::Gone("it is Stopped".to_owned()));
        assert_eq!(sight(None, None), MachineStatus::Gone("EC2 knows it no more".to_owned()));
    }
}
