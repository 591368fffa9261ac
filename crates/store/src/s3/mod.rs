//! A bucket of S3, or of a server that speaks like it, such as `MinIO`.

mod answers;
mod failure;
mod request;
mod upload;

pub use request::BucketAccess;

use crate::{
    ListedObject, ObjectKey, ObjectVersion, StoredObject, WriteCondition, WriteOutcome, too_long, too_many,
};
use answers::{Listing, UnfinishedUploads};
use bytes::Bytes;
use failure::{BucketFailure, parsed};
use http::Method;
use http::header::{ETAG, HeaderMap, IF_MATCH, IF_NONE_MATCH, LAST_MODIFIED, RANGE};
use request::{BucketRequest, S3Client};
use std::fs::File;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};
use tokio::io::AsyncWriteExt as _;
use trainspot_base::error::{Context as _, Error, Result};
use trainspot_http::Answer;

/// The bytes of an object that one answer brings.
const FETCH_PIECE_BYTES: usize = 8 << 20;
/// The most objects in one page of a listing, S3's own limit.
const PAGE_OBJECTS: usize = 1000;

/// A bucket, and the prefix of the store's objects.
#[derive(Clone, Debug)]
pub struct BucketStore {
    client: Arc<S3Client>,
    prefix: String,
}

impl BucketStore {
    pub(super) fn open(bucket: &str, prefix: &str, access: &BucketAccess) -> Result<Self> {
        Ok(Self { client: Arc::new(S3Client::new(bucket, access)?), prefix: prefix.to_owned() })
    }

    pub(super) async fn read(&self, key: &ObjectKey, limit_bytes: usize) -> Result<Option<StoredObject>> {
        let what = self.what("read", key);
        let answer = match self.get(key, limit_bytes).await {
            Ok(answer) => answer,
            Err(failure) if failure.is_absent() => return Ok(None),
            Err(failure) if failure.is_too_long() => return Err(too_long(&what, limit_bytes as u64)),
            Err(failure) => return Err(failure.explain(&what)),
        };
        let version = version(&answer).ok_or_else(|| unversioned(&what))?;
        Ok(Some(StoredObject { version, age: age(&answer.headers), bytes: answer.body }))
    }

    async fn get(&self, key: &ObjectKey, limit_bytes: usize) -> Result<Answer, BucketFailure> {
        self.client.send(&BucketRequest::new(Method::GET, &self.path(key)).answer_limit(limit_bytes)).await
    }

    /// Fetches an object piece by piece, all of one version.
    pub(super) async fn fetch(&self, key: &ObjectKey, into: File, limit_bytes: u64) -> Result<Option<u64>> {
        let what = self.what("fetch", key);
        let mut into = tokio::fs::File::from_std(into);
        let (mut offset, mut first) = (0, None::<ObjectVersion>);
        loop {
            let end = offset + FETCH_PIECE_BYTES as u64 - 1;
            let mut request = BucketRequest::new(Method::GET, &self.path(key))
                .header(RANGE, &format!("bytes={offset}-{end}"))
                .answer_limit(FETCH_PIECE_BYTES);
            if let Some(ObjectVersion(tag)) = &first {
                request = request.header(IF_MATCH, tag);
            }
            let answer = match self.client.send(&request).await {
                Ok(answer) => answer,
                Err(failure) if failure.is_absent() && first.is_none() => return Ok(None),
                // An empty object has no first byte.
                Err(failure) if failure.is_beyond_end() => break,
                Err(failure) => return Err(failure.explain(&what)),
            };
            let total = total_bytes(&answer)
                .ok_or_else(|| Error::new(&what).source("the store does not say how long the object is"))?;
            if total > limit_bytes {
                return Err(too_long(&what, limit_bytes));
            }
            into.write_all(&answer.body).await.context(&what)?;
            offset += answer.body.len() as u64;
            if offset >= total || answer.body.is_empty() {
                if offset != total {
                    return Err(Error::new(&what).source(format!("{offset} bytes came, not {total}")));
                }
                break;
            }
            first = Some(version(&answer).ok_or_else(|| unversioned(&what))?);
        }
        into.flush().await.context(&what)?;
        Ok(Some(offset))
    }

    pub(super) async fn write(
        &self,
        key: &ObjectKey,
        bytes: Bytes,
        condition: WriteCondition,
    ) -> Result<WriteOutcome> {
        let what = self.what("write", key);
        let request = BucketRequest::new(Method::PUT, &self.path(key)).body(bytes.clone());
        let request = match &condition {
            WriteCondition::None => request,
            WriteCondition::Absent => request.header(IF_NONE_MATCH, "*"),
            WriteCondition::Unchanged(ObjectVersion(tag)) => request.header(IF_MATCH, tag),
        };
        match self.client.send(&request).await {
            Ok(answer) => version(&answer).map(WriteOutcome::Written).ok_or_else(|| unversioned(&what)),
            Err(failure) if failure.is_condition_failed() => {
                // An attempt whose answer was lost may be what changed the object.
                let ours = if failure.follows_lost_answer { self.ours(key, &bytes).await? } else { None };
                Ok(ours.map_or(WriteOutcome::ConditionFailed, WriteOutcome::Written))
            }
            // S3 answers so where an object that was to be unchanged is not there any more.
            Err(failure) if failure.is_absent() && condition != WriteCondition::None => {
                Ok(WriteOutcome::ConditionFailed)
            }
            Err(failure) => Err(failure.explain(&what)),
        }
    }

