//! The way into a machine that another pipe launched: it knows a key that died with that pipe.

use super::client::Cloud;
use super::failure::call;
use super::machines::{self, ALIVE, Seen};
use super::tags::{FOLLOWED, HOST_KEY, REPOSITORY, RUN, RUNNER, USER, tagged};
use super::{Ec2, group, plan};
use std::net::IpAddr;
use std::time::Duration;
use tracing::warn;
use trainspot_base::error::{Error, Result, chain};
use trainspot_compute::link::ssh::{KeyPair, SshLink, SshTarget};

/// EC2 Instance Connect shows the machine a key for 60 s.
const PATIENCE: Duration = Duration::from_secs(45);

impl Ec2 {
    /// Logs in by EC2 Instance Connect, and leaves the machine our key for later connections.
    ///
    /// # Errors
    /// It is not allowed, or the image does not know of it. The machine is of no use then.
    pub(super) async fn take_over(&self, seen: &Seen) -> Result<SshLink> {
        let (key, user) = known(seen)?;
        let door = self.door(seen, key)?;
        self.plan().await?;
        let inbound = self.planned(&seen.region).map_or(&[][..], |plan| &plan.network.inbound);
        let link = enter(&self.cloud, seen, door, inbound).await?;
        link.run_as_root(&remembering(user, &self.client.public_openssh()?), |_| ()).await?;
        Ok(link)
    }
}

/// A machine that is a runner.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunnersMachine {
    /// Where it is.
    pub region: String,
    /// Its id.
    pub id: String,
    /// Whether a pipe is to stay with it, and to end it.
    pub followed: bool,
}

impl Cloud {
    /// The machine that is a runner of this name, which another repository of the workspace may have rented.
    pub async fn machine_of_runner(&self, name: &str) -> Result<Option<RunnersMachine>> {
        let found = machines::of_anyone(self, &tagged(RUNNER, name), &ALIVE).await?;
        Ok(found.into_iter().next().map(|seen| RunnersMachine {
            followed: seen.tag(FOLLOWED).is_some(),
            region: seen.region,
            id: seen.id,
        }))
    }

    /// The way to the agent of a machine that another run launched, for a question or two. `public_ip_url`
    /// tells the pipe's own address, which the run's security group lets in from now on.
    ///
    /// # Errors
    /// It is not there, not this repository's, or lets nobody in by EC2 Instance Connect.
    pub async fn visit(&self, region: &str, id: &str, public_ip_url: &str) -> Result<SshLink> {
        let seen = machines::describe(self, region, id).await?;
        let seen = seen.ok_or_else(|| Error::new(format!("the machine {id} is gone")))?;
        let owner = seen.tag(REPOSITORY).unwrap_or("nobody");
        if owner != self.repository() {
            return Err(Error::new(format!(
                "the machine {id} is not this repository's, but that of {owner}"
            )));
        }
        let (key, user) = known(&seen)?;
        let addresses = [seen.private, seen.public].into_iter().flatten().collect();
        let door = SshTarget {
            addresses,
            port: group::PORT,
            user: user.to_owned(),
            host_key: key.to_owned(),
            client: KeyPair::new()?,
        };
        let public = plan::public_address(public_ip_url).await.ok();
        let own = plan::local_address().map(IpAddr::V4).into_iter().chain(public);
        let inbound: Vec<String> = own.map(|address| ipnet::IpNet::from(address).to_string()).collect();
        let link = enter(self, &seen, door, &inbound).await?;
        link.find_agent().await?;
        Ok(link)
    }
}

/// The host key and the user of a machine of ours, by its tags.
fn known(seen: &Seen) -> Result<(&str, &str)> {
    let key = seen.tag(HOST_KEY).ok_or_else(|| missing(seen, "it does not carry its host key's tag"))?;
    let plain = |user: &&str| {
        !user.is_empty()
            && user.chars().all(|letter| letter.is_ascii_alphanumeric() || "-_.".contains(letter))
    };
    let user = seen.tag(USER).filter(plain).ok_or_else(|| missing(seen, "its tag names no user"))?;
    Ok((key, user))
}

async fn enter(cloud: &Cloud, seen: &Seen, door: SshTarget, inbound: &[String]) -> Result<SshLink> {
    if let Err(error) = admit(cloud, seen, inbound).await {
        warn!("{}; it may still let us in", chain(&error));
    }
    show_key(cloud, seen, &door.user, &door.client.public_openssh()?).await?;
    let link = SshLink::open(door, PATIENCE).await;
    link.map_err(|error| missing(seen, "EC2 Instance Connect does not let us in").source(error))
}

/// Lets this pipe in by the run's group: its address may not be that of the pipe that launched the machine.
pub(super) async fn admit(cloud: &Cloud, seen: &Seen, inbound: &[String]) -> Result<()> {
    let Some(run) = seen.tag(RUN) else { return Ok(()) };
    for group in group::tagged_with(cloud, &seen.region, tagged(RUN, run)).await? {
        group::let_in(cloud, &seen.region, group.group_id().unwrap_or_default(), inbound).await?;
    }
    Ok(())
}

async fn show_key(cloud: &Cloud, seen: &Seen, user: &str, key: &str) -> Result<()> {
    let client = cloud.instance_connect(&seen.region);
    let what = format!("cannot get into the machine {} of another run", seen.id);
    let shown = call("ec2-instance-connect:SendSSHPublicKey", &what, || async {
        let request = client.send_ssh_public_key().instance_id(&seen.id).instance_os_user(user);
        request.ssh_public_key(key).availability_zone(&seen.pool.zone).send().await?;
        Ok(())
    });
    Ok(shown.await?)
}

fn missing(seen: &Seen, why: &str) -> Error {
    Error::new(format!("cannot get into the machine {}: {why}", seen.id))
        .hint("EC2 Instance Connect is in the images of Ubuntu and Amazon Linux, and needs ec2-instance-connect:SendSSHPublicKey")
}

fn remembering(user: &str, key: &str) -> String {
    format!(
        "keys=$(getent passwd '{user}' | cut -d: -f6)/.ssh/authorized_keys\n\
         grep -qxF '{key}' \"$keys\" || printf '%s\\n' '{key}' >>\"$keys\"\n"
    )
}
