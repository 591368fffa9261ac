//! A web server for this crate's tests: each connection has one request and one answer.

use std::sync::{Arc, Mutex};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use trainspot_base::mutex::lock;

/// A server on the loopback device, with the requests that it has seen.
pub(crate) struct TestServer {
    base: String,
    requests: Arc<Mutex<Vec<String>>>,
}

impl TestServer {
    /// A server that gives these answers, each a head and a body as they go over the wire. After its answer
    /// the server closes the connection.
    pub(crate) async fn start(answer: impl Fn(&str) -> String + Send + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let base = format!("http://{}", listener.local_addr().unwrap());
        let requests = Arc::<Mutex<Vec<String>>>::default();
        let seen = Arc::clone(&requests);
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let mut buffer = vec![0; 16 << 10];
                let length = stream.read(&mut buffer).await.unwrap();
                let request = String::from_utf8_lossy(&buffer[..length]).to_lowercase();
                let request = request.replacen("get ", "GET ", 1);
                let answer = answer(&request).replacen("\r\n", "\r\nconnection: close\r\n", 1);
                lock(&seen).push(request);
                // A client that has read enough breaks the connection.
                _ = stream.write_all(answer.as_bytes()).await;
            }
        });
        Self { base, requests }
    }

    /// A server whose every answer begins with this head, and never ends.
    pub(crate) async fn endless(head: &'static str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let base = format!("http://{}", listener.local_addr().unwrap());
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let _ = stream.read(&mut [0; 4 << 10]).await;
                let mut more = stream.write_all(head.as_bytes()).await.is_ok();
                while more {
                    more = stream.write_all(&[b'x'; 4 << 10]).await.is_ok();
                }
            }
        });
        Self { base, requests: Arc::default() }
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("{}{path}", self.base)
    }

    pub(crate) fn requests(&self) -> Vec<String> {
        lock(&self.requests).clone()
    }
}
