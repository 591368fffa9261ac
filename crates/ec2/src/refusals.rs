//! Why no machine was launched: each reason is logged once when it comes, and all of them at the end.

use super::failure::ErrorClass;
use super::fleet::PoolRefusal;
use super::pools::{CapacityType, QuotaFamily};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;
use trainspot_base::error::{Error, Kind};
use trainspot_base::log::progress::in_words;
use trainspot_compute::Pool;

/// How many pools one line names.
const NAMED_POOLS_LIMIT: usize = 6;

/// The refusals of a search so far.
#[derive(Debug, Default)]
pub(super) struct Refusals {
    /// By region, way to pay and code.
    reasons: BTreeMap<(String, CapacityType, String), Reason>,
    /// Quotas of spot machines that are too small for what is asked for, by region.
    small_quotas: BTreeSet<(String, QuotaFamily)>,
}

#[derive(Debug)]
struct Reason {
    message: String,
    class: ErrorClass,
    pools: BTreeSet<Pool>,
    /// The advice for a reason that is no lack of capacity.
    hint: Option<String>,
}

impl Refusals {
    /// Adds the refusals of one attempt, and returns the new ones, a line for each reason.
    pub(super) fn add(
        &mut self,
        region: &str,
        capacity: CapacityType,
        refused: &[PoolRefusal],
    ) -> Vec<String> {
        let mut news: BTreeMap<(String, CapacityType, String), BTreeSet<Pool>> = BTreeMap::new();
        for refusal in refused {
            let code = refusal.failure.code().unwrap_or("no answer").to_owned();
            let key = (region.to_owned(), capacity, code);
            let first = !self.reasons.contains_key(&key);
            let reason = self.reasons.entry(key.clone()).or_insert_with(|| Reason {
                message: refusal.failure.to_string(),
                class: refusal.failure.class(),
                pools: BTreeSet::new(),
                hint: refusal.failure.hint().filter(|_| refusal.failure.class() == ErrorClass::Fatal),
            });
            let new = refusal.pool.clone().filter(|pool| reason.pools.insert(pool.clone()));
            if first || new.is_some() {
                news.entry(key).or_default().extend(new);
            }
        }
        let line = |(key, pools): (&(String, CapacityType, String), &BTreeSet<Pool>)| {
            format!("not to be had: {}: {}", asked(&key.0, key.1, pools), self.reasons[key].message)
        };
        news.iter().map(line).collect()
    }

    /// Adds a spot quota of which nothing is in use, and which is too small all the same.
    pub(super) fn add_small_quota(&mut self, region: &str, family: QuotaFamily) {
        self.small_quotas.insert((region.to_owned(), family));
    }

    /// The error with all refusals, and the advice what to change.
    pub(super) fn error(&self, waited: Duration) -> Error {
        let reasons = self.reasons.iter().map(|((region, capacity, _), reason)| {
            format!("{}: {}", asked(region, *capacity, &reason.pools), reason.message)
        });
        Error::new(format!("no machine could be had in {}", in_words(waited)))
            .source(reasons.collect::<Vec<_>>().join("; "))
            .kind(Kind::Machine)
            .hint(self.hint())
    }

    fn hint(&self) -> String {
        let any = |class| self.reasons.values().any(|reason| reason.class == class);
        let spot_only = self.reasons.keys().all(|(_, capacity, _)| *capacity == CapacityType::Spot);
        let price = self.reasons.keys().any(|(_, _, code)| code == "SpotMaxPriceTooLow");
        let mut advice: Vec<String> =
            self.reasons.values().filter_map(|reason| reason.hint.clone()).collect();
        for (region, family) in &self.small_quotas {
            advice.push(format!(
                "ask for a higher quota 'All {family} Spot Instance Requests' in Service Quotas (Amazon EC2) in {region}: no such \
                 machine runs there, so that of now is too small for any of these types"
            ));
        }
        if any(ErrorClass::TryOtherFamily) && self.small_quotas.is_empty() {
            advice.push("ask for a higher quota in Service Quotas (Amazon EC2)".to_owned());
        }
        if price {
            advice.push("raise MAX_PRICE".to_owned());
        }
        if any(ErrorClass::TryElsewhere) || !any(ErrorClass::TryOtherFamily) {
            advice.push("name more INSTANCE_TYPEs, add FALLBACK_REGIONS, raise CAPACITY_WAIT".to_owned());
        }
        if spot_only {
            advice.push("set PURCHASE to spot-then-on-demand".to_owned());
        }
        advice.join("; or ")
    }
}

