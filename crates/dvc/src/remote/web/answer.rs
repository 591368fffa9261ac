//! What a web server answers, and what a refusal means to the user.

use super::client::{self, asked_wait};
use reqwest::header::{CONTENT_LENGTH, HeaderMap, LOCATION};
use reqwest::{RequestBuilder, StatusCode};
use std::time::Duration;
use trainspot_base::error::{Error, chain};

/// The longest part of an unstructured answer that is worth quoting, in characters.
const QUOTE_LIMIT_CHARS: usize = 300;

/// A server's answer: its status, headers, and the beginning of its body.
pub(super) struct WebResponse {
    pub(super) status: StatusCode,
    headers: HeaderMap,
    pub(super) body: Vec<u8>,
}

impl WebResponse {
    /// Sends the request and reads the answer.
    pub(super) async fn to(request: RequestBuilder) -> Result<Self, WebFailure> {
        let response = request.send().await.map_err(WebFailure::broken)?;
        let (status, headers) = (response.status(), response.headers().clone());
        let body = client::body(response, true).await.map_err(WebFailure::broken)?;
        Ok(Self { status, headers, body })
    }

    /// Sends the request and does not read the answer's body.
    pub(super) async fn head_of(request: RequestBuilder) -> Result<Self, WebFailure> {
        let response = request.send().await.map_err(WebFailure::broken)?;
        Ok(Self { status: response.status(), headers: response.headers().clone(), body: Vec::new() })
    }

    pub(super) fn success(&self) -> bool {
        self.status.is_success()
    }

    /// Whether trying again may help.
    pub(super) fn is_transient(&self) -> bool {
        let status = self.status;
        let lasting = matches!(
            status,
            StatusCode::NOT_IMPLEMENTED
                | StatusCode::INSUFFICIENT_STORAGE
                | StatusCode::HTTP_VERSION_NOT_SUPPORTED
        );
        matches!(status, StatusCode::TOO_MANY_REQUESTS | StatusCode::REQUEST_TIMEOUT | StatusCode::LOCKED)
            || status.is_server_error() && !lasting
    }

    /// The content's length, where it is told.
    pub(super) fn length(&self) -> Option<u64> {
        self.headers.get(CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
    }

    fn quote(&self) -> Option<String> {
        let text = String::from_utf8_lossy(&self.body);
        let line = text.lines().map(str::trim).find(|line| !line.is_empty() && !line.starts_with('<'))?;
        Some(line.chars().take(QUOTE_LIMIT_CHARS).collect())
    }
}

/// Why a request failed.
pub(super) struct WebFailure {
    why: String,
    hint: Option<String>,
    /// Whether trying again may help.
    pub(super) is_transient: bool,
    /// How long the server asks to wait before the next request.
    pub(super) wait: Option<Duration>,
}

impl WebFailure {
    fn broken(error: reqwest::Error) -> Self {
        let is_transient = !(error.is_builder() || error.is_redirect());
        let hint = "look whether the network lets this machine reach the server, and run again".to_owned();
        Self {
            why: format!("no answer: {}", chain(&error.without_url())),
            hint: Some(hint),
            is_transient,
            wait: None,
        }
    }

    pub(super) fn silent(stall_timeout: Duration) -> Self {
        let hint = "look whether the network lets this machine reach the server, and run again".to_owned();
        let why = format!("nothing moved for {} s", stall_timeout.as_secs());
        Self { why, hint: Some(hint), is_transient: true, wait: None }
    }

    pub(super) fn refused(answer: &WebResponse, advice: &str) -> Self {
        let quote = answer.quote().map(|text| format!(": {text}")).unwrap_or_default();
        let hint = match answer.status {
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN | StatusCode::PROXY_AUTHENTICATION_REQUIRED => {
                Some(advice.to_owned())
            }
            // Some servers know only one method, and say of the other that nothing is there.
            StatusCode::NOT_FOUND
            | StatusCode::GONE
            | StatusCode::CONFLICT
            | StatusCode::METHOD_NOT_ALLOWED
            | StatusCode::NOT_IMPLEMENTED => Some(
                "check the remote's url; 'method' of an HTTP remote can be POST, as it is if it is not set, or PUT"
                    .to_owned(),
            ),
            StatusCode::PAYLOAD_TOO_LARGE => Some("raise the server's limit for uploads".to_owned()),
            StatusCode::INSUFFICIENT_STORAGE => {
                Some("make room there: `dvc gc --cloud` removes what no commit uses".to_owned())
            }
            StatusCode::TOO_MANY_REQUESTS => Some("the server asks to go slower; run again later".to_owned()),
            status if status.is_redirection() => {
                let to =
                    answer.headers.get(LOCATION).and_then(|to| to.to_str().ok()).unwrap_or("another place");
                Some(format!(
                    "it wants to send us to {to}, to which a credential for it must not go: correct the remote's url"
                ))
            }
            _ => None,
        };
        let (is_transient, wait) = (answer.is_transient(), asked_wait(&answer.headers));
        Self { why: format!("HTTP {}{quote}", answer.status), hint, is_transient, wait }
    }

    pub(super) fn explain(self, what: &str) -> Error {
        Error::new(what).source(self.why).maybe_hint(self.hint)
    }
}
