//! The branch that a pull request would go to, as far as the clone knows it.

use super::opening::open;
use git2::{Oid, Repository};
use std::path::Path;

/// The commit of the target branch, if the clone has it. `source` is the pipeline's commit.
///
/// Bitbucket's own word counts first; then the merge that it makes before such a pipeline runs, whose parents
/// are the source and the target; then the branch as the remote had it. A commit of the source itself says
/// nothing: whoever made the pull request chose its parents.
pub(super) fn commit(root: &Path, branch: &str, said: Option<&str>, source: &str) -> Option<String> {
    let repository = open(root).ok()?;
    let named = said.and_then(|said| repository.revparse_single(said).ok()?.peel_to_commit().ok());
    let found = named.map(|commit| commit.id());
    let found = found.or_else(|| merged(&repository, source)).or_else(|| {
        let reference = repository.find_reference(&format!("refs/remotes/origin/{branch}")).ok()?;
        Some(reference.peel_to_commit().ok()?.id())
    })?;
    // A partial clone may lack the files.
    repository.find_commit(found).ok()?.tree().ok().map(|_| found.to_string())
}

fn merged(repository: &Repository, source: &str) -> Option<Oid> {
    let source = Oid::from_str(source).ok()?;
    let head = repository.head().ok()?.peel_to_commit().ok()?;
    let parents: Vec<_> = head.parent_ids().collect();
    match parents[..] {
        [first, second] if first == source && head.id() != source => Some(second),
        _ => None,
    }
}
