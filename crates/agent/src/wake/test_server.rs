//! A web server for the tests of waking: each connection has one request, and one answer or none.

use std::sync::{Arc, Mutex};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpListener, TcpStream};
use trainspot_base::mutex::lock;

/// A request as the server saw it.
#[derive(Clone, Debug, Default)]
pub(super) struct SeenRequest {
    pub(super) method: String,
    pub(super) path: String,
    /// The headers' lines; their names are in lower case.
    pub(super) headers: Vec<String>,
    pub(super) body: String,
}

impl SeenRequest {
    pub(super) fn header(&self, name: &str) -> &str {
        let found = self.headers.iter().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
        found.unwrap_or_default()
    }
}

/// What the server answers.
pub(super) enum TestReply {
    /// A status and a body.
    Answer(u16, String),
    /// Nothing: the connection breaks.
    Lost,
}

/// A server on the loopback device, with the requests that it has seen.
pub(super) struct TestServer {
    pub(super) url: String,
    requests: Arc<Mutex<Vec<SeenRequest>>>,
}

impl TestServer {
    /// A server that answers each request by `answer`, which also gets the requests before it.
    pub(super) async fn start(
        answer: impl Fn(&SeenRequest, &[SeenRequest]) -> TestReply + Send + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let requests = Arc::<Mutex<Vec<SeenRequest>>>::default();
        let seen = Arc::clone(&requests);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let mut stream = BufReader::new(stream);
                let Some(request) = read(&mut stream).await else { continue };
                let answer = answer(&request, &lock(&seen));
                lock(&seen).push(request);
                let TestReply::Answer(status, body) = answer else { continue };
                let length = body.len();
                let head = format!("HTTP/1.1 {status} x\r\nconnection: close\r\ncontent-length: {length}");
                _ = stream.write_all(format!("{head}\r\n\r\n{body}").as_bytes()).await;
            }
        });
        Self { url, requests }
    }

    /// An address at which nobody listens.
    pub(super) fn nobody() -> Self {
        Self { url: "http://127.0.0.1:1".to_owned(), requests: Arc::default() }
    }

    /// The requests of this method so far.
    pub(super) fn seen(&self, method: &str) -> Vec<SeenRequest> {
        lock(&self.requests).iter().filter(|request| request.method == method).cloned().collect()
    }
}

async fn read(stream: &mut BufReader<TcpStream>) -> Option<SeenRequest> {
    let mut line = String::new();
    stream.read_line(&mut line).await.ok()?;
    let mut words = line.split_whitespace();
    let (method, path) = (words.next()?.to_owned(), words.next()?.to_owned());
    let mut request = SeenRequest { method, path, ..SeenRequest::default() };
    loop {
        let mut line = String::new();
        stream.read_line(&mut line).await.ok()?;
        let Some((name, value)) = line.trim().split_once(": ") else { break };
        request.headers.push(format!("{}: {value}", name.to_lowercase()));
    }
    let mut body = vec![0; request.header("content-length").parse().unwrap_or(0)];
    stream.read_exact(&mut body).await.ok()?;
    request.body = String::from_utf8(body).unwrap();
    Some(request)
}
