//! What a dry run tries at AWS: with the policy of the documentation all of it passes, and each action that is missing is named.

use super::moto::{Moto, plain, with_environment};
use super::permissions::roles;
use std::time::Duration;
use trainspot::checks::Check;
use trainspot::compute::ec2::{Ec2, Owner};
use trainspot::compute::{Order, RunId};
use trainspot::config::aws::{Aws, Oidc, Purchase, SshAddress};
use trainspot::config::{Pipeline, Secret};

/// The actions of which a run needs each one, but for those that a plan names.
const NEEDED: [&str; 11] = [
    "ec2:AuthorizeSecurityGroupIngress",
    "ec2:CreateFleet",
    "ec2:CreateLaunchTemplate",
    "ec2:CreateSecurityGroup",
    "ec2:CreateTags",
    "ec2:DeleteLaunchTemplate",
    "ec2:DeleteSecurityGroup",
    "ec2:DescribeInstances",
    "ec2:DescribeLaunchTemplates",
    "ec2:DescribeSecurityGroups",
    "ec2:RunInstances",
];
/// The actions without which a run goes on, or of which a denial proves nothing.
const OPEN: [&str; 7] = [
    "ec2-instance-connect:SendSSHPublicKey",
    "ec2:DescribeNetworkInterfaces",
    "ec2:DescribeSpotInstanceRequests",
    "ec2:DescribeSpotPriceHistory",
    "ec2:GetConsoleOutput",
    "ec2:TerminateInstances",
    "servicequotas:GetServiceQuota",
];

fn aws(region: &str) -> Aws {
    let mut aws = plain(&[region], &["m5.large"]);
    // moto's default VPC has no way in.
    aws.ssh_address = SshAddress::Private;
    aws.purchase = Purchase::SpotThenOnDemand;
    aws
}

/// What a role may do, by its number among those of [`roles`].
async fn rehearse(role: usize, region: &str) -> Vec<Check> {
    let token = Secret { name: "BITBUCKET_STEP_OIDC_TOKEN".to_owned(), value: "e30.e30.sig".to_owned() };
    let mut aws = aws(region);
    aws.account.oidc = Some(Oidc { role_arn: format!("arn:aws:iam::123456789012:role/role{role}"), token });
    let ec2 = Ec2::new(aws, Owner::from(&Pipeline::default())).await.unwrap();
    let order = Order {
        run: RunId::new(&["dry run", &role.to_string()]),
        orphan_grace: Duration::from_mins(10),
        max_runtime: Duration::from_hours(1),
        avoid: Vec::new(),
        spot_now: false,
    };
    ec2.rehearse(&order).await.unwrap()
}

#[test]
fn each_action_that_the_policy_lacks_is_named_and_with_all_of_them_every_check_passes() {
    if std::env::var_os("AWS_ENDPOINT_URL").is_some() {
        return with_environment(&[], rehearse_with_each_role);
    }
    let moto = match Moto::start_strict() {
        Ok(moto) => moto,
        Err(reason) => return skip::skip(&reason),
    };
    roles(&moto, &missing()[1..]);
    with_environment(&[("AWS_ENDPOINT_URL", moto.url())], rehearse_with_each_role);
}

/// What each role lacks, the first one nothing.
fn missing() -> Vec<&'static str> {
    ["nothing"].into_iter().chain(NEEDED).chain(OPEN).collect()
}

async fn rehearse_with_each_role() {
    let without_quota = rehearse(0, "eu-central-1").await;
    let failed: Vec<_> = without_quota.iter().filter(|check| check.is_failed()).map(Check::text).collect();
    let smallest = "no type fits into its quota for spot machines (Standard (A, C, D, H, I, M, R, T, Z): 0, the smallest of your types has 2)";
    assert!(failed.len() == 2 && failed[0].contains(smallest), "{failed:?}");
    for (role, missing) in missing().into_iter().enumerate() {
        let checks = rehearse(role, "eu-west-1").await;
        let shown: Vec<String> = checks.iter().map(Check::text).collect();
        let all = shown.join("\n");
        let named = |mark: &str| shown.iter().any(|line| line.starts_with(mark) && line.contains(missing));
        if missing == "nothing" {
            // The account's quotas are not moto's to know.
            let others =
                shown.iter().filter(|line| !line.starts_with('✔') && !line.contains("quota of vCPUs"));
            assert_eq!(others.collect::<Vec<_>>(), Vec::<&String>::new(), "{all}");
            assert_eq!(shown.len(), 17, "{all}");
        } else if OPEN.contains(&missing) {
            assert!(named("- "), "{missing}:\n{all}");
            assert!(!checks.iter().any(Check::is_failed), "{missing}:\n{all}");
        } else {
            assert!(named("✖ "), "{missing}:\n{all}");
            assert!(all.contains(&format!("Next: allow {missing} to the role")), "{missing}:\n{all}");
        }
    }
}
