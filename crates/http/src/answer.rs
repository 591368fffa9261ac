//! A server's answer, and whether asking again may change the answer.

use crate::{NoAnswer, beginning, quote, whole};
use reqwest::header::{CONTENT_LENGTH, HeaderMap, LOCATION, RETRY_AFTER};
use reqwest::{RequestBuilder, Response, StatusCode};
use serde::de::DeserializeOwned;
use std::time::Duration;
use trainspot_base::clock::stated_seconds;

/// The most that is read of a refusal, which is quoted in one line.
const REFUSAL_LIMIT_BYTES: usize = 64 << 10;

/// A server's answer.
pub struct Answer {
    /// What the server makes of the request.
    pub status: StatusCode,
    /// What the server says beside the body.
    pub headers: HeaderMap,
    /// The whole body of a success; the beginning of a refusal's.
    pub body: Vec<u8>,
}

impl Answer {
    /// Sends a request and reads the answer: the whole body of a success, `limit_bytes` at most, and of a
    /// refusal what may be worth quoting.
    ///
    /// # Errors
    /// There is no answer, or a success has a longer body.
    pub async fn to(request: RequestBuilder, limit_bytes: usize) -> Result<Self, NoAnswer> {
        Self::read(request.send().await?, limit_bytes).await
    }

    /// Reads the answer whose head has come, as [`Self::to`] does.
    ///
    /// # Errors
    /// A success has a longer body, or one that broke off.
    pub async fn read(response: Response, limit_bytes: usize) -> Result<Self, NoAnswer> {
        let (status, headers) = (response.status(), response.headers().clone());
        let body = if status.is_success() {
            whole(response, limit_bytes).await?
        } else {
            // The status has refused already: words that break off are as good as none.
            beginning(response, REFUSAL_LIMIT_BYTES).await.unwrap_or_default()
        };
        Ok(Self { status, headers, body })
    }

    /// Sends a request and reads the answer's head alone.
    ///
    /// # Errors
    /// There is no answer.
    pub async fn head_of(request: RequestBuilder) -> Result<Self, NoAnswer> {
        let response = request.send().await?;
        Ok(Self { status: response.status(), headers: response.headers().clone(), body: Vec::new() })
    }

    /// Whether the server did what was asked.
    #[must_use]
    pub fn is_success(&self) -> bool {
        self.status.is_success()
    }

    /// Whether the same request may succeed later.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        is_transient(self.status)
    }

    /// How long the server asks to wait before the next request.
    #[must_use]
    pub fn wait(&self) -> Option<Duration> {
        retry_after(&self.headers, RETRY_AFTER.as_str())
    }

    /// The content's length in bytes, where the server states one.
    #[must_use]
    pub fn length(&self) -> Option<u64> {
        self.headers.get(CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
    }

    /// Where a redirect leads.
    #[must_use]
    pub fn location(&self) -> Option<String> {
        self.headers.get(LOCATION).map(|place| quote(place.as_bytes()))
    }

    /// The body in one line.
    #[must_use]
    pub fn quote(&self) -> String {
        quote(&self.body)
    }

    /// The body in one line after a colon, to end a sentence with; empty if the body says nothing.
    #[must_use]
    pub fn said(&self) -> String {
        let words = self.quote();
        if words.is_empty() { words } else { format!(": {words}") }
    }

    /// The body as JSON.
    ///
    /// # Errors
    /// The body is no JSON, or JSON of another shape.
    pub fn json<T: DeserializeOwned>(&self) -> serde_json::Result<T> {
        serde_json::from_slice(&self.body)
    }
}

/// Whether a request that is answered with this status may succeed later: the server is busy, restarts, or
/// another request holds what this one needs. 501, 505, 507 and 508 are the server errors that last: the
/// server cannot do it, or has no room.
#[must_use]
pub fn is_transient(status: StatusCode) -> bool {
    let lasts = matches!(
        status,
        StatusCode::NOT_IMPLEMENTED
            | StatusCode::HTTP_VERSION_NOT_SUPPORTED
            | StatusCode::INSUFFICIENT_STORAGE
            | StatusCode::LOOP_DETECTED
    );
    let passes = matches!(
        status,
        StatusCode::REQUEST_TIMEOUT
            | StatusCode::LOCKED
            | StatusCode::TOO_EARLY
            | StatusCode::TOO_MANY_REQUESTS
    );
    passes || status.is_server_error() && !lasts
}

