//! An SSH connection: opened by whichever address leads to the machine, and shared by many channels.

use super::{RECONNECT_TIMEOUT, SshTarget};
use futures_util::stream::{FuturesUnordered, StreamExt as _};
use russh::client::{self, AuthResult, Config, Handle, Msg};
use russh::keys::{PrivateKeyWithHashAlg, PublicKey, PublicKeyOrCertificate};
use russh::{AlgorithmKind, Channel, Preferred, cipher};
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, Shutdown, SocketAddr};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};
use trainspot_base::error::{Context as _, Error, Result};
use trainspot_base::log::progress::in_words;
use trainspot_base::mutex::{into_inner, lock};

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
/// A server that is silent for this long is sent a keepalive request.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(15);
/// How many keepalive requests without an answer break the connection.
const KEEPALIVE_MISSES_LIMIT: usize = 3;
/// A connection that is silent for this long is broken. The limit holds also while a write waits for a full
/// socket, which keeps the keepalive waiting as well.
const INACTIVITY_TIMEOUT: Duration = Duration::from_mins(1);
/// The most bytes that arrive in one round trip. The default, 2 MiB, would allow 34 MB/s at 60 ms.
const WINDOW_BYTES: u32 = 16 << 20;

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
        if let Some(connection) = place.as_ref().filter(|connection| !connection.handle.is_closed()) {
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
pub(super) struct Connection {
    handle: Handle<PinnedHostKey>,
    pub(super) address: SocketAddr,
    _socket: ShutdownOnDrop,
}

impl fmt::Debug for Connection {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Connection({})", self.address)
    }
}

/// Why a login at one address failed.
#[derive(Clone)]
enum ConnectError {
    /// Nothing answers there, or nothing that speaks SSH to the end.
    Unreachable(String),
    /// The machine answers, but refuses the login.
    Login(String),
    /// The server that answers has another host key than the machine.
    WrongKey,
}

impl fmt::Display for ConnectError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unreachable(why) | Self::Login(why) => formatter.write_str(why),
            Self::WrongKey => {
                formatter.write_str("its host key is not the one that was made for this machine")
            }
        }
    }
}

impl From<russh::Error> for ConnectError {
    fn from(error: russh::Error) -> Self {
        match error {
            // A server that has no key of the machine's kind has not the machine's key.
            russh::Error::UnknownKey | russh::Error::NoCommonAlgo { kind: AlgorithmKind::Key, .. } => {
                Self::WrongKey
            }
            error => Self::Unreachable(error.to_string()),
        }
    }
}

impl From<std::io::Error> for ConnectError {
    fn from(error: std::io::Error) -> Self {
        Self::Unreachable(error.to_string())
    }
}

/// The only host key that is accepted.
struct PinnedHostKey(PublicKey);

impl client::Handler for PinnedHostKey {
    type Error = russh::Error;

    async fn check_server_key(&mut self, shown: &PublicKeyOrCertificate) -> Result<bool, russh::Error> {
        Ok(match shown {
            PublicKeyOrCertificate::PublicKey { key, .. } => key.key_data() == self.0.key_data(),
            PublicKeyOrCertificate::Certificate(_) => false,
        })
    }
}

/// Shuts the socket down when it is dropped: russh's own task keeps the socket open as long as it waits for a
/// silent server.
struct ShutdownOnDrop(std::net::TcpStream);

