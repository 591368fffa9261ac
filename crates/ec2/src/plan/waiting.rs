//! What it costs beside the machine that a step of Pipelines waits for it, and what is sent home.

use super::credits::surplus;
use super::{Offer, Plan, prices};
use std::time::Duration;
use trainspot_compute::aws::{AwsSettings, Purchase};

/// What is paid for beside machines, in dollars.
#[derive(Clone, Copy, Debug)]
pub struct SideCosts {
    /// An hour of the step that waits; nothing where its minutes are not counted.
    pub waiting_hour: f64,
    /// A gigabyte that leaves AWS.
    pub gigabyte: f64,
}

impl Plan {
    /// What is paid for beside what [`Self::text`] tells, with a warning where waiting costs more than the
    /// machine.
    #[must_use]
    pub fn beside(&self, aws: &AwsSettings, max_runtime: Duration, beside: SideCosts) -> String {
        let mut lines = Vec::new();
        if beside.waiting_hour > 0.0 {
            let time = humantime::format_duration(max_runtime);
            let all = beside.waiting_hour * max_runtime.as_secs_f64() / 3600.0;
            lines.push(format!(
                "Waiting for it takes build minutes: ${:.2} an hour once the plan's own are used up, ${all:.2} for MAX_RUNTIME of {time}.",
                beside.waiting_hour
            ));
        }
        lines.push(format!(
            "Checkpoints and outputs leave AWS: ${:.2} a GB after the account's first 100 GB a month.",
            beside.gigabyte
        ));
        if let Some(machine) = self.cheapest(aws)
            && beside.waiting_hour > machine
        {
            lines.push(format!(
                "Warning: waiting costs more than the machine, which is at ${machine:.4}/h. The minutes of a step on a self-hosted \
                 runner (`runs-on`) are not counted; or take a faster machine."
            ));
        }
        lines.join("\n")
    }

    /// The lowest price of an hour that the plan shows, disk and address included.
    fn cheapest(&self, aws: &AwsSettings) -> Option<f64> {
        let hours = self.regions.iter().filter_map(|plan| {
            let address = if plan.network.public { prices::ADDRESS_HOUR_PRICE } else { 0.0 };
            let lowest = plan.machine.types.iter().filter_map(|offer| price(offer, aws)).reduce(f64::min)?;
            Some(lowest + address + plan.disk_price.unwrap_or(0.0))
        });
        hours.reduce(f64::min)
    }
}

fn price(offer: &Offer, aws: &AwsSettings) -> Option<f64> {
    let spot = offer.spot.iter().filter_map(|(_, price)| *price).reduce(f64::min);
    let price = if aws.purchase == Purchase::OnDemand { offer.on_demand } else { spot };
    price.map(|price| price + surplus(&offer.name))
}

#[cfg(test)]
mod tests {
    use super::super::sample::{self, aws};
    use super::super::{RegionPlan, TypeChoice};
    use super::*;

    fn told(spot: f64, waiting_hour: f64) -> String {
        let offer = Offer {
            name: "m6i.2xlarge".to_owned(),
            cpus: 8,
            memory: 32 * 1024,
            gpus: 0,
            gpu_memory: 0,
            spot: vec![("eu-west-1a".to_owned(), Some(spot))],
            on_demand: Some(0.4),
        };
        let machine = TypeChoice { types: vec![offer], by_attributes: false };
        let plan = Plan { regions: vec![RegionPlan { machine, ..sample::region() }], own_address: None };
        plan.beside(&aws(), Duration::from_hours(12), SideCosts { waiting_hour, gigabyte: 0.09 })
    }

    #[test]
    fn waiting_that_costs_more_than_the_machine_is_warned_of() {
        let dear = told(0.18, 0.6);
        assert!(dear.contains("$0.60 an hour") && dear.contains("$7.20 for MAX_RUNTIME of 12h"), "{dear}");
        assert!(
            dear.contains("Warning: waiting costs more than the machine, which is at $0.1850/h"),
            "{dear}"
        );
        assert!(dear.contains("$0.09 a GB"), "{dear}");
        assert!(!told(0.934, 0.6).contains("Warning"));
        let own = told(0.18, 0.0);
        assert!(!own.contains("Warning") && !own.contains("build minutes"), "{own}");
    }
}
