//! What can be wrong with a rented machine, and what is only odd.

use super::{Case, GOOD, all_told};
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
    all_told(RENTED, CASES);
    assert!(CASES.len() >= 40, "{} cases", CASES.len());
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
    assert!(!format!("{expected:?}").contains("s3cr3t"));
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
    let shown = format!("{:?}", load(&[ROLE, TOKEN]));
    assert!(!shown.contains(TOKEN.1), "{shown}");
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
const ODD: &[Case] = &[
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

const REGION: &str =
    "AWS_DEFAULT_REGION is missing: The region to rent in. 'AWS_REGION' holds where this is missing.";
const MACHINE: &str = "INSTANCE_TYPE is missing: name the types that will do, or say what any type must have by CPUS, MEMORY, GPU or GPU_MEMORY";

#[rustfmt::skip]
const CASES: &[Case] = &[
    (&[("AWS_DEFAULT_REGION", "")], &[REGION]),
    (&[("INSTANCE_TYPE", "")], &[MACHINE]),
    (&[("CLOUD", ""), ("AWS_DEFAULT_REGION", ""), ("INSTANCE_TYPE", "")], &[REGION, MACHINE]),
    (&[("INSTANCE_TYPE", ""), ("INSTANCE_TYPE_COUNT", "1"), ("INSTANCE_TYPE_0", "")], &[MACHINE]),
    (&[("INSTANCE_TYPE", ""), ("GPU", "0")], &[MACHINE]),
    // Without a known CLOUD nobody knows what is missing.
    (&[("CLOUD", "asw"), ("AWS_DEFAULT_REGION", ""), ("IMAGE", "windows")], &["CLOUD 'asw' is not known; it can be 'aws' or 'local'"]),
    (&[("AWS_DEFAULT_REGION", "eu-west-1a")], &["AWS_DEFAULT_REGION 'eu-west-1a' is a zone; give its region, eu-west-1"]),
    (&[("AWS_DEFAULT_REGION", "Ireland")], &["AWS_DEFAULT_REGION 'Ireland' is not a region; write it like eu-west-1"]),
    (&[("AWS_DEFAULT_REGION", "eu-west")], &["AWS_DEFAULT_REGION 'eu-west' is not a region; write it like eu-west-1"]),
    (&[("AWS_DEFAULT_REGION", "EU-WEST-1")], &["AWS_DEFAULT_REGION 'EU-WEST-1' is not a region; write it like eu-west-1"]),
    (&[("AWS_DEFAULT_REGION", "$AWS_DEFAULT_REGION")], &[REGION]),
    (&[("AWS_DEFAULT_REGION", "$REGION")], &["AWS_DEFAULT_REGION is the text '$REGION', not its value; is that variable defined for this repository?"]),
    (&[("AWS_DEFAULT_REGION_COUNT", "2"), ("AWS_DEFAULT_REGION_0", "eu-west-1"), ("AWS_DEFAULT_REGION_1", "eu-west-2")], &["AWS_DEFAULT_REGION is given as a list; it takes one value"]),
    (&[("FALLBACK_REGIONS", "eu-west-2, us-east")], &["FALLBACK_REGIONS 'us-east' is not a region; write it like eu-west-1"]),
    (&[("FALLBACK_REGIONS", "eu-west-2"), ("SUBNET", "subnet-12345678")], &["FALLBACK_REGIONS is given together with SUBNET, which exists in one region only; leave one of them out"]),
    (&[("FALLBACK_REGIONS", "eu-west-2"), ("SECURITY_GROUP", "sg-12345678")], &["FALLBACK_REGIONS is given together with SECURITY_GROUP, which exists in one region only; leave one of them out"]),
    (&[("FALLBACK_REGIONS", "eu-west-2"), ("IMAGE", "ami-12345678")], &["FALLBACK_REGIONS is given together with an AMI's id as IMAGE, which exists in one region only; leave one of them out"]),
    (&[("INSTANCE_TYPE", "m5-2xlarge")], &["INSTANCE_TYPE 'm5-2xlarge' is not an instance type; write it like m5.2xlarge"]),
    (&[("INSTANCE_TYPE", "m5.2xlarg")], &["INSTANCE_TYPE 'm5.2xlarg' is not an instance type; write it like m5.2xlarge"]),
    (&[("INSTANCE_TYPE", "m5.large, M5.xlarge")], &["INSTANCE_TYPE 'M5.xlarge' is not an instance type; write it like m5.2xlarge"]),
    (&[("INSTANCE_TYPE", "m5.*")], &["INSTANCE_TYPE 'm5.*' is not an instance type; write it like m5.2xlarge"]),
    (&[("INSTANCE_TYPE", "gpu")], &["INSTANCE_TYPE 'gpu' is not an instance type; write it like m5.2xlarge"]),
    (&[("CPUS", "8"), ("MEMORY", "32")], &[
        "CPUS is given together with INSTANCE_TYPE; leave one of them out",
        "MEMORY is given together with INSTANCE_TYPE; leave one of them out",
    ]),
    (&[("INSTANCE_TYPE", ""), ("CPUS", "none")], &["CPUS 'none' is not a whole number from 1 to 2048"]),
    (&[("INSTANCE_TYPE", ""), ("CPUS", "0")], &["CPUS '0' is not a whole number from 1 to 2048"]),
    (&[("INSTANCE_TYPE", ""), ("CPUS", "2.5")], &["CPUS '2.5' is not a whole number from 1 to 2048"]),
    (&[("INSTANCE_TYPE", ""), ("MEMORY", "32GB")], &["MEMORY '32GB' is not a whole number of GiB from 1 to 65536; write it like 32"]),
    (&[("INSTANCE_TYPE", ""), ("GPU", "T4")], &["GPU 'T4' is not a whole number from 0 to 64"]),
    (&[("INSTANCE_TYPE", ""), ("GPU_MEMORY", "16 GiB")], &["GPU_MEMORY '16 GiB' is not a whole number of GiB from 1 to 65536; write it like 32"]),
    (&[("INSTANCE_TYPE", ""), ("GPU", "0"), ("GPU_MEMORY", "16")], &["GPU_MEMORY is given together with GPU '0'; leave one of them out"]),
    (&[("PURCHASE", "reserved")], &["PURCHASE 'reserved' is not known; it can be 'spot', 'spot-then-on-demand' or 'on-demand'"]),
    (&[("PURCHASE", "on-demand"), ("MAX_PRICE", "0.5")], &["MAX_PRICE is given together with PURCHASE 'on-demand', whose price is fixed; leave it out, or limit the whole by MAX_COST"]),
    (&[("MAX_PRICE", "0.001")], &["MAX_PRICE '0.001' is out of range; it can be more than 0.001 and up to 100000"]),
    (&[("MAX_PRICE", "0,35")], &["MAX_PRICE '0,35' is not an amount of dollars; write it like 0.35"]),
    (&[("MAX_PRICE", "$0.35")], &["MAX_PRICE '$0.35' is not an amount of dollars; write it like 0.35"]),
    (&[("MAX_COST", "free")], &["MAX_COST 'free' is not an amount of dollars; write it like 0.35"]),
    (&[("MAX_COST", "inf")], &["MAX_COST 'inf' is not an amount of dollars; write it like 0.35"]),
    (&[("MAX_COST", "1e9")], &["MAX_COST '1e9' is not an amount of dollars; write it like 0.35"]),
    (&[("MAX_COST", "200000")], &["MAX_COST '200000' is out of range; it can be more than 0.001 and up to 100000"]),
    (&[("CAPACITY_WAIT", "15")], &["CAPACITY_WAIT '15' has no unit; write it like 90s, 45m, 12h or 1h30m"]),
    (&[("CAPACITY_WAIT", "2days")], &["CAPACITY_WAIT '2days' is out of range; it can be from 0s to 1day"]),
    (&[("SPOT_WAIT", "1h")], &["SPOT_WAIT is given without PURCHASE 'spot-then-on-demand', the only one that it is for; for the whole search there is CAPACITY_WAIT"]),
    (&[("PURCHASE", "spot-then-on-demand"), ("SPOT_WAIT", "2days")], &["SPOT_WAIT '2days' is out of range; it can be from 0s to 1day"]),
    (&[("IMAGE", "ubuntu-20.04")], &["IMAGE 'ubuntu-20.04' is not known; it can be 'ubuntu-24.04', 'ubuntu-22.04', 'al2023' or 'deep-learning', an AMI's id, or the path of an SSM parameter"]),
    (&[("IMAGE", "ami-xyz")], &["IMAGE 'ami-xyz' is not an AMI's id; write it like ami-0123456789abcdef0"]),
    (&[("DISK_SIZE", "100GB")], &["DISK_SIZE '100GB' is not a whole number of GiB from 1 to 65536; write it like 32"]),
    (&[("DISK_TYPE", "st1")], &["DISK_TYPE 'st1' is not known; it can be 'gp3' or 'gp2'"]),
    (&[("INSTANCE_PROFILE", "arn:aws:iam::123456789012:role/training")], &["INSTANCE_PROFILE 'arn:aws:iam::123456789012:role/training' is a role's ARN; give that of the instance profile that holds the role"]),
    (&[("INSTANCE_PROFILE", "my profile")], &["INSTANCE_PROFILE 'my profile' is neither the name nor the ARN of an instance profile"]),
    (&[("SUBNET", "subnet-12345678, vpc-12345678")], &["SUBNET 'vpc-12345678' is not a subnet's id; write it like subnet-0123456789abcdef0"]),
    (&[("SECURITY_GROUP", "default")], &["SECURITY_GROUP 'default' is not a security group's id; write it like sg-0123456789abcdef0"]),
    (&[("SECURITY_GROUP", "sg-12345678"), ("SSH_CIDR", "203.0.113.0/24")], &["SSH_CIDR is given together with SECURITY_GROUP, whose rules are left as they are; leave one of them out"]),
    (&[("TAGS", "team")], &["TAGS 'team' is not a tag; write KEY=VALUE"]),
    (&[("TAGS", "=ml")], &["TAGS '=ml' has no key; write KEY=VALUE"]),
    (&[("TAGS", "AWS:team=ml")], &["TAGS 'AWS:team=ml' has a key that AWS keeps for itself; choose one without aws:"]),
    (&[("TAGS", "trainspot:run=1")], &["TAGS 'trainspot:run=1' has a key that trainspot sets itself; choose another one"]),
    (&[("TAGS", "Name=forest")], &["TAGS 'Name=forest' has a key that trainspot sets itself; choose another one"]),
    (&[("TAGS", "team=ml, team=ops")], &["TAGS have the key 'team' twice"]),
    (&[("SSH_CIDR", "office")], &["SSH_CIDR 'office' is not an address or a range of them; write it like 203.0.113.7 or 203.0.113.0/24"]),
    (&[("SSH_CIDR", "203.0.113.7/33")], &["SSH_CIDR '203.0.113.7/33' is not an address or a range of them; write it like 203.0.113.7 or 203.0.113.0/24"]),
    (&[("SSH_ADDRESS", "10.0.0.7")], &["SSH_ADDRESS '10.0.0.7' is not known; it can be 'auto', 'public' or 'private'"]),
    (&[("PUBLIC_IP_URL", "checkip.amazonaws.com")], &["PUBLIC_IP_URL 'checkip.amazonaws.com' is not a URL: relative URL without a base"]),
    (&[("BOOT_TIMEOUT", "1s")], &["BOOT_TIMEOUT '1s' is out of range; it can be from 5s to 1h"]),
    (&[("DRY_RUN", "maybe")], &["DRY_RUN 'maybe' is neither true nor false; write 'true' or 'false'"]),
    (&[ROLE], &["AWS_OIDC_ROLE_ARN needs 'oidc: true' in the step, which gives the pipe BITBUCKET_STEP_OIDC_TOKEN"]),
    (&[("AWS_OIDC_ROLE_ARN", "trainspot"), TOKEN], &["AWS_OIDC_ROLE_ARN 'trainspot' is not a role's ARN; write it like arn:aws:iam::123456789012:role/trainspot"]),
    (&[("AWS_OIDC_ROLE_ARN", "arn:aws:iam::1234:role/trainspot"), TOKEN], &["AWS_OIDC_ROLE_ARN 'arn:aws:iam::1234:role/trainspot' is not a role's ARN; write it like arn:aws:iam::123456789012:role/trainspot"]),
    (&[("AWS_ACCESS_KEY_ID", "AKIAEXAMPLE")], &["AWS_SECRET_ACCESS_KEY is missing: an access key is of use only with it"]),
    (&[("AWS_SECRET_ACCESS_KEY", "s3cr3tvalue")], &["AWS_ACCESS_KEY_ID is missing: the rest of an access key is of use only with it"]),
    (&[("AWS_SESSION_TOKEN", "s3cr3tvalue")], &[
        "AWS_ACCESS_KEY_ID is missing: the rest of an access key is of use only with it",
        "AWS_SECRET_ACCESS_KEY is missing: an access key is of use only with it",
    ]),
    (&[("AWS_ACCESS_KEY_ID", "ASIAEXAMPLE"), ("AWS_SECRET_ACCESS_KEY", "s3cr3tvalue")], &["AWS_SESSION_TOKEN is missing: an access key that begins with ASIA is of use only with it"]),
    (&[("AWS_ACCESS_KEY_ID", "AKIAEXAMPLE"), ("AWS_SECRET_ACCESS_KEY", "s3cr3t value")], &["AWS_SECRET_ACCESS_KEY (value not shown) has white space inside; was it pasted whole?"]),
    (&[("INSTANCE_TYPES", "m5.large")], &["INSTANCE_TYPES is not known; did you mean INSTANCE_TYPE?"]),
    (&[("MAX_PRIZE", "1")], &["MAX_PRIZE is not known; did you mean MAX_PRICE?"]),
    (&[("AWS_DEFAULT_REGOIN", "eu-west-1")], &["AWS_DEFAULT_REGOIN is not known; did you mean AWS_DEFAULT_REGION?"]),
    (&[("SPOT_PURCHASE", "x"), ("SUBNETS", "subnet-1")], &["SUBNETS is not known; did you mean SUBNET?"]),
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
