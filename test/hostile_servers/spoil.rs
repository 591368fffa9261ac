//! What a hostile server makes of an answer.

use serde_json::{Value, json};
use std::io::{Read, Write};
use std::net::TcpStream;

/// An endless answer has this much: many times what may be taken of any.
const ENDLESS_BYTES: usize = 96 << 20;
const HUGE: &str = "1e999";
/// Replaced by text that no serializer writes.
const MARK: &str = "--a-mark--";

/// An answer as it came.
pub(crate) struct Answer {
    status: String,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
}

impl Answer {
    /// Of a git server that says it has taken a branch.
    pub(crate) fn claims(branch: &str) -> Self {
        let kind = "application/x-git-receive-pack-result";
        let headers = vec![("content-type".to_owned(), kind.to_owned())];
        Self { status: "HTTP/1.1 200 OK".to_owned(), headers, body: claims_success(branch) }
    }

    /// Reads one to the connection's end; the server's address becomes the proxy's.
    pub(crate) fn read(from: &mut TcpStream, upstream: &str, own: &str) -> std::io::Result<Self> {
        let mut all = Vec::new();
        from.read_to_end(&mut all)?;
        let end = find(&all, b"\r\n\r\n").ok_or(std::io::ErrorKind::UnexpectedEof)?;
        let head = String::from_utf8_lossy(&all[..end]).replace(upstream, own);
        let mut lines = head.split("\r\n");
        let status = lines.next().unwrap_or_default().to_owned();
        let headers = lines.filter_map(|line| line.split_once(':'));
        let headers: Vec<_> =
            headers.map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned())).collect();
        let is_chunked =
            headers.iter().any(|(name, value)| name == "transfer-encoding" && value == "chunked");
        let body = &all[end + 4..];
        let body = if is_chunked { joined(body) } else { body.to_vec() };
        let framing = ["transfer-encoding", "content-length", "connection"];
        let mut answer = Self { status, headers, body };
        answer.headers.retain(|(name, _)| !framing.contains(&name.as_str()));
        if answer.is("json") {
            answer.body = String::from_utf8_lossy(&answer.body).replace(upstream, own).into_bytes();
        }
        Ok(answer)
    }

    fn is(&self, kind: &str) -> bool {
        self.headers.iter().any(|(name, value)| name == "content-type" && value.contains(kind))
    }

    fn head(&self, length: Option<usize>) -> Vec<u8> {
        let length = length.filter(|_| !self.status.contains(" 204"));
        let framing = length.map(|length| ("content-length".to_owned(), length.to_string()));
        let closing = ("connection".to_owned(), "close".to_owned());
        let headers = self.headers.iter().cloned().chain(framing).chain([closing]);
        let lines = headers.map(|(name, value)| format!("{name}: {value}"));
        let lines: Vec<_> = std::iter::once(self.status.clone()).chain(lines).collect();
        (lines.join("\r\n") + "\r\n\r\n").into_bytes()
    }

    /// The whole of it.
    pub(crate) fn bytes(&self) -> Vec<u8> {
        [self.head(Some(self.body.len())), self.body.clone()].concat()
    }
}

/// One way to spoil an answer. Numbers choose the place, whatever the answer's size.
#[derive(Clone, Debug)]
pub(crate) enum Spoil {
    /// A field of JSON has another value, or a place in git's packets.
    Field(usize, usize),
    /// It ends before its end.
    Truncated(usize),
    /// It does not end.
    Endless,
    /// Lists in lists, as deep as the answer is long.
    Deep,
    /// Bytes are others.
    Bytes(u64),
    /// Another status, with headers that ask for something.
    Status(usize),
    /// A branch or a push is told to be what it is not.
    Forged,
    /// The server's words drown the rest.
    Flood,
}

impl Spoil {
    /// One by chance.
    pub(crate) fn by(random: &mut fastrand::Rng) -> Self {
        match random.u8(..16) {
            0..7 => Self::Field(random.usize(..1_000_000), random.usize(..VALUES)),
            7 | 8 => Self::Truncated(random.usize(..1_000_000)),
            9 => Self::Endless,
            10 => Self::Deep,
            11 => Self::Bytes(random.u64(..)),
            12 | 13 => Self::Status(random.usize(..STATUSES.len())),
            14 => Self::Forged,
            _ => Self::Flood,
        }
    }

    /// Whether it says that there were too many requests. A pipe that has trained waits for up to 70 minutes
    /// where all answers do, as it should.
    pub(crate) fn is_rate_limit(&self) -> bool {
        matches!(self, Self::Status(number) if STATUSES[number % STATUSES.len()].0.starts_with("429"))
    }

