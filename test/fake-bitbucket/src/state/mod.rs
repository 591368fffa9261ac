//! What Bitbucket remembers, and what it saw.

mod pipelines;
mod runners;

use serde_json::Value;
use std::collections::BTreeMap;

pub use pipelines::{Pipeline, Step, StepDefinition, Variable};
pub use runners::Runner;

/// A pull request.
#[derive(Clone, Debug)]
pub struct PullRequest {
    /// Its number, from 1.
    pub id: u64,
    /// Its title.
    pub title: String,
    /// Its description, Markdown.
    pub description: String,
    /// The branch that it would merge.
    pub source: String,
    /// The branch that it would merge into.
    pub destination: String,
    /// `OPEN`, `MERGED` or `DECLINED`.
    pub state: &'static str,
    /// Whether merging deletes the source branch.
    pub close_source_branch: bool,
    /// The ids of those who are asked to review it, in braces.
    pub reviewers: Vec<String>,
}

/// A comment on a pull request.
#[derive(Clone, Debug)]
pub struct Comment {
    /// Its number, from 1, over all pull requests.
    pub id: u64,
    /// The pull request's number.
    pub pull_request: u64,
    /// The `uuid` of who wrote it, whose alone it is to edit.
    pub author: String,
    /// `content.raw`, Markdown.
    pub body: String,
    /// Whether somebody deleted it; Bitbucket still lists it then.
    pub deleted: bool,
}

/// A build status as it was posted.
#[derive(Clone, Debug)]
pub struct BuildStatus {
    /// The commit in the URL.
    pub commit: String,
    /// The key that identifies it on the commit.
    pub key: String,
    /// The whole request body.
    pub body: Value,
}

/// A Code Insights report as it was put.
#[derive(Clone, Debug)]
pub struct Report {
    /// The commit in the URL.
    pub commit: String,
    /// The report's external id, from the URL.
    pub id: String,
    /// The whole request body.
    pub body: Value,
}

/// A request as it came in.
#[derive(Clone, Debug)]
pub struct Recorded {
    /// The HTTP method.
    pub method: String,
    /// The path, still percent-encoded.
    pub path: String,
    /// The query's parameters, decoded.
    pub query: Vec<(String, String)>,
    /// Whether the request line carried an absolute URI, as requests to a proxy do.
    pub absolute: bool,
    /// Whether it came to the proxy's port.
    pub through_proxy: bool,
    /// The `Authorization` header.
    pub authorization: Option<String>,
    /// The `User-Agent` header.
    pub user_agent: Option<String>,
    /// The `Content-Encoding` header.
    pub encoding: Option<String>,
    /// The body of a REST call, where it is JSON.
    pub body: Option<Value>,
}

#[derive(Default)]
pub(crate) struct State {
    pub(crate) pull_requests: Vec<PullRequest>,
    pub(crate) comments: Vec<Comment>,
    /// Ids in braces, and names.
    pub(crate) default_reviewers: Vec<(String, String)>,
    pub(crate) statuses: Vec<BuildStatus>,
    pub(crate) reports: Vec<Report>,
    pub(crate) steps: Vec<Step>,
    pub(crate) pipelines: Vec<Pipeline>,
    /// The custom pipelines of `bitbucket-pipelines.yml`, by name.
    pub(crate) definitions: BTreeMap<String, Vec<StepDefinition>>,
    pub(crate) runners: Vec<Runner>,
    /// How many runners were ever registered.
    pub(crate) registered: usize,
}

impl State {
    pub(crate) fn open(
        &mut self,
        title: &str,
        description: &str,
        source: &str,
        destination: &str,
    ) -> &mut PullRequest {
        let id = self.pull_requests.len() as u64 + 1;
        self.pull_requests.push(PullRequest {
            id,
            title: title.into(),
            description: description.into(),
            source: source.into(),
            destination: destination.into(),
            state: "OPEN",
            close_source_branch: false,
            reviewers: Vec::new(),
        });
        self.pull_requests.last_mut().expect("the pull request just added")
    }

    pub(crate) fn pull_request(&mut self, id: u64) -> Option<&mut PullRequest> {
        self.pull_requests.iter_mut().find(|pull_request| pull_request.id == id)
    }

    pub(crate) fn comment(&mut self, pull_request: u64, author: &str, body: &str) -> &mut Comment {
        let id = self.comments.len() as u64 + 1;
        let (author, body) = (author.into(), body.into());
        self.comments.push(Comment { id, pull_request, author, body, deleted: false });
        self.comments.last_mut().expect("the comment just added")
    }
}
