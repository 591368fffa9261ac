//! Which pool a machine is from, and what keeps others from giving one.

use super::lab::{Lab, in_lab};
use super::moto::key_of_the_environment;
use super::rent::{aws, ec2, end, launch_request, told, zone};
use crate::support::is_late;
use serde_json::json;
use std::time::{Duration, Instant};
use trainspot_base::error::Kind;
use trainspot_compute::aws::{AwsAccount, AwsSettings, MachineNeeds, Purchase};
use trainspot_compute::{Compute as _, MachineStatus, Pool};
use trainspot_ec2::AwsClients;

#[test]
fn pools_that_were_lost_come_last_and_refusals_are_all_told() {
    in_lab(async |lab: &Lab| {
        let (ec2, mut request) = (ec2(aws(lab)).await, launch_request("pools"));
        lab.post("capacity", json!([{"score": 0}, {"type": "m5.large", "zone": "us-east-1b", "score": 5}]))
            .await;
        let first = told(ec2.launch(&request).await);
        assert_eq!((zone(&first), first.spot), ("us-east-1b", true));
        // Its zone alone has any: it is asked for again only after the whole world.
        request.avoid = vec![Pool { zone: "us-east-1b".to_owned(), instance_type: "m5.large".to_owned() }];
        let again = told(ec2.launch(&request).await);
        assert_eq!(zone(&again), "us-east-1b");
        lab.post("capacity", json!([{"type": "c5.large", "zone": "eu-west-1a", "score": 5}])).await;
        let elsewhere = told(ec2.launch(&request).await);
        assert_eq!(zone(&elsewhere), "eu-west-1a");
        lab.post("capacity", json!([{"type": "c5.large", "zone": "eu-west-1a", "score": 0}])).await;
        request.avoid.clear();
        lab.post("capacity", json!([{"type": "m5.large", "zone": "us-east-1b", "score": 0}])).await;
        let error = ec2.launch(&request).await.unwrap_err();
        let shown = error.render();
        assert!(
            shown.contains("InsufficientInstanceCapacity") && shown.contains("m5.large in us-east-1"),
            "{shown}"
        );
        assert!(shown.contains("PURCHASE") && shown.contains("FALLBACK_REGIONS"), "{shown}");
        assert_eq!(error.exit_kind(), Kind::Machine);
        end(&ec2, &request).await;
        lab.assert_nothing_left().await;
    });
}

/// Of two pools the cheaper one has hardly any capacity left: what is rented there is soon taken away.
#[test]
fn a_pool_with_room_is_preferred_to_a_cheaper_one_that_is_nearly_used_up() {
    in_lab(async |lab: &Lab| {
        let one_region = AwsSettings {
            machine: MachineNeeds::Types(vec!["m5.large".to_owned()]),
            account: AwsAccount {
                regions: vec!["us-east-1".to_owned()],
                oidc: None,
                key: key_of_the_environment(),
            },
            ..aws(lab)
        };
        let (ec2, request) = (ec2(one_region).await, launch_request("strategy"));
        let zones = ["us-east-1a", "us-east-1b"];
        let spot = spot_prices(lab, zones).await;
        let (cheap, dear) = if spot[0] < spot[1] { (zones[0], zones[1]) } else { (zones[1], zones[0]) };
        lab.post(
            "capacity",
            json!([
                {"score": 0},
                {"type": "m5.large", "zone": cheap, "score": 1},
                {"type": "m5.large", "zone": dear, "score": 9},
            ]),
        )
        .await;
        let machine = told(ec2.launch(&request).await);
        assert_eq!(zone(&machine), dear);
        let calls = lab.get("calls").await;
        let fleets = calls.as_array().unwrap().iter().filter(|call| call["action"] == "CreateFleet");
        for fleet in fleets {
            let parameters = fleet["parameters"].to_string();
            // The name of the strategy is what the rig's choice above went by; that of the end is told to
            // nobody else.
            assert!(parameters.contains("price-capacity-optimized"), "{parameters}");
            let ending = "InstanceInterruptionBehavior\":\"terminate";
            assert!(parameters.replace(' ', "").contains(ending), "{parameters}");
        }
        end(&ec2, &request).await;
        lab.assert_nothing_left().await;
    });
}

