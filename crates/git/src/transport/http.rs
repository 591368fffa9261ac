//! Git's requests over HTTP: the credential, the proxy, the deadlines, and what a failure means to the user.

use super::{Access, Fault};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use bytes::{Buf as _, Bytes};
use reqwest::header::{AUTHORIZATION, HeaderValue};
use reqwest::{Body, Client, Proxy, RequestBuilder, Response, StatusCode};
use secrecy::ExposeSecret as _;
use std::cell::RefCell;
use std::convert::Infallible;
use std::future::pending;
use std::io::{self, Read};
use std::time::Duration;
use tokio::runtime::Handle;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::info;
use trainspot_base::error::{Context as _, Error, Result};
use trainspot_base::meter::Meter;
use trainspot_http::{Answer, NoAnswer, Redirects, USER_AGENT, is_loopback};
use url::Url;

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
                let basic = BASE64_STANDARD.encode(format!("{username}:{}", secret.expose_secret()));
                let mut value = HeaderValue::from_str(&format!("Basic {basic}")).context("odd token")?;
                value.set_sensitive(true);
                Some(value)
            }
            Access::Proxy { .. } | Access::Anonymous => None,
        };
        // Some servers and proxies of git speak the smart protocol with whoever says to be git alone.
        let mut client =
            trainspot_http::client(Redirects::WithinOrigin).user_agent(format!("git/2 {USER_AGENT}"));
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
        let reader = self.send(request, Meter::default(), None, ADVERTISEMENT_LIMIT_BYTES)?;
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
        sent: Meter,
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
        moved: Meter,
        total: Option<u64>,
        limit_bytes: u64,
    ) -> Result<BodyReader<'_>, Fault> {
        if let Some(value) = &self.authorization {
            request = request.header(AUTHORIZATION, value.clone());
        }
        let sent = async { Ok(request.send().await?) };
        let response = self.wait(sent, &moved, total)?;
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
        step: impl Future<Output = Result<T, NoAnswer>>,
        moved: &Meter,
        total: Option<u64>,
    ) -> Result<T, Fault> {
        self.runtime.block_on(async {
            tokio::select! {
                result = step => result.map_err(|error| self.unreachable(error)),
                limit = moved.stalled(|_| IDLE_TIMEOUT) => Err(self.unreachable(NoAnswer::silent(limit))),
                never = report_progress(moved, total) => match never {},
                () = self.stop.cancelled() => Err(Fault::Final(Error::new("stopped while talking to the remote"))),
            }
        })
    }

    fn host(&self) -> String {
        let base = self.base.borrow();
        format!("{}{}", base.host_str().unwrap_or_default(), base.path())
    }

    fn unreachable(&self, error: NoAnswer) -> Fault {
        let is_transient = error.is_transient;
        let error = Error::new(format!("{}: no answer", self.host())).source(error);
        let error = error.hint("look whether the network lets this step reach the remote, and run it again");
        if is_transient { Fault::Transient(error) } else { Fault::Final(error) }
    }

    fn refused(&self, response: Response) -> Fault {
        let answer = self.wait(Answer::read(response, 0), &Meter::default(), None);
        let answer = match answer {
            Ok(answer) => answer,
            Err(fault) => return fault,
        };
        let said = answer.said();
        let error = Error::new(format!("{} answers {}{said}", self.host(), answer.status));
        match answer.status {
            _ if answer.is_transient() => Fault::Transient(error),
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN | StatusCode::NOT_FOUND | StatusCode::GONE => {
                Fault::Final(error.hint(&self.hint))
            }
            StatusCode::PAYLOAD_TOO_LARGE => {
                Fault::Final(error.hint("the push is too large: keep large files in DVC or Git LFS"))
            }
            status if status.is_redirection() => Fault::Final(error.hint(format!(
                "it wants to send us to {}, to which a credential for it must not go: set the remote to the new URL",
                answer.location().as_deref().unwrap_or("another place")
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
    moved: Meter,
    since: Instant,
    /// How many bytes may still come.
    left: u64,
}

impl Read for BodyReader<'_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        if self.chunk.is_empty() {
            let next = async { Ok(self.response.chunk().await?) };
            let next = self.http.wait(next, &self.moved, None);
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

/// Says now and then how much of a long upload has been sent.
async fn report_progress(sent: &Meter, total: Option<u64>) -> Infallible {
    let Some(total) = total else { return pending().await };
    loop {
        tokio::time::sleep(PROGRESS_INTERVAL).await;
        info!("{}", progress(sent.total(), total));
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
}
