//! A step's log, followed while it grows.

use super::READ_PERMISSION;
use crate::{CallFailure, Client};
use futures_util::StreamExt as _;
use reqwest::header::{ACCEPT, LOCATION, RANGE};
use reqwest::{Method, RequestBuilder, Response, StatusCode};
use std::ops::ControlFlow;
use trainspot_base::error::Result;
use trainspot_http::Answer;
use url::Url;

/// The most bytes of a log that one call brings: some thousand lines.
const CHUNK_LIMIT_BYTES: usize = 1 << 20;

/// A piece of a step's log, from a given byte on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LogChunk {
    /// The bytes from that place on, 1 MiB at most; none if there are no more yet, or there is no log yet.
    pub bytes: Vec<u8>,
    /// Whether the log may have more bytes already.
    pub more: bool,
}

impl Client {
    /// A step's log from byte `offset` on. `pipeline` and `step` are ids in braces.
    pub async fn log_from(&self, pipeline: &str, step: &str, offset: u64) -> Result<LogChunk> {
        let what = format!("read the log of the step {step}");
        self.call(&what, READ_PERMISSION, async || self.tail(pipeline, step, offset).await).await
    }

    async fn tail(&self, pipeline: &str, step: &str, offset: u64) -> Result<LogChunk, CallFailure> {
        let url = self.url(&["pipelines", pipeline, "steps", step, "log"]);
        let mut response = ask(self.authorised(self.request(Method::GET, url)), offset).await?;
        if let Some(place) = self.moved_to(&response)? {
            // The address itself is the permission. The token is Bitbucket's alone.
            response = ask(self.request(Method::GET, place), offset).await?;
        }
        match response.status() {
            StatusCode::PARTIAL_CONTENT => cut(response, 0).await,
            // Ranges were not understood: all of it, from the start.
            StatusCode::OK => cut(response, offset).await,
            StatusCode::RANGE_NOT_SATISFIABLE | StatusCode::NOT_FOUND => Ok(LogChunk::default()),
            _ => Err(CallFailure::of_answer(&Answer::read(response, CHUNK_LIMIT_BYTES).await?)),
        }
    }

    /// Where a log is kept once its step is over.
    fn moved_to(&self, response: &Response) -> Result<Option<Url>, CallFailure> {
        if !response.status().is_redirection() {
            return Ok(None);
        }
        let place = response.headers().get(LOCATION).and_then(|place| place.to_str().ok());
        let place = place.and_then(|place| response.url().join(place).ok());
        let safe = |place: &Url| place.scheme() == "https" || place.scheme() == self.base.scheme();
        place.filter(safe).map(Some).ok_or_else(|| CallFailure::last("Bitbucket moved the log to no address"))
    }
}

async fn ask(request: RequestBuilder, offset: u64) -> Result<Response, CallFailure> {
    let end = offset.saturating_add(CHUNK_LIMIT_BYTES as u64 - 1);
    // JSON, reqwest's usual wish, is refused (406).
    let request = request.header(ACCEPT, "application/octet-stream, */*");
    Ok(request.header(RANGE, format!("bytes={offset}-{end}")).send().await?)
}

/// As much of a body as is wanted, after its first `skip` bytes.
async fn cut(response: Response, skip: u64) -> Result<LogChunk, CallFailure> {
    let mut tail = LogChunk::default();
    let (mut skip, mut chunks) = (skip, response.bytes_stream());
    while let Some(chunk) = chunks.next().await {
        if let ControlFlow::Break(()) = tail.take(&chunk?, &mut skip) {
            break;
        }
    }
    tail.more = tail.bytes.len() == CHUNK_LIMIT_BYTES;
    Ok(tail)
}

impl LogChunk {
    fn take(&mut self, chunk: &[u8], skip: &mut u64) -> ControlFlow<()> {
        let skipped = usize::try_from(*skip).unwrap_or(usize::MAX).min(chunk.len());
        *skip -= skipped as u64;
        let wanted = (chunk.len() - skipped).min(CHUNK_LIMIT_BYTES - self.bytes.len());
        self.bytes.extend_from_slice(&chunk[skipped..skipped + wanted]);
        if self.bytes.len() == CHUNK_LIMIT_BYTES { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_read_before_is_skipped_and_no_more_taken_than_fits() {
        let (mut tail, mut skip) = (LogChunk::default(), 5);
        assert!(tail.take(b"abc", &mut skip).is_continue());
        assert!(tail.take(b"defgh", &mut skip).is_continue());
        assert_eq!((&*tail.bytes, skip), (&b"fgh"[..], 0));
        assert!(tail.take(&vec![0; CHUNK_LIMIT_BYTES], &mut skip).is_break());
        assert_eq!(tail.bytes.len(), CHUNK_LIMIT_BYTES);
    }
}
