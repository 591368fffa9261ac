//! Pipelines and their steps: started, looked at, stopped, and their logs followed.

mod log;
mod progress;
mod run;
mod wake;

use super::http::Permission;
use super::{Client, Scope, status_of};
use progress::SentState;
use reqwest::Method;
use serde::Deserialize;
use std::time::SystemTime;
use trainspot_base::error::{Kind, Result};

pub use log::LogChunk;
pub use progress::{PipelineOutcome, PipelineProgress};
pub use run::{NewPipelineRun, PipelineTarget, PipelineVariable};
pub use wake::DueRun;

const READ_PERMISSION: Permission = Permission {
    access: "pipeline",
    api: "read:pipeline:bitbucket",
    scope: Scope::Repository,
    kind: Kind::Unexpected,
};
const WRITE_PERMISSION: Permission = Permission {
    access: "pipeline:write",
    api: "write:pipeline:bitbucket (with read:pipeline:bitbucket)",
    scope: Scope::Repository,
    kind: Kind::Unexpected,
};

/// Bitbucket's word for the selector of a pipeline below `custom:`.
const CUSTOM_SELECTOR: &str = "custom";

/// A pipeline, as one run of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PipelineRun {
    /// The run's id, in braces.
    pub uuid: String,
    /// The run's number in the repository.
    pub number: u64,
    /// The run's progress.
    pub progress: PipelineProgress,
    /// The run's page.
    pub url: String,
}

/// A step of a pipeline.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PipelineStep {
    /// The step's id, in braces.
    pub uuid: String,
    /// The step's name; empty where the step has none.
    pub name: String,
    /// The step's progress.
    pub progress: PipelineProgress,
    /// When the step began, if it did.
    pub started: Option<SystemTime>,
}

#[derive(Deserialize)]
struct SentPipeline {
    uuid: String,
    build_number: u64,
    #[serde(default)]
    state: SentState,
    #[serde(default)]
    variables: Vec<SentVariable>,
}

/// A pipeline, as far as it tells what started it.
#[derive(Deserialize)]
struct SentOrigin {
    #[serde(default)]
    target: SentTarget,
}

#[derive(Default, Deserialize)]
struct SentTarget {
    selector: Option<SentSelector>,
}

#[derive(Deserialize)]
struct SentSelector {
    #[serde(rename = "type")]
    kind: Option<String>,
    pattern: Option<String>,
}

#[derive(Deserialize)]
struct SentVariable {
    key: String,
    /// Bitbucket keeps a secured one's to itself.
    value: Option<String>,
}

#[derive(Deserialize)]
struct SentStep {
    uuid: String,
    name: Option<String>,
    started_on: Option<String>,
    #[serde(default)]
    state: SentState,
}

impl Client {
    /// A pipeline, by its id in braces.
    pub async fn pipeline(&self, uuid: &str) -> Result<PipelineRun> {
        let what = format!("look up the pipeline {uuid}");
        let url = self.url(&["pipelines", uuid]);
        let sent =
            self.call(&what, READ_PERMISSION, async || self.send(Method::GET, url.clone(), None).await);
        sent.await.map(|sent| self.shown(&sent))
    }

    /// The name below `custom:` of a pipeline, by its id in braces; none for a pipeline that something else
    /// started, such as a push.
    pub async fn custom_pipeline_name(&self, uuid: &str) -> Result<Option<String>> {
        let what = format!("look up the name of the pipeline {uuid}");
        let url = self.url(&["pipelines", uuid]);
        let sent: SentOrigin = self
            .call(&what, READ_PERMISSION, async || self.send(Method::GET, url.clone(), None).await)
            .await?;
        Ok(sent.target.selector.and_then(SentSelector::custom_name))
    }

    /// The steps of a pipeline in their order, by its id in braces.
    pub async fn steps(&self, pipeline: &str) -> Result<Vec<PipelineStep>> {
        let what = format!("list the steps of the pipeline {pipeline}");
        let mut url = self.url(&["pipelines", pipeline, "steps"]);
        url.query_pairs_mut().append_pair("pagelen", "100");
        let sent: Vec<SentStep> =
            self.call(&what, READ_PERMISSION, async || self.list(url.clone()).await).await?;
        Ok(sent.into_iter().map(PipelineStep::from).collect())
    }

