//! A connection: opened by whichever address leads to the machine, and used by many channels.

use super::{AGAIN, Door};
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

/// The kernel asks for a connection after 0, 1 and 3 seconds, then ever more rarely: a new try notices sooner
/// that a machine is up.
const ASKING: Duration = Duration::from_secs(4);
/// From the first byte to the login.
const LOGIN: Duration = Duration::from_secs(15);
/// Between two tries of an address.
const PAUSE: Duration = Duration::from_millis(300);
/// After a refused login: OpenSSH (from 9.8) shuts out who fails more often than every 5 s.
const LOGIN_PAUSE: Duration = Duration::from_secs(5);
/// An open connection opens a channel within a round trip.
pub(super) const CHANNEL: Duration = Duration::from_secs(4);
/// A server that says nothing for so long is asked whether it is there, as often as [`MISSES`].
const KEEPALIVE: Duration = Duration::from_secs(15);
const MISSES: usize = 3;
/// Holds also while a write waits for a full socket, which keeps the keepalive waiting as well.
const DEAD: Duration = Duration::from_mins(1);
/// Each round trip brings no more than this: 2 MiB, the default, are 34 MB/s at 60 ms.
const WINDOW: u32 = 16 << 20;

/// A place for one connection, opened again when it is needed and broken.
#[derive(Debug)]
pub(super) struct Line(tokio::sync::Mutex<Option<Arc<Connection>>>);

impl Line {
    pub(super) fn new(connection: Option<Connection>) -> Self {
        Self(tokio::sync::Mutex::new(connection.map(Arc::new)))
    }

    /// A channel on the connection that is there, or on a new one: it may have died unnoticed, or have all
    /// the channels that the server allows. One after the other, so that nobody else takes the new one's.
    pub(super) async fn channel(&self, door: &Door) -> Result<(Arc<Connection>, Channel<Msg>)> {
        let mut place = self.0.lock().await;
        if let Some(connection) = place.as_ref().filter(|connection| !connection.handle.is_closed()) {
            match connection.channel().await {
                Ok(channel) => return Ok((Arc::clone(connection), channel)),
                Err(error) => tracing::debug!("opening another connection: {}", error.render()),
            }
        }
        *place = None;
        let connection = place.insert(Arc::new(Connection::open(door, AGAIN).await?));
        Ok((Arc::clone(connection), connection.channel().await?))
    }
}

/// A login at the machine.
pub(super) struct Connection {
    handle: Handle<Pinned>,
    pub(super) address: SocketAddr,
    _socket: Socket,
}

impl fmt::Debug for Connection {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Connection({})", self.address)
    }
}

/// Why an address did not let us in.
#[derive(Clone)]
enum Refusal {
    /// Nobody there, or nobody who speaks SSH to the end.
    Unreachable(String),
    /// The machine is there, but does not know our key.
    Login(String),
    /// Somebody else is there.
    WrongKey,
}

impl fmt::Display for Refusal {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unreachable(why) | Self::Login(why) => formatter.write_str(why),
            Self::WrongKey => {
                formatter.write_str("its host key is not the one that was made for this machine")
            }
        }
    }
}

impl From<russh::Error> for Refusal {
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

impl From<std::io::Error> for Refusal {
    fn from(error: std::io::Error) -> Self {
        Self::Unreachable(error.to_string())
    }
}

/// Lets in no server but the one with this key.
struct Pinned(PublicKey);

impl client::Handler for Pinned {
    type Error = russh::Error;

    async fn check_server_key(&mut self, shown: &PublicKeyOrCertificate) -> Result<bool, russh::Error> {
        Ok(match shown {
            PublicKeyOrCertificate::PublicKey { key, .. } => key.key_data() == self.0.key_data(),
            PublicKeyOrCertificate::Certificate(_) => false,
        })
    }
}

/// Closes the connection when it is dropped: russh's own task holds it as long as it waits for a server that
/// is silent.
struct Socket(std::net::TcpStream);

impl Drop for Socket {
    fn drop(&mut self) {
        self.0.shutdown(Shutdown::Both).ok();
    }
}

impl Connection {
    /// Tries all addresses until one lets us in, or `patience` is over.
    pub(super) async fn open(door: &Door, patience: Duration) -> Result<Self> {
        let host_key =
            PublicKey::from_openssh(&door.host_key).context("cannot read the machine's host key")?;
        let last = Mutex::new(BTreeMap::new());
        let mut tries: FuturesUnordered<_> =
            door.addresses.iter().map(|address| keep_trying(door, *address, &host_key, &last)).collect();
        let open = async {
            while let Some(connection) = tries.next().await {
                if connection.is_some() {
                    return connection;
                }
            }
            None
        };
        let opened = timeout(patience, open).await;
        drop(tries);
        let last = into_inner(last);
        match opened {
            Ok(Some(connection)) => Ok(connection),
            Ok(None) => Err(refused(door, &last, "")),
            Err(_) => Err(refused(door, &last, &format!(" within {}", in_words(patience)))),
        }
    }

