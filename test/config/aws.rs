//! What can be wrong with a rented machine, and what is only odd.

use super::{Changes, GOOD, told_of_each};
use secrecy::ExposeSecret as _;
use std::time::Duration;
use trainspot::config::{Cloud, Config};
use trainspot_compute::aws::{AccessKey, AwsSettings, MachineNeeds, Purchase, SshAddress};

/// The least that a rented machine needs.
const RENTED: &[(&str, &str)] =
    &[("CLOUD", "aws"), ("AWS_DEFAULT_REGION", "eu-west-1"), ("INSTANCE_TYPE", "m5.2xlarge")];

const ROLE: (&str, &str) = ("AWS_OIDC_ROLE_ARN", "arn:aws:iam::123456789012:role/trainspot");
const TOKEN: (&str, &str) = ("BITBUCKET_STEP_OIDC_TOKEN", "header.claims.signature");

fn load(changes: &[(&str, &str)]) -> Config {
    let all = [GOOD, RENTED, changes].concat();
    let all = all.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned()));
    Config::load(all).unwrap_or_else(|problems| panic!("{problems}\n{changes:?}"))
}

fn aws(changes: &[(&str, &str)]) -> AwsSettings {
    let config = load(changes);
    assert_eq!(config.warnings, Vec::<String>::new(), "{changes:?}");
    match config.train.unwrap().cloud {
        Cloud::Aws(aws) => *aws,
        Cloud::Local => panic!("{changes:?} is local"),
    }
}

#[test]
fn every_wrong_wish_is_told_in_full() {
    insta::assert_snapshot!(told_of_each(RENTED, WRONG));
}

#[test]
fn the_least_that_is_needed_gets_the_defaults() {
    let aws = aws(&[]);
    assert_eq!(aws.account.regions, ["eu-west-1"]);
    assert_eq!(aws.machine, MachineNeeds::Types(vec!["m5.2xlarge".into()]));
    assert_eq!((aws.purchase, aws.ssh_address), (Purchase::Spot, SshAddress::Auto));
    assert_eq!((aws.max_price, aws.max_cost, aws.image), (None, None, None));
    assert_eq!((aws.disk_size, aws.disk_type.as_str()), (Some(50), "gp3"));
    assert_eq!((aws.capacity_wait, aws.boot_timeout), (Duration::from_hours(6), Duration::from_mins(10)));
    assert_eq!(aws.public_ip_url, "https://checkip.amazonaws.com");
    assert!(aws.account.oidc.is_none() && !aws.dry_run);
}

/// A step that says nothing of `CLOUD` rents.
#[test]
fn renting_is_the_default() {
    let cloud = load(&[("CLOUD", "")]).train.unwrap().cloud;
    assert!(matches!(cloud, Cloud::Aws(_)));
}

