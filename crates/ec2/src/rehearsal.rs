//! What a dry run tries at AWS: each call that a run makes there, without renting a machine.
//!
//! Calls that launch or end a machine are made with EC2's own `DryRun`. The security group and the launch
//! template are made and removed again, as they cost nothing: a policy that asks for their tags can be tried
//! in no other way.

mod permissions;

use super::ending::{self, CleanupScope};
use super::failure::{AwsError, allowed};
use super::fleet::FleetRequest;
use super::plan::RegionPlan;
use super::pools::{CapacityType, PoolHistory, SubnetTypes, candidates, modes};
use super::tags::{HOST_KEY_TAG, Tags, USER_TAG};
use super::{Ec2, group, quotas};
use aws_sdk_ec2::types::{
    HttpTokensState, InstanceMarketOptionsRequest, InstanceMetadataOptionsRequest,
    InstanceNetworkInterfaceSpecification, InstanceType, LaunchTemplateSpecification, MarketType,
    ResourceType,
};
use futures_util::future::join_all;
use std::collections::BTreeSet;
use trainspot_base::error::{Error, Result};
use trainspot_compute::LaunchRequest;
use trainspot_compute::checks::Check;

/// The id of a security group that does not exist, for a template without one: EC2 does not look whether a
/// template's is there.
const NO_GROUP: &str = "sg-00000000000000000";

impl Ec2 {
    /// Tries all that a run needs of AWS, in each region of the plan. `request` must be of a run that nothing
    /// else uses.
    ///
    /// # Errors
    /// The plan cannot be made.
    pub async fn rehearse(&self, request: &LaunchRequest) -> Result<Vec<Check>> {
        let regions = self.plan().await?.regions.iter();
        let checks = join_all(regions.map(|plan| self.rehearse_in(plan, request))).await;
        Ok(checks.into_iter().flatten().collect())
    }

    /// Removes what a rehearsal made, which may have been dropped half-way.
    ///
    /// # Errors
    /// Names each thing that is still there, with the command that removes it.
    pub async fn forget_rehearsal(&self, request: &LaunchRequest) -> Result<()> {
        ending::delete_run_resources(&self.clients, &request.run, CleanupScope::WholeRun).await
    }

    async fn rehearse_in(&self, plan: &RegionPlan, request: &LaunchRequest) -> Vec<Check> {
        let region = &plan.region;
        let (group, mut checks) = self.rehearse_group(plan, request).await;
        for capacity in modes(self.aws.purchase) {
            checks.extend(self.rehearse_launch(plan, *capacity, request, group.as_deref()).await);
            checks.push(quotas::check(&self.clients, plan, *capacity).await);
        }
        let left =
            ending::delete_in_region(&self.clients, region, &request.run, CleanupScope::WholeRun).await;
        let subject = format!("{region}: remove what was made");
        checks.extend(match left {
            left if left.is_empty() => vec![Check::from_result(subject, Ok(()))],
            left => left.into_iter().map(|error| Check::from_result::<()>(&subject, Err(error))).collect(),
        });
        checks.extend(self.rehearse_the_rest(region).await);
        checks
    }

    /// Makes the run's security group, unless the user named one. Its id; none where it cannot be made.
    async fn rehearse_group(
        &self,
        plan: &RegionPlan,
        request: &LaunchRequest,
    ) -> (Option<String>, Vec<Check>) {
        if let Some(group) = &plan.network.security_group {
            return (Some(group.clone()), Vec::new());
        }
        let region = &plan.region;
        let subject = format!("{region}: make a security group");
        let group =
            match group::ensure_group(&self.clients, plan, &request.run, &self.tags(&request.run)).await {
                Ok(group) => group,
                Err(failure) => return (None, vec![check::<()>(subject, Err(failure))]),
            };
        let opened = group::allow_ssh_from(&self.clients, region, &group, &plan.network.inbound).await;
        let from = plan.network.inbound.join(", ");
        let opened = check(format!("{region}: let port 22 in from {from}"), opened);
        (Some(group), vec![check(subject, Ok(())), opened])
    }

