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
