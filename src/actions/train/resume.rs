//! The checkpoint that an earlier step, or its artifacts, left in the clone.

use crate::config::Train;
use indicatif::HumanBytes;
use std::path::Path;
use tracing::{info, warn};
use trainspot_base::error::{Context as _, Result};
use trainspot_base::log::count;
use trainspot_transfer::{BundleEntry, BundleHeader, find_with_links};

/// The files of the clone from which the training is to go on, whether git ignores them or not; none if it is
/// to begin from the start.
pub(super) fn left_behind(clone: &Path, train: &Train) -> Result<Vec<BundleEntry>> {
    if !train.resume {
        return Ok(Vec::new());
    }
    let root = clone.canonicalize().context("cannot look at the clone")?;
    let mut entries =
        find_with_links(&root, &train.checkpoints).context("cannot look for a checkpoint in the clone")?;
    // What a link of the repository leads to is not the clone's to send.
    entries.retain(|entry| {
        let real = root.join(entry.path.to_path()).canonicalize();
        real.is_ok_and(|real| real.starts_with(&root))
    });
    if entries.is_empty() {
        warn!("RESUME: no file of the clone matches CHECKPOINTS; the training begins from the start");
        return Ok(entries);
    }
    let header = BundleHeader { entries, unmatched: Vec::new() };
    let (files, bytes) = (count(header.entries.len(), "file"), HumanBytes(header.bytes()));
    info!("RESUME: the training goes on from {files} of CHECKPOINTS in the clone ({bytes})");
    Ok(header.entries)
}
