//! Logs in to a machine that another pipe launched, whose login key is lost with that pipe.

use super::client::AwsClients;
use super::failure::call;
use super::machines::{self, ALIVE_STATES, Ec2Instance};
use super::tags::{FOLLOWED_TAG, HOST_KEY_TAG, REPOSITORY_TAG, RUN_TAG, RUNNER_TAG, USER_TAG, tag_filter};
use super::{Ec2, group, plan};
use std::net::IpAddr;
use std::time::Duration;
use tracing::warn;
use trainspot_base::error::{Error, Result, chain};
use trainspot_compute::link::ssh::{KeyPair, SshLink, SshTarget};

/// How long a login may take: EC2 Instance Connect shows the machine a key for 60 s.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(45);

impl Ec2 {
    /// Logs in by EC2 Instance Connect, and leaves the machine our key for later connections.
    ///
    /// # Errors
    /// EC2 Instance Connect is not allowed, or the image does not have it. The machine is of no use then.
    pub(super) async fn take_over(&self, instance: &Ec2Instance) -> Result<SshLink> {
        let (key, user) = login_tags(instance)?;
        let ssh_target = self.ssh_target(instance, key)?;
        self.plan().await?;
        let inbound = self.region_plan(&instance.region).map_or(&[][..], |plan| &plan.network.inbound);
        let link = connect(&self.clients, instance, ssh_target, inbound).await?;
        link.run_as_root(&authorized_keys_script(user, &self.client.public_openssh()?), |_| ()).await?;
        Ok(link)
    }
}

/// A rented machine that serves as a runner.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunnerMachine {
    /// The machine's region.
    pub region: String,
    /// The machine's id.
    pub id: String,
    /// Whether a pipe is to stay with it, and to end it.
    pub followed: bool,
}

impl AwsClients {
    /// The machine that is a runner of this name, which another repository of the workspace may have rented.
    pub async fn machine_of_runner(&self, name: &str) -> Result<Option<RunnerMachine>> {
        let found =
            machines::find_of_any_repository(self, &tag_filter(RUNNER_TAG, name), &ALIVE_STATES).await?;
        Ok(found.into_iter().next().map(|instance| RunnerMachine {
            followed: instance.tag(FOLLOWED_TAG).is_some(),
            region: instance.region,
            id: instance.id,
        }))
    }

    /// A link to the agent of a machine that another run launched, for a question or two. `public_ip_url`
    /// tells the pipe's own address, which the run's security group allows from now on.
    ///
    /// # Errors
    /// The machine has ended, is not this repository's, or refuses EC2 Instance Connect.
    pub async fn query(&self, region: &str, id: &str, public_ip_url: &str) -> Result<SshLink> {
        let instance = machines::describe(self, region, id).await?;
        let instance = instance.ok_or_else(|| Error::new(format!("the machine {id} is gone")))?;
        let owner = instance.tag(REPOSITORY_TAG).unwrap_or("nobody");
        if owner != self.repository() {
            return Err(Error::new(format!(
                "the machine {id} is not this repository's, but that of {owner}"
            )));
        }
        let (key, user) = login_tags(&instance)?;
        let addresses = [instance.private, instance.public].into_iter().flatten().collect();
        let ssh_target = SshTarget {
            addresses,
            port: group::SSH_PORT,
            user: user.to_owned(),
            host_key: key.to_owned(),
            client: KeyPair::new()?,
        };
        let public = plan::public_address(public_ip_url).await.ok();
        let own = plan::local_address().map(IpAddr::V4).into_iter().chain(public);
        let inbound: Vec<String> = own.map(|address| ipnet::IpNet::from(address).to_string()).collect();
        let link = connect(self, &instance, ssh_target, &inbound).await?;
        link.find_agent().await?;
        Ok(link)
    }
}

/// The host key and the login user in a machine's tags.
fn login_tags(instance: &Ec2Instance) -> Result<(&str, &str)> {
    let key = instance
        .tag(HOST_KEY_TAG)
        .ok_or_else(|| unusable(instance, "it does not carry its host key's tag"))?;
    let plain = |user: &&str| {
        !user.is_empty()
            && user.chars().all(|letter| letter.is_ascii_alphanumeric() || "-_.".contains(letter))
    };
    let user =
        instance.tag(USER_TAG).filter(plain).ok_or_else(|| unusable(instance, "its tag names no user"))?;
    Ok((key, user))
}

async fn connect(
    clients: &AwsClients,
    instance: &Ec2Instance,
    ssh_target: SshTarget,
    inbound: &[String],
) -> Result<SshLink> {
    if let Err(error) = authorize_ingress(clients, instance, inbound).await {
        warn!("{}; it may still let us in", chain(&error));
    }
    push_ssh_key(clients, instance, &ssh_target.user, &ssh_target.client.public_openssh()?).await?;
    let link = SshLink::open(ssh_target, CONNECT_TIMEOUT).await;
    link.map_err(|error| unusable(instance, "EC2 Instance Connect does not let us in").source(error))
}

/// Allows these address ranges in the run's security group: this pipe may have another address than the one
/// that launched the machine.
pub(super) async fn authorize_ingress(
    clients: &AwsClients,
    instance: &Ec2Instance,
    inbound: &[String],
) -> Result<()> {
    let Some(run) = instance.tag(RUN_TAG) else { return Ok(()) };
    for group in group::find_by_tag(clients, &instance.region, tag_filter(RUN_TAG, run)).await? {
        group::allow_ssh_from(clients, &instance.region, group.group_id().unwrap_or_default(), inbound)
            .await?;
    }
    Ok(())
}

async fn push_ssh_key(clients: &AwsClients, instance: &Ec2Instance, user: &str, key: &str) -> Result<()> {
    let client = clients.instance_connect(&instance.region);
    let what = format!("cannot get into the machine {} of another run", instance.id);
    let shown = call("ec2-instance-connect:SendSSHPublicKey", &what, || async {
        let request = client.send_ssh_public_key().instance_id(&instance.id).instance_os_user(user);
        request.ssh_public_key(key).availability_zone(&instance.pool.zone).send().await?;
        Ok(())
    });
    Ok(shown.await?)
}

fn unusable(instance: &Ec2Instance, why: &str) -> Error {
    Error::new(format!("cannot get into the machine {}: {why}", instance.id))
        .hint("EC2 Instance Connect is in the images of Ubuntu and Amazon Linux, and needs ec2-instance-connect:SendSSHPublicKey")
}

fn authorized_keys_script(user: &str, key: &str) -> String {
    format!(
        "keys=$(getent passwd '{user}' | cut -d: -f6)/.ssh/authorized_keys\n\
         grep -qxF '{key}' \"$keys\" || printf '%s\\n' '{key}' >>\"$keys\"\n"
    )
}
