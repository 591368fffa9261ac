//! The way to a rented machine: SSH, with keys that were made for the run.
//!
//! Two connections: `russh` takes what a channel brings off the connection only as fast as that channel's
//! reader does, so a slow disk would keep every other channel waiting. Questions have one of their own, lest
//! the beat is late.

mod channel;
mod connection;
mod install;
mod keys;

pub use install::Packed;
pub use keys::KeyPair;

use super::{Link, Session};
use connection::{Connection, Line};
use std::net::IpAddr;
use std::sync::{Arc, OnceLock};
use std::time::Duration;
use trainspot_base::error::{Error, Kind, Result};

/// A connection that broke is opened again within this time. A question has 15 s in all,
/// [`connection::CHANNEL`] included, and should end with a reason.
const AGAIN: Duration = Duration::from_secs(10);

/// Where a machine's SSH server is, who logs in, and who it must be.
#[derive(Clone, Debug)]
pub struct Door {
    /// Tried at the same time: the first that shows the host key is taken.
    pub addresses: Vec<IpAddr>,
    /// The server's port.
    pub port: u16,
    /// Who logs in.
    pub user: String,
    /// The server's public key, as in `ssh-ed25519 AAAA…`. Another one ends the connection.
    pub host_key: String,
    /// The key that logs in.
    pub client: KeyPair,
}

/// A machine that is reached by SSH. A connection that broke is opened again when it is needed; clones share
/// them.
#[derive(Clone, Debug)]
pub struct SshLink(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    door: Door,
    questions: Line,
    streams: Line,
    /// The agent's file name, once it is installed.
    agent: OnceLock<String>,
}

impl SshLink {
    /// Tries until the server lets us in, or `patience` is over: the one of a machine that boots refuses,
    /// hangs or resets for a while.
    ///
    /// # Errors
    /// Nobody let us in; or, at once, every address showed a host key that is not the machine's.
    pub async fn open(door: Door, patience: Duration) -> Result<Self> {
        let connection =
            Connection::open(&door, patience).await.map_err(|error| error.kind(Kind::Machine))?;
        let questions = Line::new(Some(connection));
        let shared = Shared { door, questions, streams: Line::new(None), agent: OnceLock::new() };
        Ok(Self(Arc::new(shared)))
    }

    /// Runs a shell's command line on the machine.
    async fn run(&self, line: &Line, command: &str, linger: Option<Duration>) -> Result<Session> {
        let (connection, channel) = line.channel(&self.0.door).await?;
        channel::start(connection, channel, command, linger).await
    }
}

impl Link for SshLink {
    async fn agent(&self, verb: &str, flags: &[(&str, String)]) -> Result<Session> {
        let agent = self.0.agent.get();
        let agent = agent.ok_or_else(|| Error::new("no agent was installed on the machine"))?;
        let line = if verb == "ask" { &self.0.questions } else { &self.0.streams };
        self.run(line, &format!("exec {}", install::command(agent, verb, flags)), None).await
    }
}
