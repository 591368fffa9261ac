//! A server that speaks S3's part of the store: conditions, ranges, pages and parts, and fails where it is
//! told to. moto, which has no faults, is met in the integration tests.

use md5::{Digest as _, Md5};
use percent_encoding::percent_decode_str;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::{Arc, Mutex};
use std::time::SystemTime;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpListener, TcpStream};
use trainspot_base::mutex::lock;

/// How a request fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// Refused as busy, before anything is done.
    Busy,
    /// Refused as busy, in the words of S3 with another status.
    SlowDown,
    /// The connection breaks before anything is done.
    Cut,
    /// It is done, and the connection breaks instead of an answer.
    LostAnswer,
    /// It is done, and the answer is a failure.
    FalseFailure,
    /// The answer breaks off in the middle.
    HalfAnswer,
}

pub(super) const FAULT_KINDS: [Fault; 6] =
    [Fault::Busy, Fault::SlowDown, Fault::Cut, Fault::LostAnswer, Fault::FalseFailure, Fault::HalfAnswer];

#[derive(Default)]
pub(super) struct State {
    pub(super) objects: BTreeMap<String, (Vec<u8>, SystemTime)>,
    uploads: BTreeMap<String, (String, BTreeMap<u32, Vec<u8>>)>,
    /// The request that fails, counted from 0, and how.
    pub(super) fault: Option<(usize, Fault)>,
    pub(super) requests: usize,
    /// The code with which every request is refused.
    pub(super) refusal: Option<&'static str>,
    /// How far the server's clock is ahead.
    pub(super) clock_ahead: std::time::Duration,
}

impl State {
    pub(super) fn unfinished(&self) -> usize {
        self.uploads.len()
    }
}

#[derive(Clone)]
pub(super) struct FakeS3 {
    pub(super) endpoint: String,
    pub(super) state: Arc<Mutex<State>>,
}

struct Request {
    method: String,
    path: String,
    query: BTreeMap<String, String>,
    headers: BTreeMap<String, String>,
    body: Vec<u8>,
}

struct Reply {
    status: u16,
    headers: Vec<(&'static str, String)>,
    body: Vec<u8>,
}

impl Reply {
    fn ok(body: impl Into<Vec<u8>>) -> Self {
        Self { status: 200, headers: Vec::new(), body: body.into() }
    }

    fn error(status: u16, code: &str) -> Self {
        let body =
            format!("<?xml version=\"1.0\"?><Error><Code>{code}</Code><Message>as told</Message></Error>");
        Self { status, headers: Vec::new(), body: body.into() }
    }

    fn with(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }
}

impl FakeS3 {
    pub(super) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        let fake = Self { endpoint, state: Arc::default() };
        let serving = fake.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let serving = serving.clone();
                tokio::spawn(async move { serving.serve(stream).await });
            }
        });
        fake
    }

    async fn serve(&self, stream: TcpStream) {
        let mut stream = BufReader::new(stream);
        while let Some(request) = read(&mut stream).await {
            let (reply, fault) = self.answer(&request);
            let mut text = format!("HTTP/1.1 {} x\r\n", reply.status);
            let own_length = reply.headers.iter().any(|(name, _)| *name == "content-length");
            for (name, value) in &reply.headers {
                write!(text, "{name}: {value}\r\n").unwrap();
            }
            if !own_length {
                write!(text, "content-length: {}\r\n", reply.body.len()).unwrap();
            }
            text.push_str("\r\n");
            let mut bytes = text.into_bytes();
            if request.method != "HEAD" {
                bytes.extend(reply.body);
            }
            match fault {
                Some(Fault::Cut | Fault::LostAnswer) => return,
                Some(Fault::HalfAnswer) => {
                    _ = stream.write_all(&bytes[..bytes.len() / 2]).await;
                    return;
                }
                _ => {}
            }
            if stream.write_all(&bytes).await.is_err() {
                return;
            }
        }
    }

    fn answer(&self, request: &Request) -> (Reply, Option<Fault>) {
        let mut state = lock(&self.state);
        let number = state.requests;
        state.requests += 1;
        let fault = state.fault.filter(|(at, _)| *at == number).map(|(_, fault)| fault);
        let now = SystemTime::now() + state.clock_ahead;
        let reply = match fault {
            Some(Fault::Busy) => Reply::error(503, "ServiceUnavailable"),
            Some(Fault::SlowDown) => Reply::error(400, "SlowDown"),
            Some(Fault::Cut) => Reply::error(500, "Never"),
            Some(Fault::FalseFailure) => {
                state.act(request, now);
                Reply::error(500, "InternalError")
            }
            _ => state.act(request, now),
        };
        (reply.with("date", httpdate::fmt_http_date(now)), fault)
    }
}

