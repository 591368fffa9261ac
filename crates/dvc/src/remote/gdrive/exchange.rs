//! One request to Google, and its answer.

use super::failure::DriveFailure;
use super::response::DriveResponse;
use crate::remote::web::client;
use reqwest::RequestBuilder;
use serde::de::DeserializeOwned;
use std::time::Duration;
use tokio::time::timeout;

impl DriveResponse {
    /// The body as JSON.
    pub(super) fn json<T: DeserializeOwned>(&self) -> Result<T, DriveFailure> {
        serde_json::from_slice(&self.body).map_err(|_| DriveFailure::unclear("Drive"))
    }
}

/// Sends a request, and reads the answer.
pub(super) async fn exchange(
    request: RequestBuilder,
    answer_timeout: Duration,
) -> Result<DriveResponse, DriveFailure> {
    let read = async {
        let response = request.send().await?;
        let (status, headers) = (response.status(), response.headers().clone());
        let body = client::body(response, true).await?;
        Ok(DriveResponse { status, headers, body })
    };
    match timeout(answer_timeout, read).await {
        Ok(answer) => answer.map_err(DriveFailure::broken),
        Err(_) => Err(DriveFailure::silent(answer_timeout)),
    }
}
