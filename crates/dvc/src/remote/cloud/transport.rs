//! How a request gets to an object store: with the MD5 of its body, signed, within a deadline, and again if
//! it has to be.
//!
//! It is here that requests are tried again, and not by asking opendal again: its writers lose a part on the
//! way if they are.

use super::super::REQUEST_RETRY;
use super::super::budget::Budget;
use super::super::options::Options;
use super::super::web::client::{self, Client};
use super::body::RequestBody;
use super::part::FilePart;
use super::proof::{self, CONTENT_MD5};
use bytes::Bytes;
use futures_util::stream;
use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, header};
use opendal::{Buffer, ErrorKind, HttpBody, HttpTransport};
use reqsign_core::{BoxedFuture, Context, HttpSend, Signer, SigningCredential, StaticEnv};
use reqsign_file_read_tokio::TokioFileRead;
use secrecy::ExposeSecret as _;
use std::collections::HashMap;
use std::fmt::Display;
use std::io;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{SemaphorePermit, watch};
use tokio::time::timeout;
use trainspot_base::error::{Error, Result};
use trainspot_base::retry::Tries;
use trainspot_http::{Answer, NoAnswer, retry_after, transfer_timeout};

/// The memory of one part while it is sent: pieces read ahead, and those that the connection has not taken
/// yet.
const PART_MEMORY_BYTES: u64 = 3 << 20;
/// The timeout of a metadata service. One that is there answers in milliseconds; where there is none, its
/// address is often silent.
const METADATA_TIMEOUT: Duration = Duration::from_secs(5);

const OCTET_STREAM: HeaderValue = HeaderValue::from_static("application/octet-stream");

/// What sends requests.
pub(super) struct StoreTransport {
    client: Client,
    /// None for anonymous requests.
    signing: Option<Box<dyn Signing>>,
    /// What a request that makes an object says beside what it has to.
    making: HeaderMap,
    /// Whether an entity tag of 32 digits is the content's MD5. That of an encrypted object is not.
    pub(super) tagged: bool,
    /// The memory that uploads take, those of whole objects too.
    pub(super) budget: Arc<Budget>,
    /// How long an answer may take, without the time that the body takes to get there.
    answer_timeout: Duration,
}

/// Signs requests with some kind of credential.
pub(super) trait Signing: Send + Sync + Unpin + 'static {
    fn sign<'a>(&'a self, parts: &'a mut Parts) -> BoxedFuture<'a, reqsign_core::Result<()>>;
}

impl<K: SigningCredential> Signing for Signer<K> {
    fn sign<'a>(&'a self, parts: &'a mut Parts) -> BoxedFuture<'a, reqsign_core::Result<()>> {
        Box::pin(Signer::sign(self, parts, None))
    }
}

impl StoreTransport {
    /// A way to the store. The keys `ssl_verify`, `connect_timeout` and `read_timeout` say how.
    pub(super) fn new(options: &Options<'_>, signing: Option<Box<dyn Signing>>) -> Result<Self> {
        let answer_timeout = options.seconds("read_timeout", client::STALL_TIMEOUT)?;
        Ok(Self {
            client: client::plain(options)?,
            signing,
            making: HeaderMap::new(),
            tagged: false,
            budget: Arc::new(Budget::new()),
            answer_timeout,
        })
    }

    /// Adds what goes with each request that makes an object.
    pub(super) fn making(mut self, name: HeaderName, value: &str) -> Result<Self> {
        let value = HeaderValue::from_str(value)
            .map_err(|_| Error::new(format!("{name} cannot be sent as it is")))?;
        self.making.insert(name, value);
        Ok(self)
    }

    /// Waits for the memory that a part takes.
    async fn room(&self, parts: &Parts) -> opendal::Result<Option<SemaphorePermit<'_>>> {
        if !proof::is_part(parts) {
            return Ok(None);
        }
        let held = self.budget.take(PART_MEMORY_BYTES).await;
        held.map(Some).map_err(unread)
    }

    /// The request with its MD5, and its body.
    async fn prepared(&self, mut parts: Parts, body: Bytes) -> io::Result<(Parts, RequestBody)> {
        if !proof::is_part(&parts) {
            proof::prove(&mut parts, None);
            return Ok((parts, RequestBody::Bytes(body)));
        }
        let part = FilePart::redeem(&body)?;
        proof::prove(&mut parts, Some(part.md5().await?));
        parts.headers.insert(header::CONTENT_LENGTH, part.length.into());
        Ok((parts, RequestBody::Part(part)))
    }

    /// One try: its pieces, and after them its answer, are waited for each.
    async fn once(&self, parts: Parts, body: RequestBody) -> opendal::Result<Response<Bytes>> {
        let deadline = transfer_timeout(self.answer_timeout, body.len());
        let (going, mut gone) = watch::channel(());
        let exchange = self.exchange(parts, body, going);
        tokio::pin!(exchange);
        loop {
            tokio::select! {
                answer = &mut exchange => return answer,
                went = timeout(self.answer_timeout, gone.changed()) => match went {
                    Ok(Ok(())) => {}
                    Ok(Err(_)) => break,
                    Err(_) => return Err(unanswered(&format!("nothing went for {:?}", self.answer_timeout))),
                },
            }
        }
        let late = |_| unanswered(&format!("within {deadline:?}"));
        timeout(deadline, exchange).await.map_err(late)?
    }

    async fn exchange(
        &self,
        mut parts: Parts,
        body: RequestBody,
        going: watch::Sender<()>,
    ) -> opendal::Result<Response<Bytes>> {
        if body.len() > 0 {
            parts.headers.entry(header::CONTENT_TYPE).or_insert(OCTET_STREAM);
        }
        if proof::makes(&parts) {
            parts.headers.extend(self.making.clone());
        }
        if let Some(signing) = &self.signing {
            signing.sign(&mut parts).await.map_err(|error| unsigned(&error))?;
        }
        let sent = parts.headers.get(CONTENT_MD5).cloned();
        let answer = match send(&self.client, parts, body.clone().sent(going)).await {
            Err(error) if body.holds() => return Err(unanswered(&error.to_string())),
            Err(error) => return Err(unread(error)),
            Ok(answer) => answer,
        };
        match sent {
            // Not all that speak like S3 look at the MD5 that they are given.
            Some(sent) if self.tagged && proof::tagged(&answer).is_some_and(|arrived| sent != arrived) => {
                Err(opendal::Error::new(ErrorKind::Unexpected, "what arrived is not what was sent")
                    .set_temporary())
            }
            _ => Ok(answer),
        }
    }
}