impl State {
    fn act(&mut self, request: &Request, now: SystemTime) -> Reply {
        if let Some(code) = self.refusal {
            return Reply::error(403, code);
        }
        assert!(request.headers["authorization"].starts_with("AWS4-HMAC-SHA256 Credential=id/"));
        let (_, key) = request.path.trim_start_matches('/').split_once('/').unwrap();
        let has = |name: &str| request.query.contains_key(name);
        if request.method == "PUT" || request.method == "POST" {
            let md5 = base64::Engine::encode(&base64::prelude::BASE64_STANDARD, Md5::digest(&request.body));
            if request.headers.get("content-md5") != Some(&md5) {
                return Reply::error(400, "BadDigest");
            }
        }
        match request.method.as_str() {
            "GET" if key.is_empty() && has("uploads") => self.list_uploads(),
            "GET" if key.is_empty() => self.list(request),
            "PUT" if has("uploadId") => self.put_part(request),
            "PUT" => self.put(request, key, now),
            "POST" if has("uploads") => self.begin(key),
            "POST" => self.end(request, key, now),
            "DELETE" if has("uploadId") => match self.uploads.remove(&request.query["uploadId"]) {
                Some(_) => Reply { status: 204, headers: Vec::new(), body: Vec::new() },
                None => Reply::error(404, "NoSuchUpload"),
            },
            "DELETE" => {
                self.objects.remove(key);
                Reply { status: 204, headers: Vec::new(), body: Vec::new() }
            }
            _ => self.get(request, key),
        }
    }

    fn get(&self, request: &Request, key: &str) -> Reply {
        let Some((bytes, written)) = self.objects.get(key) else { return Reply::error(404, "NoSuchKey") };
        if request.headers.get("if-match").is_some_and(|expected| *expected != tag(bytes)) {
            return Reply::error(412, "PreconditionFailed");
        }
        let reply = |body: &[u8]| {
            Reply::ok(body).with("etag", tag(bytes)).with("last-modified", httpdate::fmt_http_date(*written))
        };
        if request.method == "HEAD" {
            return reply(b"").with("content-length", bytes.len().to_string());
        }
        let Some(range) = request.headers.get("range") else { return reply(bytes) };
        let (start, end) = range.trim_start_matches("bytes=").split_once('-').unwrap();
        let (start, end): (usize, usize) = (start.parse().unwrap(), end.parse().unwrap());
        if start >= bytes.len() {
            return Reply::error(416, "InvalidRange");
        }
        let end = end.min(bytes.len() - 1);
        let range = format!("bytes {start}-{end}/{}", bytes.len());
        Reply { status: 206, ..reply(&bytes[start..=end]) }.with("content-range", range)
    }

    fn put(&mut self, request: &Request, key: &str, now: SystemTime) -> Reply {
        let there = self.objects.get(key).map(|(bytes, _)| tag(bytes));
        if request.headers.contains_key("if-none-match") && there.is_some() {
            return Reply::error(412, "PreconditionFailed");
        }
        match (request.headers.get("if-match"), there) {
            (Some(_), None) => return Reply::error(404, "NoSuchKey"),
            (Some(expected), Some(there)) if *expected != there => {
                return Reply::error(412, "PreconditionFailed");
            }
            _ => {}
        }
        self.objects.insert(key.to_owned(), (request.body.clone(), now));
        Reply::ok("").with("etag", tag(&request.body))
    }

