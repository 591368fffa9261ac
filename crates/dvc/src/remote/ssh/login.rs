//! The login: who the server is, and who we are.

use super::failure::SftpFailure;
use super::target::SftpTarget;
use russh::client::{self, AuthResult, Config, Handle, KeyboardInteractiveAuthResponse};
use russh::keys::{Algorithm, HashAlg, PrivateKeyWithHashAlg, PublicKey, PublicKeyOrCertificate};
use russh::{Preferred, cipher};
use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpStream;
use tokio_util::sync::{CancellationToken, DropGuard};
use trainspot_base::error::Result;

/// A server that is silent for this long is asked whether it is still there.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(15);
/// The connection counts as broken after this many questions without an answer.
const KEEPALIVE_LIMIT: usize = 3;

/// Lets in no server but one with these keys.
pub(super) struct ServerKeyCheck {
    keys: Vec<PublicKey>,
    /// Goes with the connection.
    _end: DropGuard,
}

impl client::Handler for ServerKeyCheck {
    type Error = russh::Error;

    async fn check_server_key(&mut self, shown: &PublicKeyOrCertificate) -> Result<bool, russh::Error> {
        Ok(match shown {
            PublicKeyOrCertificate::PublicKey { key, .. } => {
                self.keys.iter().any(|known| known.key_data() == key.key_data())
            }
            PublicKeyOrCertificate::Certificate(_) => false,
        })
    }
}

/// A connection that is logged in, and what tells that it has ended.
pub(super) async fn connect(
    door: &SftpTarget,
) -> Result<(Handle<ServerKeyCheck>, CancellationToken), SftpFailure> {
    let stream = TcpStream::connect((door.host.as_str(), door.port)).await;
    let stream =
        stream.map_err(|error| SftpFailure::Broken(format!("{}:{}: {error}", door.host, door.port)))?;
    let ended = CancellationToken::new();
    let known = ServerKeyCheck { keys: door.known.clone(), _end: ended.clone().drop_guard() };
    let mut handle = client::connect_stream(config(door), stream, known).await?;
    log_in(door, &mut handle).await?;
    Ok((handle, ended))
}

/// Logs in with a key, or else with the password.
async fn log_in(door: &SftpTarget, handle: &mut Handle<ServerKeyCheck>) -> Result<(), SftpFailure> {
    for key in &door.keys {
        let hash =
            if key.algorithm().is_rsa() { handle.best_supported_rsa_hash().await?.flatten() } else { None };
        let key = PrivateKeyWithHashAlg::new(Arc::new(key.clone()), hash);
        if is_in(&handle.authenticate_publickey(&door.user, key).await?)? {
            return Ok(());
        }
    }
    if let Some(password) = &door.password {
        if is_in(&handle.authenticate_password(&door.user, password).await?)? {
            return Ok(());
        }
        if answer_questions(door, handle, password).await? {
            return Ok(());
        }
    }
    let with = if door.password.is_some() { "the password" } else { "this key" };
    Err(SftpFailure::refused(
        format!("{} does not let '{}' in with {with}", door.host, door.user),
        "check 'user', and 'keyfile' or 'password', of the remote",
    ))
}

/// Whether an answer means that the login succeeded. For a connection that ended, russh answers that the
/// login was refused, with no methods left to try.
fn is_in(answer: &AuthResult) -> Result<bool, SftpFailure> {
    match answer {
        AuthResult::Success => Ok(true),
        AuthResult::Failure { remaining_methods, .. } if remaining_methods.is_empty() => {
            Err(SftpFailure::Broken("the connection ended at the login".to_owned()))
        }
        AuthResult::Failure { .. } => Ok(false),
    }
}

/// Some servers ask for the password by a dialogue.
async fn answer_questions(
    door: &SftpTarget,
    handle: &mut Handle<ServerKeyCheck>,
    password: &str,
) -> Result<bool, SftpFailure> {
    let mut answer = handle.authenticate_keyboard_interactive_start(&door.user, None).await?;
    for _ in 0..3 {
        answer = match answer {
            KeyboardInteractiveAuthResponse::Success => return Ok(true),
            KeyboardInteractiveAuthResponse::Failure { .. } => return Ok(false),
            KeyboardInteractiveAuthResponse::InfoRequest { prompts, .. } => {
                let answers = prompts.iter().map(|_| password.to_owned()).collect();
                handle.authenticate_keyboard_interactive_respond(answers).await?
            }
        };
    }
    Ok(false)
}

fn config(door: &SftpTarget) -> Arc<Config> {
    let mut kinds = Vec::new();
    for key in &door.known {
        // A server signs with an RSA key by one of these.
        let of_key = match key.algorithm() {
            Algorithm::Rsa { .. } => {
                vec![
                    Algorithm::Rsa { hash: Some(HashAlg::Sha512) },
                    Algorithm::Rsa { hash: Some(HashAlg::Sha256) },
                ]
            }
            algorithm => vec![algorithm],
        };
        kinds.extend(of_key);
    }
    Arc::new(Config {
        preferred: Preferred {
            key: Cow::Owned(kinds),
            // russh itself prefers ChaCha20, which is slower by half, and leaves AES-128 out.
            cipher: Cow::Borrowed(&[
                cipher::AES_128_GCM,
                cipher::AES_256_GCM,
                cipher::CHACHA20_POLY1305,
                cipher::AES_256_CTR,
                cipher::AES_128_CTR,
            ]),
            ..Preferred::DEFAULT
        },
        keepalive_interval: Some(KEEPALIVE_INTERVAL),
        keepalive_max: KEEPALIVE_LIMIT,
        nodelay: true,
        ..Config::default()
    })
}
