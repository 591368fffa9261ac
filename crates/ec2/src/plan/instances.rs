//! Which types will do: those that are named, as far as the region has them, or all with enough of
//! everything.

use super::super::failure::{AwsError, call};
use super::credits::surplus;
use super::images::architecture;
use super::problem::PlanProblem;
use super::{Offer, TypeChoice};
use aws_sdk_ec2::types as sdk;
use std::collections::{BTreeMap, BTreeSet};
use trainspot_compute::aws::{AwsSettings, MachineNeeds, Purchase};

/// What AWS says of a type.
#[derive(Clone, Debug, Default)]
struct TypeFacts {
    name: String,
    cpus: u32,
    memory: u64,
    /// NVIDIA's only: the drivers of `deep-learning` are theirs.
    gpus: u32,
    gpu_memory: u64,
    /// A part of an NVIDIA GPU, which needs NVIDIA's GRID driver. None of the images has that.
    has_part_of_gpu: bool,
    architectures: Vec<String>,
    spot: bool,
}

impl From<sdk::InstanceTypeInfo> for TypeFacts {
    fn from(info: sdk::InstanceTypeInfo) -> Self {
        let gpu = info.gpu_info.unwrap_or_else(|| sdk::GpuInfo::builder().build());
        let nvidia = || gpu.gpus().iter().filter(|gpu| gpu.manufacturer() == Some("NVIDIA"));
        let gpus = nvidia().map(|gpu| gpu.count().unwrap_or(0)).sum::<i32>();
        let has_part_of_gpu =
            nvidia().any(|gpu| gpu.count().unwrap_or(0) == 0 && gpu.logical_gpu_count().unwrap_or(0) > 0);
        let processor = info.processor_info.and_then(|it| it.supported_architectures).unwrap_or_default();
        Self {
            name: info.instance_type.map(|name| name.as_str().to_owned()).unwrap_or_default(),
            cpus: whole(info.v_cpu_info.and_then(|cpus| cpus.default_v_cpus)),
            memory: info
                .memory_info
                .and_then(|it| it.size_in_mib)
                .and_then(|it| it.try_into().ok())
                .unwrap_or(0),
            gpus: whole(Some(gpus)),
            has_part_of_gpu,
            gpu_memory: if gpus > 0 { whole(gpu.total_gpu_memory_in_mib).into() } else { 0 },
            architectures: processor.iter().map(|it| it.as_str().to_owned()).collect(),
            spot: info.supported_usage_classes.unwrap_or_default().contains(&sdk::UsageClassType::Spot),
        }
    }
}

fn whole(number: Option<i32>) -> u32 {
    number.and_then(|number| u32::try_from(number).ok()).unwrap_or(0)
}

impl TypeFacts {
    fn offer(self, zones: impl IntoIterator<Item = String>) -> Offer {
        Offer {
            name: self.name,
            cpus: self.cpus,
            memory: self.memory,
            gpus: self.gpus,
            gpu_memory: self.gpu_memory,
            spot: zones.into_iter().map(|zone| (zone, None)).collect(),
            on_demand: None,
        }
    }
}

/// Finds what may be rented. Zones are those of the whole region; none are known of a choice by attributes.
pub(super) async fn find(
    ec2: &aws_sdk_ec2::Client,
    aws: &AwsSettings,
    region: &str,
) -> Result<TypeChoice, Vec<PlanProblem>> {
    let types = match &aws.machine {
        MachineNeeds::Types(names) => {
            let (types, zones) = futures_util::try_join!(described(ec2, names), offered(ec2, names))?;
            let (offers, left_out) = named(names, types, &zones, aws.purchase)?;
            for what in left_out {
                tracing::warn!("INSTANCE_TYPE in {region}: {what}");
            }
            for (name, more) in offers.iter().map(|offer| (&offer.name, surplus(&offer.name))) {
                if more > 0.0 {
                    tracing::warn!(
                        "INSTANCE_TYPE: {name} costs ${more:.4} an hour beside its price at full load, for CPU credits; a type \
                         of the families c or m is mostly cheaper"
                    );
                }
            }
            offers
        }
        wanted @ MachineNeeds::AtLeast { .. } => {
            let names = matching(ec2, wanted).await?;
            if names.is_empty() {
                return Err(vec![nothing_matches(wanted)]);
            }
            names.into_iter().map(|name| TypeFacts { name, ..TypeFacts::default() }.offer([])).collect()
        }
    };
    Ok(TypeChoice { types, by_attributes: !matches!(aws.machine, MachineNeeds::Types(_)) })
}

