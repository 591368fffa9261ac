//! Logins, each of which answers whether the server lets the user in.

use crate::{ConnectError, SshConnection};
use russh::client::{AuthResult, KeyboardInteractiveAuthResponse};
use russh::keys::{PrivateKey, PrivateKeyWithHashAlg};
use std::sync::Arc;

/// The most rounds of a dialogue about the password.
const DIALOGUE_ROUNDS_LIMIT: usize = 3;

impl SshConnection {
    /// Logs in with a key. False if the server does not accept the key.
    ///
    /// # Errors
    /// The connection ended.
    pub async fn log_in_with_key(&mut self, user: &str, key: &PrivateKey) -> Result<bool, ConnectError> {
        let is_rsa = key.algorithm().is_rsa();
        let hash = if is_rsa { self.handle.best_supported_rsa_hash().await?.flatten() } else { None };
        let key = PrivateKeyWithHashAlg::new(Arc::new(key.clone()), hash);
        let answer = self.handle.authenticate_publickey(user, key).await?;
        self.is_logged_in(&answer)
    }

    /// Logs in with a password, by a dialogue where the server asks for the password so. False if the server
    /// does not accept the password.
    ///
    /// # Errors
    /// The connection ended.
    pub async fn log_in_with_password(&mut self, user: &str, password: &str) -> Result<bool, ConnectError> {
        let answer = self.handle.authenticate_password(user, password).await?;
        if self.is_logged_in(&answer)? {
            return Ok(true);
        }
        let mut answer = self.handle.authenticate_keyboard_interactive_start(user, None).await?;
        for _ in 0..DIALOGUE_ROUNDS_LIMIT {
            answer = match answer {
                KeyboardInteractiveAuthResponse::Success => return Ok(true),
                KeyboardInteractiveAuthResponse::Failure { .. } => return Ok(false),
                KeyboardInteractiveAuthResponse::InfoRequest { prompts, .. } => {
                    let answers = prompts.iter().map(|_| password.to_owned()).collect();
                    self.handle.authenticate_keyboard_interactive_respond(answers).await?
                }
            };
        }
        Ok(matches!(answer, KeyboardInteractiveAuthResponse::Success))
    }

    /// What an answer means. For a connection that has ended, russh answers that the login was refused, with
    /// no methods left to try.
    fn is_logged_in(&self, answer: &AuthResult) -> Result<bool, ConnectError> {
        match answer {
            AuthResult::Success => Ok(true),
            AuthResult::Failure { remaining_methods, .. }
                if remaining_methods.is_empty() || self.has_ended() =>
            {
                Err(ConnectError::Unreachable("the connection broke during the login".to_owned()))
            }
            AuthResult::Failure { .. } => Ok(false),
        }
    }
}
