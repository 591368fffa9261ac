//! Bitbucket as the tests and the demonstration need it: git over HTTP, the Pipelines auth proxy, and the
//! part of the REST API 2.0 that `trainspot` calls, held to Bitbucket's own `OpenAPI` document. All on
//! loopback.
//!
//! A [`FakeBitbucket`] runs on threads of its own, so that blocking code (git2, a git process) can be tested
//! against it without an asynchronous runtime. It serves tests: what goes wrong in it panics.
#![allow(clippy::missing_panics_doc, clippy::must_use_candidate, reason = "support for tests")]

mod auth;
mod body;
mod contract;
mod control;
mod fault;
mod git;
mod repository;
mod rest;
mod runner_door;
mod server;
mod state;

use contract::Contract;
use server::Door;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::runtime::Runtime;

pub use auth::{ACCESS_TOKEN, API_EMAIL, API_TOKEN};
pub use fault::Fault;
pub use repository::BareRepository;
pub use runner_door::{ACCOUNT_UUID, REPOSITORY_UUID};
pub use state::{
    BuildStatus, Comment, Pipeline, PullRequest, Recorded, Report, Runner, Step, StepDefinition, Variable,
};

/// What a fake is started with.
#[derive(Clone, Debug)]
pub struct Options {
    /// The address that it listens on.
    pub address: IpAddr,
    /// The workspace's name in every URL.
    pub workspace: String,
    /// The repository's slug in every URL.
    pub slug: String,
    /// The bare repository behind it; without one, git requests are answered 404 and any branch exists.
    pub repository: Option<PathBuf>,
    /// The most values on one page of a list: small, so that tests meet the second page.
    pub page_length: usize,
    /// A runner that has not been heard of for this long is offline, and its step has failed.
    pub silence: Duration,
    /// What both tokens may do, by the names of an access token's scopes.
    pub scopes: Vec<String>,
    /// Whether answers tell that, in a header.
    pub tells_scopes: bool,
    /// The repository's size in bytes, as the API tells it.
    pub size: u64,
    /// How pull requests are merged unless somebody chooses another way.
    pub merge_strategy: String,
    /// Whether a runner can be disabled; else Bitbucket takes the request and leaves the runner as it is.
    pub disables: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            address: Ipv4Addr::LOCALHOST.into(),
            workspace: "acme".into(),
            slug: "forest".into(),
            repository: None,
            page_length: 2,
            silence: Duration::from_secs(10),
            scopes: ["repository:write", "pullrequest:write", "pipeline:write", "runner:write"]
                .map(str::to_owned)
                .to_vec(),
            tells_scopes: true,
            size: 12_345_678,
            merge_strategy: "merge_commit".into(),
            disables: true,
        }
    }
}

/// A running fake. Dropping it ends it, and fails the test if the contract was broken.
pub struct FakeBitbucket {
    shared: Arc<Shared>,
    runtime: Option<Runtime>,
}

/// What the connections share.
struct Shared {
    options: Options,
    address: SocketAddr,
    proxy: SocketAddr,
    state: Mutex<state::State>,
    faults: Mutex<Vec<Fault>>,
    requests: Mutex<Vec<Recorded>>,
    violations: Mutex<Vec<String>>,
    contract: Option<&'static Contract>,
}

impl FakeBitbucket {
    /// Starts with the default [`Options`].
    pub fn start() -> Self {
        Self::start_with(Options::default())
    }

    /// Starts in front of a bare repository, with the other options at their defaults.
    pub fn serving(repository: &BareRepository) -> Self {
        Self::start_with(Options { repository: Some(repository.path().to_owned()), ..Options::default() })
    }

