use super::super::sample::{self, aws};
use super::super::{Network, Subnet, TypeChoice};
use super::*;

fn offer(name: &str, gpus: u32, spot: &[(&str, Option<f64>)], on_demand: Option<f64>) -> Offer {
    Offer {
        name: name.to_owned(),
        cpus: 8,
        memory: 32 * 1024,
        gpus,
        gpu_memory: u64::from(gpus) * 24 * 1024,
        spot: spot.iter().map(|(zone, price)| ((*zone).to_owned(), *price)).collect(),
        on_demand,
    }
}

fn plan(types: Vec<Offer>) -> Plan {
    let subnet = |id: &str, zone: &str| Subnet { id: id.to_owned(), zone: zone.to_owned() };
    let region = sample::region();
    let subnets = vec![subnet("subnet-1", "eu-west-1a"), subnet("subnet-2", "eu-west-1b")];
    let network = Network { subnets, ..region.network };
    let machine = TypeChoice { types, by_attributes: false };
    let region = RegionPlan { machine, network, disk_price: Some(0.006), ..region };
    Plan { regions: vec![region], own_address: None }
}

fn types() -> Vec<Offer> {
    let both = [("eu-west-1a", Some(0.151)), ("eu-west-1b", Some(0.1605))];
    vec![
        offer("m5.2xlarge", 0, &both, Some(0.428)),
        offer("g5.2xlarge", 1, &[("eu-west-1a", None)], Some(1.35)),
    ]
}

const HALF_A_DAY: Duration = Duration::from_hours(12);

#[test]
fn the_whole_plan_is_told() {
    insta::assert_snapshot!(plan(types()).text(&aws(), HALF_A_DAY));
}

#[test]
fn a_limit_below_every_price_is_told() {
    let text =
        |max_price| plan(types()).text(&AwsSettings { max_price: Some(max_price), ..aws() }, HALF_A_DAY);
    let low = text(0.1);
    assert!(low.contains(
        "\n\nWarning: MAX_PRICE $0.1000 is below every current spot price; the lowest is $0.1510."
    ));
    assert!(low.contains("Purchase: spot; at most $0.1000/h of spot (MAX_PRICE)\n"), "{low}");
    assert!(low.contains("At most:  $1.33 for MAX_RUNTIME of 12h, at $0.1110/h\n"), "{low}");
    assert!(!text(0.155).contains("Warning"));
}

#[test]
fn the_estimate_follows_the_purchase_and_what_is_known() {
    let line = |types, aws: AwsSettings| {
        let text = plan(types).text(&aws, HALF_A_DAY);
        text.lines().find_map(|line| line.strip_prefix("  At most:  ")).unwrap().to_owned()
    };
    let unpriced = |spot| vec![offer("m5.2xlarge", 0, &[("eu-west-1a", spot)], None)];
    assert_eq!(line(unpriced(Some(0.2)), aws()), "$2.53 for MAX_RUNTIME of 12h, at $0.2110/h");
    assert_eq!(line(unpriced(None), aws()), "no price is known for MAX_RUNTIME of 12h");
    let purchase = Purchase::SpotThenOnDemand;
    let limited = AwsSettings { purchase, max_price: Some(0.1), max_cost: Some(5.0), ..aws() };
    assert_eq!(
        line(types(), limited),
        "$16.33 for MAX_RUNTIME of 12h, at $1.3610/h; MAX_COST ends the run at $5.00"
    );
}

#[test]
fn what_is_too_much_is_counted() {
    let many: Vec<Offer> = (0..15).map(|number| offer(&format!("m{number}.l"), 0, &[], None)).collect();
    let text = plan(many).text(&aws(), HALF_A_DAY);
    assert!(text.contains("\n  m11.l "), "{text}");
    assert!(!text.contains("\n  m12.l "), "{text}");
    assert!(text.contains("\n  … and 3 more types that will do\n"), "{text}");
}

#[test]
fn what_burstable_types_cost_at_full_load_is_told_and_counted() {
    let burstable = vec![offer("t3.medium", 0, &[("eu-west-1a", Some(0.0150))], Some(0.0456))];
    let text = plan(burstable).text(&aws(), HALF_A_DAY);
    assert!(text.contains("\n  Credits:  at full load t3.medium $0.0800/h more; "), "{text}");
    assert!(text.contains("at $0.1366/h"), "{text}");
    assert!(!plan(types()).text(&aws(), HALF_A_DAY).contains("Credits"));
}
