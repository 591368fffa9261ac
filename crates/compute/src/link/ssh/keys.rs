//! SSH keys that are made for a run, and never stored.

use russh::keys::ssh_key::LineEnding;
use russh::keys::{Algorithm, PrivateKey};
use std::fmt;
use trainspot_base::error::{Context as _, Result};

/// An ed25519 key pair.
#[derive(Clone)]
pub struct KeyPair {
    private: PrivateKey,
}

impl fmt::Debug for KeyPair {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("KeyPair(…)")
    }
}

impl KeyPair {
    /// A new pair.
    pub fn new() -> Result<Self> {
        let private = PrivateKey::random(&mut russh::keys::key::safe_rng(), Algorithm::Ed25519);
        Ok(Self { private: private.context("cannot make an SSH key")? })
    }

    pub(super) fn private(&self) -> &PrivateKey {
        &self.private
    }

    /// The private key as OpenSSH keeps it, its final newline included.
    pub fn private_openssh(&self) -> Result<String> {
        let text = self.private.to_openssh(LineEnding::LF).context("cannot write an SSH key")?;
        Ok(text.to_string())
    }

    /// The public key as `ssh-ed25519 AAAA…`, without a comment.
    pub fn public_openssh(&self) -> Result<String> {
        self.private.public_key().to_openssh().context("cannot write an SSH key")
    }
}
