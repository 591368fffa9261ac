//! The steps of a publication: list the remote's branches, commit on top of them, push, and start over where
//! a branch moved meanwhile.

use super::conflict::{Conflict, Delivery, refused};
use super::history::{self, History};
use super::merge::{MergeSides, Merged};
use super::outputs::WorkTree;
use super::pack::Blobs;
use super::publication::{Destination, Publication, Published};
use super::scratch::{NewCommit, Scratch};
use super::transport::{Fault, FetchDepth, GitRemote, PushAnswer, RefUpdate, Refs, RemoteTransport};
use super::tree_entry::OutputEntry;
use super::{Branches, Checkout, check_branch, open_clone, outputs, read_at};
use git2::Oid;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};
use trainspot_base::error::{Context as _, Error, Result, chain};
use trainspot_base::retry::{Attempted, RetryPolicy, retry};

/// How often a branch may move under a push, which is then made again at once: each move is another's push
/// that arrived.
const BRANCH_MOVES_LIMIT: usize = 20;

/// How a remote that fails is tried again.
const REMOTE_RETRY: RetryPolicy = RetryPolicy {
    attempts: 5,
    first_wait: Duration::from_secs(1),
    longest_wait: Duration::from_secs(15),
    total: Duration::from_mins(30),
};

pub(super) async fn publish(
    checkout: Checkout,
    remote: GitRemote,
    publication: Publication,
    stop: CancellationToken,
) -> Result<Published> {
    let prepared =
        blocking(move || PreparedPublication::prepare(&checkout, &remote, publication, stop)).await?;
    retry_blocking(prepared, PreparedPublication::attempt).await
}

/// The remote's branches, if it would take a push from us.
pub(super) async fn check_remote(remote: GitRemote, stop: CancellationToken) -> Result<Branches> {
    let transport = blocking(move || RemoteTransport::new(&remote, stop)).await?;
    // What is refused now is refused for the credential or the address; a network that is down is neither.
    let check = |transport: &mut RemoteTransport| match transport.check_push() {
        Err(Fault::Final(error)) => Err(Fault::Final(error.kind(trainspot_base::error::Kind::Configuration))),
        other => other,
    };
    Ok(retry_blocking(transport, check).await?.branches())
}

/// Retries blocking work, on a thread for blocking work, as [`REMOTE_RETRY`] allows.
async fn retry_blocking<W, T>(work: W, attempt: fn(&mut W) -> Result<T, Fault>) -> Result<T>
where
    W: Send + 'static,
    T: Send + 'static,
{
    let mut held = Some(work);
    let result = retry(REMOTE_RETRY, async |number| {
        let mut work = held.take().expect("each attempt puts it back");
        let (work, result) = match tokio::task::spawn_blocking(move || (attempt(&mut work), work)).await {
            Ok((result, work)) => (work, result),
            Err(error) => {
                return Attempted::Final(Err(Error::new("git's work ended unexpectedly").source(error)));
            }
        };
        held = Some(work);
        match result {
            Ok(value) => Attempted::Final(Ok(value)),
            Err(Fault::Final(error)) => Attempted::Final(Err(error)),
            Err(Fault::Transient(error)) => {
                if number < REMOTE_RETRY.attempts {
                    warn!("{}; trying again", chain(&error));
                }
                Attempted::Transient(error, None)
            }
        }
    });
    result.await
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    tokio::task::spawn_blocking(work).await.context("git's work ended unexpectedly")?
}

/// A publication with what survives from one attempt to the next, above all the packed outputs.
struct PreparedPublication {
    publication: Publication,
    /// The pipeline's commit.
    head: Oid,
    scratch: Scratch,
    blobs: Blobs,
    outputs: Vec<OutputEntry>,
    transport: RemoteTransport,
    /// The last commit that was sent: after a cut connection it may have arrived all the same.
    sent: Option<(String, Oid, Option<Oid>)>,
    /// How often a branch moved under a push.
    moves: usize,
}

impl PreparedPublication {
    fn prepare(
        checkout: &Checkout,
        remote: &GitRemote,
        mut publication: Publication,
        stop: CancellationToken,
    ) -> Result<Self> {
        check_branches(&publication.destination)?;
        publication.outputs = outputs::tidy(&publication.outputs);
        let transport = RemoteTransport::new(remote, stop.clone())?;
        let clone = open_clone(&checkout.root)?;
        let head = Oid::from_str(&checkout.commit).context("odd commit hash")?;
        let kept = |error: Error| error.leaves("the outputs, in the clone; nothing was committed");
        outputs::check(&clone, &checkout.root, &publication.outputs, publication.size_limits)
            .map_err(kept)?;
        let scratch = Scratch::new(&clone)?;
        let mut blobs = Blobs::new(scratch.file("blobs")?, stop);
        let base = clone.find_commit(head).and_then(|commit| commit.tree());
        let base = base.context("cannot read the pipeline's commit")?;
        let tracks_executable_bit = scratch.tracks_executable_bit();
        let work_tree = WorkTree { clone: &clone, root: &checkout.root, base, tracks_executable_bit };
        let outputs = work_tree.pack(&publication.outputs, &mut blobs)?;
        outputs::check_push(blobs.bytes()).map_err(kept)?;
        Ok(Self { publication, head, scratch, blobs, outputs, transport, sent: None, moves: 0 })
    }

