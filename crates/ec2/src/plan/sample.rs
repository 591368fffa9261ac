//! What the tests of this room ask for, where they do not say otherwise.

use super::{Image, Network, RegionPlan, TypeChoice};
use std::time::Duration;
use trainspot_compute::aws::{AwsAccount, AwsSettings, MachineNeeds, Purchase, SshAddress};

pub(crate) fn aws() -> AwsSettings {
    AwsSettings {
        account: AwsAccount { regions: vec!["eu-west-1".to_owned()], oidc: None, key: None },
        machine: MachineNeeds::Types(vec![]),
        purchase: Purchase::Spot,
        max_price: None,
        max_cost: None,
        capacity_wait: Duration::ZERO,
        spot_wait: Duration::ZERO,
        image: None,
        disk_size: Some(50),
        disk_type: "gp3".to_owned(),
        instance_profile: None,
        subnets: vec![],
        security_group: None,
        tags: vec![],
        startup_script: None,
        ssh_cidrs: vec![],
        ssh_address: SshAddress::Auto,
        public_ip_url: String::new(),
        boot_timeout: Duration::ZERO,
        dry_run: false,
    }
}

pub(crate) fn region() -> RegionPlan {
    RegionPlan {
        region: "eu-west-1".to_owned(),
        machine: TypeChoice { types: vec![], by_attributes: false },
        image: Image {
            id: "ami-1".to_owned(),
            name: "ubuntu-noble".to_owned(),
            user: "ubuntu".to_owned(),
            root_device: "/dev/sda1".to_owned(),
            least_disk: 8,
            further_devices: vec![],
        },
        disk_price: None,
        network: Network {
            vpc: "vpc-1".to_owned(),
            cidrs: vec!["172.31.0.0/16".to_owned()],
            subnets: vec![],
            security_group: None,
            public: true,
            by_private: false,
            inbound: vec!["203.0.113.7/32".to_owned()],
        },
    }
}
