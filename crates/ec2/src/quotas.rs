//! The account's quotas: how many virtual CPUs it may have at once, for each family of types. Read where that
//! is allowed.

use super::client::AwsClients;
use super::failure::{AwsError, call};
use super::plan::{Offer, RegionPlan};
use super::pools::{CapacityType, QuotaFamily, quota_family};
use futures_util::future::join_all;
use std::collections::BTreeMap;
use trainspot_base::error::{Error, Kind};
use trainspot_compute::checks::Check;

/// The codes of the quotas at Service Quotas, by family, for spot and on demand: the same in every region.
///
/// Source: `aws service-quotas list-service-quotas --service-code ec2`, as several public projects list its
/// answer.
const QUOTA_CODES: [(&str, &str, &str); 8] = [
    ("m", "L-34B43A08", "L-1216C47A"),
    ("g", "L-3819A6DF", "L-DB2E81BA"),
    ("p", "L-7212CCBC", "L-417A185B"),
    ("f", "L-88CF9481", "L-74FC7D96"),
    ("x", "L-E3A00192", "L-7295265B"),
    ("dl", "L-85EED4F7", "L-6E869C2A"),
    ("inf", "L-B5D1601B", "L-1945791B"),
    ("trn", "L-6B0D517C", "L-2C3B7624"),
];

/// Checks whether a region's quotas for one way to pay allow one machine of a planned type. What other
/// machines use of a quota is not counted: they may be gone when the run begins.
pub(super) async fn check(clients: &AwsClients, plan: &RegionPlan, capacity: CapacityType) -> Check {
    let subject = format!("{}: vCPU quota for {capacity} machines", plan.region);
    let least = least_cpus(&plan.machine.types);
    if least.is_empty() {
        return Check::unverified(subject, "not compared, as the sizes of the types are not known");
    }
    let quotas =
        join_all(least.keys().map(|quota_family| quota(clients, &plan.region, *quota_family, capacity)))
            .await;
    match quotas.into_iter().collect::<Result<Vec<_>, _>>() {
        Ok(quotas) => judged(subject, &least, &quotas, capacity),
        Err(failure) => {
            let why = "not compared, as servicequotas:GetServiceQuota failed, which is optional";
            Check::unverified(subject, format!("{why}: {failure}"))
        }
    }
}

/// The virtual CPUs of the smallest type of each family.
fn least_cpus(types: &[Offer]) -> BTreeMap<QuotaFamily, u32> {
    let mut least = BTreeMap::new();
    for offer in types.iter().filter(|offer| offer.cpus > 0) {
        let cpus = least.entry(quota_family(&offer.name)).or_insert(offer.cpus);
        *cpus = offer.cpus.min(*cpus);
    }
    least
}

/// Reads a family's quota, in virtual CPUs.
async fn quota(
    clients: &AwsClients,
    region: &str,
    of: QuotaFamily,
    capacity: CapacityType,
) -> Result<f64, AwsError> {
    let codes = QUOTA_CODES.iter().find(|(letters, ..)| quota_family(letters) == of);
    let (_, spot, on_demand) = codes.ok_or_else(|| AwsError::incomplete("quota of this family"))?;
    let code = if capacity == CapacityType::Spot { spot } else { on_demand };
    let client = clients.quotas(region);
    call("servicequotas:GetServiceQuota", &format!("cannot read the quota {code} in {region}"), async || {
        let answer = client.get_service_quota().service_code("ec2").quota_code(*code).send().await?;
        let value = answer.quota.and_then(|quota| quota.value);
        value.ok_or_else(|| AwsError::incomplete("value of the quota"))
    })
    .await
}

/// The check of quotas that were read, one for each family of `least`: one family with room is enough.
fn judged(
    subject: String,
    least: &BTreeMap<QuotaFamily, u32>,
    quotas: &[f64],
    capacity: CapacityType,
) -> Check {
    let short = |((_, cpus), quota): &((&QuotaFamily, &u32), &f64)| f64::from(**cpus) > **quota;
    let compared = || least.iter().zip(quotas);
    let told: Vec<_> = compared()
        .map(|((quota_family, cpus), quota)| {
            format!("{quota_family}: {quota}, the smallest of your types has {cpus}")
        })
        .collect();
    let told = told.join("; ");
    if !compared().all(|pair| short(&pair)) {
        return Check::from_result(format!("{subject} ({told})"), Ok(()));
    }
    let error = Error::new(format!("no type fits into its quota for {capacity} machines ({told})"));
    Check::from_result::<()>(subject, Err(error.kind(Kind::Configuration).hint(
        "ask for a higher quota in Service Quotas (Amazon EC2), twice what one machine has; or name types of other families",
    )))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn offer(name: &str, cpus: u32) -> Offer {
        Offer {
            name: name.to_owned(),
            cpus,
            memory: 0,
            gpus: 0,
            gpu_memory: 0,
            spot: vec![],
            on_demand: None,
        }
    }

    #[test]
    fn every_family_has_codes_of_its_own() {
        let families: Vec<QuotaFamily> =
            QUOTA_CODES.iter().map(|(letters, ..)| quota_family(letters)).collect();
        let mut codes: Vec<&str> =
            QUOTA_CODES.iter().flat_map(|(_, spot, on_demand)| [*spot, *on_demand]).collect();
        codes.sort_unstable();
        codes.dedup();
        assert_eq!(codes.len(), 2 * families.iter().collect::<std::collections::BTreeSet<_>>().len());
    }

    #[test]
    fn one_family_with_room_is_enough() {
        let least = least_cpus(&[
            offer("g5.4xlarge", 16),
            offer("g5.xlarge", 4),
            offer("m5.large", 2),
            offer("c5.large", 0),
        ]);
        assert_eq!(least.len(), 2);
        let order: Vec<String> = least.keys().map(ToString::to_string).collect();
        assert_eq!(order, ["G and VT", "Standard (A, C, D, H, I, M, R, T, Z)"]);
        assert!(!judged("q".to_owned(), &least, &[0.0, 5.0], CapacityType::Spot).is_failed());
        let check = judged("q".to_owned(), &least, &[3.0, 1.0], CapacityType::Spot);
        assert!(check.is_failed());
        assert!(check.text().contains("no type fits into its quota for spot machines (G and VT: 3, the smallest of your types has 4; "), "{}", check.text());
    }
}
