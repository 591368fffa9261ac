//! The link to a rented machine: SSH, with keys that were made for the run.
//!
//! Two connections: `russh` takes what a channel brings off the connection only as fast as that channel's
//! reader does, so a slow disk would keep every other channel waiting. Questions have a connection of their
//! own, lest a heartbeat comes late.

mod channel;
mod connection;
mod install;
mod keys;

pub use install::PackedAgent;
pub use keys::KeyPair;

use super::{Link, RunningVerb};
use connection::{Connection, ConnectionSlot};
use std::net::IpAddr;
use std::sync::{Arc, OnceLock};
use std::time::Duration;
use trainspot_base::error::{Error, Kind, Result};

/// How long a broken connection may take to be opened again. A question has 15 s in all,
/// [`connection::CHANNEL_OPEN_TIMEOUT`] included, and should end with a reason.
const RECONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// Where a machine's SSH server is, its host key, and the login.
#[derive(Clone, Debug)]
pub struct SshTarget {
    /// The addresses, all tried at the same time: the first that shows the host key is used.
    pub addresses: Vec<IpAddr>,
    /// The server's port.
    pub port: u16,
    /// The user who logs in.
    pub user: String,
    /// The server's public key, as in `ssh-ed25519 AAAA…`. A server with another key is refused.
    pub host_key: String,
    /// The key that logs in.
    pub client: KeyPair,
}

/// A link to a machine by SSH. A broken connection is opened again when it is needed; clones of a link share
/// the connections.
#[derive(Clone, Debug)]
pub struct SshLink(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    target: SshTarget,
    questions: ConnectionSlot,
    streams: ConnectionSlot,
    /// The agent's file name, once it is installed.
    agent: OnceLock<String>,
}

impl SshLink {
    /// Tries until the login succeeds, or `time_limit` is over: the server of a machine that boots refuses,
    /// hangs or resets for a while.
    ///
    /// # Errors
    /// No login succeeded in time; or, at once, every address showed a host key that is not the machine's.
    pub async fn open(target: SshTarget, time_limit: Duration) -> Result<Self> {
        let connection =
            Connection::open(&target, time_limit).await.map_err(|error| error.kind(Kind::Machine))?;
        let questions = ConnectionSlot::new(Some(connection));
        let shared = Shared { target, questions, streams: ConnectionSlot::new(None), agent: OnceLock::new() };
        Ok(Self(Arc::new(shared)))
    }

    /// Runs a shell's command line on the machine; for `linger` see [`channel::start`].
    async fn run(
        &self,
        slot: &ConnectionSlot,
        command: &str,
        linger: Option<Duration>,
    ) -> Result<RunningVerb> {
        let (connection, channel) = slot.channel(&self.0.target).await?;
        channel::start(connection, channel, command, linger).await
    }
}

impl Link for SshLink {
    async fn agent(&self, verb: &str, flags: &[(&str, String)]) -> Result<RunningVerb> {
        let agent = self.0.agent.get();
        let agent = agent.ok_or_else(|| Error::new("no agent was installed on the machine"))?;
        let slot = if verb == "ask" { &self.0.questions } else { &self.0.streams };
        self.run(slot, &format!("exec {}", install::command(agent, verb, flags)), None).await
    }
}
