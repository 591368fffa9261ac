//! What a dry run tries at AWS: all that a run calls there, but for the machine.
//!
//! Calls that launch or end a machine are made with EC2's own `DryRun`. The security group and the launch template are
//! made and removed again, as they cost nothing: a policy that asks for their tags can be tried in no other way.

use super::ending::{self, Whose};
use super::failure::{Class, Failure, allowed, call};
use super::fleet::Request;
use super::plan::RegionPlan;
use super::pools::{Mode, Pass, Place, modes, places};
use super::tags::{HOST_KEY, Tags, USER};
use super::{Ec2, group, quotas};
use crate::checks::Check;
use crate::compute::Order;
use crate::error::{Error, Result};
use aws_sdk_ec2::types::{
    HttpTokensState, InstanceMarketOptionsRequest, InstanceMetadataOptionsRequest,
    InstanceNetworkInterfaceSpecification, InstanceType, LaunchTemplateSpecification, MarketType,
    ResourceType,
};
use futures_util::future::join_all;
use std::collections::BTreeSet;

/// A machine that is nobody's: well formed, as EC2 looks at the form before it looks at permissions.
const NO_MACHINE: &str = "i-00000000000000000";
/// A security group in the place of the one that could not be made. A template may name what does not exist.
const NO_GROUP: &str = "sg-00000000000000000";

/// The fewest results that EC2 takes for a page.
const FEW: i32 = 5;

impl Ec2 {
    /// Tries all that a run needs of AWS, in each region of the plan. `order` must be of a run that nothing else uses.
    ///
    /// # Errors
    /// The plan cannot be made.
    pub async fn rehearse(&self, order: &Order) -> Result<Vec<Check>> {
        let regions = self.plan().await?.regions.iter();
        let checks = join_all(regions.map(|plan| self.rehearse_in(plan, order))).await;
        Ok(checks.into_iter().flatten().collect())
    }

    /// Removes what a rehearsal made, which may have been dropped half-way.
    ///
    /// # Errors
    /// Names each thing that is still there, with the command that removes it.
    pub async fn forget_rehearsal(&self, order: &Order) -> Result<()> {
        ending::clean(&self.cloud, &order.run, Whose::Anyones).await
    }

    async fn rehearse_in(&self, plan: &RegionPlan, order: &Order) -> Vec<Check> {
        let region = &plan.region;
        let (group, mut checks) = self.rehearse_group(plan, order).await;
        for mode in modes(self.aws.purchase) {
            checks.extend(self.rehearse_launch(plan, *mode, order, &group).await);
            checks.push(quotas::check(&self.cloud, plan, *mode).await);
        }
        checks.push(self.rehearse_end(region).await);
        let left = ending::clean_region(&self.cloud, region, &order.run, Whose::Anyones).await;
        let subject = format!("{region}: remove what was made");
        checks.extend(match left {
            left if left.is_empty() => vec![Check::of(subject, Ok(()))],
            left => left.into_iter().map(|error| Check::of::<()>(&subject, Err(error))).collect(),
        });
        checks.extend(self.rehearse_extras(region).await);
        checks
    }

    /// The run's security group; the user's own one is used as it is.
    async fn rehearse_group(&self, plan: &RegionPlan, order: &Order) -> (String, Vec<Check>) {
        if let Some(group) = &plan.network.security_group {
            return (group.clone(), Vec::new());
        }
        let region = &plan.region;
        let made = group::group(&self.cloud, plan, &order.run, &self.tags(&order.run)).await;
        let Ok(group) = &made else {
            return (NO_GROUP.to_owned(), vec![check(format!("{region}: make a security group"), made)]);
        };
        let opened = group::let_in(&self.cloud, region, group, &plan.network.inbound).await;
        let from = plan.network.inbound.join(", ");
        let checks = [
            check(format!("{region}: make a security group"), Ok(())),
            check(format!("{region}: let port 22 in from {from}"), opened),
        ];
        (group.clone(), checks.into())
    }

    async fn rehearse_launch(&self, plan: &RegionPlan, mode: Mode, order: &Order, group: &str) -> Vec<Check> {
        let region = &plan.region;
        let subject = format!("{region}: make a launch template for a machine {mode}");
        let template = match self.make_template(plan, mode, order, group).await {
            Ok(template) => template,
            Err(failure) => return vec![check::<()>(subject, Err(failure))],
        };
        let tags = self.tags(&order.run).with(HOST_KEY, &self.host_key).with(USER, &plan.image.user);
        let places = places(plan, (Pass::Fresh, mode), &[], &BTreeSet::new());
        let one = places.iter().take(1).cloned().collect();
        let fleet = Request::new(&self.aws, mode, one, plan.machine.by_attributes);
        let fleet = fleet.rehearse(&self.cloud, plan, &template, &tags).await;
        let mut checks = vec![
            check(subject, Ok(())),
            check(format!("{region}: ask for a fleet of one machine {mode}"), fleet),
        ];
        if let Some(place) = places.first() {
            let launched = self.rehearse_machine(plan, mode, place, (group, &template), &tags).await;
            checks.push(check(format!("{region}: launch a machine {mode}"), launched));
        }
        checks
    }

