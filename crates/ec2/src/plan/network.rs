//! The network of a region: subnets of one VPC that the pipe can reach, and the addresses allowed in.

use super::super::failure::{AwsError, call};
use super::problem::PlanProblem;
use super::{Network, Subnet, address};
use aws_sdk_ec2::types as sdk;
use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use trainspot_compute::aws::{AwsSettings, SshAddress};

/// The VPCs, subnets, route tables and groups of a region, as far as they matter.
#[derive(Clone, Debug, Default)]
struct NetworkFacts {
    vpcs: Vec<Vpc>,
    subnets: Vec<SubnetFacts>,
    tables: Vec<RouteTable>,
    groups: Vec<Group>,
    /// The pipe's own address, if it belongs to a network interface of this VPC.
    inside: Option<(String, Ipv4Addr)>,
}

#[derive(Clone, Debug, Default)]
struct Vpc {
    id: String,
    default: bool,
    cidrs: Vec<String>,
}

#[derive(Clone, Debug)]
struct SubnetFacts {
    id: String,
    zone: String,
    vpc: String,
    /// The number of free addresses.
    room: i32,
}

/// A route table.
#[derive(Clone, Debug, Default)]
struct RouteTable {
    vpc: String,
    main: bool,
    subnets: Vec<String>,
    /// Whether it has a route to an internet gateway, by which traffic from outside comes in as well.
    internet: bool,
    /// Whether it has any route to the outside, such as by a NAT gateway.
    out: bool,
}

#[derive(Clone, Debug)]
struct Group {
    id: String,
    vpc: String,
    lets_ssh_in: bool,
}

/// Finds where machines can stand. `inbound` is filled in by the caller where the pipe's public address is
/// needed.
pub(super) async fn find(
    ec2: &aws_sdk_ec2::Client,
    aws: &AwsSettings,
    region: &str,
) -> Result<Network, Vec<PlanProblem>> {
    let (vpcs, subnets, tables, groups) =
        futures_util::join!(vpcs(ec2), subnets(ec2, aws), tables(ec2), groups(ec2, aws));
    let problems: Vec<PlanProblem> =
        [vpcs.as_ref().err(), subnets.as_ref().err(), tables.as_ref().err(), groups.as_ref().err()]
            .into_iter()
            .flatten()
            .cloned()
            .collect();
    let (Ok(vpcs), Ok(subnets), Ok(tables), Ok(groups)) = (vpcs, subnets, tables, groups) else {
        return Err(problems);
    };
    let inside = inside(ec2, aws, &vpcs).await?;
    let (network, warnings) = choose(&NetworkFacts { vpcs, subnets, tables, groups, inside }, aws)?;
    for warning in warnings {
        tracing::warn!("{region}: {warning}");
    }
    Ok(network)
}

async fn vpcs(ec2: &aws_sdk_ec2::Client) -> Result<Vec<Vpc>, PlanProblem> {
    let found = call("ec2:DescribeVpcs", "cannot list the VPCs", || async {
        Ok(ec2.describe_vpcs().into_paginator().items().send().try_collect().await?)
    });
    Ok(found.await?.into_iter().map(Vpc::from).collect())
}

async fn subnets(ec2: &aws_sdk_ec2::Client, aws: &AwsSettings) -> Result<Vec<SubnetFacts>, PlanProblem> {
    let filter = sdk::Filter::builder();
    let filter = match &aws.subnets[..] {
        [] => filter.name("default-for-az").values("true"),
        named => filter.name("subnet-id").set_values(Some(named.to_vec())),
    };
    let found = call("ec2:DescribeSubnets", "cannot list the subnets", || async {
        let request = ec2.describe_subnets().filters(filter.clone().build());
        Ok(request.into_paginator().items().send().try_collect().await?)
    });
    let found = found.await?.into_iter();
    Ok(found
        .filter_map(|it| {
            let room = it.available_ip_address_count.unwrap_or(0);
            Some(SubnetFacts { id: it.subnet_id?, zone: it.availability_zone?, vpc: it.vpc_id?, room })
        })
        .collect())
}

