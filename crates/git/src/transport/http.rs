//! Git's requests over HTTP: the credential, the proxy, the deadlines, and what a failure means to the user.

use super::{Access, Fault};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use bytes::{Buf as _, Bytes};
use reqwest::header::{AUTHORIZATION, HeaderValue};
use reqwest::{Body, Client, Proxy, RequestBuilder, Response, StatusCode, redirect};
use std::cell::RefCell;
use std::io::{self, Read};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::runtime::Handle;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::info;
use trainspot_base::error::{Context as _, Error, Result};
use trainspot_http::is_loopback;
use url::Url;

/// The longest wait for a connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(20);

/// The longest time without a byte either way. A server checks a large pack for a while before it answers.
const IDLE_TIMEOUT: Duration = Duration::from_mins(2);

/// The time between two reports of how far a long upload is.
const PROGRESS_INTERVAL: Duration = Duration::from_secs(10);

/// The longest time for one whole answer: a server that goes on for ever is left.
const ANSWER_TIMEOUT: Duration = Duration::from_mins(30);

/// The longest list of references: some 400,000 of them.
const ADVERTISEMENT_LIMIT_BYTES: u64 = 32 << 20;
/// The longest answer to a fetch: a whole repository of Bitbucket's has no more.
const FETCH_LIMIT_BYTES: u64 = 4 << 30;
/// The longest report on a push, the messages of the server's hooks included.
const REPORT_LIMIT_BYTES: u64 = 1 << 20;
/// The most that is read of a refusal, of which one line is quoted.
const REFUSAL_LIMIT_BYTES: usize = 64 << 10;

/// The most redirects that one request follows.
const REDIRECT_LIMIT: usize = 5;

/// A client for one remote, used from a thread that may block; the requests run on the runtime that it was
/// made on.
pub(super) struct GitHttp {
    client: Client,
    /// Where a redirect led, once one did.
    base: RefCell<Url>,
    authorization: Option<HeaderValue>,
    /// What the user can check when the remote refuses the credential.
    hint: String,
    runtime: Handle,
    stop: CancellationToken,
}

impl GitHttp {
    pub(super) fn new(url: Url, access: &Access, stop: CancellationToken) -> Result<Self> {
        let base = base(url, access);
        let authorization = match access {
            Access::Token { username, secret } => {
                let basic = BASE64_STANDARD.encode(format!("{username}:{secret}"));
                let mut value = HeaderValue::from_str(&format!("Basic {basic}")).context("odd token")?;
                value.set_sensitive(true);
                Some(value)
            }
            Access::Proxy { .. } | Access::Anonymous => None,
        };
        let mut client =
            Client::builder().connect_timeout(CONNECT_TIMEOUT).redirect(redirect::Policy::custom(follow));
        client = client.user_agent(concat!("git/2 trainspot/", env!("CARGO_PKG_VERSION")));
        if let Access::Proxy { url } = access {
            let proxy = Proxy::http(url).with_context(|| format!("{url} is not a proxy's URL"))?;
            client = client.no_proxy().proxy(proxy);
        } else if base.scheme() == "http" {
            client = client.no_proxy();
        }
        let client = client.build().context("cannot set up HTTP")?;
        let hint = hint(access).to_owned();
        Ok(Self { client, base: RefCell::new(base), authorization, hint, runtime: Handle::current(), stop })
    }

