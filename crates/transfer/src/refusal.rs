//! Errors about what a machine sends, and about the stream in which it comes.

use super::entry::{FOREIGN_LIST_LIMIT_BYTES, LISTED_ENTRIES_LIMIT};
use std::error::Error as StdError;
use trainspot_base::error::{Error, Kind};

/// The error `what` about a stream that broke off: the next one may come whole.
pub(super) fn broken_off(
    what: impl Into<String>,
    error: impl Into<Box<dyn StdError + Send + Sync>>,
) -> Error {
    Error::new(what).source(error).transient()
}

/// An error about what the machine sends; trying again would not help.
pub(super) fn refused(why: String) -> Error {
    Error::new(why).kind(Kind::Training)
}

/// The error about a list of files that is too long.
pub(super) fn too_many(why: impl Into<Box<dyn StdError + Send + Sync>>) -> Error {
    refused("cannot take the machine's list of files".to_owned()).source(why).hint(format!(
        "at most {LISTED_ENTRIES_LIMIT} files, with paths of not more than {} MiB, come at once: put small files into an archive",
        FOREIGN_LIST_LIMIT_BYTES >> 20
    ))
}
