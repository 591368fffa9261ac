//! Which files of the workspace the pipe asks an agent for.

use serde::{Deserialize, Serialize};
use std::path::Path;
use trainspot_base::error::Result;
use trainspot_transfer::ReceivePolicy;

/// The files that a pipe asks for from the workspace.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct FileSelection {
    /// Patterns that must each match a file.
    pub required: Vec<String>,
    /// Patterns that may match none.
    pub optional: Vec<String>,
    /// Files and folders that are not sent, whatever pattern matches them.
    pub without: Vec<String>,
}

impl FileSelection {
    /// Whether a path is that of a file or folder in [`Self::without`], or below such a folder.
    #[must_use]
    pub fn excludes(&self, path: &Path) -> bool {
        self.without.iter().any(|folder| path.starts_with(folder))
    }

    /// The same files, of which none must be there: for what there is when some are missing.
    #[must_use]
    pub fn all_optional(self) -> Self {
        let optional = self.required.into_iter().chain(self.optional).collect();
        Self { required: Vec::new(), optional, without: self.without }
    }

    /// What the pipe takes of a machine's answer to this selection.
    ///
    /// # Errors
    /// A pattern is not a glob, or leads out of the workspace.
    pub fn receive_policy(&self) -> Result<ReceivePolicy> {
        let policy = ReceivePolicy::matching(self.required.iter().chain(&self.optional))?;
        Ok(policy.allow_unmatched(&self.required).without(&self.without))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use trainspot_transfer::{TargetFolder, everything};

    #[test]
    fn the_pipe_takes_what_it_asks_for_and_no_more() {
        let (from, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let strings = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect();
        let selection = FileSelection {
            required: strings(&["model"]),
            optional: strings(&["logs/*.txt"]),
            without: strings(&["logs/old.txt", "cache"]),
        };
        let (place, asked) = (TargetFolder::open(to.path()).unwrap(), selection.receive_policy().unwrap());
        let is_taken = |path: &str| {
            let file = from.path().join(path);
            std::fs::create_dir_all(file.parent().unwrap()).unwrap();
            std::fs::write(&file, path).unwrap();
            let taken = place.copy(from.path(), &asked, &everything(from.path()).unwrap()).is_ok();
            std::fs::remove_file(file).unwrap();
            taken
        };
        assert!(is_taken("model") && is_taken("logs/new.txt"));
        assert!(!is_taken("logs/old.txt") && !is_taken("logs/new.bin") && !is_taken("deploy.sh"));
        let is_excluded = |path: &str| selection.excludes(Path::new(path));
        assert!(is_excluded("logs/old.txt") && is_excluded("cache/a/b"));
        assert!(!is_excluded("logs/old.txt.gz") && !is_excluded("model"));
    }
}
