//! The way into a machine that an earlier try of the step launched: it knows a key that died with that try.

use super::failure::call;
use super::machines::Seen;
use super::tags::{HOST_KEY, RUN, tagged};
use super::{Ec2, group};
use crate::error::{Error, Result, chain};
use crate::link::ssh::SshLink;
use std::time::Duration;
use tracing::warn;

/// EC2 Instance Connect shows the machine a key for 60 s.
const PATIENCE: Duration = Duration::from_secs(45);

impl Ec2 {
    /// Logs in by EC2 Instance Connect, and leaves the machine our key for later connections.
    ///
    /// # Errors
    /// It is not allowed, or the image does not know of it. The machine is of no use then.
    pub(super) async fn take_over(&self, seen: &Seen) -> Result<SshLink> {
        let key = seen.tag(HOST_KEY).ok_or_else(|| missing(seen, "it does not carry its host key's tag"))?;
        let door = self.door(seen, key)?;
        if !door.user.chars().all(|letter| letter.is_ascii_alphanumeric() || "-_.".contains(letter)) {
            return Err(missing(seen, "its tag names no user"));
        }
        if let Err(error) = self.admit(seen).await {
            warn!("{}; it may still let us in", chain(&error));
        }
        let ours = self.client.public_openssh()?;
        self.show_key(seen, &door.user, &ours).await?;
        let user = door.user.clone();
        let link = SshLink::open(door, PATIENCE).await;
        let link =
            link.map_err(|error| missing(seen, "EC2 Instance Connect does not let us in").source(error))?;
        link.run_as_root(&remembering(&user, &ours), |_| ()).await?;
        Ok(link)
    }

    /// Lets this pipe in, whose address may not be that of the earlier try.
    async fn admit(&self, seen: &Seen) -> Result<()> {
        self.plan().await?;
        let (Some(run), Some(plan)) = (seen.tag(RUN), self.planned(&seen.region)) else { return Ok(()) };
        for group in group::tagged_with(&self.cloud, &seen.region, tagged(RUN, run)).await? {
            let id = group.group_id().unwrap_or_default();
            group::let_in(&self.cloud, &seen.region, id, &plan.network.inbound).await?;
        }
        Ok(())
    }

    async fn show_key(&self, seen: &Seen, user: &str, key: &str) -> Result<()> {
        let client = self.cloud.instance_connect(&seen.region);
        let what = format!("cannot get into the machine {} of an earlier try", seen.id);
        let shown = call("ec2-instance-connect:SendSSHPublicKey", &what, || async {
            let request = client.send_ssh_public_key().instance_id(&seen.id).instance_os_user(user);
            request.ssh_public_key(key).availability_zone(&seen.pool.zone).send().await?;
            Ok(())
        });
        Ok(shown.await?)
    }
}

fn missing(seen: &Seen, why: &str) -> Error {
    Error::new(format!("cannot take over the machine {}: {why}", seen.id))
        .hint("the machine is of no use; the run starts afresh on another one")
}

fn remembering(user: &str, key: &str) -> String {
    format!(
        "keys=$(getent passwd '{user}' | cut -d: -f6)/.ssh/authorized_keys\n\
         grep -qxF '{key}' \"$keys\" || printf '%s\\n' '{key}' >>\"$keys\"\n"
    )
}
