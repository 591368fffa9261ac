//! What DVC is to keep, as the pipe decides from the clone's files: the request for the machine before
//! anything is rented, and the files to commit once the machine has answered.

use super::remote::{self, RemoteName, Settings};
use super::site::{self, Site};
use super::store::named;
use super::store_request::{CachePush, RepositoryShare, StoreRequest};
use super::track::{Prospect, index, render};
use super::trust::Trust;
use super::{
    Change, DvcConfig, DvcSettings, PathBase, Pointer, Remotes, Settled, StoreResult, Tracking, credentials,
    foresee, pipelines, repositories,
};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use trainspot_base::error::{Error, Kind, Result};
use trainspot_base::log::Secret;

/// Which outputs of a run DVC keeps, and where.
pub struct StorePlan {
    root: PathBuf,
    has_outputs: bool,
    push: bool,
    in_git: Vec<String>,
    parts: Vec<RepositoryOutputs>,
    /// The remotes for a DVC repository that the clone does not have.
    elsewhere: Settled,
    secrets: Vec<Secret>,
    has_wanted: bool,
    folders: PathBase,
    request: StoreRequest,
}

/// A DVC repository of the clone, and the outputs that belong to it.
struct RepositoryOutputs {
    /// The repository's folder, relative to the clone.
    folder: PathBuf,
    /// The outputs' paths, relative to the repository's folder.
    outputs: Vec<String>,
    remotes: Remotes,
}

/// The outputs that are safe in DVC's remotes, and the files that say so.
#[derive(Debug, Default)]
pub struct StoredOutputs {
    /// The files to write and commit.
    pub changes: Vec<Change>,
    /// Each output's path and pointer, in the order of its repository.
    pub pointers: Vec<(String, Pointer)>,
    /// The objects that each remote got.
    pub sent: Vec<DeliveredObjects>,
    /// What was left out, and why, in words.
    pub warnings: Vec<String>,
}

/// The objects that one remote got.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeliveredObjects {
    /// The remote, in words.
    pub remote: String,
    /// How many objects were sent.
    pub objects: u64,
    /// Their bytes.
    pub bytes: u64,
    /// How many were there already.
    pub there: u64,
}

impl StorePlan {
    /// Reads the configuration of the clone's DVC repositories.
    ///
    /// # Errors
    /// A configuration cannot be read, or an output is outside of the clone or in another one.
    pub fn read(settings: &DvcSettings, site: &Site<'_>) -> Result<Self> {
        let root = site.root;
        let trust = Trust::new(&settings.trusted_hosts, site::target(settings, site)?);
        let of = |folder: &Path, config: DvcConfig| {
            let base = root.join(folder);
            let folders = match &site.folders {
                PathBase::OfClone(clone) => PathBase::OfClone(clone.join(folder)),
                other => other.clone(),
            };
            let remotes =
                Remotes::of(&base, config, settings.remote.as_deref(), settings.environment.clone());
            remotes.with_folders(folders).with_trust(trust.clone())
        };
        let (mut parts, mut secrets) = (Vec::new(), Vec::new());
        for (folder, outputs) in places(root, settings)? {
            let config = DvcConfig::read(&root.join(&folder))?;
            secrets.extend(config.secrets());
            let remotes = of(&folder, config);
            parts.push(RepositoryOutputs { folder, outputs, remotes });
        }
        let made = of(Path::new(""), DvcConfig::default());
        let elsewhere = if made.address().is_some() { made.settle() } else { Settled::none(&no_remote()) };
        Ok(Self {
            root: root.to_owned(),
            has_outputs: !settings.outputs.is_empty(),
            push: settings.push,
            in_git: site.in_git.clone(),
            parts,
            elsewhere,
            secrets,
            has_wanted: settings.remote.is_some(),
            folders: site.folders.clone(),
            request: StoreRequest::default(),
        })
    }

    /// The credentials in the configuration, each with a name to show in its place.
    #[must_use]
    pub fn secrets(&self) -> &[Secret] {
        &self.secrets
    }

    /// Settles the request, and checks what can be known before there are outputs: whether there is a remote
    /// that the machine can use with what it gets, and whether the outputs can be DVC's. `is_sent` tells
    /// whether a file of the clone goes to the machine.
    ///
    /// # Errors
    /// `.dvc/config` names no remote, or one that is not supported, not of use on the machine or not to be
    /// trusted; DVC would refuse an output, or git its pointer; a file of DVC's cannot be read.
    pub fn settle(mut self, is_sent: &dyn Fn(&Path) -> Result<bool>) -> Result<Self> {
        let usable = |settings: &Settings| {
            remote::check(settings)?;
            self.check_files(settings, is_sent)
        };
        let (mut shares, mut known) = (Vec::new(), BTreeSet::new());
        for part in &self.parts {
            let foreseen = part.with_tracking(&self, foresee)?;
            foreseen.remotes.iter().try_for_each(usable)?;
            if self.push {
                let base = self.root.join(&part.folder);
                named(&part.folder, || pipelines::check(&base, &part.remotes))?;
                known.extend(pipelines::known(&base)?);
            }
            shares.push(self.share(part, foreseen));
        }
        if !self.has_outputs && self.has_wanted {
            // Whether a repository has anything to push shows after the training.
            let known = self.parts.iter().map(|part| usable(&part.remotes.choose(None)?));
            known.reduce(Result::or).unwrap_or(Ok(()))?;
        }
        let push = self.push.then(|| {
            let mut elsewhere = self.elsewhere.clone();
            self.leave(&mut elsewhere);
            CachePush { known, elsewhere }
        });
        self.request = StoreRequest { shares, push };
        Ok(self)
    }

