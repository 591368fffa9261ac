//! Where the commit is pushed to, and with which credential: Bitbucket's token is for Bitbucket alone.

use super::publisher::Publisher;
use trainspot_base::error::{Error, Kind, Result};
use trainspot_bitbucket::{Credential, StepVariables};
use trainspot_git::{Access, GitRemote};
use url::{Origin, Url};

/// Where Bitbucket Cloud's repositories are.
const BITBUCKET_URL: &str = "https://bitbucket.org";

impl Publisher<'_> {
    /// The remote that the clone calls `origin`.
    ///
    /// # Errors
    /// There is none, or it is at an address that must not see the token.
    pub(super) fn push_remote(&self) -> Result<GitRemote> {
        let origin = self
            .checkout
            .origin()
            .map(str::to_owned)
            .or_else(|| self.config.pipeline.git_http_origin.clone());
        let origin = origin.ok_or_else(|| {
            Error::new("the clone has no remote 'origin' to push to")
                .kind(Kind::Configuration)
                .hint("clone the repository from Bitbucket, or set PUBLISH to 'none'")
        })?;
        remote_at(origin, &self.config.pipeline, self.config.bitbucket.credential.as_ref())
    }
}

fn remote_at(origin: String, pipeline: &StepVariables, credential: Option<&Credential>) -> Result<GitRemote> {
    let by_proxy = matches!(credential, Some(Credential::PipelinesProxy { .. }));
    let url = push_url(origin, pipeline, by_proxy);
    let (variable, access) = match credential {
        Some(Credential::AccessToken(token)) => (
            Some("BITBUCKET_ACCESS_TOKEN"),
            Access::Token { username: "x-token-auth", secret: token.clone() },
        ),
        Some(Credential::ApiToken { token, .. }) => (
            Some("ATLASSIAN_API_TOKEN"),
            Access::Token { username: "x-bitbucket-api-token-auth", secret: token.clone() },
        ),
        Some(Credential::PipelinesProxy { proxy_url }) if url.starts_with("http://") => {
            (None, Access::Proxy { url: proxy_url.clone() })
        }
        Some(Credential::PipelinesProxy { .. }) | None => (None, Access::Anonymous),
    };
    let remote = GitRemote { url, access };
    match (variable, remote.address()) {
        (Some(variable), Some(address)) if !may_see_the_token(&address, &remote.access, pipeline) => {
            Err(token_refused(variable, &address, pipeline))
        }
        _ => Ok(remote),
    }
}

/// Whether a token for Bitbucket may go to this scheme, host and port. What `origin` says is no reason:
/// whatever ran in the step before, and git's configuration (`url.*.insteadOf`), may have changed it.
fn may_see_the_token(address: &Origin, access: &Access, pipeline: &StepVariables) -> bool {
    let named = pipeline.git_http_origin.clone().map(|url| GitRemote { url, access: access.clone() });
    let named = named.and_then(|remote| remote.address());
    let bitbucket = Url::parse(BITBUCKET_URL).map(|url| url.origin()).ok();
    [bitbucket, named].into_iter().flatten().any(|known| known == *address)
}

fn token_refused(variable: &str, address: &Origin, pipeline: &StepVariables) -> Error {
    let place = address.ascii_serialization();
    let part = |name: &Option<String>, otherwise: &str| name.clone().unwrap_or_else(|| otherwise.to_owned());
    let (workspace, slug) = (part(&pipeline.workspace, "WORKSPACE"), part(&pipeline.repo_slug, "REPOSITORY"));
    Error::new(format!("the clone's remote 'origin' is at {place}, to which {variable} must not go"))
        .kind(Kind::Configuration)
        .hint(format!(
            "git remote set-url origin {BITBUCKET_URL}/{workspace}/{slug}.git, and look for url.*.insteadOf in git's \
             configuration; a Bitbucket at another address is named in BITBUCKET_GIT_HTTP_ORIGIN"
        ))
}

