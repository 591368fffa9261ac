//! Why there is no connection to a server.

use russh::AlgorithmKind;
use std::io;

/// Why a server cannot be reached, or is not talked to. The texts follow the server's address and a colon.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConnectError {
    /// Nothing answers there, or nothing that speaks SSH to the end. Trying again may help.
    #[error("{0}")]
    Unreachable(String),
    /// The server that answers shows none of the expected host keys. It was told nothing.
    #[error("its host key is not one of those that are expected")]
    WrongHostKey,
}

impl From<russh::Error> for ConnectError {
    fn from(error: russh::Error) -> Self {
        match error {
            // A server that has no key of the expected kinds has none of the expected keys.
            russh::Error::UnknownKey | russh::Error::NoCommonAlgo { kind: AlgorithmKind::Key, .. } => {
                Self::WrongHostKey
            }
            error => Self::Unreachable(error.to_string()),
        }
    }
}

impl From<io::Error> for ConnectError {
    fn from(error: io::Error) -> Self {
        Self::Unreachable(error.to_string())
    }
}
