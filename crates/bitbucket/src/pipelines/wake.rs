//! Starting the custom pipeline that goes on with a detached run.

use super::{NewPipelineRun, PipelineRun, PipelineTarget, PipelineVariable};
use crate::{Client, status_of};
use trainspot_base::error::Result;

/// The variable that tells a woken pipeline its run: the custom pipeline hands it to the pipe as `RUN`.
const RUN_VARIABLE: &str = "TRAINSPOT_RUN";

/// A detached run that needs its custom pipeline again.
#[derive(Clone, Copy, Debug)]
pub struct DueRun<'a> {
    /// The run's id.
    pub id: &'a str,
    /// The custom pipeline's name.
    pub pipeline: &'a str,
    /// The run's commit.
    pub commit: &'a str,
    /// The run's branch, if the run has one.
    pub branch: Option<&'a str>,
}

impl Client {
    /// Starts the custom pipeline of a run at the run's commit. Each call is another start: a run is woken
    /// more than once.
    ///
    /// # Errors
    /// The commit's `bitbucket-pipelines.yml` has no such custom pipeline; the commit is gone.
    pub async fn wake_run(&self, run: &DueRun<'_>) -> Result<PipelineRun> {
        let commit = run.commit.to_owned();
        if let Some(name) = run.branch {
            let target = PipelineTarget::Branch { name: name.to_owned(), commit: Some(commit.clone()) };
            match self.run_pipeline(&run.started_on(target)).await {
                // A branch that was merged meanwhile is often gone, and its commit is not.
                Err(error) if status_of(&error) == Some(404) => {}
                started => return started,
            }
        }
        self.run_pipeline(&run.started_on(PipelineTarget::Commit(commit))).await
    }
}

impl DueRun<'_> {
    fn started_on(&self, target: PipelineTarget) -> NewPipelineRun {
        let run = PipelineVariable { key: RUN_VARIABLE.to_owned(), value: self.id.into(), secured: false };
        NewPipelineRun {
            pipeline: self.pipeline.to_owned(),
            target,
            variables: vec![run],
            id: format!("{}-{:08x}", self.id, fastrand::u32(..)),
        }
    }
}
