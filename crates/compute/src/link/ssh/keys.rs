//! SSH keys that are made for a run, and never stored.

use russh::keys::ssh_key::LineEnding;
use russh::keys::{Algorithm, PrivateKey};
use secrecy::SecretString;
use trainspot_base::error::{Context as _, Result};

/// An ed25519 key pair.
#[derive(Clone, Debug)]
pub struct KeyPair {
    private: PrivateKey,
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
    pub fn private_openssh(&self) -> Result<SecretString> {
        let text = self.private.to_openssh(LineEnding::LF).context("cannot write an SSH key")?;
        Ok(text.as_str().into())
    }

    /// The public key as `ssh-ed25519 AAAA…`, without a comment.
    pub fn public_openssh(&self) -> Result<String> {
        self.private.public_key().to_openssh().context("cannot write an SSH key")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use secrecy::ExposeSecret as _;

    #[test]
    fn a_private_key_is_not_shown() {
        let keys = KeyPair::new().unwrap();
        let shown = format!("{keys:?}");
        let private = keys.private().key_data().ed25519().unwrap().private.to_bytes();
        let numbers = format!("{:?}", &private[..8]);
        assert!(shown.contains("Ed25519") && !shown.contains(numbers.trim_matches(['[', ']'])), "{shown}");
        let text = keys.private_openssh().unwrap();
        let middle = text.expose_secret().lines().nth(3).unwrap();
        assert!(!shown.contains(middle) && !format!("{text:?}").contains(middle), "{shown}");
    }
}
