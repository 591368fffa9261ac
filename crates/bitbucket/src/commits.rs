//! What is shown beside a commit: build statuses, and Code Insights reports.

use super::http::Permission;
use super::{Client, Scope, cut, fitting};
use reqwest::Method;
use serde::Serialize;
use serde::de::IgnoredAny;
use serde_json::{Value, json};
use trainspot_base::error::{Kind, Result};

const STATUS_PERMISSION: Permission = Permission {
    access: "repository",
    api: "read:repository:bitbucket",
    scope: Scope::Repository,
    kind: Kind::Publication,
};

/// The longest key that Bitbucket takes, in characters.
const KEY_LIMIT_CHARS: usize = 40;
/// The longest name or description of a status that Bitbucket takes, in characters.
const TEXT_LIMIT_CHARS: usize = 255;

/// How a build goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum BuildState {
    /// The build is running.
    InProgress,
    /// The build succeeded.
    Successful,
    /// The build failed.
    Failed,
    /// Somebody stopped the build.
    Stopped,
}

/// A build status: the mark that a commit and its pull request carry.
#[derive(Clone, Debug, Serialize)]
pub struct BuildStatus {
    /// The key that identifies the status on its commit; a second status with the same key replaces the
    /// first. Of a key that is longer than 40 characters the end becomes a hash.
    pub key: String,
    /// How the build goes.
    pub state: BuildState,
    /// The status's title; cut at 255 characters.
    pub name: String,
    /// One line; cut at 255 characters.
    pub description: String,
    /// The address that the status leads to.
    pub url: String,
    /// The branch; a pull request shows the status only if this is its source branch.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub refname: Option<String>,
}

impl Client {
    /// Sets a build status on a commit.
    pub async fn set_build_status(&self, commit: &str, status: &BuildStatus) -> Result<()> {
        let what = format!("set the build status {} of commit {commit}", status.key);
        let body = json!(BuildStatus {
            key: fitting(&status.key, KEY_LIMIT_CHARS),
            name: cut(&status.name, TEXT_LIMIT_CHARS),
            description: cut(&status.description, TEXT_LIMIT_CHARS),
            ..status.clone()
        });
        let url = self.url(&["commit", commit, "statuses", "build"]);
        self.call(&what, STATUS_PERMISSION, async || {
            self.send::<IgnoredAny>(Method::POST, url.clone(), Some(&body)).await.map(drop)
        })
        .await
    }

    /// Sets the Code Insights report `report_id`, of the caller's choice, on a commit: `report` is the
    /// request's body.
    pub async fn put_report(&self, commit: &str, report_id: &str, report: &Value) -> Result<()> {
        let what = format!("set the report {report_id} of commit {commit}");
        let url = self.url(&["commit", commit, "reports", report_id]);
        self.call(&what, STATUS_PERMISSION, async || {
            self.send::<IgnoredAny>(Method::PUT, url.clone(), Some(report)).await.map(drop)
        })
        .await
    }
}
