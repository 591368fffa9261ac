//! The plan as a dry run tells it.

use super::credits::surplus;
use super::{Network, Offer, Plan, RegionPlan, TYPES_SHOWN, prices};
use std::time::Duration;
use trainspot_base::log::count;
use trainspot_compute::aws::{AwsSettings, Purchase};

const TABLE_HEADINGS: [&str; 8] =
    ["Type", "vCPUs", "Memory", "GPUs", "Zone", "Spot $/h", "On demand $/h", "Saving"];

impl Plan {
    /// What would be rented, where, and for how much.
    #[must_use]
    pub fn text(&self, aws: &AwsSettings, max_runtime: Duration) -> String {
        let regions = self.regions.iter().map(|plan| region(plan, aws, max_runtime));
        let mut parts: Vec<String> = regions.collect();
        if let Some(warning) = too_low(self, aws) {
            parts.push(warning);
        }
        parts.join("\n\n")
    }
}

fn region(plan: &RegionPlan, aws: &AwsSettings, max_runtime: Duration) -> String {
    let image = &plan.image;
    let size = image.disk_size(aws.disk_size);
    let price = plan.disk_price.map_or_else(String::new, |price| format!(", ${price:.4}/h"));
    let lines = vec![
        ("Image", format!("{} ({}), login as {}", image.name, image.id, image.user)),
        ("Disk", format!("{size} GiB {}, encrypted, deleted with the machine{price}", aws.disk_type)),
        ("Network", network(&plan.network)),
        ("Inbound", inbound(&plan.network)),
        ("Purchase", purchase(aws)),
        ("At most", at_most(plan, aws, max_runtime)),
    ];
    let lines = lines.into_iter().chain(credits(&plan.machine.types).map(|text| ("Credits", text)));
    let facts: Vec<_> = lines.map(|(name, value)| format!("  {:<10}{value}", format!("{name}:"))).collect();
    format!("{}\n{}\n{}", plan.region, table(&plan.machine.types), facts.join("\n"))
}

/// What burstable types cost beside the prices of the table, if there are any among the offers.
fn credits(offers: &[Offer]) -> Option<String> {
    let charged =
        offers.iter().map(|offer| (&offer.name, surplus(&offer.name))).filter(|(_, more)| *more > 0.0);
    let each: Vec<_> = charged.map(|(name, more)| format!("{name} ${more:.4}/h")).collect();
    let types = each.join(", ");
    (!each.is_empty()).then(|| {
        format!("at full load {types} more; a type of the families c or m is mostly cheaper, and MAX_COST counts it")
    })
}

fn table(offers: &[Offer]) -> String {
    let shown = offers.iter().take(TYPES_SHOWN).flat_map(rows);
    let rows: Vec<[String; 8]> = std::iter::once(TABLE_HEADINGS.map(str::to_owned)).chain(shown).collect();
    let widths: [usize; 8] =
        std::array::from_fn(|column| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0));
    let line = |row: &[String; 8]| {
        let cells = row.iter().zip(widths).map(|(cell, width)| format!("{cell:<width$}"));
        format!("  {}", cells.collect::<Vec<_>>().join("  ").trim_end())
    };
    let more = offers.len().saturating_sub(TYPES_SHOWN);
    let more = (more > 0).then(|| format!("  … and {} that will do", count(more, "more type")));
    rows.iter().map(line).chain(more).collect::<Vec<_>>().join("\n")
}

/// A line for each zone; one without where none is known.
fn rows(offer: &Offer) -> Vec<[String; 8]> {
    let none = [(String::new(), None)];
    let zones = if offer.spot.is_empty() { &none[..] } else { &offer.spot[..] };
    let row = |(zone, spot): &(String, Option<f64>)| {
        [
            offer.name.clone(),
            offer.cpus.to_string(),
            gib(offer.memory),
            match offer.gpus {
                0 => "-".to_owned(),
                gpus => format!("{gpus} ({})", gib(offer.gpu_memory)),
            },
            zone.clone(),
            dollars(*spot),
            dollars(offer.on_demand),
            spot.zip(offer.on_demand).map_or_else(|| "?".to_owned(), |(spot, full)| saving(spot, full)),
        ]
    };
    zones.iter().map(row).collect()
}