    /// The version of an object that has these bytes. Whoever writes on a condition says in the bytes who
    /// writes, so that equal bytes are the same writer's.
    async fn ours(&self, key: &ObjectKey, bytes: &[u8]) -> Result<Option<ObjectVersion>> {
        match self.get(key, bytes.len()).await {
            Ok(answer) if answer.body == bytes => Ok(version(&answer)),
            Ok(_) => Ok(None),
            Err(failure) if failure.is_absent() || failure.is_too_long() => Ok(None),
            Err(failure) => Err(failure.explain(&self.what("read", key))),
        }
    }

    pub(super) async fn send(&self, key: &ObjectKey, file: &Path) -> Result<()> {
        upload::send(&self.client, &self.path(key), file, &self.what("send", key)).await
    }

    pub(super) async fn list(&self, prefix: &ObjectKey, limit: usize) -> Result<Vec<ListedObject>> {
        let what = self.what("list", prefix);
        let (mut found, mut next) = (Vec::new(), None::<String>);
        let start = if self.prefix.is_empty() { String::new() } else { format!("{}/", self.prefix) };
        let path_prefix = self.path(prefix);
        let page_objects = PAGE_OBJECTS.to_string();
        // Each page has an object at least: a server that goes on for ever is left.
        for _ in 0..=limit {
            let mut request = BucketRequest::new(Method::GET, "")
                .query("list-type", "2")
                .query("prefix", &path_prefix)
                .query("max-keys", &page_objects);
            if let Some(next) = &next {
                request = request.query("continuation-token", next);
            }
            let answer = self.client.send(&request).await.map_err(|failure| failure.explain(&what))?;
            let page: Listing = parsed(&answer).map_err(|failure| failure.explain(&what))?;
            for object in page.objects {
                // What others put there has names that are no keys.
                let name = object.key.strip_prefix(&start).map(ObjectKey::new);
                let Some(Ok(key)) = name else { continue };
                if !key.is_below(prefix) {
                    continue;
                }
                if found.len() == limit {
                    return Err(too_many(&what, limit));
                }
                found.push(ListedObject { key, size: object.size });
            }
            next = page.next.filter(|_| page.is_truncated);
            if next.is_none() {
                found.sort_by(|one: &ListedObject, other| one.key.cmp(&other.key));
                return Ok(found);
            }
        }
        Err(too_many(&what, limit))
    }

    pub(super) async fn delete(&self, key: &ObjectKey) -> Result<()> {
        match self.client.send(&BucketRequest::new(Method::DELETE, &self.path(key))).await {
            Err(failure) if !failure.is_absent() => Err(failure.explain(&self.what("remove", key))),
            Ok(_) | Err(_) => Ok(()),
        }
    }

    pub(super) async fn end_unfinished(&self, prefix: &ObjectKey) -> Result<()> {
        let what = self.what("end unfinished uploads below", prefix);
        let request =
            BucketRequest::new(Method::GET, "").query("uploads", "").query("prefix", &self.path(prefix));
        let answer = self.client.send(&request).await.map_err(|failure| failure.explain(&what))?;
        let found: UnfinishedUploads = parsed(&answer).map_err(|failure| failure.explain(&what))?;
        for unfinished in found.uploads {
            let request =
                BucketRequest::new(Method::DELETE, &unfinished.key).query("uploadId", &unfinished.id);
            match self.client.send(&request).await {
                Err(failure) if !failure.is_absent() => return Err(failure.explain(&what)),
                Ok(_) | Err(_) => {}
            }
        }
        Ok(())
    }

    /// An object's path in the bucket.
    fn path(&self, key: &ObjectKey) -> String {
        if self.prefix.is_empty() { key.to_string() } else { format!("{}/{key}", self.prefix) }
    }

    fn what(&self, verb: &str, key: &ObjectKey) -> String {
        format!("cannot {verb} s3://{}/{}", self.client.bucket, self.path(key))
    }
}

fn version(answer: &Answer) -> Option<ObjectVersion> {
    answer.headers.get(ETAG)?.to_str().ok().map(|tag| ObjectVersion(tag.to_owned()))
}

fn unversioned(what: &str) -> Error {
    Error::new(what)
        .source("the store tells no ETag of the object")
        .hint("use a store that speaks S3 in full")
}

/// How long ago the object was written: the difference of two times that the server tells.
fn age(headers: &HeaderMap) -> Duration {
    let time =
        |name| -> Option<SystemTime> { httpdate::parse_http_date(headers.get(name)?.to_str().ok()?).ok() };
    let age = time(http::header::DATE).zip(time(LAST_MODIFIED));
    age.and_then(|(now, written)| now.duration_since(written).ok()).unwrap_or_default()
}

/// The length of the whole object, of which an answer has a part, or all.
fn total_bytes(answer: &Answer) -> Option<u64> {
    match answer.headers.get(http::header::CONTENT_RANGE) {
        Some(range) => range.to_str().ok()?.rsplit('/').next()?.parse().ok(),
        None => answer.length(),
    }
}
