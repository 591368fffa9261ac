//! Which files of the workspace the pipe asks an agent for.

use serde::{Deserialize, Serialize};
use std::path::Path;
use trainspot_base::error::Result;
use trainspot_transfer::Asked;

/// The files that a pipe wants from the workspace.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Wanted {
    /// Patterns that must each match a file.
    pub required: Vec<String>,
    /// Patterns that may match none.
    pub optional: Vec<String>,
    /// Files and folders that are not sent, whatever matches them.
    pub without: Vec<String>,
}

impl Wanted {
    /// Whether a path is one of those that are not sent, or below one.
    #[must_use]
    pub fn leaves_out(&self, path: &Path) -> bool {
        self.without.iter().any(|folder| path.starts_with(folder))
    }

    /// What of a machine's answer is taken.
    ///
    /// # Errors
    /// A pattern is none, or leads out of the workspace.
    pub fn asked(&self) -> Result<Asked> {
        let asked = Asked::matching(self.required.iter().chain(&self.optional))?;
        Ok(asked.that_may_miss(&self.required).without(&self.without))
    }
}
