//! The outputs that DVC keeps: ordered before anything is rented, and their pointers taken into the clone.

use crate::config::Config;
use crate::dvc::{Order, Stored, write};
use crate::error::{Error, Kind, Result};
use crate::repo::Checkout;
use crate::transfer::Entry;
use indicatif::HumanBytes;
use tracing::{info, warn};

/// What DVC is to keep, as far as it can be known before there are outputs. `here`: from this machine, whose home may hold
/// credentials.
pub(super) fn order(config: &Config, clone: &Checkout, here: bool) -> Result<Order> {
    if config.dvc.is_empty() {
        return Ok(Order::default());
    }
    let tracked = clone.tracked(&config.dvc.outputs)?;
    let in_git = tracked.iter().map(|path| path.to_string_lossy().into_owned()).collect();
    let mut order = Order { in_git, ..config.dvc.clone() };
    order.environment.retain(|name, _| here || !["HOME", "USER"].contains(&name.as_str()));
    let checked = order.check(&config.clone_dir).and_then(|()| order.narrowed(&config.clone_dir));
    checked.map_err(|error| match error.exit_kind() {
        Kind::Unexpected => error.kind(Kind::Configuration),
        _ => error,
    })
}

/// Takes the pointers of what is safe in its remote into the clone, and returns them as files to commit.
pub(super) fn take(config: &Config, stored: &Stored) -> Result<Vec<Entry>> {
    tell(stored);
    write(&config.clone_dir, &stored.changes).map_err(unpublished)?;
    let paths = stored.changes.iter().map(|change| change.path.as_ref());
    paths.map(|path| Entry::look(&config.clone_dir, path)).collect::<Result<_>>().map_err(unpublished)
}

fn unpublished(error: Error) -> Error {
    error.kind(Kind::Publication)
}

fn tell(stored: &Stored) {
    for (path, pointer) in &stored.pointers {
        let files = pointer.files.map_or_else(String::new, |files| format!("{files} files, "));
        info!("DVC keeps {path} ({files}{}) as {}", HumanBytes(pointer.size), pointer.oid);
    }
    for sent in &stored.sent {
        let (pushed, remote) = (sent.pushed, &sent.remote);
        info!(
            "sent {} objects ({}) to {remote}; {} were there",
            pushed.objects,
            HumanBytes(pushed.bytes),
            pushed.there
        );
    }
    stored.warnings.iter().for_each(|warning| warn!("{warning}"));
}
