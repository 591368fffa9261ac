//! What is negotiated with a server, and when a silent connection is broken.

use russh::client::Config;
use russh::keys::{Algorithm, HashAlg, PublicKey};
use russh::{Preferred, cipher};
use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

/// A server that is silent for this long is sent a keepalive request.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(15);
/// How many keepalive requests without an answer break the connection.
const KEEPALIVE_MISSES_LIMIT: usize = 3;
/// A connection that is silent for this long is broken. The limit holds also while a write waits for a full
/// socket, which keeps the keepalive waiting as well.
const INACTIVITY_TIMEOUT: Duration = Duration::from_mins(1);
/// The most bytes that arrive in one round trip. The default, 2 MiB, would allow 34 MB/s at 60 ms.
const WINDOW_BYTES: u32 = 16 << 20;
/// The ciphers, the best first. russh itself prefers `ChaCha20`, which is slower by half, and leaves AES-128
/// out. The last two are for old servers.
const CIPHER_PREFERENCE: &[cipher::Name] = &[
    cipher::AES_128_GCM,
    cipher::AES_256_GCM,
    cipher::CHACHA20_POLY1305,
    cipher::AES_256_CTR,
    cipher::AES_128_CTR,
];

/// The configuration for a server with one of these host keys.
pub(crate) fn config(host_keys: &[PublicKey]) -> Arc<Config> {
    // The kinds that are expected: a server may have others, and would show the one that it prefers.
    let kinds = host_keys.iter().flat_map(|key| signature_algorithms(key.algorithm()));
    Arc::new(Config {
        preferred: Preferred {
            key: Cow::Owned(kinds.collect()),
            cipher: Cow::Borrowed(CIPHER_PREFERENCE),
            ..Preferred::DEFAULT
        },
        window_size: WINDOW_BYTES,
        keepalive_interval: Some(KEEPALIVE_INTERVAL),
        keepalive_max: KEEPALIVE_MISSES_LIMIT,
        inactivity_timeout: Some(INACTIVITY_TIMEOUT),
        nodelay: true,
        ..Config::default()
    })
}

/// The algorithms with which a server may sign by such a key: an RSA key signs by one of two.
fn signature_algorithms(key: Algorithm) -> Vec<Algorithm> {
    match key {
        Algorithm::Rsa { .. } => {
            [HashAlg::Sha512, HashAlg::Sha256].map(|hash| Algorithm::Rsa { hash: Some(hash) }).to_vec()
        }
        algorithm => vec![algorithm],
    }
}