    /// Starts on two ports that the system picks.
    pub fn start_with(options: Options) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .expect("a runtime for the fake");
        let bind = || listener(&runtime, options.address);
        let (direct, proxy) = (bind(), bind());
        let shared = Arc::new(Shared {
            options,
            address: direct.local_addr().expect("the fake's address"),
            proxy: proxy.local_addr().expect("the proxy's address"),
            state: Mutex::default(),
            faults: Mutex::default(),
            requests: Mutex::default(),
            violations: Mutex::default(),
            contract: Contract::load(),
        });
        runtime.spawn(server::accept(direct, shared.clone(), Door::Direct));
        runtime.spawn(server::accept(proxy, shared.clone(), Door::Proxy));
        Self { shared, runtime: Some(runtime) }
    }

    /// The REST API's base, `http://127.0.0.1:<port>/2.0` by default.
    pub fn api_url(&self) -> String {
        format!("http://{}/2.0", self.shared.address)
    }

    /// The repository's own address, for pushes with credentials: `http://127.0.0.1:<port>/<ws>/<slug>.git`.
    pub fn git_url(&self) -> String {
        let Options { workspace, slug, .. } = &self.shared.options;
        format!("http://{}/{workspace}/{slug}.git", self.shared.address)
    }

    /// The Pipelines auth proxy, `http://127.0.0.1:<port>`: `http://host.docker.internal:29418` to a real
    /// pipe.
    pub fn proxy_url(&self) -> String {
        format!("http://{}", self.shared.proxy)
    }

    /// `BITBUCKET_GIT_HTTP_ORIGIN`, `http://bitbucket.org/<ws>/<slug>`: reachable only through the proxy.
    pub fn http_origin(&self) -> String {
        let Options { workspace, slug, .. } = &self.shared.options;
        format!("http://bitbucket.org/{workspace}/{slug}")
    }

    /// The workspace's name.
    pub fn workspace(&self) -> &str {
        &self.shared.options.workspace
    }

    /// The repository's slug.
    pub fn slug(&self) -> &str {
        &self.shared.options.slug
    }

    /// Clones `branch` into `directory` as a Pipelines step does: shallow, and set up for the proxy
    /// afterwards.
    pub fn clone_as_pipelines(&self, branch: &str, directory: &Path) {
        let url = self.git_url().replacen("http://", &format!("http://x-token-auth:{ACCESS_TOKEN}@"), 1);
        repository::clone_as_pipelines(&url, &self.http_origin(), branch, directory);
    }

    /// Makes the next matching requests fail as `fault` says. Faults are used up in the order they were
    /// added.
    pub fn next(&self, fault: Fault) {
        lock(&self.shared.faults).push(fault);
    }

    /// Forgets the faults that nothing has met yet.
    pub fn forget_faults(&self) {
        lock(&self.shared.faults).clear();
    }

    /// Every pull request, oldest first.
    pub fn pull_requests(&self) -> Vec<PullRequest> {
        lock(&self.shared.state).pull_requests.clone()
    }

    /// Makes somebody a default reviewer, by the id in braces and the name.
    pub fn add_default_reviewer(&self, uuid: &str, name: &str) {
        lock(&self.shared.state).default_reviewers.push((uuid.into(), name.into()));
    }

    /// Opens a pull request as somebody else would, and returns its number.
    pub fn add_pull_request(&self, title: &str, source: &str, destination: &str) -> u64 {
        lock(&self.shared.state).open(title, "", source, destination).id
    }

    /// Declines a pull request, so that it is no longer open.
    pub fn decline_pull_request(&self, id: u64) {
        let mut state = lock(&self.shared.state);
        state.pull_request(id).expect("the pull request to decline").state = "DECLINED";
    }

    /// Every comment, deleted ones too, oldest first.
    pub fn comments(&self) -> Vec<Comment> {
        lock(&self.shared.state).comments.clone()
    }

    /// Comments as somebody else would, and returns the comment's number.
    pub fn add_comment(&self, pull_request: u64, body: &str) -> u64 {
        self.add_comment_of("{00000000-0000-4000-8000-00000000beef}", pull_request, body)
    }

    /// Comments as the person with this `uuid` would, and returns the comment's number.
    pub fn add_comment_of(&self, author: &str, pull_request: u64, body: &str) -> u64 {
        lock(&self.shared.state).comment(pull_request, author, body).id
    }

    /// Deletes a comment as somebody else would.
    pub fn delete_comment(&self, id: u64) {
        let mut state = lock(&self.shared.state);
        state.comments.iter_mut().find(|comment| comment.id == id).expect("the comment to delete").deleted =
            true;
    }

    /// Every build status, the latest word of each key.
    pub fn statuses(&self) -> Vec<BuildStatus> {
        lock(&self.shared.state).statuses.clone()
    }

    /// Every Code Insights report, the latest word of each.
    pub fn reports(&self) -> Vec<Report> {
        lock(&self.shared.state).reports.clone()
    }

    /// Every request so far, those that were answered with a fault too.
    pub fn requests(&self) -> Vec<Recorded> {
        lock(&self.shared.requests).clone()
    }

    /// How many requests of `method` had `part` in their path.
    pub fn count(&self, method: &str, part: &str) -> usize {
        lock(&self.shared.requests).iter().filter(|r| r.method == method && r.path.contains(part)).count()
    }

    /// Fails if a request or an answer so far broke the contract. Dropping the fake does this too.
    pub fn assert_contract(&self) {
        let violations = self.take_violations();
        assert!(violations.is_empty(), "Bitbucket's contract was broken:\n{}", violations.join("\n"));
    }

    /// Takes the violations of the contract so far, for a test that expects some.
    pub fn take_violations(&self) -> Vec<String> {
        std::mem::take(&mut lock(&self.shared.violations))
    }
}

impl Drop for FakeBitbucket {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            // The test may itself run inside a runtime, where waiting for this one would panic.
            runtime.shutdown_background();
        }
        if !std::thread::panicking() {
            self.assert_contract();
        }
    }
}

/// A port that the system picks. Bound without the runtime: a test may already run inside another one.
fn listener(runtime: &Runtime, address: IpAddr) -> TcpListener {
    let listener = std::net::TcpListener::bind((address, 0)).expect("a port on this machine");
    listener.set_nonblocking(true).expect("a non-blocking listener");
    let _inside = runtime.enter();
    TcpListener::from_std(listener).expect("the listener joins the runtime")
}

/// Locks, even after another thread's panic: that panic is the failure to be seen.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}
