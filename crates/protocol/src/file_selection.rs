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

    /// What the pipe takes of a machine's answer to this selection.
    ///
    /// # Errors
    /// A pattern is not a glob, or leads out of the workspace.
    pub fn receive_policy(&self) -> Result<ReceivePolicy> {
        let policy = ReceivePolicy::matching(self.required.iter().chain(&self.optional))?;
        Ok(policy.allow_unmatched(&self.required).without(&self.without))
    }
}
