//! From files in the work tree to what a commit says of them: refused, or packed.

use super::{SMALL, is_reserved, pack::Blobs, scratch::Scratch};
use crate::error::{Context, Error, Kind, Result};
use git2::{AttrCheckFlags, ErrorCode, FileMode, ObjectType, Oid, Repository, Tree};
use std::{
    collections::BTreeSet,
    fs::{File, Metadata},
    os::unix::{ffi::OsStrExt, fs::PermissionsExt},
    path::{Component, Path, PathBuf},
};

/// What Bitbucket takes in one file: "100 MB". Read as decimal, so that no reading of it is exceeded.
const LARGEST: u64 = 100_000_000;

const EXECUTABLE: u32 = 0o111;

/// A file as a tree names it.
pub(super) struct Output {
    pub(super) path: PathBuf,
    pub(super) id: Oid,
    pub(super) mode: FileMode,
}

impl Output {
    /// The output must replace a file or be new: a commit that deletes a directory for it would change more than outputs.
    pub(super) fn check_place(&self, tree: &Tree<'_>) -> Result<()> {
        for place in self.path.ancestors().filter(|place| !place.as_os_str().is_empty()) {
            let wanted = if place == self.path { ObjectType::Blob } else { ObjectType::Tree };
            let found = match tree.get_path(place) {
                Ok(entry) => entry.kind(),
                Err(error) if error.code() == ErrorCode::NotFound => continue,
                // A file where a directory is looked for: one of the next, shorter, places says so.
                Err(_) => continue,
            };
            if found != Some(wanted) {
                let what = match found {
                    Some(ObjectType::Tree) => "a directory",
                    Some(ObjectType::Blob) => "a file",
                    _ => "a submodule",
                };
                let (output, place) = (self.path.display(), place.display());
                return Err(Error::new(format!("cannot commit {output}: {place} is {what} in the branch"))
                    .hint("write the output to another path"));
            }
        }
        Ok(())
    }
}

/// Each path once, and as a tree spells it: `./a//b` is `a/b`.
pub(super) fn tidy(outputs: &[PathBuf]) -> Vec<PathBuf> {
    let tidy = |path: &PathBuf| path.components().filter(|part| *part != Component::CurDir).collect();
    outputs.iter().map(tidy).collect::<BTreeSet<_>>().into_iter().collect()
}

/// Refuses what cannot be committed, all of it in one error, before anything large is read.
pub(super) fn check(repository: &Repository, root: &Path, outputs: &[PathBuf]) -> Result<()> {
    let mut too_large = Vec::new();
    for path in outputs {
        let metadata = check_path(repository, root, path)
            .with_context(|| format!("cannot commit {}", path.display()))?;
        if metadata.is_file() && metadata.len() > LARGEST {
            too_large.push(format!("{} ({} MB)", path.display(), metadata.len().div_ceil(1_000_000)));
        }
    }
    if too_large.is_empty() {
        return Ok(());
    }
    Err(Error::new(format!(
        "{}: Bitbucket refuses a push with a file of more than 100 MB ({LARGEST} bytes)",
        too_large.join(", ")
    ))
    .kind(Kind::Publication)
    .hint("keep files of this size in DVC (and commit the pointer), or in Git LFS"))
}

fn check_path(repository: &Repository, root: &Path, path: &Path) -> Result<Metadata> {
    let plain = path.components().all(|part| matches!(part, Component::Normal(_)));
    if !plain || path.as_os_str().is_empty() {
        return Err(Error::new("its path must be relative to the clone, without `..`"));
    }
    if is_reserved(path) {
        return Err(Error::new("this path is reserved for git or for Pipelines"));
    }
    for parent in path.ancestors().skip(1).filter(|parent| !parent.as_os_str().is_empty()) {
        if root.join(parent).is_symlink() {
            return Err(Error::new(format!(
                "{} is a symbolic link, and git does not look behind it",
                parent.display()
            )));
        }
    }
    let metadata = root.join(path).symlink_metadata().context("cannot look at it")?;
    if !metadata.is_file() && !metadata.is_symlink() {
        return Err(Error::new("it is not a file").hint("name files, or use a glob such as model/**"));
    }
    let filter = repository.get_attr(path, "filter", AttrCheckFlags::FILE_THEN_INDEX);
    if filter.context("cannot read .gitattributes")? == Some("lfs") {
        return Err(Error::new(
            ".gitattributes gives it to Git LFS, for which its content must be uploaded first",
        )
        .hint("track it with DVC, or take its pattern out of .gitattributes"));
    }
    Ok(metadata)
}

