//! The files of a directory that DVC would keep.

use super::super::rules::IgnoreRules;
use super::utf8;
use std::fs::Metadata;
use std::path::{Path, PathBuf};
use trainspot_base::error::{Context as _, Error, Result};

/// A file to hash.
#[derive(Debug)]
pub(super) struct WalkedFile {
    /// The file's path in the file system.
    pub(super) path: PathBuf,
    /// The file's path, relative to the directory.
    pub(super) name: String,
}

/// What a walk through a directory found.
#[derive(Debug, Default)]
pub(super) struct Walked {
    pub(super) files: Vec<WalkedFile>,
    /// Links to directories, relative to the root: DVC passes over them without a word.
    pub(super) skipped: Vec<String>,
}

/// The files below a directory, links to files followed, in no order.
///
/// `directory` is relative to `root`.
///
/// # Errors
/// A name that is not UTF-8, a link to nothing, something that is no file, a `.dvcignore` or a DVC
/// repository.
pub(super) fn walk(root: &Path, directory: &str, rules: &mut IgnoreRules) -> Result<Walked> {
    let mut walked = Walked::default();
    let mut left = vec![PathBuf::from(directory)];
    while let Some(folder) = left.pop() {
        let cannot = || format!("cannot read the folder '{}'", folder.display());
        for entry in root.join(&folder).read_dir().with_context(cannot)? {
            let entry = entry.with_context(cannot)?;
            let path = folder.join(entry.file_name());
            let kind = entry.file_type().with_context(cannot)?;
            let followed = if kind.is_symlink() { entry.path().metadata().ok() } else { None };
            let is_folder = kind.is_dir() || followed.as_ref().is_some_and(Metadata::is_dir);
            if rules.take_one(&path, is_folder)? {
                if !rules.name(&path, is_folder)? {
                    check_repository(&entry.path(), &path, directory)?;
                }
                continue;
            }
            let name = utf8(&path)?;
            if kind.is_dir() {
                left.push(path);
            } else if is_folder {
                walked.skipped.push(name.to_owned());
            } else {
                check(
                    name,
                    kind.is_symlink(),
                    kind.is_file() || followed.is_some_and(|file| file.is_file()),
                )?;
                let name = name[directory.len() + 1..].to_owned();
                walked.files.push(WalkedFile { path: entry.path(), name });
            }
        }
    }
    Ok(walked)
}

/// Refuses a DVC repository in an output: DVC would leave it out of the output without a word.
fn check_repository(folder: &Path, path: &Path, directory: &str) -> Result<()> {
    if !folder.join(".dvc").is_dir() {
        return Ok(());
    }
    let path = path.display();
    Err(Error::new(format!(
        "'{path}' is a DVC repository, which DVC does not keep as a part of '{directory}'"
    ))
    .hint(format!("remove '{path}/.dvc', or name what is in '{path}' in DVC_OUTPUTS")))
}

fn check(name: &str, link: bool, file: bool) -> Result<()> {
    if Path::new(name).file_name().is_some_and(|name| name == ".dvcignore") {
        return Err(Error::new(format!(
            "'{name}' is in a directory of DVC_OUTPUTS, where DVC allows no .dvcignore"
        ))
        .hint("move its rules to the .dvcignore of a folder above"));
    }
    if file {
        return Ok(());
    }
    Err(if link {
        Error::new(format!("the link '{name}' leads nowhere")).hint("remove it, or make what it points to")
    } else {
        Error::new(format!("'{name}' is neither a file nor a folder"))
            .hint("remove it before the command ends")
    })
}
