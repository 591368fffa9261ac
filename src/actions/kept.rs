//! The outputs that DVC keeps: ordered before anything is rented, and their pointers taken into the clone.

use crate::config::{Config, Secret};
use crate::dvc::{Folders, Order, Stored, write};
use crate::error::{Context as _, Error, Kind, Result, chain};
use crate::link::{Agent, Link};
use crate::log::count;
use crate::repo::Checkout;
use crate::transfer::Entry;
use indicatif::HumanBytes;
use tracing::{info, warn};

/// Where outputs are when DVC is to keep them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Where {
    /// In the clone.
    Clone,
    /// On this machine, in a copy of the clone.
    Beside,
    /// On a rented machine.
    Rented,
}

/// What DVC is to keep, as far as that can be known before there are outputs. The credentials of DVC's
/// remotes are hidden in the log from now on.
pub(super) fn order(config: &Config, clone: &Checkout, place: Where) -> Result<Order> {
    if config.dvc.is_empty() {
        return Ok(Order::default());
    }
    let tracked = clone.tracked(&config.dvc.outputs)?;
    let in_git = tracked.iter().map(|path| path.to_string_lossy().into_owned()).collect();
    let mut order = Order { in_git, ..config.dvc.clone() };
    if place == Where::Rented {
        // They are this machine's, where credentials may lie.
        order.environment.retain(|name, _| !["HOME", "USER"].contains(&name.as_str()));
    }
    checked(config, clone, order, place).map_err(|error| match error.exit_kind() {
        Kind::Unexpected => error.kind(Kind::Configuration),
        _ => error,
    })
}

fn checked(config: &Config, clone: &Checkout, order: Order, place: Where) -> Result<Order> {
    let root = config.clone_dir.canonicalize().context("cannot look at the clone")?;
    let folders = match place {
        Where::Clone => Folders::Own,
        Where::Beside => Folders::OfClone(root.clone()),
        Where::Rented => Folders::Rented,
    };
    let order = order.seen_in(&root, folders)?;
    crate::log::hide(order.secrets().into_iter().map(|(name, value)| Secret { name, value }));
    let include = config.train.as_ref().map_or(&[][..], |train| &train.include);
    order
        .check(&root, &|path| Ok(clone.workspace(include)?.iter().any(|sent| sent.path.to_path() == path)))?;
    order.narrowed(&root)
}

/// Brings home what DVC was to keep of a machine that is about to end, and says so in the error that ends it.
pub(super) async fn rescued<L: Link>(
    agent: &Agent<L>,
    config: &Config,
    order: &Order,
    error: Error,
) -> Error {
    if order.is_empty() {
        return error;
    }
    match agent.rescue(order, &config.clone_dir).await {
        Ok(saved) => {
            let files = count(saved.entries.len(), "file");
            error.leaves(format!("{files} that DVC was to keep, in the clone; nothing was committed"))
        }
        Err(failed) => error.leaves(format!("nothing of what DVC was to keep: {}", chain(&failed))),
    }
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
        let files = pointer.files.map_or_else(String::new, |files| format!("{}, ", count(files, "file")));
        info!("DVC keeps {path} ({files}{}) as {}", HumanBytes(pointer.size), pointer.oid);
    }
    for sent in &stored.sent {
        let (pushed, remote) = (&sent.pushed, &sent.remote);
        info!(
            "sent {} ({}) to {remote}; {} were there",
            count(pushed.objects, "object"),
            HumanBytes(pushed.bytes),
            pushed.there
        );
    }
    stored.warnings.iter().for_each(|warning| warn!("{warning}"));
}
