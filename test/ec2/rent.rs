//! Machines that are rented, reached, taken over and ended, on the rig.

use super::lab::{Lab, in_lab};
use super::moto::{Account, key_of_the_environment, with_account};
use crate::local_machine::{ended, spec};
use aws_sdk_ec2::types::IpPermission;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::{Duration, Instant};
use trainspot_base::error::Error;
use trainspot_bitbucket::StepVariables;
use trainspot_compute::aws::{AwsAccount, AwsSettings, MachineNeeds, Purchase, SshAddress};
use trainspot_compute::link::Agent;
use trainspot_compute::{Compute as _, LaunchRequest, Machine, MachineStatus, RunId};
use trainspot_ec2::{AwsClients, Ec2, Leftover, LeftoverKind, Owner};
use trainspot_protocol::FileSelection;
use trainspot_protocol::{AgentCommand, ExitReason};

pub(super) const LONG: Duration = Duration::from_mins(10);

pub(super) fn aws(lab: &Lab) -> AwsSettings {
    let texts = |list: &[&str]| list.iter().map(|&text| text.to_owned()).collect();
    AwsSettings {
        account: AwsAccount {
            regions: texts(&["us-east-1", "eu-west-1"]),
            oidc: None,
            key: key_of_the_environment(),
        },
        machine: MachineNeeds::Types(texts(&["m5.large", "c5.large"])),
        purchase: Purchase::Spot,
        max_price: None,
        max_cost: None,
        capacity_wait: Duration::from_secs(2),
        spot_wait: Duration::ZERO,
        image: None,
        disk_size: Some(20),
        disk_type: "gp3".to_owned(),
        instance_profile: None,
        subnets: Vec::new(),
        security_group: None,
        tags: vec![("team".to_owned(), "ml".to_owned())],
        startup_script: None,
        ssh_cidrs: Vec::new(),
        ssh_address: SshAddress::Auto,
        public_ip_url: lab.variable("PUBLIC_IP_URL").to_owned(),
        boot_timeout: LONG,
        dry_run: false,
    }
}

fn owner() -> Owner {
    Owner::from(&StepVariables {
        workspace: Some("acme".to_owned()),
        repo_slug: Some("forest".to_owned()),
        build_number: Some("7".to_owned()),
        ..StepVariables::default()
    })
}

pub(super) async fn ec2(aws: AwsSettings) -> Ec2 {
    trainspot_base::log::start();
    let program = PathBuf::from(env!("CARGO_BIN_EXE_trainspot"));
    Ec2::new(aws, owner()).await.unwrap().with_agent(program)
}

pub(super) fn launch_request(run: &str) -> LaunchRequest {
    LaunchRequest {
        run: RunId::new(&[run]),
        orphan_grace: Duration::from_mins(5),
        max_runtime: Duration::from_mins(10),
        avoid: Vec::new(),
        spot_now: false,
    }
}

pub(super) fn told<T>(result: Result<T, Error>) -> T {
    result.unwrap_or_else(|error| panic!("{}", error.render()))
}

/// What there is of the repository's runs.
async fn leftovers(aws: &AwsSettings) -> Vec<Leftover> {
    told(AwsClients::new(&aws.account, "acme/forest").await.unwrap().leftovers().await)
}

/// Ends what a run has, as a pipe does at its end.
pub(super) async fn end(ec2: &Ec2, request: &LaunchRequest) {
    for machine in told(ec2.find(&request.run).await) {
        told(ec2.terminate(&machine).await);
    }
    told(ec2.delete_run_resources(&request.run).await);
}

pub(super) fn zone(machine: &Machine) -> &str {
    &machine.pool.as_ref().unwrap().zone
}

