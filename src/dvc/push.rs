//! Sends objects to a remote, so that it never has the list of a directory whose files it lacks.

use super::Object;
use super::remote::Remote;
use crate::error::{Error, Result};
use serde::{Deserialize, Serialize};
use std::collections::HashSet;

/// What a push came to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pushed {
    /// How many objects were sent.
    pub objects: usize,
    /// Their bytes.
    pub bytes: u64,
    /// How many were there already.
    pub there: usize,
}

/// Sends those of `objects` that `remote` lacks; the lists of directories when all files are there.
///
/// DVC takes the list of a directory for proof that its files are there, so its order is one of correctness.
///
/// # Errors
/// An object could not be sent. No list is sent then, unless it was one of the lists.
pub async fn push(remote: &impl Remote, objects: &[Object]) -> Result<Pushed> {
    let missing: HashSet<_> = remote.missing(objects).await?.into_iter().collect();
    let wanted = objects.iter().filter(|object| missing.contains(&object.oid)).cloned();
    let (lists, files): (Vec<_>, Vec<_>) = wanted.partition(|object| object.oid.is_dir());
    files.iter().chain(&lists).try_for_each(check)?;
    for group in [&files, &lists] {
        remote.put_all(group).await?;
    }
    let bytes = files.iter().chain(&lists).map(|object| object.size).sum();
    let sent = files.len() + lists.len();
    Ok(Pushed { objects: sent, bytes, there: objects.len().saturating_sub(sent) })
}

/// Whether an object's file still looks as it did, before anything is sent. That its bytes are right is the remote's to see.
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
