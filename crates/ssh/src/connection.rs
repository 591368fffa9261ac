//! A connection to a server that has shown an expected host key.

use crate::ConnectError;
use crate::config::config;
use russh::Channel;
use russh::client::{self, Handle, Handler, Msg};
use russh::keys::{PublicKey, PublicKeyOrCertificate};
use std::fmt;
use std::net::{Shutdown, SocketAddr, TcpStream as StdStream};
use std::pin::Pin;
use std::sync::Arc;
use tokio::net::{TcpStream, ToSocketAddrs};
use tokio_util::sync::{CancellationToken, DropGuard};

/// A connection, logged in or not yet. Dropping the connection closes its socket.
pub struct SshConnection {
    pub(crate) handle: Handle<HostKeyCheck>,
    address: SocketAddr,
    ended: CancellationToken,
    _socket: ShutdownOnDrop,
}

impl SshConnection {
    /// Connects to a server that has one of these host keys. The caller sets the deadline.
    ///
    /// # Errors
    /// Nothing answers there that speaks SSH, or the server has none of the keys.
    pub async fn connect(
        address: impl ToSocketAddrs,
        host_keys: Vec<PublicKey>,
    ) -> Result<Self, ConnectError> {
        Self::over(TcpStream::connect(address).await?, host_keys).await
    }

    /// Connects over an open TCP connection, as [`Self::connect`] does.
    ///
    /// # Errors
    /// Nothing answers there that speaks SSH, or the server has none of the keys.
    pub async fn over(stream: TcpStream, host_keys: Vec<PublicKey>) -> Result<Self, ConnectError> {
        let address = stream.peer_addr()?;
        stream.set_nodelay(true)?;
        let stream = stream.into_std()?;
        let socket = ShutdownOnDrop(stream.try_clone()?);
        let stream = TcpStream::from_std(stream)?;
        let (config, ended) = (config(&host_keys), CancellationToken::new());
        let check = HostKeyCheck { host_keys, _ended: ended.clone().drop_guard() };
        let handle = opened(config, stream, check).await?;
        Ok(Self { handle, address, ended, _socket: socket })
    }

    /// The address that answers.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// A new channel.
    ///
    /// # Errors
    /// The connection has ended, or the server allows no further channel.
    pub async fn channel(&self) -> Result<Channel<Msg>, ConnectError> {
        Ok(self.handle.channel_open_session().await?)
    }

    /// Whether the connection has ended.
    #[must_use]
    pub fn has_ended(&self) -> bool {
        self.handle.is_closed() || self.ended.is_cancelled()
    }

    /// Does work on the connection, which ends with the connection: russh does not tell work that waits for
    /// an answer that the connection has ended.
    ///
    /// # Errors
    /// The connection has ended.
    pub async fn while_open<T>(&self, work: impl Future<Output = T>) -> Result<T, ConnectError> {
        let broken = || ConnectError::Unreachable("the connection broke".to_owned());
        self.ended.run_until_cancelled(work).await.ok_or_else(broken)
    }
}

impl fmt::Debug for SshConnection {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "SshConnection({})", self.address)
    }
}

/// Refuses a server that shows none of these keys.
pub(crate) struct HostKeyCheck {
    host_keys: Vec<PublicKey>,
    /// russh drops the check with the connection.
    _ended: DropGuard,
}

/// A session over a stream, once the server has shown a key.
///
/// Boxed in a function that is not async, so that the session's loop is compiled here: the body of an async
/// function is compiled by the crate that awaits it, with the optimisation of that crate.
#[inline(never)]
fn opened(
    config: Arc<client::Config>,
    stream: TcpStream,
    check: HostKeyCheck,
) -> Pin<Box<dyn Future<Output = Result<Handle<HostKeyCheck>, russh::Error>> + Send>> {
    Box::pin(client::connect_stream(config, stream, check))
}

impl Handler for HostKeyCheck {
    type Error = russh::Error;

    async fn check_server_key(&mut self, shown: &PublicKeyOrCertificate) -> Result<bool, russh::Error> {
        Ok(match shown {
            PublicKeyOrCertificate::PublicKey { key, .. } => {
                self.host_keys.iter().any(|expected| expected.key_data() == key.key_data())
            }
            PublicKeyOrCertificate::Certificate(_) => false,
        })
    }
}

/// Shuts the socket down when it is dropped: russh's own task keeps the socket open as long as it waits for a
/// silent server.
struct ShutdownOnDrop(StdStream);

impl Drop for ShutdownOnDrop {
    fn drop(&mut self) {
        self.0.shutdown(Shutdown::Both).ok();
    }
}
