//! Bodies of which no more is read than a limit.

use crate::NoAnswer;
use reqwest::Response;
use tokio::sync::{Semaphore, SemaphorePermit};

/// The part of a body that many exchanges may read at once. Beyond this size the process reads one body at a
/// time: dozens of objects are asked about at once on a machine that may be small.
const SMALL_BODY_BYTES: usize = 64 << 10;
static LARGE_BODY: Semaphore = Semaphore::const_new(1);

/// A whole body.
///
/// # Errors
/// The body broke off, or has more than `limit_bytes`, of which no more is read.
pub async fn whole(response: Response, limit_bytes: usize) -> Result<Vec<u8>, NoAnswer> {
    if stated_bytes(&response).is_some_and(|stated| stated > limit_bytes) {
        return Err(NoAnswer::too_long(limit_bytes));
    }
    let mut reader = BoundedBody::new(response, limit_bytes).await;
    while let Some(excess_bytes) = reader.next().await? {
        if excess_bytes > 0 {
            return Err(NoAnswer::too_long(limit_bytes));
        }
    }
    Ok(reader.body)
}

/// The first bytes of a body, `limit_bytes` at most: of a refusal, which is quoted in one line, or of an
/// answer that is short unless the server is broken.
///
/// # Errors
/// The body broke off before that.
pub async fn beginning(response: Response, limit_bytes: usize) -> Result<Vec<u8>, NoAnswer> {
    let mut reader = BoundedBody::new(response, limit_bytes).await;
    while reader.body.len() < limit_bytes && reader.next().await?.is_some() {}
    Ok(reader.body)
}

fn stated_bytes(response: &Response) -> Option<usize> {
    response.content_length().map(|length| usize::try_from(length).unwrap_or(usize::MAX))
}

/// A body that is being read, in memory that is taken once: a vector that grows is twice as large at its
/// end, and there three times while it grows.
struct BoundedBody {
    response: Response,
    body: Vec<u8>,
    limit_bytes: usize,
    /// The right to hold more than [`SMALL_BODY_BYTES`].
    large: Option<SemaphorePermit<'static>>,
}

impl BoundedBody {
    /// Waits for its turn before the first byte where the body is said to be large: a connection that is
    /// being read from buffers 400 KiB of what follows.
    async fn new(response: Response, limit_bytes: usize) -> Self {
        let stated = stated_bytes(&response);
        let is_large = stated.is_some_and(|stated| stated.min(limit_bytes) > SMALL_BODY_BYTES);
        let large = if is_large { LARGE_BODY.acquire().await.ok() } else { None };
        let body = Vec::with_capacity(stated.unwrap_or(SMALL_BODY_BYTES).min(limit_bytes));
        Self { response, body, limit_bytes, large }
    }

    /// Reads the next piece up to the limit, and returns how many of its bytes are beyond the limit. None at
    /// the body's end.
    async fn next(&mut self) -> Result<Option<usize>, NoAnswer> {
        let Some(piece) = self.response.chunk().await? else { return Ok(None) };
        let taken = piece.len().min(self.limit_bytes - self.body.len());
        if self.body.len() + taken > SMALL_BODY_BYTES && self.large.is_none() {
            self.large = LARGE_BODY.acquire().await.ok();
            self.body.reserve_exact(self.limit_bytes - self.body.len());
        }
        self.body.extend_from_slice(&piece[..taken]);
        Ok(Some(piece.len() - taken))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_server::TestServer;

    const ENDLESS_HEAD: &str = "HTTP/1.1 200 x\r\nconnection: close\r\n\r\n";
    const LONG_HEAD: &str = "HTTP/1.1 200 x\r\ncontent-length: 9000000000\r\n\r\n";
    const LIMIT_BYTES: usize = 300_001;

    async fn response(head: &'static str) -> Response {
        let server = TestServer::endless(head).await;
        let client = crate::client(crate::Redirects::Refused).no_proxy().build().unwrap();
        client.get(server.url("/")).send().await.unwrap()
    }

    #[tokio::test]
    async fn a_body_without_an_end_is_refused() {
        for head in [ENDLESS_HEAD, LONG_HEAD] {
            let refused = whole(response(head).await, LIMIT_BYTES).await.unwrap_err();
            assert_eq!(refused.to_string(), "the answer is longer than 300001 bytes");
            assert!(!refused.is_transient);
        }
    }

    #[tokio::test]
    async fn of_the_beginning_no_more_is_read_nor_memory_taken_than_the_limit() {
        for (head, limit_bytes) in [
            (ENDLESS_HEAD, LIMIT_BYTES),
            (LONG_HEAD, LIMIT_BYTES),
            (ENDLESS_HEAD, SMALL_BODY_BYTES),
            (LONG_HEAD, SMALL_BODY_BYTES),
            (ENDLESS_HEAD, 7),
        ] {
            let body = beginning(response(head).await, limit_bytes).await.unwrap();
            assert_eq!((body.len(), body.capacity()), (limit_bytes, limit_bytes), "{head}");
        }
    }

    #[tokio::test]
    async fn a_body_that_just_fits_is_read_whole() {
        let server = TestServer::start(|_| "HTTP/1.1 200 x\r\n\r\nhello".to_owned()).await;
        let client = crate::client(crate::Redirects::Refused).no_proxy().build().unwrap();
        let answer = client.get(server.url("/")).send().await.unwrap();
        assert_eq!(whole(answer, 5).await.unwrap(), b"hello");
        let answer = client.get(server.url("/")).send().await.unwrap();
        assert_eq!(whole(answer, 4).await.unwrap_err().to_string(), "the answer is longer than 4 bytes");
    }

    #[tokio::test]
    async fn a_body_that_is_said_to_be_too_long_is_refused_before_it_comes() {
        let server = TestServer::start(|_| "HTTP/1.1 200 x\r\ncontent-length: 6\r\n\r\n".to_owned()).await;
        let client = crate::client(crate::Redirects::Refused).no_proxy().build().unwrap();
        for limit_bytes in [5, 6, 7] {
            let answer = client.get(server.url("/")).send().await.unwrap();
            let broken = whole(answer, limit_bytes).await.unwrap_err();
            assert_eq!(broken.is_too_long, limit_bytes == 5, "{broken}");
        }
    }

    #[tokio::test]
    async fn only_a_body_of_more_than_64_kib_waits_for_its_turn() {
        let client = crate::client(crate::Redirects::Refused).no_proxy().build().unwrap();
        for (length, waits) in [(64 << 10, false), ((64 << 10) + 1, true)] {
            for head in [String::new(), format!("content-length: {length}\r\n")] {
                let answer = format!("HTTP/1.1 200 x\r\n{head}\r\n{}", "x".repeat(length));
                let server = TestServer::start(move |_| answer.clone()).await;
                let answer = client.get(server.url("/")).send().await.unwrap();
                let mut reader = BoundedBody::new(answer, 1 << 20).await;
                while reader.next().await.unwrap().is_some() {}
                assert_eq!((reader.body.len(), reader.large.is_some()), (length, waits), "{head}");
            }
        }
    }
}
