//! Errors about what a machine sends.

use super::entry::{FOREIGN_LIST_LIMIT_BYTES, LISTED_ENTRIES_LIMIT};
use trainspot_base::error::{Error, Kind};

/// An error about what the machine sends; trying again would not help.
pub(super) fn refused(why: String) -> Error {
    Error::new(why).kind(Kind::Training)
}

/// The error about a list of files that is too long.
pub(super) fn too_many(why: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Error {
    refused("cannot take the machine's list of files".to_owned()).source(why).hint(format!(
        "at most {LISTED_ENTRIES_LIMIT} files, with paths of not more than {} MiB, come at once: put small files into an archive",
        FOREIGN_LIST_LIMIT_BYTES >> 20
    ))
}
