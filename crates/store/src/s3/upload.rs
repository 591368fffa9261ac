//! A file on its way into a bucket: by one request, or by parts.

use super::answers::BegunUpload;
use super::failure::{BucketFailure, parsed};
use super::request::{BucketRequest, S3Client};
use bytes::Bytes;
use futures_util::stream::{self, StreamExt as _, TryStreamExt as _};
use http::Method;
use http::header::ETAG;
use std::fmt::Write as _;
use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::sync::Arc;
use tokio::task::spawn_blocking;
use trainspot_base::error::{Context as _, Error, Result};

/// A file of up to this size goes by one request, and a larger one by parts of at least this size.
const PART_BYTES: u64 = 8 << 20;
/// The most parts of one object that S3 takes.
const PART_LIMIT: u64 = 10_000;
/// How many parts are in memory at a time, and on their way.
const CONCURRENT_PARTS: usize = 4;
/// How many uploads are begun for one file when the store forgets them.
const UPLOAD_LIMIT: u32 = 3;

/// Sends a file, and believes that the object is there when the store says that it has all its bytes.
pub(super) async fn send(client: &S3Client, path: &str, file: &Path, what: &str) -> Result<()> {
    let file = File::open(file).context(what)?;
    let length = file.metadata().context(what)?.len();
    let file = Arc::new(file);
    if length <= PART_BYTES {
        let bytes = read(&file, 0, length, what).await?;
        let sent = client.send(&BucketRequest::new(Method::PUT, path).body(bytes)).await;
        return sent.map(drop).map_err(|failure| failure.explain(what));
    }
    for left in (0..UPLOAD_LIMIT).rev() {
        match by_parts(client, path, &file, length, what).await? {
            Err(failure) if failure.is_absent() && left > 0 => {}
            sent => return sent.map_err(|failure| failure.explain(what)),
        }
    }
    Err(Error::new(what).source(format!("the store forgot the upload {UPLOAD_LIMIT} times")))
}

/// One upload, ended or undone. The outer error is about the file, and final.
async fn by_parts(
    client: &S3Client,
    path: &str,
    file: &Arc<File>,
    length: u64,
    what: &str,
) -> Result<Result<(), BucketFailure>> {
    let begun = client.send(&BucketRequest::new(Method::POST, path).query("uploads", "")).await;
    let begun = begun.and_then(|answer| parsed::<BegunUpload>(&answer));
    let id = match begun {
        Ok(begun) => begun.id,
        Err(failure) => return Ok(Err(failure)),
    };
    let sent = parts_then_end(client, path, &id, file, length, what).await;
    if !matches!(sent, Ok(Ok(()))) {
        // What stays costs room until somebody ends it, but is nothing that a reader could see.
        client.send(&BucketRequest::new(Method::DELETE, path).query("uploadId", &id)).await.ok();
    }
    sent
}

async fn parts_then_end(
    client: &S3Client,
    path: &str,
    id: &str,
    file: &Arc<File>,
    length: u64,
    what: &str,
) -> Result<Result<(), BucketFailure>> {
    let part_bytes = length.div_ceil(PART_LIMIT).max(PART_BYTES);
    let part = |number: u64| async move {
        let offset = (number - 1) * part_bytes;
        let bytes =
            read(file, offset, part_bytes.min(length - offset), what).await.map_err(PartFailure::File)?;
        let request = BucketRequest::new(Method::PUT, path).query("partNumber", &number.to_string());
        let answer =
            client.send(&request.query("uploadId", id).body(bytes)).await.map_err(PartFailure::Store)?;
        let tag = answer.headers.get(ETAG).and_then(|tag| tag.to_str().ok()).map(str::to_owned);
        tag.ok_or_else(|| {
            PartFailure::Store(BucketFailure::unclear("the store tells no ETag of a part".to_owned()))
        })
    };
    let numbers = 1..=length.div_ceil(part_bytes);
    let tags: Result<Vec<String>, _> =
        stream::iter(numbers).map(part).buffered(CONCURRENT_PARTS).try_collect().await;
    let tags = match tags {
        Ok(tags) => tags,
        Err(PartFailure::File(error)) => return Err(error),
        Err(PartFailure::Store(failure)) => return Ok(Err(failure)),
    };
    let request = BucketRequest::new(Method::POST, path).query("uploadId", id).body(list_of(&tags).into());
    match client.send(&request).await {
        Ok(_) => Ok(Ok(())),
        // The upload has ended, and the answer was lost.
        Err(failure) if failure.is_absent() && failure.follows_lost_answer => {
            Ok(if has_length(client, path, length).await? { Ok(()) } else { Err(failure) })
        }
        Err(failure) => Ok(Err(failure)),
    }
}

enum PartFailure {
    /// The file cannot be read.
    File(Error),
    Store(BucketFailure),
}

/// Whether an object of this length is there.
async fn has_length(client: &S3Client, path: &str, length: u64) -> Result<bool> {
    match client.send(&BucketRequest::new(Method::HEAD, path)).await {
        Ok(answer) => Ok(answer.length() == Some(length)),
        Err(failure) if failure.is_absent() => Ok(false),
        Err(failure) => Err(failure.explain(&format!("cannot look for {path}"))),
    }
}

/// The body that makes an object of its parts.
fn list_of(tags: &[String]) -> String {
    let mut xml = "<CompleteMultipartUpload>".to_owned();
    for (index, tag) in tags.iter().enumerate() {
        let tag = quick_xml::escape::escape(tag.as_str());
        // Writing to a string does not fail.
        _ = write!(xml, "<Part><PartNumber>{}</PartNumber><ETag>{tag}</ETag></Part>", index + 1);
    }
    xml.push_str("</CompleteMultipartUpload>");
    xml
}

async fn read(file: &Arc<File>, offset: u64, length: u64, what: &str) -> Result<Bytes> {
    let (file, length) = (Arc::clone(file), usize::try_from(length).context("a part is too large")?);
    let read = spawn_blocking(move || {
        let mut bytes = vec![0; length];
        file.read_exact_at(&mut bytes, offset).map(|()| Bytes::from(bytes))
    });
    read.await.context(what)?.with_context(|| format!("{what}: the file cannot be read"))
}