/// Size and GPUs of offers of which only the name is known, for those who read the plan.
pub(super) async fn detail(ec2: &aws_sdk_ec2::Client, offers: &mut [Offer]) -> Result<(), AwsError> {
    let names: Vec<String> = offers.iter().map(|offer| offer.name.clone()).collect();
    let types = described(ec2, &names).await?;
    let mut known: BTreeMap<String, TypeFacts> = types.into_iter().map(|it| (it.name.clone(), it)).collect();
    for offer in offers {
        if let Some(it) = known.remove(&offer.name) {
            (offer.cpus, offer.memory, offer.gpus, offer.gpu_memory) =
                (it.cpus, it.memory, it.gpus, it.gpu_memory);
        }
    }
    Ok(())
}

/// By filter: a name that the region does not know is then missing, instead of failing all.
async fn described(ec2: &aws_sdk_ec2::Client, names: &[String]) -> Result<Vec<TypeFacts>, AwsError> {
    call("ec2:DescribeInstanceTypes", "cannot look at the instance types", || async {
        let filter = sdk::Filter::builder().name("instance-type").set_values(Some(names.to_vec())).build();
        let pages = ec2.describe_instance_types().filters(filter).into_paginator().items().send();
        Ok(pages.try_collect().await?.into_iter().map(TypeFacts::from).collect())
    })
    .await
}

/// The zones that have each type.
async fn offered(
    ec2: &aws_sdk_ec2::Client,
    names: &[String],
) -> Result<BTreeMap<String, BTreeSet<String>>, AwsError> {
    let found = call(
        "ec2:DescribeInstanceTypeOfferings",
        "cannot tell which zones have the instance types",
        || async {
            let filter =
                sdk::Filter::builder().name("instance-type").set_values(Some(names.to_vec())).build();
            let request =
                ec2.describe_instance_type_offerings().location_type(sdk::LocationType::AvailabilityZone);
            Ok(request.filters(filter).into_paginator().items().send().try_collect().await?)
        },
    )
    .await?;
    let mut zones = BTreeMap::<String, BTreeSet<String>>::new();
    for offering in found {
        if let (Some(name), Some(zone)) = (offering.instance_type, offering.location) {
            zones.entry(name.as_str().to_owned()).or_default().insert(zone);
        }
    }
    Ok(zones)
}

async fn matching(ec2: &aws_sdk_ec2::Client, wanted: &MachineNeeds) -> Result<Vec<String>, AwsError> {
    let what = "cannot find the instance types with enough CPUS, MEMORY and GPU";
    let found = call("ec2:GetInstanceTypesFromInstanceRequirements", what, || async {
        let request = ec2
            .get_instance_types_from_instance_requirements()
            .architecture_types(architecture().into())
            .virtualization_types(sdk::VirtualizationType::Hvm)
            .set_instance_requirements(requirements(wanted));
        Ok(request.into_paginator().items().send().try_collect().await?)
    })
    .await?;
    Ok(found.into_iter().filter_map(|it| it.instance_type).collect())
}

