//! How refs, commits and packs travel between the clone and its remote.
//!
//! Over HTTP this is git's smart protocol, written here as far as one commit on top of a known one needs it:
//! list the branches, fetch one commit without its history, push one pack. The alternatives, and why not:
//!
//! * **libgit2 with its `https` feature and a vendored OpenSSL**: a release binary grows by 5.6 MB (2.5 to
//!   8.1 MB for a program that only pushes), its build by three minutes on two cores (55 to 231 s), and a
//!   second TLS stack with roots of its own joins the one that the REST client has.
//! * **libgit2's smart transport over `reqwest`** (a subtransport): it pushes what its pack builder makes,
//!   and that reads each object whole and deflates it again. Its fetch cannot leave out large files, and the
//!   subtransport would have to be registered for the process and find its credential behind the caller's
//!   back.
//!
//! One file of 95 MB of random bytes, shallow clone of 3000 commits, same loopback server (`git
//! http-backend`), two cores:
//!
//! | | time | peak memory |
//! | --- | --- | --- |
//! | `git add && git commit && git push` (2.47) | 14.4 s | 190 MB |
//! | the same with `http.postBuffer=200m`, which spares it many small chunks | 8.1 s | |
//! | libgit2's push alone, the file already added | 3.4 s | 188 MB |
//! | this module with [`super::pack`], everything | 2.6 to 5.0 s | 11 MB |
//!
//! What it leaves out on purpose: protocol version 2 (every server speaks version 0 to whom does not ask),
//! negotiation in rounds (the clone's latest commits are named at once), deltas, and SHA-256 repositories,
//! which Bitbucket has not.

#[cfg(any(test, fuzzing))]
pub(crate) mod fuzzing;
mod http;
mod local;
mod packet;
mod smart;

use super::Branches;
use super::pack::Pack;
use super::scratch::Scratch;
use git2::Oid;
use secrecy::SecretString;
use std::collections::BTreeMap;
use std::path::PathBuf;
use tokio_util::sync::CancellationToken;
use trainspot_base::error::{Error, Kind, Result};
use url::Url;

/// The repository that receives the commit, and how to be let in.
#[derive(Clone, Debug)]
pub struct GitRemote {
    /// `http(s)://…`, `file://…` or an absolute path. A user name or password in it is not used.
    pub url: String,
    /// The credential.
    pub access: Access,
}

impl GitRemote {
    /// Where the requests go, if over HTTP: scheme, host and port.
    #[must_use]
    pub fn address(&self) -> Option<url::Origin> {
        let url = Url::parse(&self.url).ok()?;
        matches!(url.scheme(), "http" | "https").then(|| http::base(url, &self.access).origin())
    }
}

/// How the remote knows us.
#[derive(Clone, Debug)]
pub enum Access {
    /// An access token or API token, sent over TLS only, except to this machine.
    Token {
        /// `x-token-auth` for an access token, `x-bitbucket-api-token-auth` for an Atlassian API token.
        username: &'static str,
        /// The token.
        secret: SecretString,
    },
    /// None of our own: the proxy of Pipelines at this URL adds the step's.
    Proxy {
        /// `http://host.docker.internal:29418` in a pipe.
        url: String,
    },
    /// None: for a repository on this machine's disk.
    Anonymous,
}

/// Why an exchange failed, by what to do about it.
pub(super) enum Fault {
    /// Another attempt may succeed: the network, an overloaded server, a branch that moved.
    Transient(Error),
    /// No further attempt can succeed.
    Final(Error),
}

impl From<Error> for Fault {
    fn from(error: Error) -> Self {
        Self::Final(error)
    }
}

/// The branches of the remote, at one moment.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Refs {
    /// By full name.
    pub(super) ids: BTreeMap<String, Oid>,
    /// What `HEAD` stands for, without `refs/heads/`.
    pub(super) default_branch: Option<String>,
    /// What the server can do, as it says it.
    pub(super) capabilities: Vec<String>,
}

impl Refs {
    pub(super) fn branch(&self, name: &str) -> Option<Oid> {
        self.ids.get(&format!("refs/heads/{name}")).copied()
    }

    pub(super) fn branches(&self) -> Branches {
        Branches::new(&self.ids)
    }

