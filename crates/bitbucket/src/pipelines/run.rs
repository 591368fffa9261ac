//! Starting a custom pipeline, once.

use super::{CUSTOM_SELECTOR, PipelineRun, READ_PERMISSION, SentPipeline, WRITE_PERMISSION};
use crate::{CallFailure, Client};
use reqwest::Method;
use secrecy::{ExposeSecret as _, SecretString};
use serde_json::{Value, json};
use std::fmt;
use tracing::info;
use trainspot_base::error::Result;
use url::Url;

/// The variable by which a run of a pipeline is known to be ours.
const RUN_ID_VARIABLE: &str = "TRAINSPOT_RUN_ID";

/// A run of a custom pipeline to start.
#[derive(Clone, Debug)]
pub struct NewPipelineRun {
    /// The pipeline's name below `custom:`.
    pub pipeline: String,
    /// What the pipeline runs on, whose `bitbucket-pipelines.yml` defines it.
    pub target: PipelineTarget,
    /// Variables of the pipeline's steps.
    pub variables: Vec<PipelineVariable>,
    /// A name that no other run has. It becomes the variable `TRAINSPOT_RUN_ID`, by which the run is found
    /// again.
    pub id: String,
}

/// What a custom pipeline runs on.
#[derive(Clone, Debug)]
pub enum PipelineTarget {
    /// A branch, which the pipeline's steps are told.
    Branch {
        /// The branch's name.
        name: String,
        /// The commit to check out; none for the branch's newest.
        commit: Option<String>,
    },
    /// A commit alone: the pipeline runs whatever became of the branches that had the commit.
    Commit(String),
}

/// A variable of a pipeline's steps.
#[derive(Clone, Debug)]
pub struct PipelineVariable {
    /// The variable's name.
    pub key: String,
    /// The variable's value.
    pub value: SecretString,
    /// Whether Bitbucket hides the value from logs and answers.
    pub secured: bool,
}

impl Client {
    /// Starts a run of a custom pipeline, or returns the run that has the same id already.
    ///
    /// # Errors
    /// The target's `bitbucket-pipelines.yml` has no such custom pipeline; the target does not exist.
    pub async fn run_pipeline(&self, run: &NewPipelineRun) -> Result<PipelineRun> {
        let what = format!("run the custom pipeline {} on {}", run.pipeline, run.target);
        let body = run.body();
        // The newest run's number before the first attempt.
        let mut before = None;
        self.call(&what, WRITE_PERMISSION, async || {
            let newest = self.newest_runs(Some(&run.pipeline)).await?;
            if let Some(found) = newest.iter().find(|sent| sent.is(&run.id)) {
                return Ok(self.shown(found));
            }
            let since = *before.get_or_insert(newest.iter().map(|sent| sent.build_number).max().unwrap_or(0));
            // It may be the one: a second one would train twice.
            if let Some(new) =
                newest.iter().find(|sent| sent.build_number > since && sent.variables.is_empty())
            {
                let PipelineRun { number, url, .. } = self.shown(new);
                let why = "an answer was lost, and Bitbucket does not tell whether this is the one";
                return Err(CallFailure::last(format!("{why}: #{number}, {url}")));
            }
            let sent = self.send(Method::POST, self.pipelines(), Some(&body)).await?;
            Ok(self.shown(&sent))
        })
        .await
    }

    /// The newest runs, newest first, whose id is `id`, or begins with `id` and a `-`: of one custom
    /// pipeline, or of all.
    pub async fn runs_of(&self, pipeline: Option<&str>, id: &str) -> Result<Vec<PipelineRun>> {
        let what = format!("look for runs of the pipeline {}", pipeline.unwrap_or("of any name"));
        let newest = self.call(&what, READ_PERMISSION, async || self.newest_runs(pipeline).await).await?;
        Ok(newest.iter().filter(|sent| sent.is_of(id)).map(|sent| self.shown(sent)).collect())
    }

    /// Stops every run that [`Self::runs_of`] finds and that is not over.
    pub async fn stop_runs_of(&self, pipeline: Option<&str>, id: &str) -> Result<()> {
        for run in self.runs_of(pipeline, id).await?.iter().filter(|run| !run.progress.is_over()) {
            info!("stopping the pipeline #{}, {}", run.number, run.url);
            self.stop_pipeline(&run.uuid).await?;
        }
        Ok(())
    }

