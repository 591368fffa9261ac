//! All of it in one: hashes a run's outputs, sends them, and says what to commit.

use super::remote::{self, Place, Settings};
use super::track::index;
use super::{
    Cached, Change, Content, DvcConfig, Folders, Pointer, Pushed, Remotes, Shipment, Tracked, Tracking,
};
use super::{cached, credentials, foresee, pipelines, push, repositories, track};
use crate::error::{Context as _, Error, Kind, Result};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::{Path, PathBuf};

/// What to keep in DVC's remotes.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Order {
    /// Files and directories to track, relative to the repository's folder.
    pub outputs: Vec<String>,
    /// Whether to send what `dvc.lock` and `.dvc` files name from DVC's own cache, too.
    pub push: bool,
    /// A remote's name or address, in the place of the default one.
    pub remote: Option<String>,
    /// The remotes' credentials, by the names that DVC and its SDKs use.
    pub environment: BTreeMap<String, String>,
    /// What git tracks of the outputs, and so DVC must not.
    pub in_git: Vec<String>,
    /// The configuration of each DVC repository of the clone, by its folder there. Where there is none the machine's own
    /// counts: a training may make a repository.
    pub configs: BTreeMap<PathBuf, DvcConfig>,
    /// What paths of remotes mean.
    pub folders: Folders,
    /// The objects that `.dvc` files of the clone name: no training of this run made them.
    pub known: BTreeSet<String>,
}

/// What came of it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stored {
    /// The files to write and commit.
    pub changes: Vec<Change>,
    /// What each output is, in the order given.
    pub pointers: Vec<(String, Pointer)>,
    /// What was sent where.
    pub sent: Vec<Sent>,
    /// What was left out, and why, in words.
    pub warnings: Vec<String>,
}

/// What was sent to one remote.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sent {
    /// The remote, in words.
    pub remote: String,
    /// What it took.
    pub pushed: Pushed,
}