#[test]
fn a_machine_is_rented_reached_taken_over_and_ended() {
    in_lab(async |lab: &Lab| {
        // The machine's cloud-init finds nothing wrong with the user data.
        let script = "cloud-init schema --system\nid -un >/var/lib/who\necho prepared\n";
        let aws = AwsSettings { startup_script: Some(script.to_owned()), ..aws(lab) };
        let (first, request) = (ec2(aws.clone()).await, launch_request("whole"));
        let machine = told(first.launch(&request).await);
        assert!(zone(&machine).starts_with("us-east-1"), "{machine:?}");
        let agent = Agent::new(told(first.connect(&machine, &request).await), "first");
        agent
            .ask(AgentCommand::Start(Box::new(spec("sudo cat /var/lib/who >out; sleep 2; exit 3"))))
            .await
            .unwrap();
        assert_eq!(told(first.status(&machine).await), MachineStatus::Running);
        drop((first, agent));

        // The pipe was killed: another one finds the machine, which knows other keys.
        let second = ec2(AwsSettings { ssh_cidrs: vec!["203.0.113.0/24".to_owned()], ..aws.clone() }).await;
        let found = told(second.find(&request.run).await);
        assert_eq!(found.iter().map(|machine| &machine.id).collect::<Vec<_>>(), [&machine.id]);
        let agent = Agent::new(told(second.connect(&found[0], &request).await), "first");
        assert_eq!(ended(&agent).await.reason, ExitReason::Exited(3));
        // The second pipe called from elsewhere.
        let groups = lab.ec2("us-east-1").await.describe_security_groups();
        let groups = groups.group_names(format!("trainspot-{}", request.run)).send().await.unwrap();
        let ranges = groups.security_groups()[0].ip_permissions().iter().flat_map(IpPermission::ip_ranges);
        let ranges: BTreeSet<_> = ranges.filter_map(|range| range.cidr_ip()).collect();
        assert_eq!(ranges, BTreeSet::from(["203.0.113.77/32", "203.0.113.0/24"]));
        let folder = tempfile::tempdir().unwrap();
        let wanted = FileSelection { required: vec!["out".to_owned()], ..FileSelection::default() };
        told(agent.fetch(&wanted, folder.path(), "out").await);
        assert_eq!(std::fs::read_to_string(folder.path().join("out")).unwrap(), "root\n");

        let left = leftovers(&aws).await;
        assert_eq!(
            left.iter().map(|left| left.what).collect::<Vec<_>>(),
            [LeftoverKind::Machine, LeftoverKind::Template, LeftoverKind::Group]
        );
        assert!(left.iter().all(|left| left.run == request.run && left.number.as_deref() == Some("7")));
        end(&second, &request).await;
        assert!(matches!(told(second.status(&machine).await), MachineStatus::Gone(_)));
        lab.assert_nothing_left().await;
        assert_only_documented_calls(lab).await;
    });
}

/// What needs no machine that boots is shown without the rig as well, on any host.
#[test]
fn a_run_is_found_and_cleaned_up_at_a_server_that_only_answers_calls() {
    with_account("100000000021", async |account: Account| {
        for region in ["eu-west-1", "us-east-1"] {
            account.open(region).await;
        }
        let aws = AwsSettings {
            tags: vec![("team".to_owned(), "ml".to_owned())],
            ..account.aws(&["eu-west-1", "us-east-1"], &["m5.large"])
        };
        let (first, request) = (ec2(aws.clone()).await, launch_request("moto"));
        let machine = told(first.launch(&request).await);
        assert!(zone(&machine).starts_with("eu-west-1"), "{machine:?}");
        // A second pipe of the same step: its template takes the place of the first one's, and so does its
        // group.
        let second = ec2(aws.clone()).await;
        let other = told(second.launch(&request).await);
        let found = told(second.find(&request.run).await);
        assert_eq!(found.len(), 2);
        assert!(found.iter().any(|found| found.id == machine.id));
        let kinds: Vec<_> = leftovers(&aws).await.iter().map(|left| left.what).collect();
        assert_eq!(
            kinds,
            [LeftoverKind::Machine, LeftoverKind::Machine, LeftoverKind::Template, LeftoverKind::Group]
        );
        told(first.terminate(&machine).await);
        assert!(matches!(told(first.status(&machine).await), MachineStatus::Gone(_)));
        assert_eq!(told(first.status(&other).await), MachineStatus::Running);
        // A machine that is still there when everything is cleaned up is ended, too.
        told(second.delete_run_resources(&request.run).await);
        assert!(matches!(told(second.status(&other).await), MachineStatus::Gone(_)));
        assert_eq!(leftovers(&aws).await, []);
    });
}