    async fn to(door: &Door, address: IpAddr, host_key: &PublicKey) -> Result<Self, Refusal> {
        let address = SocketAddr::new(address, door.port);
        let stream = timeout(ASKING, TcpStream::connect(address)).await;
        let stream = stream.map_err(|_| Refusal::Unreachable("no answer".to_owned()))??.into_std()?;
        let socket = Socket(stream.try_clone()?);
        stream.set_nodelay(true)?;
        let login = async {
            let stream = TcpStream::from_std(stream)?;
            let mut handle =
                client::connect_stream(config(host_key), stream, Pinned(host_key.clone())).await?;
            let key = PrivateKeyWithHashAlg::new(Arc::new(door.client.private().clone()), None);
            match handle.authenticate_publickey(&door.user, key).await? {
                AuthResult::Success => Ok(handle),
                AuthResult::Failure { .. } if handle.is_closed() => {
                    Err(Refusal::Unreachable("the connection broke during the login".to_owned()))
                }
                AuthResult::Failure { .. } => {
                    Err(Refusal::Login(format!("it does not let '{}' in with the run's key", door.user)))
                }
            }
        };
        let silent =
            || Refusal::Unreachable(format!("it takes connections, but did not let us in within {LOGIN:?}"));
        let handle = timeout(LOGIN, login).await.map_err(|_| silent())??;
        tracing::debug!("logged in at {address}");
        Ok(Self { handle, address, _socket: socket })
    }

    /// A channel for one command.
    async fn channel(&self) -> Result<Channel<Msg>> {
        let what = || format!("cannot use the connection to {}", self.address);
        let opened = timeout(CHANNEL, self.handle.channel_open_session()).await;
        opened.with_context(what)?.with_context(what)
    }
}

/// One address's part of the race. `None` when somebody else is there, who will not become the machine.
async fn keep_trying(
    door: &Door,
    address: IpAddr,
    host_key: &PublicKey,
    last: &Mutex<BTreeMap<IpAddr, Refusal>>,
) -> Option<Connection> {
    loop {
        let refusal = match Connection::to(door, address, host_key).await {
            Ok(connection) => return Some(connection),
            Err(refusal) => refusal,
        };
        let pause = match refusal {
            Refusal::Unreachable(_) => Some(PAUSE),
            Refusal::Login(_) => Some(LOGIN_PAUSE),
            Refusal::WrongKey => None,
        };
        lock(&last).insert(address, refusal);
        sleep(pause?).await;
    }
}

fn refused(door: &Door, last: &BTreeMap<IpAddr, Refusal>, within: &str) -> Error {
    let silent = Refusal::Unreachable("no answer".to_owned());
    let why = door.addresses.iter().map(|address| {
        let refusal = last.get(address).unwrap_or(&silent);
        format!("{}: {refusal}", SocketAddr::new(*address, door.port))
    });
    let why = why.collect::<Vec<_>>().join("; ");
    let any = |is: fn(&Refusal) -> bool| last.values().any(is);
    let hint = if any(|refusal| matches!(refusal, Refusal::Login(_))) {
        "check that this is the image's login user, and that cloud-init works in the image: it brings the key"
    } else if !last.is_empty() && last.values().all(|refusal| matches!(refusal, Refusal::WrongKey)) {
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
        window_size: WINDOW,
        keepalive_interval: Some(KEEPALIVE),
        keepalive_max: MISSES,
        inactivity_timeout: Some(DEAD),
        nodelay: true,
        ..Config::default()
    })
}
