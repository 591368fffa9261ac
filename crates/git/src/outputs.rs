//! From files in the work tree to what a commit says of them: refused, or packed.

use super::attributes::Attributes;
use super::merge::MergeForm;
use super::normalize::{LineEnds, Normalization, TextStatistics, WithoutCr, without_ident};
use super::pack::Blobs;
use super::tree_entry::OutputEntry;
use super::{SMALL_FILE_LIMIT_BYTES, is_reserved};
use git2::{FileMode, Oid, Repository, Tree};
use std::collections::BTreeSet;
use std::fs::{File, Metadata};
use std::io::{BufReader, Read};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::PermissionsExt;
use std::path::{Component, Path, PathBuf};
use trainspot_base::error::{Context as _, Error, Kind, Result};

/// The largest file that Bitbucket takes: "100 MB", read as decimal, the smaller of the two readings.
const FILE_LIMIT_BYTES: u64 = 100_000_000;

/// The largest push that Bitbucket takes: "3.5 GB", read as binary, for the pack is counted as it is sent.
const PUSH_LIMIT_BYTES: u64 = 7 << 29;

/// The mode bits of which one makes a file executable.
const EXECUTABLE_BITS: u32 = 0o111;

/// Each path once, and as a tree spells it: `./a//b` is `a/b`.
pub(super) fn tidy(outputs: &[PathBuf]) -> Vec<PathBuf> {
    let tidy = |path: &PathBuf| path.components().filter(|part| *part != Component::CurDir).collect();
    outputs.iter().map(tidy).collect::<BTreeSet<_>>().into_iter().collect()
}

/// Refuses what cannot be committed, all of it in one error, before anything large is read. Large files are
/// refused if `size_limits` hold.
pub(super) fn check(
    repository: &Repository,
    root: &Path,
    outputs: &[PathBuf],
    size_limits: bool,
) -> Result<()> {
    for path in outputs {
        check_path(root, path)
            .and_then(|()| Attributes::new(repository, path).check())
            .with_context(|| format!("cannot commit {}", path.display()))?;
    }
    if !size_limits {
        return Ok(());
    }
    check_sizes(root, outputs).map_err(|error| error.kind(Kind::Publication))
}

/// Refuses files that are too large for Bitbucket, all of them in one error.
pub(super) fn check_sizes(root: &Path, outputs: &[PathBuf]) -> Result<()> {
    let size = |path: &PathBuf| {
        let metadata = root.join(path).symlink_metadata().ok().filter(Metadata::is_file)?;
        let megabytes = metadata.len().div_ceil(1_000_000);
        (metadata.len() > FILE_LIMIT_BYTES).then(|| format!("{} ({megabytes} MB)", path.display()))
    };
    let too_large: Vec<_> = outputs.iter().filter_map(size).collect();
    if too_large.is_empty() {
        return Ok(());
    }
    Err(Error::new(format!(
        "{}: Bitbucket refuses a push with a file of more than 100 MB ({FILE_LIMIT_BYTES} bytes)",
        too_large.join(", ")
    ))
    .hint(
        "let DVC keep files of this size (DVC_OUTPUTS), so that only their pointers are committed; or set SIZE_LIMITS to 'false' where the repository's administrator has lifted that limit",
    ))
}

/// Refuses a pack of `bytes` that is too large for Bitbucket, before an hour of sending shows that.
pub(super) fn check_push(bytes: u64) -> Result<()> {
    if bytes <= PUSH_LIMIT_BYTES {
        return Ok(());
    }
    let megabytes = bytes.div_ceil(1_000_000);
    Err(Error::new(format!(
        "the outputs are {megabytes} MB when packed: Bitbucket refuses a push of more than 3.5 GB"
    ))
    .kind(Kind::Publication)
    .hint("let DVC keep the large ones (DVC_OUTPUTS), so that only their pointers are committed"))
}

fn check_path(root: &Path, path: &Path) -> Result<()> {
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
    Ok(())
}

/// The clone's files, and the commit that they were checked out from.
pub(super) struct WorkTree<'a> {
    pub(super) clone: &'a Repository,
    pub(super) root: &'a Path,
    /// The pipeline's commit.
    pub(super) base: Tree<'a>,
    /// Whether executable bits mean something on the clone's file system.
    pub(super) tracks_executable_bit: bool,
}

impl WorkTree<'_> {
    /// Packs each output's content as `git add` would take it; what the pipeline's commit has there is only
    /// hashed.
    pub(super) fn pack(&self, outputs: &[PathBuf], blobs: &mut Blobs) -> Result<Vec<OutputEntry>> {
        let mut pack =
            |path| self.pack_one(path, blobs).with_context(|| format!("cannot commit {}", path.display()));
        outputs.iter().map(|path: &PathBuf| pack(path)).collect()
    }

    fn pack_one(&self, path: &Path, blobs: &mut Blobs) -> Result<OutputEntry> {
        let old = self.base.get_path(path).ok();
        let known = |id| old.as_ref().is_some_and(|old| old.id() == id);
        let file = self.root.join(path);
        let metadata = file.symlink_metadata().context("cannot look at it")?;
        let (id, content) =
            WorkTreeFile { clone: self.clone, path, file, metadata: &metadata }.pack(blobs, known)?;
        let old_mode = old.as_ref().map(git2::TreeEntry::filemode);
        let mode = mode(&metadata, self.tracks_executable_bit, old_mode);
        let output = OutputEntry { path: path.to_owned(), id, mode, content };
        match output.obstacle(&self.base) {
            Some(obstacle) => Err(Error::new(format!("{obstacle} in the pipeline's commit"))
                .hint("write the output to another path")),
            None => Ok(output),
        }
    }
}