/// The newest spot price of an `m5.large` in each zone.
async fn spot_prices(lab: &Lab, zones: [&str; 2]) -> [f64; 2] {
    let ec2 = lab.ec2("us-east-1").await;
    let ask = ec2.describe_spot_price_history().instance_types("m5.large".into());
    let history = ask.product_descriptions("Linux/UNIX").send().await.unwrap();
    zones.map(|zone| {
        let mut found = history.spot_price_history().iter();
        let found = found.find(|price| price.availability_zone() == Some(zone)).unwrap();
        found.spot_price().unwrap().parse().unwrap()
    })
}

#[test]
fn on_demand_is_what_is_left_when_the_spot_quota_is_used_up() {
    in_lab(async |lab: &Lab| {
        let aws = AwsSettings { purchase: Purchase::SpotThenOnDemand, ..aws(lab) };
        let (ec2, request) = (ec2(aws).await, launch_request("quota"));
        lab.faults(json!([{"kind": "capacity", "purchase": "spot", "code": "MaxSpotInstanceCountExceeded"}]))
            .await;
        let machine = told(ec2.launch(&request).await);
        assert!(!machine.spot, "{machine:?}");
        end(&ec2, &request).await;
        lab.assert_nothing_left().await;
    });
}

/// What a region refuses for good is no reason not to ask the next one, nor to wait.
#[test]
fn a_region_that_is_closed_leaves_the_others_open() {
    in_lab(async |lab: &Lab| {
        let patient = AwsSettings { capacity_wait: Duration::from_secs(30), ..aws(lab) };
        let (first, request) = (ec2(patient).await, launch_request("closed"));
        told(first.prepare().await);
        lab.faults(json!([
            {"kind": "error", "action": "CreateFleet", "region": "us-east-1", "status": 400, "code": "InvalidParameterValue"},
            {"kind": "error", "action": "CreateSecurityGroup", "region": "eu-west-1", "status": 503, "code": "Unavailable", "count": 5},
        ]))
        .await;
        let machine = told(first.launch(&request).await);
        assert!(zone(&machine).starts_with("eu-west-1"), "{machine:?}");
        // The next try of the step has launched, too: its machine is not ours, nor is what both use.
        lab.faults(json!([])).await;
        let second = ec2(aws(lab)).await;
        let other = told(second.launch(&request).await);
        assert_eq!(told(first.launched_by_this_process(&request.run).await).len(), 1);
        told(first.terminate(&machine).await);
        told(first.delete_run_resources(&request.run).await);
        assert_eq!(told(second.status(&other).await), MachineStatus::Running);

        lab.faults(json!([{"kind": "error", "region": "eu-west-1", "status": 401, "code": "AuthFailure"}]))
            .await;
        assert_eq!(told(second.find(&request.run).await).len(), 1);
        told(second.terminate(&other).await);
        told(second.delete_run_resources(&request.run).await);
        lab.faults(json!([])).await;
        end(&second, &request).await;
        told(
            AwsClients::new(&aws(lab).account, "acme/forest")
                .await
                .unwrap()
                .delete_run_resources(&request.run)
                .await,
        );
        lab.assert_nothing_left().await;
    });
}

