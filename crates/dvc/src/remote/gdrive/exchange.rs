//! One request to Google, and its answer.

use super::failure::Failure;
use super::response::Answer;
use crate::remote::web::client;
use reqwest::RequestBuilder;
use serde::de::DeserializeOwned;
use std::time::Duration;
use tokio::time::timeout;

impl Answer {
    /// What it says.
    pub(super) fn json<T: DeserializeOwned>(&self) -> Result<T, Failure> {
        serde_json::from_slice(&self.body).map_err(|_| Failure::unclear("Drive"))
    }
}

/// Sends a request, and reads the answer.
pub(super) async fn exchange(request: RequestBuilder, patience: Duration) -> Result<Answer, Failure> {
    let read = async {
        let response = request.send().await?;
        let (status, headers) = (response.status(), response.headers().clone());
        let body = client::body(response, true).await?;
        Ok(Answer { status, headers, body })
    };
    match timeout(patience, read).await {
        Ok(answer) => answer.map_err(Failure::broken),
        Err(_) => Err(Failure::silent(patience)),
    }
}
