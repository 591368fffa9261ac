//! Who may do what: tokens, and what the Pipelines proxy authorises by itself.

use crate::server::Door;
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use hyper::HeaderMap;
use hyper::header::AUTHORIZATION;

/// The one access token that is accepted: as `Bearer` by the API, as the password of `x-token-auth` by git.
pub const ACCESS_TOKEN: &str = "fake-access-token";
/// The account that the API token belongs to.
pub const API_EMAIL: &str = "ci@example.com";
/// The one API token: with [`API_EMAIL`] at the API, as the password of `x-bitbucket-api-token-auth` by git.
pub const API_TOKEN: &str = "fake-api-token";

/// Whether a REST call to `path` (below `/2.0`) may proceed.
pub(crate) fn rest(headers: &HeaderMap, door: Door, path: &str) -> bool {
    let code_insights = path.contains("/commit/") && path.contains("/reports");
    (door == Door::Proxy && code_insights)
        || given(headers) == Some(format!("Bearer {ACCESS_TOKEN}"))
        || given(headers) == Some(basic(API_EMAIL, API_TOKEN))
}

/// The scope that a call needs which a token makes, by the path's segments below the repository or the
/// workspace; none where the call itself does not exist. As Bitbucket's `OpenAPI` document has it.
pub(crate) fn needed(method: &str, segments: &[&str]) -> Option<&'static str> {
    let reads = method == "GET";
    Some(match segments {
        ["commit", ..] => "repository",
        [] | ["refs", ..] if reads => "repository",
        ["pullrequests", _, "comments", ..] | ["effective-default-reviewers"] => "pullrequest",
        ["pullrequests", ..] if reads => "pullrequest",
        ["pullrequests", ..] => "pullrequest:write",
        ["pipelines-config", "runners", ..] if reads => "runner",
        ["pipelines-config", "runners", ..] => "runner:write",
        ["pipelines", ..] if reads => "pipeline",
        ["pipelines", ..] => "pipeline:write",
        _ => return None,
    })
}

/// Whether one of these scopes is, or implies, the one that is needed.
pub(crate) fn suffices(scopes: &[String], needed: &str) -> bool {
    let implied = |scope: &str| -> &'static [&'static str] {
        match scope {
            "repository:write" | "pullrequest" => &["repository"],
            "pullrequest:write" => &["pullrequest", "repository", "repository:write"],
            "pipeline:write" => &["pipeline"],
            "runner:write" => &["runner"],
            _ => &[],
        }
    };
    scopes.iter().any(|scope| scope == needed || implied(scope).contains(&needed))
}

/// The `uuid` of who calls: each token is an identity of its own.
pub(crate) fn author(headers: &HeaderMap) -> &'static str {
    if given(headers) == Some(format!("Bearer {ACCESS_TOKEN}")) {
        "{00000000-0000-4000-8000-00000000000a}"
    } else {
        "{00000000-0000-4000-8000-00000000000b}"
    }
}

/// Whether a git request may proceed. The proxy authorises all of them.
pub(crate) fn git(headers: &HeaderMap, door: Door) -> bool {
    door == Door::Proxy
        || given(headers) == Some(basic("x-token-auth", ACCESS_TOKEN))
        || given(headers) == Some(basic("x-bitbucket-api-token-auth", API_TOKEN))
}

fn given(headers: &HeaderMap) -> Option<String> {
    headers.get(AUTHORIZATION)?.to_str().ok().map(str::to_owned)
}

fn basic(user: &str, password: &str) -> String {
    format!("Basic {}", BASE64_STANDARD.encode(format!("{user}:{password}")))
}