#[test]
fn all_that_can_be_wished_arrives() {
    let aws = aws(&[
        ROLE,
        TOKEN,
        ("FALLBACK_REGIONS", "eu-central-1, eu-west-1, us-gov-west-1"),
        ("INSTANCE_TYPE", ""),
        ("INSTANCE_TYPE_COUNT", "3"),
        ("INSTANCE_TYPE_0", "m5.2xlarge"),
        ("INSTANCE_TYPE_1", "m7i-flex.2xlarge"),
        ("INSTANCE_TYPE_2", "m5.2xlarge"),
        ("PURCHASE", "SPOT_THEN_ON_DEMAND"),
        ("MAX_PRICE", "0.35"),
        ("MAX_COST", "12"),
        ("CAPACITY_WAIT", "0s"),
        ("SPOT_WAIT", "1h30m"),
        ("IMAGE", "/aws/service/canonical/ubuntu/server/24.04/stable/current/amd64/hvm/ebs-gp3/ami-id"),
        ("DISK_SIZE", "200"),
        ("DISK_TYPE", "gp2"),
        ("INSTANCE_PROFILE", "arn:aws:iam::123456789012:instance-profile/training"),
        ("TAGS", "team=ml, cost-center=42"),
        ("STARTUP_SCRIPT", "apt-get update\napt-get install -y libgomp1"),
        ("SSH_CIDR", "203.0.113.7, 10.1.2.3/16, 2001:db8::1"),
        ("SSH_ADDRESS", "private"),
        ("BOOT_TIMEOUT", "5m"),
        ("DRY_RUN", "yes"),
    ]);
    assert_eq!(aws.account.oidc.unwrap().token.value.expose_secret(), TOKEN.1);
    assert_eq!(aws.account.regions, ["eu-west-1", "eu-central-1", "us-gov-west-1"]);
    assert_eq!(aws.machine, MachineNeeds::Types(vec!["m5.2xlarge".into(), "m7i-flex.2xlarge".into()]));
    assert_eq!(
        (aws.purchase, aws.max_price, aws.max_cost),
        (Purchase::SpotThenOnDemand, Some(0.35), Some(12.0))
    );
    assert_eq!((aws.capacity_wait, aws.boot_timeout), (Duration::ZERO, Duration::from_mins(5)));
    assert_eq!(aws.spot_wait, Duration::from_mins(90));
    assert!(aws.image.unwrap().ends_with("/ami-id"));
    assert_eq!((aws.disk_size, aws.disk_type.as_str()), (Some(200), "gp2"));
    assert!(aws.instance_profile.unwrap().ends_with("/training"));
    assert_eq!(aws.tags, [("team".into(), "ml".into()), ("cost-center".into(), "42".into())]);
    assert_eq!(aws.startup_script.unwrap(), "apt-get update\napt-get install -y libgomp1");
    assert_eq!(aws.ssh_cidrs, ["203.0.113.7/32", "10.1.0.0/16", "2001:db8::1/128"]);
    assert_eq!((aws.ssh_address, aws.dry_run), (SshAddress::Private, true));
}

#[test]
fn attributes_stand_in_for_types() {
    let machine = |changes: &[(&str, &str)]| aws(&[&[("INSTANCE_TYPE", "")], changes].concat()).machine;
    let at_least = |cpus, memory, gpus, gpu_memory| MachineNeeds::AtLeast { cpus, memory, gpus, gpu_memory };
    assert_eq!(machine(&[("CPUS", "8"), ("MEMORY", "32")]), at_least(8, 32, 0, 0));
    assert_eq!(machine(&[("CPUS", "8"), ("GPU", "0")]), at_least(8, 0, 0, 0));
    assert_eq!(machine(&[("GPU", "2"), ("GPU_MEMORY", "48")]), at_least(0, 0, 2, 48));
    // Memory of GPUs is on a GPU.
    assert_eq!(machine(&[("GPU_MEMORY", "16")]), at_least(0, 0, 1, 16));
}

#[test]
fn a_network_of_ones_own() {
    let aws =
        aws(&[("SUBNET", "subnet-12345678, subnet-0123456789abcdef0"), ("SECURITY_GROUP", "sg-12345678")]);
    assert_eq!(aws.subnets, ["subnet-12345678", "subnet-0123456789abcdef0"]);
    assert_eq!(aws.security_group.unwrap(), "sg-12345678");
}

#[test]
fn the_other_name_of_the_region_holds_where_the_first_is_missing() {
    assert_eq!(
        aws(&[("AWS_REGION", "us-east-2"), ("AWS_DEFAULT_REGION", "")]).account.regions,
        ["us-east-2"]
    );
    assert_eq!(aws(&[("AWS_REGION", "us-east-2")]).account.regions, ["eu-west-1"]);
}

#[test]
fn credentials_come_in_every_form() {
    assert!(
        aws(&[("AWS_ACCESS_KEY_ID", "AKIAEXAMPLE"), ("AWS_SECRET_ACCESS_KEY", "s3cr3tvalue")])
            .account
            .oidc
            .is_none()
    );
    // A role wins, and whatever is wrong with a key that nobody uses is nobody's trouble.
    assert!(aws(&[ROLE, TOKEN, ("AWS_ACCESS_KEY_ID", "ASIAEXAMPLE")]).account.oidc.is_some());
}

