//! The login at the server that a remote names.

use super::failure::SftpFailure;
use super::target::SftpTarget;
use secrecy::ExposeSecret as _;
use trainspot_base::error::Result;
use trainspot_ssh::{ConnectError, SshConnection};

/// A connection that is logged in, with one of the keys or else with the password.
pub(super) async fn log_in(target: &SftpTarget) -> Result<SshConnection, SftpFailure> {
    let connected = SshConnection::connect((target.host.as_str(), target.port), target.known.clone()).await;
    let mut connection = connected.map_err(|error| match error {
        ConnectError::Unreachable(why) => {
            SftpFailure::Broken(format!("{}:{}: {why}", target.host, target.port))
        }
        wrong @ ConnectError::WrongHostKey => wrong.into(),
    })?;
    for key in &target.keys {
        if connection.log_in_with_key(&target.user, key).await? {
            return Ok(connection);
        }
    }
    if let Some(password) = &target.password
        && connection.log_in_with_password(&target.user, password.expose_secret()).await?
    {
        return Ok(connection);
    }
    let with = if target.password.is_some() { "the password" } else { "this key" };
    Err(SftpFailure::refused(
        format!("{} does not let '{}' in with {with}", target.host, target.user),
        "check 'user', and 'keyfile' or 'password', of the remote",
    ))
}
