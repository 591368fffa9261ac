//! Plans made of what moto answers: its types and zones are those of AWS.

use super::http;
use super::moto::{Account, with_account};
use std::collections::BTreeSet;
use std::time::Duration;
use trainspot_base::error::{Error, Kind};
use trainspot_compute::aws::{AwsSettings, SshAddress};
use trainspot_ec2::AwsClients;
use trainspot_ec2::plan::Plan;

async fn plan(aws: &AwsSettings) -> Result<Plan, Error> {
    Plan::make(&AwsClients::new(&aws.account, "acme/forest").await?, aws).await
}

fn problems(result: Result<Plan, Error>) -> String {
    let error = result.unwrap_err();
    assert_eq!(error.exit_kind(), Kind::Configuration);
    error.render()
}

#[test]
fn a_plan_names_types_zones_image_and_network() {
    with_account("100000000001", async |account: Account| {
        account.open("us-east-1").await;
        let plan = plan(&account.aws(&["us-east-1"], &["m5.large", "p4d.24xlarge"])).await.unwrap();
        let region = &plan.regions[0];
        let zones = |number: usize| -> Vec<&str> {
            region.machine.types[number].spot.iter().map(|(zone, _)| zone.as_str()).collect()
        };
        assert_eq!(zones(0), ["us-east-1a", "us-east-1b", "us-east-1c", "us-east-1d", "us-east-1f"]);
        assert_eq!(zones(1), ["us-east-1a", "us-east-1b", "us-east-1c", "us-east-1d"]);
        let big = &region.machine.types[1];
        assert_eq!((big.cpus, big.memory, big.gpus, big.gpu_memory), (96, 1_179_648, 8, 327_680));
        assert!(region.image.id.starts_with("ami-") && region.image.name.starts_with("al2023-ami-2"));
        assert_eq!(
            (region.image.user.as_str(), region.image.root_device.as_str()),
            ("ec2-user", "/dev/xvda")
        );
        let network = &region.network;
        assert_eq!((network.subnets.len(), &network.cidrs[0][..]), (6, "172.31.0.0/16"));
        assert!(network.public && !network.by_private);
        assert_eq!(network.inbound, ["203.0.113.7/32"]);
    });
}

#[test]
fn everything_that_is_wrong_is_told_at_once() {
    with_account("100000000002", async |account: Account| {
        let aws = AwsSettings {
            image: Some("ami-0123456789abcdef0".to_owned()),
            security_group: Some("sg-12345678".to_owned()),
            ..account.aws(&["us-east-1"], &["m5.large", "m5.larg", "m7g.large"])
        };
        let shown = problems(plan(&aws).await);
        assert!(shown.starts_with("nothing can be rented in us-east-1; nothing was started\n"), "{shown}");
        for line in [
            "INSTANCE_TYPE names m7g.large, which is arm64; this pipe runs on x86_64, and so must the machine",
            "IMAGE is ami-0123456789abcdef0, but the region has no such AMI, or this account may not use it",
            // moto's default VPC has no internet gateway.
            "the default VPC vpc-",
            "SECURITY_GROUP is sg-12345678, which the region does not have",
        ] {
            assert!(shown.contains(&format!("\n  {line}")), "{line}:\n{shown}");
        }
    });
}

#[test]
fn a_region_that_lacks_the_type_is_left_to_the_others() {
    with_account("100000000003", async |account: Account| {
        account.open("eu-west-1").await;
        account.open("eu-central-1").await;
        let regions = ["eu-west-1", "eu-central-1"];
        let found = plan(&account.aws(&regions, &["g6.xlarge"])).await.unwrap();
        let names: Vec<&str> = found.regions.iter().map(|region| region.region.as_str()).collect();
        assert_eq!(names, ["eu-central-1"]);
        let shown = problems(plan(&account.aws(&regions, &["g6.xlarg"])).await);
        for region in regions {
            let line = format!(
                "{region}: INSTANCE_TYPE will not do: the region has no g6.xlarg; check the spelling"
            );
            assert!(shown.contains(&line), "{shown}");
        }
    });
}