impl HttpTransport for StoreTransport {
    async fn fetch(&self, request: Request<Buffer>) -> opendal::Result<Response<HttpBody>> {
        let uri = request.uri().clone();
        let (parts, body) = request.into_parts();
        let _held = self.room(&parts).await?;
        let (parts, body) = self.prepared(parts, body.to_bytes()).await.map_err(unread)?;
        let mut tries = Tries::new(REQUEST_RETRY);
        let answer = loop {
            let answer = self.once(parts.clone(), body.clone()).await;
            let (is_transient, wait) = match &answer {
                Ok(answer) => (
                    is_transient(&parts.method, answer),
                    retry_after(answer.headers(), header::RETRY_AFTER.as_str()),
                ),
                Err(error) => (error.is_temporary(), None),
            };
            if !(is_transient && tries.wait_for_next(wait).await) {
                break answer?;
            }
        };
        let (mut parts, body) = answer.into_parts();
        parts.extensions.insert(uri);
        let length = body.len() as u64;
        // The length that a HEAD's answer tells is the object's.
        let body = HttpBody::new(stream::iter([Ok(Buffer::from(body))]), Some(length));
        Ok(Response::from_parts(parts, body))
    }
}

/// A part that cannot be read: to ask again is no use.
pub(super) fn unread(error: impl Display) -> opendal::Error {
    opendal::Error::new(ErrorKind::Unexpected, format!("cannot read a part: {error}"))
}

fn unanswered(why: &str) -> opendal::Error {
    opendal::Error::new(ErrorKind::Unexpected, format!("no answer: {why}")).set_temporary()
}

/// Refusals that pass, whatever status comes with them: the services' words for "slower", "we failed", and
/// "what arrived is not what you say it is".
const TRANSIENT_CODES: [&str; 8] = [
    "RequestTimeout",
    "SlowDown",
    "InternalError",
    "BadDigest",
    "InvalidDigest",
    "Md5Mismatch",
    "rateLimitExceeded",
    "userRateLimitExceeded",
];

/// Whether trying again may help. S3 may find out that it failed only after it has said 200.
fn is_transient(method: &Method, answer: &Response<Bytes>) -> bool {
    let status = answer.status();
    if status.is_success() && method != Method::POST {
        return false;
    }
    let body = String::from_utf8_lossy(answer.body());
    if status.is_success() && !body.contains("<Error>") {
        return false;
    }
    trainspot_http::is_transient(status) || TRANSIENT_CODES.iter().any(|code| body.contains(code))
}

async fn send(
    client: &Client,
    parts: Parts,
    body: impl Into<reqwest::Body>,
) -> Result<Response<Bytes>, NoAnswer> {
    let request = client.request(parts.method, parts.uri.to_string()).headers(parts.headers).body(body);
    let Answer { status, headers, body } = Answer::to(request, client::ANSWER_LIMIT_BYTES).await?;
    let mut answer = Response::new(Bytes::from(body));
    *answer.status_mut() = status;
    *answer.headers_mut() = headers;
    Ok(answer)
}

/// Keys that are wrong or missing. What the signer says may quote a file, so only its kind of failure is
/// told.
fn unsigned(error: &reqsign_core::Error) -> opendal::Error {
    let why = match error.kind() {
        reqsign_core::ErrorKind::CredentialInvalid => "no credential was found, or it has expired",
        reqsign_core::ErrorKind::PermissionDenied => "the credential may not be used",
        _ => "the request cannot be signed with this credential",
    };
    opendal::Error::new(ErrorKind::PermissionDenied, format!("NoCredential: {why}"))
}

/// What credentials are found with: these variables, the files that they name, and the metadata services.
pub(super) fn context(options: &Options<'_>, variables: &[(&str, &str)], names: &[&str]) -> Result<Context> {
    let found = names.iter().filter_map(|name| Some(((*name).to_owned(), options.secret_variable(name)?)));
    // The signers keep them as texts.
    let found = found.map(|(name, value)| (name, value.expose_secret().to_owned()));
    let given = variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    let envs: HashMap<_, _> = found.chain(given).collect();
    let home_dir = options.environment("HOME").map(Into::into);
    let asking = CredentialClient(client::asking()?);
    Ok(Context::new()
        .with_file_read(TokioFileRead)
        .with_http_send(asking)
        .with_env(StaticEnv { home_dir, envs }))
}

/// Asks for credentials.
#[derive(Debug)]
struct CredentialClient(Client);

impl HttpSend for CredentialClient {
    async fn http_send(&self, request: Request<Bytes>) -> reqsign_core::Result<Response<Bytes>> {
        let (parts, body) = request.into_parts();
        let sent = timeout(METADATA_TIMEOUT, send(&self.0, parts, body))
            .await
            .unwrap_or_else(|_| Err(NoAnswer::silent(METADATA_TIMEOUT)));
        sent.map_err(|error| reqsign_core::Error::unexpected(error.to_string()))
    }
}

#[cfg(test)]
mod tests;