fn asked(region: &str, capacity: CapacityType, pools: &BTreeSet<Pool>) -> String {
    if pools.is_empty() {
        return format!("{region}, {capacity}");
    }
    let mut zones: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for pool in pools.iter().take(NAMED_POOLS_LIMIT) {
        zones.entry(&pool.instance_type).or_default().push(&pool.zone);
    }
    let named = zones.iter().map(|(kind, zones)| format!("{kind} in {}", zones.join(", ")));
    let rest = match pools.len().saturating_sub(NAMED_POOLS_LIMIT) {
        0 => String::new(),
        count => format!(" and {count} more"),
    };
    format!("{}{rest}, {capacity}", named.collect::<Vec<_>>().join("; "))
}

#[cfg(test)]
mod tests {
    use super::super::failure::AwsError;
    use super::*;

    fn refusal(code: &str, kind: &str, zone: &str) -> PoolRefusal {
        let pool = Pool { zone: zone.to_owned(), instance_type: kind.to_owned() };
        PoolRefusal { pool: Some(pool), failure: AwsError::in_answer(code, "There is none.") }
    }

    const NONE: &str = "InsufficientInstanceCapacity";

    #[test]
    fn each_refusal_is_told_once() {
        let mut refusals = Refusals::default();
        let first =
            [refusal(NONE, "m5.large", "a"), refusal(NONE, "m5.large", "b"), refusal(NONE, "c5.large", "a")];
        assert_eq!(
            refusals.add("eu", CapacityType::Spot, &first),
            [format!("not to be had: c5.large in a; m5.large in a, b, spot: {NONE}: There is none.")]
        );
        assert!(refusals.add("eu", CapacityType::Spot, &first).is_empty());
        let second = [refusal(NONE, "m5.large", "a"), refusal(NONE, "m5.large", "c")];
        assert_eq!(
            refusals.add("eu", CapacityType::Spot, &second),
            [format!("not to be had: m5.large in c, spot: {NONE}: There is none.")]
        );
        assert_eq!(refusals.add("eu", CapacityType::OnDemand, &second).len(), 1);
        let whole = [PoolRefusal { pool: None, failure: AwsError::in_answer("Unavailable", "Later.") }];
        assert_eq!(
            refusals.add("eu", CapacityType::Spot, &whole),
            ["not to be had: eu, spot: Unavailable: Later."]
        );
        assert!(refusals.add("eu", CapacityType::Spot, &whole).is_empty());
    }

    #[test]
    fn the_end_tells_everything_and_what_to_change() {
        let mut refusals = Refusals::default();
        let zones: Vec<_> = (0..9).map(|zone| refusal(NONE, "m5.large", &format!("z{zone}"))).collect();
        refusals.add("eu", CapacityType::Spot, &zones);
        let shown = refusals.error(Duration::from_mins(15)).render();
        assert!(shown.starts_with("no machine could be had in 15m: m5.large in z0, z1,"), "{shown}");
        assert!(shown.contains("and 3 more, spot") && shown.contains("spot-then-on-demand"), "{shown}");
        assert!(!shown.contains("quota"), "{shown}");
        refusals.add("eu", CapacityType::OnDemand, &[refusal("VcpuLimitExceeded", "m5.large", "a")]);
        let shown = refusals.error(Duration::from_mins(15)).render();
        assert!(shown.contains("quota") && !shown.contains("spot-then-on-demand"), "{shown}");
    }
}
