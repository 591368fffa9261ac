//! Publications from clones as Pipelines makes them to a real git behind HTTP; what arrived is judged by git
//! itself.
#![allow(clippy::unwrap_used, reason = "the lint's exception covers test functions, not what they share")]

mod attributes;
mod concurrent;
mod forms;
mod kill;
mod merge;
mod publish;
mod refusals;
mod snapshot;
mod transport;
mod workspace;

use fake_bitbucket::{ACCESS_TOKEN, BareRepository, FakeBitbucket};
use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};
use tempfile::TempDir;
use trainspot_base::error::{Error, Result};
use trainspot_git::{
    Access, Branches, Checkout, Destination, GitRemote, Publication, Published, StepIdentity,
};

const BRANCH: &str = "trainspot/main-1234567";
const FALLBACK: &str = "trainspot/main-1234567-conflict";

/// A repository on the fake Bitbucket, and a shallow clone of it with two outputs in it.
struct World {
    directory: TempDir,
    bare: BareRepository,
    fake: FakeBitbucket,
}

impl World {
    fn new() -> Self {
        Self::with_commits(60)
    }

    fn with_commits(commits: usize) -> Self {
        Self::with(commits, &[])
    }

    /// With files in the pipeline's commit.
    fn with_files(files: &[(&str, &[u8])]) -> Self {
        Self::with(2, files)
    }

    fn with(commits: usize, files: &[(&str, &[u8])]) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let bare = BareRepository::create(&directory.path().join("bare.git"), commits);
        if !files.is_empty() {
            bare.commit("main", "files", files);
        }
        let fake = FakeBitbucket::serving(&bare);
        fake.clone_as_pipelines("main", &directory.path().join("clone"));
        let world = Self { directory, bare, fake };
        if files.iter().all(|(path, _)| !path.starts_with("model")) {
            world.write("model/forest.bin", b"forest 1");
            world.write("model/metrics.json", br#"{"accuracy": 0.9}"#);
        }
        world
    }

    fn clone(&self) -> PathBuf {
        self.directory.path().join("clone")
    }

    fn write(&self, path: &str, content: &[u8]) {
        let path = self.clone().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }

    fn checkout(&self) -> Checkout {
        Checkout::open(&self.clone()).unwrap()
    }

    fn git_in_clone(&self, arguments: &[&str]) -> String {
        let output = Command::new("git").arg("-C").arg(self.clone()).args(arguments).output().unwrap();
        assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    /// Everything in the clone that a publication must leave alone.
    fn state(&self) -> [String; 5] {
        let read =
            |path| fs::read(self.clone().join(path)).map(|bytes| format!("{bytes:?}")).unwrap_or_default();
        let refs = self.git_in_clone(&["for-each-ref"]);
        let status =
            self.git_in_clone(&["--no-optional-locks", "status", "--porcelain", "--untracked-files=all"]);
        [refs, status, read(".git/HEAD"), read(".git/index"), read(".git/shallow")]
    }

    /// Publishes as the same step does when it is run again: it begins after what is on the remote now.
    async fn publish_again(&self, destination: Destination) -> Result<Published> {
        let seen = self.by_token().check().await.unwrap();
        self.publish_to(&self.by_token(), Publication { seen, ..publication(destination) }).await
    }

    async fn publish(&self, destination: Destination) -> Result<Published> {
        self.publish_to(&self.by_token(), publication(destination)).await
    }

    /// Publishes, and checks that the clone is as it was before.
    async fn publish_to(&self, remote: &GitRemote, publication: Publication) -> Result<Published> {
        let before = self.state();
        let published = self.checkout().publish(remote, &publication).await;
        assert_eq!(self.state(), before);
        assert!(!self.clone().join(".git/trainspot").exists(), "the scratch repository is still there");
        self.bare.git(&["fsck", "--strict", "--connectivity-only"]);
        published
    }

    fn by_token(&self) -> GitRemote {
        let access = Access::Token { username: "x-token-auth", secret: ACCESS_TOKEN.into() };
        GitRemote { url: self.fake.git_url(), access }
    }

    /// What a commit on the remote changed, a line a file.
    fn changes(&self, revision: &str) -> Vec<String> {
        let text = self.bare.git(&["show", "--format=", "--name-status", revision]);
        text.lines().map(str::to_owned).collect()
    }

    fn count(&self, revision: &str) -> usize {
        self.bare.git(&["rev-list", "--count", revision]).parse().unwrap()
    }
}

fn publication(destination: Destination) -> Publication {
    publication_of("forest", destination, &["model/forest.bin", "model/metrics.json"])
}

/// What the step of this name publishes, in a run that began before anything was pushed.
fn publication_of(step: &str, destination: Destination, outputs: &[&str]) -> Publication {
    let pipeline = Some("https://bitbucket.org/acme/forest/pipelines/results/7".to_owned());
    let identity = StepIdentity { run: format!("run-{step}"), step: format!("step-{step}"), pipeline };
    Publication {
        outputs: outputs.iter().map(PathBuf::from).collect(),
        destination,
        message: format!("Retrain [skip ci]\n\n{}\n", identity.trailers().join("\n")),
        author_name: "trainspot".into(),
        author_email: "ci@example.com".into(),
        baseline: vec![],
        identity,
        seen: Branches::default(),
        size_limits: true,
    }
}

fn pull_request() -> Destination {
    Destination::PullRequest { branch: BRANCH.into(), target: None }
}

fn push() -> Destination {
    Destination::Push { branch: "main".into(), fallback_branch: FALLBACK.into() }
}

/// The commit, the branch and whether it existed, of a publication that must have pushed.
fn pushed(published: Result<Published>) -> (String, String, bool) {
    match published.map_err(|error| error.render()) {
        Ok(Published::Pushed { branch, commit, updated_existing, .. }) => (commit, branch, updated_existing),
        other => panic!("not pushed: {other:?}"),
    }
}

fn failed(published: Result<Published>) -> Error {
    match published {
        Err(error) => error,
        Ok(published) => panic!("it did not fail: {published:?}"),
    }
}

fn bytes_of(size: usize) -> Vec<u8> {
    let mut bytes = vec![0; size];
    // Xorshift: incompressible, and the same each time.
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    for chunk in bytes.chunks_mut(8) {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        chunk.copy_from_slice(&state.to_le_bytes()[..chunk.len()]);
    }
    bytes
}

fn exists(path: &Path) -> bool {
    path.symlink_metadata().is_ok()
}
