//! The prices of an hour: spot from its price history, on demand and disks from the price list.
//!
//! Nothing waits for these but a dry run. The price list is an optional permission.

use super::super::client::AwsClients;
use super::super::failure::{AwsError, call};
use super::Offer;
use super::credits::surplus;
use aws_sdk_ec2::types as sdk;
use aws_sdk_pricing::types::{Filter, FilterType};
use serde_json::Value;
use std::collections::BTreeMap;
use std::sync::Once;
use std::time::SystemTime;
use trainspot_base::error::Error;
use trainspot_compute::Rate;

/// The price of a public IPv4 address, in dollars an hour: since February 2024, in every region.
pub(super) const ADDRESS_HOUR_PRICE: f64 = 0.005;

/// The price list is per month of this many hours.
const HOURS_A_MONTH: f64 = 730.0;

/// A machine, as far as its price depends on it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PricedMachine<'a> {
    pub(crate) region: &'a str,
    pub(crate) zone: &'a str,
    pub(crate) instance_type: &'a str,
    pub(crate) spot: bool,
    /// The volume's type, and its size in GiB.
    pub(crate) disk: (&'a str, u32),
    /// Whether it has a public address.
    pub(crate) public: bool,
}

/// The hourly rate of a machine; none where AWS does not tell. A disk of unknown price counts as 0.
pub(crate) async fn rate(clients: &AwsClients, bought: PricedMachine<'_>) -> Option<Rate> {
    let names = [bought.instance_type.to_owned()];
    let ec2 = clients.ec2(bought.region);
    let spot = async { if bought.spot { spot(&ec2, &names).await.ok() } else { None } };
    let (spot, on_demand, disk) = futures_util::join!(
        spot,
        on_demand(clients, bought.region, bought.instance_type),
        disk(clients, bought.region, bought.disk)
    );
    let key = (bought.instance_type.to_owned(), bought.zone.to_owned());
    let machine = if bought.spot { spot?.get(&key).copied()? } else { on_demand? };
    let address = if bought.public { ADDRESS_HOUR_PRICE } else { 0.0 };
    // A training keeps the processors busy, so what is charged for that is charged all the time.
    let credits = surplus(bought.instance_type);
    let on_demand = on_demand.map(|price| price + credits);
    Some(Rate { machine: machine + credits, on_demand, extras: disk.unwrap_or(0.0) + address })
}

/// Puts the current prices into offers, and the cheapest first. The on-demand price is asked for of the first
/// `shown`: each type is a call.
pub(super) async fn fill(clients: &AwsClients, region: &str, offers: &mut [Offer], shown: usize) {
    let names: Vec<String> = offers.iter().map(|offer| offer.name.clone()).collect();
    let known = spot(&clients.ec2(region), &names).await.unwrap_or_else(|failure| {
        tracing::warn!("no spot prices of {region}: {}", Error::from(failure).render());
        BTreeMap::new()
    });
    for offer in offers.iter_mut() {
        enter(offer, &known);
    }
    offers.sort_by(|one, other| cheapest(one).total_cmp(&cheapest(other)));
    let asked = offers.iter_mut().take(shown);
    let answers = asked.map(async |offer| offer.on_demand = on_demand(clients, region, &offer.name).await);
    futures_util::future::join_all(answers).await;
}

fn cheapest(offer: &Offer) -> f64 {
    offer.spot.iter().filter_map(|(_, price)| *price).fold(f64::INFINITY, f64::min) + surplus(&offer.name)
}

/// Spot prices of many types, by type and zone; none of what AWS does not tell.
async fn spot(
    ec2: &aws_sdk_ec2::Client,
    names: &[String],
) -> Result<BTreeMap<(String, String), f64>, AwsError> {
    let found = call("ec2:DescribeSpotPriceHistory", "cannot look up the spot prices", || async {
        let request = ec2
            .describe_spot_price_history()
            .product_descriptions("Linux/UNIX")
            // The history from now on is the price of now.
            .start_time(SystemTime::now().into())
            .set_instance_types(Some(names.iter().map(|name| name.as_str().into()).collect()));
        Ok(request.into_paginator().items().send().try_collect().await?)
    });
    Ok(newest(found.await?))
}

fn newest(history: Vec<sdk::SpotPrice>) -> BTreeMap<(String, String), f64> {
    let mut history: Vec<_> =
        history.into_iter().map(|it| (it.timestamp.map(|at| at.as_nanos()), it)).collect();
    history.sort_by_key(|(at, _)| *at);
    let price = |it: sdk::SpotPrice| {
        let key = (it.instance_type?.as_str().to_owned(), it.availability_zone?);
        Some((key, it.spot_price?.parse().ok()?))
    };
    history.into_iter().filter_map(|(_, it)| price(it)).collect()
}

