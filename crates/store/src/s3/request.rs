//! A signed request to a bucket: with the MD5 of its body, within a deadline, and again where that may help.

use super::failure::BucketFailure;
use crate::signature::{AwsSigner, BucketCredentials};
use base64::{Engine as _, prelude::BASE64_STANDARD};
use bytes::Bytes;
use http::header::{CONTENT_LENGTH, HeaderName, HeaderValue};
use http::{HeaderMap, Method, Request};
use md5::{Digest as _, Md5};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use std::time::Duration;
use tokio::time::timeout;
use trainspot_base::error::{Context as _, Error, Kind, Result};
use trainspot_base::retry::Tries;
use trainspot_http::{Answer, NoAnswer, REQUEST_RETRY, Redirects, transfer_timeout};
use url::Url;

/// How long a store may be silent.
const ANSWER_TIMEOUT: Duration = Duration::from_mins(1);
/// The longest answer unless a request says otherwise: a page of a listing.
const PAGE_LIMIT_BYTES: usize = 4 << 20;
/// The letters that S3's signature leaves as they are.
const UNRESERVED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// How a bucket is reached.
#[derive(Clone, Debug, Default)]
pub struct BucketAccess {
    /// The bucket's region, such as `eu-west-1`.
    pub region: String,
    /// The server's URL where it is not AWS; the bucket is then in the path.
    pub endpoint: Option<String>,
    /// Who we are.
    pub credentials: BucketCredentials,
}

/// One request.
#[derive(Clone)]
pub(super) struct BucketRequest {
    method: Method,
    path: String,
    query: Vec<(&'static str, String)>,
    headers: HeaderMap,
    body: Bytes,
    answer_limit_bytes: usize,
}

impl BucketRequest {
    /// A request about an object, by its path in the bucket, or about the bucket by an empty one.
    pub(super) fn new(method: Method, path: &str) -> Self {
        Self {
            method,
            path: path.to_owned(),
            query: Vec::new(),
            headers: HeaderMap::new(),
            body: Bytes::new(),
            answer_limit_bytes: PAGE_LIMIT_BYTES,
        }
    }

    pub(super) fn query(mut self, name: &'static str, value: &str) -> Self {
        self.query.push((name, value.to_owned()));
        self
    }

    /// A header; a value that no header can have is left out.
    pub(super) fn header(mut self, name: HeaderName, value: &str) -> Self {
        if let Ok(value) = HeaderValue::from_str(value) {
            self.headers.insert(name, value);
        }
        self
    }

    pub(super) fn body(mut self, body: Bytes) -> Self {
        self.body = body;
        self
    }

    pub(super) fn answer_limit(mut self, limit_bytes: usize) -> Self {
        self.answer_limit_bytes = limit_bytes;
        self
    }
}

/// A bucket's server.
#[derive(Debug)]
pub(super) struct S3Client {
    http: reqwest::Client,
    /// The bucket's root, which ends with a slash.
    root: Url,
    pub(super) bucket: String,
    signer: AwsSigner,
}

impl S3Client {
    pub(super) fn new(bucket: &str, access: &BucketAccess) -> Result<Self> {
        let wrong = |why: &str| Error::new(format!("the store's {why}")).kind(Kind::Configuration);
        let is_region = |letter: u8| letter.is_ascii_alphanumeric() || letter == b'-';
        if access.region.is_empty() || !access.region.bytes().all(is_region) {
            return Err(wrong("region is none"));
        }
        let root = match &access.endpoint {
            Some(endpoint) => format!("{}/{bucket}/", endpoint.trim_end_matches('/')),
            // A dot in the bucket's name has no certificate in the host's.
            None if bucket.contains('.') => format!("https://s3.{}.amazonaws.com/{bucket}/", access.region),
            None => format!("https://{bucket}.s3.{}.amazonaws.com/", access.region),
        };
        let root = Url::parse(&root).map_err(|error| wrong("endpoint is no URL").source(error))?;
        let http = trainspot_http::client(Redirects::WithinOrigin).build().context("cannot set up HTTP")?;
        let signer = AwsSigner::new("s3", &access.region, &access.credentials)?;
        Ok(Self { http, root, bucket: bucket.to_owned(), signer })
    }

    /// Sends a request until there is an answer that trying again would not change.
    pub(super) async fn send(&self, request: &BucketRequest) -> Result<Answer, BucketFailure> {
        let (mut tries, mut lost_answer) = (Tries::new(REQUEST_RETRY), false);
        loop {
            let mut failure = match self.once(request).await {
                Ok(answer) => return Ok(answer),
                Err(failure) => failure,
            };
            failure.follows_lost_answer = lost_answer;
            if !(failure.is_transient && tries.wait_for_next(failure.wait).await) {
                return Err(failure);
            }
            lost_answer |= failure.is_uncertain;
        }
    }

    async fn once(&self, request: &BucketRequest) -> Result<Answer, BucketFailure> {
        let signed = self.signed(request).await?;
        let (parts, ()) = signed.into_parts();
        let sent = self.http.request(parts.method, parts.uri.to_string()).headers(parts.headers);
        let sent = Answer::to(sent.body(request.body.clone()), request.answer_limit_bytes);
        let moved_bytes = request.body.len().max(request.answer_limit_bytes) as u64;
        let deadline = transfer_timeout(ANSWER_TIMEOUT, moved_bytes);
        let answer = timeout(deadline, sent).await.unwrap_or_else(|_| Err(NoAnswer::silent(deadline)))?;
        let failed_late =
            request.method == Method::POST && answer.body.windows(7).any(|text| text == b"<Error>");
        if answer.is_success() && !failed_late { Ok(answer) } else { Err(BucketFailure::refused(&answer)) }
    }

    async fn signed(&self, request: &BucketRequest) -> Result<Request<()>, BucketFailure> {
        let mut url = self.root.to_string();
        let segments =
            request.path.split('/').map(|segment| utf8_percent_encode(segment, UNRESERVED).to_string());
        url.push_str(&segments.collect::<Vec<_>>().join("/"));
        let query = request
            .query
            .iter()
            .map(|(name, value)| format!("{name}={}", utf8_percent_encode(value, UNRESERVED)));
        let query = query.collect::<Vec<_>>().join("&");
        if !query.is_empty() {
            url = format!("{url}?{query}");
        }
        let made = Request::builder().method(request.method.clone()).uri(url).body(());
        let (mut parts, ()) = made.map_err(|error| BucketFailure::own(error.to_string()))?.into_parts();
        parts.headers = request.headers.clone();
        if matches!(request.method, Method::PUT | Method::POST) {
            parts.headers.insert(CONTENT_LENGTH, request.body.len().into());
            let md5 = BASE64_STANDARD.encode(Md5::digest(&request.body));
            let md5 = HeaderValue::try_from(md5).map_err(|error| BucketFailure::own(error.to_string()))?;
            parts.headers.insert(HeaderName::from_static("content-md5"), md5);
        }
        let signed = self.signer.sign(&mut parts, None).await;
        signed.map_err(|error| BucketFailure::no_credential(&error.to_string()))?;
        Ok(Request::from_parts(parts, ()))
    }
}