    fn attempt(&mut self) -> Result<Published, Fault> {
        loop {
            let moves = self.moves;
            match self.attempt_once() {
                Err(Fault::Transient(error)) if (moves + 1..BRANCH_MOVES_LIMIT).contains(&self.moves) => {
                    info!("{}; merging again", chain(&error));
                }
                ended => return ended,
            }
        }
    }

    fn attempt_once(&mut self) -> Result<Published, Fault> {
        let refs = self.transport.refs()?;
        let (branch, target, aside) = match self.publication.destination.clone() {
            Destination::PullRequest { branch, target } => {
                let target = target.or_else(|| refs.default_branch.clone()).ok_or_else(|| {
                    Error::new("the remote names no default branch").hint("set TARGET_BRANCH")
                })?;
                if branch == target {
                    return Err(Error::new(format!("{branch} cannot be merged into itself"))
                        .hint("choose another BRANCH, or PUBLISH: push")
                        .into());
                }
                (branch, target, None)
            }
            Destination::Push { branch, fallback_branch } => (branch.clone(), branch, Some(fallback_branch)),
        };
        match self.deliver(&refs, &branch, &target)? {
            Delivery::Done(published) => Ok(published),
            Delivery::Conflict(conflict) => {
                Err(self.set_aside(&refs, &branch, aside.as_deref(), &conflict)?.into())
            }
        }
    }

    fn deliver(&mut self, refs: &Refs, branch: &str, target: &str) -> Result<Delivery, Fault> {
        if let Some((commit, parent)) = self.pushed_before(refs, branch) {
            let baseline = self.baseline(refs, target, parent);
            return Ok(Delivery::Done(pushed(branch, target, commit, parent.is_some(), baseline)));
        }
        if let Some(other) = refs.branches().obstacle(branch) {
            return Ok(Delivery::Conflict(Conflict::Name(other.to_owned())));
        }
        let old = refs.branch(branch);
        let merged = self.merged(refs, branch, old.unwrap_or(self.head))?;
        if !merged.conflicts.is_empty() {
            return Ok(Delivery::Conflict(Conflict::Files(merged.conflicts)));
        }
        let baseline = self.baseline(refs, target, old.filter(|_| branch == target));
        report_merge(branch, &merged);
        let parent = old.unwrap_or(self.head);
        let Some(commit) = self.scratch.commit(parent, merged, &self.publication)? else {
            info!("{branch}: the outputs are there already, unchanged");
            let tip = old.filter(|_| !self.has_outputs(refs, target)).map(|id| id.to_string());
            let target = target.to_owned();
            return Ok(Delivery::Done(Published::Unchanged { target, tip, baseline }));
        };
        let id = commit.id;
        self.push(branch, old, &commit)?;
        info!("pushed {} to {branch}", &id.to_string()[..12]);
        Ok(Delivery::Done(pushed(branch, target, id, old.is_some(), baseline)))
    }

    /// Brings the work to a branch of its own, which has nobody else's, and says so as an error.
    fn set_aside(
        &mut self,
        refs: &Refs,
        branch: &str,
        first: Option<&str>,
        conflict: &Conflict,
    ) -> Result<Error, Fault> {
        let branches = refs.branches();
        let base = first.unwrap_or(branch);
        let free = first.filter(|name| branches.obstacle(name).is_none()).map(str::to_owned);
        for name in free.into_iter().chain(branches.names_beside(base)) {
            let own = match refs.branch(&name) {
                None => true,
                Some(_) if self.pushed_before(refs, &name).is_some() => true,
                Some(tip) => self.history(refs, &name, tip)?.is_all_own(),
            };
            if own && let Delivery::Done(published) = self.deliver(refs, &name, branch)? {
                return Ok(conflict.error(branch, &name, &published));
            }
        }
        Err(conflict.without_branch(branch).into())
    }

    /// The outputs as they go on top of `tip`, the end of `branch`.
    fn merged(&self, refs: &Refs, branch: &str, tip: Oid) -> Result<Merged, Fault> {
        self.fetch(refs, tip)?;
        let repository = self.scratch.repository();
        let tree = |id, what| repository.find_commit(id).and_then(|commit| commit.tree()).context(what);
        let base = tree(self.head, "cannot read the pipeline's commit")?;
        let sides = MergeSides { repository, base, tip: tree(tip, "cannot read the branch's tip")? };
        let differ = sides.differ(&self.outputs);
        let history = if differ { self.history(refs, branch, tip)? } else { History::default() };
        Ok(sides.merge(&self.outputs, &history)?)
    }