/// Zones that only have a price are added where the offer knows none.
fn enter(offer: &mut Offer, spot: &BTreeMap<(String, String), f64>) {
    if offer.spot.is_empty() {
        let zones = spot.keys().filter(|(name, _)| *name == offer.name);
        offer.spot = zones.map(|(_, zone)| (zone.clone(), None)).collect();
    }
    for (zone, price) in &mut offer.spot {
        *price = spot.get(&(offer.name.clone(), zone.clone())).copied();
    }
}

/// The on-demand price of an hour of Linux, in dollars.
async fn on_demand(clients: &AwsClients, region: &str, name: &str) -> Option<f64> {
    let fields = [
        ("instanceType", name),
        ("operatingSystem", "Linux"),
        ("tenancy", "Shared"),
        ("preInstalledSw", "NA"),
        ("capacitystatus", "Used"),
    ];
    listed(clients, region, &fields).await
}

/// The price of an hour of a volume of so many GiB, in dollars.
pub(super) async fn disk(clients: &AwsClients, region: &str, (kind, size): (&str, u32)) -> Option<f64> {
    let month = listed(clients, region, &[("productFamily", "Storage"), ("volumeApiName", kind)]).await?;
    Some(month * f64::from(size) / HOURS_A_MONTH)
}

/// The price of the one product that these fields leave; none where it may not be asked for.
async fn listed(clients: &AwsClients, region: &str, fields: &[(&str, &str)]) -> Option<f64> {
    static FAILURE_LOGGED: Once = Once::new();
    let client = clients.pricing(region)?;
    let fields = fields.iter().copied().chain([("regionCode", region)]);
    let filters: Vec<Filter> = fields
        .map(|(field, value)| {
            Filter::builder().r#type(FilterType::TermMatch).field(field).value(value).build()
        })
        .collect::<Result<_, _>>()
        .ok()?;
    let answer = call("pricing:GetProducts", "cannot look up on-demand prices", || async {
        Ok(client.get_products().service_code("AmazonEC2").set_filters(Some(filters.clone())).send().await?)
    });
    match answer.await {
        Ok(answer) => answer.price_list().iter().find_map(|product| dollars(product)),
        Err(failure) => {
            FAILURE_LOGGED.call_once(|| tracing::debug!("{}", Error::from(failure).render()));
            None
        }
    }
}

/// The price in a product of the list, which is JSON in a text.
fn dollars(product: &str) -> Option<f64> {
    let product: Value = serde_json::from_str(product).ok()?;
    let offers = product["terms"]["OnDemand"].as_object()?;
    let dimensions = offers.values().filter_map(|offer| offer["priceDimensions"].as_object());
    let prices = dimensions.flat_map(|all| all.values());
    let dollars = prices.filter_map(|price| price["pricePerUnit"]["USD"].as_str()?.parse::<f64>().ok());
    dollars.filter(|price| *price > 0.0).reduce(f64::min)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As AWS answers, shortened to what is read and what surrounds it.
    const PRODUCT_JSON: &str = r#"{"product":{"productFamily":"Compute Instance","attributes":{"instanceType":"m5.large"}},
        "serviceCode":"AmazonEC2","terms":{"OnDemand":{"ABC.JRTCKXETXF":{"priceDimensions":{"ABC.JRTCKXETXF.6YS6EN2CT7":
        {"unit":"Hrs","endRange":"Inf","description":"$0.107 per On Demand Linux m5.large Instance Hour","beginRange":"0",
        "pricePerUnit":{"USD":"0.1070000000"}}},"sku":"ABC","effectiveDate":"2026-11-01T00:00:00Z"}},
        "Reserved":{"ABC.X":{"priceDimensions":{"a":{"pricePerUnit":{"USD":"0.01"}}}}}}}"#;

    #[test]
    fn the_on_demand_price_is_read_and_no_other() {
        assert_eq!(dollars(PRODUCT_JSON), Some(0.107));
        assert_eq!(dollars(&PRODUCT_JSON.replace("0.1070000000", "0.0000000000")), None);
        assert_eq!(dollars("{}"), None);
        assert_eq!(dollars("no JSON"), None);
    }

    #[test]
    fn the_newest_price_of_a_zone_counts() {
        let price = |zone: &str, price: &str, at: i64| {
            sdk::SpotPrice::builder()
                .instance_type(sdk::InstanceType::M5Large)
                .availability_zone(zone)
                .spot_price(price)
                .timestamp(aws_sdk_ec2::primitives::DateTime::from_secs(at))
                .build()
        };
        let prices = newest(vec![price("z1", "0.3", 30), price("z1", "0.1", 10), price("z2", "0.2", 20)]);
        let at = |zone: &str| prices[&("m5.large".to_owned(), zone.to_owned())];
        assert_eq!((at("z1"), at("z2"), prices.len()), (0.3, 0.2, 2));
    }
}
