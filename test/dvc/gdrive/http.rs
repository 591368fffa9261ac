//! HTTP as far as the fake needs it, and what goes wrong on the way.

use serde_json::{Value, json};
use std::collections::BTreeMap;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// What is kept of a body for later.
const KEPT: usize = 4096;

/// A request.
#[derive(Clone)]
pub(crate) struct Request {
    pub(crate) method: String,
    pub(crate) path: String,
    pub(crate) query: BTreeMap<String, String>,
    pub(crate) headers: BTreeMap<String, String>,
    /// Shorter than announced where the connection was cut.
    pub(crate) body: Vec<u8>,
    /// How much of the body arrived, which is not kept if it is long.
    pub(crate) length: usize,
}

impl Request {
    pub(crate) fn noted(&self) -> Self {
        let length = self.body.len();
        let body = if length > KEPT { Vec::new() } else { self.body.clone() };
        Self {
            method: self.method.clone(),
            path: self.path.clone(),
            query: self.query.clone(),
            headers: self.headers.clone(),
            body,
            length,
        }
    }

    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", String::as_str)
    }

    pub(crate) fn asked(&self, name: &str) -> &str {
        self.query.get(name).map_or("", String::as_str)
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or(Value::Null)
    }
}

/// An answer.
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(&'static str, String)>,
    pub(crate) body: Vec<u8>,
}

impl Answer {
    pub(crate) fn json(status: u16, value: &Value) -> Self {
        Self { status, headers: Vec::new(), body: value.to_string().into_bytes() }
    }

    pub(crate) fn empty(status: u16) -> Self {
        Self { status, headers: Vec::new(), body: Vec::new() }
    }

    /// An error in the form of the API.
    pub(crate) fn error(status: u16, reason: &str, message: &str) -> Self {
        let item = json!({ "domain": "global", "reason": reason, "message": message });
        Self::json(status, &json!({ "error": { "errors": [item], "code": status, "message": message } }))
    }

    pub(crate) fn with(mut self, name: &'static str, value: String) -> Self {
        self.headers.push((name, value));
        self
    }
}

/// What happens to a request.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Fault {
    /// The connection ends before any answer, and nothing is done.
    Refused,
    /// The connection ends in the middle of the request.
    CutRequest,
    /// It is done, and the answer is lost.
    LostAnswer,
    /// It is done, and half of the answer arrives.
    CutAnswer,
    /// An answer without doing it.
    Status(u16),
    /// 403, for coming too fast, as the API says it.
    RateLimit(&'static str),
    /// The token is revoked before the request.
    Revoked,
    /// A bit of the content is another one when it is stored.
    Corrupt,
    /// All upload sessions are forgotten before the request.
    LostSession,
    /// A listing of several folders has nothing in it.
    EmptyListing,
}

/// Reads a request up to where its body begins, and as much of that as came along. None if the other side is
/// gone.
pub(crate) async fn head(stream: &mut TcpStream) -> Option<Request> {
    let mut read = Vec::new();
    let end = loop {
        if let Some(end) = read.windows(4).position(|four| four == b"\r\n\r\n") {
            break end + 4;
        }
        if stream.read_buf(&mut read).await.ok()? == 0 {
            return None;
        }
    };
    let body = read.split_off(end);
    let head = String::from_utf8(read).unwrap();
    let mut lines = head.lines();
    let mut words = lines.next()?.split(' ');
    let (method, target) = (words.next()?.to_owned(), words.next()?.to_owned());
    let headers = lines
        .filter_map(|line| line.split_once(':'))
        .map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned()))
        .collect();
    let (path, query) = target.split_once('?').unwrap_or((&target, ""));
    let query = url::form_urlencoded::parse(query.as_bytes()).into_owned().collect();
    Some(Request { method, path: path.to_owned(), query, headers, body, length: 0 })
}

/// Reads the rest of a request; half of its body if it is cut.
pub(crate) async fn body(stream: &mut TcpStream, mut request: Request, cut: bool) -> Option<Request> {
    let length: usize = request.headers.get("content-length").map_or(0, |length| length.parse().unwrap());
    let most = if cut { length / 2 } else { length };
    while request.body.len() < most {
        if stream.read_buf(&mut request.body).await.ok()? == 0 {
            return None;
        }
    }
    request.body.truncate(most);
    Some(request)
}

/// Writes an answer, or half of it.
pub(crate) async fn write(stream: &mut TcpStream, answer: &Answer, cut: bool) {
    let mut head = format!("HTTP/1.1 {} X\r\ncontent-length: {}\r\n", answer.status, answer.body.len());
    head += "content-type: application/json; charset=UTF-8\r\nconnection: close\r\n";
    for (name, value) in &answer.headers {
        head.extend([name, ": ", value, "\r\n"]);
    }
    let mut bytes = [head.as_bytes(), b"\r\n", &answer.body].concat();
    if cut {
        bytes.truncate(bytes.len() - (answer.body.len() / 2).max(bytes.len() / 4));
    }
    stream.write_all(&bytes).await.ok();
    stream.shutdown().await.ok();
}