    /// What happened on `branch` since the pipeline's commit. A tip is fetched without its history, which few
    /// runs need.
    fn history(&self, refs: &Refs, branch: &str, tip: Oid) -> Result<History<'_>, Fault> {
        self.fetch(refs, tip)?;
        let (repository, identity) = (self.scratch.repository(), &self.publication.identity);
        let read = || History::read(repository, self.head, tip, self.publication.seen.tip(branch), identity);
        let history = read()?;
        if history.is_complete {
            return Ok(history);
        }
        self.transport.fetch(
            &self.scratch,
            refs,
            self.head,
            FetchDepth { tip, commits: history::HISTORY_LIMIT_COMMITS },
        )?;
        Ok(read()?)
    }

    /// Whether a branch has these outputs already, as the target has once the pull request was merged.
    fn has_outputs(&self, refs: &Refs, branch: &str) -> bool {
        let Some(tip) = refs.branch(branch) else { return false };
        let merged = self.merged(refs, branch, tip).ok().filter(|merged| merged.conflicts.is_empty());
        let commit = |merged| self.scratch.commit(tip, merged, &self.publication);
        merged.is_some_and(|merged| commit(merged).is_ok_and(|commit| commit.is_none()))
    }

    fn push(&mut self, branch: &str, old: Option<Oid>, commit: &NewCommit) -> Result<(), Fault> {
        let pack = self.blobs.seal(&commit.objects)?;
        self.sent = Some((branch.to_owned(), commit.id, old));
        let update = RefUpdate { reference: format!("refs/heads/{branch}"), old, new: commit.id };
        match self.transport.push(&update, &pack)? {
            PushAnswer::Taken => Ok(()),
            PushAnswer::Moved => {
                self.moves += 1;
                Err(Fault::Transient(Error::new(format!("{branch} moved on the remote meanwhile"))))
            }
            PushAnswer::Refused(why) => Err(refused(branch, &why).into()),
        }
    }

    /// The commit of an earlier attempt, and its parent on the branch, where the remote has it after all.
    fn pushed_before(&self, refs: &Refs, branch: &str) -> Option<(Oid, Option<Oid>)> {
        let (sent_to, commit, parent) = self.sent.as_ref()?;
        (sent_to == branch && refs.branch(branch) == Some(*commit)).then_some((*commit, *parent))
    }

    fn fetch(&self, refs: &Refs, tip: Oid) -> Result<(), Fault> {
        // Looked for by its tree: a shallow clone may name a commit that it does not hold.
        let here = self.scratch.repository().find_commit(tip).and_then(|commit| commit.tree()).is_ok();
        if here {
            Ok(())
        } else {
            self.transport.fetch(&self.scratch, refs, self.head, FetchDepth { tip, commits: 1 })
        }
    }

    /// The wanted files at `at`, or at the target's tip. For a comparison in a report only: a failure is not
    /// worth the model.
    fn baseline(&self, refs: &Refs, target: &str, at: Option<Oid>) -> BTreeMap<PathBuf, Vec<u8>> {
        let Some(tip) = at.or_else(|| refs.branch(target)).filter(|_| !self.publication.baseline.is_empty())
        else {
            return BTreeMap::new();
        };
        if let Err(Fault::Transient(error) | Fault::Final(error)) = self.fetch(refs, tip) {
            warn!("no values of {target} to compare with: {}", chain(&error));
            return BTreeMap::new();
        }
        let read = |path: &PathBuf| match read_at(self.scratch.repository(), tip, path) {
            Ok(content) => Some((path.clone(), content?)),
            Err(error) => {
                warn!("no values of {target} to compare with: {}", chain(&error));
                None
            }
        };
        self.publication.baseline.iter().filter_map(read).collect()
    }
}

/// Logs the files that were merged or left alone rather than taken from the outputs.
fn report_merge(branch: &str, merged: &Merged) {
    let names = |paths: &[PathBuf]| {
        paths.iter().map(|path| path.display().to_string()).collect::<Vec<_>>().join(", ")
    };
    if !merged.from_both.is_empty() {
        info!("merged with what others pushed to {branch} meanwhile: {}", names(&merged.from_both));
    }
    if !merged.left_alone.is_empty() {
        info!(
            "left as they are on {branch}, since this run did not change them: {}",
            names(&merged.left_alone)
        );
    }
}

fn pushed(
    branch: &str,
    target: &str,
    commit: Oid,
    updated_existing: bool,
    baseline: BTreeMap<PathBuf, Vec<u8>>,
) -> Published {
    Published::Pushed {
        branch: branch.to_owned(),
        target: target.to_owned(),
        commit: commit.to_string(),
        updated_existing,
        baseline,
    }
}

fn check_branches(destination: &Destination) -> Result<()> {
    match destination {
        Destination::PullRequest { branch, target } => {
            check_branch(branch)?;
            target.as_deref().map_or(Ok(()), check_branch)
        }
        Destination::Push { branch, fallback_branch } => {
            check_branch(branch)?;
            check_branch(fallback_branch)
        }
    }
}