impl Order {
    /// Whether there is nothing to do.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.outputs.is_empty() && !self.push
    }

    /// The same with what a machine needs to know of the clone at `root`: the configuration, credentials included, and
    /// what its files of DVC's name.
    ///
    /// # Errors
    /// `.dvc/config` or, for a push, another file of DVC's cannot be read.
    pub fn seen_in(mut self, root: &Path, folders: Folders) -> Result<Self> {
        self.folders = folders;
        for folder in self.places(root)?.into_keys() {
            let repository = root.join(&folder);
            if repository.join(".dvc").is_dir() {
                self.configs.insert(folder, DvcConfig::read(&repository)?);
            }
            if self.push {
                self.known.extend(pipelines::known(&repository)?);
            }
        }
        Ok(self)
    }

    /// The credentials in the configuration, each with a name to show in its place.
    #[must_use]
    pub fn secrets(&self) -> Vec<(String, String)> {
        self.configs.values().flat_map(DvcConfig::secrets).collect()
    }

    /// Finds out what can be known before there are outputs: whether there is a remote that the machine reaches with what it
    /// gets, and whether the outputs can be DVC's. `is_sent` tells whether a file of the clone goes to the machine.
    ///
    /// # Errors
    /// `.dvc/config` names no remote, or one that is not supported or not of use on the machine; DVC would refuse an output,
    /// or git its pointer; a file of DVC's cannot be read.
    pub fn check(&self, root: &Path, is_sent: &dyn Fn(&Path) -> Result<bool>) -> Result<()> {
        let usable = |settings: &Settings| {
            remote::check(settings)?;
            self.check_files(settings, root, is_sent)
        };
        let repositories = self.repositories(root)?;
        for repository in &repositories {
            let foreseen = repository.with_tracking(self, root, foresee)?;
            foreseen.remotes.iter().try_for_each(usable)?;
            if self.push {
                let checked = pipelines::check(&root.join(&repository.folder), &repository.remotes);
                repository.named(checked)?;
            }
        }
        if self.outputs.is_empty() && self.remote.is_some() {
            // Whether a repository has anything to push shows after the training.
            let known = repositories.iter().map(|repository| usable(&repository.remotes.choose(None)?));
            return known.reduce(Result::or).unwrap_or(Ok(()));
        }
        Ok(())
    }

    /// A credential that is a file of this machine is not on a rented one, unless git has it or `INCLUDE` names it.
    fn check_files(
        &self,
        settings: &Settings,
        root: &Path,
        is_sent: &dyn Fn(&Path) -> Result<bool>,
    ) -> Result<()> {
        if self.folders != Folders::Rented {
            return Ok(());
        }
        for (what, file, instead) in credentials::files(settings) {
            let file = index::plain(&file);
            if file.starts_with(root) && is_sent(file.strip_prefix(root).unwrap_or(&file))? {
                continue;
            }
            let place = Place::of(settings);
            return Err(Error::new(format!(
                "{what} of {place} is the file '{}', which the rented machine does not have",
                file.display()
            ))
            .kind(Kind::Configuration)
            .hint(instead));
        }
        Ok(())
    }

    /// The same with no other credentials than those that the repository's kinds of remotes take.
    ///
    /// # Errors
    /// `.dvc/config` cannot be read.
    pub fn narrowed(mut self, root: &Path) -> Result<Self> {
        let repositories = self.repositories(root)?;
        let schemes: BTreeSet<_> =
            repositories.iter().flat_map(|repository| repository.remotes.schemes()).collect();
        self.environment.retain(|name, _| credentials::is_for(name, schemes.iter().copied()));
        Ok(self)
    }

    /// The folders of the DVC repositories of the clone at `root` that hold outputs, with those; with `push`, of all of its
    /// DVC repositories.
    fn places(&self, root: &Path) -> Result<BTreeMap<PathBuf, Vec<String>>> {
        let mut places = repositories::of_outputs(root, &self.outputs)?;
        if self.push {
            for folder in repositories::all(root)? {
                places.entry(folder).or_default();
            }
        }
        if places.is_empty() {
            places.insert(PathBuf::new(), Vec::new());
        }
        Ok(places)
    }

    fn repositories(&self, root: &Path) -> Result<Vec<Repository>> {
        let repository = |(folder, outputs): (PathBuf, Vec<String>)| {
            let remotes = self.remotes(root, &folder)?;
            Ok(Repository { folder, outputs, remotes })
        };
        self.places(root)?.into_iter().map(repository).collect()
    }

    /// The remotes of the DVC repository in this folder of the clone, as the clone's own configuration has them.
    fn remotes(&self, root: &Path, folder: &Path) -> Result<Remotes> {
        let root = root.join(folder);
        let config = match self.configs.get(folder) {
            Some(config) => config.clone(),
            None => DvcConfig::read(&root)?,
        };
        let folders = match &self.folders {
            Folders::OfClone(clone) => Folders::OfClone(clone.join(folder)),
            other => other.clone(),
        };
        let remotes = Remotes::of(&root, config, self.remote.as_deref(), self.environment.clone());
        Ok(remotes.with_folders(folders))
    }

    /// What git tracks at, below or above a path.
    fn in_git(&self, path: &Path) -> Option<String> {
        let found = self
            .in_git
            .iter()
            .find(|tracked| Path::new(tracked).starts_with(path) || path.starts_with(tracked));
        found.cloned()
    }
}

/// A DVC repository of a clone, and the outputs that belong to it.
struct Repository {
    /// Its folder, relative to the clone.
    folder: PathBuf,
    /// Relative to its folder.
    outputs: Vec<String>,
    remotes: Remotes,
}

impl Repository {
    fn with_tracking<T>(
        &self,
        order: &Order,
        root: &Path,
        work: impl FnOnce(&Tracking<'_>) -> Result<T>,
    ) -> Result<T> {
        let in_git = |path: &Path| order.in_git(path);
        let Self { folder, outputs, remotes } = self;
        work(&Tracking { root, folder, outputs, in_git: &in_git, remotes })
    }

    /// What the machine has of it to send. Blocks its thread.
    fn read(&self, order: &Order, root: &Path) -> Result<(Tracked, Cached)> {
        let tracked = self.with_tracking(order, root, track)?;
        if !order.push {
            return Ok((tracked, Cached::default()));
        }
        let mut cached = self.named(cached(&root.join(&self.folder), &self.remotes, &order.known))?;
        for object in cached.shipments.iter_mut().flat_map(|shipment| &mut shipment.objects) {
            if let Content::Elsewhere { output, .. } = &mut object.content {
                *output = self.folder.join(&*output).to_string_lossy().into_owned();
            }
        }
        Ok((tracked, cached))
    }

    /// Errors tell which repository it is, unless it is the clone.
    fn named<T>(&self, done: Result<T>) -> Result<T> {
        if self.folder == Path::new("") {
            return done;
        }
        done.with_context(|| format!("in the DVC repository '{}'", self.folder.display()))
    }
}

impl fmt::Debug for Order {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<_> = self.environment.keys().collect();
        write!(out, "{:?} push {} to {:?} with {names:?}", self.outputs, self.push, self.remote)
    }
}

