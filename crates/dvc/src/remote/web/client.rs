//! The HTTP client of a remote.

use super::super::options::Options;
pub(crate) use reqwest::Client;
use reqwest::header::{HeaderMap, RETRY_AFTER};
use reqwest::{Certificate, ClientBuilder, Identity, Response, redirect};
use std::path::Path;
use std::time::Duration;
use tokio::sync::Semaphore;
use trainspot_base::clock::retry_after;
use trainspot_base::error::{Context as _, Result};

/// How long a server may be silent unless the configuration says otherwise.
pub(crate) const STALL_TIMEOUT: Duration = Duration::from_mins(1);
/// A host that does not take a connection within this time is down.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(20);
/// The connection timeout of a metadata service, which is on the same machine.
const METADATA_TIMEOUT: Duration = Duration::from_secs(2);
const REDIRECT_LIMIT: usize = 5;

/// A client without a credential.
pub(crate) fn plain(options: &Options<'_>) -> Result<Client> {
    build(options, HeaderMap::new())
}

/// A client whose every request carries these headers.
pub(super) fn build(options: &Options<'_>, headers: HeaderMap) -> Result<Client> {
    let connect = options.seconds("connect_timeout", CONNECT_TIMEOUT)?;
    let mut builder = builder().connect_timeout(connect).default_headers(headers);
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
    builder().connect_timeout(METADATA_TIMEOUT).timeout(CONNECT_TIMEOUT).build().context("cannot set up HTTP")
}

/// The longest answer that is read, in bytes: the listing of one of the 256 folders that a million objects
/// spread over, or one page of a listing.
const ANSWER_LIMIT_BYTES: usize = 4 << 20;
/// All that is read of an answer that lists nothing, or is too long anyway. Of the rest of a longer one, one
/// answer in the process is read at a time: many are waited for at once.
const SMALL_ANSWER_BYTES: usize = 64 << 10;
static LARGE_ANSWER: Semaphore = Semaphore::const_new(1);

/// The body of an answer, cut off at the longest that is read. Only one that `lists` things is long.
pub(crate) async fn body(mut response: Response, lists: bool) -> reqwest::Result<Vec<u8>> {
    let told = response.content_length().map(|length| usize::try_from(length).unwrap_or(usize::MAX));
    let is_told_over = |limit| told.is_some_and(|length| length > limit);
    let may_be_long = lists && response.status().is_success() && !is_told_over(ANSWER_LIMIT_BYTES);
    let limit = if may_be_long { ANSWER_LIMIT_BYTES } else { SMALL_ANSWER_BYTES };
    // Before the first byte where that can be: a connection that is being read from buffers 400 KiB of what
    // follows.
    let mut large = if is_told_over(SMALL_ANSWER_BYTES) { LARGE_ANSWER.acquire().await.ok() } else { None };
    // The whole at once: a vector that grows is twice as large at its end, and there three times while it
    // grows.
    let mut body = Vec::with_capacity(told.unwrap_or(SMALL_ANSWER_BYTES).min(limit));
    while body.len() < limit
        && let Some(chunk) = response.chunk().await?
    {
        if body.len() + chunk.len() > SMALL_ANSWER_BYTES && large.is_none() {
            large = LARGE_ANSWER.acquire().await.ok();
            body.reserve_exact(limit - body.len());
        }
        body.extend_from_slice(&chunk[..chunk.len().min(limit - body.len())]);
    }
    Ok(body)
}

/// How long an answer asks to wait before the next request.
pub(crate) fn asked_wait(headers: &HeaderMap) -> Option<Duration> {
    retry_after(headers, RETRY_AFTER.as_str())
}

fn builder() -> ClientBuilder {
    Client::builder()
        .user_agent(concat!("trainspot/", env!("CARGO_PKG_VERSION")))
        .redirect(redirect::Policy::custom(follow))
}

/// Only within the same origin: the credential is for that one. Others end up as the answer.
fn follow(attempt: redirect::Attempt<'_>) -> redirect::Action {
    let same = attempt.previous().first().is_some_and(|first| first.origin() == attempt.url().origin());
    if same && attempt.previous().len() <= REDIRECT_LIMIT { attempt.follow() } else { attempt.stop() }
}

fn read(path: &Path) -> Result<Vec<u8>> {
    std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpListener;

    /// What is read of an answer that begins with this head and never ends.
    async fn read(head: &'static str, lists: bool) -> Vec<u8> {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/", listener.local_addr().unwrap());
        let served = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            assert_ne!(stream.read(&mut [0; 1 << 10]).await.unwrap(), 0);
            stream.write_all(head.as_bytes()).await.unwrap();
            while stream.write_all(&vec![b'x'; 1 << 16]).await.is_ok() {}
        });
        let body = body(Client::new().get(url).send().await.unwrap(), lists).await.unwrap();
        served.await.unwrap();
        body
    }

    #[tokio::test]
    async fn no_more_is_read_of_an_answer_than_it_may_be_good_for() {
        const ENDLESS_ANSWER: &str = "HTTP/1.1 200 x\r\nconnection: close\r\n\r\n";
        const LONG_ANSWER: &str = "HTTP/1.1 200 x\r\ncontent-length: 9000000000\r\n\r\n";
        const REFUSED_ANSWER: &str = "HTTP/1.1 404 x\r\nconnection: close\r\n\r\n";
        for (head, lists, bytes) in [
            (ENDLESS_ANSWER, true, ANSWER_LIMIT_BYTES),
            (ENDLESS_ANSWER, false, SMALL_ANSWER_BYTES),
            (LONG_ANSWER, true, SMALL_ANSWER_BYTES),
            (REFUSED_ANSWER, true, SMALL_ANSWER_BYTES),
        ] {
            let body = read(head, lists).await;
            assert_eq!((body.len(), body.capacity()), (bytes, bytes), "{head} {lists}");
        }
    }
}
