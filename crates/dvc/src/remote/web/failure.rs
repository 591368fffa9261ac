//! Why a request to a web server failed, and what a refusal means to the user.

use reqwest::StatusCode;
use std::time::Duration;
use trainspot_base::error::Error;
use trainspot_http::{Answer, NoAnswer};

/// Why a request failed.
pub(super) struct WebFailure {
    why: String,
    hint: Option<String>,
    /// Whether trying again may help.
    pub(super) is_transient: bool,
    /// How long the server asks to wait before the next request.
    pub(super) wait: Option<Duration>,
}

impl From<NoAnswer> for WebFailure {
    fn from(error: NoAnswer) -> Self {
        let hint = "look whether the network lets this machine reach the server, and run again".to_owned();
        let why = format!("no answer: {error}");
        Self { why, hint: Some(hint), is_transient: error.is_transient, wait: None }
    }
}

impl WebFailure {
    pub(super) fn refused(answer: &Answer, advice: &str) -> Self {
        let said = answer.said();
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
                let to = answer.location().unwrap_or_else(|| "another place".to_owned());
                Some(format!(
                    "it wants to send us to {to}, to which a credential for it must not go: correct the remote's url"
                ))
            }
            _ => None,
        };
        let why = format!("HTTP {}{said}", answer.status);
        Self { why, hint, is_transient: answer.is_transient(), wait: answer.wait() }
    }

    pub(super) fn explain(self, what: &str) -> Error {
        Error::new(what).source(self.why).maybe_hint(self.hint)
    }
}
