//! What the clients of web servers share: bodies of which no more is read than a limit, and which addresses
//! are this machine's own.

use reqwest::Response;
use url::{Host, Url};

/// Why the body of an answer is not there.
#[derive(Debug, thiserror::Error)]
pub enum BodyError {
    /// The connection broke, or its deadline came.
    #[error("{0}")]
    Broken(#[from] reqwest::Error),
    /// The body has more than this many bytes.
    #[error("the answer is longer than {0} bytes")]
    TooLong(usize),
}

/// A whole body of at most `limit_bytes`.
///
/// # Errors
/// The body is longer, or broke off.
pub async fn whole(mut response: Response, limit_bytes: usize) -> Result<Vec<u8>, BodyError> {
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await? {
        if body.len() + chunk.len() > limit_bytes {
            return Err(BodyError::TooLong(limit_bytes));
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body)
}

/// The first bytes of a body, `limit_bytes` at most: for a refusal, of which only the beginning is quoted.
///
/// # Errors
/// The body broke off before that.
pub async fn beginning(mut response: Response, limit_bytes: usize) -> reqwest::Result<Vec<u8>> {
    let mut body = Vec::new();
    while body.len() < limit_bytes {
        let Some(chunk) = response.chunk().await? else { break };
        let room = limit_bytes - body.len();
        body.extend_from_slice(&chunk[..chunk.len().min(room)]);
    }
    Ok(body)
}

/// Whether a URL leads to this machine itself, over which network nobody else listens.
#[must_use]
pub fn is_loopback(url: &Url) -> bool {
    match url.host() {
        Some(Host::Domain(name)) => name == "localhost",
        Some(Host::Ipv4(address)) => address.is_loopback(),
        Some(Host::Ipv6(address)) => address.is_loopback(),
        None => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpListener;

    /// The answer of a server whose body never ends.
    async fn endless() -> Response {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let _ = stream.read(&mut [0; 4096]).await;
            let mut more = stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await.is_ok();
            while more {
                more = stream.write_all(&[b'a'; 4096]).await.is_ok();
            }
        });
        reqwest::Client::builder().no_proxy().build().unwrap().get(url).send().await.unwrap()
    }

    #[tokio::test]
    async fn a_body_without_an_end_is_refused() {
        let refused = whole(endless().await, 100_000).await.unwrap_err();
        assert_eq!(refused.to_string(), "the answer is longer than 100000 bytes");
    }

    #[tokio::test]
    async fn of_a_refusal_only_the_beginning_is_read() {
        assert_eq!(beginning(endless().await, 70_001).await.unwrap(), vec![b'a'; 70_001]);
    }
}