/// Every call so far is in the policy of the documentation.
async fn assert_only_documented_calls(lab: &Lab) {
    let policy =
        std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/iam-policy.json")).unwrap();
    let policy: Value = serde_json::from_str(&policy).unwrap();
    let statements = policy["Statement"].as_array().unwrap().iter().map(|statement| &statement["Action"]);
    let each = |action: &Value| action.as_array().cloned().unwrap_or_else(|| vec![action.clone()]);
    let allowed: BTreeSet<String> =
        statements.flat_map(each).map(|action| action.as_str().unwrap().to_owned()).collect();
    let calls = lab.get("calls").await;
    let text = |call: &Value, field: &str| call[field].as_str().unwrap_or_default().to_owned();
    let made: BTreeSet<String> = calls
        .as_array()
        .unwrap()
        .iter()
        .map(|call| format!("{}:{}", text(call, "service"), text(call, "action")))
        .collect();
    let scene = ["AttachInternetGateway", "CreateInternetGateway", "CreateRoute"];
    let made: BTreeSet<_> =
        made.into_iter().filter(|call| !scene.iter().any(|action| call.ends_with(action))).collect();
    assert!(made.contains("ec2:CreateFleet") && made.len() > 10, "{made:?}");
    let others: Vec<_> = made.difference(&allowed).collect();
    assert!(others.is_empty(), "{others:?}");
}

#[test]
fn everything_is_tagged_by_the_call_that_makes_it() {
    in_lab(async |lab: &Lab| {
        let (ec2, request) = (ec2(aws(lab)).await, launch_request("tags"));
        told(ec2.launch(&request).await);
        let left = lab.get("leftovers").await;
        let left = left.as_array().unwrap();
        let kinds: BTreeSet<&str> = left.iter().map(|left| left["kind"].as_str().unwrap()).collect();
        for kind in
            ["instance", "volume", "spot-instances-request", "launch-template", "security-group", "fleet"]
        {
            assert!(kinds.contains(kind), "{kind}: {kinds:?}");
        }
        for thing in left {
            assert_eq!(thing["tags"]["trainspot:run"], request.run.to_string(), "{thing:#}");
            assert_eq!(thing["tags"]["trainspot:repository"], "acme/forest", "{thing:#}");
            assert_eq!(thing["tags"]["team"], "ml", "{thing:#}");
        }
        end(&ec2, &request).await;
        lab.assert_nothing_left().await;
    });
}

#[test]
fn a_machine_is_made_as_it_was_ordered() {
    in_lab(async |lab: &Lab| {
        let (ec2, request) = (ec2(aws(lab)).await, launch_request("made"));
        let machine = told(ec2.launch(&request).await);
        let client = lab.ec2("us-east-1").await;
        let seen = client.describe_instances().instance_ids(&machine.id).send().await.unwrap();
        let seen = &seen.reservations()[0].instances()[0];
        let metadata = seen.metadata_options().unwrap();
        assert_eq!(metadata.http_tokens().unwrap().as_str(), "required");
        assert_eq!(metadata.http_put_response_hop_limit(), Some(2));
        let volume = seen.block_device_mappings()[0].ebs().unwrap();
        assert_eq!(volume.delete_on_termination(), Some(true));
        let volumes = client.describe_volumes().volume_ids(volume.volume_id().unwrap()).send().await.unwrap();
        let volume = &volumes.volumes()[0];
        assert_eq!((volume.size(), volume.encrypted()), (Some(20), Some(true)));
        let shutdown = client.describe_instance_attribute().instance_id(&machine.id);
        let shutdown = shutdown.attribute("instanceInitiatedShutdownBehavior".into()).send().await.unwrap();
        assert_eq!(shutdown.instance_initiated_shutdown_behavior().unwrap().value(), Some("terminate"));
        let groups =
            client.describe_security_groups().group_ids(seen.security_groups()[0].group_id().unwrap());
        let rules = groups.send().await.unwrap().security_groups()[0].ip_permissions().to_vec();
        assert_eq!(rules.len(), 1, "{rules:?}");
        assert_eq!((rules[0].from_port(), rules[0].to_port()), (Some(22), Some(22)));
        let from = rules[0].ip_ranges()[0].cidr_ip().unwrap();
        assert_eq!(from, format!("{}/32", lab.address()));
        let rate = machine.rate.unwrap();
        assert!(rate.machine > 0.0 && rate.machine < rate.on_demand.unwrap(), "{rate:?}");
        end(&ec2, &request).await;
        lab.assert_nothing_left().await;
    });
}