/// A wish as EC2 takes it, in a fleet's overrides as well as in the question which types it means.
///
/// None where types are named. GPUs are NVIDIA's, as the image's drivers are; without a GPU in the wish,
/// types with one are left out, so that nobody pays for what the training does not use.
pub(crate) fn requirements(wanted: &MachineNeeds) -> Option<sdk::InstanceRequirementsRequest> {
    let &MachineNeeds::AtLeast { cpus, memory, gpus, gpu_memory } = wanted else { return None };
    let number = |value: u32| i32::try_from(value).unwrap_or(i32::MAX);
    let mib = |gib: u32| number(gib.saturating_mul(1024));
    let request = sdk::InstanceRequirementsRequest::builder()
        .v_cpu_count(sdk::VCpuCountRangeRequest::builder().min(number(cpus)).build())
        .memory_mib(sdk::MemoryMiBRequest::builder().min(mib(memory)).build())
        .instance_generations(sdk::InstanceGeneration::Current)
        .bare_metal(sdk::BareMetal::Excluded)
        .burstable_performance(sdk::BurstablePerformance::Excluded)
        .excluded_instance_types("g6f.*")
        .excluded_instance_types("gr6f.*");
    if !wanted.names_a_gpu() {
        let none = sdk::AcceleratorCountRequest::builder().max(0).build();
        return Some(request.accelerator_count(none).build());
    }
    let request = request
        .accelerator_types(sdk::AcceleratorType::Gpu)
        .accelerator_manufacturers(sdk::AcceleratorManufacturer::Nvidia)
        .accelerator_count(sdk::AcceleratorCountRequest::builder().min(number(gpus.max(1))).build());
    let total = sdk::AcceleratorTotalMemoryMiBRequest::builder().min(mib(gpu_memory)).build();
    Some(if gpu_memory > 0 { request.accelerator_total_memory_mib(total) } else { request }.build())
}

fn nothing_matches(wanted: &MachineNeeds) -> PlanProblem {
    let &MachineNeeds::AtLeast { cpus, memory, gpus, gpu_memory } = wanted else {
        return PlanProblem::with("INSTANCE_TYPE", "is empty");
    };
    PlanProblem::with(
        "CPUS, MEMORY, GPU, GPU_MEMORY",
        format!(
            "ask for {cpus} vCPUs, {memory} GiB, {gpus} GPUs with {gpu_memory} GiB together: no {} type of the region has \
             all of that; ask for less, or name types in INSTANCE_TYPE",
            architecture()
        ),
    )
}

type Zones = BTreeMap<String, BTreeSet<String>>;

/// The named types that will do, in the user's order, and what is left out, in words.
///
/// # Errors
/// A type of another architecture is a mistake wherever it is. What the region lacks is one if nothing is
/// left.
fn named(
    names: &[String],
    types: Vec<TypeFacts>,
    zones: &Zones,
    purchase: Purchase,
) -> Result<(Vec<Offer>, Vec<String>), Vec<PlanProblem>> {
    let mut known: BTreeMap<String, TypeFacts> = types.into_iter().map(|it| (it.name.clone(), it)).collect();
    let (mut offers, mut left_out, mut problems) = (Vec::new(), Vec::new(), Vec::new());
    for name in names {
        match (known.remove(name), zones.get(name)) {
            (Some(it), _) if !it.architectures.iter().any(|its| its == architecture()) => {
                problems.push(other_architecture(&it));
            }
            (Some(it), _) if it.has_part_of_gpu => left_out.push(format!(
                "{name} has a part of a GPU, which needs NVIDIA's GRID driver, and no image has that; take a type with a whole one"
            )),
            (Some(it), _) if purchase == Purchase::Spot && !it.spot => {
                left_out.push(format!("{name} cannot be had as spot (PURCHASE)"));
            }
            (Some(it), Some(zones)) => offers.push(it.offer(zones.iter().cloned())),
            _ => left_out.push(format!("the region has no {name}; check the spelling")),
        }
    }
    if offers.is_empty() && problems.is_empty() {
        problems = left_out
            .iter()
            .map(|what| PlanProblem::with("INSTANCE_TYPE", format!("will not do: {what}")))
            .collect();
    }
    if problems.is_empty() { Ok((offers, left_out)) } else { Err(problems) }
}

