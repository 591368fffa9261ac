//! The clone that outputs are kept for, and what the target branch of a pull request says of its remotes.

use super::config::CONFIG_FILES;
use super::remote::Recipient;
use super::trust::PullRequestTarget;
use super::{DvcConfig, DvcSettings, PathBase, Remotes, repositories};
use std::path::{Path, PathBuf};
use trainspot_base::error::Result;

/// The clone that outputs are kept for.
pub struct Site<'a> {
    /// The clone's folder.
    pub root: &'a Path,
    /// The folder that relative paths of remotes start from.
    pub folders: PathBase,
    /// The outputs that git tracks, which DVC must not track too.
    pub in_git: Vec<String>,
    /// In a pull request's pipeline, the branch that it would go to.
    pub target: Option<TargetBranch<'a>>,
}

/// The branch that a pull request would go to.
pub struct TargetBranch<'a> {
    /// The branch's name.
    pub name: String,
    /// The text of a file there, or nothing where there is no such file; none if its commit is not in the
    /// clone.
    pub read: Option<FileReader<'a>>,
    /// Whether git tracks a path of the clone.
    pub is_tracked: &'a dyn Fn(&Path) -> Result<bool>,
}

/// Reads a file of a commit.
pub type FileReader<'a> = &'a dyn Fn(&Path) -> Result<Option<String>>;

/// Who gets credentials by the configurations of the branch that a pull request would go to.
pub(super) fn target(settings: &DvcSettings, site: &Site<'_>) -> Result<Option<PullRequestTarget>> {
    let Some(target) = &site.target else { return Ok(None) };
    let mut recipients = target.read.map(|_| Vec::new());
    if let (Some(read), Some(recipients)) = (target.read, &mut recipients) {
        let mut folders = repositories::all(site.root)?;
        folders.insert(PathBuf::new());
        for folder in folders {
            let Some(config) = config_of_target(site.root, &folder, read, target.is_tracked)? else {
                continue;
            };
            let remotes = Remotes::of(&site.root.join(&folder), config, None, settings.environment.clone());
            let usable = remotes.names().filter_map(|name| remotes.settings_of(name, "").ok());
            recipients.extend(usable.filter_map(|settings| Recipient::of(&settings).ok().flatten()));
        }
    }
    Ok(Some(PullRequestTarget { branch: target.name.clone(), recipients }))
}

/// The configuration of a DVC repository on that branch: its files there, and what of the clone's is no file
/// of git's, which the step made.
fn config_of_target(
    root: &Path,
    folder: &Path,
    read: FileReader<'_>,
    is_tracked: &dyn Fn(&Path) -> Result<bool>,
) -> Result<Option<DvcConfig>> {
    let mut texts = Vec::new();
    for name in CONFIG_FILES {
        let path = folder.join(name);
        match read(&path)? {
            Some(text) => texts.push((name, text)),
            None if !is_tracked(&path)? => {
                texts.extend(trainspot_transfer::text_beneath(root, &path).ok().map(|text| (name, text)));
            }
            None => {}
        }
    }
    // One that DVC could not read names nobody.
    Ok(DvcConfig::of_texts(&texts).ok())
}
