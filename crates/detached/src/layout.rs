//! Where everything of a run lies in its store.
//!
//! ```text
//! version.json                               the version of this layout
//! v1/WORKSPACE/REPOSITORY/RUN/
//! ├── pipe/                                  written by pipes alone
//! │   ├── lease.json                         who acts on the run
//! │   ├── knock                              there once somebody came while another acted
//! │   ├── request.json                       what the run was asked for; no secret
//! │   ├── workspace                          the files that the training gets, as a bundle
//! │   └── progress.json                      machines, restarts, cost, and what came of the run
//! └── machine/MACHINE/                       written by that machine alone: its word
//!     ├── state.json                         heartbeat
//!     ├── files/HASH                         files of checkpoints and outputs
//!     ├── checkpoints/NUMBER.json            a checkpoint's manifest, after its files
//!     ├── outputs.json                       the outputs' manifest, after its files
//!     ├── rescue.json                        that of what a DVC remote did not take
//!     ├── log/OFFSET                         the training's log, in pieces
//!     └── exit.json                          how the training ended; after everything else
//! ```
//!
//! A machine's rights end at its own folder: a policy can say so, as its name is part of each key.

use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use trainspot_base::error::{Context as _, Error, Kind, Result};
use trainspot_store::{ObjectKey, Store, WriteCondition};

/// The version of the layout that this program writes and reads.
const LAYOUT_VERSION: u32 = 1;
/// The folder of that version.
const VERSION_FOLDER: &str = "v1";
/// The longest version object that is read.
const VERSION_LIMIT_BYTES: usize = 4 << 10;
/// The most objects of a repository's runs that are listed.
const LISTED_OBJECTS_LIMIT: usize = 200_000;

#[derive(Serialize, Deserialize)]
struct StoreVersion {
    version: u32,
}

/// Refuses a store of a newer version, and marks one that is new as this version's.
///
/// # Errors
/// The store is a newer version's, or cannot be read and written.
pub async fn check_version(store: &Store) -> Result<()> {
    let key = ObjectKey::new("version.json")?;
    loop {
        if let Some(found) = store.read(&key, VERSION_LIMIT_BYTES).await? {
            let found: StoreVersion = serde_json::from_slice(&found.bytes)
                .context("version.json in the store is not trainspot's")
                .map_err(|error| {
                    error.kind(Kind::Configuration).hint("let STORE name a prefix of its own")
                })?;
            if found.version > LAYOUT_VERSION {
                let found = found.version;
                return Err(Error::new(format!(
                    "the store has layout {found}, and this version of trainspot knows {LAYOUT_VERSION}"
                ))
                .kind(Kind::Configuration)
                .hint("use the version of the pipe that began the run, or a newer one"));
            }
            return Ok(());
        }
        let bytes =
            serde_json::to_vec(&StoreVersion { version: LAYOUT_VERSION }).context("cannot mark the store")?;
        // Whoever was faster has written the same, or is found to be newer.
        store.write(&key, bytes, WriteCondition::Absent).await?;
    }
}

/// The folder of a run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunFolder {
    root: ObjectKey,
}

impl RunFolder {
    /// The folder of the run with this id. Outside Pipelines a repository has no workspace and no name.
    ///
    /// # Errors
    /// A name has letters that no key can have.
    pub fn new(workspace: &str, repository: &str, run: &str) -> Result<Self> {
        Ok(Self { root: repository_folder(workspace, repository)?.join(run)? })
    }

    fn pipe(&self, name: &str) -> Result<ObjectKey> {
        self.root.join("pipe")?.join(name)
    }

    /// Everything of the run.
    #[must_use]
    pub fn root(&self) -> &ObjectKey {
        &self.root
    }

    /// The lease.
    ///
    /// # Errors
    /// The key is too long.
    pub fn lease(&self) -> Result<ObjectKey> {
        self.pipe("lease.json")
    }

    /// What says that somebody came while another acted.
    ///
    /// # Errors
    /// The key is too long.
    pub fn knock(&self) -> Result<ObjectKey> {
        self.pipe("knock")
    }

    /// What the run was asked for.
    ///
    /// # Errors
    /// The key is too long.
    pub fn request(&self) -> Result<ObjectKey> {
        self.pipe("request.json")
    }

    /// The bundle of the files that the training gets.
    ///
    /// # Errors
    /// The key is too long.
    pub fn workspace(&self) -> Result<ObjectKey> {
        self.pipe("workspace")
    }

    /// How far the run is, as pipes know it.
    ///
    /// # Errors
    /// The key is too long.
    pub fn progress(&self) -> Result<ObjectKey> {
        self.pipe("progress.json")
    }

    /// The folder of everything that machines write.
    ///
    /// # Errors
    /// The key is too long.
    pub fn machines(&self) -> Result<ObjectKey> {
        self.root.join("machine")
    }

    /// The folder of a machine, by the machine's id.
    ///
    /// # Errors
    /// The id has letters that no key can have.
    pub fn machine(&self, id: &str) -> Result<MachineFolder> {
        Ok(MachineFolder { root: self.machines()?.join(id)? })
    }
}

/// The ids of the repository's runs in a store.
///
/// # Errors
/// The store cannot be listed, or has too many objects.
pub async fn runs_of(store: &Store, workspace: &str, repository: &str) -> Result<Vec<String>> {
    let folder = repository_folder(workspace, repository)?;
    let listed = store.list(&folder, LISTED_OBJECTS_LIMIT).await?;
    let below = format!("{folder}/");
    let runs: BTreeSet<String> = listed
        .iter()
        .filter_map(|object| object.key.as_str().strip_prefix(&below)?.split_once('/'))
        .map(|(run, _)| run.to_owned())
        .collect();
    Ok(runs.into_iter().collect())
}

fn repository_folder(workspace: &str, repository: &str) -> Result<ObjectKey> {
    let named = |name: &str| if name.is_empty() { "local".to_owned() } else { name.to_owned() };
    ObjectKey::new(VERSION_FOLDER)?.join(&named(workspace))?.join(&named(repository))
}

/// The folder of a machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MachineFolder {
    root: ObjectKey,
}

impl MachineFolder {
    /// The folder with this key, as the pipe named it to the machine.
    ///
    /// # Errors
    /// The text is no key.
    pub fn at(key: &str) -> Result<Self> {
        Ok(Self { root: ObjectKey::new(key)? })
    }

    /// The folder's key.
    #[must_use]
    pub fn root(&self) -> &ObjectKey {
        &self.root
    }

    pub(crate) fn state(&self) -> Result<ObjectKey> {
        self.root.join("state.json")
    }

    pub(crate) fn exit(&self) -> Result<ObjectKey> {
        self.root.join("exit.json")
    }

    pub(crate) fn file(&self, hash: &blake3::Hash) -> Result<ObjectKey> {
        self.root.join("files")?.join(hash.to_hex().as_str())
    }

    /// The manifest of a checkpoint.
    ///
    /// # Errors
    /// The key is too long.
    pub fn checkpoint(&self, number: u64) -> Result<ObjectKey> {
        self.root.join(&format!("checkpoints/{number}.json"))
    }

    /// The manifest of the outputs.
    ///
    /// # Errors
    /// The key is too long.
    pub fn outputs(&self) -> Result<ObjectKey> {
        self.root.join("outputs.json")
    }

    /// The manifest of what DVC was to keep and could not.
    ///
    /// # Errors
    /// The key is too long.
    pub fn rescue(&self) -> Result<ObjectKey> {
        self.root.join("rescue.json")
    }

    pub(crate) fn log(&self) -> Result<ObjectKey> {
        self.root.join("log")
    }
}
