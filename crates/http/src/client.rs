//! How every HTTP client of trainspot is set up.

use reqwest::{ClientBuilder, redirect};
use std::time::Duration;
use url::{Host, Url};

/// What trainspot calls itself.
pub const USER_AGENT: &str = concat!("trainspot/", env!("CARGO_PKG_VERSION"));
/// How long a host may take to accept a connection. A host that takes longer is down: waiting on would only
/// delay the next attempt.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(20);
/// The most redirects that one request follows.
const REDIRECT_LIMIT: usize = 5;

/// What a client does with an answer that sends the client elsewhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Redirects {
    /// A redirect is the answer: for an API that documents none. A followed POST would become a GET.
    Refused,
    /// A redirect within the origin is followed; one that leads elsewhere is the answer. The credential is
    /// for the origin alone, and reqwest itself takes only the headers that it knows off a request that
    /// leaves for another host.
    WithinOrigin,
    /// Redirects are followed wherever they lead: for a question that carries no credential.
    Anywhere,
}

/// A client that says who asks, follows redirects as told, and gives up connecting after
/// [`CONNECT_TIMEOUT`]. The caller sets the deadline of a whole exchange: only the caller knows how much
/// there is to move.
pub fn client(redirects: Redirects) -> ClientBuilder {
    let policy = match redirects {
        Redirects::Refused => redirect::Policy::none(),
        Redirects::WithinOrigin => redirect::Policy::custom(follow),
        Redirects::Anywhere => redirect::Policy::limited(REDIRECT_LIMIT),
    };
    reqwest::Client::builder().user_agent(USER_AGENT).connect_timeout(CONNECT_TIMEOUT).redirect(policy)
}

fn follow(attempt: redirect::Attempt<'_>) -> redirect::Action {
    let first = attempt.previous().first();
    let is_within_origin = first.is_some_and(|first| first.origin() == attempt.url().origin());
    if is_within_origin && attempt.previous().len() <= REDIRECT_LIMIT {
        attempt.follow()
    } else {
        attempt.stop()
    }
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
    use crate::test_server::TestServer;

    /// The status that a request with a credential ends with, and the requests that each server has seen.
    async fn asked(redirects: Redirects, first: &TestServer) -> u16 {
        let client = client(redirects).no_proxy().build().unwrap();
        let request = client.get(first.url("/start")).header("x-private", "secret");
        request.send().await.unwrap().status().as_u16()
    }

    #[tokio::test]
    async fn a_redirect_to_another_origin_is_the_answer_and_takes_no_credential_along() {
        let other = TestServer::start(|_| "HTTP/1.1 200 x\r\ncontent-length: 0\r\n\r\n".to_owned()).await;
        let place = other.url("/elsewhere");
        let first = TestServer::start(move |_| redirect_to(&place)).await;
        for redirects in [Redirects::WithinOrigin, Redirects::Refused] {
            assert_eq!(asked(redirects, &first).await, 307, "{redirects:?}");
        }
        assert_eq!((first.requests().len(), other.requests().len()), (2, 0));
    }

    #[tokio::test]
    async fn a_redirect_within_the_origin_is_followed_with_the_credential() {
        let server = TestServer::start(|request| {
            if request.starts_with("GET /start ") {
                return redirect_to("/end");
            }
            "HTTP/1.1 200 x\r\ncontent-length: 0\r\n\r\n".to_owned()
        })
        .await;
        assert_eq!(asked(Redirects::WithinOrigin, &server).await, 200);
        let requests = server.requests();
        assert_eq!(requests.len(), 2);
        for request in requests {
            assert!(request.contains("x-private: secret") && request.contains(USER_AGENT), "{request}");
        }
    }

    #[tokio::test]
    async fn a_question_without_a_credential_goes_where_it_is_sent() {
        let other = TestServer::start(|_| "HTTP/1.1 200 x\r\ncontent-length: 0\r\n\r\n".to_owned()).await;
        let place = other.url("/elsewhere");
        let first = TestServer::start(move |_| redirect_to(&place)).await;
        assert_eq!(asked(Redirects::Anywhere, &first).await, 200);
    }

    #[tokio::test]
    async fn redirects_in_a_circle_end() {
        let server = TestServer::start(|_| redirect_to("/start")).await;
        assert_eq!(asked(Redirects::WithinOrigin, &server).await, 307);
        assert_eq!(server.requests().len(), REDIRECT_LIMIT + 1);
    }

    fn redirect_to(place: &str) -> String {
        format!("HTTP/1.1 307 x\r\nlocation: {place}\r\ncontent-length: 0\r\n\r\n")
    }

    #[test]
    fn only_this_machine_is_loopback() {
        for (url, expected) in [
            ("http://localhost:8080/", true),
            ("http://127.9.9.9/", true),
            ("http://[::1]/", true),
            ("http://localhost.example/", false),
            ("http://128.0.0.1/", false),
        ] {
            assert_eq!(is_loopback(&Url::parse(url).unwrap()), expected, "{url}");
        }
    }
}
