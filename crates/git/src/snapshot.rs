//! The clone's commit for a machine: what git, DVC and build tools ask a repository for, without anything
//! secret.
//!
//! A machine gets the commit that is checked out and its trees; no other commit, no remote, no hook, nothing
//! of the clone's configuration. Most contents come from the workspace's own files, which are there already.
//! Those that a file does not have (a pointer of Git LFS, other line ends, a file that an earlier step
//! changed) go along while they are small. Contents of files that are not in the workspace stay away.

use super::{SMALL_FILE_LIMIT_BYTES, open};
use git2::{
    ObjectType, Odb, OdbLookupFlags, Oid, Repository, RepositoryInitOptions, Tree, TreeWalkMode,
    TreeWalkResult,
};
use serde::{Deserialize, Serialize};
use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{self, BufRead, Read as _, Write};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use trainspot_base::error::{Context as _, Result};

/// The longest line in front of a pack.
const HEADER_LIMIT_BYTES: u64 = 64 << 10;
/// The largest pack that a machine takes: far more than the trees of the largest repositories.
const PACK_LIMIT_BYTES: u64 = 4 << 30;

/// A commit of a clone, as a machine gets it.
#[derive(Clone, Default)]
pub struct Snapshot {
    header: SnapshotHeader,
    /// The commit, its trees, and those contents that the workspace's files do not have.
    pack: Vec<u8>,
}

#[derive(Clone, Default, Serialize, Deserialize)]
struct SnapshotHeader {
    commit: String,
    /// The branch that is checked out, if any.
    branch: Option<String>,
    /// Who commits on the machine: `dvc exp` refuses to work without a name.
    user_name: String,
    user_email: String,
}

impl Snapshot {
    /// The commit that is checked out in the clone at `root`. On the machine, commits are made by the user
    /// given here.
    pub(super) fn take(root: &Path, user_name: &str, user_email: &str) -> Result<Self> {
        let repository = open(root)?;
        let what = || "cannot read the commit that is checked out";
        let head = repository.head().with_context(what)?;
        let commit = head.peel_to_commit().with_context(what)?;
        let branch = head.is_branch().then(|| head.shorthand().map(str::to_owned)).transpose();
        let header = SnapshotHeader {
            commit: commit.id().to_string(),
            branch: branch.with_context(what)?,
            user_name: user_name.to_owned(),
            user_email: user_email.to_owned(),
        };
        let tree = commit.tree().with_context(what)?;
        let pack = pack(&repository, root, commit.id(), &tree).with_context(what)?;
        Ok(Self { header, pack })
    }

    /// Writes what [`Snapshot::restore`] reads: a line of JSON, then a pack.
    pub fn write(&self, mut out: impl Write) -> Result<()> {
        let what = "cannot send the commit";
        serde_json::to_writer(&mut out, &self.header).context(what)?;
        out.write_all(b"\n").and_then(|()| out.write_all(&self.pack)).context(what)
    }

    /// Makes the folder `root`, which holds the files of a workspace, a repository of the one commit that
    /// `input` brings.
    ///
    /// # Errors
    /// The input is not what [`Snapshot::write`] wrote, or a file of the repository cannot be written.
    pub fn restore(mut input: impl BufRead, root: &Path) -> Result<()> {
        let what = || "cannot make the workspace a git repository";
        let mut line = String::new();
        (&mut input).take(HEADER_LIMIT_BYTES).read_line(&mut line).with_context(what)?;
        let header: SnapshotHeader = serde_json::from_str(&line).with_context(what)?;
        let commit = Oid::from_str(&header.commit).with_context(what)?;
        // A transfer that is done again finds what the one before left.
        match fs::remove_dir_all(root.join(".git")) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error).with_context(what),
            _ => {}
        }
        let repository = init(root, &header).with_context(what)?;
        let odb = repository.odb().with_context(what)?;
        let mut pack = odb.packwriter().with_context(what)?;
        io::copy(&mut input.take(PACK_LIMIT_BYTES), &mut pack).with_context(what)?;
        pack.commit().with_context(what)?;
        // History ends here, although the commit names its parents.
        fs::write(repository.path().join("shallow"), format!("{commit}\n")).with_context(what)?;
        // What the pack brought is found once the database is read anew.
        odb.refresh().with_context(what)?;
        let tree = repository.find_commit(commit).and_then(|commit| commit.tree()).with_context(what)?;
        add_contents(&odb, root, &tree).with_context(what)?;
        check_out(&repository, &header, commit, &tree).with_context(what)
    }
}

