//! Why there is no answer to a request, or not the whole of one.

use std::time::Duration;
use trainspot_base::error::chain;
use trainspot_base::log::progress::in_words;

/// Why a request has no whole answer. The text is a part of a sentence, and names no address: that of an
/// upload may be a secret, and the caller says in fewer words what was asked.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{why}")]
pub struct NoAnswer {
    why: String,
    /// Whether the same request may succeed later.
    pub is_transient: bool,
    /// Whether there is an answer, which is longer than the reader's limit.
    pub is_too_long: bool,
}

impl NoAnswer {
    /// The server has been silent for the whole of `timeout`.
    #[must_use]
    pub fn silent(timeout: Duration) -> Self {
        Self {
            why: format!("nothing moved for {}", in_words(timeout)),
            is_transient: true,
            is_too_long: false,
        }
    }

    pub(crate) fn too_long(limit_bytes: usize) -> Self {
        Self {
            why: format!("the answer is longer than {limit_bytes} bytes"),
            is_transient: false,
            is_too_long: true,
        }
    }
}

impl From<reqwest::Error> for NoAnswer {
    fn from(error: reqwest::Error) -> Self {
        let is_transient = !(error.is_builder() || error.is_redirect());
        Self { why: chain(&error.without_url()), is_transient, is_too_long: false }
    }
}
