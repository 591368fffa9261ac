//! The story of a publication: look at the remote, commit on what it has, push, and start over where it moved meanwhile.

use super::{
    Checkout, check_branch, open, outputs,
    outputs::Output,
    pack::Blobs,
    read_at,
    scratch::{Commit, Scratch},
    transport::{Answer, Fault, Refs, Remote, Server, Update},
};
use crate::{
    error::{Context, Error, Result},
    retry::{Attempt, Policy, retry},
};
use git2::Oid;
use std::{collections::BTreeMap, path::PathBuf, time::Duration};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

/// What to commit, and where.
#[derive(Clone, Debug)]
pub struct Publication {
    /// The files to commit, relative to the clone; the commit changes nothing else. Ignored ones are committed too.
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
}

/// The branch that receives the commit. Branches are named without `refs/heads/`.
#[derive(Clone, Debug)]
pub enum Destination {
    /// A branch of its own, which a pull request will bring to `target`.
    PullRequest {
        /// Made at the pipeline's commit; where it exists, the commit is added to it.
        branch: String,
        /// The remote's default branch where it is `None`.
        target: Option<String>,
    },
    /// The target branch itself.
    Push {
        /// Receives the commit on top of whatever it has by then.
        branch: String,
        /// Receives it where `branch` has changed the same files since the pipeline's commit.
        fallback_branch: String,
    },
}

