//! All of it in one: hashes a run's outputs, sends them, and says what to commit.

use super::remote::{self, Place};
use super::{Cached, Change, Pointer, Pushed, Remotes, Shipment, Tracked, Tracking};
use super::{cached, foresee, push, repositories, track};
use crate::error::{Context as _, Result};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::{Path, PathBuf};

/// Whose the variables are that begin so.
const FAMILIES: [(&str, &[&str]); 7] = [
    ("AWS_", &["s3"]),
    ("AZURE_", &["azure"]),
    ("GDRIVE_", &["gdrive"]),
    ("GOOGLE_", &["gs"]),
    ("STORAGE_EMULATOR_", &["gs"]),
    ("OSS_", &["oss"]),
    ("SSH_", &["ssh"]),
];

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

    /// Finds out what can be known before there are outputs: whether there is a remote, and whether they can be DVC's.
    ///
    /// # Errors
    /// `.dvc/config` names no remote, or one that is not supported; DVC would refuse an output, or git its pointer.
    pub fn check(&self, root: &Path) -> Result<()> {
        let repositories = self.repositories(root)?;
        for repository in &repositories {
            let foreseen = repository.with_tracking(self, root, foresee)?;
            foreseen.remotes.iter().try_for_each(remote::check)?;
        }
        if self.outputs.is_empty() && self.remote.is_some() {
            // Whether a repository has anything to push shows after the training.
            let known =
                repositories.iter().map(|repository| remote::check(&repository.remotes.choose(None)?));
            return known.reduce(Result::or).unwrap_or(Ok(()));
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
        self.environment.retain(|name, _| {
            let family = FAMILIES.iter().find(|(family, _)| name.starts_with(family));
            family.is_none_or(|(_, kinds)| kinds.iter().any(|kind| schemes.contains(kind)))
        });
        Ok(self)
    }

    /// The DVC repositories of the clone at `root` that hold outputs; with `push`, all of its DVC repositories.
    fn repositories(&self, root: &Path) -> Result<Vec<Repository>> {
        let mut outputs = repositories::of_outputs(root, &self.outputs)?;
        if self.push {
            for folder in repositories::all(root)? {
                outputs.entry(folder).or_default();
            }
        }
        if outputs.is_empty() {
            outputs.insert(PathBuf::new(), Vec::new());
        }
        outputs
            .into_iter()
            .map(|(folder, outputs)| {
                let remotes = self.remotes(&root.join(&folder))?;
                Ok(Repository { folder, outputs, remotes })
            })
            .collect()
    }

    fn remotes(&self, root: &Path) -> Result<Remotes> {
        Remotes::load(root, self.remote.as_deref(), self.environment.clone())
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
        let mut cached =
            if order.push { cached(&root.join(&self.folder), &self.remotes)? } else { Cached::default() };
        for path in &mut cached.elsewhere {
            *path = self.folder.join(&*path).to_string_lossy().into_owned();
        }
        Ok((tracked, cached))
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
            stored.sent.push(send(shipment).await?);
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
        let elsewhere = cached.elsewhere.iter();
        self.warnings
            .extend(elsewhere.map(|path| format!("'{path}' is not on this machine, so it was not sent")));
    }
}

async fn send(shipment: &Shipment) -> Result<Sent> {
    let remote = remote::open(&shipment.remote).await?;
    let pushed = push(&remote, &shipment.objects).await?;
    Ok(Sent { remote: Place::of(&shipment.remote).to_string(), pushed })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_remote_gets_its_own_credentials_and_no_others() {
        let root = tempfile::tempdir().unwrap();
        let names = ["AWS_SECRET_ACCESS_KEY", "GDRIVE_CREDENTIALS_DATA", "SSH_PRIVATE_KEY", "HOME"];
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
        let shown = format!("{:?}", Order { environment, ..Order::default() });
        assert!(!shown.contains("secret"), "{shown}");
    }
}
