//! One request to Google, and its answer.

use super::failure::DriveFailure;
use crate::remote::web::client::ANSWER_LIMIT_BYTES;
use reqwest::RequestBuilder;
use serde::de::DeserializeOwned;
use std::time::Duration;
use tokio::time::timeout;
use trainspot_http::{Answer, NoAnswer};

/// Sends a request, and reads the answer.
pub(super) async fn exchange(
    request: RequestBuilder,
    answer_timeout: Duration,
) -> Result<Answer, DriveFailure> {
    let read = timeout(answer_timeout, Answer::to(request, ANSWER_LIMIT_BYTES)).await;
    Ok(read.unwrap_or_else(|_| Err(NoAnswer::silent(answer_timeout)))?)
}

/// The JSON of Drive's answer.
pub(super) fn json<T: DeserializeOwned>(answer: &Answer) -> Result<T, DriveFailure> {
    answer.json().map_err(|_| DriveFailure::unclear("Drive"))
}
