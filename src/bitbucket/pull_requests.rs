//! Pull requests: found, or else opened.

use super::failure::Failure;
use super::http::Scope;
use super::{Client, Level};
use crate::error::{Kind, Result};
use reqwest::Method;
use serde::Deserialize;
use serde_json::json;

pub(super) const SCOPE: Scope = Scope {
    access: "pullrequest:write",
    api: "write:pullrequest:bitbucket (with read:pullrequest:bitbucket)",
    level: Level::Repository,
    kind: Kind::Publication,
};

/// What to open.
#[derive(Clone, Debug)]
pub struct NewPullRequest {
    /// The branch with the changes; it must have been pushed.
    pub source: String,
    /// The branch that they are for.
    pub destination: String,
    /// One line.
    pub title: String,
    /// Markdown.
    pub description: String,
    /// Whether merging deletes the source branch.
    pub close_source_branch: bool,
}

/// An open pull request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PullRequest {
    /// Its number in the repository.
    pub id: u64,
    /// Its page.
    pub url: String,
    /// Whether this call opened it; else it was open already and is as it was.
    pub opened: bool,
}

/// A pull request as Bitbucket sends it, as far as it is of use here.
#[derive(Deserialize)]
struct Sent {
    id: u64,
    links: Links,
}

/// The links of a resource.
#[derive(Deserialize)]
pub(super) struct Links {
    pub(super) html: Link,
}

/// One link.
#[derive(Deserialize)]
pub(super) struct Link {
    pub(super) href: String,
}

impl Sent {
    fn known(self, opened: bool) -> PullRequest {
        PullRequest { id: self.id, url: self.links.html.href, opened }
    }
}

impl Client {
    /// The open pull request between these branches, opened if there is none.
    ///
    /// One that is open keeps its title and description: somebody may have written them. It must be looked for
    /// first, because Bitbucket answers a second one by overwriting the first one's title.
    pub async fn find_or_open_pull_request(&self, new: &NewPullRequest) -> Result<PullRequest> {
        let what = format!("open a pull request from {} to {}", new.source, new.destination);
        // An earlier attempt that got no answer may be what opened the one that is found.
        let mut tried = false;
        self.call(&what, SCOPE, async || {
            if let Some(found) = self.open_pull_request_between(&new.source, &new.destination).await? {
                return Ok(found.known(tried));
            }
            tried = true;
            let body = json!({
                "title": new.title,
                "description": new.description,
                "source": { "branch": { "name": new.source } },
                "destination": { "branch": { "name": new.destination } },
                "close_source_branch": new.close_source_branch,
            });
            let opened: Sent = self.send(Method::POST, self.url(&["pullrequests"]), Some(&body)).await?;
            Ok(opened.known(true))
        })
        .await
    }

    async fn open_pull_request_between(
        &self,
        source: &str,
        destination: &str,
    ) -> Result<Option<Sent>, Failure> {
        let (source, destination) = (quoted(source), quoted(destination));
        let q = format!(
            "source.branch.name={source} AND destination.branch.name={destination} AND state=\"OPEN\""
        );
        let mut url = self.url(&["pullrequests"]);
        url.query_pairs_mut().append_pair("q", &q).append_pair("pagelen", "50");
        Ok(self.list(url).await?.into_iter().next())
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
