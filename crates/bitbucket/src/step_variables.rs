//! What Pipelines tells a step of itself.

use serde::Deserialize;
use std::path::PathBuf;

/// The `BITBUCKET_*` variables of a step. Outside Pipelines any of them may be missing.
#[derive(Clone, Debug, Default, Deserialize)]
pub struct StepVariables {
    /// The folder of the clone.
    pub clone_dir: Option<PathBuf>,
    /// The commit that the pipeline runs for, full or 12 characters long.
    pub commit: Option<String>,
    /// The branch; none for a tag.
    pub branch: Option<String>,
    /// The tag.
    pub tag: Option<String>,
    /// The workspace's short name.
    pub workspace: Option<String>,
    /// The repository's short name.
    pub repo_slug: Option<String>,
    /// The workspace's id, in braces.
    pub repo_owner_uuid: Option<String>,
    /// The repository's id, in braces.
    pub repo_uuid: Option<String>,
    /// The pipeline's number.
    pub build_number: Option<String>,
    /// The pipeline's id, in braces.
    pub pipeline_uuid: Option<String>,
    /// The step's id, in braces.
    pub step_uuid: Option<String>,
    /// The repository's plain-HTTP address.
    pub git_http_origin: Option<String>,
    /// The pull request's number, in a pipeline for one.
    pub pr_id: Option<String>,
    /// The pull requests' numbers, in a pipeline of a merge queue.
    pub merge_queue_pr_ids: Option<String>,
    /// The branch that the pull request would go to.
    pub pr_destination_branch: Option<String>,
    /// The commit of that branch, full or 12 characters long.
    pub pr_destination_commit: Option<String>,
}

impl StepVariables {
    /// The pipeline's page, where Pipelines runs it.
    #[must_use]
    pub fn url(&self) -> Option<String> {
        let (workspace, slug, number) =
            (self.workspace.as_ref()?, self.repo_slug.as_ref()?, self.build_number.as_ref()?);
        Some(format!("https://bitbucket.org/{workspace}/{slug}/pipelines/results/{number}"))
    }
}
