//! Sends objects to a remote, so that it never has the list of a directory whose files it lacks.

use super::remote::RemoteStore;
use super::{Object, ObjectContent};
use std::collections::HashSet;
use trainspot_base::error::{Error, Result};

/// The most outputs that one message names.
const NAMED_OUTPUTS_LIMIT: usize = 5;

/// What a push sent, and what was there already.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PushReport {
    /// How many objects were sent.
    pub objects: usize,
    /// Their bytes.
    pub bytes: u64,
    /// How many were there already.
    pub there: usize,
    /// The outputs whose objects are neither here nor there, and did not have to be.
    pub absent: Vec<String>,
}

/// Sends those of `objects` that `remote` lacks; the lists of directories when all files are there.
///
/// DVC takes the list of a directory for proof that its files are there, so its order is one of correctness.
/// An object that is not on this machine need not be sent if the remote has it. `dvc push` passes over one
/// that nobody has with a warning; here that is an error, as it may be the model.
///
/// # Errors
/// An object that is needed is neither here nor there, and nothing is sent; or one could not be sent, and no
/// list is sent then, unless it was one of the lists.
pub async fn push(remote: &impl RemoteStore, objects: &[Object]) -> Result<PushReport> {
    let missing: HashSet<_> = remote.missing(objects).await?.into_iter().collect();
    let wanted = objects.iter().filter(|object| missing.contains(&object.oid)).cloned();
    let (absent, wanted): (Vec<_>, Vec<_>) = wanted.partition(|object| object.content.is_elsewhere());
    let absent = nowhere(&absent)?;
    let (lists, files): (Vec<_>, Vec<_>) = wanted.into_iter().partition(|object| object.oid.is_dir());
    files.iter().chain(&lists).try_for_each(check)?;
    for group in [&files, &lists] {
        remote.put_all(group).await?;
    }
    let bytes = files.iter().chain(&lists).map(|object| object.size).sum();
    let sent = files.len() + lists.len();
    let there = objects.len().saturating_sub(sent + absent.len());
    Ok(PushReport { objects: sent, bytes, there, absent })
}

/// The outputs of objects that are neither here nor in the remote, unless one of them has to be.
fn nowhere(objects: &[Object]) -> Result<Vec<String>> {
    let outputs = |wanted: bool| {
        let found = objects.iter().filter_map(move |object| match &object.content {
            ObjectContent::Elsewhere { output, needed } if *needed == wanted => Some(output.clone()),
            _ => None,
        });
        found.collect::<Vec<_>>()
    };
    let needed = outputs(true);
    if needed.is_empty() {
        return Ok(outputs(false));
    }
    let named = needed
        .iter()
        .take(NAMED_OUTPUTS_LIMIT)
        .map(|output| format!("'{output}'"))
        .collect::<Vec<_>>()
        .join(", ");
    let more = needed.len().saturating_sub(NAMED_OUTPUTS_LIMIT);
    let more = if more == 0 { String::new() } else { format!(" and {more} more") };
    Err(Error::new(format!("{named}{more}: neither in DVC's cache on this machine nor in the remote")).hint(
        "let the command make them by `dvc repro`, or `dvc commit -f` if it ran the training otherwise; or push them once from where they are",
    ))
}

/// Whether an object's file still looks as it did, before anything is sent. That its bytes are right is the
/// remote's to see.
fn check(object: &Object) -> Result<()> {
    let Some(path) = object.content.path() else { return Ok(()) };
    let changed = |why: &str| {
        Error::new(format!("'{}' {why} since it was hashed", path.display()))
            .hint("let the command end only when its files are complete")
    };
    match path.metadata() {
        Ok(metadata) if metadata.len() == object.size => Ok(()),
        Ok(_) => Err(changed("has changed")),
        Err(error) => Err(changed("cannot be read").source(error)),
    }
}