    fn begin(&mut self, key: &str) -> Reply {
        let id = format!("upload/{}+=", self.requests);
        self.uploads.insert(id.clone(), (key.to_owned(), BTreeMap::new()));
        Reply::ok(format!(
            "<InitiateMultipartUploadResult><UploadId>{id}</UploadId></InitiateMultipartUploadResult>"
        ))
    }

    fn put_part(&mut self, request: &Request) -> Reply {
        let number = request.query["partNumber"].parse().unwrap();
        let Some((_, parts)) = self.uploads.get_mut(&request.query["uploadId"]) else {
            return Reply::error(404, "NoSuchUpload");
        };
        parts.insert(number, request.body.clone());
        Reply::ok("").with("etag", tag(&request.body))
    }

    fn end(&mut self, request: &Request, key: &str, now: SystemTime) -> Reply {
        let Some((_, parts)) = self.uploads.remove(&request.query["uploadId"]) else {
            return Reply::error(404, "NoSuchUpload");
        };
        let listed = String::from_utf8_lossy(&request.body).matches("<Part>").count();
        assert_eq!(listed, parts.len());
        let content: Vec<u8> = parts.into_values().flatten().collect();
        self.objects.insert(key.to_owned(), (content, now));
        Reply::ok("<CompleteMultipartUploadResult></CompleteMultipartUploadResult>")
    }

    fn list(&self, request: &Request) -> Reply {
        // Pages shorter than asked for, as S3 may answer.
        const PAGE_OBJECTS: usize = 2;
        let (prefix, after) = (&request.query["prefix"], request.query.get("continuation-token"));
        let found = self.objects.iter().filter(|(key, _)| key.starts_with(prefix.as_str()));
        let found: Vec<_> = found.filter(|(key, _)| after.is_none_or(|after| *key > after)).collect();
        let mut xml = format!("<ListBucketResult><IsTruncated>{}</IsTruncated>", found.len() > PAGE_OBJECTS);
        for (key, (bytes, _)) in found.iter().take(PAGE_OBJECTS) {
            write!(xml, "<Contents><Key>{key}</Key><Size>{}</Size></Contents>", bytes.len()).unwrap();
        }
        if found.len() > PAGE_OBJECTS {
            let last = found[PAGE_OBJECTS - 1].0;
            write!(xml, "<NextContinuationToken>{last}</NextContinuationToken>").unwrap();
        }
        Reply::ok(xml + "</ListBucketResult>")
    }

    fn list_uploads(&self) -> Reply {
        let mut xml = "<ListMultipartUploadsResult>".to_owned();
        for (id, (key, _)) in &self.uploads {
            write!(xml, "<Upload><Key>{key}</Key><UploadId>{id}</UploadId></Upload>").unwrap();
        }
        Reply::ok(xml + "</ListMultipartUploadsResult>")
    }
}

fn tag(bytes: &[u8]) -> String {
    let digest = Md5::digest(bytes);
    let mut text = "\"".to_owned();
    digest.iter().for_each(|byte| write!(text, "{byte:02x}").unwrap());
    text + "\""
}

async fn read(stream: &mut BufReader<TcpStream>) -> Option<Request> {
    let mut line = String::new();
    if stream.read_line(&mut line).await.ok()? == 0 {
        return None;
    }
    let mut words = line.split_whitespace();
    let (method, target) = (words.next()?.to_owned(), words.next()?.to_owned());
    let mut headers = BTreeMap::new();
    loop {
        let mut line = String::new();
        stream.read_line(&mut line).await.ok()?;
        let Some((name, value)) = line.trim().split_once(": ") else { break };
        headers.insert(name.to_lowercase(), value.to_owned());
    }
    let length = headers.get("content-length").map_or(0, |length| length.parse().unwrap());
    let mut body = vec![0; length];
    stream.read_exact(&mut body).await.ok()?;
    let (path, query) = target.split_once('?').unwrap_or((&target, ""));
    let decoded = |text: &str| percent_decode_str(text).decode_utf8_lossy().into_owned();
    let query = query.split('&').filter(|pair| !pair.is_empty());
    let query = query.map(|pair| pair.split_once('=').unwrap_or((pair, "")));
    let query = query.map(|(name, value)| (decoded(name), decoded(value))).collect();
    Some(Request { method, path: decoded(path), query, headers, body })
}
