//! The HTTP client of a remote.

use super::super::options::Options;
pub(crate) use reqwest::Client;
use reqwest::header::HeaderMap;
use reqwest::{Certificate, Identity};
use std::path::Path;
use std::time::Duration;
use trainspot_base::error::{Context as _, Result};
use trainspot_http::{CONNECT_TIMEOUT, Redirects};

/// How long a server may be silent unless the configuration says otherwise.
pub(crate) const STALL_TIMEOUT: Duration = Duration::from_mins(1);
/// The connection timeout of a metadata service, which is on the same machine.
const METADATA_CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// The longest answer that is read: the listing of one of the 256 folders that a million objects spread over,
/// or one page of a listing.
pub(crate) const ANSWER_LIMIT_BYTES: usize = 4 << 20;

/// A client without a credential.
pub(crate) fn plain(options: &Options<'_>) -> Result<Client> {
    build(options, HeaderMap::new())
}

/// A client whose every request carries these headers.
pub(super) fn build(options: &Options<'_>, headers: HeaderMap) -> Result<Client> {
    let connect = options.seconds("connect_timeout", CONNECT_TIMEOUT)?;
    let builder = trainspot_http::client(Redirects::WithinOrigin);
    let mut builder = builder.connect_timeout(connect).default_headers(headers);
    let verify = options.text("ssl_verify").or_else(|| options.environment("AWS_CA_BUNDLE"));
    match verify {
        None => {}
        Some(_) if options.flag("ssl_verify", true).is_ok_and(|verify| !verify) => {
            builder = builder.tls_danger_accept_invalid_certs(true);
        }
        Some(_) if options.text("ssl_verify").is_some() && options.flag("ssl_verify", true).is_ok() => {}
        Some(path) => {
            let authorities = Certificate::from_pem_bundle(&read(&options.resolve(path))?);
            builder = builder
                .tls_certs_merge(authorities.with_context(|| format!("{path} holds no certificates"))?);
        }
    }
    if let Some(path) = options.path("cert_path") {
        let mut pem = read(&path)?;
        if let Some(path) = options.path("key_path") {
            pem.extend(read(&path)?);
        }
        let identity = Identity::from_pem(&pem)
            .map_err(|error| options.wrong("cert_path", "is no certificate with its key").source(error))?;
        builder = builder.identity(identity);
    }
    builder.build().context("cannot set up HTTP")
}

/// A client for credentials: what it asks is near or absent.
pub(crate) fn asking() -> Result<Client> {
    let builder = trainspot_http::client(Redirects::WithinOrigin);
    builder
        .connect_timeout(METADATA_CONNECT_TIMEOUT)
        .timeout(CONNECT_TIMEOUT)
        .build()
        .context("cannot set up HTTP")
}

fn read(path: &Path) -> Result<Vec<u8>> {
    std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))
}
