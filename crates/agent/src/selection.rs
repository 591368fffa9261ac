//! The files of the workspace that a pipe asks for.

use std::collections::BTreeSet;
use std::path::Path;
use trainspot_base::error::Result;
use trainspot_protocol::FileSelection;
use trainspot_transfer::{BundleHeader, find};

/// The files that are wanted of a workspace; none when a required pattern matches nothing, and then those
/// patterns.
pub(super) fn selected(work: &Path, wanted: &FileSelection) -> Result<BundleHeader> {
    let required = find(work, &wanted.required)?;
    let mut header = BundleHeader { entries: required.files, unmatched: required.unmatched };
    if header.unmatched.is_empty() {
        let there: BTreeSet<_> = header.entries.iter().map(|entry| entry.path.to_path()).collect();
        // By its path alone: a file may have grown since it was listed.
        let optional = find(work, &wanted.optional)?.files;
        header.entries.extend(optional.into_iter().filter(|entry| !there.contains(entry.path.as_path())));
    } else {
        header.entries.clear();
    }
    header.entries.retain(|entry| !wanted.excludes(&entry.path.to_path()));
    Ok(header)
}
