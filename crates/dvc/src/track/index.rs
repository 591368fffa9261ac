//! What the repository tracks with DVC already.

use super::super::outs::{OutEntry, PipelineFile, PointerFile, StageEntry};
use super::super::rules::{IgnoreRules, RuleDialect};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Component, Path, PathBuf};
use trainspot_base::error::{Context as _, Result};

/// An output that a file of DVC's names.
#[derive(Debug)]
pub(super) struct NamedOutput {
    /// The `.dvc` file, or the `dvc.yaml`, relative to the root.
    pub(super) file: PathBuf,
    /// The `.dvc` file's entry for the output; none for the output of a pipeline.
    pub(super) out: Option<OutEntry>,
    /// Whether the `.dvc` file has other outputs, too.
    pub(super) several: bool,
}

/// The files of DVC's in a repository, and the outputs that they name.
#[derive(Debug, Default)]
pub(crate) struct Index {
    /// Every `.dvc` and `dvc.yaml` file, relative to the root.
    pub(crate) files: Vec<PathBuf>,
    /// The outputs by path, relative to the root.
    pub(super) outs: BTreeMap<PathBuf, NamedOutput>,
}

/// The rules by which git ignores paths of a DVC repository, whose folder may be one inside git's repository.
pub(crate) struct GitRules {
    rules: IgnoreRules,
    /// The DVC repository's folder, relative to that of git's repository.
    folder: PathBuf,
}

impl GitRules {
    /// The rules for the DVC repository at `root`. If no folder above it has a `.git`, only its own
    /// `.gitignore` files count.
    pub(crate) fn of(root: &Path) -> Self {
        let top = root.ancestors().find(|above| above.join(".git").exists()).unwrap_or(root);
        let folder = root.strip_prefix(top).unwrap_or(Path::new("")).to_owned();
        Self { rules: IgnoreRules::new(top, RuleDialect::Git), folder }
    }

    /// Whether git ignores a path, or a folder above it.
    pub(crate) fn take(&mut self, path: &Path, folder: bool) -> Result<bool> {
        self.rules.take(&self.folder.join(path), folder)
    }

    /// Whether git ignores a path whose folders it does not ignore.
    fn take_one(&mut self, path: &Path, folder: bool) -> Result<bool> {
        self.rules.take_one(&self.folder.join(path), folder)
    }
}

/// Reads every `.dvc` and `dvc.yaml` file outside of what they track and of what git ignores.
///
/// # Errors
/// One of them cannot be read: each command of DVC would then fail, too.
pub(crate) fn read(root: &Path, rules: &mut IgnoreRules) -> Result<Index> {
    let mut index = Index::default();
    // DVC looks at no file that git ignores, not even at one that git tracks all the same.
    let mut git = GitRules::of(root);
    let mut left = vec![PathBuf::new()];
    while let Some(folder) = left.pop() {
        let (files, folders) = list(root, &folder, rules, &mut git)?;
        for file in files {
            add(root, &file, &mut index).with_context(|| format!("cannot read '{}'", file.display()))?;
            index.files.push(file);
        }
        left.extend(folders.into_iter().filter(|folder| !index.outs.contains_key(folder)));
    }
    Ok(index)
}

/// The files of DVC's in a folder, and the folders in it.
fn list(
    root: &Path,
    folder: &Path,
    rules: &mut IgnoreRules,
    git: &mut GitRules,
) -> Result<(BTreeSet<PathBuf>, Vec<PathBuf>)> {
    let cannot = || format!("cannot read the folder '{}'", folder.display());
    let (mut files, mut folders) = (BTreeSet::new(), Vec::new());
    for entry in root.join(folder).read_dir().with_context(cannot)? {
        let entry = entry.with_context(cannot)?;
        let is_folder = entry.file_type().with_context(cannot)?.is_dir();
        let name = entry.file_name();
        let is_ours = name.as_encoded_bytes().ends_with(b".dvc") || name == "dvc.yaml";
        let path = folder.join(&name);
        if (is_folder || is_ours) && !rules.take_one(&path, is_folder)? && !git.take_one(&path, is_folder)? {
            if is_folder {
                folders.push(path);
            } else {
                files.insert(path);
            }
        }
    }
    Ok((files, folders))
}

fn add(root: &Path, file: &Path, index: &mut Index) -> Result<()> {
    let text = trainspot_transfer::text_beneath(root, file).context("it is not text")?;
    let folder = file.parent().unwrap_or(Path::new(""));
    if file.file_name().is_some_and(|name| name == "dvc.yaml") {
        let pipeline = PipelineFile::read(&text)?;
        for stage in pipeline.stages.values().map(StageEntry::body) {
            let folder = folder.join(stage.wdir.as_deref().unwrap_or_default());
            // A template names no path yet; DVC_PUSH is what takes those.
            for (path, _) in stage.outs().filter(|(path, _)| !path.contains("${")) {
                index.outs.insert(
                    plain(&folder.join(path)),
                    NamedOutput { file: file.to_owned(), out: None, several: false },
                );
            }
        }
        return Ok(());
    }
    let pointer = PointerFile::read(&text)?;
    let folder = folder.join(pointer.wdir.as_deref().unwrap_or_default());
    let several = pointer.outs.len() > 1;
    for out in pointer.outs {
        let path = plain(&folder.join(&out.path));
        index.outs.insert(path, NamedOutput { file: file.to_owned(), out: Some(out), several });
    }
    Ok(())
}

/// A path without `.` and `..`.
pub(crate) fn plain(path: &Path) -> PathBuf {
    path.components().fold(PathBuf::new(), |mut plain, part| {
        match part {
            Component::ParentDir if plain.file_name().is_some() => drop(plain.pop()),
            Component::CurDir => {}
            part => plain.push(part),
        }
        plain
    })
}