    /// The launch that the fleet makes in the caller's name, whose permissions a rehearsal of the fleet does not ask for.
    async fn rehearse_machine(
        &self,
        plan: &RegionPlan,
        mode: Mode,
        place: &Place,
        (group, template): (&str, &str),
        tags: &Tags,
    ) -> Result<(), Failure> {
        let interface = InstanceNetworkInterfaceSpecification::builder()
            .device_index(0)
            .subnet_id(&place.subnet)
            .groups(group)
            .associate_public_ip_address(plan.network.public)
            .delete_on_termination(true);
        let spot = InstanceMarketOptionsRequest::builder().market_type(MarketType::Spot).build();
        // The template has them, too; but an organization's policy on them is asked for by what the call itself says.
        let metadata =
            InstanceMetadataOptionsRequest::builder().http_tokens(HttpTokensState::Required).build();
        let kinds = [ResourceType::Instance, ResourceType::Volume].map(|kind| tags.on(kind)).to_vec();
        let kind = place.types.first().map(|name| InstanceType::from(name.as_str()));
        let request = self.cloud.ec2(&plan.region).run_instances().min_count(1).max_count(1);
        let request = request
            .launch_template(LaunchTemplateSpecification::builder().launch_template_id(template).build())
            .set_instance_type(kind)
            .network_interfaces(interface.build())
            .metadata_options(metadata)
            .set_instance_market_options((mode == Mode::Spot).then_some(spot))
            .set_tag_specifications(Some(kinds))
            .dry_run(true);
        let what = format!("cannot launch a machine in {}", plan.region);
        allowed("ec2:RunInstances", &what, async || Ok(request.clone().send().await.map(drop)?)).await
    }

    async fn rehearse_end(&self, region: &str) -> Check {
        let request = self.cloud.ec2(region).terminate_instances().instance_ids(NO_MACHINE);
        let request = request.skip_os_shutdown(true).dry_run(true);
        let ended = allowed("ec2:TerminateInstances", "cannot end a machine", async || {
            Ok(request.clone().send().await.map(drop)?)
        });
        of_nothing(format!("{region}: end a machine"), ended.await, "the machine is left to its guard")
    }

    /// What a run does without, where it is not allowed.
    async fn rehearse_extras(&self, region: &str) -> Vec<Check> {
        let client = self.cloud.ec2(region);
        let requests = call("ec2:DescribeSpotInstanceRequests", "cannot look at spot requests", async || {
            Ok(client.describe_spot_instance_requests().max_results(FEW).send().await.map(drop)?)
        });
        let interfaces =
            call("ec2:DescribeNetworkInterfaces", "cannot look for the pipe's own address", async || {
                Ok(client.describe_network_interfaces().max_results(FEW).send().await.map(drop)?)
            });
        let prices = call("ec2:DescribeSpotPriceHistory", "cannot read spot prices", async || {
            Ok(client.describe_spot_price_history().max_results(FEW).send().await.map(drop)?)
        });
        let console = client.get_console_output().instance_id(NO_MACHINE).dry_run(true);
        let console = allowed("ec2:GetConsoleOutput", "cannot read a machine's console", async || {
            Ok(console.clone().send().await.map(drop)?)
        });
        let takeover = self.rehearse_takeover(region);
        let done = tokio::join!(requests, interfaces, prices, console, takeover);
        let subject = |what: &str| format!("{region}: {what}");
        vec![
            optional(
                subject("see an interruption in the spot request"),
                done.0,
                "the machine's own notice is seen all the same",
            ),
            optional(
                subject("find the pipe among the VPC's addresses"),
                done.1,
                "a pipe inside of the VPC needs SSH_ADDRESS",
            ),
            optional(
                subject("read spot prices"),
                done.2,
                "what a spot machine costs is not known then, neither to MAX_COST",
            ),
            of_nothing(
                subject("read a machine's console"),
                done.3,
                "a boot that fails is told without its console",
            ),
            of_nothing(
                subject("take over the machine of a killed pipe"),
                done.4,
                "such a machine is ended, and the training starts afresh",
            ),
        ]
    }

    async fn rehearse_takeover(&self, region: &str) -> Result<(), Failure> {
        let client = self.cloud.instance_connect(region);
        let key = self.client.public_openssh()?;
        let request = client.send_ssh_public_key().instance_id(NO_MACHINE).instance_os_user("ec2-user");
        let request = request.ssh_public_key(key);
        call("ec2-instance-connect:SendSSHPublicKey", "cannot take over a machine", async || {
            Ok(request.clone().send().await.map(drop)?)
        })
        .await
    }
}

fn check<T>(subject: String, done: Result<T, Failure>) -> Check {
    Check::of(subject, done.map_err(Error::from))
}

/// A call without which a run succeeds all the same; `without` says how.
fn optional(subject: String, done: Result<(), Failure>, without: &str) -> Check {
    match done {
        Err(failure) if failure.is_denied() => Check::open(
            subject,
            format!("{} is not allowed, and is optional: {without}", failure.missing_action()),
        ),
        done => check(subject, done),
    }
}

/// A call on a machine that does not exist. AWS may find that out before or after it looks at permissions, and a policy that
/// asks for the run's tags denies what is done to a machine that has none. So a denial proves nothing; `without` says what a
/// true one would mean.
fn of_nothing(subject: String, done: Result<(), Failure>, without: &str) -> Check {
    match done {
        Err(failure) if failure.class() == Class::Gone => check(subject, Ok(())),
        Err(failure) if failure.is_denied() => {
            let action = failure.missing_action();
            let why = format!(
                "AWS denies {action} for a machine that does not exist; if it does for the run's, {without}"
            );
            Check::open(subject, why)
        }
        done => check(subject, done),
    }
}
