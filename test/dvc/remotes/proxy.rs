//! Ways to a server on which things go wrong.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

/// What happens to a request.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Fault {
    /// The connection ends before any answer; nothing reaches the server.
    Refused,
    /// The connection ends in the middle of the request, of which the server sees half.
    CutRequest,
    /// The server does it, and its answer is lost.
    LostAnswer,
    /// The server does it, and half of its answer arrives.
    CutAnswer,
    /// An answer without doing it.
    Status(u16),
    /// A bit of the body is another on the way.
    Corrupt,
}

/// Which requests it happens to.
#[derive(Clone, Copy, Debug)]
pub(super) enum When {
    Never,
    Only(usize),
    Always,
}

pub(super) type Heads = Arc<Mutex<Vec<String>>>;

pub(super) struct Proxy {
    target: SocketAddr,
    own: SocketAddr,
    fault: Fault,
    when: When,
    pub(super) count: AtomicUsize,
    heads: Heads,
}

impl Proxy {
    pub(super) async fn start(target: &str, fault: Fault, when: When) -> (Arc<Self>, String) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let own = listener.local_addr().unwrap();
        let target = target.rsplit('/').next().unwrap().parse().unwrap();
        let proxy =
            Arc::new(Self { target, own, fault, when, count: AtomicUsize::new(0), heads: Heads::default() });
        let serving = Arc::clone(&proxy);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let serving = Arc::clone(&serving);
                tokio::spawn(async move { serving.serve(stream).await });
            }
        });
        (proxy, format!("http://{own}"))
    }

    async fn serve(&self, mut client: TcpStream) {
        let Some((head, mut body)) = request(&mut client).await else { return };
        let number = self.count.fetch_add(1, Ordering::SeqCst) + 1;
        self.heads.lock().unwrap().push(head.clone());
        let struck = match self.when {
            When::Never => false,
            When::Only(which) => which == number,
            When::Always => true,
        };
        let fault = Some(self.fault).filter(|_| struck);
        match fault {
            Some(Fault::Refused) => return,
            Some(Fault::Status(status)) => {
                let answer =
                    format!("HTTP/1.1 {status} Fault\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
                client.write_all(answer.as_bytes()).await.ok();
                return;
            }
            Some(Fault::Corrupt) if !body.is_empty() => {
                let middle = body.len() / 2;
                body[middle] ^= 1;
            }
            _ => {}
        }
        let Ok(mut server) = TcpStream::connect(self.target).await else { return };
        let head = head.replace(&self.own.to_string(), &self.target.to_string());
        let lines = head
            .lines()
            .filter(|line| !line.is_empty() && !line.to_ascii_lowercase().starts_with("connection:"));
        let head = format!("{}\r\nConnection: close\r\n\r\n", lines.collect::<Vec<_>>().join("\r\n"));
        server.write_all(head.as_bytes()).await.ok();
        if fault == Some(Fault::CutRequest) {
            server.write_all(&body[..body.len() / 2]).await.ok();
            server.shutdown().await.ok();
            return;
        }
        server.write_all(&body).await.ok();
        let mut answer = Vec::new();
        server.read_to_end(&mut answer).await.ok();
        let length = match fault {
            Some(Fault::LostAnswer) => 0,
            Some(Fault::CutAnswer) => answer.len() / 2,
            _ => answer.len(),
        };
        client.write_all(&answer[..length]).await.ok();
    }
}

/// A request's head and body.
async fn request(stream: &mut TcpStream) -> Option<(String, Vec<u8>)> {
    let mut read = Vec::new();
    let end = loop {
        if let Some(end) = read.windows(4).position(|four| four == b"\r\n\r\n") {
            break end + 4;
        }
        if stream.read_buf(&mut read).await.ok()? == 0 {
            return None;
        }
    };
    let mut body = read.split_off(end);
    let head = String::from_utf8(read).unwrap();
    let length = head.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse().unwrap())
    });
    let length: usize = length.unwrap_or(0);
    while body.len() < length {
        if stream.read_buf(&mut body).await.ok()? == 0 {
            return None;
        }
    }
    Some((head, body))
}

/// A way to a server that notes what is asked.
pub(super) async fn listening(target: &str) -> (String, Heads) {
    let (proxy, url) = Proxy::start(target, Fault::Refused, When::Never).await;
    (url, Arc::clone(&proxy.heads))
}

/// A server that answers by this function of a request's head.
pub(super) async fn answering(answer: fn(&str) -> (u16, String)) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let Some((head, _)) = request(&mut stream).await else { continue };
            let (status, text) = answer(&head);
            let whole = format!(
                "HTTP/1.1 {status} X\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{text}",
                text.len()
            );
            stream.write_all(whole.as_bytes()).await.ok();
        }
    });
    url
}

/// A status and a body.
pub(super) type Answer = (u16, Vec<u8>);

/// A way to a server that may change what it answers to a request's head. A path of Google's JSON API is
/// asked as S3's.
pub(super) async fn relaying(target: &'static str, change: fn(&str, Answer) -> Answer) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let Some((head, body)) = request(&mut stream).await else { return };
                let mut words = head.split_whitespace();
                let (method, path) = (words.next().unwrap(), words.next().unwrap());
                let path = path.replace("/storage/v1/b", "").replace("/o/", "/").replace("%2F", "/");
                let mut asked =
                    reqwest::Client::new().request(method.parse().unwrap(), format!("{target}{path}"));
                for line in head.lines().skip(1) {
                    if let Some((name @ ("content-md5" | "content-type"), value)) = line.split_once(": ") {
                        asked = asked.header(name, value);
                    }
                }
                let answer = asked.body(body).send().await.unwrap();
                let (status, tag) = (answer.status().as_u16(), answer.headers().get("etag").cloned());
                let (status, body) = change(&head, (status, answer.bytes().await.unwrap().to_vec()));
                let tag = tag.map(|tag| format!("etag: {}\r\n", tag.to_str().unwrap())).unwrap_or_default();
                let head = format!(
                    "HTTP/1.1 {status} X\r\n{tag}content-length: {}\r\nconnection: close\r\n\r\n",
                    body.len()
                );
                stream.write_all(&[head.as_bytes(), &body].concat()).await.ok();
            });
        }
    });
    url
}

/// A connection cut after so many bytes of ours, once; those after it are not.
pub(super) async fn cutting(target: u16, after: usize) -> (u16, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let passed = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&passed);
    tokio::spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            let counter = Arc::clone(&counter);
            tokio::spawn(async move {
                let Ok(server) = TcpStream::connect(("127.0.0.1", target)).await else { return };
                let ((mut from, mut to), (mut back, mut home)) = (client.into_split(), server.into_split());
                let there = async {
                    let mut buffer = vec![0; 32 << 10];
                    while let Ok(length @ 1..) = from.read(&mut buffer).await {
                        let before = counter.fetch_add(length, Ordering::SeqCst);
                        if before < after && after <= before + length {
                            home.write_all(&buffer[..after - before]).await.ok();
                            return;
                        }
                        if home.write_all(&buffer[..length]).await.is_err() {
                            return;
                        }
                    }
                };
                tokio::select! {
                    () = there => {}
                    _ = tokio::io::copy(&mut back, &mut to) => {}
                }
            });
        }
    });
    (port, passed)
}
