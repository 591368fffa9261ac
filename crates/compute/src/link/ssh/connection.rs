//! An SSH connection: opened by whichever address leads to the machine, and shared by many channels.

use super::{RECONNECT_TIMEOUT, SshTarget};
use futures_util::stream::{FuturesUnordered, StreamExt as _};
use russh::Channel;
use russh::client::Msg;
use russh::keys::PublicKey;
use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};
use trainspot_base::error::{Context as _, Error, Result};
use trainspot_base::log::progress::in_words;
use trainspot_base::mutex::{into_inner, lock};
use trainspot_ssh::{ConnectError, SshConnection};

/// The kernel asks for a TCP connection after 0, 1 and 3 seconds, then ever more rarely: another try notices
/// sooner that a machine is up.
const TCP_CONNECT_TIMEOUT: Duration = Duration::from_secs(4);
/// How long a login may take, from the first byte on.
const LOGIN_TIMEOUT: Duration = Duration::from_secs(15);
/// The wait before an address is tried again.
const RETRY_WAIT: Duration = Duration::from_millis(300);
/// The wait after a refused login: OpenSSH (from 9.8) shuts out a client that fails more often than every 5
/// s.
const LOGIN_RETRY_WAIT: Duration = Duration::from_secs(5);
/// How long a channel may take to open: on a live connection it takes one round trip.
pub(super) const CHANNEL_OPEN_TIMEOUT: Duration = Duration::from_secs(4);
/// A slot for one connection, which is opened again when it is needed and broken.
#[derive(Debug)]
pub(super) struct ConnectionSlot(tokio::sync::Mutex<Option<Arc<Connection>>>);

impl ConnectionSlot {
    pub(super) fn new(connection: Option<Connection>) -> Self {
        Self(tokio::sync::Mutex::new(connection.map(Arc::new)))
    }

    /// A channel on the open connection, or on a new one: the open one may have died unnoticed, or have all
    /// the channels that the server allows. Callers wait for each other, so that none takes the channel of a
    /// connection that another one has just opened.
    pub(super) async fn channel(&self, target: &SshTarget) -> Result<(Arc<Connection>, Channel<Msg>)> {
        let mut place = self.0.lock().await;
        if let Some(connection) = place.as_ref().filter(|connection| !connection.0.has_ended()) {
            match connection.channel().await {
                Ok(channel) => return Ok((Arc::clone(connection), channel)),
                Err(error) => tracing::debug!("opening another connection: {}", error.render()),
            }
        }
        *place = None;
        let connection = place.insert(Arc::new(Connection::open(target, RECONNECT_TIMEOUT).await?));
        Ok((Arc::clone(connection), connection.channel().await?))
    }
}

/// A login at the machine.
#[derive(Debug)]
pub(super) struct Connection(SshConnection);

/// Why a login at one address failed.
#[derive(Clone, Debug, thiserror::Error)]
enum LoginError {
    /// Nothing answers there, or nothing that speaks SSH to the end.
    #[error("{0}")]
    Unreachable(String),
    /// Another server answers there: it will not become the machine.
    #[error("its host key is not the one that was made for this machine")]
    WrongHostKey,
    /// The machine answers, but refuses the login.
    #[error("it does not let '{user}' in with the run's key")]
    Refused { user: String },
}

impl From<ConnectError> for LoginError {
    fn from(error: ConnectError) -> Self {
        match error {
            ConnectError::Unreachable(why) => Self::Unreachable(why),
            ConnectError::WrongHostKey => Self::WrongHostKey,
        }
    }
}

