//! The scratch repository: where the commit is made, out of the clone's way.
//!
//! It borrows the clone's objects and work tree and owns everything that is written. libgit2 copes with
//! borrowed objects of a shallow clone as long as it knows where history ends, so the list of those commits
//! is copied. Working in the clone itself was rejected: a fetch would rewrite `.git/shallow` and a kill could
//! leave references behind.

use super::merge::Merged;
use super::publication::Publication;
use git2::build::TreeUpdateBuilder;
use git2::{ObjectType, Oid, Repository, RepositoryInitOptions, Signature};
use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::path::{Path, PathBuf};
use trainspot_base::error::{Context as _, Error, Result};

/// The folder inside `.git` for the scratch repository: on the disk that has room for the model, and shown by
/// no `git status`.
const SCRATCH_FOLDER: &str = "trainspot";

/// A commit that no reference names yet, with the objects that its parent's history does not have.
pub(super) struct NewCommit {
    pub(super) id: Oid,
    pub(super) objects: Vec<(ObjectType, Vec<u8>)>,
}

/// The scratch repository of one publication; it is removed when dropped.
pub(super) struct Scratch {
    repository: Repository,
    folder: PathBuf,
    tracks_executable_bit: bool,
    partial: bool,
    /// Held as long as the folder is in use; the system releases it with the process, however that ends.
    _lock: File,
}

impl Scratch {
    /// Makes the repository anew, and removes one that a killed run left.
    pub(super) fn new(clone: &Repository) -> Result<Self> {
        let folder = clone.path().join(SCRATCH_FOLDER);
        let context = || format!("cannot make a scratch repository in {}", folder.display());
        fs::create_dir_all(&folder).with_context(context)?;
        let lock = lock(&folder.join("lock")).with_context(context)?;
        let path = folder.join("repository");
        if path.exists() {
            fs::remove_dir_all(&path).with_context(context)?;
        }
        let mut options = RepositoryInitOptions::new();
        options.bare(true).no_reinit(true).external_template(false).mkpath(true);
        let repository = Repository::init_opts(&path, &options).with_context(context)?;
        if clone.commondir().join("shallow").exists() {
            fs::copy(clone.commondir().join("shallow"), path.join("shallow")).with_context(context)?;
        }
        let file_mode = clone.config().and_then(|config| config.get_bool("core.filemode")).unwrap_or(true);
        let partial = is_partial(clone);
        let tracks_executable_bit = file_mode;
        let scratch =
            Self { repository, folder: folder.clone(), tracks_executable_bit, partial, _lock: lock };
        scratch.borrow_objects(clone.commondir())?;
        Ok(scratch)
    }

    pub(super) fn repository(&self) -> &Repository {
        &self.repository
    }

    /// Makes the objects of another repository on this disk readable here.
    pub(super) fn borrow_objects(&self, git_folder: &Path) -> Result<()> {
        let objects = git_folder.join("objects");
        let borrowed = match objects.to_str() {
            Some(path) => self.repository.odb().and_then(|odb| odb.add_disk_alternate(path)),
            None => Err(git2::Error::from_str("its path is not UTF-8")),
        };
        borrowed.with_context(|| format!("cannot read the objects in {}", objects.display()))
    }

    /// Whether the clone's file system shows executable bits that mean something.
    pub(super) fn tracks_executable_bit(&self) -> bool {
        self.tracks_executable_bit
    }

    /// A new empty file that goes with the scratch repository.
    pub(super) fn file(&self, name: &str) -> Result<File> {
        let path = self.repository.path().join(name);
        let file = OpenOptions::new().read(true).write(true).create_new(true).open(&path);
        file.with_context(|| format!("cannot create {}", path.display()))
    }

    /// The commits at which the clone's history is cut off.
    pub(super) fn shallow(&self) -> Result<Vec<Oid>> {
        match fs::read_to_string(self.repository.path().join("shallow")) {
            Ok(text) => {
                text.lines().map(|line| Oid::from_str(line).context("odd line in .git/shallow")).collect()
            }
            Err(_) => Ok(Vec::new()),
        }
    }

    /// Some commits that the clone has, newest first, for a remote to start from. None of a partial clone: a
    /// remote takes it that who has a commit has its files, and would leave them out.
    pub(super) fn haves(&self, head: Oid) -> Result<Vec<Oid>> {
        if self.partial {
            return Ok(Vec::new());
        }
        let walk = self.repository.revwalk().and_then(|mut walk| walk.push(head).map(|()| walk));
        let walk = walk.context("cannot read the history")?;
        Ok(walk.take(64).filter_map(Result::ok).collect())
    }

    /// Commits merged outputs on top of `parent`, or `None` where that changes nothing.
    pub(super) fn commit(
        &self,
        parent: Oid,
        merged: Merged,
        publication: &Publication,
    ) -> Result<Option<NewCommit>> {
        let repository = &self.repository;
        let parent = repository.find_commit(parent).context("cannot read the parent commit")?;
        let base = parent.tree().context("cannot read the parent's tree")?;
        let mut update = TreeUpdateBuilder::new();
        for (path, id, mode) in &merged.files {
            update.upsert(path.as_path(), *id, *mode);
        }
        let tree = update.create_updated(repository, &base).context("cannot make the tree")?;
        if tree == base.id() {
            return Ok(None);
        }
        let tree = repository.find_tree(tree).context("cannot read the tree")?;
        let signature = Signature::now(&publication.author_name, &publication.author_email);
        let signature = signature.context("the commit's author has no usable name or e-mail address")?;
        let id = repository
            .commit(None, &signature, &signature, &publication.message, &tree, &[&parent])
            .context("cannot make the commit")?;
        let mut new = BTreeMap::from([(id, ObjectType::Commit), (tree.id(), ObjectType::Tree)]);
        for folder in merged.files.iter().flat_map(|(path, ..)| path.ancestors().skip(1)) {
            if !folder.as_os_str().is_empty() {
                let entry = tree.get_path(folder).context("cannot read the tree")?;
                if base.get_path(folder).ok().is_none_or(|old| old.id() != entry.id()) {
                    new.insert(entry.id(), ObjectType::Tree);
                }
            }
        }
        let odb = repository.odb().context("cannot read the new objects")?;
        let read = |(id, kind)| odb.read(id).map(|object| (kind, object.data().to_vec()));
        let objects: Result<Vec<_>, _> = new.into_iter().map(read).collect();
        let mut objects = objects.context("cannot read the new objects")?;
        objects.extend(merged.contents.into_iter().map(|content| (ObjectType::Blob, content)));
        Ok(Some(NewCommit { id, objects }))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // What cannot be removed now is removed by the next run.
        _ = fs::remove_dir_all(&self.folder);
    }
}

fn lock(path: &Path) -> Result<File> {
    let file = OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .open(path)
        .context("cannot open its lock")?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(Error::new("another run is publishing from this clone")),
        Err(TryLockError::Error(error)) => Err(Error::new("cannot lock it").source(error)),
    }
}

/// Whether the clone was told to leave out files, which it then looks for at its remote.
fn is_partial(clone: &Repository) -> bool {
    const PARTIAL_CLONE_SETTINGS: &str = r"^remote\..*\.(promisor|partialclonefilter)$";
    let Ok(config) = clone.config() else { return false };
    let Ok(mut entries) = config.entries(Some(PARTIAL_CLONE_SETTINGS)) else { return false };
    entries.next().is_some()
}
