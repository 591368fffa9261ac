//! Outputs and a branch that changed since the pipeline's commit: merged by meaning, or found to be in
//! conflict.
//!
//! The three sides of a file are the pipeline's commit, the output, and the branch's tip. Where the tip is as
//! the pipeline's commit was, the output goes in. What both changed is merged if its parts are independent:
//! the lines of `.gitignore`, the stages of `dvc.lock` and `dvc.yaml`. Any other file that both changed is a
//! conflict, unless the branch's newest change of it is an earlier result of the same step. Text was not
//! merged line by line as `git merge` does: two trainings' metrics side by side are no result of either.

#[cfg(any(test, fuzzing))]
pub(crate) mod fuzzing;
mod ignore_lines;
mod stages;

use super::history::History;
use super::tree_entry::OutputEntry;
use git2::{Commit, FileMode, ObjectType, Oid, Repository, Tree, TreeEntry};
use stages::{PieceName, Pieces};
use std::path::{Path, PathBuf};
use trainspot_base::error::{Context as _, Result};

/// How the two changes of a file can be brought together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum MergeForm {
    /// The file is made of lines that are independent of each other.
    IgnoreLines,
    /// The file is made of stages that are independent of each other.
    Stages,
    /// The file cannot be merged.
    Whole,
}

/// What a commit on top of the branch is to change.
#[derive(Default)]
pub(super) struct Merged {
    /// The files, with their content's name.
    pub(super) files: Vec<(PathBuf, Oid, FileMode)>,
    /// The contents that neither side has.
    pub(super) contents: Vec<Vec<u8>>,
    /// The files that were merged from both sides.
    pub(super) from_both: Vec<PathBuf>,
    /// The outputs that this run did not change, and the branch did.
    pub(super) left_alone: Vec<PathBuf>,
    /// The outputs that both changed, and that cannot be merged.
    pub(super) conflicts: Vec<PathBuf>,
}

/// The sides that outputs are merged with.
pub(super) struct MergeSides<'a> {
    pub(super) repository: &'a Repository,
    /// The pipeline's commit.
    pub(super) base: Tree<'a>,
    /// The branch's tip.
    pub(super) tip: Tree<'a>,
}

/// A file's content and mode, as a tree has them.
type FileVersion = (Oid, i32);

impl MergeForm {
    /// The form of the file at `path`.
    pub(super) fn of(path: &Path) -> Self {
        match path.file_name().and_then(|name| name.to_str()) {
            Some(".gitignore" | ".dvcignore") => Self::IgnoreLines,
            Some("dvc.lock" | "dvc.yaml") => Self::Stages,
            _ => Self::Whole,
        }
    }
}

