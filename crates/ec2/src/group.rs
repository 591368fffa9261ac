//! The run's security group, which allows port 22 from the pipe's addresses.

use super::client::AwsClients;
use super::failure::{AwsError, ErrorClass, call};
use super::plan::RegionPlan;
use super::tags::{REPOSITORY_TAG, RUN_TAG, Tags, filter, tag_filter, value};
use aws_sdk_ec2::types::{Filter, IpPermission, IpRange, Ipv6Range, ResourceType, SecurityGroup};
use ipnet::IpNet;
use std::time::Duration;
use tokio::time::{Instant, sleep};
use trainspot_base::error::{Context as _, Error, Kind, Result};
use trainspot_compute::RunId;

/// SSH's port.
pub(super) const SSH_PORT: u16 = 22;

/// How long EC2 may not know a group or a template that was just made.
pub(super) const UNKNOWN_AFTER_CREATE: Duration = Duration::from_secs(15);
/// How often EC2 is asked meanwhile.
pub(super) const POLL_INTERVAL: Duration = Duration::from_secs(1);

/// The name of the run's security group, and the beginning of its templates' names.
pub(super) fn run_resource_name(run: &RunId) -> String {
    format!("trainspot-{run}")
}

/// The id of the run's group, made now or by an earlier try of the step. A new group allows no address yet.
pub(super) async fn ensure_group(
    clients: &AwsClients,
    plan: &RegionPlan,
    run: &RunId,
    tags: &Tags,
) -> Result<String, AwsError> {
    let (client, vpc) = (clients.ec2(&plan.region), &plan.network.vpc);
    let what = format!("cannot make a security group in {}", plan.region);
    let made = call("ec2:CreateSecurityGroup", &what, async || {
        let request = client.create_security_group().group_name(run_resource_name(run)).vpc_id(vpc);
        let request = request.description("SSH from the pipe to its machine, for one run of trainspot");
        let made = request.tag_specifications(tags.on(ResourceType::SecurityGroup)).send().await?;
        made.group_id.ok_or_else(|| AwsError::incomplete("security group"))
    });
    match made.await {
        // Left by an earlier try, or made by a call whose answer was lost.
        Err(failure) if failure.is(&["InvalidGroup.Duplicate"]) => find(clients, plan, run).await,
        made => made,
    }
}

async fn find(clients: &AwsClients, plan: &RegionPlan, run: &RunId) -> Result<String, AwsError> {
    let client = clients.ec2(&plan.region);
    let what = format!("cannot find the run's security group in {}", plan.region);
    let start = Instant::now();
    let group = loop {
        let found = call("ec2:DescribeSecurityGroups", &what, async || {
            let request = client
                .describe_security_groups()
                .filters(filter("group-name", [run_resource_name(run).as_str()]));
            Ok(request.filters(filter("vpc-id", [plan.network.vpc.as_str()])).send().await?)
        });
        match found.await?.security_groups.unwrap_or_default().into_iter().next() {
            Some(group) => break group,
            None if start.elapsed() < UNKNOWN_AFTER_CREATE => sleep(POLL_INTERVAL).await,
            None => return Err(Error::new(what).kind(Kind::Machine).into()),
        }
    };
    let id = group.group_id.unwrap_or_default();
    let tags = group.tags.as_deref().unwrap_or_default();
    let is_ours = value(tags, RUN_TAG) == Some(run.as_str())
        && value(tags, REPOSITORY_TAG) == Some(clients.repository());
    if !is_ours {
        return Err(Error::new(format!(
            "the security group {id} has the name of this run's, but not its tags"
        ))
        .kind(Kind::Machine)
        .hint(format!("remove it, or name it as SECURITY_GROUP: it is called {}", run_resource_name(run)))
        .into());
    }
    Ok(id)
}

/// The repository's groups with a tag.
pub(super) async fn find_by_tag(
    clients: &AwsClients,
    region: &str,
    tag: Filter,
) -> Result<Vec<SecurityGroup>, AwsError> {
    let client = clients.ec2(region);
    let what = format!("cannot look for security groups in {region}");
    call("ec2:DescribeSecurityGroups", &what, async || {
        let request = client.describe_security_groups().filters(tag.clone());
        let request = request.filters(tag_filter(REPOSITORY_TAG, clients.repository()));
        Ok(request.into_paginator().items().send().try_collect().await?)
    })
    .await
}

/// Allows SSH from these address ranges.
pub(super) async fn allow_ssh_from(
    clients: &AwsClients,
    region: &str,
    group: &str,
    from: &[String],
) -> Result<(), AwsError> {
    // One range a call: a call with a range that the group has already would fail for the others as well.
    for range in from {
        let range = range.parse::<IpNet>().with_context(|| format!("'{range}' is not an address range"))?;
        let start = Instant::now();
        loop {
            match allow_range(clients, region, group, range).await {
                Err(failure) if failure.is(&["InvalidPermission.Duplicate"]) => break,
                Err(failure)
                    if failure.class() == ErrorClass::NotFound && start.elapsed() < UNKNOWN_AFTER_CREATE =>
                {
                    sleep(POLL_INTERVAL).await;
                }
                done => break done?,
            }
        }
    }
    Ok(())
}

async fn allow_range(clients: &AwsClients, region: &str, group: &str, range: IpNet) -> Result<(), AwsError> {
    let client = clients.ec2(region);
    let what = format!("cannot let {range} in by the security group {group}");
    call("ec2:AuthorizeSecurityGroupIngress", &what, async || {
        let request = client.authorize_security_group_ingress().group_id(group);
        request.ip_permissions(permission(range)).send().await?;
        Ok(())
    })
    .await
}

fn permission(range: IpNet) -> IpPermission {
    let port = i32::from(SSH_PORT);
    let permission = IpPermission::builder().ip_protocol("tcp").from_port(port).to_port(port);
    let why = "the pipe";
    match range {
        IpNet::V4(range) => {
            let range = IpRange::builder().cidr_ip(range.to_string()).description(why);
            permission.ip_ranges(range.build()).build()
        }
        IpNet::V6(range) => {
            let range = Ipv6Range::builder().cidr_ipv6(range.to_string()).description(why);
            permission.ipv6_ranges(range.build()).build()
        }
    }
}
