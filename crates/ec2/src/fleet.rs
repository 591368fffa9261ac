//! One attempt to get a machine: a fleet of one, in whichever of its pools has most room for its price.
//!
//! A fleet of the type `instant` is asked for once and then left alone by AWS: it never launches anything
//! later.

use super::client::AwsClients;
use super::failure::{AwsError, allowed, call_within};
use super::plan::{RegionPlan, Subnet, requirements};
use super::pools::{CapacityType, SubnetTypes};
use super::sdk_config::timeouts;
use super::tags::Tags;
use aws_sdk_ec2::operation::create_fleet::builders::CreateFleetFluentBuilder;
use aws_sdk_ec2::types::{
    CreateFleetError, DefaultTargetCapacityType, FleetLaunchTemplateConfigRequest,
    FleetLaunchTemplateOverridesRequest, FleetLaunchTemplateSpecificationRequest,
    FleetOnDemandAllocationStrategy, FleetType, InstanceRequirementsRequest, InstanceType,
    LaunchTemplateAndOverridesResponse, OnDemandOptionsRequest, ResourceType, SpotAllocationStrategy,
    SpotInstanceInterruptionBehavior, SpotOptionsRequest, TargetCapacitySpecificationRequest,
};
use std::time::Duration;
use trainspot_compute::Pool;
use trainspot_compute::aws::{AwsSettings, MachineNeeds};

/// How long EC2 may take to answer for a fleet: it launches, or fails to, in hundreds of pools before it
/// does. Cut off earlier, the call is made again with the same token, which is harmless, but the third time
/// ends the attempt.
const FLEET_DEADLINE: Duration = Duration::from_mins(1);
/// The most types that one set of requirements may allow.
const ALLOWED_TYPES_LIMIT: usize = 400;

const FLEET_ACTION: &str = "ec2:CreateFleet";

/// A new client token, of at most 64 characters: a call that repeats the token makes nothing new.
pub(super) fn client_token() -> String {
    format!("trainspot-{:032x}", fastrand::u128(..))
}

/// The fleet that one attempt asks for.
#[derive(Clone, Debug)]
pub(super) struct FleetRequest {
    pub(super) capacity: CapacityType,
    pub(super) candidates: Vec<SubnetTypes>,
    overrides: Vec<FleetLaunchTemplateOverridesRequest>,
}

/// The machines and refusals in the answer to a [`FleetRequest`].
#[derive(Debug, Default)]
pub(super) struct FleetAnswer {
    pub(super) launched: Vec<LaunchedMachine>,
    pub(super) refused: Vec<PoolRefusal>,
}

/// A machine that AWS says it launched.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct LaunchedMachine {
    pub(super) id: String,
    /// The machine's pool. A zone that AWS did not tell is given as the region.
    pub(super) pool: Pool,
}

/// A pool without a machine for the fleet, and why; none where AWS does not say which pool.
#[derive(Debug)]
pub(super) struct PoolRefusal {
    pub(super) pool: Option<Pool>,
    pub(super) failure: AwsError,
}

impl FleetRequest {
    /// `by_attributes`: AWS chooses among the types of each place by what they have.
    pub(super) fn new(
        aws: &AwsSettings,
        capacity: CapacityType,
        candidates: Vec<SubnetTypes>,
        by_attributes: bool,
    ) -> Self {
        let overrides = candidates
            .iter()
            .flat_map(|candidate| overrides(aws, capacity, candidate, by_attributes))
            .collect();
        Self { capacity, candidates, overrides }
    }

    /// Asks for the fleet. The client token belongs to this attempt alone: when an answer is lost, the same
    /// request is sent again.
    pub(super) async fn send(
        &self,
        clients: &AwsClients,
        plan: &RegionPlan,
        template: &str,
        tags: &Tags,
    ) -> Result<FleetAnswer, AwsError> {
        let what = format!("cannot ask for a machine in {}", plan.region);
        let request = self.request(clients, plan, template, tags);
        let answer = call_within(FLEET_DEADLINE, FLEET_ACTION, &what, async || {
            let patient = aws_sdk_ec2::config::Builder::new().timeout_config(timeouts(FLEET_DEADLINE));
            Ok(request.clone().customize().config_override(patient).send().await?)
        });
        let answer = answer.await?;
        let (subnets, mut launched) = (&plan.network.subnets, Vec::new());
        for instance in answer.instances() {
            let kind = instance.instance_type().map(InstanceType::as_str);
            let pool =
                pool(instance.launch_template_and_overrides(), kind, subnets).unwrap_or_else(|| Pool {
                    // A zone's name begins with its region's, which is all that is needed to end the machine.
                    zone: plan.region.clone(),
                    instance_type: kind.unwrap_or("a machine").to_owned(),
                });
            let ids = instance.instance_ids().iter();
            launched.extend(ids.map(|id| LaunchedMachine { id: id.clone(), pool: pool.clone() }));
        }
        let refused = answer.errors().iter().map(|error| refusal(error, subnets)).collect();
        Ok(FleetAnswer { launched, refused })
    }
}