impl MergeSides<'_> {
    /// Whether the branch changed any of the outputs since the pipeline's commit, otherwise than they are
    /// now.
    pub(super) fn differ(&self, outputs: &[OutputEntry]) -> bool {
        outputs.iter().any(|output| {
            let theirs = version(&self.tip, &output.path);
            theirs != version(&self.base, &output.path) && theirs != Some(output.version())
                || output.is_obstructed(&self.tip)
        })
    }

    /// Merges the outputs with the branch. Its `history` is asked only where [`Self::differ`].
    pub(super) fn merge(&self, outputs: &[OutputEntry], history: &History<'_>) -> Result<Merged> {
        let mut merged = Merged::default();
        for output in outputs {
            self.merge_one(output, history, &mut merged)
                .with_context(|| format!("cannot merge {} with the branch's", output.path.display()))?;
        }
        Ok(merged)
    }

    fn merge_one(&self, output: &OutputEntry, history: &History<'_>, merged: &mut Merged) -> Result<()> {
        let path = &output.path;
        let [before, theirs] = [&self.base, &self.tip].map(|tree| version(tree, path));
        if output.is_obstructed(&self.tip) {
            merged.conflicts.push(path.clone());
        } else if theirs == before || theirs == Some(output.version()) {
            merged.files.push((path.clone(), output.id, output.mode));
        } else if let Some(text) = self.by_meaning(output, history)? {
            let id = Oid::hash_object(ObjectType::Blob, &text).context("cannot hash it")?;
            let changed_mode = before.is_none_or(|(_, mode)| mode != i32::from(output.mode));
            let mode = theirs.filter(|_| !changed_mode).map_or(output.mode, |(_, mode)| file_mode(mode));
            merged.files.push((path.clone(), id, mode));
            if theirs.is_none_or(|(theirs, _)| theirs != id) && id != output.id {
                merged.contents.push(text);
                merged.from_both.push(path.clone());
            }
        } else if is_own(output, history) {
            merged.files.push((path.clone(), output.id, output.mode));
        } else if before == Some(output.version()) && theirs.is_some() {
            merged.left_alone.push(path.clone());
        } else {
            merged.conflicts.push(path.clone());
        }
        Ok(())
    }

    /// The text that has both changes, or `None` where the two exclude each other.
    fn by_meaning(&self, output: &OutputEntry, history: &History<'_>) -> Result<Option<Vec<u8>>> {
        let Some(ours) = &output.content else { return Ok(None) };
        let base = match version(&self.base, &output.path) {
            Some(_) => self.text(&self.base, &output.path)?,
            None => Some(Vec::new()),
        };
        let (Some(base), Some(theirs)) = (base, self.text(&self.tip, &output.path)?) else {
            return Ok(None);
        };
        match MergeForm::of(&output.path) {
            MergeForm::Whole => Ok(None),
            MergeForm::IgnoreLines => Ok(ignore_lines::merge(&base, ours, &theirs)),
            MergeForm::Stages => {
                let texts = [&base, ours, &theirs].map(|text| std::str::from_utf8(text));
                let [Ok(base), Ok(ours), Ok(theirs)] = texts else { return Ok(None) };
                let mut replaceable =
                    |name: &PieceName| history.newest_is_own(|commit| self.piece(commit, &output.path, name));
                Ok(stages::merge(base, ours, theirs, &mut replaceable).map(String::into_bytes))
            }
        }
    }

    fn piece(&self, commit: &Commit<'_>, path: &Path, name: &PieceName) -> Option<String> {
        let text = self.text(&commit.tree().ok()?, path).ok()??;
        Pieces::read(std::str::from_utf8(&text).ok()?).text(name).map(str::to_owned)
    }

    /// A file's text; none for anything but a file that is small enough to be merged.
    fn text(&self, tree: &Tree<'_>, path: &Path) -> Result<Option<Vec<u8>>> {
        let entry = tree.get_path(path).ok().filter(is_plain_file);
        let Some(entry) = entry else { return Ok(None) };
        let odb = self.repository.odb().context("cannot open the objects")?;
        match odb.read_header(entry.id()) {
            Ok((size, _)) if size as u64 <= super::SMALL_FILE_LIMIT_BYTES => {}
            // Neither a large file nor what a partial clone left out is here.
            _ => return Ok(None),
        }
        Ok(Some(odb.read(entry.id()).context("cannot read it")?.data().to_vec()))
    }
}

/// Whether what the branch has of the file is an earlier result of the same step, which the output replaces.
fn is_own(output: &OutputEntry, history: &History<'_>) -> bool {
    let look = |commit: &Commit<'_>| commit.tree().ok().and_then(|tree| version(&tree, &output.path));
    match MergeForm::of(&output.path) {
        MergeForm::Whole => history.newest_is_own(look),
        // A file of parts may hold others' parts below its newest change.
        MergeForm::IgnoreLines | MergeForm::Stages => history.all_are_own(look),
    }
}

fn is_plain_file(entry: &TreeEntry<'_>) -> bool {
    entry.kind() == Some(ObjectType::Blob) && entry.filemode() != i32::from(FileMode::Link)
}

fn version(tree: &Tree<'_>, path: &Path) -> Option<FileVersion> {
    tree.get_path(path).ok().map(|entry| (entry.id(), entry.filemode()))
}

fn file_mode(mode: i32) -> FileMode {
    if mode == i32::from(FileMode::BlobExecutable) { FileMode::BlobExecutable } else { FileMode::Blob }
}
