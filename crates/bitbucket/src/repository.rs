//! What Bitbucket says of the repository, and of what a credential may do there.

use super::http::{Permission, understood};
use super::{Client, Scope, pull_requests};
use reqwest::Method;
use reqwest::header::HeaderMap;
use serde::Deserialize;
use serde_json::Value;
use trainspot_base::error::{Kind, Result};

const REPOSITORY_PERMISSION: Permission = Permission {
    access: "repository",
    api: "read:repository:bitbucket",
    scope: Scope::Repository,
    kind: Kind::Configuration,
};
/// The header in which Bitbucket lists what a credential may do.
const SCOPES_HEADER: &str = "x-oauth-scopes";
/// Scopes that let a credential open pull requests: an access token's, and an API token's.
const OPENS_PULL_REQUESTS: [&str; 2] = ["pullrequest:write", "write:pullrequest:bitbucket"];

/// A repository, as far as a run must know of it before it begins.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Repository {
    /// The repository's size in bytes, if Bitbucket tells.
    pub size: Option<u64>,
    /// The name of the branch, if the repository has one.
    pub main_branch: Option<String>,
    /// What the credential may do, if Bitbucket tells.
    pub scopes: Option<Vec<String>>,
}

impl Repository {
    /// Whether the credential may open pull requests, if Bitbucket tells.
    #[must_use]
    pub fn lets_open_pull_requests(&self) -> Option<bool> {
        let scopes = self.scopes.as_ref()?;
        Some(scopes.iter().any(|scope| OPENS_PULL_REQUESTS.contains(&scope.as_str())))
    }
}

/// A repository as Bitbucket sends it.
#[derive(Deserialize)]
struct SentRepository {
    size: Option<u64>,
    mainbranch: Option<SentBranch>,
}

/// A branch as Bitbucket sends it.
#[derive(Deserialize)]
struct SentBranch {
    name: Option<String>,
    default_merge_strategy: Option<String>,
}

impl Client {
    /// The client's repository.
    ///
    /// # Errors
    /// The credential is none that Bitbucket knows, or may not read the repository.
    pub async fn look_up(&self) -> Result<Repository> {
        self.call("look up the repository", REPOSITORY_PERMISSION, async || {
            let answer = self.exchange(Method::GET, self.url(&[]), None).await?;
            let sent: SentRepository = understood(&answer)?;
            let main_branch = sent.mainbranch.and_then(|branch| branch.name);
            Ok(Repository { size: sent.size, main_branch, scopes: scopes(&answer.headers) })
        })
        .await
    }

    /// Makes sure that the credential may read pull requests. Whether it may open one shows only by doing so.
    ///
    /// # Errors
    /// It may not.
    pub async fn check_pull_requests(&self) -> Result<()> {
        let mut url = self.url(&["pullrequests"]);
        url.query_pairs_mut().append_pair("pagelen", "1");
        self.call("list pull requests", pull_requests::PULL_REQUEST_PERMISSION, async || {
            self.page::<Value>(url.clone()).await.map(drop)
        })
        .await
    }

    /// How pull requests into a branch are merged unless somebody chooses another way, if Bitbucket tells.
    pub async fn merge_strategy(&self, branch: &str) -> Result<Option<String>> {
        let what = format!("look up the branch {branch}");
        self.call(&what, REPOSITORY_PERMISSION, async || {
            let url = self.url(&["refs", "branches", branch]);
            self.send::<SentBranch>(Method::GET, url, None).await.map(|sent| sent.default_merge_strategy)
        })
        .await
    }
}

/// The scopes that an answer names. A header without any says nothing.
fn scopes(headers: &HeaderMap) -> Option<Vec<String>> {
    let text = headers.get(SCOPES_HEADER)?.to_str().ok()?;
    let scopes = text.split(',').map(str::trim).filter(|scope| !scope.is_empty()).map(str::to_owned);
    Some(scopes.collect()).filter(|scopes: &Vec<String>| !scopes.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scopes_are_what_the_header_says_of_them() {
        let may = |value: Option<&str>| {
            let headers = value.map(|value| (SCOPES_HEADER.parse().unwrap(), value.parse().unwrap()));
            Repository { scopes: scopes(&headers.into_iter().collect()), ..Repository::default() }
                .lets_open_pull_requests()
        };
        assert_eq!(may(Some("webhook, issue:write, pullrequest:write, account")), Some(true));
        assert_eq!(may(Some("read:repository:bitbucket,write:pullrequest:bitbucket")), Some(true));
        assert_eq!(may(Some("repository:write, pullrequest")), Some(false));
        assert_eq!([may(None), may(Some("")), may(Some(" , "))], [None, None, None]);
    }
}
