//! What a fleet's refusals mean together, and which quotas they name.

use super::failure::{AwsError, ErrorClass};
use super::fleet::PoolRefusal;
use super::pools::{QuotaFamily, SubnetTypes, quota_family};

/// The first refusal's failure, for a region in which all of them are final.
pub(super) fn first_failure(region: &str, refused: Vec<PoolRefusal>) -> AwsError {
    let first_failure = refused.into_iter().next().map(|refusal| refusal.failure);
    first_failure
        .unwrap_or_else(|| AwsError::incomplete("machine"))
        .or_during("ec2:CreateFleet", &format!("cannot get a machine in {region}"))
}

/// The class of all refusals together, which is that of the most hopeful one.
pub(super) fn combined_class(refused: &[PoolRefusal]) -> Option<ErrorClass> {
    let despair = |class: ErrorClass| match class {
        ErrorClass::TryElsewhere | ErrorClass::TryOtherFamily | ErrorClass::Transient => 0,
        ErrorClass::NotFound => 1,
        ErrorClass::Fatal => 2,
    };
    refused.iter().map(|refusal| refusal.failure.class()).min_by_key(|class| despair(*class))
}

/// The families whose quota is used up; where AWS does not say which, all that were asked for.
pub(super) fn used_up_families<'a>(
    refused: impl IntoIterator<Item = &'a PoolRefusal>,
    candidates: &[SubnetTypes],
) -> impl Iterator<Item = QuotaFamily> {
    let quota = refused.into_iter().filter(|refusal| refusal.failure.class() == ErrorClass::TryOtherFamily);
    quota.flat_map(|refusal| match &refusal.pool {
        Some(pool) => vec![quota_family(&pool.instance_type)],
        None => candidates
            .iter()
            .flat_map(|candidate| candidate.types.iter().map(|name| quota_family(name)))
            .collect(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;
    use trainspot_compute::Pool;

    fn refusal(code: &str, kind: Option<&str>) -> PoolRefusal {
        let pool = kind.map(|kind| Pool { zone: "a".to_owned(), instance_type: kind.to_owned() });
        PoolRefusal { pool, failure: AwsError::in_answer(code, "no") }
    }

    #[test]
    fn one_refusal_that_leaves_hope_is_enough() {
        let (none, bad) = ("InsufficientInstanceCapacity", "InvalidParameterValue");
        let new = "InvalidLaunchTemplateId.NotFound";
        for (codes, expected) in [
            (vec![none], Some(ErrorClass::TryElsewhere)),
            (vec![bad, none], Some(ErrorClass::TryElsewhere)),
            (vec![bad, new], Some(ErrorClass::NotFound)),
            (vec![bad, bad], Some(ErrorClass::Fatal)),
            (vec!["UnauthorizedOperation"], Some(ErrorClass::Fatal)),
            (vec![], None),
        ] {
            let refused: Vec<_> = codes.iter().map(|code| refusal(code, None)).collect();
            assert_eq!(combined_class(&refused), expected, "{codes:?}");
        }
    }

    #[test]
    fn a_quota_is_that_of_the_family_or_of_all_that_was_asked_for() {
        let types = ["m5.large", "c5.large", "g5.xlarge"].map(str::to_owned).to_vec();
        let has_asked = [SubnetTypes { subnet: "s".to_owned(), zone: "a".to_owned(), types }];
        let families =
            |refused: &[PoolRefusal]| used_up_families(refused, &has_asked).collect::<BTreeSet<_>>();
        let quota = "MaxSpotInstanceCountExceeded";
        assert_eq!(
            families(&[refusal(quota, Some("g5.xlarge"))]),
            BTreeSet::from([quota_family("g4dn.xlarge")])
        );
        assert_eq!(families(&[refusal(quota, None)]).len(), 2);
        assert!(families(&[refusal("InsufficientInstanceCapacity", Some("m5.large"))]).is_empty());
    }
}
