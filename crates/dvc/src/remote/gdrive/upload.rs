//! How an object gets into Drive: a small one in one request, a larger one in a resumable upload.
//!
//! A resumable upload (Drive's guide, "Upload file data") is a session with an address of its own. Each piece
//! but the last is a multiple of 256 KiB; after each, and after a cut, Drive says how much it has. A session
//! that Drive does not know any more is begun again from the first byte. The file is there only after the
//! last piece.

use super::super::source::{Parts, whole};
use super::api::DriveRetry;
use super::exchange::json;
use super::failure::DriveFailure;
use super::file::{DriveFile, FILE_FIELDS};
use super::{DriveRemote, Object};
use crate::remote::web::client::STALL_TIMEOUT;
use bytes::{Buf as _, Bytes};
use futures_util::stream;
use reqwest::header::{CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, LOCATION, RANGE};
use reqwest::{Body, Method, RequestBuilder, StatusCode};
use serde_json::json;
use std::convert::Infallible;
use std::iter;
use trainspot_base::error::{Error, Result};
use trainspot_http::{Answer, transfer_timeout};

/// The largest object that goes in one request. Google asks for no more than 5 MB, and several at a time have
/// to fit into the memory.
const WHOLE_LIMIT_BYTES: u64 = 2 << 20;
/// The bytes of one piece of a resumable upload: a multiple of 256 KiB, as Drive demands.
const PIECE_BYTES: usize = 8 << 20;
/// The memory of one upload: a piece being sent, one waiting, one being read, and what the allocator keeps of
/// earlier ones.
const UPLOAD_MEMORY_BYTES: u64 = 4 * PIECE_BYTES as u64;
/// The bytes that the connection gets at once. Under TLS it copies them.
const SLICE_BYTES: usize = 256 << 10;
/// How many sessions an upload may use when Drive loses them: each sends the object from the start.
const SESSION_LIMIT: u32 = 4;

const OCTET_STREAM: &str = "application/octet-stream";
const UPLOAD_PATH: &str = "/upload/drive/v3/files";

/// How far an upload's session is after a request.
enum UploadState {
    /// Drive has so many bytes, and waits for more.
    Has(u64),
    /// The file is there.
    Done(DriveFile),
    /// Drive does not know the session any more.
    Lost,
}

impl DriveRemote {
    /// Sends the object as a new file, and proves it by the MD5 that Drive then tells. A wrong one is put
    /// into the trash.
    pub(super) async fn send(&self, what: &str, object: &Object) -> Result<()> {
        let folder = self.folders.make(&self.api, what, &object.oid.folder()).await?;
        let file = if object.size <= WHOLE_LIMIT_BYTES {
            let _held = self.budget.take(2 * object.size).await?;
            self.send_whole(what, object, &folder).await?
        } else {
            let _held = self.budget.take(UPLOAD_MEMORY_BYTES.min(4 * object.size)).await?;
            self.send_pieces(what, object, &folder).await?
        };
        if file.holds(object) {
            return Ok(());
        }
        // Wrong is worse than absent: DVC would believe it.
        self.api.trash(&format!("{what}: cannot remove what arrived wrong"), &file.id).await?;
        Err(Error::new(what)
            .source(format!("what arrived is wrong: {}", file.content()))
            .hint("run again; if it stays, something between here and Drive changes what is sent"))
    }

    async fn send_whole(&self, what: &str, object: &Object, folder: &str) -> Result<DriveFile> {
        let body = Multipart::new(&metadata(object, folder), whole(object).await?);
        let request = || body.apply(self.create("multipart"));
        let mut retry = DriveRetry::new();
        loop {
            let sent = self.api.once(transfer_timeout(STALL_TIMEOUT, object.size), &request).await;
            let failure = match sent.and_then(|answer| json(&answer)) {
                Ok(file) => return Ok(file),
                Err(failure) => failure,
            };
            if !retry.wait_after(&failure).await {
                return Err(self.api.explain(what, failure));
            }
            if failure.uncertain
                && let Some(file) = self.arrived(what, object).await?
            {
                return Ok(file);
            }
        }
    }

    async fn send_pieces(&self, what: &str, object: &Object, folder: &str) -> Result<DriveFile> {
        for _ in 0..SESSION_LIMIT {
            let session = self.session(what, object, folder).await?;
            let sent = self.feed(what, object, &session).await;
            if sent.is_err() {
                self.api.abandon(&session).await;
            }
            if let Some(file) = sent? {
                return Ok(file);
            }
            // The answer to the last piece may have been lost, and then the session.
            if let Some(file) = self.arrived(what, object).await? {
                return Ok(file);
            }
        }
        let error = Error::new(what).source(format!("Drive lost the upload {SESSION_LIMIT} times"));
        Err(error.hint("Drive has a bad moment; run again later"))
    }

    /// The file, if it is there after an answer that was lost.
    async fn arrived(&self, what: &str, object: &Object) -> Result<Option<DriveFile>> {
        Ok(self.named(what, object).await?.into_iter().find(|file| file.holds(object)))
    }

    /// The address of a new session.
    async fn session(&self, what: &str, object: &Object, folder: &str) -> Result<String> {
        let metadata = metadata(object, folder);
        let request = || {
            let request = self.create("resumable").header("x-upload-content-type", OCTET_STREAM);
            let request = request.header("x-upload-content-length", object.size);
            request.header(CONTENT_TYPE, "application/json; charset=UTF-8").body(metadata.clone())
        };
        let mut retry = DriveRetry::new();
        loop {
            let begun = self.api.once(STALL_TIMEOUT, &request).await.and_then(|answer| {
                let address = answer.headers.get(LOCATION).and_then(|address| address.to_str().ok());
                address.map(str::to_owned).ok_or_else(|| DriveFailure::unclear("Drive"))
            });
            match begun {
                Ok(address) => return Ok(address),
                Err(failure) if retry.wait_after(&failure).await => {}
                Err(failure) => return Err(self.api.explain(what, failure)),
            }
        }
    }