    /// Makes the launch template for one way to pay, and asks by `DryRun` for a fleet and a machine of it.
    async fn rehearse_launch(
        &self,
        plan: &RegionPlan,
        capacity: CapacityType,
        request: &LaunchRequest,
        group: Option<&str>,
    ) -> Vec<Check> {
        let machine = match capacity {
            CapacityType::Spot => "a spot machine",
            CapacityType::OnDemand => "a machine on demand",
        };
        let subject = |what: &str| format!("{}: {what} {machine}", plan.region);
        let template = match self.make_template(plan, capacity, request, group.unwrap_or(NO_GROUP)).await {
            Ok(template) => template,
            Err(failure) => {
                let refused = check::<()>(subject("make a launch template for"), Err(failure));
                return vec![refused, not_tried(subject("launch"), "launch template")];
            }
        };
        let tags =
            self.tags(&request.run).with(HOST_KEY_TAG, &self.host_key).with(USER_TAG, &plan.image.user);
        let candidates = candidates(plan, (PoolHistory::Fresh, capacity), &[], &BTreeSet::new());
        let one = candidates.iter().take(1).cloned().collect();
        let fleet = FleetRequest::new(&self.aws, capacity, one, plan.machine.by_attributes);
        let fleet = fleet.rehearse(&self.clients, plan, &template, &tags).await;
        let mut checks = vec![
            check(subject("make a launch template for"), Ok(())),
            check(subject("ask for a fleet of"), fleet),
        ];
        // Without a group whose tags it can see, EC2 denies the launch whatever the policy allows.
        let Some(group) = group else {
            checks.push(not_tried(subject("launch"), "security group"));
            return checks;
        };
        if let Some(candidate) = candidates.first() {
            let launched = self.rehearse_machine(plan, capacity, candidate, (group, &template), &tags).await;
            checks.push(check(subject("launch"), launched));
        }
        checks
    }

    /// Asks by `DryRun` for the launch that EC2 makes for a fleet in the caller's name: the fleet's own
    /// `DryRun` does not ask for the permissions of that launch.
    async fn rehearse_machine(
        &self,
        plan: &RegionPlan,
        capacity: CapacityType,
        candidate: &SubnetTypes,
        (group, template): (&str, &str),
        tags: &Tags,
    ) -> Result<(), AwsError> {
        let interface = InstanceNetworkInterfaceSpecification::builder()
            .device_index(0)
            .subnet_id(&candidate.subnet)
            .groups(group)
            .associate_public_ip_address(plan.network.public)
            .delete_on_termination(true);
        let spot = InstanceMarketOptionsRequest::builder().market_type(MarketType::Spot).build();
        // The template has these options, too; but an organization's policy on them looks at the call alone.
        let metadata =
            InstanceMetadataOptionsRequest::builder().http_tokens(HttpTokensState::Required).build();
        let kinds = [ResourceType::Instance, ResourceType::Volume].map(|kind| tags.on(kind)).to_vec();
        let kind = candidate.types.first().map(|name| InstanceType::from(name.as_str()));
        let request = self.clients.ec2(&plan.region).run_instances().min_count(1).max_count(1);
        let request = request
            .launch_template(LaunchTemplateSpecification::builder().launch_template_id(template).build())
            .set_instance_type(kind)
            .network_interfaces(interface.build())
            .metadata_options(metadata)
            .set_instance_market_options((capacity == CapacityType::Spot).then_some(spot))
            .set_tag_specifications(Some(kinds))
            .dry_run(true);
        let what = format!("cannot launch a machine in {}", plan.region);
        allowed("ec2:RunInstances", &what, async || Ok(request.clone().send().await.map(drop)?)).await
    }
}

fn check<T>(subject: String, done: Result<T, AwsError>) -> Check {
    Check::from_result(subject, done.map_err(Error::from))
}

/// The check of a launch for which something could not be made, as its own check tells.
fn not_tried(subject: String, missing: &str) -> Check {
    Check::unverified(subject, format!("not tried, as there is no {missing} for it"))
}