#[test]
fn named_subnets_decide_where() {
    with_account("100000000004", async |account: Account| {
        let ec2 = account.open("eu-west-1").await;
        let subnets = ec2.describe_subnets().send().await.unwrap().subnets.unwrap();
        let of = |zone: &str| {
            let subnet = subnets.iter().find(|subnet| subnet.availability_zone() == Some(zone)).unwrap();
            subnet.subnet_id().unwrap().to_owned()
        };
        let aws = |zone: &str| AwsSettings {
            subnets: vec![of(zone)],
            ..account.aws(&["eu-west-1"], &["p4d.24xlarge", "m5.large"])
        };
        let found = plan(&aws("eu-west-1c")).await.unwrap();
        assert_eq!(found.regions[0].machine.types.len(), 2);
        assert_eq!(found.regions[0].network.subnets[0].id, of("eu-west-1c"));
        // Only the third zone has it.
        let found = plan(&aws("eu-west-1a")).await.unwrap();
        assert_eq!(found.regions[0].machine.types[0].name, "m5.large");
        let shown = problems(
            plan(&AwsSettings { subnets: vec!["subnet-0bad".to_owned()], ..aws("eu-west-1a") }).await,
        );
        assert!(shown.contains("SUBNET names subnet-0bad, which the region does not have"), "{shown}");
    });
}

#[test]
fn a_private_subnet_will_do_for_a_pipe_that_says_it_can_reach_it() {
    with_account("100000000005", async |account: Account| {
        let aws = account.aws(&["eu-west-1"], &["m5.large"]);
        let shown = problems(plan(&aws).await);
        assert!(
            shown.contains(" offers no way in: no route to an internet gateway leads out of subnet-"),
            "{shown}"
        );
        let aws = AwsSettings { ssh_address: SshAddress::Private, ssh_cidrs: vec![], ..aws };
        let found = plan(&aws).await.unwrap();
        let network = &found.regions[0].network;
        assert!(!network.public && network.by_private);
        assert_eq!(network.inbound, ["172.31.0.0/16"]);
    });
}

#[test]
fn without_a_default_vpc_the_user_is_told_to_name_subnets() {
    with_account("100000000006", async |account: Account| {
        let ec2 = account.ec2("eu-west-1").await;
        for subnet in ec2.describe_subnets().send().await.unwrap().subnets() {
            ec2.delete_subnet().subnet_id(subnet.subnet_id().unwrap()).send().await.unwrap();
        }
        let vpc = ec2.describe_vpcs().send().await.unwrap().vpcs()[0].vpc_id().unwrap().to_owned();
        ec2.delete_vpc().vpc_id(vpc).send().await.unwrap();
        let shown = problems(plan(&account.aws(&["eu-west-1"], &["m5.large"])).await);
        assert!(shown.contains("SUBNET is not set, and the region has no default VPC"), "{shown}");
    });
}

#[test]
fn the_pipes_own_address_is_let_in() {
    with_account("100000000007", async |account: Account| {
        account.open("eu-west-1").await;
        let url = http::serve(|_, _| (200, "198.51.100.7\n".to_owned()));
        let aws = AwsSettings {
            ssh_cidrs: vec![],
            public_ip_url: url,
            ..account.aws(&["eu-west-1"], &["m5.large"])
        };
        let found = plan(&aws).await.unwrap();
        assert_eq!(found.own_address, Some("198.51.100.7".parse().unwrap()));
        assert_eq!(found.regions[0].network.inbound, ["198.51.100.7/32"]);
        let url = http::serve(|_, _| (500, "no".to_owned()));
        let shown = problems(plan(&AwsSettings { public_ip_url: url, ..aws }).await);
        assert!(
            shown.contains("SSH_CIDR is not set, and cannot learn the pipe's own public address"),
            "{shown}"
        );
    });
}

#[test]
fn a_dry_run_tells_the_prices_that_aws_tells() {
    with_account("100000000008", async |account: Account| {
        account.open("eu-west-1").await;
        let aws = AwsSettings { dry_run: true, ..account.aws(&["eu-west-1"], &["m5.large"]) };
        let found = plan(&aws).await.unwrap();
        let prices: BTreeSet<String> =
            found.regions[0].machine.types[0].spot.iter().map(|(_, price)| format!("{price:?}")).collect();
        assert_eq!(prices, BTreeSet::from(["Some(1e-5)".to_owned()]));
        // moto has no price list.
        assert_eq!(found.regions[0].machine.types[0].on_demand, None);
        let text = found.text(&aws, Duration::from_hours(12));
        assert!(text.contains("m5.large  2      8 GiB   -     eu-west-1a  0.0000    ?"), "{text}");
    });
}
