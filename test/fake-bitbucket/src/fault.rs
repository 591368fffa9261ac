//! Scripted failures: what the next matching requests meet instead of, or besides, their answer.

use crate::body::{self, Body};
use hyper::Response;
use std::time::Duration;

/// What happens to requests of one method whose path contains a text; built up by its methods, given to
/// [`crate::FakeBitbucket::next`].
#[derive(Clone, Debug)]
pub struct Fault {
    pub(crate) method: String,
    pub(crate) path: String,
    pub(crate) times: u32,
    pub(crate) delay: Duration,
    pub(crate) answer: Option<Answer>,
    pub(crate) end: End,
    pub(crate) cut_request: Option<u64>,
    pub(crate) cut_answer: Option<u64>,
    pub(crate) pause: Duration,
}

#[derive(Clone, Debug)]
pub(crate) struct Answer {
    status: u16,
    headers: Vec<(String, String)>,
    body: String,
}

/// Where the connection is dropped, if at all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    Kept,
    DroppedBefore,
    DroppedAfter,
}

impl Fault {
    /// A fault for the next request of `method` with `part` in its path or query; it does nothing yet.
    #[must_use]
    pub fn on(method: &str, part: &str) -> Self {
        Self {
            method: method.into(),
            path: part.into(),
            times: 1,
            delay: Duration::ZERO,
            answer: None,
            end: End::Kept,
            cut_request: None,
            cut_answer: None,
            pause: Duration::ZERO,
        }
    }

    /// For that many requests instead of one.
    #[must_use]
    pub fn times(mut self, times: u32) -> Self {
        self.times = times;
        self
    }

    /// Answers this instead of acting. The type is JSON, HTML or plain text, by the body's first character.
    #[must_use]
    pub fn answer(mut self, status: u16, body: &str) -> Self {
        let kind = match body.trim_start().chars().next() {
            Some('{') => "application/json",
            Some('<') => "text/html",
            _ => "text/plain",
        };
        let headers = vec![("Content-Type".into(), kind.into())];
        self.answer = Some(Answer { status, headers, body: body.into() });
        self
    }

    /// Adds a header to the answer given before.
    #[must_use]
    pub fn header(mut self, name: &str, value: &str) -> Self {
        let answer = self.answer.as_mut().expect("an answer to add the header to");
        answer.headers.push((name.into(), value.into()));
        self
    }

    /// Closes the connection instead of acting.
    #[must_use]
    pub fn drop_before_acting(mut self) -> Self {
        self.end = End::DroppedBefore;
        self
    }

    /// Acts, then closes the connection instead of answering: the client cannot know which it was.
    #[must_use]
    pub fn drop_after_acting(mut self) -> Self {
        self.end = End::DroppedAfter;
        self
    }

    /// Waits before anything else.
    #[must_use]
    pub fn delay(mut self, delay: Duration) -> Self {
        self.delay = delay;
        self
    }

    /// Closes the connection once that many bytes of the request's body have arrived.
    #[must_use]
    pub fn cut_request_after(mut self, bytes: u64) -> Self {
        self.cut_request = Some(bytes);
        self
    }

    /// Closes the connection once that many bytes of the answer's body have been sent.
    #[must_use]
    pub fn cut_answer_after(mut self, bytes: u64) -> Self {
        self.cut_answer = Some(bytes);
        self
    }

    /// Pauses before each chunk (some 8 to 64 KiB) of the request's and the answer's body.
    #[must_use]
    pub fn slow(mut self, pause: Duration) -> Self {
        self.pause = pause;
        self
    }

    pub(crate) fn matches(&self, method: &str, target: &str) -> bool {
        self.times > 0 && self.method == method && target.contains(&self.path)
    }
}

impl Answer {
    pub(crate) fn response(&self) -> Response<Body> {
        let mut response = Response::builder().status(self.status);
        for (name, value) in &self.headers {
            response = response.header(name, value);
        }
        response.body(body::full(self.body.clone())).expect("a valid scripted answer")
    }
}
