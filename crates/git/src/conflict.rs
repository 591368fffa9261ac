//! Why outputs cannot go where they should, in the words of an error that says where they went instead.

use super::publication::Published;
use std::path::PathBuf;
use trainspot_base::error::Error;

/// The result of bringing outputs to a branch.
pub(super) enum Delivery {
    Done(Published),
    Conflict(Conflict),
}

/// Why outputs cannot go to a branch.
pub(super) enum Conflict {
    /// The branch changed these files, too.
    Files(Vec<PathBuf>),
    /// This branch stands where the other one's name would have to be a folder, or the other way round.
    Name(String),
}

impl Conflict {
    fn words(&self, branch: &str) -> String {
        match self {
            Self::Files(files) => {
                let files: Vec<_> = files.iter().map(|path| path.display().to_string()).collect();
                let files = files.join(", ");
                format!(
                    "cannot push to {branch}: it changed the same files since the pipeline's commit: {files}"
                )
            }
            Self::Name(other) => {
                format!(
                    "cannot push to {branch}: there is a branch {other}, beside which git cannot make one of that name"
                )
            }
        }
    }

    /// The error once the work is on a branch of its own.
    pub(super) fn error(&self, branch: &str, aside: &str, published: &Published) -> Error {
        let commit = match published {
            Published::Pushed { commit, .. } => format!("commit {commit} of "),
            Published::Unchanged { .. } => String::new(),
        };
        let hint = match self {
            Self::Files(_) => format!(
                "merge {aside} into {branch} by a pull request, or train again on top of it; steps that run at the same \
                 time should write different files, or have a BRANCH each"
            ),
            Self::Name(other) => {
                format!("open a pull request from {aside}, and delete {other} or choose another BRANCH")
            }
        };
        Error::new(self.words(branch))
            .leaves(format!("the new files, in {commit}branch {aside} of the remote"))
            .hint(hint)
    }

    /// The error where no branch could be made.
    pub(super) fn without_branch(&self, branch: &str) -> Error {
        Error::new(self.words(branch))
            .leaves("the new files, in the clone; nothing was committed")
            .hint("delete branches of earlier runs, or choose another BRANCH")
    }
}

/// The error where a rule of the remote is against a push.
pub(super) fn refused(branch: &str, why: &str) -> Error {
    let hint = if why.contains("missing necessary objects") {
        "the clone has commits that the remote lacks: let the step that makes them push them before this one"
    } else {
        "if the branch is protected, use PUBLISH: pull-request; otherwise look that the token may write \
         (scope repository:write), or ask an administrator about the rule that answered"
    };
    Error::new(format!("the remote refused the push to {branch}: {why}")).hint(hint)
}
