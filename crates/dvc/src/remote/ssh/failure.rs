//! Why work over SSH failed, and whether trying again may help.

use russh_sftp::client::error::Error as SftpError;
use russh_sftp::protocol::StatusCode;
use trainspot_base::error::Error;
use trainspot_ssh::ConnectError;

/// Why work on a connection failed.
pub(super) enum SftpFailure {
    /// There is no connection, or the connection broke.
    Broken(String),
    /// Trying again would not help.
    Final(Error),
}

impl SftpFailure {
    pub(super) fn is_transient(&self) -> bool {
        matches!(self, Self::Broken(_))
    }

    pub(super) fn explain(self, what: &str) -> Error {
        match self {
            Self::Broken(why) => Error::new(what)
                .source(why)
                .hint("look whether the network lets this machine reach the server, and run again"),
            Self::Final(error) => Error::new(what).source(error),
        }
    }

    pub(super) fn refused(why: impl Into<String>, hint: impl Into<String>) -> Self {
        Self::Final(Error::new(why).hint(hint))
    }
}

impl From<SftpError> for SftpFailure {
    fn from(error: SftpError) -> Self {
        let SftpError::Status(status) = &error else { return Self::Broken(error.to_string()) };
        let hint = match status.status_code {
            StatusCode::ConnectionLost | StatusCode::NoConnection => return Self::Broken(error.to_string()),
            StatusCode::PermissionDenied => "let this user write there",
            StatusCode::NoSuchFile => "check the remote's url",
            _ => "look whether the server's disk is full, and whether this user may write there",
        };
        Self::refused(error.to_string(), hint)
    }
}

impl From<ConnectError> for SftpFailure {
    fn from(error: ConnectError) -> Self {
        match error {
            ConnectError::Unreachable(why) => Self::Broken(why),
            ConnectError::WrongHostKey => Self::refused(
                "its host key is not the one in known_hosts",
                "somebody else may answer there; if the server's key was changed, put the new one into known_hosts",
            ),
        }
    }
}
