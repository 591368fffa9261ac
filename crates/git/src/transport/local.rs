//! A remote on this machine's disk: what the trial without Bitbucket pushes to, without a server in between.

use super::{PushAnswer, RefUpdate, Refs};
use crate::open;
use crate::pack::Pack;
use crate::scratch::Scratch;
use git2::ErrorCode;
use std::io;
use std::path::Path;
use trainspot_base::error::{Context as _, Error, Result};

/// The codes by which libgit2 says that a branch has moved, or is about to.
const BRANCH_MOVED_CODES: [ErrorCode; 4] =
    [ErrorCode::Modified, ErrorCode::Exists, ErrorCode::NotFound, ErrorCode::Locked];

pub(super) fn refs(path: &Path) -> Result<Refs> {
    let remote = open(path)?;
    let mut refs = Refs::default();
    for reference in remote.references().context("cannot list the remote's branches")? {
        let reference = reference.context("cannot read a reference of the remote")?;
        if let (Ok(name), Some(id)) = (reference.name(), reference.target()) {
            refs.ids.insert(name.to_owned(), id);
        }
    }
    let head = remote.find_reference("HEAD").ok();
    let head = head.as_ref().and_then(|head| head.symbolic_target().ok().flatten());
    refs.default_branch = head.and_then(|head| head.strip_prefix("refs/heads/")).map(str::to_owned);
    Ok(refs)
}

/// A branch that is checked out would move under its work tree.
pub(super) fn check_push(path: &Path) -> Result<()> {
    if open(path)?.is_bare() {
        return Ok(());
    }
    Err(Error::new(format!("{} is not a bare repository", path.display()))
        .hint("push to a bare one: git clone --bare"))
}

/// Nothing needs copying.
pub(super) fn fetch(path: &Path, scratch: &Scratch) -> Result<()> {
    scratch.borrow_objects(open(path)?.commondir())
}

pub(super) fn push(path: &Path, update: &RefUpdate, pack: &Pack) -> Result<PushAnswer> {
    check_push(path)?;
    let remote = open(path)?;
    let odb = remote.odb().context("cannot open the remote's objects")?;
    let mut writer = odb.packwriter().context("cannot write to the remote")?;
    io::copy(&mut pack.reader()?, &mut writer).context("cannot write to the remote")?;
    writer.commit().context("cannot write to the remote")?;
    let (name, log) = (update.reference.as_str(), "push");
    let moved = match update.old {
        Some(old) => remote.reference_matching(name, update.new, true, old, log),
        None => remote.reference(name, update.new, false, log),
    };
    match moved {
        Ok(_) => Ok(PushAnswer::Taken),
        // Who holds the branch's lock is about to move it.
        Err(error) if BRANCH_MOVED_CODES.contains(&error.code()) => Ok(PushAnswer::Moved),
        Err(error) => Err(Error::new(format!("cannot move {name} of the remote")).source(error)),
    }
}