    /// `GET`s what the service advertises.
    pub(super) fn advertisement(&self, service: &str) -> Result<BodyReader<'_>, Fault> {
        let mut url = self.url("info/refs");
        url.set_query(Some(&format!("service={service}")));
        let request = self.client.get(url);
        let reader = self.send(request, Arc::default(), None, ADVERTISEMENT_LIMIT_BYTES)?;
        // The requests that follow carry a body, which a redirect would lose: they go where this one ended.
        let mut reached = reader.response.url().clone();
        if let Some(path) = reached.path().strip_suffix("/info/refs").map(str::to_owned) {
            reached.set_path(&path);
            reached.set_query(None);
            *self.base.borrow_mut() = reached;
        }
        Ok(reader)
    }

    /// `POST`s a request of `length` bytes to the service; each part of the body counts itself in `sent` when
    /// it leaves.
    pub(super) fn post(
        &self,
        service: &str,
        body: Body,
        length: u64,
        sent: Arc<AtomicU64>,
    ) -> Result<BodyReader<'_>, Fault> {
        let request = self.client.post(self.url(service)).body(body);
        let request = request
            .header("content-type", format!("application/x-{service}-request"))
            .header("accept", format!("application/x-{service}-result"))
            .header("content-length", length);
        // A fetch's request is a few kilobytes: nothing to report.
        let pushes = service == "git-receive-pack";
        let limit_bytes = if pushes { REPORT_LIMIT_BYTES } else { FETCH_LIMIT_BYTES };
        self.send(request, sent, Some(length).filter(|_| pushes), limit_bytes)
    }

    fn url(&self, path: &str) -> Url {
        let mut url = self.base.borrow().clone();
        url.set_path(&format!("{}/{path}", url.path().trim_end_matches('/')));
        url
    }

    fn send(
        &self,
        mut request: RequestBuilder,
        moved: Arc<AtomicU64>,
        total: Option<u64>,
        limit_bytes: u64,
    ) -> Result<BodyReader<'_>, Fault> {
        if let Some(value) = &self.authorization {
            request = request.header(AUTHORIZATION, value.clone());
        }
        let response = self.wait(request.send(), &moved, total)?;
        if response.status().is_success() {
            let since = Instant::now();
            return Ok(BodyReader {
                http: self,
                response,
                chunk: Bytes::new(),
                moved,
                since,
                left: limit_bytes,
            });
        }
        Err(self.refused(response))
    }

    /// Runs one step of an exchange until it ends, nothing moves any more, or the run is stopped.
    fn wait<T>(
        &self,
        step: impl Future<Output = reqwest::Result<T>>,
        moved: &AtomicU64,
        total: Option<u64>,
    ) -> Result<T, Fault> {
        self.runtime.block_on(async {
            tokio::select! {
                result = step => result.map_err(|error| self.unreachable(error)),
                () = stalled(moved, total) => {
                    let error = Error::new(format!("{}: nothing moved for {} s", self.host(), IDLE_TIMEOUT.as_secs()));
                    Err(Fault::Transient(error))
                }
                () = self.stop.cancelled() => Err(Fault::Final(Error::new("stopped while talking to the remote"))),
            }
        })
    }

    fn host(&self) -> String {
        let base = self.base.borrow();
        format!("{}{}", base.host_str().unwrap_or_default(), base.path())
    }

    fn unreachable(&self, error: reqwest::Error) -> Fault {
        let what = if error.is_connect() { "cannot connect" } else { "the exchange broke off" };
        let error = Error::new(format!("{}: {what}", self.host())).source(error.without_url());
        Fault::Transient(
            error.hint("look whether the network lets this step reach the remote, and run it again"),
        )
    }

    fn refused(&self, response: Response) -> Fault {
        let status = response.status();
        let location = response.headers().get("location").and_then(|to| to.to_str().ok()).map(str::to_owned);
        let read = trainspot_http::beginning(response, REFUSAL_LIMIT_BYTES);
        let text = self.wait(read, &AtomicU64::new(0), None).unwrap_or_default();
        let text = String::from_utf8_lossy(&text);
        let text = text.lines().map(str::trim).find(|line| !line.is_empty() && !line.starts_with('<'));
        let text = text.map(|text| format!(": {}", text.chars().take(300).collect::<String>()));
        let error = Error::new(format!("{} answers {status}{}", self.host(), text.unwrap_or_default()));
        match status {
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN | StatusCode::NOT_FOUND | StatusCode::GONE => {
                Fault::Final(error.hint(&self.hint))
            }
            StatusCode::PAYLOAD_TOO_LARGE => {
                Fault::Final(error.hint("the push is too large: keep large files in DVC or Git LFS"))
            }
            StatusCode::TOO_MANY_REQUESTS | StatusCode::REQUEST_TIMEOUT => Fault::Transient(error),
            _ if status.is_server_error() => Fault::Transient(error),
            _ if status.is_redirection() => Fault::Final(error.hint(format!(
                "it wants to send us to {}, to which a credential for it must not go: set the remote to the new URL",
                location.as_deref().unwrap_or("another place")
            ))),
            _ => Fault::Final(error),
        }
    }
}

/// A response's body, read by a thread that may block.
pub(super) struct BodyReader<'a> {
    http: &'a GitHttp,
    response: Response,
    chunk: Bytes,
    moved: Arc<AtomicU64>,
    since: Instant,
    /// How many bytes may still come.
    left: u64,
}

impl Read for BodyReader<'_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        if self.chunk.is_empty() {
            let next = self.http.wait(self.response.chunk(), &self.moved, None);
            match next {
                Ok(chunk) => self.chunk = self.within_limits(chunk.unwrap_or_default())?,
                Err(Fault::Transient(error) | Fault::Final(error)) => return Err(io::Error::other(error)),
            }
        }
        let length = self.chunk.len().min(into.len());
        self.chunk.copy_to_slice(&mut into[..length]);
        Ok(length)
    }
}

impl BodyReader<'_> {
    fn within_limits(&mut self, chunk: Bytes) -> io::Result<Bytes> {
        self.left = self.left.checked_sub(chunk.len() as u64).ok_or_else(|| {
            io::Error::other(format!("{}: the answer is longer than any of git's", self.http.host()))
        })?;
        if self.since.elapsed() > ANSWER_TIMEOUT {
            let minutes = ANSWER_TIMEOUT.as_secs() / 60;
            let why = format!("{}: the answer did not end within {minutes} min", self.http.host());
            return Err(io::Error::other(why));
        }
        Ok(chunk)
    }
}

