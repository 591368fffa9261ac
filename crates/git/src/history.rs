//! The commits on a branch since the pipeline's commit: they tell who made the newest change of a file or of
//! a part of one.

use super::identity::StepIdentity;
use git2::{Commit, Oid, Repository};
use trainspot_base::error::{Context as _, Result};

/// The most commits of a branch that are fetched and examined.
pub(super) const HISTORY_LIMIT_COMMITS: usize = 50;

/// The commits of a branch since the pipeline's commit, newest first, by first parents.
#[derive(Default)]
pub(super) struct History<'a> {
    changes: Vec<BranchChange<'a>>,
    /// Whether the pipeline's commit, or the beginning of the branch's history, is the last one's parent.
    pub(super) is_complete: bool,
}

/// One commit of the branch, with its first parent.
struct BranchChange<'a> {
    after: Commit<'a>,
    before: Option<Commit<'a>>,
    /// Whether it is an earlier result of the step that publishes.
    own: bool,
}

impl<'a> History<'a> {
    /// Reads the history from `tip` as far as the repository has it. `seen` is the branch's tip when the run
    /// began.
    pub(super) fn read(
        repository: &'a Repository,
        head: Oid,
        tip: Oid,
        seen: Option<Oid>,
        identity: &StepIdentity,
    ) -> Result<Self> {
        let mut history = Self { changes: Vec::new(), is_complete: tip == head };
        let mut at = repository.find_commit(tip).context("cannot read the branch's tip")?;
        let mut before_run = false;
        while !history.is_complete && history.changes.len() < HISTORY_LIMIT_COMMITS {
            before_run |= Some(at.id()) == seen;
            let own = before_run && at.message().is_ok_and(|message| identity.is_result_of(message));
            let parent = at.parent_id(0).ok();
            // A shallow clone names commits that it does not hold.
            let before = parent.and_then(|parent| repository.find_commit(parent).ok());
            let before = before.filter(|commit| commit.tree().is_ok());
            if parent.is_some() && before.is_none() {
                return Ok(history);
            }
            history.is_complete = parent.is_none_or(|parent| parent == head);
            history.changes.push(BranchChange { after: at, before: before.clone(), own });
            let Some(before) = before else { break };
            at = before;
        }
        Ok(history)
    }

    /// Whether this step itself made the newest change of what `look` finds at a commit.
    pub(super) fn newest_is_own<T: PartialEq>(&self, look: impl Fn(&Commit<'a>) -> T) -> bool {
        self.changes(look).next().unwrap_or(false)
    }

    /// Whether this step itself made all changes of what `look` finds at a commit.
    pub(super) fn all_are_own<T: PartialEq>(&self, look: impl Fn(&Commit<'a>) -> T) -> bool {
        self.is_complete && self.changes(look).all(|own| own)
    }

    /// Whether there is nothing but earlier results of this step.
    pub(super) fn is_all_own(&self) -> bool {
        self.is_complete && self.changes.iter().all(|change| change.own)
    }

    /// Whether each change is this step's own, the newest first.
    fn changes<T: PartialEq>(&self, look: impl Fn(&Commit<'a>) -> T) -> impl Iterator<Item = bool> {
        let differs = move |change: &&BranchChange<'a>| {
            change.before.as_ref().is_none_or(|before| look(before) != look(&change.after))
        };
        self.changes.iter().filter(differs).map(|change| change.own)
    }
}
