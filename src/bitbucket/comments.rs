//! The one comment on a pull request that is ours, kept up to date.

use super::failure::Failure;
use super::http::Scope;
use super::pull_requests::Links;
use super::{Client, Level};
use crate::error::{Kind, Result};
use reqwest::Method;
use serde::Deserialize;
use serde_json::json;

const SCOPE: Scope = Scope {
    access: "pullrequest",
    api: "read:pullrequest:bitbucket",
    level: Level::Repository,
    kind: Kind::Publication,
};

/// A comment as Bitbucket sends it, as far as it is of use here.
#[derive(Deserialize)]
struct Sent {
    id: u64,
    content: Content,
    links: Links,
}

#[derive(Deserialize)]
struct Content {
    raw: String,
}

impl Client {
    /// Sets the comment on a pull request that contains `marker` to `body`, or writes it, and returns its URL.
    ///
    /// `body` must contain `marker`, by which the next call finds the comment. Of several that contain it the
    /// newest is ours: an older one may be of another identity, whose comments cannot be edited.
    pub async fn upsert_comment(&self, pull_request_id: u64, marker: &str, body: &str) -> Result<String> {
        debug_assert!(body.contains(marker), "a comment without its marker is written anew each time");
        let id = pull_request_id.to_string();
        let what = format!("comment on pull request {id}");
        let content = json!({ "content": { "raw": body } });
        self.call(&what, SCOPE, async || {
            if let Some(ours) = self.comment_with(&id, marker).await? {
                let url = self.url(&["pullrequests", &id, "comments", &ours.to_string()]);
                match self.send::<Sent>(Method::PUT, url, Some(&content)).await {
                    // Not ours to edit, or deleted since it was listed: a new one then.
                    Err(failure) if matches!(failure.status(), Some(403 | 404)) => {}
                    done => return done.map(|comment| comment.links.html.href),
                }
            }
            let url = self.url(&["pullrequests", &id, "comments"]);
            let written: Sent = self.send(Method::POST, url, Some(&content)).await?;
            Ok(written.links.html.href)
        })
        .await
    }

    /// The number of the newest comment that contains the marker.
    async fn comment_with(&self, pull_request: &str, marker: &str) -> Result<Option<u64>, Failure> {
        let mut url = self.url(&["pullrequests", pull_request, "comments"]);
        url.query_pairs_mut().append_pair("q", "deleted=false").append_pair("pagelen", "100");
        let comments: Vec<Sent> = self.list(url).await?;
        let ours = comments.iter().filter(|comment| comment.content.raw.contains(marker));
        Ok(ours.map(|comment| comment.id).max())
    }
}
