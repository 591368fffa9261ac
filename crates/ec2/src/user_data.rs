//! The user data of a machine: its keys, and the guard that ends the machine when nobody connects.

use secrecy::ExposeSecret as _;
use serde_json::json;
use std::time::Duration;
use trainspot_base::error::{Context as _, Result};
use trainspot_compute::link::ssh::KeyPair;

/// The guard, a dead-man's switch; the script's first lines describe it.
const GUARD_SCRIPT: &str = include_str!("guard.sh");
/// The folder by whose files the agent tells the guard that it lives.
pub(super) const GUARD_FOLDER: &str = "/run/trainspot";
/// Starts the guard apart from cloud-init.
const DETACH_SCRIPT: &str = include_str!("detach.sh");
/// Stops the system's own upgrades.
const NO_UPGRADES_SCRIPT: &str = include_str!("upgrades.sh");

/// How long a machine may live, as its guard counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Lease {
    /// The limit until the agent runs.
    pub(super) boot: Duration,
    /// The limit without a sign of life of the agent.
    pub(super) grace: Duration,
    /// The limit in any case.
    pub(super) life: Duration,
}

/// The user data as cloud-init takes it, not encoded yet. It holds no secret but the host key, which dies
/// with the host.
///
/// The guard comes first: `bootcmd` runs before users, SSH, disks and packages, any of which may fail or
/// hang.
pub(super) fn user_data(host: &KeyPair, client: &KeyPair, lease: Lease) -> Result<String> {
    let seconds = |duration: Duration| duration.as_secs().to_string();
    let guard = json!([
        "sh",
        "-c",
        DETACH_SCRIPT,
        GUARD_SCRIPT,
        seconds(lease.boot),
        seconds(lease.grace),
        seconds(lease.life),
        GUARD_FOLDER
    ]);
    let config = json!({
        "bootcmd": [guard, ["sh", "-c", NO_UPGRADES_SCRIPT]],
        "ssh_keys": {
            "ed25519_private": host.private_openssh()?.expose_secret(),
            // Without its newline it would be glued to what cloud-init writes next.
            "ed25519_public": host.public_openssh()? + "\n",
        },
        "ssh_authorized_keys": [client.public_openssh()?],
    });
    // JSON is YAML without rules for quoting.
    let text = serde_json::to_string_pretty(&config).context("cannot write the user data")?;
    Ok(format!("#cloud-config\n{text}\n"))
}

#[cfg(test)]
mod tests;
