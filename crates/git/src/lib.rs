//! Everything git: what is in the clone, and the one commit that goes back to the remote.
//!
//! A [`Checkout`] is the clone as Pipelines made it: shallow, detached or on a branch, owned by another user,
//! perhaps behind its remote. It is only read. The commit is made in a scratch repository inside its `.git`
//! folder, which borrows the clone's objects, and goes from there straight to the remote: the index, the
//! work tree, `HEAD`, the references and `.git/shallow` of the clone never change. A run that is killed
//! leaves that folder, nothing else; the next run removes it.
//!
//! Nothing here ever forces a push: a branch is only moved from the commit that it was seen at to a child of
//! it.

mod attributes;
mod branches;
mod conflict;
mod history;
mod identity;
mod limits;
mod links;
mod merge;
mod normalize;
mod opening;
mod outputs;
mod pack;
mod publication;
mod publish;
mod scratch;
mod snapshot;
mod target;
mod transport;
mod tree_entry;
mod workspace;

pub use branches::Branches;
pub use identity::StepIdentity;
pub use publication::{Destination, Publication, Published};
pub use snapshot::Snapshot;
pub use transport::{Access, GitRemote};

use attributes::Attributes;
use git2::{ErrorCode, ObjectType, Oid, Repository};
use opening::{open, open_clone, unusable};
use std::path::{Path, PathBuf};
use tokio_util::sync::CancellationToken;
use trainspot_base::error::{Context as _, Error, Kind, Result};
use trainspot_transfer::BundleEntry;

/// What must hold of any answer of a git server, and of any two changes of a file that are merged.
#[cfg(any(test, fuzzing))]
pub mod fuzzing {
    pub use crate::merge::fuzzing::merge;
    pub use crate::transport::fuzzing::packets;
}

/// The largest file that is read into memory as a whole: 1 MiB.
const SMALL_FILE_LIMIT_BYTES: u64 = 1 << 20;

/// The folder into which Pipelines itself writes; its clone excludes it, and so do we.
const GENERATED_FOLDER: &str = ".bitbucket/pipelines/generated";

/// A clone with a work tree and at least one commit.
#[derive(Clone, Debug)]
pub struct Checkout {
    root: PathBuf,
    commit: String,
    origin: Option<String>,
}

impl Checkout {
    /// Opens the clone whose work tree is `folder`.
    pub fn open(folder: &Path) -> Result<Self> {
        let repository = open_clone(folder)?;
        let root = repository
            .workdir()
            .ok_or_else(|| unusable(folder, "is a bare git repository, without a work tree"))?
            .to_owned();
        let commit = match repository.head().and_then(|head| head.peel_to_commit()) {
            Ok(commit) => commit.id().to_string(),
            Err(error) if matches!(error.code(), ErrorCode::UnbornBranch | ErrorCode::NotFound) => {
                return Err(unusable(folder, "is a git repository without any commit"));
            }
            Err(error) => return Err(unusable(folder, "has no readable HEAD").source(error)),
        };
        let origin = repository.find_remote("origin").ok();
        let origin = origin.and_then(|origin| origin.url().ok().map(str::to_owned));
        Ok(Self { root, commit, origin })
    }

    /// This clone as one in a pull request's pipeline, which runs for `source`, a hash that may be
    /// abbreviated.
    ///
    /// Such a pipeline merges the target branch into the clone before it runs: `HEAD` is then a commit that
    /// the remote has never seen, and on which no push can build. Its parent `source` takes its place.
    #[must_use]
    pub fn of_pull_request(mut self, source: &str) -> Self {
        let parent = || {
            let repository = open(&self.root).ok()?;
            let head = repository.head().ok()?.peel_to_commit().ok()?;
            let source = repository.revparse_single(source).ok()?.id();
            head.parent_ids().find(|parent| *parent == source)
        };
        if let Some(parent) = parent() {
            self.commit = parent.to_string();
        }
        self
    }

    /// The full hash of the pipeline's commit: the one that is checked out, but for
    /// [`Checkout::of_pull_request`].
    #[must_use]
    pub fn commit(&self) -> &str {
        &self.commit
    }

    /// The commit of the branch that a pull request would go to, if the clone has it. `said` is what
    /// Pipelines says of it.
    #[must_use]
    pub fn target_of_pull_request(&self, branch: &str, said: Option<&str>) -> Option<String> {
        target::commit(&self.root, branch, said, &self.commit)
    }

    /// The URL of the remote called `origin`.
    #[must_use]
    pub fn origin(&self) -> Option<&str> {
        self.origin.as_deref()
    }

    /// The files that a machine needs to do what a later step could do here, sorted by path.
    ///
    /// These are the files that git tracks, the files of earlier steps that git does not ignore, and the
    /// files that a glob in `include` matches although git ignores them. Of a submodule, or a clone inside
    /// the clone, all files on the disk belong to them. A link that `include` matches is sent as its target
    /// where the machine would not have the target.
    pub fn workspace(&self, include: &[String]) -> Result<Vec<BundleEntry>> {
        workspace::list(&open_clone(&self.root)?, &self.root, include)
    }

    /// The commit that is checked out, for a machine to make a repository of: it has no history and nothing
    /// secret.
    ///
    /// Commits that are made on the machine get this name and e-mail address.
    pub fn snapshot(&self, user_name: &str, user_email: &str) -> Result<Snapshot> {
        Snapshot::take(&self.root, user_name, user_email)
    }

    /// What git tracks at or below one of these paths, or above one where that is no folder: a file, a link
    /// or a submodule.
    ///
    /// # Errors
    /// The clone cannot be read.
    pub fn tracked(&self, paths: &[String]) -> Result<Vec<PathBuf>> {
        let all =
            workspace::tracked(&open_clone(&self.root)?).context("cannot list the files that git tracks")?;
        let touches =
            |file: &PathBuf, path: &String| file.starts_with(path) || Path::new(path).starts_with(file);
        Ok(all.into_iter().filter(|file| paths.iter().any(|path| touches(file, path))).collect())
    }