    /// Writes the spoiled answer, and says what it was. Errors are the client's, which has heard enough.
    pub(crate) fn write(&self, mut answer: Answer, elsewhere: &str, to: &mut impl Write) -> String {
        let (is_git, is_list) = (answer.is("x-git"), answer.is("advertisement"));
        let mut send = |bytes: &[u8]| to.write_all(bytes).is_ok();
        match self {
            Self::Endless if is_git && is_list => {
                send(&answer.head(None));
                send(b"001e# service=git-upload-pack\n0000");
                let line = |n: usize| packet(&format!("{n:040x} refs/heads/endless/{n}\n"));
                (0..ENDLESS_BYTES / 80).all(|n| send(&line(n + 1)));
                return "branches without an end".to_owned();
            }
            Self::Endless => {
                send(&answer.head(None));
                let start: &[u8] = if is_git { b"" } else { b"{\"values\": [" };
                send(start);
                let piece =
                    if is_git { packet(&"\u{2}again\n".repeat(1000)) } else { b"{\"id\":1},".repeat(1000) };
                (0..ENDLESS_BYTES / piece.len()).all(|_| send(&piece));
                return "no end".to_owned();
            }
            Self::Truncated(place) => {
                let kept = place % answer.body.len().max(1);
                send(&answer.head(Some(answer.body.len())));
                send(&answer.body[..kept]);
                return format!("cut after {kept} of {} bytes", answer.body.len());
            }
            Self::Status(number) => {
                let (status, header) = STATUSES[number % STATUSES.len()];
                answer.status = format!("HTTP/1.1 {status}");
                let value = header.1.replace("ELSEWHERE", elsewhere);
                answer.headers.push((header.0.to_owned(), value));
            }
            Self::Deep => answer.body = b"[".repeat(200_000),
            Self::Bytes(start) => {
                let mut random = fastrand::Rng::with_seed(*start);
                for _ in 0..8.min(answer.body.len()) {
                    let place = random.usize(..answer.body.len());
                    answer.body[place] = random.u8(..);
                }
            }
            Self::Field(place, value) if answer.is("json") => {
                answer.body = with_field(&answer.body, *place, *value, elsewhere);
            }
            Self::Field(place, value) if is_git => answer.body = with_packet(&answer.body, *place, *value),
            Self::Forged if is_list => {
                let text = String::from_utf8_lossy(&answer.body).into_owned();
                // The branches are where nobody has put them.
                answer.body = text.replace(" refs/heads/", " refs/heads/not-").into_bytes();
            }
            Self::Forged if is_git => answer.body = claims_success("main"),
            Self::Flood if is_git => {
                let words = packet(&("\u{2}".to_owned() + &"remote words\n".repeat(4000)));
                answer.body = [words.repeat(40), answer.body].concat();
            }
            Self::Field(..) | Self::Forged | Self::Flood => answer.body.clear(),
        }
        send(&answer.bytes());
        format!("{self:?}")
    }
}

fn claims_success(branch: &str) -> Vec<u8> {
    let lines = [packet("unpack ok\n"), packet(&format!("ok refs/heads/{branch}\n")), b"0000".to_vec()];
    let lines = String::from_utf8(lines.concat()).unwrap();
    [packet(&format!("\u{1}{lines}")), b"0000".to_vec()].concat()
}

const STATUSES: [(&str, (&str, &str)); 9] = [
    ("301 Moved Permanently", ("location", "ELSEWHERE/2.0/x")),
    ("307 Temporary Redirect", ("location", "ELSEWHERE/info/refs?service=git-receive-pack")),
    // Not as 429: the pipe would wait for 70 minutes, as its unit tests show on a paused clock.
    ("503 Service Unavailable", ("retry-after", "18446744073709551615")),
    ("429 Too Many Requests", ("retry-after", "-1")),
    ("500 Internal Server Error", ("x-ratelimit-reset", "9223372036854775807")),
    ("401 Unauthorized", ("www-authenticate", "Basic")),
    ("404 Not Found", ("x", "y")),
    ("204 No Content", ("x", "y")),
    ("200 OK", ("content-type", "text/html")),
];

/// How many values [`with_field`] knows.
const VALUES: usize = 14;

