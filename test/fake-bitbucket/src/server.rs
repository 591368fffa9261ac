//! Connections: recording, faults, and which half of the fake answers.

use crate::Shared;
use crate::body::{self, Body, Error, Stream};
use crate::fault::{End, Fault};
use crate::git;
use crate::lock;
use crate::rest;
use crate::runner_door;
use crate::state::Recorded;
use bytes::{Bytes, BytesMut};
use futures_util::TryStreamExt as _;
use hyper::body::Incoming;
use hyper::header::{AUTHORIZATION, CONTENT_ENCODING, USER_AGENT};
use hyper::http::request::Parts;
use hyper::service::service_fn;
use hyper::{HeaderMap, Request, Response};
use hyper_util::rt::TokioIo;
use std::sync::Arc;
use tokio::net::TcpListener;

/// How a request came in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Door {
    Direct,
    Proxy,
}

/// Takes connections until the runtime ends.
pub(crate) async fn accept(listener: TcpListener, shared: Arc<Shared>, door: Door) {
    loop {
        let Ok((connection, _)) = listener.accept().await else { continue };
        let shared = shared.clone();
        let service = service_fn(move |request| answer(shared.clone(), door, request));
        tokio::spawn(
            hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(connection), service),
        );
    }
}

/// Answers one request; an error closes the connection without an answer.
async fn answer(
    shared: Arc<Shared>,
    door: Door,
    request: Request<Incoming>,
) -> Result<Response<Body>, Error> {
    let (head, incoming) = request.into_parts();
    let fault = shared.take_fault(&head);
    let target = Target::of(&shared, door, &head);
    tokio::time::sleep(fault.delay).await;
    let incoming = body::disturbed(body::stream(incoming), fault.cut_request, fault.pause);
    let response = match target {
        Target::Rest(base) => {
            let body = collect(incoming).await?;
            shared.record(door, &head, Some(&body));
            shared.check_request(&head, &body);
            if let Some(early) = early(&fault) {
                return early;
            }
            rest::answer(&shared, door, &head, &base, &body)
        }
        Target::Runner => {
            let body = collect(incoming).await?;
            if let Some(early) = early(&fault) {
                return early;
            }
            runner_door::answer(&shared, &head, &body)
        }
        Target::Git => {
            shared.record(door, &head, None);
            if let Some(early) = early(&fault) {
                return early;
            }
            git::answer(&shared, door, &head, incoming).await?
        }
        Target::Refused(status, text) => Response::builder().status(status).body(body::full(text))?,
    };
    finish(response, &fault).await
}

/// What a fault does before the request is acted upon.
fn early(fault: &Fault) -> Option<Result<Response<Body>, Error>> {
    if fault.end == End::DroppedBefore {
        return Some(Err("dropped before acting, as the test asked".into()));
    }
    fault.answer.as_ref().map(|answer| Ok(answer.response()))
}

/// What a fault does to the answer.
async fn finish(response: Response<Body>, fault: &Fault) -> Result<Response<Body>, Error> {
    if fault.end == End::DroppedAfter {
        collect(body::stream(response.into_body())).await?;
        return Err("dropped after acting, as the test asked".into());
    }
    if fault.cut_answer.is_none() && fault.pause.is_zero() {
        return Ok(response);
    }
    Ok(response
        .map(|body| body::streamed(body::disturbed(body::stream(body), fault.cut_answer, fault.pause))))
}

async fn collect(stream: Stream) -> Result<Bytes, Error> {
    let whole = stream.try_fold(BytesMut::new(), async |mut whole, chunk| {
        whole.extend_from_slice(&chunk);
        Ok(whole)
    });
    Ok(whole.await?.freeze())
}

enum Target {
    /// The API, under the base URL that its links must carry.
    Rest(String),
    Git,
    /// What is neither public nor ours to call: a runner's own traffic, and where logs are stored.
    Runner,
    Refused(u16, &'static str),
}

impl Target {
    fn of(shared: &Shared, door: Door, head: &Parts) -> Self {
        let path = head.uri.path();
        let api = path.starts_with("/2.0/");
        match (door, head.uri.host()) {
            (Door::Direct, _) if api => Self::Rest(format!("http://{}/2.0", shared.address)),
            (Door::Direct, _) if ["/runner/", "/storage/"].iter().any(|start| path.starts_with(start)) => {
                Self::Runner
            }
            (Door::Direct, _) | (Door::Proxy, Some("bitbucket.org")) => Self::Git,
            (Door::Proxy, Some("api.bitbucket.org")) if api => {
                Self::Rest("http://api.bitbucket.org/2.0".into())
            }
            (Door::Proxy, Some(_)) => Self::Refused(403, "this proxy serves Bitbucket only"),
            (Door::Proxy, None) => Self::Refused(400, "a proxy needs the absolute URI in the request line"),
        }
    }
}

impl Shared {
    fn take_fault(&self, head: &Parts) -> Fault {
        let target = head.uri.to_string();
        let mut faults = lock(&self.faults);
        match faults.iter_mut().find(|fault| fault.matches(head.method.as_str(), &target)) {
            Some(fault) => {
                fault.times -= 1;
                fault.clone()
            }
            None => Fault::on("", ""),
        }
    }

    fn record(&self, door: Door, head: &Parts, body: Option<&Bytes>) {
        let header = |name| text(&head.headers, name);
        lock(&self.requests).push(Recorded {
            method: head.method.to_string(),
            path: head.uri.path().to_owned(),
            query: rest::query(head.uri.query().unwrap_or_default()),
            absolute: head.uri.scheme().is_some(),
            through_proxy: door == Door::Proxy,
            authorization: header(AUTHORIZATION),
            user_agent: header(USER_AGENT),
            encoding: header(CONTENT_ENCODING),
            body: body.and_then(|body| serde_json::from_slice(body).ok()),
        });
    }

    fn check_request(&self, head: &Parts, body: &Bytes) {
        let Some(contract) = self.contract else { return };
        let query = rest::query(head.uri.query().unwrap_or_default());
        let found = contract.request(head.method.as_str(), head.uri.path(), &query, body);
        lock(&self.violations).extend(found);
    }
}

fn text(headers: &HeaderMap, name: hyper::header::HeaderName) -> Option<String> {
    headers.get(name).map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned())
}