    fn can(&self, capability: &str) -> bool {
        self.capabilities.iter().any(|known| known == capability)
    }
}

/// How much of a branch's history to fetch.
#[derive(Clone, Copy)]
pub(super) struct FetchDepth {
    /// The newest commit.
    pub(super) tip: Oid,
    /// How many commits, that one included.
    pub(super) commits: usize,
}

/// A reference's move from `old`, or from nothing, to `new`.
pub(super) struct RefUpdate {
    pub(super) reference: String,
    pub(super) old: Option<Oid>,
    pub(super) new: Oid,
}

/// What the remote said of an update.
pub(super) enum PushAnswer {
    /// The remote made the update.
    Taken,
    /// The reference has left `old` meanwhile.
    Moved,
    /// A rule of the server is against it, in the server's words.
    Refused(String),
}

/// The way to the remote: over HTTP, or to a folder on this disk.
pub(super) enum RemoteTransport {
    Http(smart::SmartProtocol),
    Local(PathBuf),
}

impl RemoteTransport {
    pub(super) fn new(remote: &GitRemote, stop: CancellationToken) -> Result<Self> {
        let url = remote.url.as_str();
        match Url::parse(url) {
            Ok(parsed) if matches!(parsed.scheme(), "http" | "https") => {
                Ok(Self::Http(smart::SmartProtocol::new(http::GitHttp::new(parsed, &remote.access, stop)?)))
            }
            Ok(parsed) if parsed.scheme() == "file" => match parsed.to_file_path() {
                Ok(path) => Ok(Self::Local(path)),
                Err(()) => Err(Error::new(format!("{url} does not name a directory"))),
            },
            Err(_) if url.starts_with('/') => Ok(Self::Local(url.into())),
            _ => Err(Error::new("the remote's URL is neither http(s) nor a directory")
                .kind(Kind::Configuration)
                .hint(
                    "a push over SSH is not supported: set the remote to BITBUCKET_GIT_HTTP_ORIGIN \
                 (git remote set-url origin \"$BITBUCKET_GIT_HTTP_ORIGIN\")",
                )),
        }
    }

    pub(super) fn refs(&self) -> Result<Refs, Fault> {
        match self {
            Self::Http(smart) => smart.refs(),
            Self::Local(path) => Ok(local::refs(path)?),
        }
    }

    /// The branches, if a push would be let in.
    pub(super) fn check_push(&self) -> Result<Refs, Fault> {
        match self {
            Self::Http(smart) => smart.check_push(),
            Self::Local(path) => {
                local::check_push(path)?;
                Ok(local::refs(path)?)
            }
        }
    }

    /// Makes commits, their trees and their small files readable in the scratch repository.
    pub(super) fn fetch(
        &self,
        scratch: &Scratch,
        refs: &Refs,
        head: Oid,
        what: FetchDepth,
    ) -> Result<(), Fault> {
        match self {
            Self::Http(smart) => smart.fetch(scratch, refs, head, what),
            Self::Local(path) => Ok(local::fetch(path, scratch)?),
        }
    }

    pub(super) fn push(&self, update: &RefUpdate, pack: &Pack) -> Result<PushAnswer, Fault> {
        match self {
            Self::Http(smart) => smart.push(update, pack),
            Self::Local(path) => Ok(local::push(path, update, pack)?),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_not_shown() {
        let access = Access::Token { username: "x-token-auth", secret: "ATCTT3x".into() };
        let remote = GitRemote { url: "https://bitbucket.org/a/b".into(), access };
        let shown = format!("{remote:?}");
        assert!(shown.contains("x-token-auth") && !shown.contains("ATCTT3x"), "{shown}");
    }

    #[test]
    fn ssh_remotes_are_refused_with_the_way_out() {
        for url in ["git@bitbucket.org:a/b.git", "ssh://git@bitbucket.org/a/b", "relative/path"] {
            let remote = GitRemote { url: url.into(), access: Access::Anonymous };
            let error = RemoteTransport::new(&remote, CancellationToken::new()).err().unwrap();
            assert!(error.render().contains("BITBUCKET_GIT_HTTP_ORIGIN"), "{url}");
        }
    }
}