impl Drop for ShutdownOnDrop {
    fn drop(&mut self) {
        self.0.shutdown(Shutdown::Both).ok();
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

    async fn to(target: &SshTarget, address: IpAddr, host_key: &PublicKey) -> Result<Self, ConnectError> {
        let address = SocketAddr::new(address, target.port);
        let stream = timeout(TCP_CONNECT_TIMEOUT, TcpStream::connect(address)).await;
        let stream = stream.map_err(|_| ConnectError::Unreachable("no answer".to_owned()))??.into_std()?;
        let socket = ShutdownOnDrop(stream.try_clone()?);
        stream.set_nodelay(true)?;
        let login = async {
            let stream = TcpStream::from_std(stream)?;
            let mut handle =
                client::connect_stream(config(host_key), stream, PinnedHostKey(host_key.clone())).await?;
            let key = PrivateKeyWithHashAlg::new(Arc::new(target.client.private().clone()), None);
            match handle.authenticate_publickey(&target.user, key).await? {
                AuthResult::Success => Ok(handle),
                AuthResult::Failure { .. } if handle.is_closed() => {
                    Err(ConnectError::Unreachable("the connection broke during the login".to_owned()))
                }
                AuthResult::Failure { .. } => Err(ConnectError::Login(format!(
                    "it does not let '{}' in with the run's key",
                    target.user
                ))),
            }
        };
        let silent = || {
            ConnectError::Unreachable(format!(
                "it takes connections, but did not let us in within {LOGIN_TIMEOUT:?}"
            ))
        };
        let handle = timeout(LOGIN_TIMEOUT, login).await.map_err(|_| silent())??;
        tracing::debug!("logged in at {address}");
        Ok(Self { handle, address, _socket: socket })
    }

    /// A channel for one command.
    async fn channel(&self) -> Result<Channel<Msg>> {
        let what = || format!("cannot use the connection to {}", self.address);
        let opened = timeout(CHANNEL_OPEN_TIMEOUT, self.handle.channel_open_session()).await;
        opened.with_context(what)?.with_context(what)
    }
}

/// Tries one address until its login succeeds. `None` when another server answers there: it will not become
/// the machine.
async fn keep_trying(
    target: &SshTarget,
    address: IpAddr,
    host_key: &PublicKey,
    last_errors: &Mutex<BTreeMap<IpAddr, ConnectError>>,
) -> Option<Connection> {
    loop {
        let error = match Connection::to(target, address, host_key).await {
            Ok(connection) => return Some(connection),
            Err(error) => error,
        };
        let pause = match error {
            ConnectError::Unreachable(_) => Some(RETRY_WAIT),
            ConnectError::Login(_) => Some(LOGIN_RETRY_WAIT),
            ConnectError::WrongKey => None,
        };
        lock(last_errors).insert(address, error);
        sleep(pause?).await;
    }
}

fn login_error(target: &SshTarget, last_errors: &BTreeMap<IpAddr, ConnectError>, within: &str) -> Error {
    let silent = ConnectError::Unreachable("no answer".to_owned());
    let why = target.addresses.iter().map(|address| {
        let error = last_errors.get(address).unwrap_or(&silent);
        format!("{}: {error}", SocketAddr::new(*address, target.port))
    });
    let why = why.collect::<Vec<_>>().join("; ");
    let any = |is: fn(&ConnectError) -> bool| last_errors.values().any(is);
    let hint = if any(|error| matches!(error, ConnectError::Login(_))) {
        "check that this is the image's login user, and that cloud-init works in the image: it brings the key"
    } else if !last_errors.is_empty()
        && last_errors.values().all(|error| matches!(error, ConnectError::WrongKey))
    {
        "somebody else answers at that address, and was told nothing; a private address leads to the machine only from inside its VPC"
    } else {
        "check that the security group lets this pipe's address in (SSH_CIDR names others, for a pipe behind several), that the \
         subnet has a route to it, and that a private address is used only inside the VPC"
    };
    Error::new(format!("cannot log in to the machine by SSH{within}")).source(why).hint(hint)
}

fn config(host_key: &PublicKey) -> Arc<Config> {
    Arc::new(Config {
        // The kind that is pinned: a server may have others.
        preferred: Preferred {
            key: Cow::Owned(vec![host_key.algorithm()]),
            // russh itself prefers ChaCha20, which is slower by half, and leaves AES-128 out.
            cipher: Cow::Borrowed(&[cipher::AES_128_GCM, cipher::AES_256_GCM, cipher::CHACHA20_POLY1305]),
            ..Preferred::DEFAULT
        },
        window_size: WINDOW_BYTES,
        keepalive_interval: Some(KEEPALIVE_INTERVAL),
        keepalive_max: KEEPALIVE_MISSES_LIMIT,
        inactivity_timeout: Some(INACTIVITY_TIMEOUT),
        nodelay: true,
        ..Config::default()
    })
}
