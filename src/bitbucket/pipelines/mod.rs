//! Pipelines and their steps.

use super::http::Scope;
use super::{Client, status_of};
use crate::error::Result;
use reqwest::Method;
use serde::Deserialize;

const SCOPE: Scope = Scope { access: "pipeline", api: "read:pipeline:bitbucket" };

#[derive(Deserialize)]
struct Step {
    state: State,
}

/// `READY`, `PENDING`, `IN_PROGRESS` or `COMPLETED`; perhaps others to come.
#[derive(Deserialize)]
struct State {
    name: String,
}

impl Client {
    /// Whether a step, by the ids of its pipeline and its own without braces, is over; none if Bitbucket has none such.
    pub async fn step_is_over(&self, pipeline: &str, step: &str) -> Result<Option<bool>> {
        let braced = |id: &str| format!("{{{id}}}");
        let url = self.url(&["pipelines", &braced(pipeline), "steps", &braced(step)]);
        let what = format!("look up the step {step}");
        let answer =
            self.call(&what, SCOPE, async || self.send::<Step>(Method::GET, url.clone(), None).await);
        match answer.await {
            Ok(step) => Ok(Some(step.state.name == "COMPLETED")),
            Err(error) if status_of(&error) == Some(404) => Ok(None),
            Err(error) => Err(error),
        }
    }
}