impl FleetRequest {
    /// Asks whether the caller may ask, by EC2's own `DryRun`: nothing is launched.
    ///
    /// # Errors
    /// The permission is missing, or EC2 refuses a parameter.
    pub(super) async fn rehearse(
        &self,
        clients: &AwsClients,
        plan: &RegionPlan,
        template: &str,
        tags: &Tags,
    ) -> Result<(), AwsError> {
        let what = format!("cannot ask for a machine in {}", plan.region);
        let request = self.request(clients, plan, template, tags).dry_run(true);
        allowed(FLEET_ACTION, &what, async || Ok(request.clone().send().await.map(drop)?)).await
    }

    fn request(
        &self,
        clients: &AwsClients,
        plan: &RegionPlan,
        template: &str,
        tags: &Tags,
    ) -> CreateFleetFluentBuilder {
        let template = FleetLaunchTemplateSpecificationRequest::builder().launch_template_id(template);
        let config = FleetLaunchTemplateConfigRequest::builder()
            .launch_template_specification(template.version("$Default").build())
            .set_overrides(Some(self.overrides.clone()))
            .build();
        let request = clients.ec2(&plan.region).create_fleet().client_token(client_token());
        let request =
            request.r#type(FleetType::Instant).target_capacity_specification(one_machine(self.capacity));
        let request = match self.capacity {
            CapacityType::Spot => request.spot_options(spot_options()),
            CapacityType::OnDemand => request.on_demand_options(on_demand_options()),
        };
        let kinds = [ResourceType::Fleet, ResourceType::Instance, ResourceType::Volume];
        let tags = kinds.map(|kind| tags.on(kind)).to_vec();
        request.launch_template_configs(config).set_tag_specifications(Some(tags))
    }
}

fn one_machine(capacity: CapacityType) -> TargetCapacitySpecificationRequest {
    let kind = match capacity {
        CapacityType::Spot => DefaultTargetCapacityType::Spot,
        CapacityType::OnDemand => DefaultTargetCapacityType::OnDemand,
    };
    TargetCapacitySpecificationRequest::builder()
        .total_target_capacity(1)
        .default_target_capacity_type(kind)
        .build()
}

fn spot_options() -> SpotOptionsRequest {
    SpotOptionsRequest::builder()
        .allocation_strategy(SpotAllocationStrategy::PriceCapacityOptimized)
        .instance_interruption_behavior(SpotInstanceInterruptionBehavior::Terminate)
        .build()
}

fn on_demand_options() -> OnDemandOptionsRequest {
    OnDemandOptionsRequest::builder()
        .allocation_strategy(FleetOnDemandAllocationStrategy::LowestPrice)
        .build()
}

fn overrides(
    aws: &AwsSettings,
    capacity: CapacityType,
    candidate: &SubnetTypes,
    by_attributes: bool,
) -> Vec<FleetLaunchTemplateOverridesRequest> {
    let price = aws.max_price.filter(|_| capacity == CapacityType::Spot).map(|price| price.to_string());
    let base = || {
        FleetLaunchTemplateOverridesRequest::builder()
            .subnet_id(&candidate.subnet)
            .set_max_price(price.clone())
    };
    if by_attributes {
        return vec![base().set_instance_requirements(restrict_to(&candidate.types, &aws.machine)).build()];
    }
    let each = |name: &String| base().instance_type(InstanceType::from(name.as_str())).build();
    candidate.types.iter().map(each).collect()
}

/// The user's requirements, restricted to the types that the plan showed. AWS leaves out types that cost far
/// more than the cheapest.
fn restrict_to(types: &[String], wanted: &MachineNeeds) -> Option<InstanceRequirementsRequest> {
    let mut asked = requirements(wanted)?;
    // EC2 takes a list of what is allowed or one of what is not; the plan has left that out.
    asked.excluded_instance_types = None;
    asked.allowed_instance_types = Some(types.iter().take(ALLOWED_TYPES_LIMIT).cloned().collect());
    Some(asked)
}

fn refusal(error: &CreateFleetError, subnets: &[Subnet]) -> PoolRefusal {
    let code = error.error_code().unwrap_or("no code");
    let failure = AwsError::in_answer(code, error.error_message().unwrap_or_default());
    PoolRefusal { pool: pool(error.launch_template_and_overrides(), None, subnets), failure }
}

/// The pool that an answer names: the type may stand beside the override, and the subnet tells the zone where
/// the answer does not.
fn pool(
    said: Option<&LaunchTemplateAndOverridesResponse>,
    kind: Option<&str>,
    subnets: &[Subnet],
) -> Option<Pool> {
    let overrides = said?.overrides()?;
    let kind = kind.or_else(|| overrides.instance_type().map(InstanceType::as_str))?;
    let by_subnet = || subnets.iter().find(|subnet| Some(subnet.id.as_str()) == overrides.subnet_id());
    let zone = overrides.availability_zone().or_else(|| by_subnet().map(|subnet| subnet.zone.as_str()))?;
    Some(Pool { zone: zone.to_owned(), instance_type: kind.to_owned() })
}