/// A file of the work tree on its way to a blob.
struct WorkTreeFile<'a> {
    clone: &'a Repository,
    /// Relative to the clone.
    path: &'a Path,
    file: PathBuf,
    metadata: &'a Metadata,
}

impl WorkTreeFile<'_> {
    /// The blob's name, and its bytes if they can be merged with the branch's.
    fn pack(&self, blobs: &mut Blobs, known: impl FnOnce(Oid) -> bool) -> Result<(Oid, Option<Vec<u8>>)> {
        if self.metadata.is_symlink() {
            let target = self.file.read_link().context("cannot read the link")?;
            let target = target.as_os_str().as_bytes();
            return Ok((blobs.add(target.len() as u64, &mut &*target, known)?, None));
        }
        let normalization = Attributes::new(self.clone, self.path).normalization()?;
        let merged =
            MergeForm::of(self.path) != MergeForm::Whole && self.metadata.len() <= SMALL_FILE_LIMIT_BYTES;
        if merged || normalization.ident {
            let bytes = self.normalized(normalization)?;
            let id = blobs.add(bytes.len() as u64, &mut bytes.as_slice(), known)?;
            return Ok((id, merged.then_some(bytes)));
        }
        let (size, mut content) = self.with_line_ends(normalization.line_ends)?;
        Ok((blobs.add(size, &mut content, known)?, None))
    }

    /// The whole content in memory. `ident` may be anywhere in a line of any length, but few files have that
    /// attribute.
    fn normalized(&self, normalization: Normalization) -> Result<Vec<u8>> {
        let (size, content) = self.with_line_ends(normalization.line_ends)?;
        let mut bytes = Vec::new();
        content.take(size + 1).read_to_end(&mut bytes).context("cannot read it")?;
        Ok(if normalization.ident { without_ident(&bytes) } else { bytes })
    }

    /// The content as a stream with git's line ends, and its size.
    fn with_line_ends(&self, line_ends: LineEnds) -> Result<(u64, Box<dyn Read>)> {
        let open = || Ok::<_, Error>(BufReader::new(File::open(&self.file).context("cannot open it")?));
        let size = self.metadata.len();
        if line_ends == LineEnds::Keep {
            return Ok((size, Box::new(open()?)));
        }
        let statistics = TextStatistics::of(open()?).context("cannot read it")?;
        if statistics.strips(line_ends, || self.index_has_crlf())? {
            return Ok((size.saturating_sub(statistics.crlf), Box::new(WithoutCr::new(open()?))));
        }
        Ok((size, Box::new(open()?)))
    }

    /// Whether the version in the index is a text with CRLF, which git then leaves as it is.
    fn index_has_crlf(&self) -> Result<bool> {
        let index = self.clone.index().context("cannot read the index")?;
        let Some(entry) = index.get_path(self.path, 0) else { return Ok(false) };
        let blob = self.clone.find_blob(entry.id).context("cannot read the version in the index")?;
        let statistics =
            TextStatistics::of(blob.content()).context("cannot read the version in the index")?;
        Ok(statistics.crlf > 0 && !statistics.is_binary())
    }
}

fn mode(metadata: &Metadata, tracked: bool, old: Option<i32>) -> FileMode {
    let executable = match old {
        Some(old) if !tracked => old == i32::from(FileMode::BlobExecutable),
        _ => metadata.permissions().mode() & EXECUTABLE_BITS != 0,
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
    fn a_push_that_bitbucket_refuses_is_not_begun() {
        assert!(check_push(3_500_000_000).is_ok());
        let error = check_push(3_800_000_000).unwrap_err();
        assert_eq!(error.exit_kind(), Kind::Publication);
        assert!(error.render().contains("3800 MB when packed") && error.render().contains("DVC_OUTPUTS"));
    }

    #[test]
    fn the_executable_bit_counts_where_git_tracks_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("run.sh");
        std::fs::write(&path, b"#!/bin/sh\n").unwrap();
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o755)).unwrap();
        let metadata = path.symlink_metadata().unwrap();
        assert_eq!(mode(&metadata, true, Some(0o100_644)), FileMode::BlobExecutable);
        assert_eq!(mode(&metadata, false, Some(0o100_644)), FileMode::Blob);
        assert_eq!(mode(&metadata, false, None), FileMode::BlobExecutable);
    }
}