#[test]
fn what_cannot_be_ended_is_named_with_its_command() {
    in_lab(async |lab: &Lab| {
        let (ec2, request) = (ec2(aws(lab)).await, launch_request("ends"));
        let machine = told(ec2.launch(&request).await);
        let denied = |action: &str| json!({"kind": "error", "action": action, "status": 403, "code": "UnauthorizedOperation"});
        lab.faults(json!([denied("TerminateInstances")])).await;
        let shown = ec2.terminate(&machine).await.unwrap_err().render();
        let command = format!("aws ec2 terminate-instances --region us-east-1 --instance-ids {}", machine.id);
        assert!(shown.contains(&command) && shown.contains("allow ec2:TerminateInstances"), "{shown}");

        // What passes is waited for, however it fails.
        lab.faults(json!([
            {"kind": "error", "action": "TerminateInstances", "status": 500, "code": "InternalError", "count": 6},
            {"kind": "lost", "action": "TerminateInstances", "nth": 7, "count": 1},
            {"kind": "reset", "action": "DescribeInstances", "count": 6},
        ]))
        .await;
        told(ec2.terminate(&machine).await);
        told(ec2.terminate(&machine).await);

        lab.faults(json!([denied("DeleteSecurityGroup"), denied("DeleteLaunchTemplate")])).await;
        let shown = ec2.delete_run_resources(&request.run).await.unwrap_err().render();
        for command in [
            "delete-security-group --region us-east-1 --group-id sg-",
            "delete-launch-template --region us-east-1 --launch-template-id lt-",
        ] {
            assert!(shown.contains(command), "{shown}");
        }
        lab.faults(json!([])).await;
        told(ec2.delete_run_resources(&request.run).await);
        told(ec2.delete_run_resources(&request.run).await);
        lab.assert_nothing_left().await;
    });
}

/// AWS launches, but no answer ever comes: the machine is found by its tags, and no second one is asked for.
#[test]
fn a_machine_whose_launch_is_never_answered_is_adopted() {
    in_lab(async |lab: &Lab| {
        lab.faults(json!([{"kind": "lost", "action": "CreateFleet"}])).await;
        let (ec2, request) = (ec2(aws(lab)).await, launch_request("adopted"));
        let machine = told(ec2.launch(&request).await);
        let instances = lab.get("instances").await;
        let ids: Vec<_> = instances.as_array().unwrap().iter().map(|instance| &instance["id"]).collect();
        assert_eq!(ids, [&machine.id]);
        end(&ec2, &request).await;
        lab.assert_nothing_left().await;
    });
}

/// The order to stop comes while AWS is launching: the machine is found although nobody waited for the
/// answer.
#[test]
fn a_launch_that_is_dropped_is_found() {
    in_lab(async |lab: &Lab| {
        lab.faults(json!([{"kind": "delay", "action": "CreateFleet", "seconds": 2}])).await;
        let (ec2, request) = (ec2(aws(lab)).await, launch_request("dropped"));
        told(ec2.prepare().await);
        let asked = async {
            while lab.get("faults").await[0]["seen"] != 1 {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::select! {
            launched = ec2.launch(&request) => panic!("the launch was not slow: {launched:?}"),
            () = asked => {}
        }
        assert_eq!(told(ec2.launched_by_this_process(&request.run).await).len(), 1);
        end(&ec2, &request).await;
        lab.assert_nothing_left().await;
    });
}

#[test]
fn an_interruption_is_seen_before_it_happens() {
    in_lab(async |lab: &Lab| {
        let (ec2, request) = (ec2(aws(lab)).await, launch_request("interrupted"));
        let machine = told(ec2.launch(&request).await);
        told(ec2.connect(&machine, &request).await);
        lab.post(&format!("instances/{}/interrupt", machine.id), json!({})).await;
        let sight = told(ec2.status(&machine).await);
        assert!(
            matches!(&sight, MachineStatus::InterruptionNotice(why) if why.starts_with("instance-terminated-no-capacity")),
            "{sight:?}"
        );
        let start = Instant::now();
        while !matches!(told(ec2.status(&machine).await), MachineStatus::Reclaimed(_)) {
            assert!(start.elapsed() < LONG);
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
        end(&ec2, &request).await;
        lab.assert_nothing_left().await;
    });
}

/// EC2 may not know for some seconds what it has just made.
#[test]
fn a_group_that_is_not_known_yet_is_waited_for() {
    in_lab(async |lab: &Lab| {
        let unknown = json!({"kind": "error", "action": "AuthorizeSecurityGroupIngress", "status": 400, "code": "InvalidGroup.NotFound", "count": 2});
        lab.faults(json!([unknown])).await;
        let (ec2, request) = (ec2(aws(lab)).await, launch_request("unknown"));
        told(ec2.launch(&request).await);
        end(&ec2, &request).await;
        lab.assert_nothing_left().await;
    });
}