    /// Sends all pieces to a session. None if Drive lost it.
    async fn feed(&self, what: &str, object: &Object, session: &str) -> Result<Option<DriveFile>> {
        let (mut parts, mut sent) = (Parts::of(object, PIECE_BYTES), 0);
        while let Some(mut piece) = parts.next().await? {
            while !piece.is_empty() {
                match self.advance(what, object, session, sent, &piece).await? {
                    UploadState::Done(file) => return Ok(Some(file)),
                    UploadState::Lost => return Ok(None),
                    UploadState::Has(has) => {
                        match has.checked_sub(sent).and_then(|more| usize::try_from(more).ok()) {
                            Some(more) if more <= piece.len() => {
                                piece.advance(more);
                                sent = has;
                            }
                            // It has less than it had, or more than it can have.
                            _ => return Ok(None),
                        }
                    }
                }
            }
        }
        // All pieces arrived, and the file is not there.
        Ok(None)
    }

    /// Sends a piece, and if that fails asks how much of it arrived.
    async fn advance(
        &self,
        what: &str,
        object: &Object,
        session: &str,
        sent: u64,
        piece: &Bytes,
    ) -> Result<UploadState> {
        let last = sent + piece.len() as u64 - 1;
        let here = (format!("bytes {sent}-{last}/{}", object.size), piece.clone());
        let question = (format!("bytes */{}", object.size), Bytes::new());
        let (mut retry, mut asking) = (DriveRetry::new(), false);
        loop {
            let (range, body) = if asking { &question } else { &here };
            let request = || with(self.api.put(session).header(CONTENT_RANGE, range), vec![body.clone()]);
            let failure =
                match step(self.api.once(transfer_timeout(STALL_TIMEOUT, body.len() as u64), &request).await)
                {
                    Ok(UploadState::Has(has)) if has == sent && asking => {
                        asking = false;
                        continue;
                    }
                    // It took the piece, and has nothing of it: that must not go on for ever.
                    Ok(UploadState::Has(has)) if has == sent => DriveFailure::unclear("Drive"),
                    Ok(step) => return Ok(step),
                    Err(failure) => failure,
                };
            if !retry.wait_after(&failure).await {
                return Err(self.api.explain(what, failure));
            }
            asking = true;
        }
    }

    fn create(&self, kind: &str) -> RequestBuilder {
        self.api.request(Method::POST, UPLOAD_PATH).query(&[("uploadType", kind), ("fields", FILE_FIELDS)])
    }
}

/// What an answer of a session means.
fn step(answer: Result<Answer, DriveFailure>) -> Result<UploadState, DriveFailure> {
    match answer {
        Ok(answer) if answer.status == StatusCode::PERMANENT_REDIRECT => Ok(UploadState::Has(has(&answer)?)),
        Ok(answer) => json(&answer).map(UploadState::Done),
        Err(failure) if matches!(failure.status, Some(StatusCode::NOT_FOUND | StatusCode::GONE)) => {
            Ok(UploadState::Lost)
        }
        Err(failure) => Err(failure),
    }
}

/// The count of bytes that Drive has: 43 for `bytes=0-42`, and 0 without the header.
fn has(answer: &Answer) -> Result<u64, DriveFailure> {
    let Some(range) = answer.headers.get(RANGE) else { return Ok(0) };
    let last = range.to_str().ok().and_then(|range| range.strip_prefix("bytes=0-")?.parse::<u64>().ok());
    last.map(|last| last + 1).ok_or_else(|| DriveFailure::unclear("Drive"))
}

/// What is said of a new file. Its type, so that Drive does not guess one from the content, or make a
/// document of it.
fn metadata(object: &Object, folder: &str) -> String {
    let key = object.oid.key();
    let name = key.rsplit('/').next().unwrap_or(&key);
    json!({ "name": name, "parents": [folder], "mimeType": OCTET_STREAM }).to_string()
}

/// A body of two parts: what is said of the file, and its content, which is not copied.
struct Multipart {
    boundary: String,
    parts: [Bytes; 3],
}

impl Multipart {
    fn new(metadata: &str, content: Bytes) -> Self {
        let boundary = format!("{:032x}", fastrand::u128(..));
        let head = format!(
            "--{boundary}\r\ncontent-type: application/json; charset=UTF-8\r\n\r\n{metadata}\r\n--{boundary}\r\ncontent-type: {OCTET_STREAM}\r\n\r\n"
        );
        let tail = format!("\r\n--{boundary}--\r\n");
        Self { boundary, parts: [head.into(), content, tail.into()] }
    }

    fn apply(&self, request: RequestBuilder) -> RequestBuilder {
        let kind = format!("multipart/related; boundary={}", self.boundary);
        with(request.header(CONTENT_TYPE, kind), self.parts.to_vec())
    }
}

/// The request with these bytes as its body.
fn with(request: RequestBuilder, parts: Vec<Bytes>) -> RequestBuilder {
    let length: usize = parts.iter().map(Bytes::len).sum();
    let slices = parts.into_iter().flat_map(|mut rest| {
        iter::from_fn(move || (!rest.is_empty()).then(|| rest.split_to(SLICE_BYTES.min(rest.len()))))
    });
    let body = Body::wrap_stream(stream::iter(slices.map(Ok::<_, Infallible>)));
    request.header(CONTENT_LENGTH, length).body(body)
}
