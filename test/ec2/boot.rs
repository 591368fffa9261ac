//! A machine's first minutes and its end: not known yet, not reached, told to shut down.

use super::lab::{Lab, in_lab};
use super::rent::{LONG, aws, ec2, end, launch_request, told};
use crate::local_machine::spec;
use aws_sdk_ec2::types::IpPermission;
use serde_json::json;
use std::collections::BTreeSet;
use std::io::{BufRead as _, BufReader, Write as _};
use std::time::{Duration, Instant};
use trainspot_compute::aws::AwsSettings;
use trainspot_compute::link::Agent;
use trainspot_compute::{Compute as _, MachineStatus};
use trainspot_protocol::AgentCommand;

/// A service that tells each caller another one of these addresses, and then always the last. Its URL.
fn telling_addresses(addresses: [&'static str; 2]) -> String {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        for (number, stream) in listener.incoming().flatten().enumerate() {
            let text = addresses[number.min(1)];
            let mut stream = stream;
            // To the empty line at its end: a connection that is closed before its request was read is reset.
            BufReader::new(&stream)
                .lines()
                .map_while(Result::ok)
                .take_while(|line| !line.is_empty())
                .for_each(drop);
            let length = text.len();
            write!(stream, "HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n{text}")
                .ok();
        }
    });
    url
}

/// A pipe behind a NAT with several addresses: one is asked for, and SSH comes from another.
#[test]
fn a_pipe_that_is_not_let_in_looks_its_address_up_again() {
    in_lab(async |lab: &Lab| {
        let public_ip_url = telling_addresses(["203.0.113.77", "203.0.113.78"]);
        let boot_timeout = lab.patience(Duration::from_secs(20)).await;
        let (ec2, request) =
            (ec2(AwsSettings { public_ip_url, boot_timeout, ..aws(lab) }).await, launch_request("addresses"));
        let machine = told(ec2.launch(&request).await);
        while lab.get("instances").await.as_array().unwrap().last().unwrap()["state"] != "running" {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        lab.post(&format!("instances/{}/partition", machine.id), json!({})).await;
        let shown = ec2.connect(&machine, &request).await.unwrap_err().render();
        assert!(shown.contains("SSH_CIDR"), "{shown}");
        let groups = lab.ec2("us-east-1").await.describe_security_groups();
        let groups = groups.group_names(format!("trainspot-{}", request.run)).send().await.unwrap();
        let ranges = groups.security_groups()[0].ip_permissions().iter().flat_map(IpPermission::ip_ranges);
        let ranges: BTreeSet<_> = ranges.filter_map(|range| range.cidr_ip()).collect();
        assert_eq!(ranges, BTreeSet::from(["203.0.113.77/32", "203.0.113.78/32"]));
        end(&ec2, &request).await;
        lab.assert_nothing_left().await;
    });
}

/// The guard, which heeds no signal, must not keep the system from going down: EC2 waits minutes for that.
#[test]
fn a_machine_that_is_asked_to_shut_down_does() {
    in_lab(async |lab: &Lab| {
        let (ec2, request) = (ec2(aws(lab)).await, launch_request("shutdown"));
        let machine = told(ec2.launch(&request).await);
        let agent = Agent::new(told(ec2.connect(&machine, &request).await), "first");
        agent.ask(AgentCommand::Start(Box::new(spec("sleep 600")))).await.unwrap();
        // As each package does that brings a unit.
        let root = told(ec2.connect(&machine, &request).await);
        root.run_as_root("systemctl daemon-reload", |_| ()).await.unwrap();
        let client = lab.ec2("us-east-1").await;
        client.terminate_instances().instance_ids(&machine.id).send().await.unwrap();
        let start = Instant::now();
        let ended = loop {
            let instances = lab.get("instances").await;
            match instances[0]["ended"].as_str() {
                Some(ended) => break ended.to_owned(),
                None => assert!(start.elapsed() < LONG, "{instances:#}"),
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        };
        assert_eq!(ended, "off", "EC2 had to end it after {:?}", start.elapsed());
        end(&ec2, &request).await;
        lab.assert_nothing_left().await;
    });
}

/// A fresh image updates itself at its first boot, which holds apt's locks for minutes.
#[test]
fn a_startup_script_finds_the_locks_of_apt_free() {
    in_lab(async |lab: &Lab| {
        // Once the update holds its lock, or can never begin.
        let script = "until systemctl is-enabled apt-daily.timer | grep masked || pgrep -fx 'sleep 600'; do sleep 0.1; done
            apt-get update";
        let startup_script = Some(script.to_owned());
        let (ec2, request) = (ec2(AwsSettings { startup_script, ..aws(lab) }).await, launch_request("apt"));
        let machine = told(ec2.launch(&request).await);
        let link = told(ec2.connect(&machine, &request).await);
        let mut shown = Vec::new();
        let units = "systemctl is-active apt-daily.timer apt-daily.service unattended-upgrades.service || true; \
            apt-config dump DPkg::Lock::Timeout";
        let told_of_units = link.run_as_root(units, |line| shown.push(line.to_owned())).await;
        told_of_units.unwrap();
        assert_eq!(shown, ["inactive", "inactive", "inactive", "DPkg::Lock::Timeout \"600\";"]);
        end(&ec2, &request).await;
        lab.assert_nothing_left().await;
    });
}

/// EC2's parts agree with each other only in the end: a machine is ended, also if it is unknown for long at
/// first.
#[test]
fn a_machine_that_is_not_known_yet_is_ended_all_the_same() {
    in_lab(async |lab: &Lab| {
        lab.post("unknown", json!({"seconds": 45})).await;
        let (ec2, request) = (ec2(aws(lab)).await, launch_request("late"));
        let machine = told(ec2.launch(&request).await);
        told(ec2.terminate(&machine).await);
        let instances = lab.get("instances").await;
        assert_eq!(instances[0]["id"], machine.id);
        let state = instances[0]["state"].as_str().unwrap();
        assert!(["shutting-down", "terminated"].contains(&state), "{state}");
        lab.post("unknown", json!({"seconds": 0})).await;
        end(&ec2, &request).await;
        lab.assert_nothing_left().await;
    });
}

#[test]
fn a_machine_that_nobody_reaches_ends_itself() {
    in_lab(async |lab: &Lab| {
        let aws = AwsSettings { boot_timeout: Duration::from_secs(15), ..aws(lab) };
        let (ec2, request) = (ec2(aws).await, launch_request("alone"));
        let machine = told(ec2.launch(&request).await);
        let start = Instant::now();
        let why = loop {
            match told(ec2.status(&machine).await) {
                MachineStatus::Gone(why) => break why,
                sight => assert!(start.elapsed() < LONG, "{sight:?}"),
            }
            tokio::time::sleep(Duration::from_millis(500)).await;
        };
        assert!(why.starts_with("Client.InstanceInitiatedShutdown"), "{why}");
        let error = ec2.connect(&machine, &request).await.unwrap_err().render();
        assert!(
            error.contains("Client.InstanceInitiatedShutdown") && error.contains("of its console"),
            "{error}"
        );
        assert!(error.contains("trainspot: power off: no agent within 15 s"), "{error}");
        end(&ec2, &request).await;
        lab.assert_nothing_left().await;
    });
}
