//! All of it in one: hashes a run's outputs, sends them, and says what to commit.

use super::remote::{self, Place};
use super::{Cached, Change, Pointer, Pushed, Remotes, Shipment, Tracked, Tracking, cached, push, track};
use crate::error::{Context as _, Error, Kind, Result};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;

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
    /// `.dvc/config` names no remote, or one that is not supported; git tracks an output.
    pub fn check(&self, root: &Path) -> Result<()> {
        let remotes = self.remotes(root)?;
        if !self.outputs.is_empty() || self.remote.is_some() {
            remote::check(&remotes.choose(None)?)?;
        }
        match self.outputs.iter().find(|output| self.is_in_git(output)) {
            Some(output) => Err(Error::new(format!("git tracks '{output}' of DVC_OUTPUTS, so DVC cannot"))
                .kind(Kind::Configuration)
                .hint(format!("run `git rm -r --cached '{output}'` and commit that; or name it in OUTPUTS"))),
            None => Ok(()),
        }
    }

    /// The same with no other credentials than those that the repository's kinds of remotes take.
    ///
    /// # Errors
    /// `.dvc/config` cannot be read.
    pub fn narrowed(mut self, root: &Path) -> Result<Self> {
        let remotes = self.remotes(root)?;
        let schemes = remotes.schemes();
        self.environment.retain(|name, _| {
            let family = FAMILIES.iter().find(|(family, _)| name.starts_with(family));
            family.is_none_or(|(_, kinds)| kinds.iter().any(|kind| schemes.contains(kind)))
        });
        Ok(self)
    }

    fn remotes(&self, root: &Path) -> Result<Remotes> {
        Remotes::load(root, self.remote.as_deref(), self.environment.clone())
    }

    fn is_in_git(&self, path: &str) -> bool {
        self.in_git.iter().any(|tracked| Path::new(tracked).starts_with(path))
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
        let remotes = order.remotes(&root)?;
        let in_git = |path: &str| order.is_in_git(path);
        let tracking = Tracking { root: &root, outputs: &order.outputs, in_git: &in_git, remotes: &remotes };
        let tracked = track(&tracking)?;
        let cached = if order.push { cached(&root, &remotes)? } else { Cached::default() };
        Ok::<_, Error>((tracked, cached))
    };
    let read = tokio::task::spawn_blocking(read).await.context("hashing ended unexpectedly")?;
    let (Tracked { changes, shipments, pointers, skipped }, cached) = read?;
    let mut sent = Vec::new();
    for shipment in shipments.iter().chain(&cached.shipments) {
        sent.push(send(shipment).await?);
    }
    let skipped = skipped.iter().map(|path| format!("'{path}' is a link to a folder, which DVC leaves out"));
    let elsewhere =
        cached.elsewhere.iter().map(|path| format!("'{path}' is not on this machine, so it was not sent"));
    Ok(Stored { changes, pointers, sent, warnings: skipped.chain(elsewhere).collect() })
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