/// Without the credential that may be in the URL; and where ours would cross a network in the clear, with
/// TLS.
pub(super) fn base(mut url: Url, access: &Access) -> Url {
    // These only fail for URLs without a host, which http(s) ones have.
    _ = url.set_username("");
    _ = url.set_password(None);
    url.set_query(None);
    url.set_fragment(None);
    match access {
        Access::Token { .. } if url.scheme() == "http" && !is_loopback(&url) => _ = url.set_scheme("https"),
        // The proxy can add the credential to what it can read only.
        Access::Proxy { .. } => _ = url.set_scheme("http"),
        _ => {}
    }
    url
}

/// Only within the same origin: the credential is for that one. Others end up as the answer, see
/// `GitHttp::refused`.
fn follow(attempt: redirect::Attempt<'_>) -> redirect::Action {
    let same = attempt.previous().first().is_some_and(|first| first.origin() == attempt.url().origin());
    if same && attempt.previous().len() <= REDIRECT_LIMIT { attempt.follow() } else { attempt.stop() }
}

fn hint(access: &Access) -> &'static str {
    match access {
        Access::Token { username: "x-bitbucket-api-token-auth", .. } => {
            "check ATLASSIAN_API_TOKEN: it must not have expired and needs the scopes read:repository:bitbucket and \
             write:repository:bitbucket"
        }
        Access::Token { .. } => {
            "check BITBUCKET_ACCESS_TOKEN: it must belong to this repository, must not have expired, and needs the \
             scope repository:write"
        }
        Access::Proxy { .. } => {
            "the proxy of Pipelines did not let the step in: set BITBUCKET_ACCESS_TOKEN to an access token with the \
             scope repository:write"
        }
        Access::Anonymous => "set BITBUCKET_ACCESS_TOKEN to an access token with the scope repository:write",
    }
}

/// Ends when nothing has moved for [`IDLE_TIMEOUT`]; says now and then how far a long upload is.
async fn stalled(moved: &AtomicU64, total: Option<u64>) {
    let start = Instant::now();
    let (mut before, mut since, mut said) = (moved.load(Ordering::Relaxed), start, start);
    while since.elapsed() < IDLE_TIMEOUT {
        tokio::time::sleep(Duration::from_secs(1)).await;
        let now = moved.load(Ordering::Relaxed);
        if now != before {
            (before, since) = (now, Instant::now());
        }
        if let Some(total) = total.filter(|_| said.elapsed() >= PROGRESS_INTERVAL) {
            said = Instant::now();
            info!("{}", progress(now, total));
        }
    }
}

fn progress(sent: u64, total: u64) -> String {
    let megabytes = total.div_ceil(1_000_000);
    if sent < total {
        format!("pushing: {} of {megabytes} MB", sent / 1_000_000)
    } else {
        format!("pushed {megabytes} MB; the remote is looking at it")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token() -> Access {
        Access::Token { username: "x-token-auth", secret: "s".into() }
    }

    fn with(url: &str, access: &Access) -> String {
        base(Url::parse(url).unwrap(), access).to_string()
    }

    #[test]
    fn a_token_crosses_a_network_over_tls_only() {
        assert_eq!(with("http://bitbucket.org/a/b", &token()), "https://bitbucket.org/a/b");
        assert_eq!(with("https://bitbucket.org/a/b", &token()), "https://bitbucket.org/a/b");
        for host in ["localhost", "127.0.0.1", "127.9.9.9", "[::1]"] {
            let url = format!("http://{host}:8080/a/b");
            assert_eq!(with(&url, &token()), url);
        }
        assert_eq!(with("http://localhost.example/", &token()), "https://localhost.example/");
    }

    #[test]
    fn the_proxy_gets_plain_http() {
        let access = Access::Proxy { url: "http://host.docker.internal:29418".into() };
        assert_eq!(with("https://bitbucket.org/a/b", &access), "http://bitbucket.org/a/b");
    }

    #[test]
    fn a_credential_in_the_url_is_dropped() {
        assert_eq!(with("https://u:p@bitbucket.org/a/b?x#y", &token()), "https://bitbucket.org/a/b");
    }

    #[test]
    fn progress_tells_sending_from_waiting() {
        assert_eq!(progress(34_900_000, 94_500_000), "pushing: 34 of 95 MB");
        assert_eq!(progress(94_500_000, 94_500_000), "pushed 95 MB; the remote is looking at it");
    }

    #[tokio::test(start_paused = true)]
    async fn silence_ends_and_movement_prolongs() {
        let (start, moved) = (Instant::now(), AtomicU64::new(0));
        tokio::join!(stalled(&moved, Some(1)), async {
            tokio::time::sleep(Duration::from_secs(100)).await;
            moved.store(1, Ordering::Relaxed);
        });
        let took = start.elapsed().as_secs();
        assert!((220..=222).contains(&took), "{took}");
    }
}