/// The defaults in `pipe.yml` of what the repository does not define, where nothing has expanded them.
#[test]
fn the_text_of_a_default_is_no_part_of_an_access_key() {
    let key = |id: &str, secret: &str, session: &str| {
        aws(&[
            ("AWS_ACCESS_KEY_ID", id),
            ("AWS_SECRET_ACCESS_KEY", secret),
            ("AWS_SESSION_TOKEN", session),
            ("AWS_OIDC_ROLE_ARN", "${AWS_OIDC_ROLE_ARN}"),
        ])
        .account
        .key
    };
    let key = |id: &str, secret: &str, session: &str| {
        let AccessKey { id, secret, session_token } = key(id, secret, session)?;
        Some((id, secret.expose_secret().to_owned(), session_token.is_some()))
    };
    assert_eq!(key("$AWS_ACCESS_KEY_ID", "$AWS_SECRET_ACCESS_KEY", "$AWS_SESSION_TOKEN"), None);
    assert_eq!(key("${AWS_ACCESS_KEY_ID}", "", ""), None);
    let expected = Some(("AKIAEXAMPLE".to_owned(), "s3cr3tvalue".to_owned(), false));
    assert_eq!(key("AKIAEXAMPLE", "s3cr3tvalue", "$AWS_SESSION_TOKEN"), expected);
    // Nor is the white space that was pasted along.
    assert_eq!(key(" AKIAEXAMPLE", "s3cr3tvalue\n", "\n"), expected);
}

#[test]
fn secrets_of_aws_are_hidden() {
    let config = load(&[
        TOKEN,
        ("AWS_ACCESS_KEY_ID", "ASIAEXAMPLE"),
        ("AWS_SECRET_ACCESS_KEY", "s3cr3tvalue"),
        ("AWS_SESSION_TOKEN", "s3ss10nvalue"),
    ]);
    let hidden: Vec<&str> = config.secrets.iter().map(|secret| secret.name.as_str()).collect();
    for name in ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", TOKEN.0] {
        assert!(hidden.contains(&name), "{name}: {hidden:?}");
    }
    let shown = format!("{config:?} {:?}", load(&[ROLE, TOKEN]));
    for secret in [TOKEN.1, "s3cr3tvalue", "s3ss10nvalue"] {
        assert!(!shown.contains(secret), "{shown}");
    }
}

/// Also where they are not read, since they are in the environment all the same.
#[test]
fn secrets_of_aws_are_hidden_in_local_runs() {
    let config = load(&[("CLOUD", "local"), ("INSTANCE_TYPE", ""), ("AWS_SECRET_ACCESS_KEY", "s3cr3tvalue")]);
    assert!(config.secrets.iter().any(|secret| secret.value.expose_secret() == "s3cr3tvalue"));
    assert_eq!(config.warnings, Vec::<String>::new());
}

#[test]
fn what_is_odd_is_told_and_done() {
    for (changes, warnings) in ODD {
        assert_eq!(load(changes).warnings, *warnings, "{changes:?}");
    }
    let grace = |changes: &[(&str, &str)]| load(changes).train.unwrap().orphan_grace;
    assert_eq!(grace(&[("MAX_RUNTIME", "5m")]), Duration::from_mins(5));
    assert_eq!(grace(&[("MAX_RUNTIME", "5m"), ("ORPHAN_GRACE", "1h")]), Duration::from_mins(5));
    assert_eq!(grace(&[("MAX_RUNTIME", "1s"), ("ORPHAN_GRACE", "20s")]), Duration::from_secs(20));
}