/// Where to push over HTTP to the remote that the clone calls `origin`, which may be known there by an
/// address of SSH.
fn push_url(origin: String, pipeline: &StepVariables, by_proxy: bool) -> String {
    let over_ssh = origin.starts_with("ssh://")
        || (origin.contains('@') && origin.contains(':') && !origin.contains("://"));
    match (&pipeline.workspace, &pipeline.repo_slug, &pipeline.git_http_origin) {
        (_, _, Some(http_origin)) if over_ssh && by_proxy => http_origin.clone(),
        (Some(workspace), Some(slug), _) if over_ssh => {
            format!("https://bitbucket.org/{workspace}/{slug}.git")
        }
        _ => origin,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EVIL: &str = "https://evil.example";

    fn pipeline() -> StepVariables {
        StepVariables {
            workspace: Some("acme".to_owned()),
            repo_slug: Some("forest".to_owned()),
            git_http_origin: Some("http://bitbucket.org/acme/forest".to_owned()),
            ..StepVariables::default()
        }
    }

    #[test]
    fn an_address_of_ssh_becomes_one_of_http_in_the_workspace_of_the_repository() {
        for origin in ["git@bitbucket.org:acme/forest.git", "ssh://git@bitbucket.org/acme/forest.git"] {
            let url = |pipeline: &StepVariables, by_proxy| push_url(origin.to_owned(), pipeline, by_proxy);
            assert_eq!(url(&pipeline(), false), "https://bitbucket.org/acme/forest.git");
            assert_eq!(url(&pipeline(), true), "http://bitbucket.org/acme/forest");
            assert_eq!(url(&StepVariables::default(), false), origin);
        }
        for origin in ["https://u:p@bitbucket.org/a/b.git", "/srv/forest.git", "file:///srv/a:b@c"] {
            assert_eq!(push_url(origin.to_owned(), &pipeline(), true), origin);
        }
    }

    fn token() -> Credential {
        Credential::AccessToken("a-token".into())
    }

    fn goes(origin: &str, named: Option<&str>) -> bool {
        let pipeline = StepVariables { git_http_origin: named.map(str::to_owned), ..pipeline() };
        remote_at(origin.to_owned(), &pipeline, Some(&token())).is_ok()
    }

    #[test]
    fn the_token_goes_to_bitbucket_in_every_way_to_write_its_address() {
        for origin in [
            "https://bitbucket.org/acme/forest.git",
            "http://bitbucket.org/acme/forest",
            "https://BitBucket.ORG:443/acme/forest",
            "https://x-token-auth:old@bitbucket.org/acme/forest",
            "git@bitbucket.org:acme/forest.git",
        ] {
            assert!(goes(origin, None), "{origin}");
        }
    }

    #[test]
    fn the_token_goes_to_no_address_that_only_looks_like_bitbuckets() {
        for origin in [
            EVIL,
            "https://bitbucket.org@evil.example/acme/forest",
            "https://bitbucket.org:443@evil.example/acme/forest",
            "https://bitbucket.org.evil.example/acme/forest",
            "https://evilbitbucket.org/acme/forest",
            "https://bitbucket.org./acme/forest",
            "https://bitbucket.org:8443/acme/forest",
            "http://bitbucket.org:8080/acme/forest",
            "https://bitbucket.\u{043e}rg/acme/forest",
            "https://b\u{0456}tbucket.org/acme/forest",
            "https://api.bitbucket.org/acme/forest",
            "https:evil.example/acme/forest",
            "https:/\\evil.example/bitbucket.org",
            "http://127.0.0.1:9/acme/forest",
            "http://localhost/acme/forest",
            "http://[::1]:9/acme/forest",
        ] {
            assert!(!goes(origin, None), "{origin}");
            assert!(!goes(origin, Some("http://bitbucket.org/acme/forest")), "{origin}");
        }
    }

    #[test]
    fn the_token_goes_to_the_host_and_port_that_the_step_names_and_to_no_other_of_that_host() {
        let named = Some("http://127.0.0.1:7990/acme/forest");
        assert!(goes("http://127.0.0.1:7990/acme/forest.git", named));
        assert!(!goes("http://127.0.0.1:7991/acme/forest.git", named));
        assert!(!goes("http://localhost:7990/acme/forest.git", named));
        let named = Some("http://git.acme.example/acme/forest");
        assert!(goes("https://git.acme.example/acme/forest", named));
        assert!(!goes("https://git.acme.example.evil.example/acme/forest", named));
    }

    #[test]
    fn a_refusal_names_the_address_and_the_way_back() {
        let refused = remote_at(format!("{EVIL}/x"), &pipeline(), Some(&token())).unwrap_err();
        let shown = refused.render();
        assert_eq!(refused.exit_kind(), Kind::Configuration);
        for word in [
            EVIL,
            "BITBUCKET_ACCESS_TOKEN",
            "set-url origin https://bitbucket.org/acme/forest.git",
            "insteadOf",
        ] {
            assert!(shown.contains(word), "{word} in {shown}");
        }
        let other = Credential::ApiToken { email: "a@b.c".to_owned(), token: "t".into() };
        let shown = remote_at(format!("{EVIL}/x"), &pipeline(), Some(&other)).unwrap_err().render();
        assert!(shown.contains("ATLASSIAN_API_TOKEN"), "{shown}");
    }

    #[test]
    fn without_a_token_any_remote_will_do() {
        for origin in [EVIL, "/srv/forest.git"] {
            assert!(remote_at(origin.to_owned(), &pipeline(), None).is_ok(), "{origin}");
        }
        assert!(remote_at("/srv/forest.git".to_owned(), &pipeline(), Some(&token())).is_ok());
    }
}
