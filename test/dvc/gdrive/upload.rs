//! Uploads, as Drive's guide ("Upload file data") describes them.

use super::auth::Token;
use super::fake::State;
use super::http::{Answer, Request};
use super::v2;
use serde_json::Value;

const UNIT: usize = 256 << 10;
/// What Google asks to send at most in one request.
const SMALL: usize = 5_000_000;

/// A resumable upload.
pub(crate) struct Session {
    metadata: Value,
    /// The request that began it.
    begun: Request,
    length: usize,
    received: Vec<u8>,
    /// The file's id, once it is there.
    done: Option<String>,
}

impl State {
    pub(super) fn upload(&mut self, request: &Request, caller: &Token) -> Answer {
        match request.asked("uploadType") {
            "multipart" => self.multipart(request, caller),
            "resumable" => self.begin(request, caller),
            _ => Answer::error(400, "badRequest", "Unknown uploadType"),
        }
    }

    fn multipart(&mut self, request: &Request, caller: &Token) -> Answer {
        let bad = |why: &str| Answer::error(400, "badContent", why);
        let Some(boundary) = request.header("content-type").strip_prefix("multipart/related; boundary=")
        else {
            return bad("no multipart/related");
        };
        let Some([metadata, content]) = parts(&request.body, boundary) else { return bad("not two parts") };
        if !metadata.0.contains("application/json") {
            return bad("the first part is no JSON");
        }
        if content.1.len() > SMALL {
            self.violations.push(format!("{} bytes in one request", content.1.len()));
        }
        match serde_json::from_slice(metadata.1) {
            Ok(json) => self.create(&json, request, caller, Some(content.1)),
            Err(_) => bad("the first part is no JSON"),
        }
    }

    pub(super) fn begin(&mut self, request: &Request, caller: &Token) -> Answer {
        let metadata = v2::metadata(request);
        let Ok(length) = request.header("x-upload-content-length").parse() else {
            return Answer::error(400, "badRequest", "no X-Upload-Content-Length");
        };
        let parent = metadata["parents"][0].as_str().unwrap_or_default();
        if !self.nodes.contains_key(parent) {
            return super::files::not_found(parent);
        }
        if let Some(refusal) = self.refusal(parent, caller, length) {
            return refusal;
        }
        let id = format!("{:032x}", fastrand::u128(..));
        let address = format!("{}/session/{id}", self.base());
        let begun = Request { body: Vec::new(), ..request.clone() };
        self.sessions.insert(id, Session { metadata, begun, length, received: Vec::new(), done: None });
        Answer::empty(200).with("location", address)
    }

    pub(super) fn continue_upload(&mut self, id: &str, request: &Request, caller: &Token) -> Answer {
        let Some(session) = self.sessions.get_mut(id) else {
            return Answer::error(404, "notFound", "Upload session not found");
        };
        if request.method == "DELETE" {
            self.sessions.remove(id);
            return Answer::empty(499);
        }
        // Without a range it is all of the content, as Google's client sends nothing at all.
        let whole = match session.length {
            0 => "bytes */0".to_owned(),
            length => format!("bytes 0-{}/{length}", length - 1),
        };
        let range = request.headers.get("content-range").unwrap_or(&whole);
        let Some((range, length)) = range.strip_prefix("bytes ").and_then(|range| range.split_once('/'))
        else {
            return Answer::error(400, "badRequest", "no Content-Range");
        };
        let mut wrong = None;
        if let Some(id) = session.done.clone() {
            let begun = session.begun.clone();
            return Answer::json(200, &self.told_to(&id, &begun));
        }
        if length.parse() != Ok(session.length) {
            wrong = Some("another length");
        } else if let Some((from, to)) = range.split_once('-') {
            let (from, to): (usize, usize) = (from.parse().unwrap(), to.parse().unwrap());
            let last = to + 1 == session.length;
            if from != session.received.len() {
                wrong = Some("it does not go on where the last piece ended");
            } else if to + 1 - from != request.body.len() {
                wrong = Some("the range is not as long as the body");
            } else if !last && !request.body.len().is_multiple_of(UNIT) {
                wrong = Some("a piece is no multiple of 256 KiB");
            } else {
                session.received.extend_from_slice(&request.body);
            }
        } else if range != "*" {
            wrong = Some("no range");
        }
        if let Some(why) = wrong {
            self.violations.push(format!("{why}: {}", request.header("content-range")));
            return Answer::error(400, "badRequest", why);
        }
        if session.received.len() < session.length {
            return incomplete(session);
        }
        let (metadata, begun) = (session.metadata.clone(), session.begun.clone());
        let content = std::mem::take(&mut session.received);
        let answer = self.create(&metadata, &begun, caller, Some(&content));
        let made: Value = serde_json::from_slice(&answer.body).unwrap();
        if let Some(session) = self.sessions.get_mut(id) {
            session.done = made["id"].as_str().map(str::to_owned);
        }
        match made["id"].as_str() {
            Some(id) => Answer::json(200, &self.told_to(id, &begun)),
            None => answer,
        }
    }

    /// Keeps what arrived of a piece: whole units.
    pub(super) fn partly(&mut self, request: &Request) {
        let Some(session) = request.path.strip_prefix("/session/").and_then(|id| self.sessions.get_mut(id))
        else {
            return;
        };
        let goes_on = format!("bytes {}-", session.received.len());
        if request.header("content-range").starts_with(&goes_on) && session.done.is_none() {
            let whole = request.body.len() / UNIT * UNIT;
            session.received.extend_from_slice(&request.body[..whole]);
        }
    }
}

fn incomplete(session: &Session) -> Answer {
    let answer = Answer::empty(308);
    match session.received.len() {
        0 => answer,
        length => answer.with("range", format!("bytes=0-{}", length - 1)),
    }
}

/// The two parts of a body, each as head and content. Google's own client ends lines in one character, not
/// two.
fn parts<'a>(body: &'a [u8], boundary: &str) -> Option<[(String, &'a [u8]); 2]> {
    let find =
        |bytes: &[u8], what: &str| bytes.windows(what.len()).position(|window| window == what.as_bytes());
    let boundary = boundary.trim_matches('"');
    let first = body.strip_prefix(format!("--{boundary}").as_bytes())?;
    let end = if first.starts_with(b"\r") { "\r\n" } else { "\n" };
    let (blank, mark) = (format!("{end}{end}"), format!("{end}--{boundary}"));
    let (mut rest, mut found) = (first, Vec::new());
    while !rest.starts_with(b"--") {
        rest = rest.strip_prefix(end.as_bytes())?;
        let start = find(rest, &blank)? + blank.len();
        let length = find(&rest[start..], &mark)?;
        found.push((String::from_utf8_lossy(&rest[..start]).into_owned(), &rest[start..][..length]));
        rest = &rest[start + length + mark.len()..];
    }
    found.try_into().ok()
}