/// Whole GiB, or with one digit: a t3.nano has half a one.
fn gib(mib: u64) -> String {
    match (mib / 1024, mib % 1024) {
        (whole, 0) => format!("{whole} GiB"),
        (whole, rest) => format!("{whole}.{} GiB", rest * 10 / 1024),
    }
}

fn dollars(price: Option<f64>) -> String {
    price.map_or_else(|| "?".to_owned(), |price| format!("{price:.4}"))
}

fn saving(spot: f64, full: f64) -> String {
    format!("{:.0} %", (1.0 - spot / full) * 100.0)
}

fn network(network: &Network) -> String {
    let subnets = network.subnets.iter().map(|subnet| format!("{} ({})", subnet.id, subnet.zone));
    let address = if network.public {
        format!("public address, ${:.4}/h", prices::ADDRESS_HOUR_PRICE)
    } else {
        "no public address".to_owned()
    };
    let way = if network.by_private { "; reached by its private address" } else { "" };
    format!("{}: {}; {address}{way}", network.vpc, subnets.collect::<Vec<_>>().join(", "))
}

fn inbound(network: &Network) -> String {
    match &network.security_group {
        Some(group) => format!("as {group} has it"),
        None => format!("port 22 from {}, by a security group made for the run", network.inbound.join(", ")),
    }
}

fn purchase(aws: &AwsSettings) -> String {
    let mode = match aws.purchase {
        Purchase::Spot => "spot",
        Purchase::SpotThenOnDemand => "spot, on demand where there is none",
        Purchase::OnDemand => return "on demand".to_owned(),
    };
    match aws.max_price {
        Some(most) => format!("{mode}; at most ${most:.4}/h of spot (MAX_PRICE)"),
        None => format!("{mode}; at most the on-demand price"),
    }
}

/// The price of the whole time, at the highest price that the dearest of the types can have.
fn at_most(plan: &RegionPlan, aws: &AwsSettings, max_runtime: Duration) -> String {
    let time = humantime::format_duration(max_runtime);
    let limit =
        aws.max_cost.map_or_else(String::new, |most| format!("; MAX_COST ends the run at ${most:.2}"));
    let hourly = plan.machine.types.iter().filter_map(|offer| highest(offer, aws)).reduce(f64::max);
    let Some(hourly) = hourly else { return format!("no price is known for MAX_RUNTIME of {time}{limit}") };
    let address = if plan.network.public { prices::ADDRESS_HOUR_PRICE } else { 0.0 };
    let all = hourly + address + plan.disk_price.unwrap_or(0.0);
    let hours = max_runtime.as_secs_f64() / 3600.0;
    format!("${:.2} for MAX_RUNTIME of {time}, at ${all:.4}/h{limit}", all * hours)
}

/// Spot rises to `MAX_PRICE` or to the on-demand price; where neither is known, it is as it is now.
fn highest(offer: &Offer, aws: &AwsSettings) -> Option<f64> {
    let now = offer.spot.iter().filter_map(|(_, price)| *price).reduce(f64::max);
    let spot = match (aws.max_price, offer.on_demand) {
        (Some(most), Some(full)) => Some(most.min(full)),
        (most, full) => most.or(full).or(now),
    };
    let price = match aws.purchase {
        Purchase::Spot => spot,
        Purchase::SpotThenOnDemand => offer.on_demand.or(spot),
        Purchase::OnDemand => offer.on_demand,
    };
    price.map(|price| price + surplus(&offer.name))
}

fn too_low(plan: &Plan, aws: &AwsSettings) -> Option<String> {
    let most = aws.max_price?;
    let offers = plan.regions.iter().flat_map(|region| &region.machine.types);
    let lowest = offers.flat_map(|offer| &offer.spot).filter_map(|(_, price)| *price).reduce(f64::min)?;
    (most < lowest).then(|| {
        format!(
            "Warning: MAX_PRICE ${most:.4} is below every current spot price; the lowest is ${lowest:.4}."
        )
    })
}

#[cfg(test)]
mod tests;
