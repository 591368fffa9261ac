//! Why Bitbucket did not do what it was asked, in one sentence, from whatever it answered.

use reqwest::StatusCode;
use reqwest::header::HeaderMap;
use serde_json::Value;
use std::fmt;
use std::time::Duration;
use trainspot_base::error::Error;
use trainspot_http::{Answer, NoAnswer, quote, retry_after};

/// One failed exchange with Bitbucket.
#[derive(Debug)]
pub struct CallFailure {
    status: Option<u16>,
    message: String,
    /// Whether trying again may help.
    pub(super) is_transient: bool,
    /// How long Bitbucket asks to wait.
    pub(super) wait: Option<Duration>,
}

impl CallFailure {
    /// The HTTP status; none where there was no answer.
    #[must_use]
    pub fn status(&self) -> Option<u16> {
        self.status
    }

    /// Whether too many calls were made in an hour.
    pub(super) fn is_rate_limit(&self) -> bool {
        self.status == Some(StatusCode::TOO_MANY_REQUESTS.as_u16())
    }

    /// A failure that no further attempt can mend.
    pub(super) fn last(message: impl Into<String>) -> Self {
        Self { status: None, message: message.into(), is_transient: false, wait: None }
    }

    /// A refusal.
    pub(super) fn of_answer(answer: &Answer) -> Self {
        let mut message = format!("Bitbucket answered {}", answer.status);
        let said = match answer.location() {
            Some(place) if answer.status.is_redirection() => format!("it moved to {place}"),
            _ => said(&answer.body),
        };
        if !said.is_empty() {
            message.push_str(": ");
            message.push_str(&said);
        }
        let is_transient = answer.is_transient();
        let wait = wait(&answer.headers).filter(|_| is_transient);
        if let Some(wait) = wait {
            message = format!("{message}; it asks to wait for {} s", wait.as_secs());
        }
        Self { status: Some(answer.status.as_u16()), message, is_transient, wait }
    }
}

impl From<NoAnswer> for CallFailure {
    fn from(error: NoAnswer) -> Self {
        let message = format!("no answer from Bitbucket: {error}");
        Self { status: None, message, is_transient: error.is_transient, wait: None }
    }
}

impl From<reqwest::Error> for CallFailure {
    fn from(error: reqwest::Error) -> Self {
        NoAnswer::from(error).into()
    }
}

impl fmt::Display for CallFailure {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.message)
    }
}

impl std::error::Error for CallFailure {}

/// The HTTP status with which Bitbucket refused, where that is what `error` is about.
#[must_use]
pub fn status_of(error: &Error) -> Option<u16> {
    failure_of(error).and_then(CallFailure::status)
}

/// Whether Bitbucket refused, and would refuse the same again. No answer is no refusal.
#[must_use]
pub fn is_refusal(error: &Error) -> bool {
    failure_of(error).is_some_and(|failure| failure.status.is_some() && !failure.is_transient)
}

fn failure_of(error: &Error) -> Option<&CallFailure> {
    let first = error as &(dyn std::error::Error + 'static);
    std::iter::successors(Some(first), |error| error.source())
        .find_map(|error| error.downcast_ref::<CallFailure>())
}

/// How long Bitbucket asks to stay away. Both headers hold seconds.
fn wait(headers: &HeaderMap) -> Option<Duration> {
    let stated = |name| retry_after(headers, name);
    stated("retry-after").or_else(|| stated("x-ratelimit-reset"))
}

/// The words of an error's body, which is JSON of one of three shapes, HTML, or plain text.
fn said(body: &[u8]) -> String {
    let Ok(value) = serde_json::from_slice::<Value>(body) else { return quote(body) };
    let error = &value["error"];
    if let Some(text) = error.as_str() {
        return quote(text.as_bytes());
    }
    let mut parts: Vec<String> = Vec::new();
    for text in [&error["message"], &error["detail"]].into_iter().filter_map(Value::as_str) {
        parts.push(quote(text.as_bytes()));
    }
    // Where a token's scopes do not suffice, they and those that would.
    for (name, scopes) in error["detail"].as_object().into_iter().flatten() {
        parts.push(format!("{name}: {}", texts(scopes)));
    }
    for (field, complaints) in error["fields"].as_object().into_iter().flatten() {
        parts.push(format!("{field}: {}", texts(complaints)));
    }
    let data = &error["data"];
    if !data.is_null() && data != &Value::Object(serde_json::Map::new()) {
        parts.push(quote(data.to_string().as_bytes()));
    }
    if parts.is_empty() { quote(body) } else { parts.join("; ") }
}

fn texts(complaints: &Value) -> String {
    match complaints {
        Value::String(text) => text.clone(),
        Value::Array(all) => all.iter().map(texts).collect::<Vec<_>>().join(" "),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_shape_of_error_becomes_a_sentence() {
        let cases = [
            (r#"{"type":"error","error":{"message":"Bad request","detail":"Look."}}"#, "Bad request; Look."),
            (
                r#"{"type":"error","error":{"message":"Bad","fields":{"key":["too long","odd"],"a":"b"}}}"#,
                "Bad; key: too long odd; a: b",
            ),
            (
                r#"{"type":"error","error":{"message":"Bad","detail":{"required":["a:b","c"],"granted":["d"]}}}"#,
                "Bad; required: a:b c; granted: d",
            ),
            (r#"{"type":"error","error":{"message":"Bad","data":{"x":1}}}"#, r#"Bad; {"x":1}"#),
            (r#"{"error":"text"}"#, "text"),
            ("plain\n text ", "plain text"),
            (
                "<!DOCTYPE html><html><head><style>p{}</style></head><body><h1>Bad Request (400)</h1>\n</body></html>",
                "Bad Request (400)",
            ),
            ("", ""),
            (r#"{"other":1}"#, r#"{"other":1}"#),
        ];
        for (body, expected) in cases {
            assert_eq!(said(body.as_bytes()), expected);
        }
    }

    #[test]
    fn the_wait_is_in_seconds_and_retry_after_goes_first() {
        let headers = |pairs: &[(&'static str, &str)]| {
            pairs.iter().map(|(name, value)| ((*name).parse().unwrap(), value.parse().unwrap())).collect()
        };
        assert_eq!(
            wait(&headers(&[("retry-after", "7"), ("x-ratelimit-reset", "90")])),
            Some(Duration::from_secs(7))
        );
        assert_eq!(wait(&headers(&[("x-ratelimit-reset", "90")])), Some(Duration::from_secs(90)));
        assert_eq!(wait(&headers(&[("retry-after", "Wed, 21 Oct 2026 07:28:00 GMT")])), None);
        assert_eq!(wait(&headers(&[])), None);
    }

    #[test]
    fn only_an_answer_that_lasts_is_a_refusal() {
        let answered = |status| {
            let status = StatusCode::from_u16(status).unwrap();
            CallFailure::of_answer(&Answer { status, headers: HeaderMap::new(), body: Vec::new() })
        };
        let told = |failure: CallFailure| Error::new("cannot look").source(Error::new("no").source(failure));
        for (status, wanted) in [(403, true), (404, true), (408, false), (429, false), (503, false)] {
            let error = told(answered(status));
            assert_eq!((status_of(&error), is_refusal(&error)), (Some(status), wanted));
        }
        assert!(!is_refusal(&told(CallFailure::last("late"))) && !is_refusal(&Error::new("no pipeline")));
    }
}