/// Packs each output's content; what `known` says the remote has at that path is only hashed.
pub(super) fn pack(
    scratch: &Scratch,
    root: &Path,
    outputs: &[PathBuf],
    base: &Tree<'_>,
    blobs: &mut Blobs,
) -> Result<Vec<Output>> {
    let file_mode = scratch.tracks_executable_bit();
    let mut pack = |path: &PathBuf| -> Result<Output> {
        let old = base.get_path(path).ok();
        let known = |id| old.as_ref().is_some_and(|old| old.id() == id);
        let metadata = root.join(path).symlink_metadata().context("cannot look at it")?;
        let id = content(scratch, &root.join(path), &metadata, blobs, known)?;
        let old_mode = old.as_ref().map(git2::TreeEntry::filemode);
        Ok(Output { path: path.clone(), id, mode: mode(&metadata, file_mode, old_mode) })
    };
    outputs
        .iter()
        .map(|path| pack(path).with_context(|| format!("cannot commit {}", path.display())))
        .collect()
}

fn content(
    scratch: &Scratch,
    path: &Path,
    metadata: &Metadata,
    blobs: &mut Blobs,
    known: impl FnOnce(Oid) -> bool,
) -> Result<Oid> {
    if metadata.is_symlink() {
        let target = path.read_link().context("cannot read the link")?;
        let target = target.as_os_str().as_bytes();
        return blobs.add(target.len() as u64, &mut &*target, known);
    }
    if metadata.len() > SMALL {
        return blobs.add(metadata.len(), &mut File::open(path).context("cannot open it")?, known);
    }
    // Through libgit2, which ends lines as .gitattributes says: `git status` would show a table that Python's csv wrote as
    // changed otherwise. A large file is taken as it is: filtering needs it in memory, and such text is rare.
    let repository = scratch.repository();
    let id = repository.blob_path(path).context("cannot read it")?;
    let odb = repository.odb().context("cannot read it back")?;
    let object = odb.read(id).context("cannot read it back")?;
    blobs.add(object.len() as u64, &mut object.data(), known)
}

fn mode(metadata: &Metadata, tracked: bool, old: Option<i32>) -> FileMode {
    let executable = match old {
        Some(old) if !tracked => old == i32::from(FileMode::BlobExecutable),
        _ => metadata.permissions().mode() & EXECUTABLE != 0,
    };
    match executable {
        _ if metadata.is_symlink() => FileMode::Link,
        true => FileMode::BlobExecutable,
        false => FileMode::Blob,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_spelling_a_path() {
        let paths = ["b", "./a//b/./c", "a/b/c", "../x", "/x"].map(PathBuf::from);
        assert_eq!(tidy(&paths), ["/x", "../x", "a/b/c", "b"].map(PathBuf::from));
    }

    #[test]
    fn the_executable_bit_counts_where_git_tracks_it() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("run.sh");
        std::fs::write(&path, b"#!/bin/sh\n").unwrap();
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o755)).unwrap();
        let metadata = path.symlink_metadata().unwrap();
        assert_eq!(mode(&metadata, true, Some(0o100_644)), FileMode::BlobExecutable);
        assert_eq!(mode(&metadata, false, Some(0o100_644)), FileMode::Blob);
        assert_eq!(mode(&metadata, false, None), FileMode::BlobExecutable);
    }
}