    /// The files among `paths` that git ignores. A file that git tracks nevertheless is not ignored.
    ///
    /// # Errors
    /// The clone cannot be read.
    pub fn ignored<'p>(&self, paths: &'p [PathBuf]) -> Result<Vec<&'p Path>> {
        workspace::ignored(&open(&self.root)?, paths).context("cannot tell which files git ignores")
    }

    /// The content of the file `path` at `commit`, or `None` where there is no such file.
    ///
    /// A file of more than 1 MiB is an error: it is not what this is for.
    pub fn read_at(&self, commit: &str, path: &Path) -> Result<Option<Vec<u8>>> {
        let commit = Oid::from_str(commit).with_context(|| format!("{commit} is not a commit's hash"))?;
        read_at(&open(&self.root)?, commit, path)
    }

    /// Refuses files that cannot be committed because of what the repository says of their paths, under the
    /// names by which the user knows them. They need not exist.
    ///
    /// # Errors
    /// An attribute has git change a file's bytes in a way that is not ours to do. All files are named at
    /// once.
    pub fn check_attributes(&self, files: &[(String, PathBuf)]) -> Result<()> {
        let repository = open_clone(&self.root)?;
        let check = |(name, path): &(String, PathBuf)| {
            Attributes::new(&repository, path).check().with_context(|| format!("cannot commit {name}"))
        };
        Error::all("outputs cannot be committed", files.iter().filter_map(|file| check(file).err()).collect())
    }

    /// Refuses files of the clone that are too large for Bitbucket.
    ///
    /// # Errors
    /// A file is too large. All such files are named at once.
    pub fn check_sizes(&self, files: &[PathBuf]) -> Result<()> {
        outputs::check_sizes(&self.root, files)
    }

    /// Commits the outputs on the remote, or says that there is nothing new in them.
    ///
    /// Dropping the future stops the work: the remote then has all of it or nothing.
    pub async fn publish(&self, remote: &GitRemote, publication: &Publication) -> Result<Published> {
        let stop = CancellationToken::new();
        let _stops_when_dropped = stop.clone().drop_guard();
        publish::publish(self.clone(), remote.clone(), publication.clone(), stop)
            .await
            .map_err(as_publication)
    }
}

impl GitRemote {
    /// Asks the remote whether it would take a push from us, which a run should know before it costs
    /// anything, and what branches it has.
    ///
    /// It answers for the credential only: a rule for one branch shows at the push.
    pub async fn check(&self) -> Result<Branches> {
        let stop = CancellationToken::new();
        let _stops_when_dropped = stop.clone().drop_guard();
        publish::check_remote(self.clone(), stop).await.map_err(as_publication)
    }
}

/// Says whether a branch can have this name, given without `refs/heads/`.
pub fn check_branch(name: &str) -> Result<()> {
    if !name.starts_with("refs/") && git2::Branch::name_is_valid(name).unwrap_or(false) {
        return Ok(());
    }
    Err(Error::new(format!("{name:?} is not a branch's name"))
        .kind(Kind::Configuration)
        .hint("name it without refs/heads/, as in `git check-ref-format --branch NAME`"))
}

/// A failure that has no kind yet is one of publishing.
fn as_publication(error: Error) -> Error {
    error.or_kind(Kind::Publication)
}

fn read_at(repository: &Repository, commit: Oid, path: &Path) -> Result<Option<Vec<u8>>> {
    let context = || format!("cannot read {} at {commit}", path.display());
    let tree = repository.find_commit(commit).and_then(|commit| commit.tree()).with_context(context)?;
    let entry = match tree.get_path(path) {
        Ok(entry) if entry.kind() == Some(ObjectType::Blob) => entry,
        Ok(_) => return Ok(None),
        Err(error) if error.code() == ErrorCode::NotFound => return Ok(None),
        Err(error) => return Err(error).with_context(context),
    };
    let odb = repository.odb().with_context(context)?;
    let (size, _) = odb.read_header(entry.id()).with_context(context)?;
    if size as u64 > SMALL_FILE_LIMIT_BYTES {
        return Err(Error::new(format!(
            "{}: it has {size} bytes, more than {SMALL_FILE_LIMIT_BYTES}",
            context()
        )));
    }
    Ok(Some(odb.read(entry.id()).with_context(context)?.data().to_vec()))
}

/// Whether `path` is git's own or Pipelines' own, and so never sent and never committed.
fn is_reserved(path: &Path) -> bool {
    path.starts_with(GENERATED_FOLDER)
        || path.components().any(|part| part.as_os_str().eq_ignore_ascii_case(".git"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_a_usable_clone_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let why = |path: &Path| Checkout::open(path).unwrap_err().to_string();
        assert!(why(folder.path()).ends_with("is not a git repository"));
        Repository::init(folder.path().join("new")).unwrap();
        assert!(why(&folder.path().join("new")).ends_with("is a git repository without any commit"));
        Repository::init_bare(folder.path().join("bare")).unwrap();
        assert!(why(&folder.path().join("bare")).ends_with("is a bare git repository, without a work tree"));
    }

    #[test]
    fn reserved_paths() {
        for path in [".git/config", "a/.git/x", "a/.GIT", ".bitbucket/pipelines/generated/x"] {
            assert!(is_reserved(Path::new(path)), "{path}");
        }
        for path in [".gitignore", ".bitbucket/pipelines/x", "model/git"] {
            assert!(!is_reserved(Path::new(path)), "{path}");
        }
    }
}