async fn tables(ec2: &aws_sdk_ec2::Client) -> Result<Vec<RouteTable>, PlanProblem> {
    let found = call("ec2:DescribeRouteTables", "cannot tell which subnets the internet reaches", || async {
        Ok(ec2.describe_route_tables().into_paginator().items().send().try_collect().await?)
    });
    Ok(found.await?.into_iter().map(RouteTable::from).collect())
}

async fn groups(ec2: &aws_sdk_ec2::Client, aws: &AwsSettings) -> Result<Vec<Group>, PlanProblem> {
    let Some(wanted) = &aws.security_group else { return Ok(Vec::new()) };
    let filter = sdk::Filter::builder().name("group-id").values(wanted).build();
    let found = call("ec2:DescribeSecurityGroups", "cannot look at SECURITY_GROUP", || async {
        let request = ec2.describe_security_groups().filters(filter.clone());
        Ok(request.into_paginator().items().send().try_collect().await?)
    });
    Ok(found.await?.into_iter().map(Group::from).collect())
}

/// Whether the pipe's own address is one of a VPC's, and not just like one: private ranges repeat.
///
/// So the API is asked, but only where it looks like it. A pipe in a container with an address of its own is
/// not found out; then `SSH_ADDRESS` tells.
async fn inside(
    ec2: &aws_sdk_ec2::Client,
    aws: &AwsSettings,
    vpcs: &[Vpc],
) -> Result<Option<(String, Ipv4Addr)>, AwsError> {
    let Some(own) = address::local().filter(|_| aws.ssh_address != SshAddress::Public) else {
        return Ok(None);
    };
    let like = |vpc: &Vpc| vpc.cidrs.iter().any(|cidr| address::holds(cidr, own));
    if !vpcs.iter().any(like) {
        return Ok(None);
    }
    let filter = sdk::Filter::builder().name("addresses.private-ip-address").values(own.to_string()).build();
    let found =
        call("ec2:DescribeNetworkInterfaces", "cannot tell whether the pipe runs in the VPC", || async {
            Ok(ec2.describe_network_interfaces().filters(filter.clone()).send().await?)
        });
    let vpc = match found.await {
        Ok(answer) => answer.network_interfaces().first().and_then(|it| it.vpc_id()).map(str::to_owned),
        // It is optional: then the pipe counts as outside.
        Err(failure) if failure.is_denied() => None,
        Err(failure) => return Err(failure),
    };
    Ok(vpc.map(|vpc| (vpc, own)))
}

impl From<sdk::Vpc> for Vpc {
    fn from(vpc: sdk::Vpc) -> Self {
        let more =
            vpc.cidr_block_association_set().iter().filter_map(|it| it.cidr_block().map(str::to_owned));
        let mut cidrs: Vec<String> = vpc.cidr_block.clone().into_iter().chain(more).collect();
        cidrs.dedup();
        Self { default: vpc.is_default == Some(true), id: vpc.vpc_id.unwrap_or_default(), cidrs }
    }
}

impl From<sdk::RouteTable> for RouteTable {
    fn from(table: sdk::RouteTable) -> Self {
        let outward = || {
            let everything = |route: &&sdk::Route| route.destination_cidr_block() == Some("0.0.0.0/0");
            let alive = |route: &&sdk::Route| route.state() != Some(&sdk::RouteState::Blackhole);
            table.routes().iter().filter(everything).filter(alive)
        };
        let associations = table.associations();
        Self {
            main: associations.iter().any(|it| it.main() == Some(true)),
            subnets: associations.iter().filter_map(|it| it.subnet_id().map(str::to_owned)).collect(),
            internet: outward().any(|route| route.gateway_id().is_some_and(|id| id.starts_with("igw-"))),
            out: outward().count() > 0,
            vpc: table.vpc_id.unwrap_or_default(),
        }
    }
}

