//! Opening repositories.

use crate::error::{Error, Kind, Result};
use git2::{ErrorCode, Repository};
use std::path::Path;
use std::sync::Once;

/// Opens a repository.
pub(super) fn open(directory: &Path) -> Result<Repository> {
    static SETTINGS: Once = Once::new();
    SETTINGS.call_once(|| {
        // The clone belongs to the step's user, who need not be ours; the container is the border that counts.
        // SAFETY: it writes a flag that libgit2 reads when it opens a repository, and every one is opened below.
        #[allow(unsafe_code)]
        let set = unsafe { git2::opts::set_verify_owner_validation(false) };
        set.expect("libgit2 knows this option");
        // Trees name blobs that are in the pack for the remote only, not in any repository on this disk.
        git2::opts::strict_object_creation(false);
    });
    Repository::open(directory).map_err(|error| match error.code() {
        ErrorCode::NotFound => unusable(directory, "is not a git repository"),
        _ => unusable(directory, "cannot be opened as a git repository").source(error),
    })
}

pub(super) fn unusable(directory: &Path, why: &str) -> Error {
    Error::new(format!("{} {why}", directory.display()))
        .kind(Kind::Configuration)
        .hint("run in a step that clones the repository (clone: enabled: true), in BITBUCKET_CLONE_DIR")
}
