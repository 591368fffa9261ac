use super::*;
use crate::plan::{Subnet, sample};

fn offer(name: &str, zones: &[&str]) -> Offer {
    Offer {
        name: name.to_owned(),
        cpus: 2,
        memory: 8192,
        gpus: 0,
        gpu_memory: 0,
        spot: zones.iter().map(|&zone| (zone.to_owned(), None)).collect(),
        on_demand: None,
    }
}

fn plan(types: Vec<Offer>, zones: &[&str]) -> RegionPlan {
    let subnet = |&zone: &&str| Subnet { id: format!("subnet-{zone}"), zone: zone.to_owned() };
    let region = sample::region();
    let network = Network { subnets: zones.iter().map(subnet).collect(), ..region.network };
    RegionPlan { machine: TypeChoice { types, by_attributes: false }, network, ..region }
}

fn pools(candidates: &[SubnetTypes]) -> Vec<String> {
    let each = |candidate: &SubnetTypes| {
        candidate.types.iter().map(|name| format!("{name} {}", candidate.zone)).collect::<Vec<_>>()
    };
    candidates.iter().flat_map(each).collect()
}

fn pool(instance_type: &str, zone: &str) -> Pool {
    Pool { zone: zone.to_owned(), instance_type: instance_type.to_owned() }
}

#[test]
fn a_type_is_asked_for_where_it_is_and_lost_pools_come_in_a_pass_of_their_own() {
    let plan = plan(vec![offer("m5.large", &["a", "b"]), offer("g5.xlarge", &["b"])], &["a", "b", "c"]);
    let none = BTreeSet::new();
    let asked =
        |history, capacity, avoid: &[Pool]| pools(&candidates(&plan, (history, capacity), avoid, &none));
    let all = ["m5.large a", "m5.large b", "g5.xlarge b"];
    assert_eq!(asked(PoolHistory::Fresh, CapacityType::Spot, &[]), all);
    assert!(asked(PoolHistory::Lost, CapacityType::Spot, &[]).is_empty());
    let avoid = [pool("m5.large", "b"), pool("m5.large", "z")];
    assert_eq!(asked(PoolHistory::Fresh, CapacityType::Spot, &avoid), ["m5.large a", "g5.xlarge b"]);
    assert_eq!(asked(PoolHistory::Lost, CapacityType::Spot, &avoid), ["m5.large b"]);
    assert_eq!(asked(PoolHistory::Fresh, CapacityType::OnDemand, &avoid), all);
    assert!(asked(PoolHistory::Lost, CapacityType::OnDemand, &avoid).is_empty());
}

#[test]
fn a_choice_by_attributes_is_for_every_zone_but_where_it_was_lost() {
    let mut plan = plan(vec![offer("m5.large", &[]), offer("c5.large", &[])], &["a", "b"]);
    plan.machine.by_attributes = true;
    let asked = candidates(
        &plan,
        (PoolHistory::Fresh, CapacityType::Spot),
        &[pool("m5.large", "b")],
        &BTreeSet::new(),
    );
    assert_eq!(pools(&asked), ["m5.large a", "c5.large a", "c5.large b"]);
}

#[test]
fn a_used_up_quota_leaves_other_families_and_the_other_way_to_pay() {
    let plan =
        plan(vec![offer("m5.large", &["a"]), offer("c5.large", &["a"]), offer("g5.xlarge", &["a"])], &["a"]);
    let full = BTreeSet::from([(CapacityType::Spot, quota_family("r6i.large"))]);
    assert_eq!(
        pools(&candidates(&plan, (PoolHistory::Fresh, CapacityType::Spot), &[], &full)),
        ["g5.xlarge a"]
    );
    assert_eq!(candidates(&plan, (PoolHistory::Fresh, CapacityType::OnDemand), &[], &full)[0].types.len(), 3);
}

#[test]
fn a_fleet_is_not_asked_for_more_than_it_takes() {
    let types: Vec<_> = (0..200).map(|number| offer(&format!("m{number}.large"), &["a", "b", "c"])).collect();
    let plan = plan(types, &["a", "b", "c"]);
    let asked = candidates(&plan, (PoolHistory::Fresh, CapacityType::Spot), &[], &BTreeSet::new());
    assert_eq!(asked.iter().map(|candidate| candidate.types.len()).collect::<Vec<_>>(), [100, 100, 100]);
    assert_eq!(asked[2].types[0], "m0.large");
}

#[test]
fn lost_pools_of_spot_come_after_fresh_ones_and_before_on_demand() {
    let words = |purchase| {
        let words = |(history, capacity, region)| format!("{history:?} {capacity} {region}");
        attempts(purchase, 2).into_iter().map(words).collect::<Vec<_>>()
    };
    assert_eq!(
        words(Purchase::SpotThenOnDemand),
        [
            "Fresh spot 0",
            "Fresh spot 1",
            "Lost spot 0",
            "Lost spot 1",
            "Fresh on demand 0",
            "Fresh on demand 1"
        ]
    );
    assert_eq!(words(Purchase::Spot), ["Fresh spot 0", "Fresh spot 1", "Lost spot 0", "Lost spot 1"]);
    assert_eq!(words(Purchase::OnDemand), ["Fresh on demand 0", "Fresh on demand 1"]);
}

#[test]
fn quotas_are_by_family() {
    for (name, expected) in [
        ("m5.large", "Standard"),
        ("c7gd.metal", "Standard"),
        ("g4dn.xlarge", "G and VT"),
        ("gr6.4xlarge", "G and VT"),
        ("p4d.24xlarge", "P"),
        ("trn1.2xlarge", "Trn"),
        ("inf2.xlarge", "Inf"),
        ("x2idn.16xlarge", "X"),
    ] {
        assert!(quota_family(name).to_string().starts_with(expected), "{name}");
    }
}