fn other_architecture(it: &TypeFacts) -> PlanProblem {
    let own = architecture();
    let its = it.architectures.join(" and ");
    PlanProblem::with(
        "INSTANCE_TYPE",
        format!("names {}, which is {its}; this pipe runs on {own}, and so must the machine", it.name),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn it(name: &str) -> TypeFacts {
        let architectures = vec![architecture().to_owned()];
        TypeFacts {
            name: name.to_owned(),
            cpus: 4,
            memory: 16384,
            architectures,
            spot: true,
            ..TypeFacts::default()
        }
    }

    fn zones(pairs: &[(&str, &[&str])]) -> Zones {
        let set = |zones: &[&str]| zones.iter().map(|&zone| zone.to_owned()).collect();
        pairs.iter().map(|(name, zones)| ((*name).to_owned(), set(zones))).collect()
    }

    fn names(names: &[&str]) -> Vec<String> {
        names.iter().map(|&name| name.to_owned()).collect()
    }

    #[test]
    fn types_keep_the_users_order_and_their_zones() {
        let zones = zones(&[("a.l", &["z1", "z2"]), ("b.l", &["z2"])]);
        let (offers, left_out) =
            named(&names(&["b.l", "a.l", "c.l"]), vec![it("a.l"), it("b.l")], &zones, Purchase::Spot)
                .unwrap();
        let shown: Vec<_> = offers.iter().map(|offer| (offer.name.as_str(), offer.spot.len())).collect();
        assert_eq!(shown, [("b.l", 1), ("a.l", 2)]);
        assert_eq!(left_out, ["the region has no c.l; check the spelling"]);
    }

    #[test]
    fn a_region_without_any_of_the_types_will_not_do() {
        let problems = named(&names(&["a.l", "c.l"]), vec![], &zones(&[]), Purchase::Spot).unwrap_err();
        let texts: Vec<_> = problems.iter().map(PlanProblem::text).collect();
        assert_eq!(
            texts,
            [
                "INSTANCE_TYPE will not do: the region has no a.l; check the spelling",
                "INSTANCE_TYPE will not do: the region has no c.l; check the spelling",
            ]
        );
    }

    #[test]
    fn another_architecture_is_refused_beside_types_that_would_do() {
        let other = TypeFacts { architectures: vec!["sparc".to_owned()], ..it("s.l") };
        let zones = zones(&[("a.l", &["z1"]), ("s.l", &["z1"])]);
        let problems =
            named(&names(&["a.l", "s.l"]), vec![it("a.l"), other], &zones, Purchase::Spot).unwrap_err();
        assert_eq!(problems.len(), 1);
        assert!(problems[0].text().starts_with("INSTANCE_TYPE names s.l, which is sparc; "), "{problems:?}");
    }

    #[test]
    fn a_type_that_is_never_spot_is_left_to_those_who_pay_on_demand() {
        let never = || vec![TypeFacts { spot: false, ..it("a.l") }];
        let zones = zones(&[("a.l", &["z1"])]);
        assert!(named(&names(&["a.l"]), never(), &zones, Purchase::Spot).is_err());
        assert!(named(&names(&["a.l"]), never(), &zones, Purchase::SpotThenOnDemand).is_ok());
    }

    #[test]
    fn a_part_of_a_gpu_will_not_do() {
        let part = TypeFacts { has_part_of_gpu: true, ..it("g6f.l") };
        let zones = zones(&[("a.l", &["z1"]), ("g6f.l", &["z1"])]);
        let (offers, left_out) =
            named(&names(&["g6f.l", "a.l"]), vec![it("a.l"), part.clone()], &zones, Purchase::Spot).unwrap();
        assert_eq!((offers.len(), left_out.len()), (1, 1));
        let problems = named(&names(&["g6f.l"]), vec![part], &zones, Purchase::Spot).unwrap_err();
        assert!(problems[0].text().contains("g6f.l has a part of a GPU"), "{problems:?}");
    }

    #[test]
    fn a_wish_becomes_requirements() {
        let plain = MachineNeeds::AtLeast { cpus: 4, memory: 16, gpus: 0, gpu_memory: 0 };
        let plain = requirements(&plain).unwrap();
        assert_eq!(plain.v_cpu_count().unwrap().min(), Some(4));
        assert_eq!(plain.memory_mib().unwrap().min(), Some(16384));
        assert_eq!(plain.accelerator_count().unwrap().max(), Some(0));
        assert_eq!(plain.burstable_performance(), Some(&sdk::BurstablePerformance::Excluded));
        let gpu = MachineNeeds::AtLeast { cpus: 4, memory: 16, gpus: 0, gpu_memory: 24 };
        let gpu = requirements(&gpu).unwrap();
        assert_eq!(gpu.accelerator_count().unwrap().min(), Some(1));
        assert_eq!(gpu.accelerator_total_memory_mib().unwrap().min(), Some(24576));
        assert_eq!(gpu.accelerator_manufacturers(), [sdk::AcceleratorManufacturer::Nvidia]);
        assert!(requirements(&MachineNeeds::Types(vec![])).is_none());
    }
}
