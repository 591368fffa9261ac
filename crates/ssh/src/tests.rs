//! Against russh's own server, on the loopback device. OpenSSH's is met in `test/link` and `test/dvc`.

use super::{ConnectError, SshConnection};
use russh::Channel;
use russh::keys::{Algorithm, PrivateKey, PublicKey};
use russh::server::{self, Auth, Response, VerifiedPublicKey};
use std::net::{Shutdown, SocketAddr, TcpStream as StdStream};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::io::AsyncReadExt as _;
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;
use trainspot_base::mutex::lock;

const TEST_PASSWORD: &str = "hunter22";
/// How long a test waits for what has to come.
const WAIT_LIMIT: Duration = Duration::from_mins(1);

/// What a server accepts.
#[derive(Clone, Default)]
struct Login {
    key: Option<PublicKey>,
    asks_by_dialogue: bool,
}

impl server::Handler for Login {
    type Error = russh::Error;

    async fn auth_publickey(&mut self, user: &str, key: VerifiedPublicKey<'_>) -> Result<Auth, russh::Error> {
        let is_known = self.key.as_ref().is_some_and(|known| known.key_data() == key.public_key.key_data());
        Ok(if user == "me" && is_known { Auth::Accept } else { Auth::reject() })
    }

    async fn channel_open_session(
        &mut self,
        _: Channel<server::Msg>,
        reply: server::ChannelOpenHandle,
        _: &mut server::Session,
    ) -> Result<(), russh::Error> {
        reply.accept().await;
        Ok(())
    }

    async fn auth_password(&mut self, user: &str, password: &str) -> Result<Auth, russh::Error> {
        let is_right = user == "me" && password == TEST_PASSWORD && !self.asks_by_dialogue;
        Ok(if is_right { Auth::Accept } else { Auth::reject() })
    }

    async fn auth_keyboard_interactive<'a>(
        &'a mut self,
        _: &str,
        _: &str,
        response: Option<Response<'a>>,
    ) -> Result<Auth, russh::Error> {
        let Some(mut response) = response else {
            let prompts = vec![("Password: ".into(), false)].into();
            return Ok(Auth::Partial { name: "".into(), instructions: "".into(), prompts });
        };
        let is_right = response.next().as_deref() == Some(TEST_PASSWORD.as_bytes());
        Ok(if self.asks_by_dialogue && is_right { Auth::Accept } else { Auth::reject() })
    }
}

fn new_key() -> PrivateKey {
    PrivateKey::random(&mut russh::keys::key::safe_rng(), Algorithm::Ed25519).unwrap()
}

/// A server on the loopback device.
struct TestServer {
    address: SocketAddr,
    sockets: Arc<Mutex<Vec<StdStream>>>,
}

impl TestServer {
    async fn start(host_key: &PrivateKey, login: Login) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let config = Arc::new(server::Config {
            keys: vec![host_key.clone()],
            auth_rejection_time: Duration::ZERO,
            auth_rejection_time_initial: Some(Duration::ZERO),
            ..server::Config::default()
        });
        let sockets = Arc::<Mutex<Vec<StdStream>>>::default();
        let accepted = Arc::clone(&sockets);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let stream = stream.into_std().unwrap();
                lock(&accepted).push(stream.try_clone().unwrap());
                let stream = TcpStream::from_std(stream).unwrap();
                let session = server::run_stream(Arc::clone(&config), stream, login.clone());
                tokio::spawn(async move { session.await.unwrap().await });
            }
        });
        Self { address, sockets }
    }

    /// Breaks every connection.
    fn cut(&self) {
        for socket in lock(&self.sockets).iter() {
            socket.shutdown(Shutdown::Both).unwrap();
        }
    }
}

async fn connect(address: SocketAddr, expected: &[&PrivateKey]) -> Result<SshConnection, ConnectError> {
    let expected = expected.iter().map(|key| key.public_key().clone()).collect();
    timeout(WAIT_LIMIT, SshConnection::connect(address, expected)).await.unwrap()
}

#[tokio::test]
async fn only_a_server_with_an_expected_host_key_is_talked_to() {
    let (own, other, third) = (new_key(), new_key(), new_key());
    let server = TestServer::start(&own, Login::default()).await;
    let address = server.address;
    assert_eq!(connect(address, &[&other]).await.err(), Some(ConnectError::WrongHostKey));
    assert_eq!(connect(address, &[&other, &third]).await.err(), Some(ConnectError::WrongHostKey));
    assert!(connect(address, &[&other, &own]).await.is_ok());
    let none = connect(address, &[]).await.err();
    assert!(none.is_some(), "a server was talked to of which nothing is known");
}

#[tokio::test]
async fn a_key_or_a_password_that_is_refused_is_no_broken_connection() {
    let (host, key, other) = (new_key(), new_key(), new_key());
    for asks_by_dialogue in [false, true] {
        let login = Login { key: Some(key.public_key().clone()), asks_by_dialogue };
        let address = TestServer::start(&host, login).await.address;
        let mut connection = connect(address, &[&host]).await.unwrap();
        assert_eq!(connection.log_in_with_key("me", &other).await, Ok(false));
        assert_eq!(connection.log_in_with_password("me", "wrong").await, Ok(false));
        assert_eq!(connection.log_in_with_password("me", TEST_PASSWORD).await, Ok(true));
        assert!(connection.channel().await.is_ok() && !connection.has_ended());

        let mut connection = connect(address, &[&host]).await.unwrap();
        assert_eq!(connection.log_in_with_key("me", &key).await, Ok(true));
        assert_eq!(connection.address(), address);
    }
}

#[tokio::test]
async fn work_ends_with_its_connection() {
    let (host, key) = (new_key(), new_key());
    let server =
        TestServer::start(&host, Login { key: Some(key.public_key().clone()), ..Login::default() }).await;
    let mut connection = connect(server.address, &[&host]).await.unwrap();
    assert_eq!(connection.log_in_with_key("me", &key).await, Ok(true));
    assert_eq!(connection.while_open(async { 7 }).await, Ok(7));
    server.cut();
    let broken = timeout(WAIT_LIMIT, connection.while_open(std::future::pending::<()>())).await.unwrap();
    assert_eq!(broken, Err(ConnectError::Unreachable("the connection broke".to_owned())));
    assert!(connection.has_ended() && connection.channel().await.is_err());
}

/// A server that greets, and is silent from then on: russh's own task would wait for its answer.
#[tokio::test]
async fn a_connection_that_is_given_up_closes_its_socket() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let connecting = tokio::spawn(async move { connect(address, &[&new_key()]).await });
    let (mut stream, _) = listener.accept().await.unwrap();
    let mut greeting = [0; 8];
    stream.read_exact(&mut greeting).await.unwrap();
    assert_eq!(&greeting, b"SSH-2.0-");
    connecting.abort();
    let mut rest = Vec::new();
    timeout(WAIT_LIMIT, stream.read_to_end(&mut rest)).await.unwrap().unwrap();
}

#[tokio::test]
async fn nobody_who_listens_is_unreachable() {
    let refused = connect("127.0.0.1:1".parse().unwrap(), &[&new_key()]).await.err();
    assert!(matches!(refused, Some(ConnectError::Unreachable(_))), "{refused:?}");
    // Whoever answers but does not speak SSH.
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let closing = tokio::spawn(async move { drop(listener.accept().await.unwrap()) });
    let refused = connect(address, &[&new_key()]).await.err();
    closing.await.unwrap();
    assert!(matches!(refused, Some(ConnectError::Unreachable(_))), "{refused:?}");
}