/// Changes, and the warnings that they bring.
#[rustfmt::skip]
const ODD: &[(Changes, &[&str])] = &[
    (&[("CLOUD", "local")], &["INSTANCE_TYPE has no effect with CLOUD 'local'"]),
    (&[("CLOUD", "local"), ("INSTANCE_TYPE", ""), ("PURCHASE", "on-demand"), ("MAX_PRICE", "1"), ("DRY_RUN", "true")], &[
        "PURCHASE has no effect with CLOUD 'local'",
        "MAX_PRICE has no effect with CLOUD 'local'",
        "DRY_RUN has no effect with CLOUD 'local'",
    ]),
    // Nor is it a mistake there.
    (&[("CLOUD", "local"), ("INSTANCE_TYPE", ""), ("IMAGE", "acme/trainer:1.0")], &["IMAGE has no effect with CLOUD 'local'"]),
    // The repository has them for other steps.
    (&[("CLOUD", "local"), ("INSTANCE_TYPE", ""), ROLE, ("AWS_DEFAULT_REGION", "?")], &[]),
    (&[("ACTION", "publish"), ("CLOUD", ""), ("TRAIN_COMMAND", ""), ("TAGS", "nonsense")], &[
        "INSTANCE_TYPE has no effect with ACTION 'publish'",
        "TAGS has no effect with ACTION 'publish'",
    ]),
    (&[ROLE, ("AWS_ACCESS_KEY_ID", "AKIAEXAMPLE"), ("AWS_SECRET_ACCESS_KEY", "s3cr3tvalue")], &[
        "AWS_OIDC_ROLE_ARN needs 'oidc: true' in the step, which gives the pipe BITBUCKET_STEP_OIDC_TOKEN; using AWS_ACCESS_KEY_ID instead",
    ]),
    (&[("MAX_RUNTIME", "30m"), ("ORPHAN_GRACE", "1h")], &["ORPHAN_GRACE is longer than MAX_RUNTIME, and cut to 30m"]),
    (&[("MAX_RUNTIME", "5m")], &[]),
    (&[("MAX_RUNTIME", "3h")], &[
        "a spot machine can be taken away, and without CHECKPOINTS the training then begins again from zero; save checkpoints, or use PURCHASE 'on-demand'",
    ]),
    (&[("MAX_RUNTIME", "3h"), ("CHECKPOINTS", "checkpoints")], &[]),
    (&[("MAX_RUNTIME", "3h"), ("PURCHASE", "on-demand")], &[]),
    (&[("MAX_RUNTIME", "2h")], &[]),
    (&[("TRAIN_ENV", "AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY"), ("AWS_ACCESS_KEY_ID", "AKIAEXAMPLE"), ("AWS_SECRET_ACCESS_KEY", "s3cr3tvalue")], &[
        "TRAIN_ENV gives AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY to the rented machine; by INSTANCE_PROFILE the training gets credentials of its own",
    ]),
];