impl Connection {
    /// Tries all addresses until a login succeeds at one, or `time_limit` is over.
    pub(super) async fn open(target: &SshTarget, time_limit: Duration) -> Result<Self> {
        let host_key =
            PublicKey::from_openssh(&target.host_key).context("cannot read the machine's host key")?;
        let last_errors = Mutex::new(BTreeMap::new());
        let mut tries: FuturesUnordered<_> = target
            .addresses
            .iter()
            .map(|address| keep_trying(target, *address, &host_key, &last_errors))
            .collect();
        let open = async {
            while let Some(connection) = tries.next().await {
                if connection.is_some() {
                    return connection;
                }
            }
            None
        };
        let opened = timeout(time_limit, open).await;
        drop(tries);
        let last_errors = into_inner(last_errors);
        match opened {
            Ok(Some(connection)) => Ok(connection),
            Ok(None) => Err(login_error(target, &last_errors, "")),
            Err(_) => Err(login_error(target, &last_errors, &format!(" within {}", in_words(time_limit)))),
        }
    }

    async fn to(target: &SshTarget, address: IpAddr, host_key: &PublicKey) -> Result<Self, LoginError> {
        let address = SocketAddr::new(address, target.port);
        let stream = timeout(TCP_CONNECT_TIMEOUT, TcpStream::connect(address)).await;
        let stream = stream
            .map_err(|_| LoginError::Unreachable("no answer".to_owned()))?
            .map_err(ConnectError::from)?;
        let login = async {
            let mut connection = SshConnection::over(stream, vec![host_key.clone()]).await?;
            if connection.log_in_with_key(&target.user, target.client.private()).await? {
                return Ok(Self(connection));
            }
            Err(LoginError::Refused { user: target.user.clone() })
        };
        let silent = || {
            let why = format!("it takes connections, but did not let us in within {LOGIN_TIMEOUT:?}");
            LoginError::Unreachable(why)
        };
        let connection = timeout(LOGIN_TIMEOUT, login).await.map_err(|_| silent())??;
        tracing::debug!("logged in at {address}");
        Ok(connection)
    }

    pub(super) fn address(&self) -> SocketAddr {
        self.0.address()
    }

    /// A channel for one command.
    async fn channel(&self) -> Result<Channel<Msg>> {
        let what = || format!("cannot use the connection to {}", self.address());
        let opened = timeout(CHANNEL_OPEN_TIMEOUT, self.0.channel()).await;
        opened.with_context(what).and_then(|opened| opened.with_context(what)).map_err(Error::transient)
    }
}

/// Tries one address until its login succeeds. None when another server answers there.
async fn keep_trying(
    target: &SshTarget,
    address: IpAddr,
    host_key: &PublicKey,
    last_errors: &Mutex<BTreeMap<IpAddr, LoginError>>,
) -> Option<Connection> {
    loop {
        let error = match Connection::to(target, address, host_key).await {
            Ok(connection) => return Some(connection),
            Err(error) => error,
        };
        let wait = match error {
            LoginError::Unreachable(_) => Some(RETRY_WAIT),
            LoginError::WrongHostKey => None,
            LoginError::Refused { .. } => Some(LOGIN_RETRY_WAIT),
        };
        lock(last_errors).insert(address, error);
        sleep(wait?).await;
    }
}

fn login_error(target: &SshTarget, last_errors: &BTreeMap<IpAddr, LoginError>, within: &str) -> Error {
    let silent = LoginError::Unreachable("no answer".to_owned());
    let why = target.addresses.iter().map(|address| {
        let error = last_errors.get(address).unwrap_or(&silent);
        format!("{}: {error}", SocketAddr::new(*address, target.port))
    });
    let why = why.collect::<Vec<_>>().join("; ");
    let hint = if last_errors.values().any(|error| matches!(error, LoginError::Refused { .. })) {
        "check that this is the image's login user, and that cloud-init works in the image: it brings the key"
    } else if !last_errors.is_empty()
        && last_errors.values().all(|error| matches!(error, LoginError::WrongHostKey))
    {
        "somebody else answers at that address, and was told nothing; a private address leads to the machine only from inside its VPC"
    } else {
        "check that the security group lets this pipe's address in (SSH_CIDR names others, for a pipe behind several), that the \
         subnet has a route to it, and that a private address is used only inside the VPC"
    };
    let error = Error::new(format!("cannot log in to the machine by SSH{within}")).source(why).hint(hint);
    error.transient()
}
