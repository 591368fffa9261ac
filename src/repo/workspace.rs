//! Which files of the clone make up the workspace that is sent to a machine.

use super::{is_reserved, links};
use crate::error::{Context, Error, Kind, Result};
use crate::transfer::{Entry, find};
use git2::{ObjectType, Repository, Status, StatusOptions, StatusShow, TreeWalkMode, TreeWalkResult};
use globset::{GlobBuilder, GlobSet, GlobSetBuilder};
use std::{
    collections::BTreeSet,
    ffi::OsStr,
    fs::File,
    io::Read,
    os::unix::ffi::OsStrExt,
    path::{Path, PathBuf},
};
use tracing::warn;
use walkdir::WalkDir;

pub(super) fn list(repository: &Repository, root: &Path, include: &[String]) -> Result<Vec<Entry>> {
    let globs = globs(include)?;
    let mut named = tracked(repository).context("cannot list the files that git tracks")?;
    named.extend(untracked(repository).context("cannot list the files that git does not track")?);
    let mut files = BTreeSet::new();
    for path in named {
        match root.join(&path).symlink_metadata() {
            // A submodule, or a clone inside the clone: git names the directory only.
            Ok(metadata) if metadata.is_dir() => files.extend(below(root, &path)),
            Ok(_) => _ = files.insert(path),
            Err(_) => {}
        }
    }
    let included: BTreeSet<_> = if include.is_empty() {
        BTreeSet::new()
    } else {
        included(root, include, &globs).into_iter().collect()
    };
    files.extend(included.iter().cloned());
    files.retain(|path| !is_reserved(path));
    warn_of_pointers(root, &files);
    links::entries(root, &files, &included)
}

/// What `HEAD` and the index name: an earlier step may have added files without committing them.
pub(super) fn tracked(repository: &Repository) -> Result<BTreeSet<PathBuf>, git2::Error> {
    let mut paths = BTreeSet::new();
    repository.head()?.peel_to_tree()?.walk(TreeWalkMode::PreOrder, |directory, entry| {
        if entry.kind() != Some(ObjectType::Tree) {
            paths.insert(Path::new(directory).join(OsStr::from_bytes(entry.name_bytes())));
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

/// Files below a directory, as paths relative to `root`; links are files, and are not followed.
fn below<'a>(root: &'a Path, directory: &Path) -> impl Iterator<Item = PathBuf> + use<'a> {
    let entries = WalkDir::new(root.join(directory)).into_iter();
    let entries = entries.filter_entry(|entry| entry.file_name() != ".git").filter_map(Result::ok);
    entries
        .filter(|entry| !entry.file_type().is_dir())
        .filter_map(move |entry| entry.path().strip_prefix(root).ok().map(Path::to_owned))
}

fn included(root: &Path, patterns: &[String], globs: &GlobSet) -> Vec<PathBuf> {
    let mut used = BTreeSet::new();
    let mut files = Vec::new();
    for path in below(root, Path::new("")) {
        let matches = globs.matches(&path);
        if !matches.is_empty() {
            // Two globs a pattern: see `globs`.
            used.extend(matches.into_iter().map(|index| index / 2));
            files.push(path);
        }
    }
    for (_, pattern) in patterns.iter().enumerate().filter(|(index, _)| !used.contains(index)) {
        // What is behind a linked folder is looked for only where nothing else is meant.
        let behind = find(root, std::slice::from_ref(pattern)).unwrap_or_default().files;
        if behind.is_empty() {
            warn!("INCLUDE: {pattern} matches no file in {}", root.display());
        }
        files.extend(behind.iter().map(|entry| entry.path.to_path()));
    }
    files
}

/// Each pattern twice: itself, and everything below it, so that a directory's name means its files.
fn globs(patterns: &[String]) -> Result<GlobSet> {
    let mut set = GlobSetBuilder::new();
    for pattern in patterns {
        let plain = pattern.trim_start_matches("./").trim_end_matches('/');
        for glob in [plain.to_owned(), format!("{plain}/**")] {
            let glob = GlobBuilder::new(&glob).literal_separator(true).build().map_err(|error| {
                Error::new(format!("INCLUDE: {pattern} is not a glob"))
                    .source(error)
                    .kind(Kind::Configuration)
            })?;
            set.add(glob);
        }
    }
    set.build().context("cannot combine the globs of INCLUDE")
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
    const START: &[u8] = b"version https://git-lfs.github.com/spec/v1";
    // The specification bounds a pointer by 1024 bytes; this spares opening every larger file.
    let small = path.symlink_metadata().is_ok_and(|metadata| metadata.is_file() && metadata.len() < 1024);
    let mut start = [0; START.len()];
    small && File::open(path).and_then(|mut file| file.read_exact(&mut start)).is_ok() && start == START
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_means_files_and_whole_directories() {
        let globs = globs(&["./data/".into(), "*.bin".into(), "a/**/b".into()]).unwrap();
        for path in ["data", "data/x/y", "m.bin", "m.bin/x", "a/b", "a/c/d/b"] {
            assert!(globs.is_match(path), "{path}");
        }
        for path in ["x/data", "x/m.bin", "database"] {
            assert!(!globs.is_match(path), "{path}");
        }
    }

    #[test]
    fn a_pattern_that_is_none_is_a_configuration_mistake() {
        let error = globs(&["a[".into()]).unwrap_err();
        assert_eq!(error.exit_kind(), Kind::Configuration);
        assert!(error.to_string().contains("INCLUDE: a["));
    }
}
