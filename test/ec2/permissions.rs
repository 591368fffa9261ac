//! The policy of the documentation: with it a plan can be made, and without any action of it the action is
//! named.

use super::moto::{Moto, plain, with_environment};
use std::collections::BTreeMap;
use std::process::Command;
use trainspot_compute::aws::SshAddress;
use trainspot_ec2::AwsClients;
use trainspot_ec2::plan::Plan;

/// Not `ssm:GetParameters`, which moto refuses in the words of another service.
const PLANNING: [&str; 6] = [
    "ec2:DescribeVpcs",
    "ec2:DescribeSubnets",
    "ec2:DescribeRouteTables",
    "ec2:DescribeInstanceTypes",
    "ec2:DescribeInstanceTypeOfferings",
    "ec2:DescribeImages",
];

/// Makes a role for each action or statement that is left out of the policy, and one with all of it; then
/// turns permissions on.
const ROLES: &str = r#"
import json, sys, urllib.request, boto3
url, path, *actions = sys.argv[1:]
scene = dict(endpoint_url=url, region_name="eu-west-1", aws_access_key_id="AKIAIOSFODNN7EXAMPLE", aws_secret_access_key="x")
iam, sts = boto3.client("iam", **scene), boto3.client("sts", **scene)
keys = {}
for number, missing in enumerate(["nothing", *actions]):
    policy = json.load(open(path))
    for statement in policy["Statement"]:
        names = statement["Action"] if isinstance(statement["Action"], list) else [statement["Action"]]
        statement["Action"] = [name for name in names if name != missing]
        statement["Resource"] = "*"  # moto asks for actions only
    kept = [statement for statement in policy["Statement"] if statement["Action"] and statement["Sid"] != missing]
    policy["Statement"] = kept
    role = iam.create_role(RoleName=f"role{number}", AssumeRolePolicyDocument="{}")["Role"]
    iam.put_role_policy(RoleName=f"role{number}", PolicyName="p", PolicyDocument=json.dumps(policy))
    given = sts.assume_role(RoleArn=role["Arn"], RoleSessionName="scene")["Credentials"]
    keys[missing] = [given["AccessKeyId"], given["SecretAccessKey"], given["SessionToken"]]
plain = {"Content-Type": "text/plain"}
urllib.request.urlopen(urllib.request.Request(url + "/moto-api/reset-auth", data=b"0", headers=plain, method="POST"))
json.dump(keys, sys.stdout)
"#;

/// The keys of each role, by the action or statement that it lacks.
pub(crate) fn roles(moto: &Moto, missing: &[&str]) -> BTreeMap<String, [String; 3]> {
    let output = Command::new(format!("{}/python", moto.bin))
        .args(["-c", ROLES, moto.url(), concat!(env!("CARGO_MANIFEST_DIR"), "/docs/iam-policy.json")])
        .args(missing)
        .env("AWS_EC2_METADATA_DISABLED", "true")
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

#[test]
fn the_documented_policy_is_enough_for_a_plan_and_each_missing_action_is_named() {
    if std::env::var_os("MISSING").is_some() {
        return with_environment(&[], plan_without);
    }
    let moto = match Moto::start() {
        Ok(moto) => moto,
        Err(reason) => return skip::skip(&reason),
    };
    for (missing, [key, secret, token]) in roles(&moto, &PLANNING) {
        let variables = [
            ("AWS_ENDPOINT_URL", moto.url()),
            ("AWS_ACCESS_KEY_ID", &key),
            ("AWS_SECRET_ACCESS_KEY", &secret),
            ("AWS_SESSION_TOKEN", &token),
            ("MISSING", &missing),
        ];
        with_environment(&variables, plan_without);
    }
}

/// By private address, as moto's default VPC has no way in.
async fn plan_without() {
    let missing = std::env::var("MISSING").unwrap();
    let mut aws = plain(&["eu-west-1"], &["m5.large"]);
    aws.ssh_address = SshAddress::Private;
    let made = Plan::make(&AwsClients::new(&aws.account, "acme/forest").await.unwrap(), &aws).await;
    if missing == "nothing" {
        assert_eq!(made.unwrap().regions.len(), 1);
    } else {
        let shown = made.unwrap_err().render();
        assert!(shown.contains(&format!("Next: allow {missing} to the role")), "{missing}: {shown}");
        assert_eq!(shown.matches("Next: ").count(), 1, "{shown}");
    }
}
