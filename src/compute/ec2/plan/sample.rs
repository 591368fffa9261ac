//! What the tests of this room ask for, where they do not say otherwise.

use crate::config::aws::{Account, Aws, Purchase, SshAddress, Wanted};
use std::time::Duration;

pub(super) fn aws() -> Aws {
    Aws {
        account: Account { regions: vec!["eu-west-1".to_owned()], oidc: None },
        machine: Wanted::Types(vec![]),
        purchase: Purchase::Spot,
        max_price: None,
        max_cost: None,
        capacity_wait: Duration::ZERO,
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
