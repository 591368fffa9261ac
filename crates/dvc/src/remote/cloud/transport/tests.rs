use super::*;
use crate::Stamp;
use std::time::Instant;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

/// More than the sockets hold.
const PART_BYTES: u64 = 64 << 20;

#[test]
fn what_passes_is_known_by_status_and_code() {
    let said = |method: Method, status: u16, body: &'static str| {
        let answer = Response::builder().status(status).body(Bytes::from_static(body.as_bytes()));
        is_transient(&method, &answer.unwrap())
    };
    assert!(said(Method::PUT, 503, "") && said(Method::HEAD, 429, ""));
    assert!(said(Method::PUT, 400, "<Error><Code>BadDigest</Code></Error>"));
    assert!(said(Method::POST, 403, r#"{"error": {"errors": [{"reason": "rateLimitExceeded"}]}}"#));
    assert!(said(Method::POST, 200, "<Error><Code>InternalError</Code></Error>"));
    assert!(!said(Method::GET, 200, "<Key>SlowDown</Key>"));
    assert!(!said(Method::PUT, 403, "<Error><Code>AccessDenied</Code></Error>"));
    assert!(!said(Method::PUT, 507, "") && !said(Method::PUT, 404, ""));
}

/// Sends a part to a server that reads a mebibyte and then waits so long, again and again.
async fn sent_to_one_that_waits(wait: Duration) -> opendal::Result<Response<Bytes>> {
    let file = tempfile::NamedTempFile::new().unwrap();
    file.as_file().set_len(PART_BYTES).unwrap();
    let stamp = Stamp::settled(file.as_file()).unwrap();
    let part = FilePart::all(file.path(), stamp, PART_BYTES, PART_BYTES).next().unwrap();
    let server = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/?partNumber=1", server.local_addr().unwrap());
    let serving = tokio::spawn(async move {
        let (mut stream, _) = server.accept().await.unwrap();
        let mut piece = vec![0; 1 << 20];
        for _ in 0..PART_BYTES >> 20 {
            stream.read_exact(&mut piece).await?;
            tokio::time::sleep(wait).await;
        }
        stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await
    });
    let transport = StoreTransport {
        client: Client::new(),
        signing: None,
        making: HeaderMap::new(),
        tagged: false,
        budget: Arc::new(Budget::new()),
        answer_timeout: Duration::from_millis(500),
    };
    let (parts, ()) = Request::put(url).body(()).unwrap().into_parts();
    let (parts, body) = transport.prepared(parts, part.ticket().unwrap()).await.unwrap();
    let answer = transport.once(parts, body).await;
    serving.abort();
    answer
}

#[tokio::test]
async fn a_slow_link_is_waited_for_and_a_silent_one_is_not() {
    let start = Instant::now();
    let answer = sent_to_one_that_waits(Duration::from_millis(20)).await.unwrap();
    assert!(
        answer.status().is_success() && start.elapsed() > Duration::from_secs(1),
        "{:?}",
        start.elapsed()
    );
    let error = sent_to_one_that_waits(Duration::from_mins(1)).await.unwrap_err();
    assert!(error.is_temporary() && error.to_string().contains("no answer: nothing went for"), "{error}");
}