    /// Whether a step is over; none if Bitbucket has no such step. Both ids are without braces.
    pub async fn step_is_over(&self, pipeline: &str, step: &str) -> Result<Option<bool>> {
        Ok(self.step(pipeline, step).await?.map(|step| step.progress.is_over()))
    }

    /// A step; none if Bitbucket has no such step. Both ids are without braces.
    pub async fn step(&self, pipeline: &str, step: &str) -> Result<Option<PipelineStep>> {
        let braced = |id: &str| format!("{{{id}}}");
        let url = self.url(&["pipelines", &braced(pipeline), "steps", &braced(step)]);
        let what = format!("look up the step {step}");
        let answer = self.call(&what, READ_PERMISSION, async || {
            self.send::<SentStep>(Method::GET, url.clone(), None).await
        });
        match answer.await {
            Ok(step) => Ok(Some(PipelineStep::from(step))),
            Err(error) if status_of(&error) == Some(404) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Stops a pipeline, by its id in braces, with all its steps. A pipeline that is over stays as it is.
    pub async fn stop_pipeline(&self, uuid: &str) -> Result<()> {
        let what = format!("stop the pipeline {uuid}");
        let url = self.url(&["pipelines", uuid, "stopPipeline"]);
        self.call(&what, WRITE_PERMISSION, async || {
            match self.exchange(Method::POST, url.clone(), None).await {
                // It is over: there is no other reason.
                Err(failure) if failure.status() == Some(400) => Ok(()),
                done => done.map(drop),
            }
        })
        .await
    }

    fn shown(&self, sent: &SentPipeline) -> PipelineRun {
        let url =
            format!("https://bitbucket.org/{}/pipelines/results/{}", self.repository(), sent.build_number);
        PipelineRun {
            uuid: sent.uuid.clone(),
            number: sent.build_number,
            progress: (&sent.state).into(),
            url,
        }
    }
}

impl SentSelector {
    fn custom_name(self) -> Option<String> {
        let is_custom = self.kind.is_some_and(|kind| kind == CUSTOM_SELECTOR);
        self.pattern.filter(|pattern| is_custom && !pattern.is_empty())
    }
}

impl From<SentStep> for PipelineStep {
    fn from(sent: SentStep) -> Self {
        Self {
            uuid: sent.uuid,
            name: sent.name.unwrap_or_default(),
            progress: (&sent.state).into(),
            started: sent.started_on.as_deref().and_then(moment),
        }
    }
}

/// A moment as Bitbucket writes it, with either form of its zone.
fn moment(text: &str) -> Option<SystemTime> {
    let text = text.strip_suffix("+00:00").map_or_else(|| text.to_owned(), |time| format!("{time}Z"));
    humantime::parse_rfc3339(&text).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_moment_has_its_zone_in_either_form() {
        let expected = humantime::parse_rfc3339("2026-01-02T03:04:05.678Z").ok();
        assert_eq!(moment("2026-01-02T03:04:05.678Z"), expected);
        assert_eq!(moment("2026-01-02T03:04:05.678000+00:00"), expected);
        assert!(expected.is_some());
        assert_eq!([moment(""), moment("today"), moment("2026-01-02T03:04:05+02:00")], [None; 3]);
    }

    #[test]
    fn only_a_custom_pipeline_has_a_name_of_its_own() {
        let name = |sent: &str| {
            let sent: SentOrigin = serde_json::from_str(sent).unwrap();
            sent.target.selector.and_then(SentSelector::custom_name)
        };
        let selected = |selector: &str| {
            name(&format!(r#"{{"uuid":"{{x}}","target":{{"type":"t","selector":{selector}}}}}"#))
        };
        assert_eq!(selected(r#"{"type":"custom","pattern":"train it"}"#).as_deref(), Some("train it"));
        for other in [
            r#"{"type":"branches","pattern":"main"}"#,
            r#"{"type":"default"}"#,
            r#"{"type":"custom"}"#,
            r#"{"type":"custom","pattern":""}"#,
            r#"{"pattern":"train it"}"#,
            "null",
        ] {
            assert_eq!(selected(other), None, "{other}");
        }
        assert_eq!([name("{}"), name(r#"{"target":{}}"#)], [None, None]);
    }
}
