//! The pools of capacity that one attempt asks for.

use super::plan::{Network, Offer, RegionPlan, TypeChoice};
use std::collections::BTreeSet;
use std::fmt;
use trainspot_compute::Pool;
use trainspot_compute::aws::Purchase;

/// The most overrides that one fleet takes.
const OVERRIDES_LIMIT: usize = 300;
/// The most sets of requirements that one fleet takes; EC2 refuses a fifth with `InvalidParameterValue`.
/// Source: Auto Scaling's guide and the SDK on `LaunchTemplateOverrides`; the guide to EC2 Fleet does not
/// say.
const REQUIREMENTS_LIMIT: usize = 4;

/// The capacity that one attempt asks for: spot or on demand.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum CapacityType {
    /// A spot machine.
    Spot,
    /// A machine on demand.
    OnDemand,
}

impl fmt::Display for CapacityType {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Spot => "spot",
            Self::OnDemand => "on demand",
        })
    }
}

/// Whether the run has lost a machine in a pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PoolHistory {
    /// Pools in which the run has lost no machine.
    Fresh,
    /// Pools in which the run has lost one.
    Lost,
}

/// A subnet, and the types to ask for there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct SubnetTypes {
    pub(super) subnet: String,
    pub(super) zone: String,
    pub(super) types: Vec<String>,
}

/// The ways to pay, in the order in which they are tried.
pub(super) fn modes(purchase: Purchase) -> &'static [CapacityType] {
    match purchase {
        Purchase::Spot => &[CapacityType::Spot],
        Purchase::SpotThenOnDemand => &[CapacityType::Spot, CapacityType::OnDemand],
        Purchase::OnDemand => &[CapacityType::OnDemand],
    }
}

/// The attempts of one round, in their order. The pools of spot that were lost come after the others, as what
/// is taken once is soon taken again, but before on demand: they cost a third of it, and what is taken within
/// the hour is free.
pub(super) fn attempts(purchase: Purchase, regions: usize) -> Vec<(PoolHistory, CapacityType, usize)> {
    let ways: &[(PoolHistory, CapacityType)] = match purchase {
        Purchase::Spot => {
            &[(PoolHistory::Fresh, CapacityType::Spot), (PoolHistory::Lost, CapacityType::Spot)]
        }
        Purchase::SpotThenOnDemand => &[
            (PoolHistory::Fresh, CapacityType::Spot),
            (PoolHistory::Lost, CapacityType::Spot),
            (PoolHistory::Fresh, CapacityType::OnDemand),
        ],
        Purchase::OnDemand => &[(PoolHistory::Fresh, CapacityType::OnDemand)],
    };
    let each = |&(history, capacity): &(PoolHistory, CapacityType)| {
        (0..regions).map(move |region| (history, capacity, region))
    };
    ways.iter().flat_map(each).collect()
}

/// The subnets and types that an attempt asks for, without the families whose quota is used up. Empty where
/// nothing is left to ask for.
pub(super) fn candidates(
    plan: &RegionPlan,
    (history, capacity): (PoolHistory, CapacityType),
    avoid: &[Pool],
    full: &BTreeSet<(CapacityType, QuotaFamily)>,
) -> Vec<SubnetTypes> {
    // A machine on demand is never reclaimed.
    let lost = |name: &str, zone: &str| {
        let is_it = |pool: &Pool| pool.zone == zone && pool.instance_type == name;
        capacity == CapacityType::Spot && avoid.iter().any(is_it)
    };
    let wanted = |offer: &Offer, zone: &str| {
        // With a choice by attributes only the fleet knows the zones of each type.
        (plan.machine.by_attributes || offer.spot.iter().any(|(there, _)| there == zone))
            && (history == PoolHistory::Lost) == lost(&offer.name, zone)
            && !full.contains(&(capacity, quota_family(&offer.name)))
    };
    within_limit(&plan.machine, &plan.network, wanted)
}

/// The wanted types of each subnet, in the plan's order, as many as one fleet takes.
fn within_limit(
    choice: &TypeChoice,
    network: &Network,
    wanted: impl Fn(&Offer, &str) -> bool,
) -> Vec<SubnetTypes> {
    let room = if choice.by_attributes { usize::MAX } else { OVERRIDES_LIMIT / network.subnets.len().max(1) };
    let candidate = |subnet: &super::plan::Subnet| {
        let types = choice.types.iter().filter(|offer| wanted(offer, &subnet.zone));
        let types: Vec<_> = types.take(room).map(|offer| offer.name.clone()).collect();
        SubnetTypes { subnet: subnet.id.clone(), zone: subnet.zone.clone(), types }
    };
    network
        .subnets
        .iter()
        .take(OVERRIDES_LIMIT)
        .map(candidate)
        .filter(|candidate| !candidate.types.is_empty())
        .collect()
}

/// The candidates of each fleet that is to be asked for in turn: as many as one fleet takes. Where AWS
/// chooses the types by attributes, each candidate is a set of requirements of its own.
pub(super) fn batches(
    candidates: &[SubnetTypes],
    by_attributes: bool,
) -> impl Iterator<Item = Vec<SubnetTypes>> {
    let most = if by_attributes { REQUIREMENTS_LIMIT } else { OVERRIDES_LIMIT };
    candidates.chunks(most).map(<[SubnetTypes]>::to_vec)
}

/// The types that share a quota, which counts virtual CPUs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct QuotaFamily(&'static str);

/// The quota's name in Service Quotas, as in "All … Spot Instance Requests".
impl fmt::Display for QuotaFamily {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.0)
    }
}

/// The family of a type, by the letters before its generation.
///
/// Source: docs.aws.amazon.com/AWSEC2/latest/UserGuide/using-spot-limits.html.
pub(super) fn quota_family(instance_type: &str) -> QuotaFamily {
    let letters: &str =
        instance_type.split(|letter: char| !letter.is_ascii_alphabetic()).next().unwrap_or_default();
    QuotaFamily(match letters {
        "g" | "gr" | "vt" => "G and VT",
        "p" => "P",
        "dl" => "DL",
        "trn" => "Trn",
        "inf" => "Inf",
        "f" => "F",
        "x" | "u" => "X",
        _ => "Standard (A, C, D, H, I, M, R, T, Z)",
    })
}

#[cfg(test)]
mod tests;