    /// The request for the machine.
    #[must_use]
    pub fn request(&self) -> &StoreRequest {
        &self.request
    }

    /// The outputs that were stored, and the files to commit. The files are made from the clone's files as
    /// they are now, and from the hashes and numbers in the result.
    ///
    /// # Errors
    /// A file that came into the clone since the request makes DVC refuse an output, or cannot be read.
    pub fn accept(&self, outcome: &StoreResult) -> Result<StoredOutputs> {
        let mut kept = StoredOutputs { warnings: outcome.warnings.clone(), ..StoredOutputs::default() };
        let mut pointers = outcome.pointers.iter().cloned();
        for (part, share) in self.parts.iter().zip(&self.request.shares) {
            let own: Vec<_> = pointers.by_ref().take(share.outputs.len()).collect();
            kept.changes.extend(part.with_tracking(self, |tracking| render(tracking, &own))?);
            let path = |path: &str| part.folder.join(path).to_string_lossy().into_owned();
            kept.pointers.extend(share.outputs.iter().map(|output| path(&output.path)).zip(own));
        }
        for sent in &outcome.sent {
            let remote = self.request.remote(sent.share, &sent.remote);
            let remote = remote.map_or_else(String::new, |settings| RemoteName::of(settings).to_string());
            let (objects, bytes, there) = (sent.objects, sent.bytes, sent.there);
            kept.sent.push(DeliveredObjects { remote, objects, bytes, there });
        }
        Ok(kept)
    }

    fn share(&self, part: &RepositoryOutputs, foreseen: Prospect) -> RepositoryShare {
        let mut remotes = part.remotes.settle();
        if !self.push {
            let used: Vec<_> = foreseen.outputs.iter().map(|output| output.remote.as_deref()).collect();
            remotes = remotes.only(&used);
        }
        self.leave(&mut remotes);
        let (folder, outputs, rules) = (part.folder.clone(), foreseen.outputs, foreseen.rules);
        RepositoryShare { folder, outputs, rules, remotes }
    }

    /// Paths of the clone are those of the machine's copy, unless they mean this clone itself.
    fn leave(&self, remotes: &mut Settled) {
        if !matches!(self.folders, PathBase::OfClone(_)) {
            remotes.leave(&self.root);
        }
    }

    /// A credential that is a file of this machine is not on a rented one, unless git has it or `INCLUDE`
    /// names it.
    fn check_files(&self, settings: &Settings, is_sent: &dyn Fn(&Path) -> Result<bool>) -> Result<()> {
        if self.folders != PathBase::Rented {
            return Ok(());
        }
        for (what, file, instead) in credentials::files(settings) {
            let file = index::plain(&file);
            if file.starts_with(&self.root) && is_sent(file.strip_prefix(&self.root).unwrap_or(&file))? {
                continue;
            }
            let place = RemoteName::of(settings);
            return Err(Error::new(format!(
                "{what} of {place} is the file '{}', which the rented machine does not have",
                file.display()
            ))
            .kind(Kind::Configuration)
            .hint(instead));
        }
        Ok(())
    }

    /// A path that git tracks: `path`, one below it or one above it; none if git tracks none of them.
    fn in_git(&self, path: &Path) -> Option<String> {
        let found = self
            .in_git
            .iter()
            .find(|tracked| Path::new(tracked).starts_with(path) || path.starts_with(tracked));
        found.cloned()
    }
}

impl RepositoryOutputs {
    fn with_tracking<T>(&self, plan: &StorePlan, work: impl FnOnce(&Tracking<'_>) -> Result<T>) -> Result<T> {
        let in_git = |path: &Path| plan.in_git(path);
        let Self { folder, outputs, remotes } = self;
        work(&Tracking { root: &plan.root, folder, outputs, in_git: &in_git, remotes })
    }
}

fn no_remote() -> Error {
    Error::new("the training made this DVC repository: no remote that its own files name gets anything")
        .hint("set DVC_REMOTE to an address, or commit the repository's .dvc/config before the run")
}

/// The folders of the DVC repositories of the clone at `root` that hold outputs, with those; for a push, of
/// all of its DVC repositories.
fn places(root: &Path, settings: &DvcSettings) -> Result<BTreeMap<PathBuf, Vec<String>>> {
    let mut places = repositories::of_outputs(root, &settings.outputs)?;
    if settings.push {
        for folder in repositories::all(root)? {
            places.entry(folder).or_default();
        }
    }
    if places.is_empty() {
        places.insert(PathBuf::new(), Vec::new());
    }
    Ok(places)
}

#[cfg(test)]
mod tests;