/// What became of it.
#[derive(Clone, Debug)]
pub enum Published {
    /// The branch has exactly these outputs already; nothing was pushed.
    Unchanged {
        /// The branch that they were meant for.
        target: String,
        /// The full hash of the branch's tip, where an earlier run pushed the same and the target has not got it yet.
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

/// A moving remote is looked at again at once; a failing one gets time. Both share the bound.
const POLICY: Policy = Policy {
    attempts: 5,
    first_wait: Duration::from_secs(1),
    longest_wait: Duration::from_secs(15),
    total: Duration::from_mins(30),
};

pub(super) async fn publish(
    checkout: Checkout,
    remote: Remote,
    publication: Publication,
    stop: CancellationToken,
) -> Result<Published> {
    let job = blocking(move || Job::prepare(&checkout, &remote, publication, stop)).await?;
    persist(job, Job::attempt).await
}

pub(super) async fn check_remote(remote: Remote, stop: CancellationToken) -> Result<()> {
    let server = blocking(move || Server::new(&remote, stop)).await?;
    // What is refused now is refused for the credential or the address; a network that is down is neither.
    let check = |server: &mut Server| match server.check_push() {
        Err(Fault::Final(error)) => Err(Fault::Final(error.kind(crate::error::Kind::Configuration))),
        other => other,
    };
    persist(server, check).await
}

/// Repeats blocking work on a thread for such until it ends, or the policy does.
async fn persist<W, T>(work: W, attempt: fn(&mut W) -> Result<T, Fault>) -> Result<T>
where
    W: Send + 'static,
    T: Send + 'static,
{
    let mut held = Some(work);
    let result = retry(POLICY, async |number| {
        let mut work = held.take().expect("each attempt puts it back");
        let (work, result) = match tokio::task::spawn_blocking(move || (attempt(&mut work), work)).await {
            Ok((result, work)) => (work, result),
            Err(error) => {
                return Attempt::Final(Err(Error::new("git's work ended unexpectedly").source(error)));
            }
        };
        held = Some(work);
        match result {
            Ok(value) => Attempt::Final(Ok(value)),
            Err(Fault::Final(error)) => Attempt::Final(Err(error)),
            Err(Fault::Passing(error)) => {
                if number < POLICY.attempts {
                    warn!("{}; trying again", crate::error::chain(&error));
                }
                Attempt::Passing(error, None)
            }
        }
    });
    result.await
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    tokio::task::spawn_blocking(work).await.context("git's work ended unexpectedly")?
}

/// What survives from one attempt to the next: above all the packed outputs.
struct Job {
    publication: Publication,
    /// The pipeline's commit.
    head: Oid,
    scratch: Scratch,
    blobs: Blobs,
    outputs: Vec<Output>,
    server: Server,
    /// The last commit that was sent: after a cut connection it may have arrived all the same.
    sent: Option<(String, Oid, Option<Oid>)>,
}

impl Job {
    fn prepare(
        checkout: &Checkout,
        remote: &Remote,
        mut publication: Publication,
        stop: CancellationToken,
    ) -> Result<Self> {
        check_branches(&publication.destination)?;
        publication.outputs = outputs::tidy(&publication.outputs);
        let server = Server::new(remote, stop.clone())?;
        let clone = open(&checkout.root)?;
        let head = Oid::from_str(&checkout.commit).context("odd commit hash")?;
        outputs::check(&clone, &checkout.root, &publication.outputs)?;
        let scratch = Scratch::new(&clone, &checkout.root)?;
        let mut blobs = Blobs::new(scratch.file("blobs")?, stop);
        let base = clone.find_commit(head).and_then(|commit| commit.tree());
        let base = base.context("cannot read the pipeline's commit")?;
        let outputs = outputs::pack(&scratch, &checkout.root, &publication.outputs, &base, &mut blobs)?;
        Ok(Self { publication, head, scratch, blobs, outputs, server, sent: None })
    }

    fn attempt(&mut self) -> Result<Published, Fault> {
        let refs = self.server.refs()?;
        match self.publication.destination.clone() {
            Destination::PullRequest { branch, target } => {
                let target = target.or_else(|| refs.default_branch.clone()).ok_or_else(|| {
                    Error::new("the remote names no default branch").hint("set TARGET_BRANCH")
                })?;
                if branch == target {
                    return Err(Error::new(format!("{branch} cannot be merged into itself"))
                        .hint("choose another BRANCH, or PUBLISH: push")
                        .into());
                }
                self.deliver(&refs, &branch, target)
            }
            Destination::Push { branch, fallback_branch } => {
                let tip = refs.branch(&branch).unwrap_or(self.head);
                self.fetch(&refs, tip)?;
                let conflicts =
                    if self.arrived(&refs, &branch).is_some() { Vec::new() } else { self.conflicts(tip)? };
                if conflicts.is_empty() {
                    return self.deliver(&refs, &branch.clone(), branch);
                }
                let pushed = self.deliver(&refs, &fallback_branch, branch.clone())?;
                Err(conflict(&branch, &fallback_branch, &conflicts, &pushed).into())
            }
        }
    }

    fn deliver(&mut self, refs: &Refs, branch: &str, target: String) -> Result<Published, Fault> {
        if let Some((commit, parent)) = self.arrived(refs, branch) {
            let baseline = self.baseline(refs, &target, parent);
            return Ok(pushed(branch, target, commit, parent.is_some(), baseline));
        }
        let old = refs.branch(branch);
        let parent = old.unwrap_or(self.head);
        self.fetch(refs, parent)?;
        let baseline = self.baseline(refs, &target, old.filter(|_| branch == target));
        let Some(commit) = self.scratch.commit(parent, &self.outputs, &self.publication)? else {
            info!("{branch}: the outputs are there already, unchanged");
            let tip = old.filter(|_| !self.has_outputs(refs, &target)).map(|id| id.to_string());
            return Ok(Published::Unchanged { target, tip, baseline });
        };
        let id = commit.id;
        self.push(branch, old, &commit)?;
        info!("pushed {} to {branch}", &id.to_string()[..12]);
        Ok(pushed(branch, target, id, old.is_some(), baseline))
    }

    /// Whether a branch has these outputs already, as the target has once the pull request was merged.
    fn has_outputs(&self, refs: &Refs, branch: &str) -> bool {
        let Some(tip) = refs.branch(branch) else { return false };
        self.fetch(refs, tip).is_ok()
            && self.scratch.commit(tip, &self.outputs, &self.publication).is_ok_and(|commit| commit.is_none())
    }

    fn push(&mut self, branch: &str, old: Option<Oid>, commit: &Commit) -> Result<(), Fault> {
        let pack = self.blobs.seal(&commit.objects)?;
        self.sent = Some((branch.to_owned(), commit.id, old));
        let update = Update { reference: format!("refs/heads/{branch}"), old, new: commit.id };
        match self.server.push(&update, &pack)? {
            Answer::Taken => Ok(()),
            Answer::Moved => {
                Err(Fault::Passing(Error::new(format!("{branch} moved on the remote meanwhile"))))
            }
            Answer::Refused(why) => Err(refused(branch, &why).into()),
        }
    }

    /// The commit of an earlier attempt, and its parent on the branch, where the remote has it after all.
    fn arrived(&self, refs: &Refs, branch: &str) -> Option<(Oid, Option<Oid>)> {
        let (sent_to, commit, parent) = self.sent.as_ref()?;
        (sent_to == branch && refs.branch(branch) == Some(*commit)).then_some((*commit, *parent))
    }

    fn fetch(&self, refs: &Refs, tip: Oid) -> Result<(), Fault> {
        // Looked for by its tree: a shallow clone may name a commit that it does not hold.
        let here = self.scratch.repository().find_commit(tip).and_then(|commit| commit.tree()).is_ok();
        if here { Ok(()) } else { self.server.fetch(&self.scratch, refs, self.head, tip) }
    }

    /// The outputs that the branch changed since the pipeline's commit, otherwise than we do.
    fn conflicts(&self, tip: Oid) -> Result<Vec<PathBuf>> {
        let tree = |id| self.scratch.repository().find_commit(id).and_then(|commit| commit.tree());
        let base = tree(self.head).context("cannot read the pipeline's commit")?;
        let tip = tree(tip).context("cannot read the branch's tip")?;
        let differs = |output: &&Output| {
            let theirs = tip.get_path(&output.path).ok().map(|entry| entry.id());
            let before = base.get_path(&output.path).ok().map(|entry| entry.id());
            theirs != before && theirs != Some(output.id)
        };
        Ok(self.outputs.iter().filter(differs).map(|output| output.path.clone()).collect())
    }

    /// The wanted files at `at`, or at the target's tip. For a comparison in a report only: a failure is not worth the model.
    fn baseline(&self, refs: &Refs, target: &str, at: Option<Oid>) -> BTreeMap<PathBuf, Vec<u8>> {
        let Some(tip) = at.or_else(|| refs.branch(target)).filter(|_| !self.publication.baseline.is_empty())
        else {
            return BTreeMap::new();
        };
        if let Err(Fault::Passing(error) | Fault::Final(error)) = self.fetch(refs, tip) {
            warn!("no values of {target} to compare with: {}", crate::error::chain(&error));
            return BTreeMap::new();
        }
        let read = |path: &PathBuf| match read_at(self.scratch.repository(), tip, path) {
            Ok(content) => Some((path.clone(), content?)),
            Err(error) => {
                warn!("no values of {target} to compare with: {}", crate::error::chain(&error));
                None
            }
        };
        self.publication.baseline.iter().filter_map(read).collect()
    }
}

fn pushed(
    branch: &str,
    target: String,
    commit: Oid,
    updated_existing: bool,
    baseline: BTreeMap<PathBuf, Vec<u8>>,
) -> Published {
    Published::Pushed {
        branch: branch.to_owned(),
        target,
        commit: commit.to_string(),
        updated_existing,
        baseline,
    }
}

fn conflict(branch: &str, fallback: &str, files: &[PathBuf], pushed: &Published) -> Error {
    let files: Vec<_> = files.iter().map(|path| path.display().to_string()).collect();
    let files = files.join(", ");
    let commit = match pushed {
        Published::Pushed { commit, .. } => format!("commit {commit} of "),
        Published::Unchanged { .. } => String::new(),
    };
    Error::new(format!(
        "cannot push to {branch}: it changed the same files since the pipeline's commit: {files}"
    ))
    .leaves(format!("the new files, in {commit}branch {fallback} of the remote"))
    .hint(format!("merge {fallback} into {branch} by a pull request, or run the pipeline again"))
}

fn refused(branch: &str, why: &str) -> Error {
    let hint = if why.contains("missing necessary objects") {
        "the clone has commits that the remote lacks: let the step that makes them push them before this one"
    } else {
        "if the branch is protected, use PUBLISH: pull-request; otherwise look that the token may write \
         (scope repository:write), or ask an administrator about the rule that answered"
    };
    Error::new(format!("the remote refused the push to {branch}: {why}")).hint(hint)
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
