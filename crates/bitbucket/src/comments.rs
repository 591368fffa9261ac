//! The one comment on a pull request that is ours, kept up to date.

use super::failure::CallFailure;
use super::http::Permission;
use super::pull_requests::ResourceLinks;
use super::{Client, Scope};
use reqwest::Method;
use serde::Deserialize;
use serde_json::json;
use std::collections::BTreeSet;
use trainspot_base::error::{Kind, Result};

const COMMENT_PERMISSION: Permission = Permission {
    access: "pullrequest",
    api: "read:pullrequest:bitbucket",
    scope: Scope::Repository,
    kind: Kind::Publication,
};

/// The most authors whose comments are tried. Beyond so many authors of such comments, each report is a new
/// comment.
const AUTHORS_LIMIT: usize = 20;

/// A comment as Bitbucket sends it, as far as it is of use here.
#[derive(Deserialize)]
struct SentComment {
    id: u64,
    content: CommentContent,
    user: Option<CommentAuthor>,
    links: ResourceLinks,
}

#[derive(Deserialize)]
struct CommentContent {
    raw: String,
}

#[derive(Deserialize)]
struct CommentAuthor {
    uuid: Option<String>,
}

impl SentComment {
    fn author(&self) -> Option<&str> {
        self.user.as_ref()?.uuid.as_deref()
    }
}

impl Client {
    /// Sets our comment on a pull request, which begins with `marker`, to `body`, or writes it, and returns
    /// its URL.
    ///
    /// `body` must begin with `marker`, by which the next call finds the comment. Everybody can write the
    /// same, and who we are to Bitbucket nothing tells: an access token of a repository may not ask, and its
    /// successor is somebody else. So Bitbucket is asked to edit the newest such comment of each author, and
    /// refuses that for all but our own.
    pub async fn upsert_comment(&self, pull_request_id: u64, marker: &str, body: &str) -> Result<String> {
        debug_assert!(body.starts_with(marker), "a comment without its marker is written anew each time");
        let id = pull_request_id.to_string();
        let what = format!("comment on pull request {id}");
        let content = json!({ "content": { "raw": body } });
        self.call(&what, COMMENT_PERMISSION, async || {
            for comment in self.comments_with(&id, marker).await? {
                let url = self.url(&["pullrequests", &id, "comments", &comment.to_string()]);
                match self.send::<SentComment>(Method::PUT, url, Some(&content)).await {
                    // Not ours to edit, or deleted since it was listed.
                    Err(failure) if matches!(failure.status(), Some(403 | 404)) => {}
                    done => return done.map(|comment| comment.links.html.href),
                }
            }
            let url = self.url(&["pullrequests", &id, "comments"]);
            let written: SentComment = self.send(Method::POST, url, Some(&content)).await?;
            Ok(written.links.html.href)
        })
        .await
    }

    /// The number of each author's newest comment that begins with the marker, the newest first. Who only
    /// quotes it, further down, wrote a comment of another kind.
    async fn comments_with(&self, pull_request: &str, marker: &str) -> Result<Vec<u64>, CallFailure> {
        let mut url = self.url(&["pullrequests", pull_request, "comments"]);
        url.query_pairs_mut().append_pair("q", "deleted=false").append_pair("pagelen", "100");
        let mut comments: Vec<SentComment> = self.list(url).await?;
        comments.retain(|comment| comment.content.raw.trim_start().starts_with(marker));
        comments.sort_by_key(|comment| std::cmp::Reverse(comment.id));
        let mut authors = BTreeSet::new();
        comments.retain(|comment| authors.insert(comment.author().map(str::to_owned)));
        Ok(comments.iter().take(AUTHORS_LIMIT).map(|comment| comment.id).collect())
    }
}