fn pack(repository: &Repository, root: &Path, commit: Oid, tree: &Tree<'_>) -> Result<Vec<u8>, git2::Error> {
    let odb = repository.odb()?;
    let mut pack = repository.packbuilder()?;
    pack.insert_object(commit, None)?;
    pack.insert_object(tree.id(), None)?;
    for (path, id, kind) in entries(tree)? {
        if kind == ObjectType::Tree || is_elsewhere(&odb, &root.join(path), id) {
            pack.insert_object(id, None)?;
        }
    }
    let mut bytes = git2::Buf::new();
    pack.write_buf(&mut bytes)?;
    Ok(bytes.to_vec())
}

/// Whether a content is needed that the file does not have: it is that of a link, or the file's bytes are
/// others.
fn is_elsewhere(odb: &Odb<'_>, file: &Path, id: Oid) -> bool {
    let Ok(metadata) = file.symlink_metadata() else { return false };
    let has_it = metadata.is_file() && Oid::hash_file(ObjectType::Blob, file).is_ok_and(|hash| hash == id);
    // A partial clone left contents out, and cannot give them either.
    !has_it && odb.read_header(id).is_ok_and(|(size, _)| size as u64 <= SMALL_FILE_LIMIT_BYTES)
}

/// The trees and contents that a tree names, in it and in the trees below it, each with its path.
fn entries(tree: &Tree<'_>) -> Result<Vec<(PathBuf, Oid, ObjectType)>, git2::Error> {
    let mut entries = Vec::new();
    tree.walk(TreeWalkMode::PreOrder, |folder, entry| {
        let path = Path::new(folder).join(OsStr::from_bytes(entry.name_bytes()));
        // A submodule's commit is in another repository.
        let kind = entry.kind().filter(|kind| *kind != ObjectType::Commit);
        entries.extend(kind.map(|kind| (path, entry.id(), kind)));
        TreeWalkResult::Ok
    })?;
    Ok(entries)
}

/// An empty repository: with libgit2's own settings, and no template, which could bring hooks.
fn init(root: &Path, header: &SnapshotHeader) -> Result<Repository, git2::Error> {
    let mut options = RepositoryInitOptions::new();
    options.external_template(false).no_reinit(true);
    options.initial_head(header.branch.as_deref().unwrap_or("main"));
    let repository = Repository::init_opts(root, &options)?;
    let mut settings = repository.config()?;
    settings.set_str("user.name", &header.user_name)?;
    settings.set_str("user.email", &header.user_email)?;
    Ok(repository)
}

/// Adds the contents that the workspace's files have.
fn add_contents(odb: &Odb<'_>, root: &Path, tree: &Tree<'_>) -> Result<()> {
    // Looking for a pack that has come meanwhile would take longer than all else.
    let is_there = |id| odb.exists_ext(id, OdbLookupFlags::NO_REFRESH);
    for (path, id, kind) in entries(tree).context("cannot read the commit's trees")? {
        let file = root.join(&path);
        let is_file = || file.symlink_metadata().is_ok_and(|metadata| metadata.is_file());
        if kind == ObjectType::Blob && !is_there(id) && is_file() {
            add_content(odb, &file).with_context(|| format!("cannot add '{}'", path.display()))?;
        }
    }
    Ok(())
}

/// Adds the content of a file. That of a file that is not the commit's is an object that nothing names.
fn add_content(odb: &Odb<'_>, file: &Path) -> Result<()> {
    let what = "cannot copy it";
    let file = File::open(file).context(what)?;
    let size = file.metadata().context(what)?.len();
    let room = usize::try_from(size).context(what)?;
    let mut writer = odb.writer(room, ObjectType::Blob).context(what)?;
    io::copy(&mut file.take(size), &mut writer).context(what)?;
    writer.finalize().map(drop).context(what)
}

fn check_out(
    repository: &Repository,
    header: &SnapshotHeader,
    commit: Oid,
    tree: &Tree<'_>,
) -> Result<(), git2::Error> {
    match &header.branch {
        Some(branch) => {
            let name = format!("refs/heads/{branch}");
            repository.reference(&name, commit, true, "the pipeline's commit")?;
        }
        None => repository.set_head_detached(commit)?,
    }
    let mut index = repository.index()?;
    index.read_tree(tree)?;
    index.write()
}