/// The wait that the header `Retry-After`, or another header with whole seconds, asks for. A header with a
/// date counts as no header: the usual backoff applies.
#[must_use]
pub fn retry_after(headers: &HeaderMap, name: &str) -> Option<Duration> {
    headers.get(name)?.to_str().ok()?.trim().parse().ok().map(stated_seconds)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_server::TestServer;
    use trainspot_base::clock::LONGEST_STATED;

    #[test]
    fn a_header_may_say_anything() {
        let wait = |value: &str| {
            let headers = [(RETRY_AFTER, value.parse().unwrap())].into_iter().collect();
            retry_after(&headers, "retry-after")
        };
        assert_eq!(wait(" 7 "), Some(Duration::from_secs(7)));
        assert_eq!(wait("9223372036854775807"), Some(LONGEST_STATED));
        for odd in ["Wed, 21 Oct 2026 07:28:00 GMT", "-1", "1.5", "99999999999999999999", ""] {
            assert_eq!(wait(odd), None, "{odd}");
        }
    }

    #[test]
    fn what_passes_is_told_from_what_lasts() {
        let status = |code| StatusCode::from_u16(code).unwrap();
        for code in [408, 423, 425, 429, 500, 502, 503, 504, 520, 599] {
            assert!(is_transient(status(code)), "{code}");
        }
        for code in [200, 304, 307, 400, 401, 403, 404, 405, 409, 410, 412, 413, 501, 505, 507, 508] {
            assert!(!is_transient(status(code)), "{code}");
        }
    }

    #[tokio::test]
    async fn of_a_refusal_only_the_beginning_is_read_and_of_a_success_all_or_nothing() {
        let refusing = "HTTP/1.1 503 x\r\nretry-after: 3\r\nconnection: close\r\n\r\n";
        let server = TestServer::endless(refusing).await;
        let client = crate::client(crate::Redirects::Refused).no_proxy().build().unwrap();
        let answer = Answer::to(client.get(server.url("/")), 7).await.unwrap();
        assert_eq!((answer.status.as_u16(), answer.body.len()), (503, 64 << 10));
        assert_eq!((answer.is_success(), answer.is_transient()), (false, true));
        assert_eq!(answer.wait(), Some(Duration::from_secs(3)));

        let server = TestServer::endless("HTTP/1.1 200 x\r\nconnection: close\r\n\r\n").await;
        let refused = Answer::to(client.get(server.url("/")), 7).await.err().unwrap();
        assert_eq!(refused.to_string(), "the answer is longer than 7 bytes");
        let head = Answer::head_of(client.get(server.url("/"))).await.unwrap();
        assert_eq!((head.is_success(), head.is_transient()), (true, false));
    }

    #[tokio::test]
    async fn an_answer_ends_a_sentence_and_says_where_it_sends() {
        let client = crate::client(crate::Redirects::Refused).no_proxy().build().unwrap();
        for (answer, said, location) in [
            ("307 x\r\nlocation: /there\r\n\r\n<b>Not</b> here\n", ": Not here", Some("/there")),
            ("500 x\r\n\r\n \n", "", None),
        ] {
            let server = TestServer::start(move |_| format!("HTTP/1.1 {answer}")).await;
            let answer = Answer::to(client.get(server.url("/")), 7).await.unwrap();
            assert_eq!((answer.said().as_str(), answer.location().as_deref()), (said, location));
        }
    }

    /// A HEAD's answer states the length of an object, and has no body.
    #[tokio::test]
    async fn the_length_that_a_head_states_is_no_bodys() {
        let server =
            TestServer::start(|_| "HTTP/1.1 200 x\r\ncontent-length: 9000000\r\n\r\n".to_owned()).await;
        let client = crate::client(crate::Redirects::Refused).no_proxy().build().unwrap();
        let answer = Answer::to(client.head(server.url("/")), 7).await.unwrap();
        assert_eq!((answer.length(), answer.body.len()), (Some(9_000_000), 0));
    }

    #[tokio::test]
    async fn nobody_who_listens_is_worth_another_try_and_a_wrong_address_is_not() {
        let client = crate::client(crate::Redirects::Refused).no_proxy().build().unwrap();
        let refused = Answer::to(client.get("http://127.0.0.1:1/hidden"), 7).await.err().unwrap();
        assert!(refused.is_transient && !refused.to_string().contains("hidden"), "{refused}");
        let wrong = Answer::to(client.get("http:///"), 7).await.err().unwrap();
        assert!(!wrong.is_transient, "{wrong}");
    }
}
