//! Which files of the clone make up the workspace that is sent to a machine.

use super::{is_reserved, links};
use git2::{ObjectType, Repository, Status, StatusOptions, StatusShow, TreeWalkMode, TreeWalkResult};
use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs::File;
use std::io::Read as _;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use tracing::warn;
use trainspot_base::error::{Context as _, Error, Kind, Result};
use trainspot_transfer::{BundleEntry, Pattern, find};
use walkdir::WalkDir;

pub(super) fn list(repository: &Repository, root: &Path, include: &[String]) -> Result<Vec<BundleEntry>> {
    let include = patterns(include)?;
    let mut named = tracked(repository).context("cannot list the files that git tracks")?;
    named.extend(untracked(repository).context("cannot list the files that git does not track")?);
    let mut files = BTreeSet::new();
    for path in named {
        match root.join(&path).symlink_metadata() {
            // A submodule, or a clone inside the clone: git names the folder only.
            Ok(metadata) if metadata.is_dir() => files.extend(files_below(root, &path)),
            Ok(_) => _ = files.insert(path),
            Err(_) => {}
        }
    }
    let included: BTreeSet<_> =
        include.iter().flat_map(|(text, pattern)| included(root, text, pattern)).collect();
    files.extend(included.iter().cloned());
    files.retain(|path| !is_reserved(path));
    warn_of_pointers(root, &files);
    links::entries(root, &files, &included)
}

/// What `HEAD` and the index name: an earlier step may have added files without committing them.
pub(super) fn tracked(repository: &Repository) -> Result<BTreeSet<PathBuf>, git2::Error> {
    let mut paths = BTreeSet::new();
    repository.head()?.peel_to_tree()?.walk(TreeWalkMode::PreOrder, |folder, entry| {
        if entry.kind() != Some(ObjectType::Tree) {
            paths.insert(Path::new(folder).join(OsStr::from_bytes(entry.name_bytes())));
        }
        TreeWalkResult::Ok
    })?;
    paths.extend(repository.index()?.iter().map(|entry| OsStr::from_bytes(&entry.path).into()));
    Ok(paths)
}

fn untracked(repository: &Repository) -> Result<Vec<PathBuf>, git2::Error> {
    let mut options = StatusOptions::new();
    options.show(StatusShow::Workdir).include_untracked(true).recurse_untracked_dirs(true);
    options.exclude_submodules(true).include_unreadable_as_untracked(true);
    let statuses = repository.statuses(Some(&mut options))?;
    let new = statuses.iter().filter(|entry| entry.status().contains(Status::WT_NEW));
    Ok(new.map(|entry| OsStr::from_bytes(entry.path_bytes()).into()).collect())
}

pub(super) fn ignored<'p>(
    repository: &Repository,
    paths: &'p [PathBuf],
) -> Result<Vec<&'p Path>, git2::Error> {
    let tracked = tracked(repository)?;
    let mut ignored = Vec::new();
    for path in paths {
        if !tracked.contains(path) && repository.is_path_ignored(path)? {
            ignored.push(path.as_path());
        }
    }
    Ok(ignored)
}

/// Files below a folder, as paths relative to `root`; links are files, and are not followed.
fn files_below<'a>(root: &'a Path, folder: &Path) -> impl Iterator<Item = PathBuf> + use<'a> {
    let entries = WalkDir::new(root.join(folder)).into_iter();
    let entries = entries.filter_entry(|entry| entry.file_name() != ".git").filter_map(Result::ok);
    entries
        .filter(|entry| !entry.file_type().is_dir())
        .filter_map(move |entry| entry.path().strip_prefix(root).ok().map(Path::to_owned))
}

fn included(root: &Path, text: &str, pattern: &Pattern) -> Vec<PathBuf> {
    let mut files: Vec<_> = pattern.list(root).collect();
    if files.is_empty() {
        // What is behind a linked folder is looked for only where nothing else is meant.
        let behind = find(root, &[text.to_owned()]).unwrap_or_default().files;
        files.extend(behind.iter().map(|entry| entry.path.to_path()));
    }
    if files.is_empty() {
        warn!("INCLUDE: {text} matches no file in {}", root.display());
    }
    files
}

fn patterns(texts: &[String]) -> Result<Vec<(&str, Pattern)>> {
    let pattern = |text: &String| {
        Pattern::parse(text).map_err(|error| {
            Error::new(format!("INCLUDE: {text} is not a glob")).source(error).kind(Kind::Configuration)
        })
    };
    texts.iter().map(|text| Ok((text.as_str(), pattern(text)?))).collect()
}

/// A training that reads a pointer instead of its data fails late and puzzlingly, so it is said before.
fn warn_of_pointers(root: &Path, files: &BTreeSet<PathBuf>) {
    let pointers: Vec<_> = files.iter().filter(|path| is_lfs_pointer(&root.join(path))).collect();
    if let [first, ..] = pointers[..] {
        warn!(
            "{} of the files are Git LFS pointers, not content, {} first: add `clone: lfs: true` to the step if the training needs them",
            pointers.len(),
            first.display()
        );
    }
}

fn is_lfs_pointer(path: &Path) -> bool {
    const POINTER_START: &[u8] = b"version https://git-lfs.github.com/spec/v1";
    // The specification bounds a pointer by 1024 bytes; this spares opening every larger file.
    let small = path.symlink_metadata().is_ok_and(|metadata| metadata.is_file() && metadata.len() < 1024);
    let mut start = [0; POINTER_START.len()];
    small
        && File::open(path).and_then(|mut file| file.read_exact(&mut start)).is_ok()
        && start == POINTER_START
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_that_is_none_is_a_configuration_mistake() {
        let error = patterns(&["a[".into()]).unwrap_err();
        assert_eq!(error.exit_kind(), Kind::Configuration);
        assert!(error.to_string().contains("INCLUDE: a["));
    }
}