    /// The address of the list of pipelines. Clients have met 404 without the slash at its end, and none with
    /// it; Bitbucket's own examples of POST have it, too.
    fn pipelines(&self) -> Url {
        self.url(&["pipelines", ""])
    }

    async fn newest_runs(&self, pipeline: Option<&str>) -> Result<Vec<SentPipeline>, CallFailure> {
        let mut url = self.pipelines();
        if let Some(pipeline) = pipeline {
            url.query_pairs_mut()
                .append_pair("target.selector.type", CUSTOM_SELECTOR)
                .append_pair("target.selector.pattern", pipeline);
        }
        url.query_pairs_mut().append_pair("sort", "-created_on").append_pair("pagelen", "100");
        // The first page alone: what a lost answer was about is among the newest, and a list may be years
        // long.
        self.page(url).await
    }
}

impl NewPipelineRun {
    fn body(&self) -> Value {
        let mut target = self.target.body();
        target["selector"] = json!({ "type": CUSTOM_SELECTOR, "pattern": self.pipeline });
        let id = self.id.as_str().into();
        let id = PipelineVariable { key: RUN_ID_VARIABLE.to_owned(), value: id, secured: false };
        let variables: Vec<Value> = self.variables.iter().chain([&id]).map(PipelineVariable::body).collect();
        json!({ "target": target, "variables": variables })
    }
}

impl PipelineTarget {
    fn body(&self) -> Value {
        let commit = |hash| json!({ "type": "commit", "hash": hash });
        match self {
            Self::Branch { name, commit: hash } => {
                let mut target =
                    json!({ "type": "pipeline_ref_target", "ref_type": "branch", "ref_name": name });
                if let Some(hash) = hash {
                    target["commit"] = commit(hash);
                }
                target
            }
            Self::Commit(hash) => json!({ "type": "pipeline_commit_target", "commit": commit(hash) }),
        }
    }
}

impl fmt::Display for PipelineTarget {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Branch { name, .. } => formatter.write_str(name),
            Self::Commit(hash) => write!(formatter, "the commit {hash}"),
        }
    }
}

impl PipelineVariable {
    fn body(&self) -> Value {
        json!({ "key": self.key, "value": self.value.expose_secret(), "secured": self.secured })
    }
}

impl SentPipeline {
    fn is(&self, id: &str) -> bool {
        self.id() == Some(id)
    }

    fn is_of(&self, id: &str) -> bool {
        let rest = self.id().and_then(|own| own.strip_prefix(id));
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('-'))
    }

    fn id(&self) -> Option<&str> {
        self.variables.iter().find(|variable| variable.key == RUN_ID_VARIABLE)?.value.as_deref()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_debug_output_shows_a_value() {
        let variable = PipelineVariable { key: "TOKEN".into(), value: "s3cret".into(), secured: true };
        let run = NewPipelineRun {
            pipeline: "p".into(),
            target: PipelineTarget::Commit("c".into()),
            variables: vec![variable],
            id: "i".into(),
        };
        let shown = format!("{run:?}");
        assert!(shown.contains("TOKEN") && !shown.contains("s3cret"), "{shown}");
    }

    #[test]
    fn a_target_is_a_branch_a_commit_on_one_or_a_commit_alone() {
        let branch = |commit| PipelineTarget::Branch { name: "main".into(), commit };
        let bodies = [
            (branch(None), r#"{"type":"pipeline_ref_target","ref_type":"branch","ref_name":"main"}"#),
            (
                branch(Some("c0".into())),
                r#"{"type":"pipeline_ref_target","ref_type":"branch","ref_name":"main","commit":{"type":"commit","hash":"c0"}}"#,
            ),
            (
                PipelineTarget::Commit("c0".into()),
                r#"{"type":"pipeline_commit_target","commit":{"type":"commit","hash":"c0"}}"#,
            ),
        ];
        for (target, expected) in bodies {
            assert_eq!(target.body().to_string(), expected);
        }
    }
}