#[rustfmt::skip]
const WRONG: &[Changes] = &[
    &[("AWS_DEFAULT_REGION", "")],
    &[("INSTANCE_TYPE", "")],
    &[("CLOUD", ""), ("AWS_DEFAULT_REGION", ""), ("INSTANCE_TYPE", "")],
    &[("INSTANCE_TYPE", ""), ("INSTANCE_TYPE_COUNT", "1"), ("INSTANCE_TYPE_0", "")],
    &[("INSTANCE_TYPE", ""), ("GPU", "0")],
    // Without a known CLOUD nobody knows what is missing.
    &[("CLOUD", "asw"), ("AWS_DEFAULT_REGION", ""), ("IMAGE", "windows")],
    &[("AWS_DEFAULT_REGION", "eu-west-1a")],
    &[("AWS_DEFAULT_REGION", "Ireland")],
    &[("AWS_DEFAULT_REGION", "eu-west")],
    &[("AWS_DEFAULT_REGION", "EU-WEST-1")],
    &[("AWS_DEFAULT_REGION", "$AWS_DEFAULT_REGION")],
    &[("AWS_DEFAULT_REGION", "$REGION")],
    &[("AWS_DEFAULT_REGION_COUNT", "2"), ("AWS_DEFAULT_REGION_0", "eu-west-1"), ("AWS_DEFAULT_REGION_1", "eu-west-2")],
    &[("FALLBACK_REGIONS", "eu-west-2, us-east")],
    &[("FALLBACK_REGIONS", "eu-west-2"), ("SUBNET", "subnet-12345678")],
    &[("FALLBACK_REGIONS", "eu-west-2"), ("SECURITY_GROUP", "sg-12345678")],
    &[("FALLBACK_REGIONS", "eu-west-2"), ("IMAGE", "ami-12345678")],
    &[("INSTANCE_TYPE", "m5-2xlarge")],
    &[("INSTANCE_TYPE", "m5.2xlarg")],
    &[("INSTANCE_TYPE", "m5.large, M5.xlarge")],
    &[("INSTANCE_TYPE", "m5.*")],
    &[("INSTANCE_TYPE", "gpu")],
    &[("CPUS", "8"), ("MEMORY", "32")],
    &[("INSTANCE_TYPE", ""), ("CPUS", "none")],
    &[("INSTANCE_TYPE", ""), ("CPUS", "0")],
    &[("INSTANCE_TYPE", ""), ("CPUS", "2.5")],
    &[("INSTANCE_TYPE", ""), ("MEMORY", "32GB")],
    &[("INSTANCE_TYPE", ""), ("GPU", "T4")],
    &[("INSTANCE_TYPE", ""), ("GPU_MEMORY", "16 GiB")],
    &[("INSTANCE_TYPE", ""), ("GPU", "0"), ("GPU_MEMORY", "16")],
    &[("PURCHASE", "reserved")],
    &[("PURCHASE", "on-demand"), ("MAX_PRICE", "0.5")],
    &[("MAX_PRICE", "0.001")],
    &[("MAX_PRICE", "0,35")],
    &[("MAX_PRICE", "$0.35")],
    &[("MAX_COST", "free")],
    &[("MAX_COST", "inf")],
    &[("MAX_COST", "1e9")],
    &[("MAX_COST", "200000")],
    &[("CAPACITY_WAIT", "15")],
    &[("CAPACITY_WAIT", "2days")],
    &[("SPOT_WAIT", "1h")],
    &[("PURCHASE", "spot-then-on-demand"), ("SPOT_WAIT", "2days")],
    &[("IMAGE", "ubuntu-20.04")],
    &[("IMAGE", "ami-xyz")],
    &[("DISK_SIZE", "100GB")],
    &[("DISK_TYPE", "st1")],
    &[("INSTANCE_PROFILE", "arn:aws:iam::123456789012:role/training")],
    &[("INSTANCE_PROFILE", "my profile")],
    &[("SUBNET", "subnet-12345678, vpc-12345678")],
    &[("SECURITY_GROUP", "default")],
    &[("SECURITY_GROUP", "sg-12345678"), ("SSH_CIDR", "203.0.113.0/24")],
    &[("TAGS", "team")],
    &[("TAGS", "=ml")],
    &[("TAGS", "AWS:team=ml")],
    &[("TAGS", "trainspot:run=1")],
    &[("TAGS", "Name=forest")],
    &[("TAGS", "team=ml, team=ops")],
    &[("SSH_CIDR", "office")],
    &[("SSH_CIDR", "203.0.113.7/33")],
    &[("SSH_ADDRESS", "10.0.0.7")],
    &[("PUBLIC_IP_URL", "checkip.amazonaws.com")],
    &[("BOOT_TIMEOUT", "1s")],
    &[("DRY_RUN", "maybe")],
    &[ROLE],
    &[("AWS_OIDC_ROLE_ARN", "trainspot"), TOKEN],
    &[("AWS_OIDC_ROLE_ARN", "arn:aws:iam::1234:role/trainspot"), TOKEN],
    &[("AWS_ACCESS_KEY_ID", "AKIAEXAMPLE")],
    &[("AWS_SECRET_ACCESS_KEY", "s3cr3tvalue")],
    &[("AWS_SESSION_TOKEN", "s3cr3tvalue")],
    &[("AWS_ACCESS_KEY_ID", "ASIAEXAMPLE"), ("AWS_SECRET_ACCESS_KEY", "s3cr3tvalue")],
    &[("AWS_ACCESS_KEY_ID", "AKIAEXAMPLE"), ("AWS_SECRET_ACCESS_KEY", "s3cr3t value")],
    &[("INSTANCE_TYPES", "m5.large")],
    &[("MAX_PRIZE", "1")],
    &[("AWS_DEFAULT_REGOIN", "eu-west-1")],
    &[("SPOT_PURCHASE", "x"), ("SUBNETS", "subnet-1")],
];

/// It rents nothing, so it needs to know nothing but where and as whom.
#[test]
fn a_sweep_needs_a_region() {
    let names =
        [("ACTION", "sweep"), ("CLOUD", "local"), ("AWS_DEFAULT_REGION", "eu-west-1"), ("DRY_RUN", "yes")];
    let config = Config::load(names.map(|(name, value)| (name.to_owned(), value.to_owned()))).unwrap();
    assert_eq!(config.warnings, ["CLOUD has no effect with ACTION 'sweep'"]);
    assert!(config.train.is_none());
    let sweep = config.sweep.unwrap();
    assert!(sweep.dry_run && sweep.account.regions == ["eu-west-1"]);
    let problems = Config::load([("ACTION".to_owned(), "sweep".to_owned())]).unwrap_err();
    assert!(problems.to_string().contains("AWS_DEFAULT_REGION is missing"), "{problems}");
}