/// The quota of spot machines, whose refusal tells no number: it is waited for where a machine runs that may
/// end.
#[test]
fn a_spot_quota_is_waited_for_only_while_somebody_uses_it_up() {
    in_lab(async |lab: &Lab| {
        let (other, others) = (ec2(aws(lab)).await, launch_request("other"));
        let quota = json!([{
            "kind": "capacity",
            "code": "MaxSpotInstanceCountExceeded",
            "message": "Max spot instance count exceeded",
        }]);
        let rounds = async |run: &str| {
            let patient = AwsSettings { capacity_wait: Duration::from_secs(20), ..aws(lab) };
            let (ec2, request) = (ec2(patient).await, launch_request(run));
            let before = lab.get("calls").await.as_array().unwrap().len();
            lab.faults(quota.clone()).await;
            let shown = ec2.launch(&request).await.unwrap_err().render();
            lab.faults(json!([])).await;
            end(&ec2, &request).await;
            let calls = lab.get(&format!("calls?since={before}")).await;
            let in_first =
                |call: &&serde_json::Value| call["action"] == "CreateFleet" && call["region"] == "us-east-1";
            (shown, calls.as_array().unwrap().iter().filter(in_first).count())
        };
        let (shown, fleets) = rounds("unused").await;
        assert_eq!(fleets, 1, "{shown}");
        for words in [
            "MaxSpotInstanceCountExceeded",
            "'All Standard (A, C, D, H, I, M, R, T, Z) Spot Instance Requests'",
            "in us-east-1",
        ] {
            assert!(shown.contains(words), "{words}: {shown}");
        }
        told(other.launch(&others).await);
        let (shown, fleets) = rounds("used").await;
        assert!(fleets > 1 && !shown.contains("no such machine runs in us-east-1"), "{fleets}: {shown}");
        end(&other, &others).await;
        lab.assert_nothing_left().await;
    });
}

/// EC2 takes no more than four sets of requirements at once, and the default network of us-east-1 has six
/// subnets.
#[test]
fn a_choice_by_attributes_asks_in_every_zone() {
    in_lab(async |lab: &Lab| {
        let machine = MachineNeeds::AtLeast { cpus: 2, memory: 4, gpus: 0, gpu_memory: 0 };
        let account =
            AwsAccount { regions: vec!["us-east-1".to_owned()], oidc: None, key: key_of_the_environment() };
        let (ec2, request) =
            (ec2(AwsSettings { machine, account, ..aws(lab) }).await, launch_request("attributes"));
        lab.post("capacity", json!([{"score": 0}, {"zone": "us-east-1f", "score": 5}])).await;
        let machine = told(ec2.launch(&request).await);
        assert_eq!(zone(&machine), "us-east-1f");
        end(&ec2, &request).await;
        lab.assert_nothing_left().await;
    });
}

/// What new accounts meet, with what to do about it.
#[test]
fn accounts_that_may_not_yet_rent_are_told_what_to_do() {
    in_lab(async |lab: &Lab| {
        for (fault, advice) in [
            (
                json!({"kind": "capacity", "code": "InvalidParameterCombination", "message": "The specified instance type is not eligible for Free Tier. For a list of Free Tier instance types, run 'describe-instance-types'."}),
                "upgrade it to the paid plan",
            ),
            (
                json!({"kind": "error", "action": "CreateFleet", "status": 400, "code": "MaxFleetCountExceeded", "message": "You've reached your quota for maximum Fleet Requests for this account."}),
                "ask AWS Support",
            ),
        ] {
            let (ec2, request) = (ec2(aws(lab)).await, launch_request("new"));
            lab.faults(json!([fault])).await;
            let shown = ec2.launch(&request).await.unwrap_err().render();
            assert!(shown.contains(advice), "{shown}");
            lab.faults(json!([])).await;
            end(&ec2, &request).await;
        }
        lab.assert_nothing_left().await;
    });
}

#[test]
fn a_quota_of_nothing_is_not_waited_for() {
    in_lab(async |lab: &Lab| {
        let aws = AwsSettings { capacity_wait: Duration::from_mins(10), ..aws(lab) };
        let (ec2, request) = (ec2(aws).await, launch_request("none"));
        let text = "You have requested more vCPU capacity than your current vCPU limit of 0 allows for";
        lab.faults(json!([{"kind": "capacity", "code": "VcpuLimitExceeded", "message": text}])).await;
        let start = Instant::now();
        let shown = ec2.launch(&request).await.unwrap_err().render();
        assert!(!is_late(start, Duration::from_mins(1)), "{:?}", start.elapsed());
        assert!(shown.contains("limit of 0") && shown.contains("Service Quotas"), "{shown}");
        end(&ec2, &request).await;
        lab.assert_nothing_left().await;
    });
}