impl From<sdk::SecurityGroup> for Group {
    fn from(group: sdk::SecurityGroup) -> Self {
        let lets_ssh_in = group.ip_permissions().iter().any(|rule| {
            let ports = rule.from_port().unwrap_or(0)..=rule.to_port().unwrap_or(65535);
            matches!(rule.ip_protocol(), Some("-1"))
                || (rule.ip_protocol() == Some("tcp") && ports.contains(&22))
        });
        Self { id: group.group_id.unwrap_or_default(), vpc: group.vpc_id.unwrap_or_default(), lets_ssh_in }
    }
}

/// The network to use, and what is odd about it.
fn choose(facts: &NetworkFacts, aws: &AwsSettings) -> Result<(Network, Vec<String>), Vec<PlanProblem>> {
    let vpc = vpc(facts, aws).map_err(|problem| vec![problem])?;
    let missing = aws.subnets.iter().filter(|id| !facts.subnets.iter().any(|it| it.id == **id));
    let mut problems: Vec<PlanProblem> = missing
        .map(|id| PlanProblem::with("SUBNET", format!("names {id}, which the region does not have")))
        .collect();
    let mut warnings = Vec::new();
    let inside = facts.inside.as_ref().filter(|(id, _)| *id == vpc.id).map(|(_, own)| *own);
    let by_private = aws.ssh_address == SshAddress::Private || inside.is_some();
    let subnets = reachable(facts, aws, &vpc, by_private, &mut warnings).unwrap_or_else(|problem| {
        problems.push(problem);
        Vec::new()
    });
    let group = group(facts, aws, &vpc, &mut warnings).unwrap_or_else(|problem| {
        problems.push(problem);
        None
    });
    if !problems.is_empty() {
        return Err(problems);
    }
    let all_public =
        subnets.iter().all(|subnet| table(facts, &subnet.id, &vpc).is_some_and(|table| table.internet));
    let inbound = match inside {
        _ if group.is_some() => Vec::new(),
        _ if !aws.ssh_cidrs.is_empty() => aws.ssh_cidrs.clone(),
        Some(own) => vec![format!("{own}/32")],
        None if by_private => vpc.cidrs.clone(),
        None => Vec::new(),
    };
    let network = Network {
        // Beside the private one by which it is reached, so that the training has a way out.
        public: aws.ssh_address != SshAddress::Private && all_public,
        vpc: vpc.id,
        cidrs: vpc.cidrs,
        subnets,
        security_group: group,
        by_private,
        inbound,
    };
    Ok((network, warnings))
}

fn vpc(facts: &NetworkFacts, aws: &AwsSettings) -> Result<Vpc, PlanProblem> {
    let mut ids: Vec<&str> = facts.subnets.iter().map(|subnet| subnet.vpc.as_str()).collect();
    ids.sort_unstable();
    ids.dedup();
    if aws.subnets.is_empty() {
        let default = facts.vpcs.iter().find(|vpc| vpc.default).cloned();
        let default = default.ok_or_else(|| {
            PlanProblem::with("SUBNET", "is not set, and the region has no default VPC; name one or more subnets that the internet reaches")
        })?;
        if ids.is_empty() {
            let what =
                format!("is not set, and the default VPC {} has no default subnets; name some", default.id);
            return Err(PlanProblem::with("SUBNET", what));
        }
        return Ok(default);
    }
    match ids[..] {
        [] => Err(PlanProblem::with(
            "SUBNET",
            format!("names {}, which the region does not have", aws.subnets.join(", ")),
        )),
        [id] => Ok(facts
            .vpcs
            .iter()
            .find(|vpc| vpc.id == id)
            .cloned()
            .unwrap_or_else(|| Vpc { id: id.to_owned(), ..Vpc::default() })),
        _ => Err(PlanProblem::with(
            "SUBNET",
            format!("names subnets of several VPCs ({}); take those of one", ids.join(", ")),
        )),
    }
}

