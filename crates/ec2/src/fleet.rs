//! One attempt to get a machine: a fleet of one, in whichever of its pools has most room for its price.
//!
//! A fleet of the type `instant` is asked for once and then left alone by AWS: it never launches anything
//! later.

use super::client::{Cloud, timeouts};
use super::failure::{Failure, allowed, call_within};
use super::plan::{RegionPlan, Subnet, requirements};
use super::pools::{Mode, Place};
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
const ALLOWED: usize = 400;

const ACTION: &str = "ec2:CreateFleet";

/// A name for one attempt: the same again makes nothing new. At most 64 characters.
pub(super) fn token() -> String {
    format!("trainspot-{:032x}", fastrand::u128(..))
}

/// What one attempt asks for.
#[derive(Clone, Debug)]
pub(super) struct Request {
    pub(super) mode: Mode,
    pub(super) places: Vec<Place>,
    overrides: Vec<FleetLaunchTemplateOverridesRequest>,
}

/// What came of it.
#[derive(Debug, Default)]
pub(super) struct Answer {
    pub(super) launched: Vec<Launched>,
    pub(super) refused: Vec<Refusal>,
}

/// A machine that AWS says it launched.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Launched {
    pub(super) id: String,
    /// Where it is; of its type and zone, what AWS did not say is left open.
    pub(super) pool: Pool,
}

/// A pool that was not to be had, if AWS says which, and why.
#[derive(Debug)]
pub(super) struct Refusal {
    pub(super) pool: Option<Pool>,
    pub(super) failure: Failure,
}

impl Request {
    /// `by_attributes`: AWS chooses among the types of each place by what they have.
    pub(super) fn new(aws: &AwsSettings, mode: Mode, places: Vec<Place>, by_attributes: bool) -> Self {
        let overrides = places.iter().flat_map(|place| overrides(aws, mode, place, by_attributes)).collect();
        Self { mode, places, overrides }
    }

    /// Asks. The token belongs to this attempt alone; an answer that was lost is asked for again by it.
    pub(super) async fn send(
        &self,
        cloud: &Cloud,
        plan: &RegionPlan,
        template: &str,
        tags: &Tags,
    ) -> Result<Answer, Failure> {
        let what = format!("cannot ask for a machine in {}", plan.region);
        let request = self.request(cloud, plan, template, tags);
        let answer = call_within(FLEET_DEADLINE, ACTION, &what, async || {
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
            launched.extend(ids.map(|id| Launched { id: id.clone(), pool: pool.clone() }));
        }
        let refused = answer.errors().iter().map(|error| refusal(error, subnets)).collect();
        Ok(Answer { launched, refused })
    }
}

impl Request {
    /// Asks whether the caller may ask, by EC2's own `DryRun`: nothing is launched.
    ///
    /// # Errors
    /// The permission is missing, or EC2 refuses a parameter.
    pub(super) async fn rehearse(
        &self,
        cloud: &Cloud,
        plan: &RegionPlan,
        template: &str,
        tags: &Tags,
    ) -> Result<(), Failure> {
        let what = format!("cannot ask for a machine in {}", plan.region);
        let request = self.request(cloud, plan, template, tags).dry_run(true);
        allowed(ACTION, &what, async || Ok(request.clone().send().await.map(drop)?)).await
    }

    fn request(
        &self,
        cloud: &Cloud,
        plan: &RegionPlan,
        template: &str,
        tags: &Tags,
    ) -> CreateFleetFluentBuilder {
        let template = FleetLaunchTemplateSpecificationRequest::builder().launch_template_id(template);
        let config = FleetLaunchTemplateConfigRequest::builder()
            .launch_template_specification(template.version("$Default").build())
            .set_overrides(Some(self.overrides.clone()))
            .build();
        let request = cloud.ec2(&plan.region).create_fleet().client_token(token());
        let request = request.r#type(FleetType::Instant).target_capacity_specification(one(self.mode));
        let request = match self.mode {
            Mode::Spot => request.spot_options(spot()),
            Mode::OnDemand => request.on_demand_options(cheapest()),
        };
        let kinds = [ResourceType::Fleet, ResourceType::Instance, ResourceType::Volume];
        let tags = kinds.map(|kind| tags.on(kind)).to_vec();
        request.launch_template_configs(config).set_tag_specifications(Some(tags))
    }
}

fn one(mode: Mode) -> TargetCapacitySpecificationRequest {
    let kind = match mode {
        Mode::Spot => DefaultTargetCapacityType::Spot,
        Mode::OnDemand => DefaultTargetCapacityType::OnDemand,
    };
    TargetCapacitySpecificationRequest::builder()
        .total_target_capacity(1)
        .default_target_capacity_type(kind)
        .build()
}

fn spot() -> SpotOptionsRequest {
    SpotOptionsRequest::builder()
        .allocation_strategy(SpotAllocationStrategy::PriceCapacityOptimized)
        .instance_interruption_behavior(SpotInstanceInterruptionBehavior::Terminate)
        .build()
}

fn cheapest() -> OnDemandOptionsRequest {
    OnDemandOptionsRequest::builder()
        .allocation_strategy(FleetOnDemandAllocationStrategy::LowestPrice)
        .build()
}

fn overrides(
    aws: &AwsSettings,
    mode: Mode,
    place: &Place,
    by_attributes: bool,
) -> Vec<FleetLaunchTemplateOverridesRequest> {
    let price = aws.max_price.filter(|_| mode == Mode::Spot).map(|price| price.to_string());
    let base = || {
        FleetLaunchTemplateOverridesRequest::builder().subnet_id(&place.subnet).set_max_price(price.clone())
    };
    if by_attributes {
        return vec![base().set_instance_requirements(held_to(&place.types, &aws.machine)).build()];
    }
    let each = |name: &String| base().instance_type(InstanceType::from(name.as_str())).build();
    place.types.iter().map(each).collect()
}

/// What the user asked for, held to the types that the plan showed. AWS leaves out what costs far more than
/// the cheapest.
fn held_to(types: &[String], wanted: &MachineNeeds) -> Option<InstanceRequirementsRequest> {
    let mut asked = requirements(wanted)?;
    // EC2 takes a list of what is allowed or one of what is not; the plan has left that out.
    asked.excluded_instance_types = None;
    asked.allowed_instance_types = Some(types.iter().take(ALLOWED).cloned().collect());
    Some(asked)
}

fn refusal(error: &CreateFleetError, subnets: &[Subnet]) -> Refusal {
    let code = error.error_code().unwrap_or("no code");
    let failure = Failure::told(code, error.error_message().unwrap_or_default());
    Refusal { pool: pool(error.launch_template_and_overrides(), None, subnets), failure }
}

/// The pool that an answer speaks of: its type may stand beside the override, its zone may be told by its
/// subnet.
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
