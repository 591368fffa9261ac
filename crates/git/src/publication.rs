//! A publication's request, its destination, and its result.

use super::{Branches, StepIdentity};
use std::collections::BTreeMap;
use std::path::PathBuf;

/// A commit to make: its files, its message and its destination.
#[derive(Clone, Debug)]
pub struct Publication {
    /// The files to commit, relative to the clone; the commit changes nothing else. Ignored ones are
    /// committed too.
    pub outputs: Vec<PathBuf>,
    /// The branch that receives the commit.
    pub destination: Destination,
    /// The whole commit message.
    pub message: String,
    /// Author and committer.
    pub author_name: String,
    /// Author's and committer's e-mail address.
    pub author_email: String,
    /// Small files whose content on the target branch is wanted for comparison.
    pub baseline: Vec<PathBuf>,
    /// Who publishes; its trailers are in the message.
    pub identity: StepIdentity,
    /// The remote's branches when the run began.
    pub seen: Branches,
    /// Whether Bitbucket's usual limit for a file holds for the repository.
    pub size_limits: bool,
}

/// The branch that receives the commit. Branches are named without `refs/heads/`.
#[derive(Clone, Debug)]
pub enum Destination {
    /// A branch of its own, which a pull request will bring to `target`.
    PullRequest {
        /// Made at the pipeline's commit; where it exists, the commit is added to it. Where it has changed
        /// the same files since the pipeline's commit, the commit goes to a branch of this name and a number.
        branch: String,
        /// The remote's default branch where it is `None`.
        target: Option<String>,
    },
    /// The target branch itself.
    Push {
        /// Receives the commit on top of whatever it has by then.
        branch: String,
        /// Receives it where `branch` has changed the same files since the pipeline's commit. Where this one
        /// has others' work, too, a number is added to its name.
        fallback_branch: String,
    },
}

/// The result of a publication.
#[derive(Clone, Debug)]
pub enum Published {
    /// The branch has exactly these outputs already; nothing was pushed.
    Unchanged {
        /// The branch that they were meant for.
        target: String,
        /// The full hash of the branch's tip, where an earlier run pushed the same and the target has not got
        /// it yet.
        tip: Option<String>,
        /// The wanted files of the target branch, those that exist there.
        baseline: BTreeMap<PathBuf, Vec<u8>>,
    },
    /// The remote took the commit.
    Pushed {
        /// The branch that has it.
        branch: String,
        /// The branch that it is meant for; the same for a direct push.
        target: String,
        /// The commit's full hash.
        commit: String,
        /// Whether the branch existed before.
        updated_existing: bool,
        /// The wanted files of the target branch before the push, those that exist there.
        baseline: BTreeMap<PathBuf, Vec<u8>>,
    },
}