/// JSON with one field of another value, left out, or there twice.
fn with_field(body: &[u8], place: usize, value: usize, elsewhere: &str) -> Vec<u8> {
    let Ok(mut json) = serde_json::from_slice::<Value>(body) else { return Vec::new() };
    let mut pointers = Vec::new();
    list(&json, String::new(), &mut pointers);
    let pointer = pointers[place % pointers.len()].clone();
    let old = json.pointer(&pointer).cloned().unwrap_or_default();
    let mark = |text: &str, json: &mut Value| {
        *json.pointer_mut(&pointer).unwrap() = json!(MARK);
        json.to_string().replacen(&format!("\"{MARK}\""), text, 1).into_bytes()
    };
    let other = match value % VALUES {
        0 => Value::Null,
        1 => json!(true),
        2 => json!([]),
        3 => json!({}),
        4 => json!("x"),
        5 => json!(-1),
        6 => json!(u64::MAX),
        7 => json!("x".repeat(1 << 20)),
        8 => json!(elsewhere),
        9 => json!("\u{1b}[2J\u{0}\nERROR: forged"),
        10 => return mark(HUGE, &mut json),
        11 => return mark(&format!("{old},\"{}\":{old}", pointer.rsplit('/').next().unwrap()), &mut json),
        12 => Value::Array(vec![old; 2000]),
        _ => return without(json, &pointer),
    };
    *json.pointer_mut(&pointer).unwrap() = other;
    json.to_string().into_bytes()
}

fn without(mut json: Value, pointer: &str) -> Vec<u8> {
    if let Some((parent, key)) = pointer.rsplit_once('/')
        && let Some(Value::Object(fields)) = json.pointer_mut(parent)
    {
        fields.remove(key);
    }
    json.to_string().into_bytes()
}

fn list(json: &Value, at: String, into: &mut Vec<String>) {
    match json {
        Value::Object(fields) => {
            for (key, value) in fields {
                list(value, format!("{at}/{}", key.replace('~', "~0").replace('/', "~1")), into);
            }
        }
        Value::Array(items) => {
            for (index, value) in items.iter().enumerate() {
                list(value, format!("{at}/{index}"), into);
            }
        }
        _ => {}
    }
    into.push(at);
}

fn packet(line: &str) -> Vec<u8> {
    format!("{:04x}{line}", line.len() + 4).into_bytes()
}

/// Git's packets with one of them changed.
fn with_packet(body: &[u8], place: usize, value: usize) -> Vec<u8> {
    let starts = packets(body);
    let Some(&start) = starts.get(place % starts.len().max(1)) else { return b"zzzz".to_vec() };
    let (before, rest) = body.split_at(start);
    let length = length(rest).unwrap_or(4).max(4).min(rest.len());
    let (this, after) = rest.split_at(length);
    let changed: Vec<u8> = match value % 12 {
        0 => Vec::new(),
        1 => this.repeat(2),
        2 => [b"fff0", &this[4..]].concat(),
        3 => [b"0001", &this[4..]].concat(),
        4 => [b"0005", &this[4..]].concat(),
        5 => [b"-003", &this[4..]].concat(),
        6 => b"0000".to_vec(),
        7 => packet("ERR \u{1b}[2Jno\n"),
        8 => packet(&format!("{} refs/heads/main\n", "f".repeat(40))),
        9 => packet("1234 refs/heads/short\n"),
        10 => packet(&format!("{} refs/heads/../../../etc/passwd\n", "1".repeat(40))),
        _ => packet(&"y".repeat(60_000)),
    };
    [before, &changed, after].concat()
}

fn length(at: &[u8]) -> Option<usize> {
    usize::from_str_radix(std::str::from_utf8(at.get(..4)?).ok()?, 16).ok()
}

fn packets(body: &[u8]) -> Vec<usize> {
    let (mut starts, mut at) = (Vec::new(), 0);
    while let Some(length) = body.get(at..).and_then(length) {
        starts.push(at);
        at += length.max(4);
    }
    starts
}

fn find(bytes: &[u8], what: &[u8]) -> Option<usize> {
    bytes.windows(what.len()).position(|window| window == what)
}

/// A chunked body without its chunks.
fn joined(mut body: &[u8]) -> Vec<u8> {
    let mut whole = Vec::new();
    while let Some(end) = find(body, b"\r\n") {
        let size = usize::from_str_radix(String::from_utf8_lossy(&body[..end]).trim(), 16).unwrap_or(0);
        let start = end + 2;
        if size == 0 || start + size > body.len() {
            break;
        }
        whole.extend_from_slice(&body[start..start + size]);
        body = &body[(start + size + 2).min(body.len())..];
    }
    whole
}
