//! Pull requests: found, or else opened.

use super::failure::CallFailure;
use super::http::Permission;
use super::{Client, Scope, cut};
use reqwest::Method;
use serde::Deserialize;
use serde_json::{Value, json};
use tracing::{debug, info};
use trainspot_base::error::{Kind, Result};

pub(super) const PULL_REQUEST_PERMISSION: Permission = Permission {
    access: "pullrequest:write",
    api: "write:pullrequest:bitbucket (with read:pullrequest:bitbucket)",
    scope: Scope::Repository,
    kind: Kind::Publication,
};

/// The longest title, in characters: what Bitbucket takes in a status's texts. It documents no limit for a
/// title.
const TITLE_LIMIT_CHARS: usize = 255;

/// A pull request to open.
#[derive(Clone, Debug)]
pub struct NewPullRequest {
    /// The branch with the changes; it must have been pushed.
    pub source: String,
    /// The branch that they are for.
    pub destination: String,
    /// One line; cut at 255 characters.
    pub title: String,
    /// Markdown.
    pub description: String,
    /// Whether merging deletes the source branch.
    pub close_source_branch: bool,
}

/// An open pull request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PullRequest {
    /// The pull request's number in the repository.
    pub id: u64,
    /// The pull request's page.
    pub url: String,
    /// Whether this call opened the pull request; else it was open already and is unchanged.
    pub opened: bool,
}

/// A pull request as Bitbucket sends it, as far as it is of use here.
#[derive(Deserialize)]
struct SentPullRequest {
    id: u64,
    links: ResourceLinks,
}

/// A default reviewer as Bitbucket sends it, as far as it is of use here.
#[derive(Deserialize)]
struct SentReviewer {
    user: Reviewer,
}

/// Somebody who is asked to review a pull request.
#[derive(Deserialize)]
struct Reviewer {
    uuid: String,
    #[serde(default)]
    display_name: String,
}

/// The links of a resource.
#[derive(Deserialize)]
pub(super) struct ResourceLinks {
    pub(super) html: ResourceLink,
}

/// One link.
#[derive(Deserialize)]
pub(super) struct ResourceLink {
    pub(super) href: String,
}

impl SentPullRequest {
    fn known(self, opened: bool) -> PullRequest {
        PullRequest { id: self.id, url: self.links.html.href, opened }
    }
}

impl Client {
    /// The open pull request between these branches, opened if there is none.
    ///
    /// One that is open keeps its title and description: somebody may have written them. It must be looked
    /// for first, because Bitbucket answers a second one by overwriting the first one's title.
    pub async fn find_or_open_pull_request(&self, new: &NewPullRequest) -> Result<PullRequest> {
        let what = format!("open a pull request from {} to {}", new.source, new.destination);
        // An earlier attempt that got no answer may be what opened the one that is found.
        let mut tried = false;
        self.call(&what, PULL_REQUEST_PERMISSION, async || {
            if let Some(found) = self.open_pull_request_between(&new.source, &new.destination).await? {
                return Ok(found.known(tried));
            }
            let reviewers = self.default_reviewers().await?;
            tried = true;
            self.open(new, reviewers).await
        })
        .await
    }

    /// Opens a pull request, which asks the default reviewers: Bitbucket does that only for requests from its
    /// website.
    ///
    /// One reviewer who may not be one, such as the author, has Bitbucket refuse the whole. It names the
    /// reviewer in words, by the name for people.
    async fn open(
        &self,
        new: &NewPullRequest,
        mut reviewers: Vec<Reviewer>,
    ) -> Result<PullRequest, CallFailure> {
        loop {
            let body = new.body(&reviewers);
            let opened =
                self.send::<SentPullRequest>(Method::POST, self.url(&["pullrequests"]), Some(&body)).await;
            let refusal = match opened {
                Err(failure) if failure.status() == Some(400) && !reviewers.is_empty() => failure,
                opened => return opened.map(|opened| opened.known(true)),
            };
            let said = refusal.to_string();
            if !said.contains("reviewer") {
                return Err(refusal);
            }
            info!("opening the pull request without a default reviewer: {said}");
            let before = reviewers.len();
            reviewers.retain(|reviewer| !reviewer.is_named_in(&said));
            if reviewers.len() == before {
                reviewers.clear();
            }
        }
    }

    /// The repository's default reviewers and those of its project; none where Bitbucket does not tell.
    async fn default_reviewers(&self) -> Result<Vec<Reviewer>, CallFailure> {
        let listed: Result<Vec<SentReviewer>, _> =
            self.list(self.url(&["effective-default-reviewers"])).await;
        match listed {
            Ok(listed) => Ok(listed.into_iter().map(|sent| sent.user).collect()),
            Err(failure) if failure.is_transient => Err(failure),
            Err(failure) => {
                debug!("the default reviewers are not known: {failure}");
                Ok(Vec::new())
            }
        }
    }

    async fn open_pull_request_between(
        &self,
        source: &str,
        destination: &str,
    ) -> Result<Option<SentPullRequest>, CallFailure> {
        let (source, destination) = (quoted(source), quoted(destination));
        let q = format!(
            "source.branch.name={source} AND destination.branch.name={destination} AND state=\"OPEN\""
        );
        let mut url = self.url(&["pullrequests"]);
        url.query_pairs_mut().append_pair("q", &q).append_pair("pagelen", "50");
        Ok(self.list(url).await?.into_iter().next())
    }
}

impl NewPullRequest {
    fn body(&self, reviewers: &[Reviewer]) -> Value {
        let reviewers: Vec<_> = reviewers.iter().map(|reviewer| json!({ "uuid": reviewer.uuid })).collect();
        json!({
            "title": cut(&self.title, TITLE_LIMIT_CHARS),
            "description": self.description,
            "source": { "branch": { "name": self.source } },
            "destination": { "branch": { "name": self.destination } },
            "close_source_branch": self.close_source_branch,
            "reviewers": reviewers,
        })
    }
}

impl Reviewer {
    fn is_named_in(&self, text: &str) -> bool {
        !self.display_name.is_empty() && text.contains(&self.display_name)
    }
}

/// A text literal of Bitbucket's query language.
fn quoted(text: &str) -> String {
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quotes_and_backslashes_cannot_end_the_literal() {
        assert_eq!(quoted(r#"a"b\c"#), r#""a\"b\\c""#);
    }
}