/// Hashes and sends what is ordered of the repository at `root`. When it returns, every object is in its remote.
///
/// Nothing is written into the repository: see [`super::write`]. Done again, it sends only what is missing.
///
/// # Errors
/// An output is missing or cannot be DVC's, or an object could not be sent. Nothing must be committed then.
pub async fn store(root: &Path, order: &Order) -> Result<Stored> {
    let (root, order) = (root.to_owned(), order.clone());
    let read = move || {
        let repositories = order.repositories(&root)?;
        repositories.iter().map(|repository| repository.read(&order, &root)).collect::<Result<Vec<_>>>()
    };
    let read = tokio::task::spawn_blocking(read).await.context("hashing ended unexpectedly")?;
    let mut stored = Stored::default();
    for (tracked, cached) in read? {
        for shipment in tracked.shipments.iter().chain(&cached.shipments) {
            let sent = send(shipment).await?;
            let absent = sent.pushed.absent.iter().map(|path| {
                format!("'{path}' was not made here, and is neither on this machine nor in its remote")
            });
            stored.warnings.extend(absent);
            stored.sent.push(sent);
        }
        stored.add(tracked, &cached);
    }
    Ok(stored)
}

impl Stored {
    fn add(&mut self, tracked: Tracked, cached: &Cached) {
        self.changes.extend(tracked.changes);
        self.pointers.extend(tracked.pointers);
        let skipped = tracked.skipped.iter();
        self.warnings
            .extend(skipped.map(|path| format!("'{path}' is a link to a folder, which DVC leaves out")));
        self.warnings.extend(cached.left_out.iter().cloned());
    }
}

async fn send(shipment: &Shipment) -> Result<Sent> {
    let remote = remote::open(&shipment.remote).await?;
    let place = Place::of(&shipment.remote);
    let pushed = push(&remote, &shipment.objects).await.with_context(|| format!("cannot push to {place}"))?;
    Ok(Sent { remote: place.to_string(), pushed })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_remote_gets_its_own_credentials_and_no_others() {
        let root = tempfile::tempdir().unwrap();
        let names =
            ["AWS_SECRET_ACCESS_KEY", "GDRIVE_CREDENTIALS_DATA", "SSH_PRIVATE_KEY", "HOME", "HF_TOKEN"];
        let environment: BTreeMap<_, _> = names.map(|name| (name.to_owned(), "secret".to_owned())).into();
        let narrowed = |remote: &str| {
            let order = Order {
                remote: Some(remote.to_owned()),
                environment: environment.clone(),
                ..Order::default()
            };
            order.narrowed(root.path()).unwrap().environment.into_keys().collect::<Vec<_>>()
        };
        assert_eq!(narrowed("gdrive://id/models"), ["GDRIVE_CREDENTIALS_DATA", "HOME"]);
        assert_eq!(narrowed("s3://bucket"), ["AWS_SECRET_ACCESS_KEY", "HOME"]);
        assert_eq!(narrowed("/mnt/models"), ["HOME"]);
        std::fs::create_dir(root.path().join(".dvc")).unwrap();
        std::fs::write(root.path().join(".dvc/config"), "['remote \"a\"']\n    url = ssh://host/x\n")
            .unwrap();
        assert_eq!(narrowed("a"), ["HOME", "SSH_PRIVATE_KEY"]);
        let local = "['remote \"a\"']\n    password = hunter22\n    keyfile = id\n";
        std::fs::write(root.path().join(".dvc/config.local"), local).unwrap();
        let order = Order { environment, ..Order::default() };
        let order = order.seen_in(root.path(), Folders::Own).unwrap();
        assert_eq!(order.secrets(), [("REMOTEA_PASSWORD".to_owned(), "hunter22".to_owned())]);
        let shown = format!("{order:?}");
        assert!(!shown.contains("secret") && !shown.contains("hunter22"), "{shown}");
    }
}
