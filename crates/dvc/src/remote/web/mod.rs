//! Remotes behind HTTP: a server that takes uploads, and `WebDAV`.
//!
//! A body is streamed with its length, and its last piece is sent only when all of it has been proven: a
//! server that goes by the length never has a whole object that is a wrong one.

pub(super) mod client;
mod failure;
mod http;
mod listing;
mod webdav;

pub(super) use http::HttpRemote;
pub(super) use webdav::WebDavRemote;

use super::budget::Budget;
use super::options::Options;
use super::source::Parts;
use super::{NamedBy, Object, REQUEST_RETRY, RemoteName, Settings};
use bytes::Bytes;
use client::{ANSWER_LIMIT_BYTES, Client};
use failure::WebFailure;
use futures_util::stream::{self, Stream, StreamExt as _};
use reqwest::{Body, Method, RequestBuilder, Url};
use std::io;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::time::timeout;
use trainspot_base::error::{Error, Result};
use trainspot_base::meter::Meter;
use trainspot_base::mutex::lock;
use trainspot_base::retry::Tries;
use trainspot_http::{Answer, NoAnswer};

/// The bytes of one piece of a streamed body.
const READ_PIECE_BYTES: usize = 1 << 20;
/// The memory of one upload: a piece being sent, one waiting, one being read, and the connection's buffers.
const UPLOAD_MEMORY_BYTES: u64 = 4 << 20;
/// How many questions are asked at a time.
const CONCURRENT_QUESTIONS: usize = 32;

/// The address that requests go to, and who named it; none without a credential.
pub(super) fn recipient(settings: &Settings, options: &Options<'_>) -> Option<(String, NamedBy)> {
    const CREDENTIAL_KEYS: [&str; 5] =
        ["auth", "password", "token", "custom_auth_header", "bearer_token_command"];
    // The HTTP client takes a user and a password out of the address, too.
    let in_address = || {
        let (_, rest) = settings.url.split_once("://").unwrap_or_default();
        rest.split(['/', '?', '#']).next().is_some_and(|authority| authority.contains('@'))
    };
    let credential = CREDENTIAL_KEYS.iter().any(|key| options.secret(key).is_some()) || in_address();
    credential.then(|| (settings.url.replacen("webdav", "http", 1), NamedBy::Configuration))
}

/// A server, and how to talk to it.
struct WebServer {
    client: Client,
    /// The remote's root; its path ends with a slash.
    root: Url,
    place: RemoteName,
    budget: Budget,
    /// How long the server may be silent.
    stall_timeout: Duration,
    /// The hint for a refused login.
    advice: &'static str,
}

impl WebServer {
    fn url(&self, key: &str) -> Url {
        let mut url = self.root.clone();
        url.set_path(&format!("{}{key}", self.root.path()));
        url
    }

    /// Asks until there is an answer that trying again would not change.
    async fn ask(&self, what: &str, request: impl Fn() -> RequestBuilder) -> Result<Answer> {
        let mut tries = Tries::new(REQUEST_RETRY);
        loop {
            let failure = match timeout(self.stall_timeout, Answer::to(request(), ANSWER_LIMIT_BYTES)).await {
                Ok(Ok(answer)) if !answer.is_transient() => return Ok(answer),
                Ok(Ok(answer)) => WebFailure::refused(&answer, self.advice),
                Ok(Err(failure)) => failure.into(),
                Err(_) => NoAnswer::silent(self.stall_timeout).into(),
            };
            if !(failure.is_transient && tries.wait_for_next(failure.wait).await) {
                return Err(failure.explain(what));
            }
        }
    }

    /// Sends an object by this method to this place.
    async fn upload(&self, what: &str, method: &Method, url: &Url, object: &Object) -> Result<()> {
        let _held = self.budget.take(UPLOAD_MEMORY_BYTES.min(object.size)).await?;
        let mut tries = Tries::new(REQUEST_RETRY);
        loop {
            let failure = match self.stream(method, url, object).await? {
                Ok(answer) if answer.is_success() => return Ok(()),
                Ok(answer) => WebFailure::refused(&answer, self.advice),
                Err(failure) => failure,
            };
            if !(failure.is_transient && tries.wait_for_next(failure.wait).await) {
                return Err(failure.explain(what));
            }
        }
    }

    /// One try. The outer error is about the content, and final.
    async fn stream(
        &self,
        method: &Method,
        url: &Url,
        object: &Object,
    ) -> Result<Result<Answer, WebFailure>> {
        let (moved, broken) = (Meter::default(), Arc::new(Mutex::new(None)));
        let mut parts = Parts::of(object, READ_PIECE_BYTES);
        // Before the request, so that the server hears nothing of a small object that is not what it was.
        let first = parts.next().await?;
        let rest = rest(parts, moved.clone(), Arc::clone(&broken));
        let body = Body::wrap_stream(stream::iter(first.map(Ok)).chain(rest));
        let request = self.client.request(method.clone(), url.clone()).body(body);
        let request =
            request.header("content-length", object.size).header("content-type", "application/octet-stream");
        let sent = tokio::select! {
            sent = Answer::to(request, ANSWER_LIMIT_BYTES) => sent,
            limit = moved.stalled(|_| self.stall_timeout) => Err(NoAnswer::silent(limit)),
        };
        let broken = lock(&broken).take();
        broken.map_or(Ok(sent.map_err(WebFailure::from)), Err)
    }
}

type ReadFailure = Arc<Mutex<Option<Error>>>;

/// The other parts, counted when they leave. What is wrong with them goes into `broken`, and breaks the
/// request off.
fn rest(parts: Parts, moved: Meter, broken: ReadFailure) -> impl Stream<Item = io::Result<Bytes>> {
    stream::unfold((parts, moved, broken), async |(mut parts, moved, broken)| {
        let part = match parts.next().await {
            Ok(part) => Ok(part?),
            Err(error) => {
                *lock(&broken) = Some(error);
                Err(io::Error::other("the content cannot be sent"))
            }
        };
        moved.add(1);
        Some((part, (parts, moved, broken)))
    })
}