/// The route table of a subnet: its own, or its VPC's main one.
fn table<'a>(facts: &'a NetworkFacts, subnet: &str, vpc: &Vpc) -> Option<&'a RouteTable> {
    let own = facts.tables.iter().find(|table| table.subnets.iter().any(|id| id == subnet));
    own.or_else(|| facts.tables.iter().find(|table| table.main && table.vpc == vpc.id))
}

/// The subnets of which the pipe can reach machines.
fn reachable(
    facts: &NetworkFacts,
    aws: &AwsSettings,
    vpc: &Vpc,
    by_private: bool,
    warnings: &mut Vec<String>,
) -> Result<Vec<Subnet>, PlanProblem> {
    let mut subnets: Vec<&SubnetFacts> = facts.subnets.iter().filter(|it| it.vpc == vpc.id).collect();
    subnets.sort_by_key(|it| Reverse(it.room));
    let way = |subnet: &&SubnetFacts| {
        table(facts, &subnet.id, vpc).is_some_and(|table| if by_private { table.out } else { table.internet })
    };
    let (open, closed): (Vec<&SubnetFacts>, Vec<&SubnetFacts>) = subnets.into_iter().partition(way);
    let names = closed.iter().map(|subnet| subnet.id.as_str()).collect::<Vec<_>>().join(", ");
    if by_private {
        if !closed.is_empty() {
            warnings.push(format!("no route leads out of {names}: a training there downloads nothing"));
        }
        return Ok(one_a_zone(open.into_iter().chain(closed)));
    }
    if open.is_empty() {
        return Err(no_way_in(aws, vpc, &names));
    }
    if !closed.is_empty() {
        warnings.push(format!("left out, as no route to an internet gateway leads out of it: {names}"));
    }
    Ok(one_a_zone(open))
}

/// The problem of a network whose subnets the internet does not reach, blamed on what the user chose, if
/// anything.
fn no_way_in(aws: &AwsSettings, vpc: &Vpc, subnets: &str) -> PlanProblem {
    let why = format!(
        "offers no way in: no route to an internet gateway leads out of {subnets}, so the pipe cannot reach a machine there"
    );
    let inside = "run the pipe inside the VPC with SSH_ADDRESS 'private'";
    if aws.subnets.is_empty() {
        return PlanProblem::new(format!(
            "the default VPC {} {why}; give the VPC an internet gateway and a route to it, name public subnets of another \
             VPC in SUBNET, or {inside}",
            vpc.id
        ));
    }
    PlanProblem::with("SUBNET", format!("{why}; take a public subnet, or {inside}"))
}

/// The first of each zone: a fleet refuses to have two pools of one type in a zone.
fn one_a_zone<'a>(subnets: impl IntoIterator<Item = &'a SubnetFacts>) -> Vec<Subnet> {
    let mut zones = BTreeMap::<&str, &SubnetFacts>::new();
    for subnet in subnets {
        zones.entry(&subnet.zone).or_insert(subnet);
    }
    zones.into_values().map(|it| Subnet { id: it.id.clone(), zone: it.zone.clone() }).collect()
}

fn group(
    facts: &NetworkFacts,
    aws: &AwsSettings,
    vpc: &Vpc,
    warnings: &mut Vec<String>,
) -> Result<Option<String>, PlanProblem> {
    let Some(wanted) = &aws.security_group else { return Ok(None) };
    let wrong = |what: String| Err(PlanProblem::with("SECURITY_GROUP", format!("is {wanted}, {what}")));
    let Some(group) = facts.groups.iter().find(|it| it.id == *wanted) else {
        return wrong("which the region does not have".to_owned());
    };
    if group.vpc != vpc.id {
        return wrong(format!("which is of {}, but the subnets are of {}", group.vpc, vpc.id));
    }
    if !group.lets_ssh_in {
        warnings.push(format!("SECURITY_GROUP {wanted} has no rule that lets port 22 in"));
    }
    Ok(Some(group.id.clone()))
}

#[cfg(test)]
mod tests;
